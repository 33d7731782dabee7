"""Several sources of training images and clips as one: `MixedGroups` at given rates, `JoinedGroups` in passes.

The released code of LLM-Seg draws a kind of data at 9 : 3 : 1, then one of its sets, then an image. A mixture of
mixtures does the same. Text4Seg states the number of passes over each set.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
from torch import Tensor

from maskselect.backends.config_tree import Arguments
from maskselect.backends.training_data import training_data
from maskselect.structures.clip_groups import ClipGroupSource
from maskselect.structures.groups import Annotated, GroupSource, Query, TextSource
from maskselect.structures.provenance import TrainingData


class _Sources(ABC):
    """A `GroupSource` whose items are items of its sources; a subclass sets `sources`."""

    sources: Sequence[GroupSource | ClipGroupSource]

    @abstractmethod
    def place(self, item: int) -> tuple[int, int]:
        """Number of the source and of the image within it."""

    def image_id(self, item: int) -> str:
        """The image's id within its source."""
        source, place = self.find(item)
        return source.image_id(place)

    def version(self, item: int) -> str:
        """The image's version in its source."""
        source, place = self.find(item)
        return source.version(place)

    def prompts_of(self, item: int) -> int:
        """Number of prompts of the image."""
        source, place = self.find(item)
        return source.prompts_of(place)

    def load(self, item: int) -> Annotated:
        """The image with its masks. Raises TypeError for a clip, which only some systems train on."""
        source, place = self.find(item)
        if isinstance(source, ClipGroupSource):
            raise TypeError(f"{type(source).__name__} in a mixture has clips; expected pictures for this system")
        annotated: Annotated = source.load(place)
        return annotated

    def queries(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[Query]:
        """Prompts of the image from its source."""
        source, place = self.find(item)
        return source.queries(place, extra, count, rng)

    def caption(self, item: int, extra: dict[str, Tensor], rng: np.random.Generator) -> str:
        """A caption of the image. Raises ValueError if its source has none."""
        source, place = self.find(item)
        return source.caption(place, extra, rng)

    def texts(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Texts of the image.

        Raises:
            TypeError: where its source has none.
        """
        source, own = self.find(item)
        if not isinstance(source, TextSource):
            raise TypeError(f"{type(source).__name__} in a mixture has no texts; expected captions or dialogues")
        return source.texts(own, extra, count, rng)

    def find(self, item: int) -> tuple[Any, int]:
        """The source of an item, and the number of the image in it."""
        number, place = self.place(item)
        return self.sources[number], place


class MixedGroups(_Sources):
    """A `GroupSource` whose items are draws of a source and one of its images, determined by seed and number.

    Args:
        sources: the sources; no two may share image ids.
        rates: relative rate of each source; None for equal rates.
        draws: number of draws; longer training repeats them in another order.
        seed: of the draws.

    Raises:
        ValueError: there is no source, an empty source, invalid rates, or draws below 1.
    """

    def __init__(
        self,
        sources: Sequence[GroupSource | ClipGroupSource],
        rates: Sequence[float] | None = None,
        draws: int = 100_000,
        seed: int = 0,
    ) -> None:
        weights = [1.0] * len(sources) if rates is None else [float(rate) for rate in rates]
        if not sources or len(weights) != len(sources):
            raise ValueError(
                f"a mixture has {len(sources)} sources and {len(weights)} rates; expected one rate a source"
            )
        if not all(0 <= rate < float("inf") for rate in weights) or sum(weights) == 0:
            raise ValueError(f"rates of a mixture are {weights}; expected numbers from 0, and one above it")
        empty = [number for number, source in enumerate(sources) if not len(source)]
        if empty:
            raise ValueError(f"source {empty[0]} of a mixture has no images")
        if draws < 1:
            raise ValueError(f"a mixture has {draws} draws; expected at least 1")
        self.sources = list(sources)
        self.draws, self.seed = draws, seed
        self._shares = [total / sum(weights) for total in accumulate(weights)]

    @classmethod
    def training_data(cls, arguments: Arguments) -> list[TrainingData]:
        """The training data of all sources with a rate above 0, with their shares of the draws."""
        sources = arguments["sources"]
        rates = arguments.get("rates") or [1.0] * len(sources)
        return [
            replace(one, share=one.share * rate / sum(rates))
            for source, rate in zip(sources, rates, strict=True)
            if rate
            for one in training_data(source)
        ]

    def __len__(self) -> int:
        return self.draws

    def place(self, item: int) -> tuple[int, int]:
        """Number of the source and of the image within it for a draw."""
        rng = np.random.default_rng((self.seed, item))
        source = bisect_right(self._shares, rng.random() * self._shares[-1])
        return source, int(rng.integers(len(self.sources[source])))


class JoinedGroups(_Sources):
    """A `GroupSource` of all images of several sources, each a number of times.

    An epoch takes every image of a source as often as its number of passes says. A pass over the images is a pass over
    their prompts if `prompts_per_image` of the data module is at least the number of prompts of any image.

    Args:
        sources: the sources; no two may share image ids.
        passes: number of passes over each source; None for one each.

    Raises:
        ValueError: there is no source, an empty source, or a number of passes below 1.
    """

    def __init__(self, sources: Sequence[GroupSource | ClipGroupSource], passes: Sequence[int] | None = None) -> None:
        numbers = [1] * len(sources) if passes is None else list(passes)
        if not sources or len(numbers) != len(sources) or min(numbers) < 1:
            raise ValueError(
                f"{len(sources)} joined sources have the passes {numbers}; expected a number from 1 for each source"
            )
        empty = [number for number, source in enumerate(sources) if not len(source)]
        if empty:
            raise ValueError(f"joined source {empty[0]} has no images")
        self.sources, self.passes = list(sources), numbers
        self._ends = list(accumulate(len(source) * count for source, count in zip(sources, numbers, strict=True)))

    @classmethod
    def training_data(cls, arguments: Arguments) -> list[TrainingData]:
        """The training data of all sources."""
        return [one for source in arguments["sources"] for one in training_data(source)]

    def __len__(self) -> int:
        return self._ends[-1]

    def place(self, item: int) -> tuple[int, int]:
        """Number of the source and of the image within it.

        Raises:
            IndexError: there is no such item.
        """
        if not 0 <= item < len(self):
            raise IndexError(f"item {item} of {len(self)} joined items")
        number = bisect_right(self._ends, item)
        source = self.sources[number]
        return number, (item - (self._ends[number - 1] if number else 0)) % len(source)
