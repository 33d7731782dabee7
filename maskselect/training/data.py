"""Data modules. A training run is one long epoch of numbered draws, so that resuming is only a matter of counting."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from maskselect.data.groups import GroupSource
from maskselect.data.scenes.stream import SceneDataset
from maskselect.structures.protocols import CandidateSystem
from maskselect.structures.sample import Batch
from maskselect.training.caption_task import SceneTexts, collate_texts
from maskselect.training.features import FeatureStore, LabelRule, collect
from maskselect.training.stand_ins import StandIns

_LONG = 10**9


class NumberedDraws(Sampler[int]):
    """The endless sequence of draws from one beginning: pass after pass, each in its own seeded order.

    count: items in the data.  start: draws that were already taken.
    rank, world: of several processes each takes every `world`-th draw, beginning with its own.
    """

    def __init__(
        self, count: int, seed: int, start: int = 0, length: int = _LONG, rank: int = 0, world: int = 1
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


class _Numbers(Dataset[tuple[int, int]]):
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


class _Resumable(LightningDataModule):
    """Where the sampler starts: at the draw after the last step that the trainer remembers."""

    batch_size: int
    seed: int

    def _train_loader(self, data: Dataset[Any], count: int, collate: Callable[[list[Any]], Any]) -> DataLoader[Any]:
        steps = self.trainer.global_step * self.trainer.accumulate_grad_batches if self.trainer else 0
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = NumberedDraws(count, self.seed, steps * self.batch_size * world, rank=rank, world=world)
        if isinstance(data, _Numbers):
            data.draws = sampler.start + rank * _LONG
        return DataLoader(data, self.batch_size, sampler=sampler, collate_fn=collate)


class GroupsData(_Resumable):
    """Images with many prompts each, for systems that select masks.

    Args:
        train, val: where images and prompts come from.
        batch_size: images a step; each brings `prompts_per_image` prompts.
        max_candidates: candidates of a training image beyond this go, if they match nothing; None keeps all.
        cache_dir: where frozen features are kept; the first visit of an image computes them. None keeps nothing.
        best_iou, positive_iou: see `LabelRule`.
        stand_ins: in training, candidates made from the annotated masks in place of the proposer's; validation always
            has the proposer's.
        seed: order of images and prompts.
    """

    def __init__(
        self,
        train: GroupSource,
        val: GroupSource,
        batch_size: int = 8,
        prompts_per_image: int = 16,
        max_candidates: int | None = 24,
        cache_dir: Path | None = Path(".cache/features"),
        best_iou: float = 0.5,
        positive_iou: float = 0.7,
        stand_ins: StandIns | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.stand_ins = stand_ins
        self.train_source, self.val_source = train, val
        self.batch_size, self.prompts_per_image = batch_size, prompts_per_image
        self.max_candidates = max_candidates
        self.cache_dir, self.seed = cache_dir, seed
        self.rule = LabelRule(best_iou, positive_iou)

    def _store(self, stand_ins: StandIns | None = None) -> FeatureStore:
        """A feature store over the system that is being trained. Raises TypeError for a task without candidates."""
        system = self.trainer.lightning_module.task if self.trainer else None
        if not isinstance(system, CandidateSystem):
            raise TypeError(f"GroupsData trains systems that select candidates, not {type(system).__name__}")
        return FeatureStore(system, self.cache_dir, stand_ins)

    def _collate(
        self, store: FeatureStore, source: GroupSource, max_candidates: int | None = None
    ) -> Callable[[list[tuple[int, int]]], Batch]:
        with_captions = store.system.stage == 1

        def collate(items: list[tuple[int, int]]) -> Batch:
            return collect(store, source, items, self.prompts_per_image, self.rule, with_captions, max_candidates)

        return collate

    def train_dataloader(self) -> DataLoader[Any]:
        """Endless batches, from where the trainer stands."""
        data = _Numbers(len(self.train_source), self.seed, fresh=True)
        collate = self._collate(self._store(self.stand_ins), self.train_source, self.max_candidates)
        return self._train_loader(data, len(self.train_source), collate)

    def val_dataloader(self) -> DataLoader[Any]:
        """Every validation image once, with the same prompts every time."""
        data = _Numbers(len(self.val_source), self.seed + 1, fresh=False)
        return DataLoader(data, self.batch_size, collate_fn=self._collate(self._store(), self.val_source))


class ScenesData(_Resumable):
    """Drawn scenes, for training proposers and encoders; with texts, for the language model.

    Args:
        count, val_count: scenes.
        batch_size: scenes a step.
        texts: captions and dialogues come with each scene.
        augment: photometric changes in training.
        cache_dir: where drawn scenes are kept; None draws them at every visit.
        seed: of the scenes and of their order.
    """

    def __init__(
        self,
        count: int = 16_000,
        val_count: int = 128,
        batch_size: int = 16,
        texts: bool = False,
        augment: bool = True,
        cache_dir: Path | None = Path(".cache/scenes"),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.scenes = SceneDataset("train", seed, count, augment=augment, cache_dir=cache_dir)
        self.val_scenes = SceneDataset("val", seed, val_count, cache_dir=cache_dir)
        self.batch_size, self.texts, self.seed = batch_size, texts, seed

    def _data(self, scenes: SceneDataset) -> tuple[Dataset[Any], Any]:
        return (SceneTexts(scenes), collate_texts) if self.texts else (scenes, None)

    def train_dataloader(self) -> DataLoader[Any]:
        """Endless batches, from where the trainer stands."""
        data, collate = self._data(self.scenes)
        return self._train_loader(data, len(self.scenes), collate)

    def val_dataloader(self) -> DataLoader[Any]:
        """Every validation scene once."""
        data, collate = self._data(self.val_scenes)
        return DataLoader(data, self.batch_size, collate_fn=collate)
