"""`SamProposer`: everything mode, boxes and points of a Segment Anything model (arXiv 2304.02643).

`proposers/everything.py` implements the modes. The image part of the decoder runs once per image
(`backends/sam_attention.py`), and prompts whose masks all fail by predicted IoU are not upsampled.
"""

from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from maskselect.backends.devices import pick_device
from maskselect.backends.sam import load_sam, sam_needs
from maskselect.backends.sam_network import Sam
from maskselect.backends.sam_points import MasksPerPoint, PointDecoder
from maskselect.ops.images import size_of
from maskselect.proposers.everything import EverythingProposer, longest_side
from maskselect.proposers.sam_filter import Frame
from maskselect.structures.needs import Arguments, Need


class SamNetwork:
    """SAM as a `PromptNetwork`. An image is scaled to the side of the encoder and padded below and to the right."""

    source = "sam"

    def __init__(self, sam: Sam, decoder: PointDecoder, device: torch.device) -> None:
        self.sam, self.decoder, self.device = sam, decoder, device
        self.side: int = sam.image_encoder.img_size
        self.low = 4 * sam.prompt_encoder.image_embedding_size[0]

    def frame(self, size: tuple[int, int]) -> Frame:
        """The frame of an image of (height, width)."""
        return Frame(size, longest_side(size, self.side), self.side, self.low)

    def embed(self, image: np.ndarray) -> Tensor:
        """Image (H, W, 3) uint8 to the image embedding (1, C, h, w)."""
        height, width = longest_side(size_of(image), self.side)
        if image.shape[:2] != (height, width):
            image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        pixels = rearrange(torch.tensor(image, dtype=torch.uint8), "h w c -> c h w")[None].to(self.device)
        return self.decoder.embed(self.sam.preprocess(pixels.float()))

    def encode_points(self, points: Tensor) -> Tensor:
        """Foreground points (P, 2) in the model frame, one per prompt, to (P, T, C)."""
        labels = torch.ones(len(points), 1, dtype=torch.float32, device=points.device)
        return self.sam.prompt_encoder.points(points[:, None], labels)

    def encode_boxes(self, corners: Tensor) -> Tensor:
        """Box corners (P, 4) in the model frame to (P, T, C)."""
        return self.sam.prompt_encoder.boxes(corners)


@dataclass(kw_only=True, eq=False, repr=False)
class SamProposer(EverythingProposer):
    """A `PromptableProposer` by SAM.

    Args:
        checkpoint, model_type: see `backends.sam.load_sam`.
        compile: apply torch.compile to encoder and decoder. It takes half a minute, and saves time after a few images.
        masks_per_point: 3, as in the package, or 1, the decoder's single mask, as in the paper of LLM-Seg; also for
            boxes.
        device: auto, cpu or cuda.
        points_per_side, …, memory_budget_mb: see `EverythingSettings`.

    The defaults are tuned for the shipped compact SAM on generated scenes. Official weights need those of the package:
    32 points, thresholds 0.88 and 0.95, box suppression 0.7, no mask suppression.

    Raises:
        ValueError: a setting is out of range.
    """

    checkpoint: InitVar[str | Path] = field(default="sam", kw_only=False)
    model_type: InitVar[str] = field(default="compact", kw_only=False)
    compile: InitVar[bool] = False
    masks_per_point: InitVar[MasksPerPoint] = 3
    device: InitVar[str] = "cpu"

    points_per_side: int = 12
    pred_iou_thresh: float = 0.3
    stability_score_thresh: float = 0.4
    box_nms_thresh: float = 0.95
    mask_nms_thresh: float | None = 0.8
    max_candidates: int | None = 64

    def __post_init__(
        self, checkpoint: str | Path, model_type: str, compile: bool, masks_per_point: MasksPerPoint, device: str
    ) -> None:
        self.check()
        if masks_per_point not in get_args(MasksPerPoint):
            raise ValueError(f"masks_per_point must be 1 or 3, got {masks_per_point}")
        place = pick_device(device)
        self.sam = load_sam(model_type, checkpoint).to(place)
        self.decoder = PointDecoder(
            self.sam, self.points_per_batch, self.precision, compile, self.memory_budget_mb, masks_per_point
        )
        network = SamNetwork(self.sam, self.decoder, place)
        self.use(network, self.sam, model_type=model_type, masks_per_point=masks_per_point)

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The weights of SAM."""
        return sam_needs(arguments)
