"""`SamProposer`: everything mode and prompts of a Segment Anything model (arXiv 2304.02643).

The parameters and filters are those of the package's `SamAutomaticMaskGenerator`; `proposers/everything.py` holds the
work. Beyond it, the decoder's image side is computed once (`backends/sam_attention.py`), and prompts whose masks all
fail by predicted IoU are never upscaled.
"""

from pathlib import Path
from typing import get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from maskselect.backends.devices import pick_device
from maskselect.backends.sam import load_sam, sam_needs
from maskselect.backends.sam_network import Sam
from maskselect.backends.sam_points import MasksPerPoint, PointDecoder, Precision
from maskselect.ops.images import size_of
from maskselect.proposers.everything import EverythingProposer, Mode, check_settings, longest_side
from maskselect.proposers.sam_filter import Frame, StabilityFilter
from maskselect.structures.needs import Arguments, Need


class SamNetwork:
    """SAM's modules as a `PromptNetwork`.

    Frames: an image with its longer side brought to the encoder's, padded below and to the right.
    """

    source = "sam"

    def __init__(self, sam: Sam, decoder: PointDecoder, device: torch.device) -> None:
        self.sam, self.decoder, self.device = sam, decoder, device
        self.side: int = sam.image_encoder.img_size
        self.low = 4 * sam.prompt_encoder.image_embedding_size[0]

    def frame(self, size: tuple[int, int]) -> Frame:
        """Where an image of (height, width) lies in the model's square and in the logits'."""
        return Frame(size, longest_side(size, self.side), self.side, self.low)

    def embed(self, image: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 to the image embedding (1, C, h, w)."""
        height, width = longest_side(size_of(image), self.side)
        if image.shape[:2] != (height, width):
            image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        pixels = torch.tensor(image, dtype=torch.uint8).permute(2, 0, 1)[None].to(self.device)
        return self.decoder.embed(self.sam.preprocess(pixels.float()))

    def encode_points(self, points: Tensor) -> Tensor:
        """(P, 2) points in the model frame, one a prompt, inside what is looked for, to (P, T, C)."""
        labels = torch.ones(len(points), 1, dtype=torch.float32, device=points.device)
        return self.sam.prompt_encoder.points(points[:, None], labels)

    def encode_boxes(self, corners: Tensor) -> Tensor:
        """(P, 4) corners in the model frame to (P, T, C)."""
        return self.sam.prompt_encoder.boxes(corners)


class SamProposer(EverythingProposer):
    """A `PromptableProposer` by SAM.

    checkpoint, model_type: see `backends.sam.load_sam`.
    points_per_side, points_per_batch: the grid of prompts, and how many go through the decoder together.
    pred_iou_thresh, stability_score_thresh, stability_score_offset: a mask stays when its predicted IoU is above and
        its stability at or above these. 0 switches a filter off.
    box_nms_thresh: suppression by box IoU within a crop. 1 switches it off.
    crop_n_layers, crop_nms_thresh, crop_overlap_ratio, crop_n_points_downscale_factor: further passes over crops,
        (2^i)^2 of them in layer i.
    min_mask_region_area: holes and islands smaller than this many image pixels are mended.
    masks_per_point: 3, as in the package, or the decoder's single one, as the paper of LLM-Seg says; of boxes too.
    mask_nms_thresh: suppression by mask IoU after all the others, on the low frame; None for none, as in the package.
    mode: "fast" decides on the decoder's grid; "exact" at full size, which gives the package's own masks.
    decision_side: in fast mode, logits of a smaller side are enlarged to it first. 0 takes the decoder's own grid,
        which is 256 for official SAM and 64 for the compact one.
    precision: of encoder and decoder. Logits are compared with thresholds in float32 either way.
    compile: run encoder and decoder through torch.compile, which takes half a minute once and pays after a few images.
    memory_budget_mb: most memory that the decoder may take; batches of points shrink to it. None for no limit.
    refine: ask for every mask once more, by its own box and logits. The package does not do it; it pays where the model
        was trained long enough in further rounds.
    max_candidates: at most so many, those of highest predicted IoU; None for all.

    The defaults are tuned for the shipped compact SAM on generated scenes. Official weights want the package's: 32
    points, thresholds 0.88 and 0.95, box suppression 0.7, no mask suppression.
    """

    def __init__(
        self,
        checkpoint: str | Path = "sam",
        model_type: str = "compact",
        points_per_side: int = 12,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.3,
        stability_score_thresh: float = 0.4,
        stability_score_offset: float = 1.0,
        box_nms_thresh: float = 0.95,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        min_mask_region_area: int = 0,
        mask_nms_thresh: float | None = 0.8,
        max_candidates: int | None = 64,
        refine: bool = False,
        mode: Mode = "fast",
        decision_side: int = 0,
        precision: Precision = "float32",
        compile: bool = False,
        memory_budget_mb: int | None = None,
        masks_per_point: MasksPerPoint = 3,
        device: str = "cpu",
    ) -> None:
        check_settings(points_per_side, points_per_batch, mode, precision)
        if masks_per_point not in get_args(MasksPerPoint):
            raise ValueError(f"masks_per_point must be 1 or 3, got {masks_per_point}")
        place = pick_device(device)
        self.sam = load_sam(model_type, checkpoint).to(place)
        self.decoder = PointDecoder(self.sam, points_per_batch, precision, compile, memory_budget_mb, masks_per_point)
        network = SamNetwork(self.sam, self.decoder, place)
        super().__init__(
            network,
            points_per_side=points_per_side,
            pred_iou_thresh=pred_iou_thresh,
            stability=StabilityFilter(stability_score_thresh, stability_score_offset, decision_side),
            box_nms_thresh=box_nms_thresh,
            crop_n_layers=crop_n_layers,
            crop_nms_thresh=crop_nms_thresh,
            crop_overlap_ratio=crop_overlap_ratio,
            crop_n_points_downscale_factor=crop_n_points_downscale_factor,
            min_mask_region_area=min_mask_region_area,
            mask_nms_thresh=mask_nms_thresh,
            max_candidates=max_candidates,
            refine=refine,
            mode=mode,
        )

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The weights of SAM."""
        return sam_needs(arguments)
