"""Prompts about annotated photographs: what may be asked where only some classes are annotated."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_masks

from maskselect.cli.program import main
from maskselect.data.own import open_own
from maskselect.recipes.photos.groups import KIND_SHARES, PhotoGroups
from maskselect.recipes.photos.words import BROADER, SYNONYMS, UNSEEN, plural, with_article

SIZE = (40, 60)
CATEGORIES = ["cat", "dog", "car", "bus", "cup"]


def code(box: tuple[int, int, int, int]) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    mask = np.zeros(SIZE, np.uint8)
    mask[y0:y1, x0:x1] = 1
    found = coco_masks.encode(np.asfortranarray(mask))
    return {"size": list(SIZE), "counts": found["counts"].decode()}


def folder(path: Path, objects: list[tuple[str, tuple[int, int, int, int], int]], annotated: list[str] | None) -> Path:
    (path / "images").mkdir(parents=True)
    cv2.imwrite(str(path / "images" / "a.png"), np.full((*SIZE, 3), 90, np.uint8))
    rows = [
        {
            "id": n,
            "image_id": 7,
            "category_id": CATEGORIES.index(name) + 1,
            "segmentation": code(box),
            "area": (box[2] - box[0]) * (box[3] - box[1]),
            "iscrowd": crowd,
        }
        for n, (name, box, crowd) in enumerate(objects, 1)
    ]
    image = {"id": 7, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]}
    record: dict[str, Any] = {
        "images": [image | ({} if annotated is None else {"source": "s"})],
        "annotations": rows,
        "categories": [{"id": n, "name": name} for n, name in enumerate(CATEGORIES, 1)],
    }
    if annotated is not None:
        record["sources"] = [{"name": "s", "annotated_categories": annotated}]
    (path / "train.json").write_text(json.dumps(record))
    return path


def all_of(groups: PhotoGroups, kind: str, count: int = 200) -> set[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    groups.shares = dict.fromkeys(KIND_SHARES, 0.0) | {kind: 1.0}
    found = groups.prompts(0, count, np.random.default_rng(0))
    return {(p.text, p.references, p.targets) for p in found if p.kind == kind}


OBJECTS = [
    ("cup", (2, 2, 6, 6), 0),
    ("cat", (0, 10, 20, 30), 0),
    ("dog", (24, 10, 34, 20), 0),
    ("dog", (40, 10, 56, 28), 0),
    ("car", (20, 32, 24, 36), 0),
    ("car", (30, 30, 60, 40), 1),
]  # by falling area: cat 0, large dog 1, small dog 2, then cup 3 and car 4; the crowd is no object


def test_only_what_is_complete_is_asked_for(tmp_path: Path) -> None:
    groups = PhotoGroups(folder(tmp_path, OBJECTS, ["cat", "dog", "car", "bus"]))
    assert groups.image_id(0) == "a.png"
    annotated = groups.load(0)
    assert annotated.masks.flatten(1).sum(1).tolist() == [400, 288, 100, 16, 16]
    assert all(set(targets) <= {0, 1, 2} for _, _, targets in all_of(groups, "category"))
    texts = {text: targets for text, _, targets in all_of(groups, "category")}
    assert texts["the cat"] == (0,) and texts["all dogs"] == texts["dog"] == texts["every hound"] == (1, 2)
    # The cup is not annotated everywhere, cars are a crowd in part, and a bus is certainly absent.
    assert not any("cup" in text or "car" in text for text in texts)
    absent = all_of(groups, "no target")
    assert {
        word for text, _, _ in absent for word in ("bus", "coach", "cup", "mug", "car") if word in text.split()
    } == {
        "bus",
        "coach",
    }
    assert all(targets == () for _, _, targets in absent) and any(refs for _, refs, _ in absent)


def test_positions_sizes_and_references(tmp_path: Path) -> None:
    groups = PhotoGroups(folder(tmp_path, OBJECTS, ["cat", "dog"]))
    sizes = {text: targets for text, _, targets in all_of(groups, "size")}
    assert sizes["the largest dog"] == (1,) and sizes["the smallest hound"] == (2,)
    places = {text: targets for text, _, targets in all_of(groups, "position")}
    assert places["the leftmost dog"] == (2,) and places["the rightmost dog"] == (1,)
    relations = {(text, refs): targets for text, refs, targets in all_of(groups, "relation")}
    assert relations["dogs to the right of <mask-ref>", (0,)] == (1, 2)
    assert relations["each dog further right than <mask-ref>", (0,)] == (1, 2)
    assert relations["dog to the right of <mask-ref>", (2,)] == (1,)
    kinds = {(text, refs): targets for text, refs, targets in all_of(groups, "same kind")}
    assert kinds["the other dogs like <mask-ref>", (1,)] == (2,)
    assert kinds["<mask-ref> and everything of its kind", (1,)] == (1, 2)
    pairs = {text: targets for text, _, targets in all_of(groups, "pair")}
    assert pairs["the cat and the dogs"] == pairs["the dogs and the cat"] == (0, 1, 2)


def test_a_broader_name_needs_all_its_categories(tmp_path: Path) -> None:
    few = PhotoGroups(folder(tmp_path / "few", OBJECTS, ["cat", "dog"]))
    assert all_of(few, "broader") == set()
    everything = [name for names in BROADER.values() for name in names]
    groups = PhotoGroups(folder(tmp_path / "all", OBJECTS[:4], everything))
    assert {targets for _, _, targets in all_of(groups, "broader")} == {(0, 1, 2)}
    assert {text for text, _, _ in all_of(groups, "broader")} >= {"all animals", "every animal"}


def test_a_plain_file_is_annotated_completely(tmp_path: Path) -> None:
    groups = PhotoGroups(folder(tmp_path, OBJECTS, None))
    assert groups.photos[0].absent == ("bus",) and groups.photos[0].complete == {"cat", "dog", "cup"}
    before = groups.version(0)
    record = json.loads((tmp_path / "train.json").read_text())
    record["annotations"][0]["segmentation"] = code((2, 2, 7, 7))
    (tmp_path / "train.json").write_text(json.dumps(record))
    assert PhotoGroups(tmp_path).version(0) != before


def test_unseen_words_are_never_used_in_training(tmp_path: Path) -> None:
    known = {*SYNONYMS, *(word for words in SYNONYMS.values() for word in words), *BROADER}
    assert not known & {word for words in UNSEEN.values() for word in words}
    groups = PhotoGroups(folder(tmp_path, OBJECTS, ["cat", "dog", "bus"]), unseen_words=True)
    texts = {text for text, _, _ in all_of(groups, "category")}
    assert texts and not any(word in text.split() for text in texts for word in ("cat", "dog", "cats", "dogs"))
    assert any("puppy" in text or "puppies" in text for text in texts)
    assert all_of(groups, "no target") == set()  # a bus has no unseen word


def test_words() -> None:
    assert [plural(w) for w in ("dog", "bus", "kitty", "toy", "person", "wine glass", "skis", "couch")] == [
        "dogs", "buses", "kitties", "toys", "people", "wine glasses", "skis", "couches",
    ]  # fmt: skip
    assert (with_article("emu"), with_article("dog")) == ("an emu", "a dog")


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"val\.json do not exist; expected a COCO file"):
        PhotoGroups(tmp_path, "val")
    root = folder(tmp_path / "a", OBJECTS, None)
    with pytest.raises(ValueError, match="kind 'colour' is unknown; expected one of category"):
        PhotoGroups(root, kind_shares={"colour": 1.0})
    record = json.loads((root / "train.json").read_text())
    record["images"][0]["height"] = 41
    (root / "train.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"has the size \(40, 60\); expected \(41, 60\)"):
        PhotoGroups(root).load(0)
    del record["categories"]
    (root / "train.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="are not a COCO file of photographs: KeyError"):
        PhotoGroups(root)


def test_shared_photographs(shared_data: Path) -> None:
    """Every prompt about a validation photograph names masks that exist, and each kind occurs."""
    groups = PhotoGroups(shared_data / "photos", "val")
    rng, kinds = np.random.default_rng(0), set()
    assert len(groups) == 245
    for item in range(len(groups)):
        count = len(groups.photos[item].codes)
        for prompt in groups.prompts(item, 12, rng):
            kinds.add(prompt.kind)
            assert all(0 <= n < count for n in (*prompt.references, *prompt.targets))
            assert prompt.text.count("<mask-ref>") == len(prompt.references) and "{" not in prompt.text
            assert (prompt.kind == "no target") == (not prompt.targets)
    assert kinds == set(KIND_SHARES)


def test_drawn_prompts_are_read_as_own_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder(tmp_path / "photos", OBJECTS, ["cat", "dog", "bus"])
    command = ["data", "build", "photos", "--photos", str(root), "--split", "train", "--output", str(tmp_path / "out")]
    assert main([*command, "--prompts", "12"]) == 0
    assert "photographs: 1" in capsys.readouterr().out
    samples, groups = open_own(tmp_path / "out", "train"), PhotoGroups(root)
    expected = groups.prompts(0, 12, np.random.default_rng([0, 0]))
    assert len(samples) == len(expected) > 6
    masks = groups.load(0).masks
    for sample, prompt in zip(samples, expected, strict=True):
        assert (sample.prompt.text, sample.kind, sample.targets) == (prompt.text, prompt.kind, prompt.targets)
        assert (sample.gt_pool == masks).all() and sample.reference_ids == prompt.references
    assert main([*command, "--prompts", "12", "--kinds", "size"]) == 0
    assert {sample.kind for sample in open_own(tmp_path / "out", "train")} <= {"size", "category"}
