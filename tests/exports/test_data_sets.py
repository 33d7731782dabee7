"""Data sets of other tools, read again by this project, by pycocotools and by supervision."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO

from maskselect.cli.parsing import FORMATS
from maskselect.data.images import load_image
from maskselect.data.own import open_own
from maskselect.exports import DATA_SETS, data_sets
from maskselect.structures.prediction import MaskGroup

ALL = tuple(DATA_SETS)
EXACT = ("coco", "coco-polygons", "yolo")


def answer(image: np.ndarray, prompt: str, masks: np.ndarray, labels: tuple[str, ...] | None = None) -> MaskGroup:
    scores = np.linspace(0.9, 0.6, len(masks), dtype=np.float32)
    references = np.zeros((prompt.count("<mask-ref>"), *image.shape[:2]), bool)
    return MaskGroup(image, prompt, masks, scores, None, None, references, labels=labels)


def written(output: Path, answers: dict[Path, list[MaskGroup]], formats: tuple[str, ...] = ALL) -> Path:
    with data_sets(formats, output) as folders:
        for picture, groups in answers.items():
            for folder in folders:
                folder.add(picture, groups)
    return output


def masks_of(root: Path) -> dict[tuple[str, str], np.ndarray]:
    """The union of the targets of each picture and prompt, as own data."""
    return {(Path(s.image).stem, s.prompt.text): s.target_mask.numpy() for s in open_own(root, "all")}  # type: ignore[arg-type]


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


def hard_masks(size: tuple[int, int] = (20, 30)) -> np.ndarray:
    """A ring with an island, single pixels in the corners, a whole picture with a hole, and two parts."""
    masks = np.zeros((4, *size), bool)
    masks[0, 2:18, 2:18], masks[0, 5:15, 5:15], masks[0, 9:11, 9:11] = True, False, True
    masks[1, [0, 0, -1, -1, 7], [0, -1, 0, -1, 22]] = True
    masks[2], masks[2, 8, 9:11] = True, False
    masks[3, 3:9, :6], masks[3, 12:, 20:] = True, True
    return masks


@pytest.fixture
def hard(tmp_path: Path) -> dict[Path, list[MaskGroup]]:
    """Two pictures: hard masks of two prompts, and none."""
    image = np.full((20, 30, 3), 90, np.uint8)
    pictures = [tmp_path / "Küche 1.png", tmp_path / "b.png"]
    for picture in pictures:
        Image.fromarray(image).save(picture)
    masks = hard_masks()
    first = [answer(image, "größte Tasse ☕", masks[:2]), answer(image, "near <mask-ref>", masks[2:])]
    return {pictures[0]: first, pictures[1]: [answer(image, "größte Tasse ☕", masks[:0])]}


def test_formats_of_the_command_line() -> None:
    assert set(ALL) <= set(FORMATS)


@pytest.mark.parametrize("name", ALL)
def test_own_data_reads_hard_masks(hard: dict[Path, list[MaskGroup]], tmp_path: Path, name: str) -> None:
    root = written(tmp_path / "out", hard) / name
    found = masks_of(root)
    assert list(found) == [("Küche 1", "größte Tasse ☕"), ("Küche 1", "near <ref1>")]
    for mask, expected in zip(found.values(), (hard_masks()[:2], hard_masks()[2:]), strict=True):
        assert np.array_equal(mask, expected.any(0))


def test_a_mask_is_one_object(hard: dict[Path, list[MaskGroup]], tmp_path: Path) -> None:
    """Also one of several parts: one annotation, one line, one group of shapes."""
    root = written(tmp_path / "out", hard)
    for name in ("coco", "coco-polygons"):
        found = COCO(str(root / name / "annotations/instances_all.json"))
        masks = [found.annToMask(one).astype(bool) for one in found.loadAnns(found.getAnnIds(imgIds=1))]
        assert np.array_equal(np.stack(masks), hard_masks()) and found.getAnnIds(imgIds=2) == []
        assert found.getImgIds() == [1, 2] and [one["name"] for one in found.loadCats([1, 2])] == [
            "größte Tasse ☕",
            "near <ref1>",
        ]
    lines = (root / "yolo/labels/Küche 1.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["0", "0", "1", "1"]
    assert (root / "yolo/labels/b.txt").read_text() == ""
    shapes = json.loads((root / "labelme/Küche 1.json").read_text())["shapes"]
    groups = [(shape["label"], shape["group_id"]) for shape in shapes]
    assert len(set(groups)) == 4 and groups.count(("größte Tasse ☕", 1)) == 5
    assert json.loads((root / "labelme/b.json").read_text())["shapes"] == []
    pictures = {path.relative_to(root) for path in root.rglob("*.png")}
    assert len(pictures) == 8 and all((root / path).read_bytes() for path in pictures)


@pytest.mark.parametrize("name", ALL)
def test_a_filled_folder_is_not_touched(hard: dict[Path, list[MaskGroup]], tmp_path: Path, name: str) -> None:
    written(tmp_path, hard, (name,))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / name).rglob("*")}
    with pytest.raises(ValueError, match=f"{name} is there already; expected a new or an empty folder"):
        written(tmp_path, hard)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / name).rglob("*")} == before


def test_an_interrupted_data_set_is_complete(hard: dict[Path, list[MaskGroup]], tmp_path: Path) -> None:
    class Stopping(dict[Any, Any]):
        def items(self) -> Any:
            yield next(iter(hard.items()))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        written(tmp_path / "out", Stopping())
    for name in ALL:
        assert len(masks_of(tmp_path / "out" / name)) == 2
    with data_sets(ALL, tmp_path / "none"):
        pass
    assert not (tmp_path / "none").exists()


def test_two_pictures_of_one_name(hard: dict[Path, list[MaskGroup]], tmp_path: Path) -> None:
    picture, groups = next(iter(hard.items()))
    one = DATA_SETS["yolo"](tmp_path / "yolo")
    one.add(picture, groups)
    with pytest.raises(ValueError, match=r"has a picture Küche 1\.png already, .* expected different names"):
        one.add(picture, groups)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_turned_picture(tmp_path: Path, orientation: int) -> None:
    """Masks are upright, as tools show the picture; the copy keeps its EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (30, 20), "gray").save(tmp_path / "a.jpg", exif=exif)
    image = load_image(tmp_path / "a.jpg")
    mask = np.zeros((1, *image.shape[:2]), bool)
    mask[0, 1:4, 2:9] = True
    root = written(tmp_path / "out", {tmp_path / "a.jpg": [answer(image, "mug", mask)]})
    for name in ALL:
        assert np.array_equal(masks_of(root / name)["a", "mug"], mask[0]), name
    supervision = pytest.importorskip("supervision")
    ((_, pixels, found),) = supervision.DetectionDataset.from_yolo(
        str(root / "yolo/images"), str(root / "yolo/labels"), str(root / "yolo/data.yaml")
    )
    assert pixels.shape == image.shape and np.allclose(found.xyxy, [[2, 1, 9, 4]], atol=1e-4)


@pytest.fixture
def photos(shared_data: Path) -> dict[Path, list[MaskGroup]]:
    """The annotations of 12 photographs of COCO, as an answer with one class for each mask."""
    coco = COCO(str(shared_data / "coco128/annotations/instances_train2017.json"))
    answers = {}
    for image in coco.loadImgs(coco.getImgIds()[:12]):
        records = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        picture = shared_data / "coco128/train2017" / image["file_name"]
        masks = np.array([coco.annToMask(one) for one in records], bool).reshape(-1, image["height"], image["width"])
        names = tuple(coco.cats[one["category_id"]]["name"] for one in records)
        answers[picture] = [answer(load_image(picture), "|".join(sorted(set(names))), masks, names)]
    return answers


def expected_of(photos: dict[Path, list[MaskGroup]]) -> dict[tuple[str, str], np.ndarray]:
    found: dict[tuple[str, str], np.ndarray] = {}
    for picture, (group,) in photos.items():
        for mask, name, _ in group.labelled():
            found[picture.stem, name] = found.get((picture.stem, name), False) | mask
    return found


@pytest.mark.parametrize("name", ALL)
def test_photographs_as_own_data(photos: dict[Path, list[MaskGroup]], tmp_path: Path, name: str) -> None:
    found, expected = masks_of(written(tmp_path, photos, (name,)) / name), expected_of(photos)
    assert found.keys() == expected.keys() and len(found) > 20
    overlaps = [iou(found[key], mask) for key, mask in expected.items()]
    assert min(overlaps) == 1 if name in EXACT else np.mean(overlaps) > 0.98 and min(overlaps) > 0.9


@pytest.mark.parametrize("name", ALL)
def test_supervision_reads_photographs(photos: dict[Path, list[MaskGroup]], tmp_path: Path, name: str) -> None:
    """It rounds the corners of a polygon to pixels and fills these too: masks grow by a pixel to the right and below.

    Cuts between the parts of an object in YOLO's labels are lines of one pixel.
    """
    reader = pytest.importorskip("supervision").DetectionDataset
    root = written(tmp_path, photos, (name,)) / name
    images = str(root / "images")
    if name == "yolo":
        found = reader.from_yolo(images, str(root / "labels"), str(root / "data.yaml"))
    elif name == "labelme":
        found = reader.from_labelme(str(root), str(root))
    else:
        found = reader.from_coco(images, str(root / "annotations/instances_all.json"), force_masks=True)
    assert len(found) == len(photos)
    overlaps = []
    for path, pixels, detections in found:
        (group,) = photos[next(picture for picture in photos if picture.name == Path(path).name)]
        assert pixels.shape == group.image.shape and len(detections) == len(group)
        assert [found.classes[number] for number in detections.class_id] == list(group.names)
        for one, other in zip(detections.mask, group, strict=True):
            overlaps.append(iou(one, other))
            if name in ("coco", "coco-polygons"):
                grown = cv2.dilate(other.view(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
                assert (other <= one).all() and (one <= grown).all()
    assert min(overlaps) == 1 if name == "coco" else np.mean(overlaps) > 0.88


def test_yolo_names(photos: dict[Path, list[MaskGroup]], tmp_path: Path) -> None:
    content = yaml.safe_load((written(tmp_path, photos, ("yolo",)) / "yolo/data.yaml").read_text())
    assert content["train"] == content["val"] == "images" and set(content) == {"train", "val", "names"}
    assert list(content["names"].values()) == list(dict.fromkeys(name for _, name in expected_of(photos)))
