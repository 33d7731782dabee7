"""Your own data: what labelling tools export, with prompts beside it or without.

Which form a folder has is found out from what lies in it. `--split` names a part of it: `train`, `val`, `test`, or
`all` for a folder that is not divided; `val`, `valid` and `validation` are one.

**COCO.** One file a split: `{split}.json`, `annotations/{split}.json`, `annotations/instances_{split}.json`, or
`{split}/_annotations.coco.json` (Roboflow). Pictures in `images/{split}`, `images/`, `data/`, `{split}/` or beside the
file. A file of another name is asked for by its stem: `--split STEM`.

    {
      "images":      [{"id": 1, "file_name": "kitchen.jpg", "height": 480, "width": 640}],
      "annotations": [{"id": 10, "image_id": 1, "segmentation": [[x, y, x, y, …]], "category_id": 3}],
      "categories":  [{"id": 3, "name": "mug"}],
      "prompts":     [{"image_id": 1, "text": "mugs left of <mask-ref>", "references": [12], "targets": [10, 11]}]
    }

`segmentation` is anything that COCO knows, polygons or run lengths as list or text, in pixels. A prompt names
annotations by id: one reference for each `<mask-ref>` in its text, and the targets, none of them where nothing in the
picture answers. `id` and `kind` of a prompt are optional, and so are the ids of annotations that no prompt names, and
`height` and `width`, which the picture knows. Without `prompts`, each category of a picture is asked for by its name.
Every annotation is an object, `iscrowd` or not: CVAT marks so whatever was drawn with a brush.

**labelme.** `{split}/NAME.json` (also `labels/{split}/`, `annotations/{split}/`), for `all` directly in the folder.
Shapes are polygons, rectangles, circles and masks; those of one label and `group_id` are one object. The picture is
`imagePath` or, where that file is not there, `imageData`. Each label of a picture is asked for by its name.

**YOLO segmentation.** `data.yaml` (or `classes.txt`) with the names of the classes; pictures where it says, or in
`images/{split}/` or `{split}/images/`, for `all` in `images/`; `labels/…/NAME.txt` for `images/…/NAME.jpg`, a line an
object: class and outline x y x y …, in fractions of the picture. Each class of a picture is asked for by its name.
"""

from collections.abc import Iterator
from pathlib import Path

from maskselect.data.catalog import SampleReader
from maskselect.data.json_text import holds
from maskselect.data.own_coco import CocoPrompts
from maskselect.data.own_labelme import LabelmeSamples, labelme_files
from maskselect.data.own_yolo import find_yolo
from maskselect.structures.sample import Sample

_HELP = "the forms are described at the top of maskselect/data/own.py and in docs/guide/own_data.md"
_SAME = ("val", "valid", "validation")
_MOST_LISTED = 8


class OwnDataset:
    """Samples of one split: one a prompt, those of an image behind each other.

    root: see the top of the file.  split: train, val, test, all, or the stem of a COCO file.

    Raises FileNotFoundError when the labels or the pictures are not there, ValueError for a damaged file, and where
    nothing is asked.
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        self._samples = _open(Path(root), split)

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[Sample]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Sample:
        """Raises ValueError, naming the prompt, when it contradicts itself; FileNotFoundError without its picture."""
        return self._samples[number]

    def image_ids(self) -> list[str]:
        """The picture of each sample."""
        return self._samples.image_ids()


def _open(root: Path, split: str) -> "CocoPrompts | LabelmeSamples | SampleReader":
    names = (split, *(name for name in _SAME if name != split)) if split in _SAME else (split,)
    for name in names:
        if (file := _coco_file(root, name)) is not None:
            own = dict.fromkeys((name.removeprefix("instances_"), *names))
            inner = (*(f"images/{one}" for one in own), "images", "data", *own)
            return CocoPrompts(file, list(dict.fromkeys([*(root / one for one in inner), file.parent, root])), _HELP)
        if (yolo := find_yolo(root, name)) is not None:
            return yolo
        folders = ("", "labels", "annotations") if name == "all" else (name, f"labels/{name}", f"annotations/{name}")
        for folder in folders:
            if files := labelme_files(root / folder):
                return LabelmeSamples(root, files)
    raise FileNotFoundError(_nothing(root, split))


def _coco_file(root: Path, split: str) -> Path | None:
    """The COCO file of a split; a labelme file of that name, for the picture NAME.jpg, is none."""
    names = (f"{split}.json", f"annotations/{split}.json", f"annotations/instances_{split}.json")
    for name in (*names, f"{split}/_annotations.coco.json"):
        file = root / name
        if file.is_file() and (not holds(file, b'"shapes"') or holds(file, b'"annotations"')):
            return file
    return None


def _nothing(root: Path, split: str) -> str:
    """What was looked for, and what is there instead."""
    told = (
        f"no labels of split {split!r} in {root}: looked for {split}.json or annotations/{split}.json (COCO), "
        f"{split}/_annotations.coco.json, {split}/*.json (labelme), and data.yaml with images/{split} (YOLO); {_HELP}"
    )
    if split != "all" and any(labelme_files(root / folder) for folder in ("", "labels", "annotations")):
        return f"{told}; the labelme files there are not divided: take all of them with --split all, or make folders"
    found = [path for folder in (".", "annotations") for path in sorted((root / folder).glob("*.json"))]
    stems = {path.relative_to(root): path.stem for path in found if path.is_file()}
    stems |= {path.relative_to(root): path.parent.name for path in sorted(root.glob("*/_annotations.coco.json"))}
    if not stems:
        return told
    listed = ", ".join(f"{path} (--split {stem})" for path, stem in list(stems.items())[:_MOST_LISTED])
    more = f" and {len(stems) - _MOST_LISTED} more" if len(stems) > _MOST_LISTED else ""
    return f"{told}; the .json files there are {listed}{more}: --split STEM takes one"
