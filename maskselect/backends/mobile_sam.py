"""MobileSAM: SAM's prompt encoder and mask decoder behind a TinyViT of five million parameters.

Source: arXiv 2306.14289; the repository ChaoningZhang/MobileSAM for the sizes and the names of the weights. TinyViT
(arXiv 2207.10666) is timm's. What differs: the last patch merging keeps the grid, so that its side is a 16th of the
image's, and SAM's neck stands where TinyViT classifies.
"""

import re
from pathlib import Path

from timm.models.tiny_vit import TinyVit
from torch import Tensor, nn

from maskselect.backends import checkpoints
from maskselect.backends.pickled import read_state_dict
from maskselect.backends.sam_encoder import LayerNorm2d
from maskselect.backends.sam_network import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from maskselect.backends.weightless import reads_weights

URL = "https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt"
"""The published file: 40,728,226 bytes, SHA-256 6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f."""

_DIM = 256  # of image embedding and prompts, as in every published SAM
_STRIDE = 16  # pixels of a cell of the image embedding

_RENAMES = (
    (r"\.patch_embed\.conv1\.", lambda _: ".patch_embed.seq.0."),
    (r"\.patch_embed\.conv2\.", lambda _: ".patch_embed.seq.2."),
    # TinyViT merges patches at the end of a stage, timm at the beginning of the next.
    (r"\.stages\.(\d+)\.downsample\.", lambda found: f".layers.{int(found[1]) - 1}.downsample."),
    (r"\.stages\.", lambda _: ".layers."),
    (r"\.conv\.weight$", lambda _: ".c.weight"),
)

_DROPPED = r"image_encoder\.((norm_head|head)\.(weight|bias)|.*\.attention_bias_idxs)"
"""Tensors that are left in the file: the classifier that TinyViT was trained with, which nobody asks, and a table of
distances in a window, which older TinyViTs stored and timm computes."""


class TinyVitEncoder(nn.Module):
    """SAM's image encoder as TinyViT-5M: `patch_embed` and four `stages` of timm's, and SAM's neck.

    img_size: side in pixels of the square that SAM makes of an image; the network itself takes other sizes too.

    The stages have 64, 128, 160 and 320 channels at a 4th, 8th, 16th and 16th of the side. Three of them attend within
    windows of 7, 14 and 7 cells, with a bias for each head and distance; a grid that windows do not divide is filled
    up with zeros, which take part.
    """

    def __init__(self, img_size: int = 1024) -> None:
        super().__init__()
        self.img_size = img_size
        trunk = TinyVit(
            num_classes=0,
            embed_dims=(64, 128, 160, 320),
            depths=(2, 2, 6, 2),
            num_heads=(2, 4, 5, 10),
            window_sizes=(7, 7, 14, 7),
            drop_path_rate=0.0,
        )
        self.patch_embed, self.stages = trunk.patch_embed, trunk.stages
        self.stages[-1].downsample.conv2.conv.stride = (1, 1)
        self.neck = nn.Sequential(
            nn.Conv2d(trunk.num_features, _DIM, 1, bias=False),
            LayerNorm2d(_DIM),
            nn.Conv2d(_DIM, _DIM, 3, padding=1, bias=False),
            LayerNorm2d(_DIM),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pixels to the image embedding (B, 256, H / 16, W / 16)."""
        return self.neck(self.stages(self.patch_embed(pixels)))


def build_mobile_sam(image_size: int = 1024) -> Sam:
    """MobileSAM with random weights. Only `image_size`, in pixels, is not that of the published model.

    Raises ValueError when the image is not whole cells of the embedding.
    """
    if image_size < _STRIDE or image_size % _STRIDE:
        raise ValueError(f"image_size {image_size} is not a positive multiple of {_STRIDE}")
    grid = image_size // _STRIDE
    prompts = PromptEncoder(_DIM, image_size, grid, mask_in_chans=16)
    decoder = MaskDecoder(_DIM, TwoWayTransformer(2, _DIM, 8, 2048))
    return Sam(TinyVitEncoder(image_size), prompts, decoder)


def published_name(own: str) -> str:
    """The name that MobileSAM's file has for a tensor of `build_mobile_sam`."""
    if own.startswith("image_encoder."):
        for pattern, target in _RENAMES:
            own = re.sub(pattern, target, own)
    return own


def load_mobile_sam(path: Path) -> Sam:
    """A MobileSAM in evaluation mode, frozen, on the CPU, from a file with the published names.

    Raises FileNotFoundError when it is missing, ValueError when it is damaged, would run code, or is of another model.
    """
    if not reads_weights():
        return build_mobile_sam().eval().requires_grad_(False)
    if not path.is_file():
        raise FileNotFoundError(f"MobileSAM checkpoint {path} not found; get it with: curl -LO {URL}")
    found = read_state_dict(path, "MobileSAM", f"get it with: curl -LO {URL}")
    tensors = {name: tensor for name, tensor in found.items() if not re.fullmatch(_DROPPED, name)}
    sam = build_mobile_sam()
    names = {own: published_name(own) for own in sam.state_dict()}
    expected = {names[own]: tensor for own, tensor in sam.state_dict().items()}
    checkpoints.check_fit(expected, tensors, str(path), "MobileSAM")
    sam.load_state_dict({own: tensors[name] for own, name in names.items()})
    return sam.eval().requires_grad_(False)
