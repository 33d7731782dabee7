"""`QueryProposer`: the queries of Mask2Former (arXiv 2112.01527) or MaskFormer as candidates, through transformers.

Such a model answers with a fixed number of masks, each with its classes; here a mask is a candidate, whatever it is of.
"""

import numpy as np
import torch
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation

from maskselect.backends.devices import pick_device
from maskselect.ops.masks import upsample_logits
from maskselect.structures.masks import MaskSet


class QueryProposer:
    """A `Proposer` by a universal segmentation model.

    Args:
        model: hub id or folder, for example facebook/mask2former-swin-large-coco-instance.
        score_thresh: queries below it are left out; see `propose`.
        max_candidates: at most so many, those of highest score; None for all.
        device: auto, cpu or cuda.

    Raises FileNotFoundError when the model is not there, ValueError when it is of another kind.
    """

    def __init__(
        self, model: str, score_thresh: float = 0.1, max_candidates: int | None = None, device: str = "auto"
    ) -> None:
        if not 0 <= score_thresh <= 1:
            raise ValueError(f"score_thresh must be between 0 and 1, got {score_thresh}")
        try:
            self.processor = AutoImageProcessor.from_pretrained(model)
            loaded = AutoModelForUniversalSegmentation.from_pretrained(model)
        except OSError as error:
            raise FileNotFoundError(
                f"segmentation model {model!r} could not be loaded; expected a folder or a hub id such as "
                f"'facebook/mask2former-swin-large-coco-instance' (get it with: hf download {model})"
            ) from error
        except ValueError as error:
            raise ValueError(f"{model!r} is not a model with mask queries: {' '.join(str(error).split())}") from error
        self.model = loaded.to(pick_device(device)).eval()
        self.score_thresh, self.max_candidates = score_thresh, max_candidates

    @torch.inference_mode()
    def propose(self, image: np.ndarray) -> MaskSet:
        """(H, W, 3) uint8 to candidates at the image's own size, by falling score.

        Scores: the probability of the likeliest class times the mean probability of the mask's own pixels, as the
        authors rank instances; in [0, 1]. Column "label", (N,) int64: that class.
        """
        given = self.processor(images=image, return_tensors="pt").to(self.model.device)
        out = self.model(**given)
        logits = out.masks_queries_logits[0].float()
        chances, labels = out.class_queries_logits[0].float().softmax(-1)[:, :-1].max(-1)  # the last is "nothing"
        sure = torch.nonzero(chances >= self.score_thresh)[:, 0]
        size = (image.shape[0], image.shape[1])
        logits = upsample_logits(_without_padding(logits[sure], given.get("pixel_mask")), size)
        masks = logits > 0
        inside = (logits.sigmoid() * masks).flatten(1).sum(1) / masks.flatten(1).sum(1).clamp(min=1)
        scores = chances[sure] * inside
        shown = torch.nonzero((scores >= self.score_thresh) & masks.flatten(1).any(1))[:, 0]
        order = shown[torch.sort(scores[shown], descending=True, stable=True).indices][: self.max_candidates]
        return MaskSet(masks[order].cpu(), scores[order].cpu(), "queries", {"label": labels[sure][order].cpu()})


def _without_padding(logits: Tensor, pixel_mask: Tensor | None) -> Tensor:
    """The part of (N, h, w) that is the image's, whose pixels in the model's frame `pixel_mask` (1, S, T) marks."""
    if pixel_mask is None:
        return logits
    rows, columns = (int(pixel_mask[0].any(axis).sum()) for axis in (1, 0))
    height, width = pixel_mask.shape[1:]
    return logits[:, : -(-rows * logits.shape[1] // height), : -(-columns * logits.shape[2] // width)]
