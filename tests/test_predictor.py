"""The Python call: shapes at the image's own size, references of every kind, and one clear sentence for bad input."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskselect.backends.checkpoints import write_checkpoint
from maskselect.backends.devices import pick_device
from maskselect.ops.images import WORKING_SIDE
from maskselect.predictor import Model, load
from maskselect.structures.masks import MaskSet
from maskselect.structures.references import BoxRef, PointRef
from tests.systems.skeleton import Halves
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
        assert model.select(image, "stars").candidates == 4
    assert calls.count("propose") == 3 and len([*tmp_path.rglob("*.parquet")]) == 2


def test_candidates_may_come_from_another_proposer() -> None:
    class Whole:
        def cache_key(self) -> str:
            return "whole"

        def propose(self, image: np.ndarray) -> MaskSet:
            return MaskSet(torch.ones(1, *image.shape[:2], dtype=torch.bool), torch.ones(1), "whole")

    model = Model(tiny_ras(), 0.0, fingerprint="abc")
    assert model.select(_image(), "stars").candidates == 4 and model.facts().stated_parts == {}
    model.propose_with(Whole(), "whole.yaml")
    group = model.select(_image(), "stars")
    assert group.candidates == 1 and group.mask.all()
    assert model.facts().stated_parts == {"proposer": "whole.yaml"} and model.fingerprint != "abc"
    with pytest.raises(ValueError, match="'model' has no candidates; expected no proposer, got x"):
        Model(Halves()).propose_with(Whole(), "x")


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
    with path.open("rb") as opened:
        given = (path, str(path), Image.open(path), _image(), path.read_bytes(), io.BytesIO(path.read_bytes()), opened)
        scores = [model.select(source, "stars").scores for source in given]
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
    (kept,) = model.select_many(np.zeros((side, side // 2, 3), np.uint8), ["stars"], keep_pool=True)
    assert kept.pool is not None and kept.pool.image_size == (WORKING_SIDE, WORKING_SIDE // 2) and group.pool is None


@pytest.mark.parametrize(
    ("prompt", "references", "message"),
    [
        ("", [], "prompt is empty"),
        ("left of <mask-ref>", [], "1 <mask-ref> but 0 reference"),
        ("stars", [np.ones((40, 60), bool)], "0 <mask-ref> but 1 reference"),
        ("<mask-ref>", [np.ones((4, 6), bool)], "is 6x4 but the image is 60x40"),
        ("<mask-ref>", [np.zeros((40, 60), bool)], "reference mask is empty"),
        ("<mask-ref>", [BoxRef((1, 1, 9, 9))], "no prompter that turns a box or point"),
        ("<mask-ref>", [PointRef((1, 1))], "no prompter that turns a box or point"),
        ("<mask-ref>", [BoxRef((1, 1, 99, 9))], "box:1,1,99,9"),
        ("<mask-ref>", [PointRef((70, 1))], "point:70,1"),
        ("<mask-ref>", [np.full((40, 60), 0.5, np.float32)], "values from 0.5 to 0.5; expected bool"),
        ("\ud83d", [], "lone surrogate"),
        ("mug " * 3000, [], "fit into the context"),
    ],
)
def test_bad_prompts_and_references(model: Model, prompt: str, references: list[np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.select(_image(), prompt, references)


def test_bad_threshold_and_device(model: Model) -> None:
    for threshold in (2.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            model.select(_image(), "stars", threshold=threshold)
    for other in ("0.5", True, [0.5]):
        with pytest.raises(TypeError, match="threshold is of type"):
            model.select(_image(), "stars", threshold=other)  # type: ignore[arg-type]
    for name in ("mps", "meta", "xla"):
        with pytest.raises(ValueError, match=f"device '{name}' is not supported; expected auto, cpu or cuda"):
            pick_device(name)
    with pytest.raises(TypeError, match="device is of type int"):
        pick_device(0)  # type: ignore[arg-type]
    assert pick_device("cpu") == pick_device(torch.device("cpu"))
    with pytest.raises(ValueError, match="auto, cpu or cuda"):
        pick_device("tpu")
    if not torch.cuda.is_available():
        for name in ("cuda", "cuda:0", "cuda:1"):
            with pytest.raises(ValueError, match=f"device '{name}' is not available: torch finds no CUDA device"):
                pick_device(name)
        assert pick_device("auto").type == "cpu"


def test_one_of_several_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(pick_device(name)) for name in ("auto", "cuda", "cuda:0", "cuda:1")] == [
        "cuda",
        "cuda",
        "cuda:0",
        "cuda:1",
    ]
    with pytest.raises(ValueError, match="finds 2 CUDA devices, numbered from 0"):
        pick_device("cuda:2")


# Arguments of another kind: one sentence, before anything is read.
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"prompt": ["stars"]}, TypeError, "prompt is of type list; expected a str"),
        ({"prompt": b"stars"}, TypeError, "prompt is of type bytes"),
        ({"references": "mask.png"}, TypeError, "references are of type str; expected a list"),
        ({"references": np.ones((40, 60), bool)}, TypeError, "references are of type ndarray; expected a list"),
        ({"references": BoxRef((1, 1, 9, 9))}, TypeError, "references are of type BoxRef; expected a list"),
        ({"references": [(1, 1, 9, 9)]}, TypeError, "a reference is of type tuple; expected a mask"),
        ({"references": [[1, 1, 9, 9]]}, TypeError, "a reference is of type list; expected a mask"),
        ({"references": ["box:1,1,9,9"]}, TypeError, "a reference is of type str; expected a mask"),
        ({"image": torch.zeros(3, 40, 60)}, TypeError, "image is of type torch.Tensor; expected a file, its bytes"),
        ({"image": [[0, 0, 0]]}, TypeError, "image is of type list"),
        ({"image": None}, TypeError, "image is of type NoneType"),
        (
            {"image": "https://example.org/a.png"},
            ValueError,
            "image https://example.org/a.png is a URL; expected a file",
        ),
        ({"image": Path("http://example.org/a.png")}, ValueError, "is a URL"),
        ({"image": np.zeros((40, 60), np.uint8)}, ValueError, r"must be \(H, W, 3\) uint8, got \(40, 60\) uint8"),
        ({"image": np.zeros((40, 60, 3))}, ValueError, r"must be \(H, W, 3\) uint8, got \(40, 60, 3\) float64"),
        ({"image": b"no image"}, ValueError, "image of 8 bytes is not an image"),
    ],
)
def test_arguments_of_another_kind(
    model: Model, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        model.select(**({"image": _image(), "prompt": "stars"} | arguments))
    assert "\n" not in str(caught.value)


def test_select_many_wants_lists(model: Model) -> None:
    with pytest.raises(TypeError, match="prompts are of type str; expected a list of str; select takes one"):
        model.select_many(_image(), "stars")
    with pytest.raises(TypeError, match="references are of type str; expected a list for each prompt"):
        model.select_many(_image(), ["stars"], "mask.png")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 prompts need as many lists of references, got 1"):
        model.select_many(_image(), ["stars", "mugs"], [[]])
    for extra in (np.ones((40, 60), bool), [1]):
        with pytest.raises(TypeError, match=r"extra_candidates must be an array \(K, H, W\) bool"):
            model.select_many(_image(), ["stars"], extra_candidates=extra)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="extra_candidates of dtype float64 holds values"):
        model.select_many(_image(), ["stars"], extra_candidates=np.full((1, 40, 60), 0.3))
    assert len(model.select_many(_image(), ("stars", "mugs"), [None, ()])) == 2


def test_arguments_are_checked_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="device 'mps' is not supported"):
        load("hf://no/where", device="mps")
    with pytest.raises(TypeError, match="the model is of type int; expected a name, a path"):
        load(3)  # type: ignore[arg-type]


# Whatever is small.
def test_references_of_a_pixel_or_a_line_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = Model(tiny_ras(), threshold=0.0), list[int]()
    pool = model.system.pool_features
    monkeypatch.setattr(model.system, "pool_features", lambda m, r: seen.append(_least_area(r)) or pool(m, r))
    image = np.random.default_rng(0).integers(0, 255, (2500, 3000, 3), np.uint8)
    dot, line, square = (np.zeros((2500, 3000), bool) for _ in range(3))
    dot[1201, 1777] = line[700] = square[901:903, 2001:2003] = True
    for mask in (dot, line, square):
        group = model.select(image, "left of <mask-ref>", [mask])
        assert group.references.any() and seen[-1] >= 1
        rows, columns = np.nonzero(group.references[0])
        wanted = np.nonzero(mask)
        assert abs(rows.mean() - wanted[0].mean()) < 4 and abs(columns.mean() - wanted[1].mean()) < 4
    extra = model.select_many(image, ["stars"], extra_candidates=dot[None], keep_pool=True)[0]
    assert extra.candidates == 5 and extra.pool is not None and bool(extra.pool.masks[4].any())


def _least_area(masks: Any) -> int:
    found = masks if isinstance(masks, torch.Tensor) else masks.masks
    return int(found.sum((1, 2)).min()) if len(found) else -1


class Blind(Quarters):  # a Prompter
    """Finds nothing at a box or a point."""

    def segment_box(self, image: np.ndarray, box_xyxy: tuple[float, ...]) -> torch.Tensor:
        return torch.zeros(image.shape[:2], dtype=torch.bool)

    def segment_point(self, image: np.ndarray, point_xy: tuple[float, ...]) -> torch.Tensor:
        return torch.zeros(image.shape[:2], dtype=torch.bool)

    def segment_boxes(self, image: np.ndarray, boxes_xyxy: torch.Tensor) -> Any:
        raise NotImplementedError


def test_a_box_or_point_where_nothing_is() -> None:
    model = Model(tiny_ras(Blind()), prompter=Blind())
    for reference, name in ((BoxRef((1, 1, 9, 9)), "box:1,1,9,9"), (PointRef((3, 4)), "point:3,4")):
        with pytest.raises(
            ValueError, match=f"reference {name}: nothing is found there; expected a place on an object"
        ):
            model.select(_image(), "left of <mask-ref>", [reference])


def test_a_candidate_of_one_pixel_is_in_the_answer() -> None:
    class Dots:
        def propose(self, image: np.ndarray) -> MaskSet:
            masks = torch.zeros(3, *image.shape[:2], dtype=torch.bool)
            masks[0, 0, 0] = masks[1, 511, 400] = masks[2, -1, -1] = True
            return MaskSet(masks, torch.ones(3), "dots")

    model = Model(tiny_ras(Dots()), threshold=0.0)
    for side in (1300, 1500):
        group = model.select(np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8), "stars")
        assert len(group) == 3 and all(record["area"] >= 1 for record in group.to_coco()) and group.mask.any()


def test_invisible_characters_change_no_answer(model: Model) -> None:
    plain = model.select(_image(), "the red mugs")
    for text in ("the\tred mugs", "\ufeffthe red\u00a0mugs\n", "the red mu\u00adgs\u200b"):
        assert model.select(_image(), text) == plain


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
