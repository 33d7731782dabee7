"""Data modules. A training run is one long epoch of numbered draws, so that resuming is only a matter of counting."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from maskselect.backends.config_tree import Arguments
from maskselect.backends.training_data import training_data
from maskselect.structures.groups import GroupSource, PrepareSettings
from maskselect.structures.left_out import LeftOut
from maskselect.structures.protocols import GroupLearner, Preparer
from maskselect.structures.provenance import TrainingData
from maskselect.training.draws import LONG, NumberedDraws, PromptBatches, SeededItems
from maskselect.training.substitutes import made_or_substituted
from maskselect.training.synthetic_candidates import SyntheticCandidates


class CountedLoader(DataLoader[Any]):
    """Tells Lightning that it can be resumed: it begins where the trainer's number of steps says.

    So a checkpoint has nothing to keep of it.
    """

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to do."""


class GroupsData(LightningDataModule):
    """Images with many prompts each, for any `GroupLearner`.

    Images that cannot be used are left out; `left_out` names them, and another image comes in place of each.

    Args:
        train, val: where images and prompts come from.
        batch_size: images a step; each brings `prompts_per_image` prompts, or all that it has.
        batch_prompts: prompts a step; as many images as bring about that many, at most `batch_size`. None always takes
            `batch_size`, whose steps hold fewer prompts where images have few.
        max_candidates: candidates of a training image beyond this go, if they match nothing; None keeps all.
        cache_dir: where frozen features are kept; the first visit of an image computes them. None keeps nothing.
        proposals: folder of stored candidates, see `proposers.store`; what is absent is proposed and added.
        best_iou, positive_iou: see `LabelRule` of `systems/preparing.py`.
        synthetic_candidates: in training, candidates made from the annotated masks in place of the proposer's;
            validation always has the proposer's.
        seed: order of images and prompts.

    Raises ValueError for `batch_prompts` below 1.
    """

    def __init__(
        self,
        train: GroupSource,
        val: GroupSource,
        batch_size: int = 8,
        prompts_per_image: int = 16,
        batch_prompts: int | None = None,
        max_candidates: int | None = 24,
        cache_dir: Path | None = Path(".cache/features"),
        best_iou: float = 0.5,
        positive_iou: float = 0.7,
        synthetic_candidates: SyntheticCandidates | None = None,
        seed: int = 0,
        proposals: Path | None = None,
    ) -> None:
        super().__init__()
        if batch_prompts is not None and batch_prompts < 1:
            raise ValueError(f"batch_prompts must be at least 1, got {batch_prompts}")
        self.batch_prompts = batch_prompts
        self.train_source, self.val_source = train, val
        self.batch_size, self.prompts_per_image = batch_size, prompts_per_image
        self.seed = seed
        folder = None if cache_dir is None else Path(cache_dir)
        self.settings = PrepareSettings(folder, best_iou, positive_iou, max_candidates, synthetic_candidates, proposals)
        self.left_out = LeftOut()
        self._preparers: tuple[Preparer, Preparer]

    @classmethod
    def training_data(cls, arguments: Arguments) -> list[TrainingData]:
        """What its training source draws from."""
        return training_data(arguments["train"])

    def preparers(self, learner: GroupLearner) -> tuple[Preparer, Preparer]:
        """What makes the batches of training and of validation."""
        return learner.preparer(self.settings, True), learner.preparer(self.settings, False)

    def setup(self, stage: str) -> None:
        """Make the preparers while weights are whole: features are kept under a digest of them, and ZeRO-3 shards them.

        Raises:
            TypeError: for a task that does not learn from pictures with prompts.
        """
        learner = self.trainer.lightning_module.task if self.trainer else None
        if not isinstance(learner, GroupLearner):
            raise TypeError(f"GroupsData feeds learners of pictures with prompts, not {type(learner).__name__}")
        self._preparers = self.preparers(learner)

    def _collate(self, preparer: Preparer, source: GroupSource) -> Callable[[list[tuple[int, int]]], Any]:
        """(image number, seed) pairs to a batch."""

        def collate(draws: list[tuple[int, int]]) -> Any:
            items = []
            for number, seed in draws:

                def make(chosen: int, seed: int = seed) -> Any:
                    return preparer.prepare(source, chosen, np.random.default_rng(seed), self.prompts_per_image)

                items.append(made_or_substituted(make, source, number, seed, self.left_out))
            return preparer.collate(items)

        return collate

    def train_dataloader(self) -> DataLoader[Any]:
        """Endless batches, from the draw after the last step that the trainer remembers."""
        data = SeededItems(len(self.train_source), self.seed, fresh=True)
        collate = self._collate(self._preparers[0], self.train_source)
        steps, rank, world = self._stand()
        if self.batch_prompts is None:
            start = steps * self.batch_size * world
            draws = NumberedDraws(len(self.train_source), self.seed, start, rank=rank, world=world)
            data.draws = start + rank * LONG
            return CountedLoader(data, self.batch_size, sampler=draws, collate_fn=collate)
        draws = NumberedDraws(len(self.train_source), self.seed)
        wanted, most = self.batch_prompts, self.batch_size
        batches = PromptBatches(draws, self._prompts_of, wanted, most, steps * world, rank, world)
        data.draws = batches.taken() + rank * LONG
        return CountedLoader(data, batch_sampler=batches, collate_fn=collate)

    def _stand(self) -> tuple[int, int, int]:
        """Batches of this process that were already taken, its rank, and how many processes there are."""
        if self.trainer is None:
            return 0, 0, 1
        steps = self.trainer.global_step * self.trainer.accumulate_grad_batches
        return steps, self.trainer.global_rank, self.trainer.world_size

    def _prompts_of(self, item: int) -> int:
        return min(self.train_source.prompts_of(item), self.prompts_per_image)

    def val_dataloader(self) -> DataLoader[Any]:
        """Every validation image once, with the same prompts every time."""
        data = SeededItems(len(self.val_source), self.seed + 1, fresh=False)
        return DataLoader(data, self.batch_size, collate_fn=self._collate(self._preparers[1], self.val_source))
