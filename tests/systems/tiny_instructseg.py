"""A tiny InstructSeg with random weights."""

from typing import Any

import torch

from maskselect.decoders.mask2former import MaskDecoder, PixelDecoder
from maskselect.encoders.compact import ConvEncoder
from maskselect.lmm.llava import Llava
from maskselect.systems.instructseg import InstructSeg
from maskselect.tokens.text_fusion import TextFusion
from maskselect.tokens.video_perceiver import VideoPerceiver
from tests.systems.tiny import SIZES

SIDE = 64


def tiny_instructseg(recompute: bool = False, **arguments: Any) -> InstructSeg:
    """32 pixels for the language model, 64 for the masks, 6 queries."""
    torch.manual_seed(0)
    lmm = Llava(sizes=SIZES, gradient_checkpointing=recompute)
    settings: dict[str, Any] = {
        "encoder": ConvEncoder(image_size=SIDE, depths=[1, 1, 1], channels=[8, 8, 16], levels=[1, 2, 3], stem_width=4),
        "pixel_decoder": PixelDecoder([8, 8, 16], 16, 2, 2, 1, 32, 16, 0),
        "mask_decoder": MaskDecoder(16, 2, 32, 2, 6, 16, 2),
        "fusion": TextFusion(lmm.width, 16, 24, 16, 1, 2, 8),
        "perceiver": VideoPerceiver(lmm.width, 3, 1, 2, 8),
        "queries": 6,
        "side": 32,
        "reference_frames": 2,
    }
    return InstructSeg(lmm, **settings | arguments)
