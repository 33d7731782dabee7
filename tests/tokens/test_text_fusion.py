"""Text fusion: the published code's numbers, what each read-out depends on, ragged text, published sizes."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from maskselect.tokens.text_fusion import TextFusion
from tests.tokens.flamingo import resample
from tests.tokens.test_video_perceiver import shaken

SIZES: dict[str, Any] = {"vision_channels": 6, "width": 8, "out": 4, "depth": 2, "heads": 2, "head_width": 3}
SETTINGS = [
    {"readout": "global"},
    {"readout": "both"},
    {"readout": "both", "text": "global"},
    {"readout": "both", "text": "detailed"},
    {"fusion": False},
]


def made(**settings: Any) -> TextFusion:
    return shaken(TextFusion(10, **SIZES, **settings))


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    valid = torch.ones(2, 7, dtype=torch.bool)
    valid[1, 5:] = False
    return torch.randn(2, 7, 10), valid, torch.randn(2, 6, 3, 3)


@torch.no_grad()
def test_the_global_readout_is_the_published_code() -> None:
    """congvvc/InstructSeg, as section 1.6 of the specification describes it."""
    fusion, (text, _, vision) = made(), inputs()
    state = fusion.state_dict()

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"{name}.weight"].flatten(1), state[f"{name}.bias"])

    pooled = F.adaptive_avg_pool1d(text.transpose(1, 2), 1)[..., 0]
    weights = {k.removeprefix("resampler."): v for k, v in state.items() if k.startswith("resampler.")}
    for row in range(2):
        latents = linear("text_projector", torch.cat([pooled[row, None], text[row]]))
        media = linear("vision_projector", vision[row].flatten(1).T)
        fused = resample(weights, media, latents, SIZES["heads"], read=1)[0]
        want = linear("output", torch.cat([linear("pooled_projector", pooled[row]), fused]))
        torch.testing.assert_close(fusion(text, None, vision)[row], want, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_readout_of_both_uses_every_latent() -> None:
    fusion, (text, _, vision) = made(readout="both"), inputs()
    state = fusion.state_dict()
    weights = {k.removeprefix("resampler."): v for k, v in state.items() if k.startswith("resampler.")}
    pooled = text.mean(1)
    latents = fusion.text_projector(torch.cat([pooled[:, None], text], 1))
    media = fusion.vision_projector(vision).flatten(2).transpose(1, 2)
    for row in range(2):
        fused = resample(weights, media[row], latents[row], SIZES["heads"])
        read = (fused[0] + fused[1:].mean(0)) / 2
        want = fusion.output(torch.cat([fusion.pooled_projector(pooled[row]), read]))
        torch.testing.assert_close(fusion(text, None, vision)[row], want, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_only_the_readout_of_both_depends_on_detailed_tokens() -> None:
    """Details that keep their mean change the paper's result and not the code's; their order changes neither."""
    text, _, vision = inputs()
    moved = text.clone()
    moved[:, 0] += 1
    moved[:, 1] -= 1
    for readout, changes in (("global", False), ("both", True)):
        fusion = made(readout=readout)
        out = fusion(text, None, vision)
        torch.testing.assert_close(fusion(text.flip(1), None, vision), out, atol=1e-5, rtol=1e-4)
        assert torch.allclose(fusion(moved, None, vision), out, atol=1e-4) is not changes
    lone = made(readout="both", text="global")
    torch.testing.assert_close(lone(moved, None, vision), lone(text, None, vision), atol=1e-5, rtol=1e-4)
    fine = made(readout="both", text="detailed")
    assert not torch.allclose(fine(moved, None, vision), fine(text, None, vision), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_padded_text_changes_nothing(settings: dict[str, Any]) -> None:
    fusion, (text, valid, vision) = made(**settings), inputs()
    out = fusion(text, valid, vision)
    assert out.shape == (2, 4)
    torch.testing.assert_close(out[1:], fusion(text[1:, :5], None, vision[1:]), atol=1e-5, rtol=1e-4)
    changed = text.clone()
    changed[1, 5:] = 100.0
    torch.testing.assert_close(fusion(changed, valid, vision), out)
    assert not torch.allclose(fusion(changed, None, vision)[1], out[1], atol=1e-2)


@torch.no_grad()
def test_all_but_the_plain_layer_see_the_picture() -> None:
    text, valid, vision = inputs()
    for settings in SETTINGS:
        fusion = made(**settings)
        same = torch.allclose(fusion(text, valid, vision), fusion(text, valid, -vision), atol=1e-4)
        assert same is (settings == {"fusion": False})


def test_published_sizes() -> None:
    with torch.device("meta"):
        fusion = TextFusion(2560)
        out = fusion(torch.empty(2, 7, 2560), None, torch.empty(2, 1024, 32, 32))
        plain = TextFusion(2560, fusion=False)
    assert out.shape == (2, 256)
    assert sum(p.numel() for p in fusion.resampler.parameters()) == 25_186_304
    assert fusion.output.weight.shape == (256, 2048) and plain.output.weight.shape == (256, 2560)
    assert fusion.pooled_projector.weight.shape == fusion.text_projector.weight.shape == (1024, 2560)
    assert fusion.vision_projector.weight.shape == (1024, 1024, 1, 1)


def test_a_readout_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="text 'detailed' has no global latent to read; expected readout 'both'"):
        made(text="detailed")
