"""Readers that ask several things of one image: what they share.

Such a data set has no prompts of its own: its categories, parts, attributes or descriptions are asked for, each of them
once an image. How much is asked of which image is found once, and kept in a small index.
"""

import zlib
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from maskselect.data.index import Index, Key, Record, Section, open_index
from maskselect.structures.sample import Prompt, Sample

Asks = tuple[Key, str, str]
"""Key of an image, the tags of its questions (a letter each), and the part of the data that it belongs to."""


@dataclass(frozen=True)
class Question:
    """One thing that is asked of an image.

    tag: a letter for its sort, by which a reader chooses.  key: its name among those of the image, "" for the only one.
    targets: places in the pool.  unsure: places among all masks of what may or may not answer, which no measure counts.
    references: places in the pool, one for each `<mask-ref>` of the text.
    """

    tag: str
    key: str
    text: str
    targets: tuple[int, ...]
    kind: str = "category"
    unsure: tuple[int, ...] = ()
    references: tuple[int, ...] = ()


@dataclass(frozen=True)
class Asked:
    """An image and what is asked of it.

    image: file, or (H, W, 3) uint8.
    masks: (M, H, W) bool; the first `pool` of them are the ground-truth pool, the others only ever unsure.
    void: (H, W) bool, pixels of which nothing is known, or None where the data set has none such.
    """

    image: Path | np.ndarray
    image_id: str
    masks: Tensor
    pool: int
    questions: Sequence[Question]
    void: Tensor | None = None


class ImageQuestions(ABC):
    """Samples of images of which several things are asked: one a question, those of an image behind each other.

    Of a data set of any size only two whole numbers a sample are held. A subclass reads one image in `_read`.
    """

    def __init__(self, source: Path, asks: Iterable[tuple[Key, str]], wanted: str) -> None:
        """source: what messages name.  asks: of each image its key and the tags of its questions.

        wanted: tags of the questions that become samples.
        """
        self.source = source
        self._keys: list[Key] = []
        images, questions = array("i"), array("i")
        for key, tags in asks:
            chosen = [number for number, tag in enumerate(tags) if tag in wanted]
            if chosen:
                images.extend([len(self._keys)] * len(chosen))
                questions.extend(chosen)
                self._keys.append(key)
        self._rows = np.stack([np.array(images, np.int32), np.array(questions, np.int32)], axis=1)
        self._latest: tuple[Key, Asked] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_latest": None}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Sample]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Sample:
        """One sample. Raises ValueError, naming file and record, for damage, FileNotFoundError without the picture."""
        place, which = (int(value) for value in self._rows[number])
        asked = self._asked(self._keys[place])
        question = asked.questions[which]
        pool = asked.masks[: asked.pool]
        try:
            prompt = Prompt(question.text.strip(), pool[list(question.references)])
        except ValueError as error:
            raise ValueError(f"image {asked.image_id} in {self.source}, question {question.key!r}: {error}") from error
        return Sample(
            image=asked.image,
            image_id=asked.image_id,
            sample_id=":".join(part for part in (asked.image_id, question.key) if part),
            prompt=prompt,
            gt_pool=pool,
            targets=question.targets,
            reference_ids=question.references,
            kind=question.kind,
            ignore=_ignored(asked, question),
        )

    def image_ids(self) -> list[str]:
        """The image of each sample."""
        names = [self._name(key) for key in self._keys]
        return [names[place] for place in self._rows[:, 0]]

    def _name(self, key: Key) -> str:
        """The published id of an image."""
        return str(key)

    def _asked(self, key: Key) -> Asked:
        # The questions of an image follow each other, and share its masks instead of decoding them again.
        latest = self._latest
        if latest is None or latest[0] != key:
            self._latest = latest = key, self._read(key)
        return latest[1]

    @abstractmethod
    def _read(self, key: Key) -> Asked:
        """One image with all questions about it, in the order of its tags."""


def _ignored(asked: Asked, question: Question) -> Tensor | None:
    """Void and unsure pixels, without those of a target: what surely answers counts."""
    if not question.unsure:
        return asked.void
    unsure = asked.masks[list(question.unsure)].any(dim=0) & ~asked.masks[list(question.targets)].any(dim=0)
    return unsure if asked.void is None else unsure | asked.void


def asked_of(index: Index, find: Callable[[], Iterable[Asks]], stamp: str) -> Iterator[Asks]:
    """What `find` finds, kept in a small index beside the large one from which it comes: the next start need not go
    through all annotations.

    stamp: everything else that it depends on.
    """

    def rows(_: Path) -> dict[str, Iterable[Record]]:
        return {"image": ({"image": key, "tags": tags, "part": part} for key, tags, part in find() if tags)}

    section = Section(f"questions {zlib.crc32(stamp.encode())}", key="image")
    for row in open_index(index.file, {"image": section}, rows).all("image"):
        yield row["image"], row["tags"], row["part"]
