"""The video perceiver: Flamingo's numbers, frames that do not mix, text of several lengths, published sizes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from maskselect.tokens.perceiver import Perceiver
from maskselect.tokens.video_perceiver import VideoPerceiver
from tests.tokens.flamingo import resample

SIZES = {"depth": 2, "heads": 2, "head_width": 6, "ff_mult": 2}


def shaken(module: Any) -> Any:
    """With norms that are not the identity."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return module.eval()


@pytest.fixture
def perceiver() -> VideoPerceiver:
    return shaken(VideoPerceiver(16, queries=5, **SIZES))


def inputs() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, 4, 9, 16), torch.randn(2, 7, 16)


@torch.no_grad()
@pytest.mark.parametrize("with_text", [True, False])
def test_every_frame_is_flamingos(perceiver: VideoPerceiver, with_text: bool) -> None:
    frames, text = inputs()
    out = perceiver(frames, text if with_text else None)
    assert out.shape == (2, 4 * 5, 16)
    for row in range(2):
        for frame in range(4):
            media = torch.cat([frames[row, frame], text[row]]) if with_text else frames[row, frame]
            want = resample(perceiver.resampler.state_dict(), media, perceiver.queries, SIZES["heads"])
            torch.testing.assert_close(out[row, 5 * frame : 5 * frame + 5], want, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_one_layer_is_that_of_flamingo_pytorch() -> None:
    """Runs where the package is installed: pip install flamingo-pytorch."""
    flamingo = pytest.importorskip("flamingo_pytorch")
    theirs = shaken(flamingo.PerceiverResampler(dim=16, depth=2, dim_head=6, heads=2, num_latents=5, ff_mult=2))
    theirs.media_pos_emb.zero_()
    ours = Perceiver(16, 2, 2, 6, 2)
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if k not in ("latents", "media_pos_emb")})
    frames, _ = inputs()
    found = ours(frames.flatten(0, 1), theirs.latents.expand(8, -1, -1))
    torch.testing.assert_close(found.unflatten(0, (2, 4)), theirs(frames), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_frames_do_not_mix(perceiver: VideoPerceiver) -> None:
    frames, text = inputs()
    order = torch.tensor([2, 0, 3, 1])
    out = perceiver(frames, text).unflatten(1, (4, 5))
    permuted = perceiver(frames[:, order], text).unflatten(1, (4, 5))
    torch.testing.assert_close(permuted, out[:, order])
    assert not torch.allclose(out[:, 0], out[:, 1], atol=1e-2)


@torch.no_grad()
def test_padded_text_changes_nothing(perceiver: VideoPerceiver) -> None:
    frames, text = inputs()
    valid = torch.ones(2, 7, dtype=torch.bool)
    valid[1, 4:] = False
    out = perceiver(frames, text, valid)
    torch.testing.assert_close(out[1:], perceiver(frames[1:], text[1:, :4]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(out[:1], perceiver(frames[:1], text[:1]), atol=1e-5, rtol=1e-4)
    changed = text.clone()
    changed[1, 4:] = 100 * torch.randn(3, 16)
    torch.testing.assert_close(perceiver(frames, changed, valid), out)
    assert not torch.allclose(perceiver(frames, changed)[1], out[1], atol=1e-2)


def test_published_sizes() -> None:
    with torch.device("meta"):
        perceiver = VideoPerceiver(2560)
        out = perceiver(torch.empty(2, 4, 729, 2560), torch.empty(2, 7, 2560))
    assert out.shape == (2, 512, 2560)
    assert sum(p.numel() for p in perceiver.resampler.parameters()) == 110_151_680
    assert perceiver.queries.numel() == 327_680
