"""`QueryProposer`: the queries of Mask2Former (arXiv 2112.01527), OneFormer (2211.06220) or MaskFormer as candidates.

Through transformers. Such a model predicts a fixed number of masks with class scores; every mask is a candidate here,
whatever its class.
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
"""Supported `model_type`."""

_WHAT = "model with mask queries"
_EXAMPLE = "facebook/mask2former-swin-large-coco-instance"


class QueryProposer:
    """A `Proposer` by a universal segmentation model.

    Args:
        model: hub id or folder, for example facebook/mask2former-swin-large-coco-instance, or
            shi-labs/oneformer_coco_swin_large.
        score_thresh: least score of a candidate; see `propose`.
        max_candidates: greatest number of candidates, by score; None for all.
        device: auto, cpu or cuda.
        task: task of OneFormer, "instance" if None. Other models have only the task of their weights.

    Raises:
        FileNotFoundError: the model is not available.
        ValueError: it is another kind of model, or takes no task.
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
        takes_task = kind == "oneformer"
        if task is not None and not takes_task:
            raise ValueError(f"task {task!r} was given but {model!r} is a {kind} model; expected none, or a OneFormer")
        self.processor, loaded = load_pretrained(
            model,
            _WHAT,
            _EXAMPLE,
            AutoModelForUniversalSegmentation,
            _TaskProcessor if takes_task else AutoImageProcessor,
            dtype=torch.float32,
        )
        self.model = loaded.to(place)
        self._task_inputs = {"task_inputs": [task or "instance"]} if takes_task else {}
        if takes_task:
            self.processor.task_seq_length = loaded.config.task_seq_len
        self.score_thresh, self.max_candidates = score_thresh, max_candidates
        self.trained_on = _trained_on(model)

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The model with its image processor."""
        model = arguments["model"]
        return hub_cache.transformers_model(model, f"a {_WHAT}", _EXAMPLE, hub_cache.PROCESSOR)

    def cache_key(self) -> str:
        """The key of the weights and all settings but the device."""
        return cache_key(
            "QueryProposer",
            weights=weights_digest(self.model),
            asked=self._task_inputs,
            score_thresh=self.score_thresh,
            max_candidates=self.max_candidates,
        )

    @torch.inference_mode()
    def propose(self, image: np.ndarray) -> MaskSet:
        """Candidates at the size of the image, (H, W, 3) uint8, by falling score.

        The score, in [0, 1], is the probability of the best class times the mean probability of the pixels of the mask,
        as the authors rank instances. Column "label", (N,) int64: that class.
        """
        size = size_of(image)
        inputs = self.processor(
            images=image, input_data_format="channels_last", return_tensors="pt", **self._task_inputs
        ).to(self.model.device)
        out = self.model(**inputs)
        logits = out.masks_queries_logits[0].float()
        probabilities, labels = out.class_queries_logits[0].float().softmax(-1)[:, :-1].max(-1)  # last: no object
        likely = torch.nonzero(probabilities >= self.score_thresh)[:, 0]
        logits = upsample_logits(_without_padding(logits[likely], inputs.get("pixel_mask")), size)
        masks = logits > 0
        inside = (logits.sigmoid() * masks).flatten(1).sum(1) / masks.flatten(1).sum(1).clamp(min=1)
        scores = probabilities[likely] * inside
        kept = torch.nonzero((scores >= self.score_thresh) & not_empty(masks))[:, 0]
        order = kept[torch.sort(scores[kept], descending=True, stable=True).indices][: self.max_candidates]
        return MaskSet(masks[order].cpu(), scores[order].cpu(), "queries", {"label": labels[likely][order].cpu()})


def _trained_on(model: str) -> tuple[Provenance, ...]:
    """Training data by the name of the hub id or folder: published COCO models were trained on train2017."""
    name = f"{model}, COCO's by its name"
    return (Provenance.of_dataset(name, "coco", "train2017"),) if "coco" in Path(model).name.lower() else ()


class _TaskProcessor:
    """OneFormer's image processor and tokenizer.

    They are loaded one by one, because OneFormer's own processor also downloads class names from another repository,
    which only training uses.
    """

    @staticmethod
    def from_pretrained(model: str) -> OneFormerProcessor:
        """Load both. Raises OSError if one of them is not available."""
        images = AutoImageProcessor.from_pretrained(model, class_info_file=None)
        return OneFormerProcessor(images, AutoTokenizer.from_pretrained(model))


def _without_padding(logits: Tensor, pixel_mask: Tensor | None) -> Tensor:
    """Cut logits (N, h, w) to the image, which `pixel_mask` (1, S, T) marks in the model's input."""
    if pixel_mask is None:
        return logits
    rows, columns = (int(pixel_mask[0].any(axis).sum()) for axis in (1, 0))
    height, width = pixel_mask.shape[1:]
    return logits[:, : -(-rows * logits.shape[1] // height), : -(-columns * logits.shape[2] // width)]
