"""Candidates made from annotated masks."""

import numpy as np
import pytest
import torch

from maskselect.ops.overlap import pairwise_iou
from maskselect.scenes.groups import SceneGroups
from maskselect.training.synthetic_candidates import SyntheticCandidates


def _masks(scene: int) -> torch.Tensor:
    return SceneGroups("val", 3, scene + 1).load(scene).masks


def test_most_objects_have_a_good_candidate_and_some_candidates_are_wrong() -> None:
    good, found, wrong = 0, 0, 0
    for scene in range(6):
        masks = _masks(scene)
        best = pairwise_iou(SyntheticCandidates().propose(masks, np.random.default_rng(scene)).masks, masks)
        good += int((best.amax(0) >= 0.7).sum())
        found += len(masks)
        wrong += int((best.amax(1) < 0.5).sum())
    assert 0.75 * found <= good < found
    assert wrong > found / 3


def test_scores_follow_the_overlap() -> None:
    masks = _masks(0)
    drawn = [SyntheticCandidates().propose(masks, np.random.default_rng(seed)) for seed in range(8)]
    overlap = torch.cat([pairwise_iou(d.masks, masks).amax(1) for d in drawn])
    scores = torch.cat([d.scores for d in drawn])
    assert torch.corrcoef(torch.stack([overlap, scores]))[0, 1] > 0.6
    assert float(scores.min()) >= 0 and float(scores.max()) <= 1


def test_without_errors_they_are_the_annotated_masks() -> None:
    masks = _masks(1)
    found = SyntheticCandidates(missed=0, halves=0, pieces=0, unions=0, wave=0, grid=256).propose(
        masks, np.random.default_rng(0)
    )
    assert torch.equal(found.masks, masks)


def test_same_seed_same_candidates() -> None:
    first, again = (SyntheticCandidates().propose(_masks(2), np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(first.masks, again.masks) and torch.equal(first.scores, again.scores)


@pytest.mark.parametrize("masks", [torch.zeros(0, 48, 64, dtype=torch.bool), torch.zeros(2, 48, 64, dtype=torch.bool)])
def test_nothing_to_stand_in_for(masks: torch.Tensor) -> None:
    found = SyntheticCandidates().propose(masks, np.random.default_rng(0))
    assert found.masks.shape == (0, 48, 64) and found.scores.shape == (0,)


def test_a_lone_object_on_a_wide_image() -> None:
    masks = torch.zeros(1, 40, 200, dtype=torch.bool)
    masks[0, 5:35, 20:150] = True
    found = SyntheticCandidates(unions=3.0).propose(masks, np.random.default_rng(1))
    assert found.masks.shape[1:] == (40, 200)
    assert found.masks.any(-1).any(-1).all()
