"""The store of proposals: what is read equals what was proposed, whoever proposed it, and nothing is mixed up."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from maskselect.ops import rle
from maskselect.ops.images import WORKING_SIDE, working_image
from maskselect.proposers import store as module
from maskselect.proposers.proposal_rows import ROWS_PER_GROUP, ProposalRows, failed_row, read_failed, to_row
from maskselect.proposers.store import INDEX, ProposalStore, StoredProposer, content_key, propose_row, write_index
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import PromptableProposer

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
    rows = [to_row(f"{seed}.jpg", str(seed), candidates(seed), HASH) for seed in seeds]
    ProposalRows().write(path, rows + [failed_row(*one) for one in (failed or {}).items()])
    return path


def same(one: MaskSet | None, other: MaskSet) -> bool:
    assert one is not None and one.columns.keys() == other.columns.keys()
    pairs = [(one.masks, other.masks), (one.scores, other.scores)]
    pairs += [(one.columns[name], other.columns[name]) for name in one.columns]
    return one.source == other.source and all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


def test_threads_share_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_OPEN", 1)  # each shard closes the other
    for number in range(4):
        write(tmp_path, number, range(4 * number, 4 * number + 4))
    store = pickle.loads(pickle.dumps(ProposalStore(tmp_path)))

    def read(worker: int) -> bool:
        order = np.random.default_rng(worker).permutation(16).tolist()
        return all(same(store.find(HASH, str(seed)), candidates(seed)) for seed in order * 2)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(4)))


def test_what_was_written_is_read_whatever_the_order(tmp_path: Path) -> None:
    write(tmp_path, 0, range(20))  # two row groups
    write(tmp_path, 1, range(20, 23))
    store = ProposalStore(tmp_path)
    for seed in (22, 0, 17, 3, ROWS_PER_GROUP, ROWS_PER_GROUP - 1, 20):
        assert same(store.find(HASH, str(seed)), candidates(seed))
    assert store.find(HASH, "23") is None and store.find("other", "22") is None


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


def test_an_index_that_lies_gives_no_candidates_of_another_picture(tmp_path: Path) -> None:
    write(tmp_path, 0, range(4))
    write_index(tmp_path)
    table = np.load(tmp_path / INDEX)
    table[1, 1:] = table[1, :0:-1]
    np.save(tmp_path / INDEX, table)
    assert [ProposalStore(tmp_path).find(HASH, str(seed)) for seed in range(4)] == [None] * 4


def test_the_index_is_used_as_long_as_it_belongs_to_the_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 0, range(4))
    write(tmp_path, 1, range(4, 6))
    write_index(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(module, "build_index", None)
        assert same(ProposalStore(tmp_path).find(HASH, "5"), candidates(5))
    write(tmp_path, 2, range(6, 8))  # the index does not know it
    assert same(ProposalStore(tmp_path).find(HASH, "7"), candidates(7))
    write_index(tmp_path)
    for damaged in ((tmp_path / INDEX).read_bytes()[:100], b""):
        (tmp_path / INDEX).write_bytes(damaged)
        assert same(ProposalStore(tmp_path).find(HASH, "0"), candidates(0))


def test_damage_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, 0, range(4))
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[3]["masks"][1]["counts"] = "1"
    rows[2]["masks"] = [{"size": [7, 9], "counts": code} for code in ("o1", "o1")]
    pq.write_table(table.from_pylist(rows, table.schema), path)
    store = ProposalStore(tmp_path)
    with pytest.raises(ValueError, match=r"image '3.jpg' are damaged: .*runs hold 1 pixels"):
        store.find(HASH, "3")
    with pytest.raises(ValueError, match=r"image '2.jpg' are damaged: .* \[7, 9\] \(h, w\), its image \[9, 7\]"):
        store.find(HASH, "2")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match="truncated or not parquet"):
        ProposalStore(tmp_path).find(HASH, "1")
    pq.write_table(table.select(["key", "masks"]), path)
    with pytest.raises(ValueError, match=r"has no column.*boxes_xyxy.*expected a shard that `propose` wrote"):
        ProposalStore(tmp_path).find(HASH, "1")


def test_a_row_without_a_key_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, 0, range(3))
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[1]["content"] = None
    pq.write_table(table.from_pylist(rows, table.schema), path)
    with pytest.raises(ValueError, match=r"has row\(s\) without a content"):
        ProposalStore(tmp_path).find(HASH, "0")


def test_pictures_of_one_content_share_their_candidates(tmp_path: Path) -> None:
    write(tmp_path, 0, range(3))
    write(tmp_path, 1, range(2, 4))
    assert all(same(ProposalStore(tmp_path).find(HASH, str(seed)), candidates(seed)) for seed in range(4))


def test_files_stay_closed_but_for_a_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_OPEN", 2)
    for number in range(4):
        write(tmp_path, number, range(3 * number, 3 * number + 3))
    store = ProposalStore(tmp_path)
    for seed in (0, 4, 8, 10, 1, 5):
        assert same(store.find(HASH, str(seed)), candidates(seed))
        assert len(store._opened) <= 2


def test_failures_travel_in_the_shard(tmp_path: Path) -> None:
    reason = "image ä.jpg is no image"
    assert read_failed(write(tmp_path, 0, range(0), {"ä.jpg": reason})) == {"ä.jpg": reason}
    assert read_failed(write(tmp_path, 1, range(2))) == {}


# The proposer over it.


class Counting:
    """Halves of a picture, and how often it was asked."""

    def __init__(self, score: float = 0.1) -> None:
        self.score = score
        self.images: list[np.ndarray] = []

    def cache_key(self) -> str:
        return str(self.score)

    def propose(self, image: np.ndarray) -> MaskSet:
        self.images.append(image)
        masks = torch.zeros(2, *image.shape[:2], dtype=torch.bool)
        masks[0, :, : image.shape[1] // 2], masks[1, :, image.shape[1] // 2 :] = True, True
        return MaskSet(masks, torch.tensor([self.score, 1 / 3]), "halves", {"stability": torch.tensor([0.7, 0.2])})


def picture(seed: int = 0, size: tuple[int, int] = (12, 20)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)


def test_a_picture_is_proposed_once_and_read_exactly_as_it_was(tmp_path: Path) -> None:
    made = Counting()
    for _ in range(2):
        assert same(StoredProposer(made, tmp_path).propose(picture()), Counting().propose(picture()))
    assert len(made.images) == 1
    copy = pickle.loads(pickle.dumps(StoredProposer(made, tmp_path)))
    assert same(copy.propose(picture()), Counting().propose(picture())) and len(copy.proposer.images) == 1


def test_another_picture_and_the_same_pixels_in_another_shape_are_others(tmp_path: Path) -> None:
    made = Counting()
    stored = StoredProposer(made, tmp_path)
    for image in (picture(), picture(1), picture().reshape(20, 12, 3)):
        assert stored.propose(image).image_size == image.shape[:2]
    assert len(made.images) == 3


def test_proposers_share_a_folder_and_nothing_else(tmp_path: Path) -> None:
    scores = [
        StoredProposer(Counting(score), tmp_path).propose(picture()).scores[0].item() for score in (0.1, 0.9, 0.1)
    ]
    assert scores == pytest.approx([0.1, 0.9, 0.1])
    assert len([*tmp_path.rglob("*.parquet")]) == 2


@pytest.mark.parametrize("size", [(1500, 2049), (1025, 1025), (3000, 7), (700, 1024)])
def test_a_large_picture_and_its_working_image_share_their_candidates(tmp_path: Path, size: tuple[int, int]) -> None:
    made, image = Noise(), picture(0, size)
    stored = StoredProposer(made, tmp_path)
    large, small = stored.propose(image), stored.propose(working_image(image))
    assert len(made.images) == 1 and max(made.images[0].shape) == min(max(size), WORKING_SIDE)
    assert large.image_size == size and torch.equal(small.masks, Noise().propose(working_image(image)).masks)
    row = pq.read_table(next(tmp_path.rglob("*.parquet"))).to_pylist()[0]
    assert (row["height"], row["width"]) == size == tuple(row["masks"][0]["size"])


class Noise(Counting):
    """Masks of single pixels, which show every shift."""

    def propose(self, image: np.ndarray) -> MaskSet:
        self.images.append(image)
        return MaskSet(torch.from_numpy(image[..., 1] > 128)[None], torch.ones(1), "noise")


def test_shards_serve_it_and_those_of_another_proposer_are_told(tmp_path: Path) -> None:
    made = Counting()
    row = propose_row(picture(), made, made.cache_key(), "a.jpg")
    ProposalRows().write(tmp_path / "proposals-00-00000-of-00001.parquet", [row])
    assert same(StoredProposer(made, tmp_path).propose(picture()), Counting().propose(picture()))
    assert len(made.images) == 1 and not (tmp_path / "single").exists()
    with pytest.warns(UserWarning, match=r"holds proposals of the proposer 0\.1, not of this one, 0\.9"):
        other = StoredProposer(Counting(0.9), tmp_path)
    assert other.propose(picture()).scores[0].item() == pytest.approx(0.9)


def test_boxes_and_points_go_to_the_proposer(tmp_path: Path) -> None:
    class Pointing(Counting):
        def segment_box(self, image: np.ndarray, box_xyxy: tuple[float, float, float, float]) -> torch.Tensor:
            return torch.full(image.shape[:2], box_xyxy[0] > 0)

        def segment_boxes(self, image: np.ndarray, boxes_xyxy: torch.Tensor) -> MaskSet:
            return MaskSet.empty((image.shape[0], image.shape[1]), f"{len(boxes_xyxy)} boxes")

        def segment_point(self, image: np.ndarray, point_xy: tuple[float, float]) -> torch.Tensor:
            return torch.full(image.shape[:2], point_xy[0] > 0)

    stored = StoredProposer(Pointing(), tmp_path)
    assert isinstance(stored, PromptableProposer)
    assert stored.segment_box(picture(), (1, 0, 2, 2)).all() and not stored.segment_point(picture(), (0, 1)).any()
    assert stored.segment_boxes(picture(), torch.zeros(3, 4)).source == "3 boxes"
    with pytest.raises(ValueError, match="can turn a box or point into a mask"):
        StoredProposer(Counting(), tmp_path).segment_point(picture(), (1, 1))


def test_a_store_of_another_folder_replaces_the_first(tmp_path: Path) -> None:
    stored = StoredProposer(StoredProposer(Counting(), tmp_path / "one"), tmp_path / "two")
    assert isinstance(stored.proposer, Counting)
    stored.propose(picture())
    assert [path.name for path in tmp_path.iterdir()] == ["two"]


def test_a_damaged_single_file_is_made_anew(tmp_path: Path) -> None:
    first = StoredProposer(Counting(), tmp_path).propose(picture())
    (file,) = tmp_path.rglob("*.parquet")
    whole = file.read_bytes()
    for damaged in (b"{", whole[: len(whole) // 2], b""):
        file.write_bytes(damaged)
        assert torch.equal(StoredProposer(Counting(), tmp_path).propose(picture()).masks, first.masks)
        assert len(file.read_bytes()) == len(whole)


def test_the_key_is_of_the_pixels_and_the_shape() -> None:
    image = picture()
    assert content_key(image) == content_key(image.copy(order="F")) == content_key(image[:, ::-1][:, ::-1])
    assert len({content_key(one) for one in (image, image[:, ::-1], image.reshape(20, 12, 3))}) == 3
