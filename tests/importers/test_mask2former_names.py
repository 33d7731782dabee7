"""Names of Mask2Former's parts in the published InstructSeg weights."""

import torch
from torch import Tensor, nn

from maskselect.backends.checkpoints import load_strictly
from maskselect.backends.name_map import NameMap
from maskselect.decoders.mask2former import MaskDecoder, PixelDecoder
from maskselect.encoders.swin import SwinEncoder
from maskselect.importers.mask2former_names import decoder_names, swin_names


def load(module: nn.Module, names: NameMap, tensors: dict[str, Tensor]) -> dict[str, str]:
    """Load foreign tensors strictly, and return the reasons of dropped ones."""
    sources, report = names.account(tensors, {k: v.shape for k, v in module.state_dict().items()})
    report.check("weights", "what the test expects")
    load_strictly(module, {own: tensors[foreign] for own, foreign in sources.items()}, "weights")
    assert all(torch.equal(tensors[foreign], module.state_dict()[own]) for own, foreign in sources.items())
    return report.dropped


def original_swin(width: int, depths: list[int], heads: list[int], window: int) -> dict[str, Tensor]:
    """Random weights of Mask2Former's Swin (facebookresearch/Mask2Former, modeling/backbone/swin.py)."""
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.weight": (width, 3, 4, 4),
        "patch_embed.proj.bias": (width,),
    }

    def add(name: str, *shape: int) -> None:
        shapes[name + ".weight"], shapes[name + ".bias"] = shape, shape[:1]

    add("patch_embed.proj", width, 3, 4, 4)
    add("patch_embed.norm", width)
    for stage, (depth, count) in enumerate(zip(depths, heads, strict=True)):
        c = width << stage
        for block in range(depth):
            start = f"layers.{stage}.blocks.{block}."
            add(start + "norm1", c)
            add(start + "norm2", c)
            add(start + "attn.qkv", 3 * c, c)
            add(start + "attn.proj", c, c)
            shapes[start + "attn.relative_position_bias_table"] = ((2 * window - 1) ** 2, count)
            shapes[start + "attn.relative_position_index"] = (window**2, window**2)
            add(start + "mlp.fc1", 4 * c, c)
            add(start + "mlp.fc2", c, 4 * c)
        if stage + 1 < len(depths):
            add(f"layers.{stage}.downsample.norm", 4 * c)
            shapes[f"layers.{stage}.downsample.reduction.weight"] = (2 * c, 4 * c)
        add(f"norm{stage}", c)
    torch.manual_seed(0)
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def test_swin_loads_from_the_original_layout() -> None:
    tensors = {f"model.vision_tower_mask.{k}": v for k, v in original_swin(8, [2, 1], [1, 2], 3).items()}
    dropped = load(
        SwinEncoder("e", 64, 8, [2, 1], [1, 2], 3), swin_names("model.vision_tower_mask.", "trunk."), tensors
    )
    assert len(dropped) == 3 and set(dropped.values()) == {"a computed table"}


def test_published_swin_b_is_the_default() -> None:
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in SwinEncoder().state_dict().items()}
    width, depths, heads = 128, [2, 2, 18, 2], [4, 8, 16, 32]
    expected = original_swin(width, depths, heads, 12)
    _, report = swin_names("", "trunk.").account(expected, shapes)
    report.check("weights", "Swin-B")
    assert shapes["trunk.layers.2.blocks.17.attn.relative_position_bias_table"] == (529, 16)


def test_decoder_loads_from_the_published_names() -> None:
    module = nn.ModuleDict(
        {
            "pixel_decoder": PixelDecoder((4, 6, 8, 10), 16, 2, 2, 1, 8, 16),
            "mask_decoder": MaskDecoder(16, 2, 8, 2, 3, 16),
        }
    )
    torch.manual_seed(0)
    names = {
        k: k.replace("mask_decoder", "predictor").replace("query_projection", "SEG_proj") for k in module.state_dict()
    }
    tensors = {names[k]: torch.randn_like(v) for k, v in module.state_dict().items()}
    tensors |= {
        "predictor.query_feat.weight": torch.zeros(3, 16),
        "predictor.SEG_query_embed.weight": torch.zeros(4, 16),
    }
    assert "predictor.SEG_proj.layers.1.bias" in tensors
    dropped = load(module, decoder_names(), tensors)
    assert sorted(dropped) == ["predictor.SEG_query_embed.weight", "predictor.query_feat.weight"]
