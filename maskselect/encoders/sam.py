"""Segment Anything's own image embedding as features of its masks (LLM-Seg, Table 4)."""

from pathlib import Path

import torch
from torch import Tensor

from maskselect.backends.sam import load_sam, sam_needs
from maskselect.backends.sam_network import PIXEL_MEAN, PIXEL_STD
from maskselect.encoders.frozen import FrozenEncoder
from maskselect.structures.features import FeatureInfo, FeatureLevel
from maskselect.structures.needs import Arguments, Need


class SamEncoder(FrozenEncoder):
    """The image encoder of a SAM, neck included. Errors are those of `backends.sam.load_sam`.

    SAM pads an image on the right and below, an ensemble with framing "centre" on all sides.

    Args:
        name: short name, unique within an ensemble.
        checkpoint, model_type: see `backends.sam.load_sam`.
    """

    def __init__(self, name: str = "sam", checkpoint: str | Path = "sam", model_type: str = "compact") -> None:
        sam = load_sam(model_type, checkpoint)
        side = int(sam.image_encoder.img_size)
        height, width = sam.prompt_encoder.image_embedding_size
        scaled = (torch.tensor(values, dtype=torch.float32, device="cpu") / 255 for values in (PIXEL_MEAN, PIXEL_STD))
        mean, std = (values.tolist() for values in scaled)
        info = FeatureInfo(
            name=name,
            levels=(FeatureLevel(int(sam.prompt_encoder.embed_dim), side // int(height)),),
            input_size=side,
            grid=(int(height), int(width)),
            mean=(mean[0], mean[1], mean[2]),
            std=(std[0], std[1], std[2]),
        )
        super().__init__(info, "bilinear", model_type=model_type)
        self.encoder = sam.image_encoder
        self.freeze()

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The weights of SAM."""
        return sam_needs(arguments)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Normalised (B, 3, S, S) to one map (B, C, h, w)."""
        return [self.encoder(images)]
