"""MobileSAM: SAM's prompt encoder and mask decoder with a TinyViT of five million parameters as image encoder.

Source: arXiv 2306.14289; the repository ChaoningZhang/MobileSAM for sizes and tensor names. TinyViT (arXiv 2207.10666)
is timm's, with two changes: the last patch merging keeps the resolution, so that the stride is 16, and SAM's neck
replaces the classifier.
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

_DIM = 256  # channels of image embedding and prompts, as in every published SAM
_STRIDE = 16  # of the image embedding, in pixels

_RENAMES = (
    (r"\.patch_embed\.conv1\.", lambda _: ".patch_embed.seq.0."),
    (r"\.patch_embed\.conv2\.", lambda _: ".patch_embed.seq.2."),
    # TinyViT merges patches at the end of a stage, timm at the start of the next.
    (r"\.stages\.(\d+)\.downsample\.", lambda match: f".layers.{int(match[1]) - 1}.downsample."),
    (r"\.stages\.", lambda _: ".layers."),
    (r"\.conv\.weight$", lambda _: ".c.weight"),
)

_DROPPED = r"image_encoder\.((norm_head|head)\.(weight|bias)|.*\.attention_bias_idxs)"
"""Tensors that are not loaded: TinyViT's classifier, and the table of distances in a window, which timm computes."""


class TinyVitEncoder(nn.Module):
    """TinyViT-5M as SAM's image encoder: `patch_embed` and four `stages` of timm, and SAM's neck.

    The stages have 64, 128, 160 and 320 channels at strides 4, 8, 16 and 16. Three of them attend within windows of 7,
    14 and 7 cells. Padding of incomplete windows is zero and is not masked.

    Args:
        img_size: side of SAM's square input in pixels; the network also takes other sizes.
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
        """Normalised pixels (B, 3, H, W) to the image embedding (B, 256, H / 16, W / 16)."""
        return self.neck(self.stages(self.patch_embed(pixels)))


def build_mobile_sam(image_size: int = 1024) -> Sam:
    """MobileSAM with random weights, for an image side of `image_size` pixels. The published model has 1024.

    Raises:
        ValueError: `image_size` is not a multiple of the stride.
    """
    if image_size < _STRIDE or image_size % _STRIDE:
        raise ValueError(f"image_size {image_size} is not a positive multiple of {_STRIDE}")
    grid = image_size // _STRIDE
    prompts = PromptEncoder(_DIM, image_size, grid, mask_in_chans=16)
    decoder = MaskDecoder(_DIM, TwoWayTransformer(2, _DIM, 8, 2048))
    return Sam(TinyVitEncoder(image_size), prompts, decoder)


def published_name(name: str) -> str:
    """The published name of a tensor of `build_mobile_sam`."""
    if name.startswith("image_encoder."):
        for pattern, target in _RENAMES:
            name = re.sub(pattern, target, name)
    return name


def load_mobile_sam(path: Path) -> Sam:
    """Load a file with the published names into a frozen MobileSAM in evaluation mode on the CPU.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, would run code, or holds another model.
    """
    sam = build_mobile_sam().eval().requires_grad_(False)
    if not reads_weights():
        return sam
    hint = f"get it with: curl -LO {URL}"
    if not path.is_file():
        raise FileNotFoundError(f"MobileSAM checkpoint {path} not found; {hint}")
    stored = read_state_dict(path, "MobileSAM", hint)
    tensors = {name: tensor for name, tensor in stored.items() if not re.fullmatch(_DROPPED, name)}
    expected = {published_name(name): tensor for name, tensor in sam.state_dict().items()}
    checkpoints.check_fit(expected, tensors, str(path), "MobileSAM")
    sam.load_state_dict({name: tensors[published_name(name)] for name in sam.state_dict()})
    return sam
