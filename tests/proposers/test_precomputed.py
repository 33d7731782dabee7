"""Candidates read back from shards: equal to what was written, and refused in one sentence when they do not fit."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from maskselect.ops import rle
from maskselect.proposers.key_index import INDEX, KeyIndex
from maskselect.proposers.precomputed import PrecomputedProposer
from maskselect.proposers.proposal_rows import ROWS_PER_GROUP, ProposalRows, failed_row, read_failed, to_row
from maskselect.structures.masks import MaskSet

HASH = "0123456789ab"


def candidates(seed: int, size: tuple[int, int] = (9, 7)) -> MaskSet:
    generator = torch.Generator().manual_seed(seed)
    count = seed % 4
    masks = torch.rand(count, *size, generator=generator) > 0.5
    columns = {
        "stability_score": torch.rand(count, generator=generator),
        "label": torch.arange(count) * 2**40,
        "sure": torch.arange(count) % 2 == 0,
    }
    return MaskSet(masks, torch.rand(count, generator=generator), "sam", columns)


def write(folder: Path, number: int, seeds: range, failed: dict[str, str] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"proposals-00-{number:05d}-of-00009.parquet"
    rows = [to_row(f"{seed}.jpg", candidates(seed), HASH) for seed in seeds]
    ProposalRows().write(path, rows + [failed_row(*one) for one in (failed or {}).items()])
    return path


def image(size: tuple[int, int] = (9, 7)) -> np.ndarray:
    return np.zeros((*size, 3), np.uint8)


def same(one: MaskSet, other: MaskSet) -> bool:
    assert one.columns.keys() == other.columns.keys()
    pairs = [(one.masks, other.masks), (one.scores, other.scores)]
    pairs += [(one.columns[name], other.columns[name]) for name in one.columns]
    return one.source == other.source and all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


def test_threads_share_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskselect.proposers.precomputed._KEPT_OPEN", 1)  # each shard closes the other
    for number in range(4):
        write(tmp_path, number, range(4 * number, 4 * number + 4))
    reader = pickle.loads(pickle.dumps(PrecomputedProposer(tmp_path, HASH)))

    def read(worker: int) -> bool:
        order = np.random.default_rng(worker).permutation(16).tolist()
        return all(same(reader.propose(image(), f"{seed}.jpg"), candidates(seed)) for seed in order * 2)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(4)))


def test_what_was_written_is_read_whatever_the_order(tmp_path: Path) -> None:
    write(tmp_path, 0, range(20))  # two row groups
    write(tmp_path, 1, range(20, 23))
    reader = PrecomputedProposer(tmp_path, HASH)
    for seed in (22, 0, 17, 3, ROWS_PER_GROUP, ROWS_PER_GROUP - 1, 20):
        assert reader.has(f"{seed}.jpg")
        assert same(reader.propose(image(), f"{seed}.jpg"), candidates(seed))
    assert not reader.has("23.jpg")


def test_rows_are_what_other_programs_expect(tmp_path: Path) -> None:
    made = candidates(3)
    row = pq.read_table(write(tmp_path, 0, range(3, 4))).to_pylist()[0]
    assert (row["key"], row["height"], row["width"], row["proposer"], row["source"]) == ("3.jpg", 9, 7, HASH, "sam")
    for number, mask in enumerate(made.masks.numpy()):
        assert np.array_equal(rle.decode(row["masks"][number]), mask)
        rows, columns = np.nonzero(mask)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert row["boxes_xyxy"][number] == box
    assert row["scores"] == made.scores.tolist()


def test_what_differs_is_told(tmp_path: Path) -> None:
    write(tmp_path, 0, range(5))
    reader = PrecomputedProposer(tmp_path, HASH)
    with pytest.raises(FileNotFoundError, match=r"image 'x.jpg': none of the 5 images in .* has that key"):
        reader.propose(image(), "x.jpg")
    with pytest.raises(ValueError, match=r"of \[9, 7\] \(h, w\); image '2.jpg' has \[7, 9\]"):
        reader.propose(image((7, 9)), "2.jpg")
    with pytest.raises(ValueError, match=f"by proposer '{HASH}'; expected 'other'"):
        PrecomputedProposer(tmp_path, "other").propose(image(), "2.jpg")
    assert len(PrecomputedProposer(tmp_path).propose(image(), "2.jpg")) == 2  # any proposer


def test_a_row_under_another_key_is_not_taken(tmp_path: Path) -> None:
    """An index that lies about where rows stand, while shards seem to be those it was made of."""
    path = write(tmp_path, 0, range(4))
    index = KeyIndex.build([path])
    index._places = index._places[::-1].copy()
    index.write(tmp_path / INDEX)
    with pytest.raises(ValueError, match=r"row \d of .* belong to image '.*'; expected '1.jpg'"):
        PrecomputedProposer(tmp_path, HASH).propose(image(), "1.jpg")


def test_the_index_is_used_as_long_as_it_belongs_to_the_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [write(tmp_path, 0, range(4)), write(tmp_path, 1, range(4, 6))]
    KeyIndex.build(files).write(tmp_path / INDEX)
    read: list[Path] = []
    from maskselect.proposers import key_index

    whole = key_index.read_keys
    monkeypatch.setattr(key_index, "read_keys", lambda path: read.append(path) or whole(path))
    reader = PrecomputedProposer(tmp_path)
    assert len(reader.propose(image(), "5.jpg")) == 1 and read == []
    write(tmp_path, 2, range(6, 8))  # found while the reader is in use, and the index counts no more
    assert len(reader.propose(image(), "7.jpg")) == 3 and len(read) == 3
    (tmp_path / INDEX).write_bytes((tmp_path / INDEX).read_bytes()[:100])  # truncated: as if there were none
    assert PrecomputedProposer(tmp_path).has("0.jpg")


def test_damage_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, 0, range(4))
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[3]["masks"][1]["counts"] = "1"
    rows[2]["masks"] = [{"size": [7, 9], "counts": code} for code in ("o1", "o1")]
    pq.write_table(table.from_pylist(rows, table.schema), path)
    reader = PrecomputedProposer(tmp_path)
    with pytest.raises(ValueError, match=r"row 3 of .*parquet hold a damaged mask or column: .*runs hold 1 pixels"):
        reader.propose(image(), "3.jpg")
    with pytest.raises(ValueError, match=r"row 2 of .*: its masks are of \[7, 9\] \(h, w\), its image of \[9, 7\]"):
        reader.propose(image(), "2.jpg")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match="truncated or not parquet"):
        PrecomputedProposer(tmp_path).propose(image(), "1.jpg")
    pq.write_table(table.select(["key", "masks"]), path)
    with pytest.raises(ValueError, match=r"has no column.*boxes_xyxy.*expected a shard that `propose` wrote"):
        PrecomputedProposer(tmp_path).propose(image(), "1.jpg")


def test_a_row_without_a_key_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, 0, range(3))
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[1]["key"] = None
    pq.write_table(table.from_pylist(rows, table.schema), path)
    with pytest.raises(ValueError, match=r"has 1 row\(s\) without a key"):
        PrecomputedProposer(tmp_path).has("0.jpg")


def test_one_key_twice_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 0, range(3))
    write(tmp_path, 1, range(2, 4))
    with pytest.raises(ValueError, match=r"both have a row of key '2\.jpg'"):
        PrecomputedProposer(tmp_path).has("0.jpg")


def test_copies_for_other_processes_read_too(tmp_path: Path) -> None:
    write(tmp_path, 0, range(4))
    reader = PrecomputedProposer(tmp_path, HASH)
    assert len(reader.propose(image(), "3.jpg")) == 3
    copy = pickle.loads(pickle.dumps(reader))
    assert not copy._opened
    assert same(copy.propose(image(), "3.jpg"), reader.propose(image(), "3.jpg"))


def test_files_stay_closed_but_for_a_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskselect.proposers.precomputed._KEPT_OPEN", 2)
    for number in range(4):
        write(tmp_path, number, range(3 * number, 3 * number + 3))
    reader = PrecomputedProposer(tmp_path, HASH)
    for seed in (0, 4, 8, 10, 1, 5):
        assert same(reader.propose(image(), f"{seed}.jpg"), candidates(seed))
    assert len(reader._opened) == 2


def test_failures_travel_in_the_shard(tmp_path: Path) -> None:
    reason = "image ä.jpg is no image"
    assert read_failed(write(tmp_path, 0, range(0), {"ä.jpg": reason})) == {"ä.jpg": reason}
    assert read_failed(write(tmp_path, 1, range(2))) == {}
    assert not PrecomputedProposer(tmp_path).has("ä.jpg")


def test_single_files_stand_beside_shards(tmp_path: Path) -> None:
    write(tmp_path, 0, range(2))
    reader = PrecomputedProposer(tmp_path, HASH)
    reader.write("more", candidates(2))
    assert torch.equal(reader.propose(image(), "more").masks, candidates(2).masks)
    reader.path_of("odd").write_text('{"image_id": "odd", "size": 5, "proposer": "x", "masks": []}')
    with pytest.raises(ValueError, match=r"have size 5; expected \[h, w\]"):
        reader.propose(image(), "odd")
