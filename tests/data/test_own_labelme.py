"""labelme files as own data: each kind of shape with the mask that it means, and where the picture lies."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskselect.cli import program
from maskselect.data.groups import DatasetGroups
from maskselect.data.own import open_own

SIZE = (8, 12)


def filled(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[rows, columns] = True
    return mask


def coded(pixels: np.ndarray) -> str:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def shape(label: str, points: list[list[float]], kind: str | None = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


SQUARE = [[1.0, 2.0], [4.0, 2.0], [4.0, 5.0], [1.0, 5.0]]


def write(folder: Path, *shapes: dict[str, Any], name: str = "a", **change: Any) -> Path:
    """A label file as labelme 5 writes it, and its picture beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "version": "5.5.0",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": f"{name}.png",
        "imageData": None,
        "imageHeight": SIZE[0],
        "imageWidth": SIZE[1],
    }
    Image.new("RGB", (SIZE[1], SIZE[0]), "gray").save(folder / f"{name}.png")
    (folder / f"{name}.json").write_text(json.dumps(record | change))
    return folder


def only(root: Path, split: str = "train") -> np.ndarray:
    """The one mask of the one sample."""
    (sample,) = open_own(root, split)
    assert sample.gt_pool.shape[0] == 1 and sample.targets == (0,)
    return sample.gt_pool[0].numpy()


PART = np.array([[255, 0, 255], [255, 255, 255]], np.uint8)
PASTED = np.zeros(SIZE, bool)
PASTED[3:5, 2:5] = PART > 0


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (shape("mug", SQUARE), filled(slice(2, 5), slice(1, 4))),
        (shape("mug", SQUARE, None), filled(slice(2, 5), slice(1, 4))),
        (shape("mug", [[4, 5], [1, 2]], "rectangle"), filled(slice(2, 5), slice(1, 4))),
        (shape("mug", SQUARE, "rectangle"), filled(slice(2, 5), slice(1, 4))),
        (shape("mug", SQUARE, "rotation"), filled(slice(2, 5), slice(1, 4))),
        (shape("mug", [[2, 3], [4, 4]], "mask", mask=coded(PART)), PASTED),
    ],
)
def test_shapes(tmp_path: Path, drawn: dict[str, Any], expected: np.ndarray) -> None:
    assert np.array_equal(only(write(tmp_path / "train", drawn).parent), expected)


def test_a_circle(tmp_path: Path) -> None:
    """Centre and a point on it: radius 2 about the corner of four pixels, which has 12 pixels' centres."""
    found = only(write(tmp_path / "train", shape("ball", [[5, 4], [5, 6]], "circle")).parent)
    expected = filled(slice(2, 6), slice(3, 7))
    expected[[2, 2, 5, 5], [3, 6, 3, 6]] = False
    assert np.array_equal(found, expected) and found.sum() == 12


def test_labels_are_asked_for_and_groups_are_one_object(tmp_path: Path) -> None:
    right = [[x + 5, y] for x, y in SQUARE]
    write(
        tmp_path / "train",
        shape("mug", SQUARE),
        shape("plate", SQUARE, group_id=1),
        shape("mug", right),
        shape("plate", right, group_id=1),
        shape("mug", SQUARE, group_id=1),
    )
    samples = {sample.prompt.text: sample for sample in open_own(tmp_path)}
    assert [(text, sample.targets) for text, sample in samples.items()] == [("mug", (0, 2, 3)), ("plate", (1,))]
    assert np.array_equal(
        samples["plate"].target_mask.numpy(), filled(slice(2, 5), slice(1, 4)) | filled(slice(2, 5), slice(6, 9))
    )
    assert samples["mug"].kind == "category" and samples["mug"].image_id == "train/a.json"


def test_layouts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the pictures, apart from them with `..` in the path, with Windows' strokes, or not divided at all."""
    write(tmp_path / "beside" / "val", shape("mug", SQUARE))
    write(tmp_path / "flat", shape("mug", SQUARE))
    for stroke in ("/", "\\"):
        apart = write(tmp_path / f"apart{ord(stroke)}" / "images", shape("mug", SQUARE)).parent
        (apart / "labels" / "val").mkdir(parents=True)
        record = json.loads((apart / "images" / "a.json").read_text())
        record["imagePath"] = stroke.join(["..", "..", "images", "a.png"])
        (apart / "images" / "a.json").unlink()
        (apart / "labels" / "val" / "a.json").write_text(json.dumps(record))
        assert only(apart, "val").sum() == 9
    assert only(tmp_path / "beside", "val").sum() == only(tmp_path / "flat", "all").sum() == 9
    with pytest.raises(FileNotFoundError, match="are not divided: take all of them with --split all"):
        open_own(tmp_path / "flat", "train")
    assert program.main(["data", "check", "own", "--root", str(tmp_path / "flat")]) == 0
    assert "all" in capsys.readouterr().out


def test_an_embedded_picture(tmp_path: Path) -> None:
    pixels = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)
    root = write(tmp_path / "train", shape("mug", SQUARE), imageData=coded(pixels)).parent
    assert open_own(root)[0].image == root / "train" / "a.png"
    (root / "train" / "a.png").unlink()
    assert np.array_equal(open_own(root)[0].image, pixels)
    assert program.main(["data", "check", "own", "--root", str(root)]) == 0
    groups = DatasetGroups("own", root)
    before = groups.version(0)
    assert np.array_equal(groups.load(0).image, pixels)
    write(tmp_path / "train", shape("mug", SQUARE), imageData=coded(pixels + 1))
    (root / "train" / "a.png").unlink()
    assert DatasetGroups("own", root).version(0) != before


def test_a_picture_of_another_size_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write(tmp_path / "train", shape("mug", SQUARE), imageHeight=12, imageWidth=8).parent
    assert program.main(["data", "check", "own", "--root", str(root)]) == 1
    assert "image of another size than its masks: 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("drawn", "change", "told"),
    [
        (shape("mug", SQUARE, "line"), {}, "shape 0 is a 'line' and has no area; expected polygon, rectangle"),
        (shape("mug", SQUARE, "circle"), {}, "shape 0 is a 'circle' and has 4 points, not 2"),
        (shape("mug", SQUARE[:2]), {}, "shape 0 is a polygon of 2 points; expected 3 or more"),
        (shape("mug", [[1, 2, 3]]), {}, r"shape 0 has the points \[\[1, 2, 3\]\]"),
        (shape("mug", SQUARE[:2], "mask"), {}, "shape 0 has a mask that is no PNG in base64"),
        (shape("mug", [[0, 0], [5, 5]], "mask", mask=coded(PART)), {}, r"a mask of \[2, 3\] for the box"),
        (shape(" ", SQUARE), {}, "shape 0 has the label ' '; expected a text"),
        (shape("mug", SQUARE), {"imagePath": "/a.png"}, "is an absolute path"),
        (shape("mug", SQUARE), {"imagePath": "../../a.png"}, r"holds '\.\.'"),
        (shape("mug", SQUARE), {"imagePath": "http://x.org/a.png"}, "is a web address"),
        (shape("mug", SQUARE), {"imagePath": "b.png", "imageData": "x"}, "imageData that is no picture in base64"),
        (shape("mug", SQUARE), {"imageHeight": "high"}, "has height and width"),
        (shape("mug", SQUARE), {"shapes": [5]}, r"a\.json has no list of shapes"),
    ],
)
def test_damage(tmp_path: Path, drawn: dict[str, Any], change: dict[str, Any], told: str) -> None:
    root = write(tmp_path / "train", drawn, **change).parent
    with pytest.raises(ValueError, match=told) as caught:
        open_own(root)[0]
    assert "a.json" in str(caught.value) or "a.png" in str(caught.value)


def test_a_damaged_file_beside_good_ones_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write(tmp_path / "train", shape("mug", SQUARE)).parent
    write(tmp_path / "train", shape("mug", SQUARE), name="b")
    (root / "train" / "b.json").write_text('{"shapes": [{"label')
    (root / "train" / "c.json").write_text("")
    assert program.main(["data", "check", "own", "--root", str(root)]) == 1
    told = capsys.readouterr().out
    assert "annotation or image damaged: 2" in told and "b.json is not valid JSON" in told


def test_a_missing_picture(tmp_path: Path) -> None:
    root = write(tmp_path / "train", shape("mug", SQUARE)).parent
    (root / "train" / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"image 'a.png' of .*a\.json is missing.*imageData is null"):
        open_own(root)[0]


def test_pictures_without_objects_alone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no labelled object in any of its 1 label files"):
        open_own(write(tmp_path / "train").parent)
