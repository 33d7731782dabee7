"""`lightning fit|validate -c CONFIG`: LightningCLI with `TrainingModule` and any data module."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from maskselect.backends.config_tree import arguments_of
from maskselect.backends.configs import BASE, with_bases
from maskselect.backends.training_data import training_data
from maskselect.doctor.check import refuse_missing, refuse_unweighted
from maskselect.structures.left_out import LeftOut
from maskselect.training.callbacks import GatherLeftOut, RateBar, SaveWeights, ValidationPictures, without_starts
from maskselect.training.data import GroupsData
from maskselect.training.module import TrainingModule
from maskselect.training.quiet import quiet


class TrainingCLI(LightningCLI):
    """Adds loggers, resumable checkpoints, weights with a card, validation pictures, and a rate in the progress bar."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """`fit` and `validate`; `maskselect` has other commands for testing and prediction."""
        return {name: skipped for name, skipped in LightningCLI.subcommands().items() if name in ("fit", "validate")}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the output folder, the steps between checkpoints, and the base of an overlay."""
        parser.add_argument(
            "--output", type=Path, default=Path("runs/run"), help="folder of logs, checkpoints, weights"
        )
        parser.add_argument("--every", type=int, default=500, help="steps between resumable checkpoints")
        parser.add_argument(f"--{BASE}", type=str | None, default=None, help="in a config: the base of this overlay")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse without Lightning's warning that `args` differ from the command line: they also contain the bases."""
        self.config = parser.parse_args(args)

    def before_instantiate_classes(self) -> None:
        """Check that everything a run needs is available: weights, data, packages and the device.

        Raises:
            MissingError: lists everything that is missing.
        """
        config = without_none(_plain(self.config[self.subcommand]))
        if config.get("ckpt_path") == "last":
            last = Path(config["output"]) / "last.ckpt"
            config["ckpt_path"] = self.config[self.subcommand]["ckpt_path"] = str(last) if last.exists() else None
        refuse_missing(config)
        if self.subcommand == "validate":
            refuse_unweighted(config, f"lightning {self.subcommand}")
        _select_local_gpu(config.get("trainer", {}))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer with our callbacks, and with our loggers unless the config has its own."""
        config = self.config[self.subcommand]
        folder, every = Path(config.output), int(config.every)
        trainer_config = {**config.trainer, **kwargs}
        if trainer_config.get("logger") is None:
            trainer_config["logger"] = [TensorBoardLogger(folder, "tensorboard"), CSVLogger(folder, "csv")]
        card = {
            "config": without_starts(_plain(config.model.task)),
            "data": _plain(config.data),
            "data_seed": _seed(config.data),
            "trained_on": [asdict(one) for one in training_data(_plain(config.data))],
        }
        bar = [] if trainer_config.get("enable_progress_bar") is False else [RateBar()]
        callbacks = [*bar, SaveWeights(folder, every, card), ValidationPictures(), GatherLeftOut()]
        configured = self.config_init[self.subcommand].trainer.get("callbacks")
        trainer_config["callbacks"] = [*callbacks, *(configured or [])]
        trainer_config.setdefault("default_root_dir", str(folder))
        if trainer_config.get("enable_model_summary") is None:
            trainer_config["enable_model_summary"] = False  # `before_fit` prints a summary
        return self.trainer_class(**trainer_config)

    def before_fit(self) -> None:
        """Print what trains, where, and in which precision."""
        count = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        device, precision = self.trainer.strategy.root_device, self.trainer.precision
        self._print(f"{type(self.model.task).__name__}: {count:,} parameters train on {device}, precision {precision}")

    def after_fit(self) -> None:
        """Print the number of steps and the output folder."""
        self._print(f"{self.trainer.global_step} steps done -> {self.config[self.subcommand].output}")

    def _print(self, message: str) -> None:
        if self.trainer.is_global_zero:
            print(message, flush=True)


class _ParsedCLI(TrainingCLI):
    """Parses a config into `parsed`, without setting a seed or building anything."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the option that `fit` has besides the config."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--ckpt_path", type=str | None, default=None)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Keep the plain config, and let Lightning set no seed."""
        super().parse_arguments(parser, args)
        self.parsed = _plain(self.config)
        self.config["seed_everything"] = False

    def before_instantiate_classes(self) -> None:
        """Checks nothing."""

    def instantiate_classes(self) -> None:
        """Builds nothing."""


def parse(arguments: Sequence[str], with_none: bool = False) -> dict[str, Any]:
    """The config of a `fit` run as plain dicts with all defaults; builds nothing.

    Args:
        arguments: those after `fit`, for example ["-c", "configs/ras.yaml"].
        with_none: keep values that are None, which building needs; the doctor's functions take a config without them.

    Raises:
        SystemExit: with status 2 and a message, for a config that `fit` does not accept.
    """
    cli = _ParsedCLI(
        TrainingModule,
        LightningDataModule,
        subclass_mode_data=True,
        save_config_callback=None,
        load_from_checkpoint_support=False,
        run=False,
        args=_with_bases(arguments),
        parser_kwargs={"default_env": False},
    )
    plain: dict[str, Any] = cli.parsed
    return plain if with_none else without_none(plain)


def run(arguments: Sequence[str]) -> LeftOut:
    """Run `fit` or `validate`.

    Args:
        arguments: as on the command line, the subcommand first.

    Returns:
        The images that were left out; empty in all processes but the first.

    Raises:
        ValueError, FileNotFoundError: from constructing the parts, before training.
    """
    with quiet():
        cli = TrainingCLI(
            TrainingModule,
            LightningDataModule,
            subclass_mode_data=True,
            save_config_callback=None,
            load_from_checkpoint_support=False,
            args=_with_bases(arguments),
            parser_kwargs={"default_env": False},
        )
    # The other processes exit with status 0, because Lightning takes any other status for a crash.
    first = cli.trainer.is_global_zero and isinstance(cli.datamodule, GroupsData)
    return cli.datamodule.left_out if first else LeftOut()


def _select_local_gpu(trainer: dict[str, Any]) -> None:
    """Make the process's own GPU the current one, so that parts built for "cuda", such as proposers, are on it.

    Lightning does so only when training begins. Parts built before would be on the first GPU, their inputs on another.
    """
    local = int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0)
    devices = trainer.get("devices")
    number = int(devices[local]) if isinstance(devices, list) and local < len(devices) else local
    if trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda") and number < torch.cuda.device_count():
        torch.cuda.set_device(number)


def _with_bases(arguments: Sequence[str]) -> list[str]:
    """The arguments with the base of every overlay inserted before it."""
    result: list[str] = []
    inserted: set[Path] = set()
    words = iter(arguments)
    for word in words:
        flag, _, value = word.partition("=")
        if flag not in ("-c", "--config"):
            result.append(word)
            continue
        *bases, last = with_bases([value or next(words, "")])
        bases = [file for file in bases if file.resolve() not in inserted]
        inserted |= {file.resolve() for file in (*bases, last)}
        result += [part for file in (*bases, last) for part in ("--config", str(file))]
    return result


def _plain(config: Any) -> Any:
    """A jsonargparse namespace as plain dicts; keeps None, because a default can differ from an explicit None."""
    if hasattr(config, "as_dict"):
        config = config.as_dict()
    if isinstance(config, dict):
        return {k: _plain(v) for k, v in config.items()}
    if isinstance(config, list | tuple):
        return [_plain(v) for v in config]
    return str(config) if isinstance(config, Path) else config


def without_none(config: Any) -> Any:
    """A tree of plain dicts without values that are None, as the doctor's functions take it."""
    if isinstance(config, dict):
        return {k: without_none(v) for k, v in config.items() if v is not None}
    return [without_none(v) for v in config] if isinstance(config, list) else config


def _seed(data: Any) -> int:
    arguments = arguments_of(_plain(data))
    return int(arguments_of(arguments.get("train")).get("seed", arguments.get("seed", 0)))
