"""`QueryProposer`: the queries of Mask2Former (arXiv 2112.01527), OneFormer (2211.06220) or MaskFormer as candidates.

Through transformers. Such a model answers with a fixed number of masks, each with its classes; here a mask is a
candidate, whatever it is of.
"""

from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation, AutoTokenizer, OneFormerProcessor

from maskselect.backends import hub_cache
from maskselect.backends.cache_keys import cache_key, weights_digest
from maskselect.backends.devices import pick_device
from maskselect.backends.pretrained import load_pretrained, model_type
from maskselect.ops.images import size_of
from maskselect.ops.masks import not_empty, upsample_logits
from maskselect.structures.masks import MaskSet
from maskselect.structures.needs import Arguments, Need
from maskselect.structures.provenance import Provenance

Task = Literal["instance", "panoptic", "semantic"]
MODEL_TYPES = ("mask2former", "maskformer", "oneformer")
"""`model_type` of configs that will do."""

_WHAT = "model with mask queries"
_EXAMPLE = "facebook/mask2former-swin-large-coco-instance"


class QueryProposer:
    """A `Proposer` by a universal segmentation model.

    Args:
        model: hub id or folder, for example facebook/mask2former-swin-large-coco-instance, or
            shi-labs/oneformer_coco_swin_large.
        score_thresh: queries below it are left out; see `propose`.
        max_candidates: at most so many, those of highest score; None for all.
        device: auto, cpu or cuda.
        task: what OneFormer is asked for, "instance" if None. The other models know only the task of their weights.

    Raises FileNotFoundError when the model is not there; ValueError when it is of another kind, or takes no task.
    """

    def __init__(
        self,
        model: str,
        score_thresh: float = 0.1,
        max_candidates: int | None = None,
        device: str = "auto",
        task: Task | None = None,
    ) -> None:
        if not 0 <= score_thresh <= 1:
            raise ValueError(f"score_thresh must be between 0 and 1, got {score_thresh}")
        if task is not None and task not in get_args(Task):
            raise ValueError(f"task {task!r} is unknown; expected one of {', '.join(get_args(Task))}")
        place = pick_device(device)
        kind = model_type(model, _WHAT, _EXAMPLE, MODEL_TYPES)
        asks = kind == "oneformer"
        if task is not None and not asks:
            raise ValueError(f"task {task!r} was given but {model!r} is a {kind} model; expected none, or a OneFormer")
        self.processor, loaded = load_pretrained(
            model,
            _WHAT,
            _EXAMPLE,
            AutoModelForUniversalSegmentation,
            _TaskProcessor if asks else AutoImageProcessor,
            dtype=torch.float32,
        )
        self.model = loaded.to(place)
        self._asked = {"task_inputs": [task or "instance"]} if asks else {}
        if asks:
            self.processor.task_seq_length = loaded.config.task_seq_len
        self.score_thresh, self.max_candidates = score_thresh, max_candidates
        self.trained_on = _trained_on(model)

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The model with its image processor."""
        model = arguments["model"]
        return hub_cache.transformers_model(model, f"a {_WHAT}", _EXAMPLE, hub_cache.PROCESSOR)

    def cache_key(self) -> str:
        """Of the weights and all settings but the device."""
        return cache_key(
            "QueryProposer",
            weights=weights_digest(self.model),
            asked=self._asked,
            score_thresh=self.score_thresh,
            max_candidates=self.max_candidates,
        )

    @torch.inference_mode()
    def propose(self, image: np.ndarray) -> MaskSet:
        """(H, W, 3) uint8 to candidates at the image's own size, by falling score.

        Scores: the probability of the likeliest class times the mean probability of the mask's own pixels, as the
        authors rank instances; in [0, 1]. Column "label", (N,) int64: that class.
        """
        size = size_of(image)
        given = self.processor(images=image, input_data_format="channels_last", return_tensors="pt", **self._asked)
        given = given.to(self.model.device)
        out = self.model(**given)
        logits = out.masks_queries_logits[0].float()
        chances, labels = out.class_queries_logits[0].float().softmax(-1)[:, :-1].max(-1)  # the last is "nothing"
        sure = torch.nonzero(chances >= self.score_thresh)[:, 0]
        logits = upsample_logits(_without_padding(logits[sure], given.get("pixel_mask")), size)
        masks = logits > 0
        inside = (logits.sigmoid() * masks).flatten(1).sum(1) / masks.flatten(1).sum(1).clamp(min=1)
        scores = chances[sure] * inside
        shown = torch.nonzero((scores >= self.score_thresh) & not_empty(masks))[:, 0]
        order = shown[torch.sort(scores[shown], descending=True, stable=True).indices][: self.max_candidates]
        return MaskSet(masks[order].cpu(), scores[order].cpu(), "queries", {"label": labels[sure][order].cpu()})


def _trained_on(model: str) -> tuple[Provenance, ...]:
    """What the name of a hub id or folder says: the published ones of COCO learned from its train2017."""
    name = f"{model}, COCO's by its name"
    return (Provenance.of_dataset(name, "coco", "train2017"),) if "coco" in Path(model).name.lower() else ()


class _TaskProcessor:
    """OneFormer's image processor and tokenizer.

    Read one by one, since its own processor would fetch a list of class names from a second place, which is of use in
    training alone.
    """

    @staticmethod
    def from_pretrained(model: str) -> OneFormerProcessor:
        """Raises OSError when one of them is not there."""
        images = AutoImageProcessor.from_pretrained(model, class_info_file=None)
        return OneFormerProcessor(images, AutoTokenizer.from_pretrained(model))


def _without_padding(logits: Tensor, pixel_mask: Tensor | None) -> Tensor:
    """The part of (N, h, w) that is the image's, whose pixels in the model's frame `pixel_mask` (1, S, T) marks."""
    if pixel_mask is None:
        return logits
    rows, columns = (int(pixel_mask[0].any(axis).sum()) for axis in (1, 0))
    height, width = pixel_mask.shape[1:]
    return logits[:, : -(-rows * logits.shape[1] // height), : -(-columns * logits.shape[2] // width)]
