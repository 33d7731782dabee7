"""The Python call: shapes at the image's own size, references of every kind, and one clear sentence for bad input."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskselect.backends.checkpoints import write_checkpoint
from maskselect.backends.devices import pick_device
from maskselect.predictor import WORKING_SIDE, Model, load
from maskselect.structures.references import BoxRef, PointRef
from tests.systems.tiny import Nothing, Quarters, tiny_ras


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(tiny_ras(), threshold=0.0)


def _image(height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def test_group_is_at_the_images_own_size_and_falls_in_score(model: Model) -> None:
    group = model.select(_image(), "red mugs")
    assert group.masks.shape == (4, 40, 60) and group.masks.dtype == bool
    assert group.mask.shape == (40, 60) and group.mask.all()
    assert (np.diff(group.scores) <= 0).all() and group.candidates == 4 and not group.no_target
    records = group.to_coco()
    assert [r["area"] for r in records] == [int(m.sum()) for m in group.masks]
    assert sorted(r["bbox"] for r in records) == [[0, 0, 30, 20], [0, 20, 30, 20], [30, 0, 30, 20], [30, 20, 30, 20]]


def test_select_many_equals_select(model: Model) -> None:
    mask = np.zeros((40, 60), bool)
    mask[5:20, 5:20] = True
    many = model.select_many(_image(), ["stars", "left of <mask-ref>"], [[], [mask]])
    one = model.select(_image(), "left of <mask-ref>", [mask])
    np.testing.assert_allclose(many[1].scores, one.scores, atol=1e-5)
    np.testing.assert_array_equal(many[1].references, mask[None])


def test_an_image_is_proposed_and_encoded_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = Model(tiny_ras())
    calls: list[str] = []
    monkeypatch.setattr(model.system, "encode", _noting(calls, "encode", model.system.encode))
    monkeypatch.setattr(Quarters, "propose", _noting(calls, "propose", Quarters.propose))
    mask = np.ones((40, 60), bool)
    model.select_many(_image(), ["stars", "left of <mask-ref>", "mugs"], [[], [mask], []])
    model.select(_image(), "right of <mask-ref>", [mask])
    assert sorted(calls) == ["encode", "propose"]
    model.keep_candidates(tmp_path)
    for image in (_image(30), _image(), _image(30), _image()):
        assert len(model.candidates(image)) == 4
        model.select(image, "stars")
    assert calls.count("propose") == 3 and len([*tmp_path.rglob("*.json")]) == 2


def _noting(calls: list[str], name: str, function: Any) -> Any:
    def noted(*arguments: Any) -> Any:
        calls.append(name)
        return function(*arguments)

    return noted


def test_a_threshold_of_one_gives_an_empty_group(model: Model) -> None:
    group = model.select(_image(), "stars", threshold=1.0)
    assert group.no_target and group.masks.shape == (0, 40, 60) and group.to_coco() == [] and not group.mask.any()


def test_no_candidates_is_an_empty_group() -> None:
    group = Model(tiny_ras(Nothing())).select(_image(), "stars")
    assert group.no_target and group.candidates == 0


def test_file_and_pil_and_array_are_the_same(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(_image()).save(path)
    scores = [model.select(i, "stars").scores for i in (path, str(path), Image.open(path), _image())]
    for other in scores[1:]:
        np.testing.assert_array_equal(scores[0], other)


def test_extra_candidates_join_the_pool(model: Model) -> None:
    extra = np.zeros((1, 40, 60), bool)
    extra[0, 10:30, 20:40] = True
    assert model.select_many(_image(), ["stars"], extra_candidates=extra)[0].candidates == 5


def test_a_large_image_is_worked_on_small_and_answered_large(model: Model) -> None:
    side = WORKING_SIDE * 2
    group = model.select(np.zeros((side, side // 2, 3), np.uint8), "stars")
    assert group.masks.shape == (4, side, side // 2) and group.mask.mean() > 0.99
    assert model.candidates(np.zeros((side, side // 2, 3), np.uint8)).image_size == (WORKING_SIDE, WORKING_SIDE // 2)


@pytest.mark.parametrize(
    ("prompt", "references", "message"),
    [
        ("", [], "prompt is empty"),
        ("left of <mask-ref>", [], "1 <mask-ref> but 0 reference"),
        ("stars", [np.ones((40, 60), bool)], "0 <mask-ref> but 1 reference"),
        ("<mask-ref>", [np.ones((4, 6), bool)], "is 6x4 but the image is 60x40"),
        ("<mask-ref>", [np.zeros((40, 60), bool)], "reference mask is empty"),
        ("<mask-ref>", [BoxRef((1, 1, 9, 9))], "cannot turn a box or point"),
        ("<mask-ref>", [PointRef((1, 1))], "cannot turn a box or point"),
        ("<mask-ref>", [BoxRef((1, 1, 99, 9))], "box:1,1,99,9"),
        ("<mask-ref>", [PointRef((70, 1))], "point:70,1"),
        ("mug " * 3000, [], "fit into the context"),
    ],
)
def test_bad_prompts_and_references(model: Model, prompt: str, references: list[np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.select(_image(), prompt, references)


def test_bad_threshold_and_device(model: Model) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        model.select(_image(), "stars", threshold=2.0)
    with pytest.raises(ValueError, match="auto, cpu or cuda"):
        pick_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            pick_device("cuda")


def test_checkpoint_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not found"):
        load("no-such-model")
    other = tmp_path / "other.safetensors"
    write_checkpoint(other, {"w": torch.zeros(1)}, {"system": "sam", "config": {}})
    with pytest.raises(ValueError, match="captioner is of stage 1, which captions; expected one of stage 2"):
        load("captioner", device="cpu")
    with pytest.raises(ValueError, match="of system 'sam'"):
        load(other)
    pickled = tmp_path / "model.ckpt"
    torch.save({"w": torch.zeros(1)}, pickled)
    with pytest.raises(ValueError, match="pickled checkpoint, which could run code"):
        load(pickled)
    disguised = tmp_path / "disguised.safetensors"
    disguised.write_bytes(pickled.read_bytes())
    disguised.with_suffix(".json").write_text(json.dumps({"system": "sam", "config": {}}))
    with pytest.raises(ValueError, match="'sam'"):
        load(disguised)


def test_a_card_cannot_import_foreign_code(tmp_path: Path) -> None:
    path = tmp_path / "evil.safetensors"
    config = {"class_path": "os.system", "init_args": {"command": "true"}}
    write_checkpoint(path, {"w": torch.zeros(1)}, {"system": "ras", "config": config})
    with pytest.raises(ValueError, match="not part of maskselect"):
        load(path)


def test_truncated_checkpoint(tmp_path: Path) -> None:
    system = tiny_ras()
    path = tmp_path / "ras.safetensors"
    write_checkpoint(path, system.learned_state(), {"system": "ras", "config": {}})
    path.write_bytes(path.read_bytes()[:2000])
    from maskselect.backends.checkpoints import read_tensors

    with pytest.raises(ValueError, match="truncated"):
        read_tensors(path)
