"""One Lightning module for every `Learner`: optimiser, schedule, logging, and nothing that knows a system."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from maskselect.backends.precision import upcast
from maskselect.structures.protocols import Learner
from maskselect.training.muon import Muon, muon_groups
from maskselect.training.sharding import is_deepspeed, not_sharded, reached, shard

Schedule = Literal["cosine", "linear"]


def factor(step: int, total: int, warmup: int, schedule: Schedule) -> float:
    """What the peak rate is multiplied with at a step from 0: in [0, 1], and 0 at the end; see `TrainingModule`."""
    if step < warmup:
        return (step + (schedule == "cosine")) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return 1 - progress if schedule == "linear" else float(0.5 * (1 + torch.cos(torch.pi * torch.tensor(progress))))


class TrainingModule(LightningModule):
    """Trains any `Learner`.

    Args:
        task: a system, or a proposer or encoder with its objective.
        lr: peak learning rate.
        warmup_share: share of all steps with a linearly rising rate.
        schedule: what follows: "cosine" to zero (LLaVA's, warm-up 0.03), or "linear" to zero, before which the warm-up
            begins at zero (LLM-Seg's, DeepSpeed's WarmupDecayLR).
        weight_decay: 0 in the papers; "Adam" is AdamW without decay.
        betas: of AdamW.
        optimizer: "adamw", or "muon", which learns compact models from nothing in fewer steps (see `training/muon.py`).
        adam_names: with "muon", parts of the names of parameters that AdamW keeps: embeddings and output layers.
        seed: every batch is seeded from this, its number and its process, so a resumed run draws what an uninterrupted
            one would.
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
        self._reached: list[str] = []
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
        """Hold what trains in float32, and shard the task where the strategy has a mesh of processes for it.

        Raises ValueError for a task that cannot be sharded so, or a precision in which DeepSpeed would hold all of it.
        """
        _keep_differentiable(self.task)
        if self.device_mesh is None:
            upcast(self.task)
            self._prepare_for_deepspeed()
        else:
            half = torch.bfloat16 if self.trainer.precision == "bf16-mixed" else None
            self._reached = shard(self.task, self.device_mesh["data_parallel"], half)

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
            self._reached = [name for name, p in self.task.named_parameters() if p.requires_grad]
        elif not self.learner.runs_every_part:
            raise ValueError(
                f"{type(self.task).__name__} as configured cannot be trained under ZeRO-3, for which every process has "
                "to run the same modules in every step (stage 2 of RAS, scorer parallel, with gradient_checkpointing); "
                "use ZeRO-2 or FSDP2"
            )

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of a step, for what runs outside of one: parts of a task may be held in different dtypes."""
        if "mixed" in str(self.trainer.precision):
            return self.trainer.precision_plugin.forward_context()
        told = (getattr(self.trainer.strategy, "config", None) or {}).get("torch_autocast", {})  # DeepSpeed's own
        return torch.autocast(self.device.type, getattr(torch, told["dtype"])) if told.get("enabled") else nullcontext()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed what this process draws for this batch, which may be one of several of a step."""
        trainer = self.trainer
        each = trainer.accumulate_grad_batches
        batch_number = self.global_step * each + batch_idx % each
        torch.manual_seed(self.seed * 1_000_003 + batch_number * trainer.world_size + trainer.global_rank)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One step; every scalar of the task is logged."""
        scalars = self.learner.loss(batch)
        for name, value in scalars.items():
            self.log(f"train/{name}", value.detach(), prog_bar=name == "loss", batch_size=1)
        return scalars["loss"] + reached(self.task, self._reached) if self._reached else scalars["loss"]

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the task's validation scalars, averaged over batches."""
        for name, value in self.learner.validate(batch).items():
            self.log(
                f"val/{name}", value, prog_bar=name in ("loss", "top_iou"), on_epoch=True, batch_size=1, sync_dist=True
            )

    def configure_optimizers(self) -> Any:
        """The optimiser over what is trainable, and its schedule."""
        arguments: dict[str, Any] = {"lr": self.lr, "betas": self.betas, "weight_decay": self.weight_decay}
        optimizer: torch.optim.Optimizer
        if self.optimizer == "muon":
            not_sharded([p for p in self.parameters() if p.requires_grad], "muon", self.trainer.strategy)
            optimizer = Muon(muon_groups(self.task, self.adam_names), **arguments)
        else:
            optimizer = torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], **arguments)
        total = max(1, int(self.trainer.estimated_stepping_batches))
        warmup = max(1, round(self.warmup_share * total))
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: factor(step, total, warmup, self.schedule)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what comes from files of its own out of Lightning's checkpoints.

        Sharded checkpoints keep all, because what reads them asks for all.
        """
        if self.device_mesh is not None:
            return
        kept = {name for name, p in self.named_parameters() if p.requires_grad}
        kept |= {name for name, _ in self.named_buffers()} | {f"task.{name}" for name in self.learner.learned_state()}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in kept}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the frozen weights back, so that loading stays strict."""
        if self.device_mesh is not None or "state_dict" not in checkpoint:  # DeepSpeed loads weights by itself
            return
        trains = {name for name, p in self.named_parameters() if p.requires_grad}
        frozen = {k: v for k, v in self.state_dict().items() if k not in trains}
        checkpoint["state_dict"] = frozen | checkpoint["state_dict"]


def _keep_differentiable(task: nn.Module) -> None:
    """Have 4-bit weights stay as they are packed, whatever mode their layers are in.

    On processors with AVX512-BF16 bitsandbytes packs them anew for evaluation, and what is packed so passes no gradient
    on, silently: a validation, or the one before the first step, would cut the layers off from all that is below them.
    """
    layer: Any
    for layer in task.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
