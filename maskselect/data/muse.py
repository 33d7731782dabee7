"""MUSE (PixelLM, arXiv 2312.02228; https://github.com/MaverickRen/PixelLM): 239k / 2.8k / 4.3k questions with about 3.7
target masks each, on COCO pictures with LVIS masks.

On disk, under the root or its `muse/`: `muse_{split}.json` of train, val, test_less and test_many, each a list of image
records: `file_name` (train2014) or `coco_url` (train2017 or val2017), `height`, `width`,
`questions`, `answers` (for each question a list of annotations with `segmentation`) and `text_answers`.
Pictures in `coco/train2017`, `coco/val2017` or `coco/train2014`.

Quirks: the text answer contains `{seg}` once for each mask; questions with another count are dropped, as in PixelLM;
the text answer may be absent.
"""

from pathlib import Path
from typing import Any

import torch

from maskselect.data.coco_file import decode_masks, size_of
from maskselect.data.files import Images, find_one
from maskselect.data.index import Record, Section, open_index
from maskselect.data.reader import Reader
from maskselect.structures.sample import Prompt, Sample

_HELP = "the link is in https://github.com/MaverickRen/PixelLM"
_FOLDERS = ("coco/{0}", "{0}", "coco/images/{0}")


class MuseDataset(Reader[Sample]):
    """Samples of one split, one per question. The pool is every mask of the answers about the image, each once.

    Args:
        root: see the top of the file.
        split: train, val, test_less or test_many.

    Attributes:
        dropped: number of dropped questions.
    """

    def __init__(self, root: str | Path, split: str) -> None:
        self.root = Path(root)
        names = [f"muse_{split}.json", f"muse/muse_{split}.json"]
        self.file = find_one(self.root, names, f"file of split {split!r}", _HELP)
        self.index = open_index(self.file, {"image": Section("", key=None)})
        self._rows: list[tuple[int, int]] = []
        self._names: list[str] = []
        self.dropped = 0
        for place, record in enumerate(self.index.all("image")):
            for number in range(len(_questions(self.file, place, record))):
                if _has_all_masks(record, number):
                    self._rows.append((place, number))
                    self._names.append(_picture_name(record)[1])
                else:
                    self.dropped += 1

    def __getitem__(self, number: int) -> Sample:
        """Decode one sample, see `Reader`."""
        place, which = self._rows[number]
        record = self.index.get("image", place)
        folder, name = _picture_name(record)
        try:
            size = size_of(record)
            pool, answers = _pool(record["answers"])
            prompt = Prompt(str(record["questions"][which]).strip(), torch.zeros(0, *size, dtype=torch.bool))
            masks = decode_masks(pool, size)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"{self.file}, record {place}: {error}") from error
        return Sample(
            image=Images([self.root / f.format(folder) for f in _FOLDERS], _HELP).find(name),
            image_id=name,
            sample_id=f"{place}:{which}",
            prompt=prompt,
            gt_pool=masks,
            targets=answers[which],
            kind="reasoning",
        )

    def image_ids(self) -> list[str]:
        """The image of each sample."""
        return list(self._names)


def _questions(file: Path, place: int, record: Record) -> list[str]:
    questions, answers = record.get("questions"), record.get("answers")
    if not isinstance(questions, list) or not isinstance(answers, list) or len(questions) != len(answers):
        raise ValueError(f"{file}, record {place} needs as many answers as questions")
    if not all(isinstance(answer, list) and all(isinstance(one, dict) for one in answer) for answer in answers):
        raise ValueError(f"{file}, record {place} has an answer that is not a list of annotations")
    return questions


def _has_all_masks(record: Record, number: int) -> bool:
    """Whether the text answer has a `{seg}` for each mask."""
    texts = record.get("text_answers")
    text = texts[number] if isinstance(texts, list) and number < len(texts) else None
    return not isinstance(text, str) or text.count("{seg}") == len(record["answers"][number])


def _picture_name(record: Record) -> tuple[str, str]:
    """Folder and file name."""
    if record.get("file_name"):
        name = str(record["file_name"]).rpartition("/")[2]
        return ("train2014" if "train2014" in str(record["file_name"]) else "train2017"), name
    folder, _, name = str(record.get("coco_url", "")).rpartition("/")
    return folder.rpartition("/")[2] or "train2017", name


def _pool(answers: list[list[dict[str, Any]]]) -> tuple[list[dict[str, Any]], list[tuple[int, ...]]]:
    """Every annotation once, and for each question the places of its annotations."""
    pool: list[dict[str, Any]] = []
    known: dict[Any, int] = {}
    places_of = []
    for answer in answers:
        places = []
        for annotation in answer:
            # Answers to several questions may share an annotation; one id with two outlines is two annotations.
            key = annotation.get("id"), str(annotation.get("segmentation"))
            if key not in known:
                known[key] = len(pool)
                pool.append(annotation)
            places.append(known[key])
        places_of.append(tuple(dict.fromkeys(places)))
    return pool, places_of
