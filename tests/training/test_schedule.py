"""Learning rates over a run."""

import math

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from maskselect.training.module import Schedule, TrainingModule, factor


@pytest.mark.parametrize(("total", "warmup"), [(5000, 100), (10, 1), (1, 1), (7, 3)])
def test_linear_rises_from_zero_and_falls_to_zero(total: int, warmup: int) -> None:
    """DeepSpeed's WarmupDecayLR, as the released LLM-Seg configures it."""
    for step in range(total + 1):
        wanted = step / warmup if step < warmup else max(0.0, (total - step) / max(1.0, total - warmup))
        if total > warmup:
            assert factor(step, total, warmup, "linear") == pytest.approx(wanted)
    assert factor(0, total, warmup, "linear") == 0
    assert factor(warmup, max(total, warmup + 1), warmup, "linear") == 1
    assert factor(total + 5, total, warmup, "linear") in (0, 1 if total == warmup else 0)


def test_cosine_is_what_it_was() -> None:
    for step, wanted in ((0, 0.1), (9, 1.0), (10, 1.0), (55, 0.5), (100, 0.0), (120, 0.0)):
        assert factor(step, 100, 10, "cosine") == pytest.approx(wanted, abs=1e-6)
    assert factor(40, 100, 10, "cosine") == pytest.approx(0.5 * (1 + math.cos(math.pi / 3)))


class Line(nn.Module):
    """A `Learner` of one number."""

    name, runs_every_part = "line", True

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(()))

    def loss(self, batch: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.slope * batch).mean()}

    def validate(self, batch: Tensor) -> dict[str, Tensor]:
        return self.loss(batch)

    def blocks(self) -> list[nn.Module]:
        return []

    def learned_state(self) -> dict[str, Tensor]:
        return {"slope": self.slope}

    def load_learned(self, tensors: dict[str, Tensor], origin: object) -> None:
        self.load_state_dict(tensors)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_run_follows_its_schedule_by_optimiser_steps(schedule: Schedule) -> None:
    rates: list[float] = []

    class Noting(TrainingModule):
        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            rates.append(optimizer.param_groups[0]["lr"])

    module = Noting(Line(), lr=0.5, warmup_share=0.2, schedule=schedule)
    trainer = Trainer(
        max_steps=10,
        accumulate_grad_batches=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(torch.ones(100, 1), batch_size=1))
    assert rates == pytest.approx([0.5 * factor(step, 10, 2, schedule) for step in range(10)])
    assert max(rates) == 0.5


def test_every_batch_of_a_step_draws_for_itself_and_the_same_again() -> None:
    def draws(steps: int, accumulate: int) -> list[int]:
        found: list[int] = []

        class Drawing(Line):
            def loss(self, batch: Tensor) -> dict[str, Tensor]:
                found.append(int(torch.randint(2**31, ())))
                return super().loss(batch)

        trainer = Trainer(
            max_steps=steps,
            accumulate_grad_batches=accumulate,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(TrainingModule(Drawing()), DataLoader(torch.ones(100, 1), batch_size=1))
        return found

    alone, four = draws(8, 1), draws(2, 4)
    assert len(set(alone)) == 8
    assert alone == four == draws(2, 4)
