"""The order in which a training run takes its images: endless, numbered, and the same wherever it is resumed."""

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
from torch.utils.data import Dataset, Sampler

LONG = 10**9


class NumberedDraws(Sampler[int]):
    """The endless sequence of draws from one beginning: pass after pass, each in its own seeded order.

    count: items in the data.  start: draws that were already taken.
    rank, world: of several processes each takes every `world`-th draw, beginning with its own.
    """

    def __init__(
        self, count: int, seed: int, start: int = 0, length: int = LONG, rank: int = 0, world: int = 1
    ) -> None:
        self.count, self.seed, self.start, self.length = count, seed, start, length
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return (self.length - self.start) // self.world

    def __iter__(self) -> Iterator[int]:
        for number in range(self.start, self.length):
            passes, place = divmod(number, self.count)
            if place == 0 or number == self.start:
                order = np.random.default_rng((self.seed, passes)).permutation(self.count)
            if (number - self.start) % self.world == self.rank:
                yield int(order[place])


class PromptBatches(Sampler[list[int]]):
    """Batches of about so many prompts, however many each image brings.

    draws: the images, all of them.
    prompts_of: how many prompts an image brings.
    wanted: prompts of a batch; it is closed where one more image would miss that by more than leaving it out does.
    most: images of a batch, at most.
    start: batches that were already taken.  rank, world: each process takes every `world`-th batch.
    """

    def __init__(
        self,
        draws: NumberedDraws,
        prompts_of: Callable[[int], int],
        wanted: int,
        most: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.draws, self.prompts_of, self.wanted, self.most = draws, prompts_of, wanted, most
        self.start, self.rank, self.world = start, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        return islice(self._all(), self.start + self.rank, None, self.world)

    def taken(self) -> int:
        """Images in the batches that this process has already taken."""
        return sum(map(len, islice(self._all(), self.rank, self.start, self.world)))

    def _all(self) -> Iterator[list[int]]:
        batch: list[int] = []
        asked = 0
        for item in self.draws:
            size = self.prompts_of(item)
            if batch and (len(batch) == self.most or asked + size - self.wanted > self.wanted - asked):
                yield batch
                batch, asked = [], 0
            batch.append(item)
            asked += size


class SeededItems(Dataset[tuple[int, int]]):
    """Items are (image number, seed of the draw)."""

    def __init__(self, count: int, seed: int, fresh: bool) -> None:
        self.count, self.seed, self.fresh = count, seed, fresh
        self.draws = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, item: int) -> tuple[int, int]:
        if self.fresh:
            self.draws += 1
        return item, (self.seed * 7_919 + self.draws) * 1_000_003 + item
