"""What labelme's and YOLO's labels have in common: one label file a picture, whose objects have a name each."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

from maskselect.data.asked import ImageQuestions, Question


class LabelFiles(ImageQuestions):
    """Samples of label files: one for each picture and name; the targets are all objects of that name.

    source: what messages name.  keys: of the pictures; a subclass knows which label file belongs to which.

    Raises ValueError when no file can be read or none has an object; a damaged file beside good ones counts as one
    sample and is told of when that is asked for.
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
        """The name of each object of a picture. Raises ValueError, naming the file, when it cannot be read."""


def ask_by_name(names: Iterable[str]) -> list[Question]:
    """One question for each name, whose targets are the places that have it."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    return [Question("c", name, name, tuple(targets)) for name, targets in places.items()]
