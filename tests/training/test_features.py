"""Frozen features: the label rule, the cache, and batches."""

from pathlib import Path

import numpy as np
import pytest
import torch

from maskselect.data.groups import Annotated, Query, SceneGroups
from maskselect.structures.masks import MaskSet
from maskselect.training.data import NumberedDraws
from maskselect.training.features import (
    FeatureStore,
    LabelRule,
    Record,
    collect,
    compute,
    fingerprint,
    make_batch,
    thinned,
)
from maskselect.training.stand_ins import StandIns
from tests.systems.tiny import tiny_ras


@pytest.mark.parametrize(
    ("overlap", "targets", "labels"),
    [
        ([[0.9], [0.6], [0.1]], (0,), [1, -1, 0]),  # best; not the best but close; elsewhere
        ([[0.55], [0.3], [0.0]], (0,), [1, 0, 0]),  # a poor best still stands for its target
        ([[0.8], [0.75], [0.0]], (0,), [1, 1, 0]),  # two good ones
        ([[0.4], [0.3], [0.0]], (0,), [0, 0, 0]),  # nothing found the target
        ([[0.9, 0.0], [0.0, 0.6], [0.0, 0.55]], (0, 1), [1, 1, -1]),
        ([[0.9], [0.6], [0.1]], (), [0, 0, 0]),
    ],
)
def test_label_rule(overlap: list[list[float]], targets: tuple[int, ...], labels: list[float]) -> None:
    assert LabelRule().labels(torch.tensor(overlap), targets).tolist() == labels


def test_records_come_back_equal_from_disk(tmp_path: Path) -> None:
    system, source = tiny_ras(), SceneGroups("val", 3, 2)
    first = FeatureStore(system, tmp_path).record(source, 0)
    again = FeatureStore(system, tmp_path).record(source, 0)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
    for name, value in vars(first).items():
        if name != "extra":
            torch.testing.assert_close(getattr(again, name), value)
    assert first.extra.keys() == again.extra.keys()


def test_cached_batches_equal_fresh_ones(tmp_path: Path) -> None:
    system, source = tiny_ras(), SceneGroups("val", 3, 2)
    stores = FeatureStore(system, tmp_path), FeatureStore(system, None)
    stores[0].record(source, 0)
    kept, fresh = (
        collect(s, source, [(0, 5), (1, 6)], 4, LabelRule(), False) for s in (FeatureStore(system, tmp_path), stores[1])
    )
    assert kept.prompts == fresh.prompts
    torch.testing.assert_close(kept.candidate_features, fresh.candidate_features)
    torch.testing.assert_close(kept.labels, fresh.labels)


def test_fingerprint_follows_the_frozen_weights() -> None:
    one, two = tiny_ras(), tiny_ras()
    assert fingerprint(one) == fingerprint(two)
    with torch.no_grad():
        next(two.lmm.vision_tower.parameters()).add_(1.0)
    assert fingerprint(one) != fingerprint(two)


def test_stand_ins_take_the_proposers_place(tmp_path: Path) -> None:
    system, source = tiny_ras(), SceneGroups("val", 3, 1)

    def refuse(image: np.ndarray) -> MaskSet:
        raise AssertionError("the proposer was asked")

    real = FeatureStore(system, tmp_path)
    system.proposer.propose = refuse  # type: ignore[method-assign]
    store = FeatureStore(system, tmp_path, StandIns())
    first, again = store.record(source, 0), FeatureStore(system, None, StandIns()).record(source, 0)
    assert store.folder != real.folder
    assert first.overlap.amax() > 0.7
    torch.testing.assert_close(first.candidate_features, again.candidate_features)


def test_ragged_images_are_padded_and_not_counted() -> None:
    system = tiny_ras()
    masks = torch.zeros(2, 20, 20, dtype=torch.bool)
    masks[0, :10, :10] = masks[1, 10:, 10:] = True
    record = compute(system, Annotated(np.zeros((20, 20, 3), np.uint8), masks))
    assert record.overlap.shape == (4, 2) and record.overlap[0, 0] == 1 and record.overlap[3, 1] == 1
    queries = [[Query("a", (), (0,))], [Query("b <mask-ref>", (1,), ()), Query("c", (), (0, 1))]]
    batch = make_batch([record, record], queries, None, LabelRule())
    assert batch.labels is not None and batch.labels.shape == (2, 2, 4)
    assert (batch.labels[0, 1] == -1).all() and batch.labels[1, 1].tolist() == [1, 0, 0, 1]
    assert [len(r) for r in batch.reference_features[1]] == [1, 0]


def test_thinning_drops_only_what_matches_nothing() -> None:
    overlap = torch.tensor([[0.9], [0.0], [0.1], [0.6], [0.2], [0.0]])
    empty = torch.zeros(0)
    record = Record(torch.arange(6.0)[:, None], empty, empty, overlap, {})
    kept = thinned(record, 3, np.random.default_rng(0)).candidate_features[:, 0].tolist()
    assert len(kept) == 3 and {0.0, 3.0} <= set(kept) and kept == sorted(kept)
    assert len(thinned(record, 1, np.random.default_rng(0)).overlap) == 2
    assert thinned(record, 6, np.random.default_rng(0)) is record


def test_numbered_draws_resume_where_they_stopped() -> None:
    whole = list(NumberedDraws(7, seed=1, length=30))
    assert whole[12:] == list(NumberedDraws(7, seed=1, start=12, length=30))
    assert sorted(whole[:7]) == list(range(7)) and whole[:7] != whole[7:14]


def test_processes_share_the_draws() -> None:
    whole = list(NumberedDraws(7, seed=1, start=4, length=24))
    shares = [list(NumberedDraws(7, seed=1, start=4, length=24, rank=r, world=2)) for r in range(2)]
    assert shares[0] == whole[::2] and shares[1] == whole[1::2]
