"""`CoDetrConfig`: the sizes of a Co-DETR, and the two published models that predict masks.

Source: Zong et al. 2023, "DETRs with Collaborative Hybrid Assignments Training" (2211.12860), and the ViT-L instance
segmentation models of Sense-X/Co-DETR.
"""

from dataclasses import dataclass

LEVELS = 5
"""Number of feature maps in the pyramid. Each has twice the stride of the map before."""


@dataclass(frozen=True)
class CoDetrConfig:
    """Sizes of the network and of its input.

    Attributes:
        embed_dim, depth, num_heads: sizes of the ViT.
        window_size: side of the attention windows in cells, for all blocks but the `global_blocks`.
        patch_size: pixels per cell of the ViT. The finest map of the pyramid has a quarter of it as stride.
        position_grid: side of the stored position embedding.
        dim, heads, points, ffn_dim: channels, attention heads, samples per head and level, and hidden width of the
            transformer.
        queries, classes: number of queries and of classes.
        roi_side: side of a region in the first stage of the mask head, in cells. Masks have 8 times as many.
        iou_dim: hidden width of the head that predicts the IoU of a mask.
        long_side, short_side: an image is scaled, with its aspect ratio, to the largest size that fits into these.
        square_canvas: True pads with grey to a square of `long_side` and does not mask the padding (LVIS variant).
            False pads to a multiple of two patches and masks the padding (COCO variant).

    Raises:
        ValueError: sizes do not divide, or a global block does not exist.
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
        """Stride of each map in pixels, finest first."""
        return tuple(self.patch_size // 4 * 2**level for level in range(LEVELS))


VARIANTS = {
    "coco": CoDetrConfig(),
    "lvis": CoDetrConfig(
        window_size=16,
        global_blocks=(2, 5, 8, 11, 14, 17, 20, 23),
        queries=900,
        classes=1203,
        long_side=1536,
        short_side=1536,
        square_canvas=True,
    ),
}
"""The published models that predict masks, by the data set whose classes they know."""
