"""PAS-20, PC-59, ADE-150 and own label maps, on tiny files in the published forms."""

from pathlib import Path

import pytest
import torch

from maskselect import cli
from maskselect.data.check import DAMAGED, MISSING, check
from maskselect.data.label_maps import PASCAL_20, PASCAL_59, LabelMapDataset
from tests.data.test_semantic import label_of, pair, picture, save


def test_lists_of_classes() -> None:
    assert (len(PASCAL_20), PASCAL_20[0], PASCAL_20[14], PASCAL_20[-1]) == (20, "aeroplane", "person", "tvmonitor")
    assert (len(PASCAL_59), PASCAL_59[0], PASCAL_59[36], PASCAL_59[-1]) == (59, "aeroplane", "person", "wood")
    assert list(PASCAL_59) == sorted(PASCAL_59) and set(PASCAL_20) - set(PASCAL_59) == {"diningtable"}


def voc(root: Path, home: str, folder: str, listed: str) -> Path:
    for stem in ("2007_1", "2007_2", "2007_3"):
        rows = [[0, 2, 15, 4], [255, 3, 1, 3]]
        pair(root, f"{home}{folder}/{stem}.png", f"{home}JPEGImages/{stem}.jpg", rows, palette=True)
    (root / home / listed).parent.mkdir(parents=True, exist_ok=True)
    (root / home / listed).write_text("2007_3\n2007_1\n")
    return root


@pytest.mark.parametrize("home", ["", "VOCdevkit/VOC2012/"])
def test_pas_20(tmp_path: Path, home: str) -> None:
    data = LabelMapDataset(voc(tmp_path, home, "SegmentationClass", "ImageSets/Segmentation/val.txt"), name="pas-20")
    assert data.image_ids() == ["2007_3", "2007_1"] and data.classes == ("others", *PASCAL_20)
    first = data[0]
    assert first.image == tmp_path / home / "JPEGImages/2007_3.jpg" and first.classes.dtype == torch.uint8
    expected = label_of([[0, 2, 15, 4], [0, 3, 1, 3]])  # the outline is others
    assert torch.equal(first.classes, torch.from_numpy(expected)) and data.classes[15] == "person"
    report = check(data)
    assert not report.problems and (report.samples, report.images, report.targets) == (2, 2, 4)


def test_pc_59_and_ade_150(tmp_path: Path) -> None:
    root = voc(tmp_path / "c", "VOC2010/", "SegmentationClassContext", "ImageSets/SegmentationContext/val.txt")
    assert LabelMapDataset(root, "val", "pc-59").classes[37] == "person"
    home = tmp_path / "a" / "ADEChallengeData2016"
    pair(home, "annotations/validation/x.png", "images/validation/x.jpg", [[0, 3, 150, 3]] * 2)
    for split in ("val", "validation"):
        data = LabelMapDataset(tmp_path / "a", split, "ade-150")
        assert len(data) == 1 and data.classes[int(data[0].classes.max())] == "flag"
    with pytest.raises(FileNotFoundError, match=r"looked for .*labels/training"):
        LabelMapDataset(tmp_path / "a", "train", "ade-150")


def own(root: Path, classes: str = "others\nsky\n  tall  grass \n") -> Path:
    pair(root, "labels/val/a.png", "images/val/a.jpg", [[1, 2, 2, 4]] * 2)
    picture(root / "images/val/b.png")
    save(root / "labels/val/b.png", label_of([[0, 6]] * 2))
    (root / "classes.txt").write_text(classes)
    return root


@pytest.mark.parametrize("name", ["", "pas-20"])
def test_own_label_maps(tmp_path: Path, name: str) -> None:
    data = LabelMapDataset(own(tmp_path), "val", name)
    assert data.classes == ("others", "sky", "tall grass") and data.image_ids() == ["a", "b"]
    assert [one.classes.max() for one in data] == [2, 0]
    assert data[1].image == tmp_path / "images/val/b.png"
    assert cli.main(["data", "check", "label-maps", "--root", str(tmp_path), "--split", "val"]) == 0


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("sky\ngrass\n", "begins with 'sky'; expected 'others'"),
        ("", "begins with ''"),
        ("others\n", "0 classes beside 'others'; expected 1 to 254"),
        ("others\nsky\nSky\n", "line 3: 'Sky' occurs twice"),
        ("others\na|b\n", r"line 2: 'a\|b' occurs twice or holds '\|'"),
    ],
)
def test_lists_that_are_refused(tmp_path: Path, classes: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelMapDataset(own(tmp_path, classes))


def test_damage_is_named(tmp_path: Path) -> None:
    root = own(tmp_path)
    save(root / "labels/val/c.png", label_of([[3, 6]] * 2))
    picture(root / "images/val/c.jpg")
    save(root / "labels/val/d.png", label_of([[1, 6]] * 2))
    pair(root, "labels/val/e.png", "images/val/e.jpg", [[1, 7]] * 2)
    data = LabelMapDataset(root)
    with pytest.raises(ValueError, match=r"c\.png has the value 3; expected 0 to 2, or 255"):
        data[2]
    with pytest.raises(ValueError, match=r"e\.png is of size \[4, 7\], its image of \[4, 6\]"):
        data[4]
    assert check(data).problems == {DAMAGED: 2, MISSING: 1}
    (root / "classes.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"classes\.txt is not there; expected one class a line"):
        LabelMapDataset(root)
