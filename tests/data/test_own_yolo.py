"""YOLO segmentation labels as own data, in the layouts of Ultralytics, Roboflow, CVAT and Label Studio."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from maskselect.cli import program
from maskselect.data.catalog import CATALOG
from maskselect.data.own import open_own

SIZE = (10, 20)
MUG = "0 0.1 0.2 0.4 0.2 0.4 0.6 0.1 0.6"
PLATE = "1 0.5 0 1 0 1 1 0.5 1"
BOX = "0 0.25 0.4 0.3 0.4"
NAMES = "names: [mug, plate]\n"


def filled(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[rows, columns] = True
    return mask


EXPECTED = {"mug": filled(slice(2, 6), slice(2, 8)), "plate": filled(slice(0, 10), slice(10, 20))}


def write(root: Path, place: str, text: str, names: str | None = NAMES, stem: str = "a") -> Path:
    """place: of the picture's folder, in which `images` becomes `labels`."""
    for folder in (root / place, root / place.replace("images", "labels")):
        folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIZE[1], SIZE[0]), "gray").save(root / place / f"{stem}.jpg")
    (root / place.replace("images", "labels") / f"{stem}.txt").write_text(text)
    if names is not None:
        (root / "data.yaml").write_text(names)
    return root


def found(root: Path, split: str = "train") -> dict[str, np.ndarray]:
    return {sample.prompt.text: sample.target_mask.numpy() for sample in open_own(root, split)}


def same(masks: dict[str, np.ndarray]) -> bool:
    return list(masks) == list(EXPECTED) and all(np.array_equal(masks[name], EXPECTED[name]) for name in masks)


ULTRALYTICS = "path: ../datasets/coco8-seg  # root\ntrain: images/train\nval: images/val\ntest: # none\n"
NUMBERED = "names:\n  0: mug\n  1: plate\n"
ROBOFLOW = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 2\nnames: ['mug', 'plate']\n"
COLAB = "train: /content/mugs-3/train/images\nval: C:\\mugs\\valid\\images\n" + NAMES


@pytest.mark.parametrize(
    ("place", "names", "split"),
    [
        ("images/train", ULTRALYTICS + NUMBERED, "train"),
        ("datasets/coco8-seg/images/val", ULTRALYTICS + NUMBERED, "val"),
        ("train/images", ROBOFLOW, "train"),
        ("valid/images", ROBOFLOW, "val"),
        ("train/images", COLAB, "train"),
        ("valid/images", COLAB, "valid"),
        ("images/train", NAMES, "train"),
        ("valid/images", NAMES, "val"),
        ("images", NAMES, "all"),
        ("images/train", "train: [images/train]\n" + NAMES, "train"),
    ],
)
def test_layouts(tmp_path: Path, place: str, names: str, split: str) -> None:
    assert same(found(write(tmp_path, place, f"{MUG}\n{PLATE}\n", names), split))


def test_a_divided_folder_is_not_read_as_a_whole(tmp_path: Path) -> None:
    root = write(tmp_path, "images/train", MUG)
    write(root, "images/val", MUG)
    assert list(CATALOG["own"].open_splits(root)) == ["train", "val"]
    with pytest.raises(FileNotFoundError, match="no labels of split 'all'"):
        open_own(root, "all")


def test_a_list_of_pictures(tmp_path: Path) -> None:
    """CVAT's: the list holds a folder more than the archive."""
    root = write(tmp_path, "images/train", f"{MUG}\n{PLATE}", "path: ./\ntrain: train.txt\n" + NUMBERED)
    write(root, "images/train", MUG, None, "b")
    (root / "train.txt").write_text("data/images/train/a.jpg\n")
    assert same(found(root)) and len(open_own(root)) == 2


def test_label_studio(tmp_path: Path) -> None:
    root = write(tmp_path, "images", f"{MUG}\n{PLATE}", None)
    (root / "classes.txt").write_text("mug\nplate\n")
    assert same(found(root, "all"))


def test_pictures_without_objects_ask_nothing(tmp_path: Path) -> None:
    root = write(tmp_path, "images/train", f"\ufeff{MUG}\n\n{PLATE}\n")
    write(root, "images/train", "", None, "empty")
    Image.new("RGB", (4, 4)).save(root / "images" / "train" / "unlabelled.jpg")
    assert same(found(root)) and open_own(root).image_ids() == ["images/train/a.jpg"] * 2


def test_several_objects_of_a_class(tmp_path: Path) -> None:
    (sample,) = open_own(write(tmp_path, "images/train", f"{MUG}\n{MUG}"))
    assert sample.targets == (0, 1) and sample.kind == "category"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BOX, r"a\.txt, line 1 is a box; expected an outline"),
        (f"{MUG}\n2 {MUG[2:]}", r"a\.txt, line 2 has the class 2; expected one of the 2"),
        ("0 10 20 40 20 40 60", "line 1 has the coordinate 60; expected fractions, 0 to 1"),
        ("0 0.1 0.2 0.3 0.4 0.5", "line 1 has 5 numbers after the class"),
        ("0 0.1 0.2 0.3 0.4 0.5 nan", "has the coordinate nan"),
        ("mug 0.1 0.2 0.3 0.4 0.5 0.6", "line 1 is 'mug 0.1"),
    ],
)
def test_damage(tmp_path: Path, text: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = write(tmp_path, "images/train", text)
    with pytest.raises(ValueError, match=told):
        open_own(root)
    assert program.main(["data", "check", "own", "--root", str(root)]) == 2
    write(root, "images/train", MUG, None, "good")
    capsys.readouterr()
    assert program.main(["data", "check", "own", "--root", str(root)]) == 1
    assert "annotation or image damaged: 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("train: images/train\n", r"data\.yaml has no names"),
        ("names: [mug, ]\n  x: [\n", r"data\.yaml is not YAML"),
        ("names: [mug, null]\n", "has the name 'None' for class '1'"),
        ("names: {a: mug}\n", "has the name 'mug' for class 'a'"),
    ],
)
def test_names_that_are_refused(tmp_path: Path, names: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        open_own(write(tmp_path, "images/train", MUG, names))


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    root = write(tmp_path, "images/other", MUG, "train: ../train/images\n" + NAMES)
    with pytest.raises(FileNotFoundError, match=r"looks for pictures in '\.\./train/images', which is not below"):
        open_own(root)
    (root / "train" / "images").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(root / "train" / "images" / "a.jpg")
    with pytest.raises(FileNotFoundError, match=r"names 1 pictures of train, none with a label such as .*a\.txt"):
        open_own(root)


def test_published_labels(shared_data: Path, tmp_path: Path) -> None:
    """Labels that LightlyTrain's authors made of COCO's panoptic maps, against COCO's own instances."""
    source = shared_data / "coco_panoptic_mini/instance_segmentation"
    (tmp_path / "data.yaml").write_text((source / "config.yaml").read_text())
    coco = COCO(str(shared_data / "coco128/annotations/instances_train2017.json"))
    for folder in ("images", "labels"):
        (tmp_path / folder / "train2017").mkdir(parents=True)
    for label in sorted((source / "labels/train2017").glob("*.txt"))[:20]:
        picture = f"{label.stem}.jpg"
        (tmp_path / "images/train2017" / picture).symlink_to(shared_data / "coco128/train2017" / picture)
        (tmp_path / "labels/train2017" / label.name).symlink_to(label)
    overlaps = []
    for sample in open_own(tmp_path, "train"):
        assert isinstance(sample.image, Path)
        (category,) = coco.getCatIds(catNms=[sample.prompt.text])
        records = coco.loadAnns(coco.getAnnIds(imgIds=int(sample.image.stem), catIds=[category]))
        assert records
        expected = np.any([coco.annToMask(record) for record in records], axis=0)
        found = sample.target_mask.numpy()
        overlaps.append((found & expected).sum() / (found | expected).sum())
    assert len(overlaps) > 30 and np.median(overlaps) > 0.85, np.sort(overlaps)
