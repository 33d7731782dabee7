"""One Lightning module for every `Learner`: optimiser, schedule, logging, independent of any system."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from maskselect.backends.precision import upcast
from maskselect.structures.protocols import Learner
from maskselect.training.muon import Muon, muon_groups
from maskselect.training.sharding import is_deepspeed, shard, zero_times

Schedule = Literal["cosine", "linear"]


def factor(step: int, total: int, warmup: int, schedule: Schedule) -> float:
    """Learning rate of a step, counted from 0, as a share of the peak in [0, 1]; 0 at the end. See `TrainingModule`."""
    if step < warmup:
        return (step + (schedule == "cosine")) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return 1 - progress if schedule == "linear" else float(0.5 * (1 + torch.cos(torch.pi * torch.tensor(progress))))


class TrainingModule(LightningModule):
    """Trains any `Learner`.

    Args:
        task: a system, or a proposer, encoder or language model with its objective.
        lr: peak learning rate.
        warmup_share: share of all steps in which the rate rises linearly.
        schedule: decay to zero after the warm-up: "cosine" (LLaVA's, warm-up 0.03), or "linear", whose warm-up begins
            at zero (LLM-Seg's, DeepSpeed's WarmupDecayLR).
        weight_decay: 0 in the papers, whose Adam is AdamW without decay.
        betas: of AdamW.
        optimizer: "adamw", or "muon", which trains compact models from scratch in fewer steps, see `training/muon.py`.
        adam_names: with "muon", parameters whose names contain one of these use AdamW: embeddings and output layers.
        seed: with the number of a batch and its process, it seeds every batch, so a resumed run draws the same as an
            uninterrupted one.

    Raises:
        ValueError: for a task that is no `Learner`.
    """

    def __init__(
        self,
        task: nn.Module,
        lr: float = 1e-3,
        warmup_share: float = 0.03,
        schedule: Schedule = "cosine",
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        optimizer: Literal["adamw", "muon"] = "adamw",
        adam_names: Sequence[str] = ("embed", "head", "position", "auxiliary"),
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(task, Learner):
            raise ValueError(
                f"{type(task).__name__} cannot be trained: it is no Learner, see maskselect.structures.protocols"
            )
        self.task = task
        self._always_in_loss: list[str] = []
        self.lr = lr
        self.warmup_share = warmup_share
        self.schedule: Schedule = schedule
        self.weight_decay = weight_decay
        self.betas = betas
        self.optimizer = optimizer
        self.adam_names = list(adam_names)
        self.seed = seed

    @property
    def learner(self) -> Learner:
        """The task, typed."""
        return cast(Learner, self.task)

    def configure_model(self) -> None:
        """Convert trainable parameters to float32, and shard the task if the strategy has a mesh of processes.

        Raises:
            ValueError: for a task that cannot be sharded, or a precision in which DeepSpeed would hold all weights.
        """
        _keep_differentiable(self.task)
        if self.device_mesh is None:
            upcast(self.task)
            self._prepare_for_deepspeed()
        else:
            half = torch.bfloat16 if self.trainer.precision == "bf16-mixed" else None
            self._always_in_loss = shard(self.task, self.device_mesh["data_parallel"], half)

    def _prepare_for_deepspeed(self) -> None:
        strategy: Any = self.trainer.strategy
        if not is_deepspeed(strategy):
            return
        if "16" in str(self.trainer.precision):
            raise ValueError(
                f"under DeepSpeed precision {self.trainer.precision} would hold all weights in half precision; "
                "expected 32-true, with DeepSpeed's own autocast as in configs/paper/overlays/zero2.yaml"
            )
        if (strategy.config or {}).get("zero_optimization", {}).get("stage", 0) < 3:
            self._always_in_loss = [name for name, p in self.task.named_parameters() if p.requires_grad]
        elif not self.learner.runs_every_part:
            raise ValueError(
                f"{type(self.task).__name__} as configured cannot be trained under ZeRO-3, for which every process has "
                "to run the same modules in every step (stage 2 of RAS, scorer parallel, with gradient_checkpointing); "
                "use ZeRO-2 or FSDP2"
            )

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of a step, for calls outside of steps: parts of a task can have different dtypes."""
        if "mixed" in str(self.trainer.precision):
            return self.trainer.precision_plugin.forward_context()
        settings = (getattr(self.trainer.strategy, "config", None) or {}).get("torch_autocast", {})  # DeepSpeed's
        if not settings.get("enabled"):
            return nullcontext()
        return torch.autocast(self.device.type, getattr(torch, settings["dtype"]))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed this batch of this process. A step can have several batches."""
        trainer = self.trainer
        per_step = trainer.accumulate_grad_batches
        batch_number = self.global_step * per_step + batch_idx % per_step
        torch.manual_seed(self.seed * 1_000_003 + batch_number * trainer.world_size + trainer.global_rank)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of a batch; every scalar of the task is logged."""
        scalars = self.learner.loss(batch)
        for name, value in scalars.items():
            self.log(f"train/{name}", value.detach(), prog_bar=name == "loss", batch_size=1)
        loss, names = scalars["loss"], self._always_in_loss
        return loss + zero_times(self.task, names) if names else loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the task's validation scalars, averaged over batches."""
        for name, value in self.learner.validate(batch).items():
            self.log(
                f"val/{name}", value, prog_bar=name in ("loss", "top_iou"), on_epoch=True, batch_size=1, sync_dist=True
            )

    def configure_optimizers(self) -> Any:
        """The optimiser of the trainable parameters, and its schedule.

        Raises:
            ValueError: for Muon with sharded parameters.
        """
        trainable = [p for p in self.parameters() if p.requires_grad]
        arguments: dict[str, Any] = {"lr": self.lr, "betas": self.betas, "weight_decay": self.weight_decay}
        optimizer: torch.optim.Optimizer
        if self.optimizer == "muon":
            if is_deepspeed(self.trainer.strategy) or any(isinstance(p, DTensor) for p in trainable):
                raise ValueError("muon needs whole matrices and cannot train what is sharded; use adamw")
            optimizer = Muon(muon_groups(self.task, self.adam_names), **arguments)
        else:
            optimizer = torch.optim.AdamW(trainable, **arguments)
        total = max(1, int(self.trainer.estimated_stepping_batches))
        warmup = max(1, round(self.warmup_share * total))
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: factor(step, total, warmup, self.schedule)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Drop frozen weights that have files of their own.

        Sharded checkpoints keep all weights, because loading them requires all.
        """
        if self.device_mesh is not None:
            return
        kept = {name for name, p in self.named_parameters() if p.requires_grad}
        kept |= {name for name, _ in self.named_buffers()} | {f"task.{name}" for name in self.learner.learned_state()}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in kept}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the frozen weights, so that loading can be strict."""
        if self.device_mesh is not None or "state_dict" not in checkpoint:  # DeepSpeed loads weights itself
            return
        trainable = {name for name, p in self.named_parameters() if p.requires_grad}
        frozen = {k: v for k, v in self.state_dict().items() if k not in trainable}
        checkpoint["state_dict"] = frozen | checkpoint["state_dict"]


def _keep_differentiable(task: nn.Module) -> None:
    """Prevent bitsandbytes from repacking 4-bit weights for evaluation, as it does on CPUs with AVX512-BF16.

    Repacked layers silently pass no gradient to the layers below them, so a validation would break training.
    """
    layer: Any
    for layer in task.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
