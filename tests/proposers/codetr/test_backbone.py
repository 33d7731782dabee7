"""The ViT and the pyramid against a second writing of their formulas, and against timm's own block."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from maskselect.proposers.codetr.backbone import SimplePyramid, WindowedViT
from maskselect.proposers.codetr.config import CoDetrConfig
from tests.proposers.codetr.test_names import TINY, tiny_model

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def backbone() -> WindowedViT:
    return tiny_model().backbone.double()


def rotated(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Rotary positions written out: (N, heads, cells, d), rows in the first half of the channels."""
    half = x.shape[-1] // 2
    angles = torch.zeros(grid[0], grid[1], x.shape[-1], dtype=x.dtype)
    for j in range(half // 2):
        frequency = 10000.0 ** (-2 * j / half)
        for r in range(grid[0]):
            angles[r, :, 2 * j : 2 * j + 2] = r / grid[0] * 16 * frequency
        for c in range(grid[1]):
            angles[:, c, half + 2 * j : half + 2 * j + 2] = c / grid[1] * 16 * frequency
    angles = angles.flatten(0, 1)
    turned = torch.stack([-x[..., 1::2], x[..., 0::2]], -1).flatten(-2)
    return x * angles.cos() + turned * angles.sin()


def attended(weights: dict[str, Tensor], x: Tensor, grid: tuple[int, int], heads: int) -> Tensor:
    """Attention of (cells, C): biases on queries and values, none on keys, softmax written out."""
    q, k, v = (x @ weights[f"attn.{n}_proj.weight"].T for n in "qkv")
    q, v = q + weights["attn.q_proj.bias"], v + weights["attn.v_proj.bias"]
    q, k, v = (t.view(len(x), heads, -1).transpose(0, 1) for t in (q, k, v))
    q, k = rotated(q, grid), rotated(k, grid)
    shares = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1)
    joined = (shares @ v).transpose(0, 1).flatten(1)
    return joined @ weights["attn.proj.weight"].T + weights["attn.proj.bias"]


def normed(weights: dict[str, Tensor], name: str, x: Tensor, eps: float = 1e-6) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gated(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    def linear(name: str, x: Tensor) -> Tensor:
        return x @ weights[f"mlp.{name}.weight"].T + weights[f"mlp.{name}.bias"]

    gate = linear("fc1_g", x)
    return linear("fc2", normed(weights, "mlp.norm", gate * gate.sigmoid() * linear("fc1_x", x)))


def reference_block(weights: dict[str, Tensor], x: Tensor, window: int | None, heads: int) -> Tensor:
    """A block on (h, w, C); with windows, each is cut out by hand and its padding attended as zeros."""
    height, width, channels = x.shape
    n = normed(weights, "norm1", x)
    out = torch.zeros_like(x)
    if window is None:
        out = attended(weights, n.flatten(0, 1), (height, width), heads).view_as(x)
    else:
        for top in range(0, height, window):
            for left in range(0, width, window):
                piece = torch.zeros(window, window, channels, dtype=x.dtype)
                cut = n[top : top + window, left : left + window]
                piece[: cut.shape[0], : cut.shape[1]] = cut
                read = attended(weights, piece.flatten(0, 1), (window, window), heads).view_as(piece)
                out[top : top + window, left : left + window] = read[: cut.shape[0], : cut.shape[1]]
    x = x + out
    return x + gated(weights, normed(weights, "norm2", x))


@pytest.mark.parametrize("size", [(48, 48), (40, 64), (16, 8)])
def test_vit_equals_its_formulas(backbone: WindowedViT, size: tuple[int, int]) -> None:
    image = torch.randn(1, 3, *size, dtype=torch.float64)
    weights = dict(backbone.state_dict())
    x = F.conv2d(image, weights["patch_embed.weight"], weights["patch_embed.bias"], stride=TINY.patch_size)
    stored = weights["pos_embed"][0, 1:].T.view(1, -1, TINY.position_grid, TINY.position_grid)
    x = x + F.interpolate(stored, size=x.shape[-2:], mode="bicubic", align_corners=False)
    x = x[0].permute(1, 2, 0)
    for n in range(TINY.depth):
        own = {k.removeprefix(f"blocks.{n}."): v for k, v in weights.items() if k.startswith(f"blocks.{n}.")}
        x = reference_block(own, x, None if n in TINY.global_blocks else TINY.window_size, TINY.num_heads)
    expected = normed(weights, "norm", x, eps=1e-5).permute(2, 0, 1)[None]
    torch.testing.assert_close(backbone(image), expected, **CLOSE)


def test_windowed_block_is_timms_block_on_each_window(backbone: WindowedViT) -> None:
    side, block = TINY.window_size, backbone.blocks[0]
    x = torch.randn(2, 2 * side, 3 * side, TINY.embed_dim, dtype=torch.float64)
    rotation = backbone.rope.get_embed([side, side])
    found = backbone._windowed(block, x, rotation)
    for top in range(0, x.shape[1], side):
        for left in range(0, x.shape[2], side):
            piece = x[:, top : top + side, left : left + side]
            expected = block(piece.flatten(1, 2), rope=rotation).view_as(piece)
            torch.testing.assert_close(found[:, top : top + side, left : left + side], expected, **CLOSE)


def test_stored_positions_are_used_as_they_are_at_their_own_size(backbone: WindowedViT) -> None:
    side = TINY.position_grid
    found = backbone.positions(side, side)
    torch.testing.assert_close(found.flatten(1, 2), backbone.pos_embed[:, 1:])


def channel_normed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean(1, keepdim=True)
    scaled = centred / (centred.pow(2).mean(1, keepdim=True) + 1e-6).sqrt()
    return scaled * weight[:, None, None] + bias[:, None, None]


# What is done at each place: "up" doubles by repetition, "pool" halves, a number is a convolution of that stride.
PYRAMID: dict[str, list[tuple[str | int, int]]] = {
    "p2": [("up", 0), (1, 1), ("up", 4), (1, 5), (1, 8), (1, 11)],
    "p3": [("up", 0), (1, 1), (1, 4), (1, 7)],
    "p4": [(1, 0), (1, 3)],
    "p5": [("pool", 0), (1, 1), (1, 4)],
    "p6": [("pool", 0), (2, 1), (1, 4), (1, 7)],
}


@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_pyramid_equals_its_formulas(size: tuple[int, int]) -> None:
    neck = tiny_model().neck.double()
    x = torch.randn(2, TINY.embed_dim, *size, dtype=torch.float64)
    maps, weights = neck(x), neck.state_dict()
    for found, (name, steps) in zip(maps, PYRAMID.items(), strict=True):
        expected = x
        for number, (kind, place) in enumerate(steps):
            if kind == "up":
                expected = expected.repeat_interleave(2, 2).repeat_interleave(2, 3)
            elif kind == "pool":
                expected = F.max_pool2d(expected, 3, 2, 1)
            else:
                weight = weights[f"{name}.{place}.weight"]
                expected = F.conv2d(expected, weight, stride=int(kind), padding=weight.shape[-1] // 2)
                norm = f"{name}.{place + 1}"
                expected = channel_normed(expected, weights[f"{norm}.weight"], weights[f"{norm}.bias"])
                if number < len(steps) - 1:
                    expected = 0.5 * expected * (1 + torch.erf(expected / math.sqrt(2)))
        torch.testing.assert_close(found, expected, **CLOSE)


def test_pyramid_has_the_published_strides() -> None:
    config = CoDetrConfig()
    assert config.strides == (4, 8, 16, 32, 64)
    with torch.device("meta"):
        maps = SimplePyramid(config)(torch.empty(1, 1024, 80, 128))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (256, 320, 512),
        (256, 160, 256),
        (256, 80, 128),
        (256, 40, 64),
        (256, 20, 32),
    ]
