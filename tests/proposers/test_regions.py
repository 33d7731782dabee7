"""Regions of like colour: plain things are found, steady ones first, at the image's own size."""

from typing import Any

import numpy as np
import pytest
import torch

from maskselect.ops.overlap import pairwise_iou
from maskselect.proposers.regions import RegionProposer, _stability
from maskselect.structures.protocols import Proposer


def picture(height: int = 96, width: int = 128) -> tuple[np.ndarray, torch.Tensor]:
    """A red square and a blue disc on noisy grey, and their masks."""
    y, x = np.mgrid[:height, :width]
    square = (x > width * 0.1) & (x < width * 0.35) & (y > height * 0.2) & (y < height * 0.7)
    disc = (x - width * 0.7) ** 2 + (y - height * 0.5) ** 2 < (0.25 * height) ** 2
    image = np.full((height, width, 3), 128.0)
    image[square], image[disc] = (200, 30, 30), (30, 40, 220)
    image += np.random.default_rng(0).normal(0, 4, image.shape)
    return image.clip(0, 255).astype(np.uint8), torch.from_numpy(np.stack([square, disc]))


@pytest.mark.parametrize("size", [(96, 128), (384, 512), (50, 300)])
def test_plain_things_are_found(size: tuple[int, int]) -> None:
    image, things = picture(*size)
    proposer = RegionProposer()
    assert isinstance(proposer, Proposer)
    found = proposer.propose(image)
    assert found.image_size == size and found.source == "regions"
    assert float(pairwise_iou(things, found.masks).max(1).values.min()) > 0.75
    assert torch.equal(found.scores, found.scores.sort(descending=True).values) and found.scores.min() >= 0
    assert found.scores.max() <= 1
    assert len(RegionProposer(max_candidates=2).propose(image)) == 2


def test_stability_by_hand() -> None:
    first = np.array([[0, 0, 1, 1]])
    second = np.array([[0, 0, 0, 1]])
    one, two = _stability([first, second])
    assert one.tolist() == pytest.approx([2 / 3, 1 / 2]) and two.tolist() == pytest.approx([2 / 3, 1 / 2])
    assert _stability([first])[0].tolist() == [0, 0]


def test_one_colour_is_one_region() -> None:
    found = RegionProposer().propose(np.full((20, 30, 3), 7, np.uint8))
    assert len(found) == 1 and bool(found.masks.all()) and float(found.scores[0]) == 1


@pytest.mark.parametrize("settings", [{"scales": []}, {"scales": [0]}, {"sigma": -1}, {"min_size": 0}])
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="scales must be above 0"):
        RegionProposer(**settings)
