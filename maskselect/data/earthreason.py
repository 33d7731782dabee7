"""EarthReason (SegEarth-R1, arXiv 2504.09644; https://huggingface.co/datasets/earth-insights/EarthReason): aerial
images, about 2,371 / 1,135 / 1,928 of train, val and test.

On disk, under the root (or its `rs_reason_seg/RSReasonSeg`): `{split}/images`, `{split}/labels` (PNG, non-zero is the
target) and `{split}/QAs` (JSON of `questions` and `answer`); files match by the order of their names.

Quirks: an empty `answer` means that the prompt has no target; the published loader uses only the first question.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskselect.data.files import find_one, read_json
from maskselect.data.images import image_size, list_images, load_mask
from maskselect.data.reader import Reader
from maskselect.structures.sample import Prompt, Sample

_HELP = "see https://huggingface.co/datasets/earth-insights/EarthReason"


class EarthReasonDataset(Reader[Sample]):
    """Samples of one split: one per image.

    Args:
        root, split: see the top of the file.
        every_question: one sample per question of an image, and not only its first.

    Raises:
        FileNotFoundError: the layout does not exist.
        ValueError: the three folders have different numbers of files.
    """

    def __init__(self, root: str | Path, split: str, every_question: bool = False) -> None:
        home = find_one(Path(root), [split, f"rs_reason_seg/RSReasonSeg/{split}"], f"folder of split {split!r}", _HELP)
        for part in ("images", "labels", "QAs"):
            find_one(home, [part], f"folder {part}", _HELP)
        images, labels = list_images(home / "images"), sorted((home / "labels").glob("*.png"))
        questions = sorted((home / "QAs").glob("*.json"))
        if not len(images) == len(labels) == len(questions):
            counts = f"{len(images)} images, {len(labels)} labels and {len(questions)} question files"
            raise ValueError(f"{home} has {counts}; expected one of each for every image")
        self._rows = [
            (*files, which)
            for files in zip(images, labels, questions, strict=True)
            for which in range(len(_record(files[2])["questions"]) if every_question else 1)
        ]

    def __getitem__(self, number: int) -> Sample:
        """Decode one sample, see `Reader`."""
        image, label, file, which = self._rows[number]
        record = _record(file)
        size = image_size(image)
        mask = torch.from_numpy(_read_label(label, size))
        return Sample(
            image=image,
            image_id=image.stem,
            sample_id=f"{image.stem}:{which}",
            prompt=Prompt(str(record["questions"][which]).strip(), torch.zeros(0, *size, dtype=torch.bool)),
            gt_pool=mask[None],
            targets=(0,) if record["answer"] and mask.any() else (),
            kind="reasoning",
        )

    def image_ids(self) -> list[str]:
        """The image of each sample."""
        return [row[0].stem for row in self._rows]


def _record(file: Path) -> dict[str, Any]:
    record = read_json(file)
    if not isinstance(record, dict) or not record.get("questions") or not isinstance(record["questions"], list):
        raise ValueError(f"{file} has no list of questions")
    return {"answer": [], **record}


def _read_label(path: Path, size: tuple[int, int]) -> np.ndarray:
    mask = load_mask(path)
    if mask.shape != size:
        raise ValueError(f"label {path} is of size {list(mask.shape)}, its image of {list(size)}")
    return mask
