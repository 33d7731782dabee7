"""What several tests of training share."""

from pathlib import Path

import pytest
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser

from maskselect.training.module import TrainingModule


@pytest.fixture(scope="session")
def fit_parser() -> LightningArgumentParser:
    """Reads configs as `lightning fit` does."""
    parser = LightningArgumentParser()
    parser.add_argument("--output", type=Path)
    parser.add_argument("--every", type=int)
    parser.add_argument("--seed_everything", type=int)
    parser.add_lightning_class_args(TrainingModule, "model")
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    parser.add_lightning_class_args(Trainer, "trainer")
    return parser
