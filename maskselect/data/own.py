"""Your own data: what labelling tools export, with prompts beside it or without.

The form of a folder is detected from its files. `--split` selects a part: `train`, `val`, `test`, or `all` for a folder
that is not divided; `val`, `valid` and `validation` are the same.

**COCO.** One file a split: `{split}.json`, `annotations/{split}.json`, `annotations/instances_{split}.json`, or
`{split}/_annotations.coco.json` (Roboflow). Pictures in `images/{split}`, `images/`, `data/`, `{split}/` or beside the
file. `--split STEM` reads a file of another name.

    {
      "images":      [{"id": 1, "file_name": "kitchen.jpg", "height": 480, "width": 640}],
      "annotations": [{"id": 10, "image_id": 1, "segmentation": [[x, y, x, y, …]], "category_id": 3}],
      "categories":  [{"id": 3, "name": "mug"}],
      "prompts":     [{"image_id": 1, "text": "mugs left of <mask-ref>", "references": [12], "targets": [10, 11]}]
    }

`segmentation` has any form of COCO, polygons or run lengths as list or text, in pixels. A prompt has annotation ids:
one reference for each `<mask-ref>` in its text, and the targets, none for a no-target prompt. Optional are `id` and
`kind` of a prompt, ids of annotations that no prompt uses, and `height` and `width`. Without `prompts`, the name of
each category of an image is a prompt. Annotations with `iscrowd` are objects, too: CVAT sets it for everything drawn
with a brush.

**labelme.** `{split}/NAME.json` (also `labels/{split}/`, `annotations/{split}/`), for `all` directly in the folder.
Shapes are polygons, rectangles, circles and masks; those of one label and `group_id` are one object. The image is
`imagePath` or, if that file does not exist, `imageData`. Each label of an image is a prompt.

**YOLO segmentation.** `data.yaml` (or `classes.txt`) with the names of the classes; images where it says, or in
`images/{split}/` or `{split}/images/`, for `all` in `images/`; `labels/…/NAME.txt` for `images/…/NAME.jpg`, one line
per object: class and outline x y x y …, in fractions of the image. The name of each class of an image is a prompt.
"""

from pathlib import Path

from maskselect.data.catalog import SampleReader
from maskselect.data.json_text import holds
from maskselect.data.own_coco import CocoPrompts
from maskselect.data.own_labelme import LabelmeSamples, labelme_files
from maskselect.data.own_yolo import find_yolo

_HELP = "the forms are described at the top of maskselect/data/own.py and in docs/guide/own_data.md"
_SAME = ("val", "valid", "validation")
_MOST_LISTED = 8


def open_own(root: str | Path, split: str = "train") -> SampleReader:
    """Open your own data.

    Args:
        root: see the top of the file.
        split: train, val, test, all, or the stem of a COCO file.

    Raises:
        FileNotFoundError: there are no labels or no images.
        ValueError: a file is damaged, or has no prompt.
    """
    root = Path(root)
    names = (split, *(name for name in _SAME if name != split)) if split in _SAME else (split,)
    for name in names:
        if (file := _coco_file(root, name)) is not None:
            stems = dict.fromkeys((name.removeprefix("instances_"), *names))
            inner = (*(f"images/{stem}" for stem in stems), "images", "data", *stems)
            return CocoPrompts(file, list(dict.fromkeys([*(root / one for one in inner), file.parent, root])), _HELP)
        if (yolo := find_yolo(root, name)) is not None:
            return yolo
        folders = ("", "labels", "annotations") if name == "all" else (name, f"labels/{name}", f"annotations/{name}")
        for folder in folders:
            if files := labelme_files(root / folder):
                return LabelmeSamples(root, files)
    raise FileNotFoundError(_no_labels(root, split))


def _coco_file(root: Path, split: str) -> Path | None:
    """The COCO file of a split. A labelme file of that name is none."""
    names = (f"{split}.json", f"annotations/{split}.json", f"annotations/instances_{split}.json")
    for name in (*names, f"{split}/_annotations.coco.json"):
        file = root / name
        if file.is_file() and (not holds(file, b'"shapes"') or holds(file, b'"annotations"')):
            return file
    return None


def _no_labels(root: Path, split: str) -> str:
    """The message for a folder without labels of a split: the accepted files, and the files that exist."""
    message = (
        f"no labels of split {split!r} in {root}: looked for {split}.json or annotations/{split}.json (COCO), "
        f"{split}/_annotations.coco.json, {split}/*.json (labelme), and data.yaml with images/{split} (YOLO); {_HELP}"
    )
    if split != "all" and any(labelme_files(root / folder) for folder in ("", "labels", "annotations")):
        return f"{message}; the labelme files there are not divided: take all of them with --split all, or make folders"
    files = [path for folder in (".", "annotations") for path in sorted((root / folder).glob("*.json"))]
    stems = {path.relative_to(root): path.stem for path in files if path.is_file()}
    stems |= {path.relative_to(root): path.parent.name for path in sorted(root.glob("*/_annotations.coco.json"))}
    if not stems:
        return message
    listed = ", ".join(f"{path} (--split {stem})" for path, stem in list(stems.items())[:_MOST_LISTED])
    more = f" and {len(stems) - _MOST_LISTED} more" if len(stems) > _MOST_LISTED else ""
    return f"{message}; the .json files there are {listed}{more}: --split STEM takes one"
