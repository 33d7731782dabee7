"""An image encoder for SAM over a frozen pretrained network, of which only the neck is trained.

Segment Anything's own encoder is a ViT whose neck makes the image embedding. Here a `FrozenEncoder` of any kind takes
the place of the ViT, and its maps of several strides meet on one grid: coarser maps are brought there bilinearly, the
cells of finer ones become channels, so that the embedding keeps their detail.

Shape letters: B images, S side of the square, C channels of the embedding, h w its grid.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskselect.backends.sam_encoder import LayerNorm2d

FROZEN = "image_encoder.trunk."
"""Prefix of the names of the frozen network in a `Sam`; checkpoints leave it out, because it has one of its own."""


class TrunkEncoder(nn.Module):
    """Frozen maps and a neck.

    Args:
        trunk: a frozen `Encoder`; the grid of the embedding is its input size over `stride`, in cells.
        stride: of the embedding; a stride of one of the maps.
        out_chans: C.
        keep_maps: while training, keep the maps of each picture in memory, float16; for a data set without random
            colours that fits there.

    Attributes:
        img_size: S, the trunk's input size.

    Raises:
        ValueError: the trunk has no map of that stride.
    """

    def __init__(self, trunk: Any, stride: int, out_chans: int, keep_maps: bool = False) -> None:
        super().__init__()
        strides = [level.stride for level in trunk.info.levels]
        if stride not in strides:
            raise ValueError(
                f"encoder {trunk.info.name!r} has maps of the strides {strides}; expected {stride} among them"
            )
        self.trunk, self.img_size, self.stride = trunk, int(trunk.info.input_size), stride
        self._kept: dict[bytes, list[Tensor]] | None = {} if keep_maps else None
        self.project = nn.ModuleList(
            nn.Conv2d(level.channels * max(1, stride // level.stride) ** 2, out_chans, 1) for level in trunk.info.levels
        )
        self.neck = nn.Sequential(
            LayerNorm2d(out_chans),
            nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False),
            LayerNorm2d(out_chans),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S), normalised as the trunk wants them, to (B, C, h, w)."""
        with torch.no_grad():
            maps = self._maps(images) if self._kept is None or not self.training else self._kept_maps(images)
        grid = [side // self.stride for side in images.shape[-2:]]
        total = None
        for level, one, project in zip(self.trunk.info.levels, maps, self.project, strict=True):
            fine = F.pixel_unshuffle(one, max(1, self.stride // level.stride))
            own = project(fine)
            if list(own.shape[-2:]) != grid:
                own = F.interpolate(own, grid, mode="bilinear", align_corners=False)
            total = own if total is None else total + own
        out: Tensor = self.neck(total)
        return out

    def _maps(self, images: Tensor) -> Sequence[Tensor]:
        maps: Sequence[Tensor] = self.trunk.maps(images.contiguous(memory_format=torch.channels_last))
        return maps

    def _kept_maps(self, images: Tensor) -> list[Tensor]:
        """`_maps`, computed once for each picture."""
        assert self._kept is not None
        keys = [hashlib.blake2b(one.cpu().numpy().tobytes(), digest_size=16).digest() for one in images]
        new = [number for number, key in enumerate(keys) if key not in self._kept]
        if new:
            found = [m.half().cpu() for m in self._maps(images[new])]
            for row, number in enumerate(new):
                self._kept[keys[number]] = [m[row].clone() for m in found]
        rows = zip(*(self._kept[key] for key in keys), strict=True)
        return [torch.stack(row).to(images.device, images.dtype) for row in rows]
