"""ReasonSeg (LISA, arXiv 2308.00692; https://github.com/dvlab-research/LISA): 239 / 200 / 779 images of train,
val and test.

On disk, under the root (or its `reason_seg/ReasonSeg`): `{split}/NAME.jpg` with `{split}/NAME.json`:
`text` (a list of paraphrases; evaluation uses the first), `is_sentence` (a long question, or a short phrase) and
`shapes` of `{label, points}` in pixels. Images are OpenImages and ScanNet pictures under their own licences.

Quirks: a shape labelled "flag" is no mask; pixels of a shape whose label contains "ignore" are ignored; shapes are
painted from the largest to the smallest, so a smaller one cuts a hole into a larger one; of two shapes with the same
area the earlier one is on top, because the official reader (`utils/data_processing.py`, `get_mask_from_json`, commit
6f95195) reverses an ascending sort; some files are in Windows-1252.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from maskselect.data.files import find_one, read_json
from maskselect.data.images import image_size
from maskselect.data.reader import Reader
from maskselect.structures.sample import Prompt, Sample

_SUFFIXES = (".jpg", ".jpeg", ".png")
_HELP = "the link is in https://github.com/dvlab-research/LISA"


class ReasonSegDataset(Reader[Sample]):
    """Samples of split train, one per text, or of val or test, one per image, as published.

    The targets of a sample are its painted shapes; their union is the published mask.
    """

    def __init__(self, root: str | Path, split: str) -> None:
        choices = [split, f"ReasonSeg/{split}", f"reason_seg/ReasonSeg/{split}"]
        self.folder = find_one(Path(root), choices, f"folder of split {split!r}", _HELP)
        files = sorted(self.folder.glob("*.json"))
        if not files:
            raise FileNotFoundError(f"{self.folder} has no .json files; expected NAME.json beside NAME.jpg; {_HELP}")
        every = split == "train"
        self._rows = [(file, n) for file in files for n in range(len(_texts(file, read_json(file))) if every else 1)]

    def __getitem__(self, number: int) -> Sample:
        """Decode one sample, see `Reader`."""
        file, which = self._rows[number]
        record = read_json(file)
        text = _texts(file, record)[which]
        image = _picture(file)
        size = image_size(image)
        masks, ignore = paint(_shapes(file, record), size)
        return Sample(
            image=image,
            image_id=file.stem,
            sample_id=f"{file.stem}:{which}",
            prompt=Prompt(text, torch.zeros(0, *size, dtype=torch.bool)),
            gt_pool=torch.from_numpy(masks),
            targets=tuple(range(len(masks))),
            kind="sentence" if record.get("is_sentence") else "phrase",
            ignore=torch.from_numpy(ignore) if ignore.any() else None,
        )

    def image_ids(self) -> list[str]:
        """The image of each sample."""
        return [file.stem for file, _ in self._rows]


def paint(shapes: list[tuple[str, np.ndarray]], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Paint shapes from the largest to the smallest, of equal ones the last first.

    Args:
        shapes: label and (P, 2) float points (x, y) in pixels, whose fractions are cut off as in the published code.
        size: (H, W).

    Returns:
        Targets (K, H, W) bool, without those that are entirely covered, and ignored pixels (H, W) bool.
    """
    drawn = [(label, _drawn(points, size)) for label, points in shapes if label.lower() != "flag"]
    # A sort by falling area would keep equal shapes in the order of the file; the official reader reverses them.
    drawn = sorted(drawn, key=lambda shape: int(shape[1].sum()))[::-1]
    owner = np.full(size, -1, np.int32)
    for place, (_, mask) in enumerate(drawn):
        owner[mask] = place
    ignored = ["ignore" in label.lower() for label, _ in drawn]
    masks = [owner == place for place, left_out in enumerate(ignored) if not left_out]
    masks = [mask for mask in masks if mask.any()]
    ignore = np.isin(owner, [place for place, left_out in enumerate(ignored) if left_out])
    return (np.stack(masks) if masks else np.zeros((0, *size), bool)), ignore


def _drawn(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    canvas = np.zeros(size, np.uint8)
    corners = [points.astype(np.int32)]
    cv2.polylines(canvas, corners, isClosed=True, color=1, thickness=1)
    cv2.fillPoly(canvas, corners, color=1)
    return canvas.astype(bool)


def _texts(file: Path, record: Any) -> list[str]:
    texts = record.get("text") if isinstance(record, dict) else None
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
        raise ValueError(f"{file} has the text {str(texts)[:60]!r}; expected a list of questions")
    return [text.strip() for text in texts]


def _shapes(file: Path, record: dict[str, Any]) -> list[tuple[str, np.ndarray]]:
    records = record.get("shapes")
    if not isinstance(records, list):
        raise ValueError(f"{file} has no list of shapes")
    shapes = []
    for number, shape in enumerate(records):
        try:
            points = np.asarray(shape["points"], np.float64)
            label = str(shape["label"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file}, shape {number} has no label and points as [[x, y], ...]: {error}") from error
        if points.ndim != 2 or points.shape[1] != 2 or not (np.abs(points) < 1e6).all():
            raise ValueError(f"{file}, shape {number} has points of shape {points.shape}; expected (P, 2) pixels")
        shapes.append((label, points))
    return shapes


def _picture(file: Path) -> Path:
    for suffix in _SUFFIXES:
        if (path := file.with_suffix(suffix)).is_file():
            return path
    raise FileNotFoundError(f"the picture of {file} is missing: looked for {file.stem} with {', '.join(_SUFFIXES)}")
