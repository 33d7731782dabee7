"""A person's own data: the documented form, and training groups made of any data set."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskselect.data.groups import DatasetGroups
from maskselect.data.own import open_own


def _box(number: int, image: int, x: int) -> dict[str, Any]:
    outline = [[x, 0, x + 3, 0, x + 3, 3, x, 3]]
    return {"id": number, "image_id": image, "segmentation": outline, "category_id": 1 + number % 2}


def _own(folder: Path, prompts: list[dict[str, Any]] | None = None, split: str = "train") -> Path:
    data: dict[str, Any] = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 8, "width": 12} for n in (1, 2)],
        "annotations": [_box(10, 1, 0), _box(11, 1, 4), _box(12, 1, 8), _box(20, 2, 0)],
        "categories": [{"id": 1, "name": "mug"}, {"id": 2, "name": "plate"}],
    }
    if prompts is not None:
        data["prompts"] = prompts
    (folder / "images").mkdir(exist_ok=True)
    for number in (1, 2):
        Image.fromarray(np.full((8, 12, 3), number, np.uint8)).save(folder / "images" / f"{number}.png")
    (folder / f"{split}.json").write_text(json.dumps(data))
    return folder


PROMPTS = [
    {"image_id": 1, "text": "mugs left of <mask-ref>", "references": [12], "targets": [11, 10], "id": "a"},
    {"image_id": 2, "text": "a horse", "targets": []},
    {"image_id": 1, "text": "everything", "targets": [10, 11, 12], "kind": "category"},
]


def test_prompts_name_annotations(tmp_path: Path) -> None:
    samples = list(open_own(_own(tmp_path, PROMPTS)))
    assert [s.sample_id for s in samples] == ["a", "prompt 1 of image 1", "prompt 0 of image 2"]
    first, everything, none = samples
    assert (first.targets, first.reference_ids) == ((1, 0), (2,)) and none.targets == ()
    assert torch.equal(first.prompt.references[0], first.gt_pool[2]) and int(first.target_mask.sum()) == 18
    assert everything.kind == "category" and open_own(tmp_path).image_ids() == ["1", "1", "2"]


def test_categories_stand_in_for_prompts(tmp_path: Path) -> None:
    samples = list(open_own(_own(tmp_path)))
    assert [(s.image_id, s.prompt.text, s.targets) for s in samples] == [
        ("1", "mug", (0, 2)), ("1", "plate", (1,)), ("2", "mug", (0,)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ({"image_id": 1, "text": "x", "targets": [99]}, "targets name annotation 99, which image 1 does not have"),
        ({"image_id": 1, "text": "x", "targets": 10}, "expected a list of annotation ids"),
        ({"image_id": 1, "text": "x", "targets": [[1]]}, "targets name annotation"),
        ({"image_id": 1, "text": "x <mask-ref>", "targets": [10]}, "1 <mask-ref> but 0 reference"),
        ({"image_id": 1, "text": "", "targets": [10]}, "prompt is empty"),
        ({"image_id": 7, "text": "x", "targets": []}, "no image with the id 7"),
    ],
)
def test_prompts_that_contradict_themselves(tmp_path: Path, prompt: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        list(open_own(_own(tmp_path, [prompt])))


def test_a_category_that_is_none(tmp_path: Path) -> None:
    data = json.loads((_own(tmp_path) / "train.json").read_text())
    data["annotations"][0]["category_id"] = [1]
    (tmp_path / "train.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"annotation 10 in .* has the category_id '\[1\]'"):
        open_own(tmp_path)


def test_layout(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"looked for val\.json or annotations/val\.json"):
        open_own(tmp_path, "val")


def test_groups_hold_each_mask_once(tmp_path: Path) -> None:
    source = DatasetGroups("own", _own(tmp_path, PROMPTS))
    assert len(source) == 2 and source.image_id(0) == "own/1"
    annotated = source.load(0)
    assert annotated.masks.shape[0] == 3 and annotated.image[0, 0, 0] == 1
    asked = {q.text: q for q in source.queries(0, annotated.extra, 10, np.random.default_rng(0))}
    assert set(asked) == {"mugs left of <mask-ref>", "everything"}
    assert asked["everything"].targets == (0, 1, 2)
    query = asked["mugs left of <mask-ref>"]
    assert (query.targets, query.references) == ((1, 0), (2,))
    assert len(source.queries(0, annotated.extra, 1, np.random.default_rng(0))) == 1
    with pytest.raises(ValueError, match="own has no captions"):
        source.caption(0, annotated.extra, np.random.default_rng(0))


def test_groups_of_a_published_set(shared_data: Path) -> None:
    source = DatasetGroups("refcoco", shared_data / "refcoco_mini", "testA")
    annotated = source.load(0)
    asked = source.queries(0, annotated.extra, 100, np.random.default_rng(1))
    assert len(source) == 1 and len(asked) == 12 and annotated.masks.shape == (7, 480, 640)
    assert all(annotated.masks[query.targets[0]].any() for query in asked)
