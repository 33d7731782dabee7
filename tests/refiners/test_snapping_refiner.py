"""Snapping to proposals: which are taken, when the coarse mask stays, and masks of scenes."""

import itertools
from typing import Literal

import numpy as np
import pytest
import torch

from maskselect.ops.masks import resize_nearest, resize_smooth
from maskselect.ops.overlap import pairwise_iou
from maskselect.ops.pooling import cell_weights
from maskselect.refiners.snapping import SnappingRefiner
from maskselect.scenes.samples import ask_scenes
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import Cacheable
from maskselect.structures.refiner import CoverageRefiner, Refiner

RULES: tuple[Literal["match", "inside"], ...] = ("match", "inside")
IMAGE = np.zeros((32, 48, 3), np.uint8)


class Fixed:
    """Proposes the same masks for every image, and counts."""

    def __init__(self, masks: torch.Tensor) -> None:
        self.masks, self.calls = masks, 0

    def propose(self, image: np.ndarray) -> MaskSet:
        self.calls += 1
        return MaskSet(self.masks, torch.ones(len(self.masks)), "fixed")

    def cache_key(self) -> str:
        return "fixed"


def box(x0: int, y0: int, x1: int, y1: int, size: tuple[int, int] = (32, 48)) -> torch.Tensor:
    mask = torch.zeros(*size, dtype=torch.bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_the_union_of_proposals_within_the_mask_is_taken() -> None:
    left, right, other = box(1, 1, 12, 12), box(12, 1, 20, 12), box(30, 3, 45, 20)
    proposer = Fixed(torch.stack([left, right, other]))
    refiner = SnappingRefiner(proposer, "inside")
    assert isinstance(refiner, Refiner) and isinstance(refiner, Cacheable)
    coarse = box(0, 0, 5, 3, (8, 12))[None]
    for _ in range(2):
        assert torch.equal(refiner.refine(IMAGE, coarse)[0], left | right)
    assert proposer.calls == 1


def test_the_coarse_mask_stays_where_no_proposal_fits() -> None:
    inside, around = box(2, 2, 4, 4), box(0, 0, 48, 32)
    coarse = torch.stack([box(0, 0, 4, 3, (8, 12)), torch.zeros(8, 12, dtype=torch.bool)])
    for masks in (around[None], inside[None], around[None][:0]):
        found = SnappingRefiner(Fixed(masks), "inside").refine(IMAGE, coarse)
        assert torch.equal(found, resize_nearest(coarse, (32, 48)))
        for blur in (0.0, 1.0):
            assert torch.equal(SnappingRefiner(Fixed(masks), least=0.7, blur=blur).refine(IMAGE, coarse), found)
    for rule, blur in itertools.product(RULES, (0.0, 1.0)):
        taken = SnappingRefiner(Fixed(inside[None]), rule, least=0, blur=blur).refine(IMAGE, coarse)
        assert torch.equal(taken[0], inside) and not taken[1].any()


def test_the_best_union_is_taken_although_parts_lie_outside() -> None:
    """As of three sets of an exhaustive search; the coarse mask is off by half of the object."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        pool = torch.from_numpy(rng.random((3, 4, 6)) < 0.5).repeat_interleave(8, 1).repeat_interleave(8, 2)
        coarse = torch.from_numpy(rng.random((4, 6)) < 0.5)[None]
        found = SnappingRefiner(Fixed(pool), least=0, blur=0).refine(IMAGE, coarse)[0]
        large = resize_nearest(coarse, (32, 48))
        sets = [pool[list(s)].any(0) for n in (1, 2, 3) for s in itertools.combinations(range(3), n)]
        ious = pairwise_iou(torch.stack(sets), large)[:, 0]
        single = max(ious[:3])
        assert single <= pairwise_iou(found[None], large)[0, 0] <= max(ious)
    left, right = box(0, 0, 16, 16), box(16, 0, 32, 16)
    shifted = box(2, 0, 6, 4, (8, 12))[None]  # half of each
    for blur in (0.0, 1.0):
        both = SnappingRefiner(Fixed(torch.stack([left, right])), blur=blur).refine(IMAGE, shifted)[0]
        assert torch.equal(both, left | right)
        assert torch.equal(SnappingRefiner(Fixed(left[None]), blur=blur).refine(IMAGE, shifted)[0], left)


def test_with_blur_a_mask_one_cell_too_far_finds_its_object() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    thing, far = box(8, 8, 16, 16, (64, 64)), box(40, 8, 56, 24, (64, 64))
    beside = box(4, 2, 6, 4, (16, 16))[None]  # cells of four pixels: from pixel 16 on, beside the object
    proposer = Fixed(torch.stack([thing, far]))
    assert torch.equal(SnappingRefiner(proposer).refine(image, beside)[0], thing)
    assert torch.equal(SnappingRefiner(proposer, blur=0).refine(image, beside), resize_nearest(beside, (64, 64)))
    nowhere = box(5, 12, 7, 14, (16, 16))[None]  # far from both
    assert torch.equal(SnappingRefiner(proposer).refine(image, nowhere), resize_nearest(nowhere, (64, 64)))
    # The similarity is that of Gaussians: of two equal squares, blurred by a deviation of s, a distance d apart.
    maps = SnappingRefiner(proposer, blur=2.0)._blurred(
        torch.stack([box(30, 30, 31, 31, (64, 64)), box(38, 30, 39, 31, (64, 64))])
    )
    cosine = float(maps[0] @ maps[1] / np.linalg.norm(maps[0]) / np.linalg.norm(maps[1]))
    assert cosine == pytest.approx(np.exp(-(8**2) / (4 * 8**2)), abs=0.01)  # two cells are eight pixels


def test_enlarging_the_coarse_mask_changes_nothing() -> None:
    """The mask of an object on its grid is the object's, although their IoU at the size of the image is 0.75."""
    image, thing = np.zeros((32, 32, 3), np.uint8), box(0, 4, 3, 32, (32, 32))
    coarse = box(0, 1, 1, 8, (8, 8))[None]
    for masks, rule in itertools.product((coarse, resize_nearest(coarse, (32, 32))), RULES):
        refiner = SnappingRefiner(Fixed(thing[None]), rule, least=0.8, grid=8, blur=0)
        assert torch.equal(refiner.refine(image, masks)[0], thing)
    fine = SnappingRefiner(Fixed(thing[None]), least=0.8, grid=32, blur=0).refine(image, masks)
    assert torch.equal(fine, masks)


def test_proposals_of_the_caller_replace_the_proposer() -> None:
    proposer = Fixed(box(0, 0, 48, 32)[None])
    given = MaskSet(box(0, 0, 8, 6, (16, 24))[None], torch.ones(1), "given")
    found = SnappingRefiner(proposer).refine(IMAGE, box(0, 0, 4, 3, (8, 12))[None], given)
    assert torch.equal(found[0], box(0, 0, 16, 12)) and proposer.calls == 0


@pytest.mark.parametrize("rule", RULES)
def test_with_exact_proposals_no_mask_of_a_scene_gets_worse(rule: Literal["match", "inside"]) -> None:
    for scene in ask_scenes("val", 0, 4):
        truth = torch.from_numpy(scene.masks)
        refiner = SnappingRefiner(Fixed(truth), rule)
        assert torch.equal(refiner.refine(scene.image, truth), truth)
        for grid in (16, 32):
            coarse = torch.stack([torch.from_numpy(resize_smooth(mask, (grid, grid))) for mask in scene.masks])
            before = pairwise_iou(resize_nearest(coarse, scene.image.shape[:2]), truth).diagonal()
            after = pairwise_iou(refiner.refine(scene.image, coarse), truth).diagonal()
            assert after.mean() > before.mean() and (after >= before).float().mean() > 0.9


def test_settings_and_key() -> None:
    proposer = Fixed(box(0, 0, 1, 1)[None])
    assert SnappingRefiner(proposer).cache_key() != SnappingRefiner(proposer, threshold=0.4).cache_key()
    assert SnappingRefiner(proposer).cache_key() != SnappingRefiner(proposer, grid=32).cache_key()
    with pytest.raises(ValueError, match="grid must be at least 1 and blur at least 0, got 0 and 1"):
        SnappingRefiner(proposer, grid=0)
    assert SnappingRefiner(proposer).cache_key() != SnappingRefiner(proposer, blur=0.5).cache_key()
    with pytest.raises(ValueError, match="blur at least 0, got 16 and -1"):
        SnappingRefiner(proposer, blur=-1)
    for arguments in ({"threshold": 1.0}, {"least": 1.5}):
        with pytest.raises(ValueError, match=r"threshold must be in \[0, 1\), least and covered in"):
            SnappingRefiner(proposer, **arguments)


def covering(*masks: torch.Tensor, grid: tuple[int, int] = (16, 16)) -> torch.Tensor:
    """The share of each cell that the union of masks covers."""
    return cell_weights(torch.stack(masks).any(0)[None], grid)[0]


def test_coverage_adds_targets_without_a_mask() -> None:
    first, second, other = box(2, 2, 14, 14), box(30, 4, 44, 16), box(20, 20, 34, 31)
    refiner = SnappingRefiner(Fixed(torch.stack([first, second, other, first | second])))
    assert isinstance(refiner, CoverageRefiner)
    written = box(1, 1, 14, 14)[None]
    found = refiner.refine_covered(IMAGE, written, covering(first, second))
    assert torch.equal(found, torch.stack([first, second]))
    # Nothing is added where nothing else is covered, nor too little, nor with `covered` 1.
    assert torch.equal(refiner.refine_covered(IMAGE, written, covering(first)), first[None])
    faint = covering(first) + 0.6 * covering(second)
    assert torch.equal(
        SnappingRefiner(refiner.proposer, covered=0.9).refine_covered(IMAGE, written, faint), first[None]
    )
    assert torch.equal(refiner.refine_covered(IMAGE, written, faint), found)
    off = SnappingRefiner(refiner.proposer, covered=1.0)
    assert torch.equal(off.refine_covered(IMAGE, written, covering(first, second)), first[None])


def test_coverage_decides_between_neighbours() -> None:
    left, right = box(2, 2, 14, 14), box(16, 2, 28, 14)
    refiner = SnappingRefiner(Fixed(torch.stack([left, right])), covered=1.0)
    between = box(8, 2, 21, 14)[None]
    assert torch.equal(refiner.refine_covered(IMAGE, between, covering(left))[0], left)
    assert torch.equal(refiner.refine_covered(IMAGE, between, covering(right))[0], right)


def test_coverage_is_used_only_where_masks_are_blurred() -> None:
    thing, other = box(2, 2, 14, 14), box(30, 4, 44, 16)
    written, coverage = box(1, 1, 14, 14)[None], covering(thing, other)
    for refiner in (SnappingRefiner(Fixed(torch.stack([thing, other])), blur=0), SnappingRefiner(Fixed(written[:0]))):
        assert torch.equal(refiner.refine_covered(IMAGE, written, coverage), refiner.refine(IMAGE, written))
    assert refiner.refine_covered(IMAGE, written[:0], coverage).shape == (0, 32, 48)
    with pytest.raises(ValueError, match="least and covered in"):
        SnappingRefiner(Fixed(written), covered=1.5)
    assert SnappingRefiner(Fixed(written)).cache_key() != SnappingRefiner(Fixed(written), covered=0.6).cache_key()
