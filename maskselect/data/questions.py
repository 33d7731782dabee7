"""The base of readers that ask several questions about one image.

These data sets have no prompts. Their categories, parts, attributes or descriptions become the prompts, each once per
image. The tags of each image's questions are computed once and kept in a small index.
"""

import zlib
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from maskselect.data.index import Index, Key, Record, Section, open_index
from maskselect.data.reader import Reader
from maskselect.structures.sample import Prompt, Sample

ImageTags = tuple[Key, str, str]
"""Key of an image, the tags of its questions (a letter each), and the part of the data to which it belongs."""


@dataclass(frozen=True)
class Question:
    """One question about an image.

    Attributes:
        tag: a letter for its type, by which a reader selects questions.
        key: its name among the questions of the image; "" for the only one.
        text: the prompt.
        targets: places in the pool.
        kind: kind of the prompt.
        unsure: places among all masks that may or may not be targets; their pixels are ignored.
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
class QuestionedImage:
    """An image with its masks and the questions about it.

    Attributes:
        image: file, or (H, W, 3) uint8.
        image_id: as published.
        masks: (M, H, W) bool; the first `pool` are the ground-truth pool, the others are only ever unsure.
        pool: number of masks in the pool.
        questions: in the order of the image's tags.
        void: (H, W) bool, unlabelled pixels, which are ignored; None if there are none.
    """

    image: Path | np.ndarray
    image_id: str
    masks: Tensor
    pool: int
    questions: Sequence[Question]
    void: Tensor | None = None


class ImageQuestions(Reader[Sample]):
    """Samples of images with several questions, one per question. A subclass reads one image in `_read`.

    Memory holds two integers per sample.

    Args:
        source: file or folder, for messages.
        asks: for each image its key and the tags of its questions.
        tags: tags of the questions that become samples.
    """

    def __init__(self, source: Path, asks: Iterable[tuple[Key, str]], tags: str) -> None:
        self.source = source
        self._keys: list[Key] = []
        images, questions = array("i"), array("i")
        for key, image_tags in asks:
            chosen = [number for number, tag in enumerate(image_tags) if tag in tags]
            if chosen:
                images.extend([len(self._keys)] * len(chosen))
                questions.extend(chosen)
                self._keys.append(key)
        self._rows: np.ndarray = np.stack([np.array(images, np.int32), np.array(questions, np.int32)], axis=1)
        self._latest: tuple[Key, QuestionedImage] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_latest": None}

    def __getitem__(self, number: int) -> Sample:
        """Decode one sample, see `Reader`."""
        place, which = (int(value) for value in self._rows[number])
        image = self._image(self._keys[place])
        question = image.questions[which]
        pool = image.masks[: image.pool]
        try:
            prompt = Prompt(question.text.strip(), pool[list(question.references)])
        except ValueError as error:
            raise ValueError(f"image {image.image_id} in {self.source}, question {question.key!r}: {error}") from error
        return Sample(
            image=image.image,
            image_id=image.image_id,
            sample_id=":".join(part for part in (image.image_id, question.key) if part),
            prompt=prompt,
            gt_pool=pool,
            targets=question.targets,
            reference_ids=question.references,
            kind=question.kind,
            ignore=_ignored(image, question),
        )

    def image_ids(self) -> list[str]:
        """The image of each sample."""
        names = [self._name(key) for key in self._keys]
        return [names[place] for place in self._rows[:, 0]]

    def _name(self, key: Key) -> str:
        """The published id of an image."""
        return str(key)

    def _image(self, key: Key) -> QuestionedImage:
        # The questions about an image follow each other and share its decoded masks.
        if self._latest is None or self._latest[0] != key:
            self._latest = key, self._read(key)
        return self._latest[1]

    @abstractmethod
    def _read(self, key: Key) -> QuestionedImage:
        """One image with all questions about it, in the order of its tags."""


def _ignored(image: QuestionedImage, question: Question) -> Tensor | None:
    """Void and unsure pixels, except those of a target."""
    if not question.unsure:
        return image.void
    unsure = image.masks[list(question.unsure)].any(dim=0) & ~image.masks[list(question.targets)].any(dim=0)
    return unsure if image.void is None else unsure | image.void


def indexed_tags(index: Index, find: Callable[[], Iterable[ImageTags]], stamp: str) -> Iterator[ImageTags]:
    """The results of `find` for images with questions, kept in a small index beside `index`.

    Args:
        index: the index of the annotations.
        find: computes the tags of all images from the annotations.
        stamp: everything else on which the result depends.
    """

    def rows(_: Path) -> dict[str, Iterable[Record]]:
        return {"image": ({"image": key, "tags": tags, "part": part} for key, tags, part in find() if tags)}

    section = Section(f"questions {zlib.crc32(stamp.encode())}", key="image")
    for row in open_index(index.file, {"image": section}, rows).all("image"):
        yield row["image"], row["tags"], row["part"]
