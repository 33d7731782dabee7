"""Two processes train a tiny system under FSDP2 on the CPU: `python -m tests.training.sharded_run OUTPUT WHAT`.

WHAT: "full", "lora" or "half", plain steps of a fixed batch; or a name of `VALIDATED`, a run with all that a real one
has.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.utils.data import DataLoader

from maskselect.lmm.llava import Llava
from maskselect.lmm.lora import LoraSettings
from maskselect.lmm.qwen_vl import QwenVl
from maskselect.scenes.groups import SceneGroups
from maskselect.systems.llmseg import LLMSeg
from maskselect.systems.ras import RAS
from maskselect.training.callbacks import SaveWeights, ValidationPictures
from maskselect.training.data import GroupsData
from maskselect.training.module import TrainingModule
from tests.systems.tiny import QWEN, SIZES, tiny_batch, tiny_llmseg, tiny_ras


class Halves(LightningDataModule):
    """Each process gets its half of one batch; a single one gets all of it."""

    def __init__(self, system: RAS) -> None:
        super().__init__()
        self.batch = tiny_batch(system, images=2, candidates=4)
        assert self.batch.labels is not None
        self.batch.labels.clamp_(min=0)  # as many labels in each half: then the mean of means is the mean
        self.batch.candidate_valid.fill_(True)

    def train_dataloader(self) -> DataLoader[Any]:
        """One step after another of the same batch."""
        own = self.batch if self.trainer.world_size == 1 else self.batch.row(self.trainer.global_rank)
        return DataLoader([own] * 4, batch_size=None)


class Descent(TrainingModule):
    """Plain gradient descent: AdamW's first step is the sign of the gradient, however close to zero that is.

    In evaluation mode, because training shuffles the candidates of an image, each image of a batch in its own way.
    """

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Nothing by chance."""
        self.task.eval()
        system = cast(RAS, self.task)
        system.reader.mask_tokenizer.fit_statistics(batch.candidate_features[batch.candidate_valid])

    def configure_optimizers(self) -> Any:
        """One step of the size of the gradient."""
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=1.0)


def system_of(lora: bool) -> RAS:
    """The tiny system, the same in every process."""
    torch.manual_seed(0)
    adapters = LoraSettings(r=2, alpha=4, dropout=0.0) if lora else None
    return tiny_ras(lmm=Llava(sizes=SIZES, lora=adapters, gradient_checkpointing=True))


class StopEarly(Callback):
    """Ends a run after a step, as a kill would: the schedule is still that of the whole run."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *rest: Any) -> None:
        """Stop at the step."""
        trainer.should_stop = trainer.should_stop or trainer.global_step >= self.step


def train(
    folder: Path,
    lora: bool,
    steps: int,
    processes: int,
    resume: Path | None = None,
    stop: int | None = None,
    half: bool = False,
    strategy: Any = None,
) -> None:
    """Train, and leave weights and a resumable checkpoint in a folder; a single step is plain descent."""
    system = system_of(lora)
    module = Descent(system) if steps == 1 else TrainingModule(system, lr=1e-2, warmup_share=0.0)
    if strategy is None:
        strategy = "auto" if processes == 1 else ModelParallelStrategy(processes, 1, process_group_backend="gloo")
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=strategy,
        precision="bf16-mixed" if half else "32-true",
        max_steps=steps,
        logger=False,
        callbacks=[SaveWeights(folder, 1000, {"config": {}}), *([] if stop is None else [StopEarly(stop)])],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        gradient_clip_val=1.0,
    )
    trainer.fit(module, Halves(system), ckpt_path=None if resume is None else str(resume))


VALIDATED: dict[str, Callable[[], RAS | LLMSeg]] = {
    "llmseg": lambda: tiny_llmseg(
        lmm=Llava(sizes=SIZES, lora=LoraSettings(r=2, alpha=4), gradient_checkpointing=True, dtype="bfloat16"),
        answering="teacher_forced",
    ),
    "parallel": lambda: tiny_ras(lmm=Llava(sizes=SIZES, gradient_checkpointing=True)),
    "decoder": lambda: tiny_ras(lmm=Llava(sizes=SIZES, gradient_checkpointing=True), scorer="decoder"),
    "qwen": lambda: tiny_ras(lmm=QwenVl(sizes=QWEN, gradient_checkpointing=True)),
}


def validate(folder: Path, what: str, strategy: Any = None, precision: Any = "bf16-mixed") -> None:
    """Scenes, frozen features, half precision, validation with its pictures in TensorBoard, weights at the end."""
    torch.manual_seed(0)
    sources = SceneGroups("train", 0, 4), SceneGroups("val", 0, 2)
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy or ModelParallelStrategy(2, 1, process_group_backend="gloo"),
        precision=precision,
        max_steps=4,
        val_check_interval=2,
        logger=TensorBoardLogger(folder, "tensorboard"),
        callbacks=[SaveWeights(folder, 1000, {"config": {}}), ValidationPictures()],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        gradient_clip_val=1.0,
    )
    data = GroupsData(*sources, batch_size=1, prompts_per_image=2, cache_dir=folder / "features")
    trainer.fit(TrainingModule(VALIDATED[what](), lr=1e-3), data)


if __name__ == "__main__":
    output, with_lora = Path(sys.argv[1]), sys.argv[2] == "lora"
    if sys.argv[2] in VALIDATED:
        validate(output, sys.argv[2])
        sys.exit()
    train(output / "one", with_lora, 1, 2, half=sys.argv[2] == "half")
    if sys.argv[2] == "full":
        train(output / "two", with_lora, 4, 2, stop=2)
        train(output / "four", with_lora, 4, 2)
        train(output / "resumed", with_lora, 4, 2, output / "two" / "last.ckpt")
