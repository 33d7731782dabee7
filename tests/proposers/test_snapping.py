"""Masks pulled to edges: coarse outlines get better, hopeless ones stay, sizes and columns are kept."""

import numpy as np
import pytest
import torch

from maskselect.ops.masks import resize_nearest
from maskselect.ops.overlap import pairwise_iou
from maskselect.proposers.snapping import SnappingProposer
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import PromptableProposer


class Coarse:
    """Proposes a square for a disc, twice, and a speck."""

    def __init__(self, masks: torch.Tensor) -> None:
        self.masks = masks

    def propose(self, image: np.ndarray) -> MaskSet:
        scores = torch.linspace(0.9, 0.5, len(self.masks))
        return MaskSet(self.masks, scores, "coarse", {"number": torch.arange(len(self.masks))})

    def segment_box(self, image: np.ndarray, box_xyxy: tuple[float, float, float, float]) -> torch.Tensor:
        return self.masks[0]

    def segment_boxes(self, image: np.ndarray, boxes_xyxy: torch.Tensor) -> MaskSet:
        self.boxes = boxes_xyxy
        return MaskSet(self.masks[:1].expand(len(boxes_xyxy), -1, -1), torch.ones(len(boxes_xyxy)), "coarse")

    def segment_point(self, image: np.ndarray, point_xy: tuple[float, float]) -> torch.Tensor:
        return self.masks[0]


def _disc(side: int = 96, radius: float = 25) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    y, x = np.mgrid[:side, :side] - side / 2
    disc = np.hypot(x, y) < radius
    image = np.where(disc[..., None], (200, 40, 40), (230, 230, 220)).astype(np.uint8)
    image = np.clip(image + np.random.default_rng(0).normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    coarse = np.maximum(abs(x), abs(y)) < radius * 0.9
    return image, torch.from_numpy(disc), torch.from_numpy(coarse)


def test_outlines_get_better_and_duplicates_merge() -> None:
    image, disc, coarse = _disc()
    proposer = SnappingProposer(Coarse(torch.stack([coarse, coarse.roll(1, 0)])))
    assert isinstance(proposer, PromptableProposer)
    found = proposer.propose(image)
    assert len(found) == 1 and found.columns["number"].tolist() == [0] and found.image_size == (96, 96)
    before, after = (float(pairwise_iou(m, disc[None])) for m in (coarse[None], found.masks))
    assert before < 0.9 and after > 0.97
    for mask in (proposer.segment_box(image, (1, 1, 90, 90)), proposer.segment_point(image, (48, 48))):
        assert torch.equal(mask, found.masks[0])
    many = proposer.segment_boxes(image, torch.tensor([[1.0, 1, 90, 90]] * 2))
    assert torch.equal(many.masks, found.masks.expand(2, -1, -1)) and many.scores.tolist() == [1, 1]


def test_boxes_are_given_in_the_images_own_pixels() -> None:
    image, _, coarse = _disc()
    large = image.repeat(2, 0).repeat(2, 1)
    inner = Coarse(coarse[None])
    masks = SnappingProposer(inner, side=96).segment_boxes(large, torch.tensor([[2.0, 4, 180, 160]])).masks
    assert inner.boxes.tolist() == [[1, 2, 90, 80]] and masks.shape == (1, 192, 192)
    assert SnappingProposer(inner, side=96).segment_boxes(large, torch.zeros(0, 4)).masks.shape == (0, 192, 192)


def test_the_same_twice() -> None:
    image, _, coarse = _disc()
    proposer = SnappingProposer(Coarse(coarse[None]))
    assert torch.equal(proposer.propose(image).masks, proposer.propose(image).masks)


def test_what_cannot_be_cut_stays() -> None:
    image, _, _ = _disc()
    speck = torch.zeros(96, 96, dtype=torch.bool)
    speck[3:6, 3:6] = True
    everything = torch.ones(96, 96, dtype=torch.bool)
    found = SnappingProposer(Coarse(torch.stack([speck, everything]))).propose(image)
    assert torch.equal(found.masks, torch.stack([speck, everything]))


def test_nothing_found() -> None:
    found = SnappingProposer(Coarse(torch.zeros(0, 96, 96, dtype=torch.bool))).propose(np.zeros((96, 120, 3), np.uint8))
    assert len(found) == 0 and found.image_size == (96, 120)


@pytest.mark.parametrize("size", [(192, 192), (300, 200)])
def test_larger_images_are_cut_small_and_answered_large(size: tuple[int, int]) -> None:
    mask = torch.zeros(96, 96 * size[1] // size[0], dtype=torch.bool)
    mask[20:70, 10:50] = True
    large = resize_nearest(mask[None], size)[0].numpy()
    image = np.where(large[..., None], 220, 30).astype(np.uint8).repeat(3, 2)
    found = SnappingProposer(Coarse(mask[None]), side=96).propose(image)
    assert found.image_size == size and abs(float(found.masks.float().mean()) - float(mask.float().mean())) < 0.02
