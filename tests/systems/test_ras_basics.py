"""What RAS is by its paper, each rule alone: a change of any of them must fail here."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from maskselect.structures.groups import Annotated, Query
from maskselect.structures.masks import MaskSet
from maskselect.structures.sample import Batch, Prompt
from maskselect.systems.preparing import LabelRule, compute, make_batch
from maskselect.systems.ras import RAS
from tests.systems.tiny import TEXTS, Quarters, tiny_batch, tiny_ras

IMAGE = np.zeros((20, 20, 3), np.uint8)
PROMPT = Prompt("the mugs", torch.zeros(0, 20, 20, dtype=torch.bool))


def loss(system: RAS, batch: Batch) -> float:
    with torch.no_grad():
        return float(system.loss(batch)["loss"])


def test_positives_weigh_five_times_as_much_as_negatives() -> None:
    heavy, light = tiny_ras().eval(), tiny_ras(positive_weight=1.0).eval()
    batch = tiny_batch(heavy)
    valid = batch.candidate_valid[:, None].expand_as(batch.labels)
    positive = replace(batch, labels=torch.where(valid, 1.0, -1.0))
    negative = replace(batch, labels=torch.where(valid, 0.0, -1.0))
    assert loss(heavy, positive) == pytest.approx(5 * loss(light, positive), rel=1e-4)
    assert loss(heavy, negative) == pytest.approx(loss(light, negative), rel=1e-4)


def test_a_score_equal_to_the_threshold_is_selected() -> None:
    system = tiny_ras().eval()
    batch = tiny_batch(system)
    read = system.read_candidates(IMAGE, batch.candidate_features[1])
    references = batch.reference_features[1]
    scores, _ = system.score_candidates(read, TEXTS, references, 0.5)
    exact = float(scores[0].sort().values[2])
    _, chosen = system.score_candidates(read, TEXTS, references, exact)
    assert torch.equal(chosen, scores >= exact) and int((scores == exact).sum()) >= 1
    assert int(chosen[0].sum()) == 3  # of five: the one with that score, and the two above it


def test_training_reads_the_reference() -> None:
    """The same prompt about another reference has another loss, by the path of training batches."""
    system = tiny_ras().eval()
    masks = torch.zeros(2, 20, 20, dtype=torch.bool)
    masks[0, :10, :10] = masks[1, 10:, 10:] = True
    record = compute(system, Annotated(IMAGE, masks))

    def batch_of(reference: int) -> Batch:
        asked = [[Query("everything like <mask-ref>", (reference,), (0,))]]
        return make_batch([record], asked, None, LabelRule())

    first, second = batch_of(0), batch_of(1)
    for number, batch in enumerate((first, second)):
        assert torch.equal(batch.reference_features[0][0], record.mask_features[[number]].float())
    assert abs(loss(system, first) - loss(system, second)) > 1e-6
    zeroed = replace(first, reference_features=[[torch.zeros_like(first.reference_features[0][0])]])
    assert abs(loss(system, first) - loss(system, zeroed)) > 1e-6


def test_each_reference_goes_to_its_own_place() -> None:
    system = tiny_ras().eval()
    batch = tiny_batch(system).row(1)
    texts = ["from <mask-ref> to <mask-ref>", "like <mask-ref>"]
    rows = torch.randn(3, system.channels, generator=torch.Generator().manual_seed(1))

    def logits(*references: Tensor) -> Tensor:
        with torch.no_grad():
            return system(replace(batch, prompts=[texts], reference_features=[list(references)]))[0]

    before, swapped = logits(rows[:2], rows[2:]), logits(rows[:2].flip(0), rows[2:])
    assert (before[0] - swapped[0]).abs().max() > 1e-5  # the order of references matters
    torch.testing.assert_close(before[1], swapped[1])  # but not for another prompt


class Twice(Quarters):
    """Proposes each quarter twice."""

    def propose(self, image: np.ndarray) -> MaskSet:
        quarters = super().propose(image)
        return quarters.concat(quarters)


@pytest.mark.parametrize(("duplicates_iou", "masks"), [(0.5, 4), (None, 8)])
def test_duplicates_are_removed_unless_the_config_says_otherwise(duplicates_iou: float | None, masks: int) -> None:
    system = tiny_ras(Twice(), duplicates_iou=duplicates_iou).eval()
    (answer,) = system.answer(system.read(IMAGE), [PROMPT], 0.0)
    assert len(answer.masks) == masks
    assert tiny_ras().duplicates_iou == 0.5  # what the shipped cards do not state


def test_features_go_to_the_projector_as_they_are_without_standardisation() -> None:
    """And a model that was trained with statistics ignores them then."""
    plain, standard = (tiny_ras(standardise=on).train() for on in (False, True))
    batch = tiny_batch(plain)
    batch = replace(batch, candidate_features=3 + 2 * batch.candidate_features)
    for system in (plain, standard):
        system.loss(batch)
    assert not plain.reader.mask_tokenizer.fitted and standard.reader.mask_tokenizer.fitted
    plain.load_state_dict(standard.state_dict())
    features = batch.candidate_features[0, :4]
    projected = plain.reader.mask_tokenizer.projector(features)
    torch.testing.assert_close(plain.reader.mask_tokenizer(features), projected)
    assert not torch.allclose(standard.reader.mask_tokenizer(features), projected)


@pytest.mark.parametrize("scores", [[0.9, 0.3, 0.5, 0.7], [0.2] * 4])
def test_added_masks_get_the_median_score_of_the_proposals(scores: list[float]) -> None:
    class Scored(Quarters):
        def propose(self, image: np.ndarray) -> MaskSet:
            return replace(super().propose(image), scores=torch.tensor(scores))

    system: Any = tiny_ras(Scored()).eval()
    extra = MaskSet(torch.ones(2, 20, 20, dtype=torch.bool), torch.ones(2), "extra")
    reading = system.read(IMAGE, extra)
    assert reading.pool.scores[:4].tolist() == pytest.approx(scores)
    median = sorted(scores)[1]  # the lower one of an even number
    assert reading.pool.scores[4:].tolist() == pytest.approx([median] * 2)
    assert reading.features[4:, -1].tolist() == pytest.approx([median] * 2)  # which the model reads


def test_added_masks_keep_their_score_without_proposals() -> None:
    class Silent(Quarters):
        def propose(self, image: np.ndarray) -> MaskSet:
            return MaskSet.empty((20, 20))

    extra = MaskSet(torch.ones(1, 20, 20, dtype=torch.bool), torch.ones(1), "extra")
    assert tiny_ras(Silent()).eval().read(IMAGE, extra).pool.scores.tolist() == [1.0]  # type: ignore[union-attr]
