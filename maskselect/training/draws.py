"""The order of images in a training run: endless, numbered, and the same wherever the run is resumed."""

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
from torch.utils.data import Dataset, Sampler

MANY = 10**9
"""Draws of a sequence; more than a run takes."""


class NumberedDraws(Sampler[int]):
    """A practically endless sequence of draws: pass after pass over the data, each in its own seeded order.

    Args:
        count: items in the data.
        seed: determines the order.
        start: draws that were already taken.
        rank, world: of `world` processes, each takes every `world`-th draw, from its own `rank` on.
    """

    def __init__(self, count: int, seed: int, start: int = 0, rank: int = 0, world: int = 1) -> None:
        self.count, self.seed, self.start = count, seed, start
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return (MANY - self.start) // self.world

    def __iter__(self) -> Iterator[int]:
        for number in range(self.start, MANY):
            passes, place = divmod(number, self.count)
            if place == 0 or number == self.start:
                order = np.random.default_rng((self.seed, passes)).permutation(self.count)
            if (number - self.start) % self.world == self.rank:
                yield int(order[place])


class PromptBatches(Sampler[list[int]]):
    """Batches of about `prompts` prompts, whatever number of prompts each image has.

    A batch ends before an image that would miss `prompts` by more than the batch without it does.

    Args:
        draws: the images, all of them.
        prompts_of: number of prompts of an image.
        prompts: prompts of a batch, about.
        max_images: images of a batch, at most.
        start: batches that were already taken.
        rank, world: of `world` processes, each takes every `world`-th batch.
    """

    def __init__(
        self,
        draws: NumberedDraws,
        prompts_of: Callable[[int], int],
        prompts: int,
        max_images: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.draws, self.prompts_of, self.prompts, self.max_images = draws, prompts_of, prompts, max_images
        self.start, self.rank, self.world = start, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        return islice(self._all(), self.start + self.rank, None, self.world)

    def taken(self) -> int:
        """Number of images in the batches that this process has already taken."""
        return sum(map(len, islice(self._all(), self.rank, self.start, self.world)))

    def _all(self) -> Iterator[list[int]]:
        batch: list[int] = []
        total = 0
        for item in self.draws:
            size = self.prompts_of(item)
            nearer_without = total + size - self.prompts > self.prompts - total
            if batch and (len(batch) == self.max_images or nearer_without):
                yield batch
                batch, total = [], 0
            batch.append(item)
            total += size


class SeededItems(Dataset[tuple[int, int]]):
    """Pairs of image number and seed.

    Args:
        count: number of images.
        seed: seed of the run.
        fresh: each draw has a new seed; otherwise the seed of an image is constant.
    """

    def __init__(self, count: int, seed: int, fresh: bool) -> None:
        self.count, self.seed, self.fresh = count, seed, fresh
        self.draws = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, item: int) -> tuple[int, int]:
        if self.fresh:
            self.draws += 1
        return item, (self.seed * 7_919 + self.draws) * 1_000_003 + item
