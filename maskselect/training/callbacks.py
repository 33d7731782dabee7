"""Callbacks: weights with a card, resumable checkpoints, pictures of validation predictions, and a rate in the bar."""

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
from maskselect.structures.protocols import Learner, System
from maskselect.training.data import GroupsData
from maskselect.training.module import TrainingModule
from maskselect.training.sharding import whole_tensors

PICTURES = 4


class RateBar(TQDMProgressBar):
    """Lightning's bar: rate, losses, and the best F1 of the last validation; no version number, which says nothing."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The bar's figures."""
        figures = super().get_metrics(trainer, pl_module)
        figures.pop("v_num", None)
        f1 = [float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/f1@")]
        if f1:
            figures["val/f1"] = max(f1)  # over the thresholds
        return figures


class SaveWeights(Checkpoint):
    """`last.ckpt` for resuming, and what was learned as safetensors with its card.

    Both are written every so many steps and at the end of the training; each replaces the one before.

    Args:
        folder: where to write. every: steps between checkpoints. card: what the card says besides the metrics.
    """

    def __init__(self, folder: Path, every: int, card: dict[str, Any]) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1 step, got {every}")
        self.folder, self.every, self.card = folder, every, card
        self.started, self.system, self.saved_step = time.time(), "", 0
        self.metrics: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint remembers of this callback: the card too, for `training/merging.py`."""
        return {"card": json.dumps(self.full_card)}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Goes on with what was measured before the interruption."""
        self.metrics = dict((self.card_in(checkpoint.get("callbacks", {})) or {}).get("metrics", {}))

    @property
    def full_card(self) -> dict[str, Any]:
        """The card with what the last validation before the last checkpoint gave."""
        return {"system": self.system, **self.card, **best_threshold(self.metrics), "metrics": self.metrics}

    @staticmethod
    def card_in(callbacks: dict[str, Any]) -> dict[str, Any] | None:
        """The card among the states of a checkpoint's callbacks, None where there is none."""
        held = next((state["card"] for state in callbacks.values() if "card" in state), None)
        return None if held is None else json.loads(held)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Learn what is trained."""
        self.system = learner_of(pl_module).name

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Write both where it is time to; a step that accumulates gradients over several batches is one."""
        step = trainer.global_step
        trial = trainer.fast_dev_run  # type: ignore[attr-defined]  # Lightning sets it from outside the class
        if step % self.every == 0 and step != self.saved_step and not trial:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write `last.ckpt`, the weights and their card; all processes must call this."""
        self.saved_step = trainer.global_step
        measured = {k: round(float(v), 5) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        self.metrics = measured or self.metrics
        trainer.save_checkpoint(self.folder / "last.ckpt")
        self.write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what was learned once more, at the very end."""
        self.save(trainer)

    def write(self, trainer: Trainer) -> None:
        """Write safetensors and card, on the first process only; shards are gathered by all.

        Under ZeRO-3 no process has whole weights, and nothing is written: see `training/merging.py`.
        """
        learner = learner_of(trainer.lightning_module)
        if in_zero3_shards(trainer.lightning_module):
            return
        tensors = whole_tensors(learner.learned_state(), keep=trainer.is_global_zero)
        if not trainer.is_global_zero:
            return
        minutes = round((time.time() - self.started) / 60, 1)
        card = self.full_card | {"steps": trainer.global_step, "minutes": minutes}
        write_checkpoint(self.folder / f"{learner.name}.safetensors", tensors, card)


def best_threshold(metrics: dict[str, float]) -> dict[str, float]:
    """{"threshold": t} for the highest "val/f1@t", or nothing where there is none. Of equals the one nearest to 0.5."""
    found = {float(k.removeprefix("val/f1@")): v for k, v in metrics.items() if k.startswith("val/f1@")}
    if not found:
        return {}
    return {"threshold": max(found, key=lambda t: (found[t], -abs(t - 0.5)))}


def without_starts(config: Any) -> Any:
    """A config tree without its `start` arguments: a trained model does not need what its training began from."""
    if isinstance(config, dict):
        return {k: without_starts(v) for k, v in config.items() if k != "start"}
    return [without_starts(v) for v in config] if isinstance(config, list) else config


class GatherLeftOut(Callback):
    """At the end every process knows the images that any of them left out."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After `fit`."""
        left_out = getattr(getattr(trainer, "datamodule", None), "left_out", None)
        if left_out is None or trainer.world_size == 1 or not torch.distributed.is_initialized():
            return
        found: list[dict[str, str]] = [{} for _ in range(trainer.world_size)]
        torch.distributed.all_gather_object(found, left_out.reasons)
        for reasons in found:
            left_out.reasons |= reasons

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After `validate`."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self.on_train_end(trainer, pl_module)


class ValidationPictures(Callback):
    """After each validation, overlays of a few validation prompts in TensorBoard."""

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw them, where the task selects masks and TensorBoard listens; not under ZeRO-3."""
        module = cast(TrainingModule, pl_module)
        task, data = module.task, getattr(trainer, "datamodule", None)
        board = next((one for one in trainer.loggers if isinstance(one, TensorBoardLogger)), None)
        if trainer.sanity_checking or board is None or not isinstance(task, System) or not task.answers_prompts:
            return
        if not isinstance(data, GroupsData) or in_zero3_shards(pl_module):
            return  # what ZeRO-3 shards runs within its own forward alone, which proposing and encoding are not
        model, source = Model(task), data.val_source
        for item in range(min(PICTURES, len(source))):
            try:
                annotated = source.load(item)
                query = source.queries(item, annotated.extra, 1, np.random.default_rng(item))[0]
            except (ValueError, OSError):
                continue  # validation left it out, too
            references = [annotated.masks[r] for r in query.references]
            with module.autocast():
                group = model.select(annotated.image, query.text, references)
            picture = np.asarray(group.overlay().convert("RGB"))
            board.experiment.add_image(f"validation/{item}", picture, trainer.global_step, dataformats="HWC")


def learner_of(module: LightningModule) -> Learner:
    """What a Lightning module of ours trains."""
    return cast(TrainingModule, module).learner
