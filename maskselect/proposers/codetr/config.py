"""`CoDetrConfig`: the sizes of a Co-DETR, and the two published ones that draw masks.

Source: Zong et al. 2023, "DETRs with Collaborative Hybrid Assignments Training" (2211.12860), and the ViT-L instance
segmentation models of Sense-X/Co-DETR.
"""

from dataclasses import dataclass
from typing import Any

LEVELS = 5
"""Maps of the pyramid, each half as wide as the one before."""


@dataclass(frozen=True)
class CoDetrConfig:
    """Sizes of the network and of the frame in which it sees an image.

    embed_dim, depth, num_heads: the ViT. Its blocks attend within windows of `window_size` cells, those in
        `global_blocks` everywhere.
    patch_size: pixels a cell of the ViT; the finest map of the pyramid has cells of a quarter of it.
    position_grid: side of the stored position map.
    dim, heads, points, ffn_dim: channels, attention heads, samples a head and level, and hidden width of the
        transformer.
    queries, classes: of the decoder.
    roi_side: cells of a region in the first stage of the mask head. Masks come out at 8 times as many.
    iou_dim: hidden width of the head that predicts how good a mask is.
    long_side, short_side: an image is scaled, its proportions kept, until it just fits into these.
    square_canvas: True pads with grey to a square of `long_side` and treats the padding as picture (LVIS variant);
        False pads to a multiple of two patches and masks the padding (COCO variant).

    Raises ValueError for sizes that do not divide or a global block that does not exist.
    """

    embed_dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    window_size: int = 24
    global_blocks: tuple[int, ...] = (3, 7, 11, 15, 19, 23)
    patch_size: int = 16
    position_grid: int = 32
    dim: int = 256
    heads: int = 8
    points: int = 4
    ffn_dim: int = 2048
    encoder_layers: int = 6
    decoder_layers: int = 6
    queries: int = 1500
    classes: int = 80
    roi_side: int = 14
    iou_dim: int = 1024
    long_side: int = 2048
    short_side: int = 1280
    square_canvas: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "global_blocks", tuple(self.global_blocks))  # lists, where a config file is read
        for name, value in vars(self).items():
            if isinstance(value, int) and not isinstance(value, bool) and value < 1:
                raise ValueError(f"Co-DETR {name} must be at least 1, got {value}")
        for name, divisor in (("embed_dim", 4 * self.num_heads), ("dim", 8 * self.heads)):
            if getattr(self, name) % divisor:
                raise ValueError(f"Co-DETR {name} must be a multiple of {divisor}, got {getattr(self, name)}")
        if self.patch_size % 4 or self.roi_side % 2:
            raise ValueError("Co-DETR patch_size must be a multiple of 4 and roi_side of 2")
        if not set(self.global_blocks) <= set(range(self.depth)):
            raise ValueError(f"Co-DETR global_blocks must be among 0 to {self.depth - 1}, got {self.global_blocks}")
        if self.short_side > self.long_side:
            raise ValueError(f"Co-DETR short_side {self.short_side} is larger than long_side {self.long_side}")

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels a cell of each map, finest first."""
        return tuple(self.patch_size // 4 * 2**level for level in range(LEVELS))


_COCO: dict[str, Any] = {}
_LVIS: dict[str, Any] = {
    "window_size": 16,
    "global_blocks": (2, 5, 8, 11, 14, 17, 20, 23),
    "queries": 900,
    "classes": 1203,
    "long_side": 1536,
    "short_side": 1536,
    "square_canvas": True,
}
VARIANTS = {"coco": CoDetrConfig(**_COCO), "lvis": CoDetrConfig(**_LVIS)}
"""The published models that draw masks, by the data set whose classes they know."""

_COMPACT: dict[str, Any] = {
    "embed_dim": 128,
    "depth": 4,
    "num_heads": 4,
    "window_size": 8,
    "global_blocks": (1, 3),
    "position_grid": 8,
    "dim": 64,
    "heads": 4,
    "ffn_dim": 256,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "queries": 40,
    "classes": 1,
    "iou_dim": 128,
    "long_side": 128,
    "short_side": 128,
}


def compact_config(sizes: dict[str, Any] | None = None) -> CoDetrConfig:
    """Sizes that train on two CPU cores, some of them changed. One class: a thing.

    Raises TypeError for a size that does not exist, ValueError as `CoDetrConfig` does.
    """
    return CoDetrConfig(**(_COMPACT | (sizes or {})))
