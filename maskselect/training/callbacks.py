"""Callbacks: weights with a card, resumable checkpoints, pictures of validation predictions, and the progress bar."""

import json
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn

from maskselect.backends.checkpoints import write_checkpoint
from maskselect.backends.sharded import in_zero3_shards
from maskselect.predictor import Model
from maskselect.structures.clip_groups import ClipGroupSource
from maskselect.structures.protocols import System
from maskselect.training.data import GroupsData
from maskselect.training.module import TrainingModule
from maskselect.training.sharding import whole_tensors

PICTURES = 4


class RateBar(TQDMProgressBar):
    """Lightning's bar with rate, losses and the best F1 of the last validation, without the version number."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The numbers in the bar."""
        numbers = super().get_metrics(trainer, pl_module)
        numbers.pop("v_num", None)
        f1 = [float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/f1@")]
        if f1:
            numbers["val/f1"] = max(f1)  # over the thresholds
        return numbers


class SaveWeights(Checkpoint):
    """Writes `last.ckpt` for resuming, and the learned weights as safetensors with a card.

    Both are written every `every` steps and at the end of training. Each replaces the previous one.

    Args:
        folder: output folder.
        every: steps between checkpoints.
        card: content of the card besides the metrics.

    Raises:
        ValueError: if `every` is below 1.
    """

    def __init__(self, folder: Path, every: int, card: dict[str, Any]) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1 step, got {every}")
        self.folder, self.every, self.card = folder, every, card
        self.started, self.system, self.saved_step = time.time(), "", 0
        self.metrics: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """State of this callback in a checkpoint: the card, which `training/merging.py` reads."""
        return {"card": json.dumps(self.full_card)}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the metrics."""
        self.metrics = dict((self.card_in(checkpoint.get("callbacks", {})) or {}).get("metrics", {}))

    @property
    def full_card(self) -> dict[str, Any]:
        """The card with the metrics of the last validation before the last checkpoint."""
        return {"system": self.system, **self.card, **best_threshold(self.metrics), "metrics": self.metrics}

    @staticmethod
    def card_in(callbacks: dict[str, Any]) -> dict[str, Any] | None:
        """The card among the callback states of a checkpoint, None if there is none."""
        card = next((state["card"] for state in callbacks.values() if "card" in state), None)
        return None if card is None else json.loads(card)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Store the learner's name."""
        self.system = cast(TrainingModule, pl_module).learner.name

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Save every `every` optimiser steps; several accumulated batches are one step."""
        step = trainer.global_step
        trial = trainer.fast_dev_run  # type: ignore[attr-defined]  # Lightning sets it from outside the class
        if step % self.every == 0 and step != self.saved_step and not trial:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write `last.ckpt`, the weights and their card. All processes must call this."""
        self.saved_step = trainer.global_step
        metrics = {k: round(float(v), 5) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        self.metrics = metrics or self.metrics
        trainer.save_checkpoint(self.folder / "last.ckpt")
        self.write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save at the end of training."""
        self.save(trainer)

    def write(self, trainer: Trainer) -> None:
        """Write safetensors and card from the first process; all processes take part in gathering shards.

        Under ZeRO-3 no process has whole weights, and nothing is written: see `training/merging.py`.
        """
        learner = cast(TrainingModule, trainer.lightning_module).learner
        if in_zero3_shards(trainer.lightning_module):
            return
        tensors = whole_tensors(learner.learned_state(), keep=trainer.is_global_zero)
        if not trainer.is_global_zero:
            return
        minutes = round((time.time() - self.started) / 60, 1)
        card = self.full_card | {"steps": trainer.global_step, "minutes": minutes}
        write_checkpoint(self.folder / f"{learner.name}.safetensors", tensors, card)


def best_threshold(metrics: dict[str, float]) -> dict[str, float]:
    """{"threshold": t} with the highest "val/f1@t", {} if there is none. Ties go to the threshold nearest to 0.5."""
    f1 = {float(k.removeprefix("val/f1@")): v for k, v in metrics.items() if k.startswith("val/f1@")}
    return {"threshold": max(f1, key=lambda t: (f1[t], -abs(t - 0.5)))} if f1 else {}


def without_starts(config: Any) -> Any:
    """A config tree without its arguments `start` and `…_start`: a trained model does not need its initial weights."""
    if isinstance(config, dict):
        return {k: without_starts(v) for k, v in config.items() if k != "start" and not k.endswith("_start")}
    return [without_starts(v) for v in config] if isinstance(config, list) else config


def groups_data(trainer: Trainer) -> GroupsData | None:
    """The data module of a trainer if it is a `GroupsData`."""
    data = getattr(trainer, "datamodule", None)  # which Lightning sets when a run begins
    return data if isinstance(data, GroupsData) else None


class GatherLeftOut(Callback):
    """Gathers the left-out images of all processes in every process, at the end of `fit` or `validate`."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather after `fit`."""
        data = groups_data(trainer)
        if data is None or trainer.world_size == 1 or not torch.distributed.is_initialized():
            return
        gathered: list[dict[str, str]] = [{} for _ in range(trainer.world_size)]
        torch.distributed.all_gather_object(gathered, data.left_out.reasons)
        for reasons in gathered:
            data.left_out.reasons |= reasons

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather after `validate`."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self.on_train_end(trainer, pl_module)


class ValidationPictures(Callback):
    """Logs overlays of a few validation prompts to TensorBoard after each validation."""

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the overlays if the task answers prompts and TensorBoard is a logger; not under ZeRO-3."""
        module = cast(TrainingModule, pl_module)
        task, data = module.task, groups_data(trainer)
        board = next((logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)), None)
        if trainer.sanity_checking or board is None or not isinstance(task, System) or not task.answers_prompts:
            return
        if data is None or in_zero3_shards(pl_module):
            return  # ZeRO-3 gathers parameters in the module's forward only, but proposing and encoding run outside it
        model, source = Model(task), data.val_source
        if isinstance(source, ClipGroupSource):
            return
        for item in range(min(PICTURES, len(source))):
            try:
                annotated = source.load(item)
                query = source.queries(item, annotated.extra, 1, np.random.default_rng(item))[0]
            except (ValueError, OSError, TypeError):
                continue  # validation leaves it out, too; or it is a clip in a mixture
            references = [annotated.masks[r] for r in query.references]
            with module.autocast():
                group = model.select(annotated.image, query.text, references)
            picture = np.asarray(group.overlay().convert("RGB"))
            board.experiment.add_image(f"validation/{item}", picture, trainer.global_step, dataformats="HWC")
