"""The data module. A training run is one long epoch of numbered draws, so that resuming only has to count steps."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from maskselect.backends.config_tree import Arguments
from maskselect.backends.training_data import training_data
from maskselect.structures.clip_groups import ClipGroupSource
from maskselect.structures.groups import GroupSource, PrepareSettings, UnusableImageError
from maskselect.structures.left_out import LeftOut
from maskselect.structures.protocols import ClipPreparer, GroupLearner, Preparer
from maskselect.structures.provenance import TrainingData
from maskselect.training.draws import MANY, NumberedDraws, PromptBatches, SeededItems
from maskselect.training.synthetic_candidates import SyntheticCandidates

SUBSTITUTES = 64
"""Images that are tried in place of one that cannot be used."""


class ResumableLoader(DataLoader[Any]):
    """A loader that Lightning accepts as resumable. It has no state: the trainer's step count sets where it begins."""

    def state_dict(self) -> dict[str, Any]:
        """An empty state."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Does nothing."""


class GroupsData(LightningDataModule):
    """Images with many prompts each, for any `GroupLearner`.

    An image that cannot be used is left out and replaced by another one. `left_out` names the images.

    Args:
        train, val: sources of images and prompts; for InstructSeg also of clips.
        batch_size: images of a step; each has `prompts_per_image` prompts, or all that it has.
        batch_prompts: prompts of a step, about; a step then has at most `batch_size` images. With None a step always
            has `batch_size` images, and fewer prompts if its images have few.
        max_candidates: above this number, candidates of a training image that match nothing are dropped; None keeps
            all.
        cache_dir: folder of cached frozen features, which are computed when an image is first used. None caches
            nothing.
        proposals: folder of stored candidates, see `proposers.store`; missing ones are proposed and added.
        best_iou, positive_iou: see `systems.preparing.LabelRule`.
        synthetic_candidates: in training, makes candidates from the annotated masks instead of the proposer;
            validation always runs the proposer.
        seed: determines the order of images and prompts.

    Raises:
        ValueError: if `batch_prompts` is below 1.
    """

    def __init__(
        self,
        train: GroupSource | ClipGroupSource,
        val: GroupSource | ClipGroupSource,
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
        """Training data of the training source."""
        return training_data(arguments["train"])

    def preparers(self, learner: GroupLearner) -> tuple[Preparer, Preparer]:
        """The preparers of training and of validation."""
        return learner.preparer(self.settings, True), learner.preparer(self.settings, False)

    def setup(self, stage: str) -> None:
        """Make the preparers before ZeRO-3 shards the weights, because features are cached under their digest.

        Raises:
            TypeError: for a task that is not a `GroupLearner`, or that trains on pictures and gets clips.
        """
        learner = self.trainer.lightning_module.task if self.trainer else None
        if not isinstance(learner, GroupLearner):
            raise TypeError(f"GroupsData feeds learners of pictures with prompts, not {type(learner).__name__}")
        self._preparers = self.preparers(learner)
        for source, preparer in zip((self.train_source, self.val_source), self._preparers, strict=True):
            if isinstance(source, ClipGroupSource) and not isinstance(preparer, ClipPreparer):
                raise TypeError(f"{type(learner).__name__} trains on pictures; {type(source).__name__} has clips")

    def collate(self, preparer: Preparer, source: Any, draws: list[tuple[int, int]]) -> Any:
        """The batch of (image number, seed) pairs.

        Another image replaces one that cannot be used. It depends on the seed alone, so that a resumed run takes the
        same one, and the batches of all processes have the same size.

        Raises:
            UnusableImageError: about the first image, if none of its substitutes can be used either.
        """
        return preparer.collate([self._prepare(preparer, source, number, seed) for number, seed in draws])

    def _prepare(self, preparer: Preparer, source: Any, number: int, seed: int) -> Any:
        substitutes = np.random.default_rng((seed, 1)).integers(len(source), size=SUBSTITUTES).tolist()
        errors = []
        for item in (number, *substitutes):
            try:
                return preparer.prepare(source, item, np.random.default_rng(seed), self.prompts_per_image)
            except UnusableImageError as error:
                errors.append(error)
                self.left_out.add(error.image, error)
        raise errors[0]

    def train_dataloader(self) -> DataLoader[Any]:
        """Endless batches, which begin after the trainer's last step."""
        source, preparer = self.train_source, self._preparers[0]
        items = SeededItems(len(source), self.seed, fresh=True)
        steps, rank, world = 0, 0, 1
        if self.trainer is not None:
            steps = self.trainer.global_step * self.trainer.accumulate_grad_batches
            rank, world = self.trainer.global_rank, self.trainer.world_size
        arguments: dict[str, Any]
        if self.batch_prompts is None:
            taken = steps * self.batch_size * world
            draws = NumberedDraws(len(source), self.seed, taken, rank, world)
            arguments = {"batch_size": self.batch_size, "sampler": draws}
        else:
            draws = NumberedDraws(len(source), self.seed)
            limits = self.batch_prompts, self.batch_size
            batches = PromptBatches(draws, self._prompts_of, *limits, steps * world, rank, world)
            taken = batches.taken()
            arguments = {"batch_sampler": batches}
        items.draws = taken + rank * MANY
        return ResumableLoader(items, collate_fn=partial(self.collate, preparer, source), **arguments)

    def _prompts_of(self, item: int) -> int:
        return min(self.train_source.prompts_of(item), self.prompts_per_image)

    def val_dataloader(self) -> DataLoader[Any]:
        """Every validation image once, always with the same prompts."""
        source, preparer = self.val_source, self._preparers[1]
        items = SeededItems(len(source), self.seed + 1, fresh=False)
        return DataLoader(items, self.batch_size, collate_fn=partial(self.collate, preparer, source))
