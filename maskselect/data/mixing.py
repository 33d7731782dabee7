"""`MixedGroups`: several sources of training images as one, mixed at given rates.

LLM-Seg draws a kind of data at 9 : 3 : 1, then one of its sets, then an image (its released code; the paper names the
sets alone). A mixture within a mixture does that: what is drawn from may itself be mixed.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np
from torch import Tensor

from maskselect.backends.config_tree import Arguments
from maskselect.backends.training_data import training_data
from maskselect.structures.groups import Annotated, GroupSource, Query, TextSource
from maskselect.structures.provenance import TrainingData


class MixedGroups:
    """A `GroupSource` whose items are draws: which source, and which of its images, follow from seed and number.

    Args:
        sources: what is mixed; their image ids must differ between sources, as those of different data sets do.
        rates: how often each is drawn, in relation to the others; None for all alike.
        draws: length, in draws; training that goes on beyond it meets the same draws again, in another order.
        seed: of the draws.

    Raises ValueError for no source, an empty one, rates that do not fit, or draws below 1.
    """

    def __init__(
        self,
        sources: Sequence[GroupSource],
        rates: Sequence[float] | None = None,
        draws: int = 100_000,
        seed: int = 0,
    ) -> None:
        given = [1.0] * len(sources) if rates is None else [float(rate) for rate in rates]
        if not sources or len(given) != len(sources):
            raise ValueError(f"a mixture has {len(sources)} sources and {len(given)} rates; expected one rate a source")
        if not all(0 <= rate < float("inf") for rate in given) or sum(given) == 0:
            raise ValueError(f"rates of a mixture are {given}; expected numbers from 0, and one above it")
        empty = [number for number, source in enumerate(sources) if not len(source)]
        if empty:
            raise ValueError(f"source {empty[0]} of a mixture has no images")
        if draws < 1:
            raise ValueError(f"a mixture has {draws} draws; expected at least 1")
        self.sources = list(sources)
        self.draws, self.seed = draws, seed
        self._shares = [total / sum(given) for total in accumulate(given)]

    @classmethod
    def training_data(cls, arguments: Arguments) -> list[TrainingData]:
        """What the sources that are drawn from say, with their shares of the draws."""
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
        """Number of the source, and number of the image within it, of a draw."""
        rng = np.random.default_rng((self.seed, item))
        source = bisect_right(self._shares, rng.random() * self._shares[-1])
        return source, int(rng.integers(len(self.sources[source])))

    def image_id(self, item: int) -> str:
        """The image's id within its source."""
        source, own = self._find(item)
        return source.image_id(own)

    def version(self, item: int) -> str:
        """The image's version, by its source."""
        source, own = self._find(item)
        return source.version(own)

    def prompts_of(self, item: int) -> int:
        """How many prompts the image of a draw has."""
        source, own = self._find(item)
        return source.prompts_of(own)

    def load(self, item: int) -> Annotated:
        """The image of a draw."""
        source, own = self._find(item)
        return source.load(own)

    def queries(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[Query]:
        """Prompts of the image, as its source asks them."""
        source, own = self._find(item)
        return source.queries(own, extra, count, rng)

    def caption(self, item: int, extra: dict[str, Tensor], rng: np.random.Generator) -> str:
        """A caption of the image. Raises ValueError where its source has none."""
        source, own = self._find(item)
        return source.caption(own, extra, rng)

    def texts(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Texts of the image.

        Raises:
            TypeError: where its source has none.
        """
        source, own = self._find(item)
        if not isinstance(source, TextSource):
            raise TypeError(f"{type(source).__name__} in a mixture has no texts; expected captions or dialogues")
        return source.texts(own, extra, count, rng)

    def _find(self, item: int) -> tuple[GroupSource, int]:
        number, own = self.place(item)
        return self.sources[number], own
