"""Frozen features: the label rule, the cache, and batches."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from maskselect import cli
from maskselect.backends.building import build
from maskselect.data.groups import DatasetGroups
from maskselect.ops.overlap import pairwise_iop, pairwise_iou
from maskselect.scenes.groups import SceneGroups
from maskselect.structures.groups import Annotated, Query
from maskselect.structures.masks import MaskSet
from maskselect.systems.preparing import (
    FeatureStore,
    LabelRule,
    Record,
    compute,
    drop_unmatched,
    fingerprint,
    make_batch,
    overlaps_with,
)
from maskselect.training.cli import parse
from maskselect.training.synthetic_candidates import SyntheticCandidates
from tests.systems.tiny import tiny_ras
from tests.training.batches import batch_of


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


def test_small_annotated_masks_have_features_at_the_size_of_candidates() -> None:
    """Candidates of a smaller size than the image; a mask between their pixels is still somewhere."""
    image = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    masks = torch.zeros(3, 96, 96, dtype=torch.bool)
    masks[0, 40:80, 10:60] = masks[1, 33, 50] = masks[2, 7] = True
    candidates = MaskSet(torch.ones(1, 32, 32, dtype=torch.bool), torch.ones(1), "small")
    record = compute(tiny_ras(), Annotated(image, masks, {}), candidates)
    assert (record.areas[1:] > 0).all() and (record.inside >= 0).all() and (record.overlap > 0).all()
    assert (record.mask_features.abs().sum(1) > 0.5).all()


def test_a_truncated_record_is_computed_anew(tmp_path: Path) -> None:
    system, source = tiny_ras(), SceneGroups("val", 3, 1)
    first = FeatureStore(system, tmp_path).record(source, 0)
    (file,) = tmp_path.rglob("*.safetensors")
    whole = file.read_bytes()
    for size in (0, 5, 200, len(whole) - 1):
        file.write_bytes(whole[:size])
        assert torch.equal(FeatureStore(system, tmp_path).record(source, 0).overlap, first.overlap)
        file.write_bytes(whole[:size])
        assert FeatureStore(system, tmp_path).keep(source, 0)
        assert file.read_bytes() == whole and not FeatureStore(system, tmp_path).keep(source, 0)
    save_file({"overlap": first.overlap}, file)  # whole, but not all that a record has
    assert torch.equal(FeatureStore(system, tmp_path).record(source, 0).areas, first.areas)


def test_cached_batches_equal_fresh_ones(tmp_path: Path) -> None:
    system, source = tiny_ras(), SceneGroups("val", 3, 2)
    FeatureStore(system, tmp_path).record(source, 0)
    kept, fresh = (batch_of(system, source, [(0, 5), (1, 6)], 4, folder) for folder in (tmp_path, None))
    assert kept.prompts == fresh.prompts
    torch.testing.assert_close(kept.candidate_features, fresh.candidate_features)
    torch.testing.assert_close(kept.labels, fresh.labels)


def test_kept_records_follow_the_annotations_that_are_used(tmp_path: Path) -> None:
    """Another limit and an edited prompt, mask or picture give what no cache would; what is as it was is kept."""
    root, system = tmp_path / "own", tiny_ras()
    shutil.copytree("examples/own", root)

    def differs(limit: int | None) -> bool:
        """Whether anything had to be computed anew; what comes is always what comes without a cache."""
        source = DatasetGroups("own", root, "train", limit)
        before = len(list(tmp_path.glob("kept/**/*.safetensors")))
        kept, fresh = (batch_of(system, source, [(0, 5)], 99, folder) for folder in (tmp_path / "kept", None))
        assert kept.prompts == fresh.prompts and kept.labels is not None and fresh.labels is not None
        torch.testing.assert_close(kept.labels, fresh.labels)
        for own, other in zip(kept.reference_features[0], fresh.reference_features[0], strict=True):
            torch.testing.assert_close(own, other)
        return len(list(tmp_path.glob("kept/**/*.safetensors"))) > before

    assert differs(1) and differs(None) and not differs(1) and not differs(None)
    content = json.loads((root / "train.json").read_text())
    content["prompts"][0]["text"] = "something else"
    (root / "train.json").write_text(json.dumps(content))
    assert differs(None) and not differs(None)
    (annotation,) = [a for a in content["annotations"] if a["id"] == content["prompts"][0]["targets"][0]]
    annotation["segmentation"] = [[20, 20, 90, 20, 90, 70, 20, 70]]
    (root / "train.json").write_text(json.dumps(content))
    assert differs(None) and not differs(None)


def test_fingerprint_follows_the_frozen_weights() -> None:
    one, two = tiny_ras(), tiny_ras()
    assert fingerprint(one) == fingerprint(two)
    with torch.no_grad():
        next(two.lmm.vision_tower.parameters()).add_(1.0)
    assert fingerprint(one) != fingerprint(two)


def test_synthetic_candidates_take_the_proposers_place(tmp_path: Path) -> None:
    system, source = tiny_ras(), SceneGroups("val", 3, 1)

    def refuse(image: np.ndarray) -> MaskSet:
        raise AssertionError("the proposer ran")

    real = FeatureStore(system, tmp_path)
    system.proposer.propose = refuse  # type: ignore[method-assign]
    store = FeatureStore(system, tmp_path, SyntheticCandidates())
    first, again = store.record(source, 0), FeatureStore(system, None, SyntheticCandidates()).record(source, 0)
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
    areas = torch.cat([torch.arange(6.0), torch.tensor([9.0])])
    record = Record(torch.arange(6.0)[:, None], empty, empty, overlap, overlap, areas, {})
    kept = drop_unmatched(record, 3, np.random.default_rng(0)).candidate_features[:, 0].tolist()
    assert len(kept) == 3 and {0.0, 3.0} <= set(kept) and kept == sorted(kept)
    assert len(drop_unmatched(record, 1, np.random.default_rng(0)).overlap) == 2
    few = drop_unmatched(record, 3, np.random.default_rng(0))
    assert few.areas.tolist() == [*few.candidate_features[:, 0].tolist(), 9.0] and few.inside.shape == (3, 1)
    assert drop_unmatched(record, 6, np.random.default_rng(0)) is record


def test_overlaps_with_several_targets_are_those_of_their_union() -> None:
    """Annotated masks of scenes do not overlap; then sums of shares are exact."""
    system, source = tiny_ras(), SceneGroups("val", 3, 4)
    for item in range(4):
        annotated = source.load(item)
        record = compute(system, annotated)
        found = system.proposer.propose(annotated.image).masks
        targets = tuple(range(0, len(annotated.masks), 2))
        union = annotated.masks[list(targets)].any(0)[None]
        iou, iop = overlaps_with(record, targets)
        torch.testing.assert_close(iou, pairwise_iou(found, union)[:, 0], atol=3e-3, rtol=0)
        torch.testing.assert_close(iop, pairwise_iop(found, union)[:, 0], atol=3e-3, rtol=0)
        assert overlaps_with(record, ())[0].tolist() == [0.0] * len(found)


def test_memory_holds_no_more_records_than_it_may(tmp_path: Path) -> None:
    source, store = SceneGroups("val", 0, 3), FeatureStore(tiny_ras(), tmp_path)
    first = store.record(source, 0)
    store._free_bytes = sum(tensor.nbytes for tensor in vars(first).values() if isinstance(tensor, torch.Tensor)) // 2
    again = [store.record(source, item) for item in (1, 1)]
    assert set(store.in_memory) == {f"{source.image_id(0)}#{source.version(0)}"}
    assert torch.equal(again[0].overlap, again[1].overlap) and again[0] is not again[1]
    assert store.record(source, 0) is first


def fill_config(folder: Path, limit: int | None = 2) -> Path:
    """A run of the shipped RAS's parts on `examples/own`."""
    own = {"dataset": "own", "root": "examples/own"}
    sources = {
        name: {
            "class_path": "maskselect.data.groups.DatasetGroups",
            "init_args": {**own, "split": name, "limit": limit},
        }
        for name in ("train", "val")
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"data": {"init_args": {**sources, "cache_dir": str(folder / "kept")}}}))
    return path


def test_the_command_computes_what_a_run_finds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ["-c", "configs/ras.yaml", "-c", str(fill_config(tmp_path))]
    command = ["features", *config, "--device", "cpu", "--trainer.devices", "7"]
    said = []
    for part in ("1/2", "2/2", "1/1"):
        assert cli.main([*command, "--part", part]) == 0
        said.append(capsys.readouterr().out)
    assert [int(line.split()[0]) for line in said] == [1, 1, 0] and " of 2 images" in said[2]
    parsed = parse(config, with_none=True)
    torch.manual_seed(parsed["seed_everything"])
    task, data = build(parsed["model"]["task"]), build(parsed["data"])
    monkeypatch.setattr(FeatureStore, "_compute", None)  # nothing is computed any more
    for source in (data.train_source, data.val_source):
        record = FeatureStore(task, tmp_path / "kept").record(source, 0)
        assert len(record.candidate_features) > 0 and len(record.image_features) > 0


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--part", "3/2"], "3/2 is not I/N with I from 1 to N"),
        (["--data.init_args.cache_dir", "null"], "keep no frozen features"),
        (["--model.task.init_args.start", "gone.safetensors"], "gone.safetensors"),
    ],
)
def test_what_cannot_be_computed_is_told(
    more: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["features", "-c", "configs/ras.yaml", "-c", str(fill_config(tmp_path)), *more]
    try:
        status = cli.main(command)
    except SystemExit as stop:
        status = int(str(stop.code))
    assert status == 2 and told in capsys.readouterr().err and not (tmp_path / "kept").exists()


def test_without_image_tokens_none_are_kept(tmp_path: Path) -> None:
    seeing, blind = tiny_ras(), tiny_ras(image_tokens=False)
    source = SceneGroups("val", 0, 1)
    records = [FeatureStore(system, tmp_path).record(source, 0) for system in (seeing, blind)]
    assert records[0].image_features.numel() > 0 and records[1].image_features.numel() == 0
    assert fingerprint(seeing) != fingerprint(blind)
    torch.testing.assert_close(records[0].candidate_features, records[1].candidate_features)
    batch = batch_of(blind, source, [(0, 5)], 4, tmp_path)
    assert torch.isfinite(blind.eval().loss(batch)["loss"])
