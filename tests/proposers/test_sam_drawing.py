"""Drawing by window equals enlarging everything."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskselect.proposers.sam_drawing import MaskUpsampler, mask_upsampler
from maskselect.proposers.sam_filter import Frame


def blobs(count: int, side: int, seed: int) -> torch.Tensor:
    """Smooth logits with a few places above 0."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 1, 5, 5, generator=generator) * 4 - 3
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")[:, 0]


@settings(max_examples=60)
@given(
    st.tuples(st.integers(3, 90), st.integers(3, 90)),
    st.tuples(st.integers(3, 90), st.integers(3, 90)),
    st.booleans(),
    st.integers(0, 100),
)
def test_masks_are_those_of_the_enlarged_logits(
    size: tuple[int, int], target: tuple[int, int], padded: bool, seed: int
) -> None:
    scale = 64 / max(size)
    model = (max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))) if padded else (64, 64)
    frame = Frame(size, model, 64, 16, through_model=padded)
    low = blobs(4, 16, seed)
    enlarged = frame.upsample(low, target)
    found = MaskUpsampler(frame, target)(low)
    sure = enlarged.abs() > 1e-4  # the two round differently
    assert torch.equal(found[sure], (enlarged > 0)[sure])


def test_sams_own_frame_is_equal_pixel_by_pixel() -> None:
    frame = Frame((768, 1024), (768, 1024), 1024, 256)
    low = blobs(6, 256, 0)
    assert torch.equal(mask_upsampler(frame, (768, 1024))(low), frame.upsample(low) > 0)


@pytest.mark.parametrize("value", [-1.0, 1.0])
def test_nothing_and_everything(value: float) -> None:
    frame = Frame((30, 40), (48, 64), 64, 16)
    found = mask_upsampler(frame, (30, 40))(torch.full((2, 16, 16), value))
    assert found.shape == (2, 30, 40)
    assert bool((found == (value > 0)).all())
    assert mask_upsampler(frame, (30, 40))(torch.zeros(0, 16, 16)).shape == (0, 30, 40)


def test_cells_of_the_padding_reach_nothing() -> None:
    frame = Frame((30, 40), (48, 64), 64, 16)
    low = torch.full((1, 16, 16), -1.0)
    low[0, 14:] = 5.0  # below the picture
    assert not mask_upsampler(frame, (30, 40))(low).any()
