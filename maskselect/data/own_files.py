"""The common part of labelme's and YOLO's labels: one label file per image, each object with a name."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

from maskselect.data.questions import ImageQuestions, Question


class LabelFiles(ImageQuestions):
    """Samples of label files, one for each image and name; the targets are all objects of that name.

    A damaged file beside good ones counts as one sample, which raises on access.

    Args:
        source: for messages.
        keys: of the images.

    Raises:
        ValueError: no file can be read, or none has an object.
    """

    def __init__(self, source: Path, keys: Sequence[str]) -> None:
        asks: list[tuple[str, str]] = []
        refused: ValueError | None = None
        good = False
        for key in keys:
            try:
                count = len(set(self._names(key)))
                good = good or count > 0
            except ValueError as error:
                refused, count = refused or error, 1
            asks.append((key, "c" * count))
        if not good:
            raise refused or ValueError(f"{source} has no labelled object in any of its {len(keys)} label files")
        super().__init__(source, asks, "c")

    @abstractmethod
    def _names(self, key: str) -> list[str]:
        """The name of each object of an image. Raises ValueError, with the file, for a damaged label file."""


def questions_by_name(names: Iterable[str]) -> list[Question]:
    """One question for each name; its targets are the places with the name."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    return [Question("c", name, name, tuple(targets)) for name, targets in places.items()]
