"""`lightning fit|validate|test|predict -c CONFIG`: LightningCLI over our one module and any of our data modules."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from maskselect.training.callbacks import RateBar, SaveWeights, ValidationPictures, without_starts
from maskselect.training.module import TrainingModule


class TrainingCLI(LightningCLI):
    """Adds what every run wants: loggers, resumable checkpoints, weights with a card, pictures, a rate in the bar."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The folder that everything is written to, and the weights' name."""
        parser.add_argument(
            "--output", type=Path, default=Path("runs/run"), help="folder of logs, checkpoints, weights"
        )
        parser.add_argument("--every", type=int, default=500, help="steps between resumable checkpoints")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer with our callbacks and loggers, unless the config brings its own."""
        config = self.config[self.subcommand]
        folder, every = Path(config.output), int(config.every)
        trainer_config = {**config.trainer, **kwargs}
        if trainer_config.get("logger") is None:
            trainer_config["logger"] = [TensorBoardLogger(folder, "tensorboard"), CSVLogger(folder, "csv")]
        card = {
            "config": without_starts(_plain(config.model.task)),
            "data": _plain(config.data),
            "data_seed": _seed(config.data),
        }
        bar = [] if trainer_config.get("enable_progress_bar") is False else [RateBar()]
        own = [*bar, SaveWeights(folder, every, card), ValidationPictures()]
        init = self._get(self.config_init, "trainer") or {}
        trainer_config["callbacks"] = [*own, *(init.get("callbacks") or [])]
        trainer_config.setdefault("default_root_dir", str(folder))
        return self.trainer_class(**trainer_config)


def run(arguments: Sequence[str]) -> None:
    """Run a Lightning verb. arguments: as on the command line, the verb first.

    Raises ValueError or FileNotFoundError from the parts, before any training.
    """
    TrainingCLI(
        TrainingModule,
        LightningDataModule,
        subclass_mode_data=True,
        save_config_callback=None,
        args=list(arguments),
        parser_kwargs={"default_env": False},
    )


def _plain(config: Any) -> Any:
    """A jsonargparse namespace as plain dicts, without defaults of None."""
    if hasattr(config, "as_dict"):
        config = config.as_dict()
    if isinstance(config, dict):
        return {k: _plain(v) for k, v in config.items() if v is not None}
    if isinstance(config, list | tuple):
        return [_plain(v) for v in config]
    return str(config) if isinstance(config, Path) else config


def _seed(data: Any) -> int:
    plain = _plain(data)
    own = plain.get("init_args", {})
    return int(own.get("train", {}).get("init_args", {}).get("seed", own.get("seed", 0)))
