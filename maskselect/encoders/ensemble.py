"""Several encoders read as one: each mask's features from every map, concatenated (RAS, section 3.2).

Shape letters: B images, N masks, H W pixels of the un-padded image, C channels over all encoders.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from maskselect.backends.cache_keys import cache_key
from maskselect.encoders.framing import Framing, cornered_images, framed_masks, read_part, square_images
from maskselect.encoders.frozen import FrozenEncoder, as_triple, merged
from maskselect.ops.boxes import masks_to_boxes_xyxy
from maskselect.ops.pooling import MASK_RESIZES, MaskResize, cell_weights, mask_pool
from maskselect.structures.features import FeatureMap
from maskselect.structures.protocols import Encoder

GEOMETRY = 5

Dtype = Literal["float32", "bfloat16"]


class EncoderEnsemble(nn.Module):
    """Frozen encoders side by side; the levels of each are merged on its own finest grid.

    Args:
        encoders: at least one, with different names.
        mask_resize: "area" (soft weights, so that no mask vanishes) or "nearest" (the paper's words); "fine" and
            "fine_aliased" are LLM-Seg's, see `ops/pooling.py`.
        geometry: append [sqrt(area share), x0, y0, x1, y1], shares of the padded square. This is ours, not the
            paper's: the mean of a sinusoid barely encodes the extent of a mask. False for parity with the paper.
        pad_value: pads an image that is not square, in [0, 1]; one value, or one each for R, G and B. The compact
            models use 0. Cambrian-1 pads with the mean colour of CLIP, also for SigLIP (and for DINOv2 with
            ImageNet's, one grey value off), in whole grey values 122, 116 and 104.
        framing: "centre", or "corner", which takes no pad_value; see `encoders/framing.py`.
        dtype: in which the weights of learned encoders are held; "bfloat16" halves their memory.

    Attributes:
        info: what each encoder declares.
        channels: C.

    Raises:
        ValueError: for no encoder, for equal names, or for an unknown resize, framing or dtype.
    """

    def __init__(
        self,
        encoders: Sequence[Encoder],
        mask_resize: MaskResize = "area",
        geometry: bool = True,
        pad_value: float | Sequence[float] = 0.0,
        framing: Framing = "centre",
        dtype: Dtype = "float32",
    ) -> None:
        super().__init__()
        names = [encoder.info.name for encoder in encoders]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"an ensemble needs encoders with different names, got {names}")
        if mask_resize not in MASK_RESIZES:
            raise ValueError(f"mask_resize {mask_resize!r} is unknown; expected one of {', '.join(MASK_RESIZES)}")
        if framing not in ("centre", "corner"):
            raise ValueError(f"framing {framing!r} is unknown; expected 'centre' or 'corner'")
        self.info = [encoder.info for encoder in encoders]
        # A list, because a ModuleList would lose the protocol's type; modules are registered one by one.
        self._encoders = list(encoders)
        for encoder in encoders:
            if isinstance(encoder, nn.Module):
                self.add_module(f"encoder_{encoder.info.name}", encoder)
        self.mask_resize: MaskResize = mask_resize
        self.geometry = geometry
        self.pad_value = pad_value if isinstance(pad_value, int | float) else as_triple(pad_value, "pad_value")
        if dtype not in get_args(Dtype):
            raise ValueError(f"dtype {dtype!r} is unknown; expected one of {', '.join(get_args(Dtype))}")
        self.framing: Framing = framing
        for encoder in encoders:
            if dtype != "float32" and isinstance(encoder, FrozenEncoder):
                encoder.hold_in(getattr(torch, dtype))
        self.channels = sum(info.channels for info in self.info) + (GEOMETRY if geometry else 0)

    def cache_key(self) -> str:
        """Covers every encoder and how images and masks are framed."""
        return cache_key(
            "EncoderEnsemble",
            encoders=self._encoders,
            mask_resize=self.mask_resize,
            geometry=self.geometry,
            pad_value=self.pad_value,
            framing=self.framing,
        )

    @torch.no_grad()
    def encode(self, images: Tensor) -> list[FeatureMap]:
        """Framed images (B, 3, S, S) float in [0, 1] to one merged map per encoder, in the order of `encoders`."""
        return [merged(encoder.encode(images)) for encoder in self._encoders]

    @torch.no_grad()
    def pool(self, maps: Sequence[FeatureMap], masks: Tensor) -> Tensor:
        """Features of the masks of one image.

        Args:
            maps: result of `maps`, or of `encode` for one image (B = 1).
            masks: (N, H, W) bool over the un-padded image, at any resolution of it; they are padded as the image was.

        Returns:
            (N, C) float32.

        Raises:
            ValueError: when the maps hold several images or belong to another ensemble.
        """
        if [m.info for m in maps] != self.info:
            raise ValueError(f"maps of {[m.info.name for m in maps]} do not belong to {[i.name for i in self.info]}")
        if any(len(m.features) != 1 for m in maps):
            raise ValueError(f"pool takes the maps of one image, got {[len(m.features) for m in maps]}; see `split`")
        framed = framed_masks(masks.to(maps[0].features.device), self.framing)
        parts = []
        for m in maps:
            weights = cell_weights(read_part(framed, m.info.covered), _grid(m), self.mask_resize)
            parts.append(mask_pool(m.features[0].float(), weights))
        if self.geometry:
            parts.append(mask_geometry(framed))
        return torch.cat(parts, 1)

    @torch.no_grad()
    def maps(self, image: np.ndarray) -> list[FeatureMap]:
        """Frame and encode one image, (H, W, 3) uint8: one merged map per encoder, for `pool`."""
        device = next(chain(self.parameters(), self.buffers())).device
        if self.framing == "corner":
            return [merged(encoder.encode(cornered_images(image, encoder.info, device))) for encoder in self._encoders]
        return self.encode(square_images(image, self.pad_value, device))

    def features(self, image: np.ndarray, masks: Tensor) -> Tensor:
        """Encode and pool in one call: (H, W, 3) uint8 and (N, H, W) bool to (N, C) float32."""
        return self.pool(self.maps(image), masks)


def split(maps: Sequence[FeatureMap]) -> list[list[FeatureMap]]:
    """Maps of B images, one per encoder, to B lists of maps of one image each."""
    return [[FeatureMap(m.features[i : i + 1], m.info, m.stride) for m in maps] for i in range(len(maps[0].features))]


def _grid(m: FeatureMap) -> tuple[int, int]:
    return m.features.shape[-2], m.features.shape[-1]


def mask_geometry(masks: Tensor) -> Tensor:
    """(N, S, S) bool to (N, 5) float32 in [0, 1]: sqrt(area share), then the tight box x0, y0, x1, y1. Empty: zeros."""
    if len(masks) == 0:
        return torch.zeros(0, GEOMETRY, dtype=torch.float32, device=masks.device)
    side = masks.shape[-1]
    share = masks.flatten(1).float().mean(1, keepdim=True).sqrt()
    return torch.cat([share, masks_to_boxes_xyxy(masks) / side], 1)
