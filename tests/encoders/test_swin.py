"""Swin against timm: equal where no map is padded, and block by block where maps are."""

import timm
import torch
from timm.models.swin_transformer import SwinTransformerBlock, checkpoint_filter_fn
from torch import Tensor, nn

from maskselect.encoders.swin import SwinBlock, SwinEncoder

WIDTH, DEPTHS, HEADS, WINDOW = 8, [2, 2, 2, 2], [1, 2, 4, 8], 2


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module.eval()


def timm_state(own: nn.Module, other: nn.Module) -> dict[str, Tensor]:
    """Weights under timm's names, which its own filter makes from the original layout; norms of levels are ours."""
    weights = {k: v for k, v in own.state_dict().items() if not k.startswith("norm")}
    return checkpoint_filter_fn(weights, other)


def test_levels_equal_timms_with_a_norm_each() -> None:
    own = SwinEncoder("e", 64, WIDTH, DEPTHS, HEADS, WINDOW)
    randomised(own.trunk)
    arguments = {"embed_dim": WIDTH, "depths": DEPTHS, "num_heads": HEADS, "window_size": WINDOW, "img_size": 64}
    arguments["always_partition"] = True  # as the original: shifted windows on a map of one window, too
    other = timm.create_model("swin_base_patch4_window12_384", num_classes=0, **arguments).eval()
    missing, unknown = other.load_state_dict(timm_state(own.trunk, other), strict=False)
    assert unknown == [] and all(name.startswith("norm.") for name in missing)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = own.maps(images)
        expected = other.forward_intermediates(images, norm=False, output_fmt="NCHW", intermediates_only=True)
    assert [64 // m.shape[-1] for m in found] == [4, 8, 16, 32] == [level.stride for level in own.info.levels]
    assert [m.shape[1] for m in found] == [8, 16, 32, 64] == [level.channels for level in own.info.levels]
    for k, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
        normed = own.trunk.get_submodule(f"norm{k}")(theirs.permute(0, 2, 3, 1))
        torch.testing.assert_close(mine, normed.permute(0, 3, 1, 2), atol=1e-5, rtol=1e-4)


def test_a_padded_map_is_shifted_after_padding() -> None:
    """timm's block on the padded map: without a bias in the first norm, padded tokens stay zero there, too."""
    own = randomised(SwinBlock(8, 2, 4, 2))
    nn.init.zeros_(own.norm1.bias)
    other = SwinTransformerBlock(8, (8, 12), 2, window_size=4, shift_size=2).eval()
    other.load_state_dict(own.state_dict())
    x = torch.randn(1, 6, 9, 8)
    with torch.no_grad():
        expected = other(nn.functional.pad(x, (0, 0, 0, 3, 0, 2)))[:, :6, :9]
        found = own(x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
