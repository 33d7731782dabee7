"""`lightning fit|validate -c CONFIG`: LightningCLI over our one module and any of our data modules."""

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
from maskselect.training.module import TrainingModule
from maskselect.training.quiet import quiet


class TrainingCLI(LightningCLI):
    """Adds what every run wants: loggers, resumable checkpoints, weights with a card, pictures, a rate in the bar."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Those of Lightning's that our tasks have steps for; a system is tested and asked by other verbs."""
        return {name: skipped for name, skipped in LightningCLI.subcommands().items() if name in ("fit", "validate")}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The folder that everything is written to, and the weights' name."""
        parser.add_argument(
            "--output", type=Path, default=Path("runs/run"), help="folder of logs, checkpoints, weights"
        )
        parser.add_argument("--every", type=int, default=500, help="steps between resumable checkpoints")
        parser.add_argument(f"--{BASE}", type=str | None, default=None, help="in a config: the file it is laid over")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Lightning's own would warn of arguments that are not those of the command line: ours have their bases."""
        self.config = parser.parse_args(args)

    def before_instantiate_classes(self) -> None:
        """Refuse a run that lacks weights, data, packages or its device, and say all that it lacks."""
        config = without_none(_plain(self.config[self.subcommand]))
        if config.get("ckpt_path") == "last":
            last = Path(config["output"]) / "last.ckpt"
            config["ckpt_path"] = self.config[self.subcommand]["ckpt_path"] = str(last) if last.exists() else None
        refuse_missing(config)
        if self.subcommand == "validate":
            refuse_unweighted(config, f"lightning {self.subcommand}")
        _take_own_gpu(config.get("trainer", {}))

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
            "trained_on": [asdict(one) for one in training_data(_plain(config.data))],
        }
        bar = [] if trainer_config.get("enable_progress_bar") is False else [RateBar()]
        own = [*bar, SaveWeights(folder, every, card), ValidationPictures(), GatherLeftOut()]
        made = self.config_init[self.subcommand].trainer
        trainer_config["callbacks"] = [*own, *(made.get("callbacks") or [])]
        trainer_config.setdefault("default_root_dir", str(folder))
        if trainer_config.get("enable_model_summary") is None:
            trainer_config["enable_model_summary"] = False  # `before_fit` tells what there is to know
        return self.trainer_class(**trainer_config)

    def before_fit(self) -> None:
        """Tell what trains, where, and how."""
        trains = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        device, precision = self.trainer.strategy.root_device, self.trainer.precision
        self._tell(f"{type(self.model.task).__name__}: {trains:,} parameters train on {device}, precision {precision}")

    def after_fit(self) -> None:
        """Tell what came out and where it is."""
        self._tell(f"{self.trainer.global_step} steps done -> {self.config[self.subcommand].output}")

    def _tell(self, sentence: str) -> None:
        if self.trainer.is_global_zero:
            print(sentence, flush=True)


class _ParsedCLI(TrainingCLI):
    """Reads a config, draws no seed and builds nothing."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What `fit` takes beside the config."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--ckpt_path", type=str | None, default=None)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """What was read is `parsed`; Lightning gets a copy that asks for no seed."""
        super().parse_arguments(parser, args)
        self.parsed = _plain(self.config)
        self.config["seed_everything"] = False

    def before_instantiate_classes(self) -> None:
        """Nothing is refused."""

    def instantiate_classes(self) -> None:
        """Nothing is built."""


def parse(arguments: Sequence[str], with_none: bool = False) -> dict[str, Any]:
    """The config that `fit` would run, as plain dicts with all defaults; nothing is built.

    arguments: what follows the verb, for example ["-c", "configs/ras.yaml"].
    with_none: keep what is None, as building takes it; the doctor's functions take a config without.
    Exits with status 2 where `fit` would, telling what does not fit.
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
    """Run a Lightning verb, and give what it went on without; of several processes the first one does.

    arguments: as on the command line, the verb first.
    Raises ValueError or FileNotFoundError from the parts, before any training.
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
    # The others end with status 0: Lightning takes another status of a process that it started for a crash.
    left_out = getattr(cli.datamodule, "left_out", None) if cli.trainer.is_global_zero else None
    return left_out or LeftOut()


def _take_own_gpu(trainer: dict[str, Any]) -> None:
    """Of several processes on a machine each builds on its own GPU what asks for "cuda", as proposers do.

    Lightning makes that GPU the current one only when training begins: what was built before would be on the first, and
    its inputs on another.
    """
    local = int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0)
    devices = trainer.get("devices")
    number = int(devices[local]) if isinstance(devices, list) and local < len(devices) else local
    if trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda") and number < torch.cuda.device_count():
        torch.cuda.set_device(number)


def _with_bases(arguments: Sequence[str]) -> list[str]:
    """Arguments in which every config stands behind the one that it is laid over."""
    found: list[str] = []
    seen: set[Path] = set()
    given = iter(arguments)
    for word in given:
        flag, _, value = word.partition("=")
        if flag not in ("-c", "--config"):
            found.append(word)
            continue
        *bases, last = with_bases([value or next(given, "")])
        bases = [file for file in bases if file.resolve() not in seen]
        seen |= {file.resolve() for file in (*bases, last)}
        found += [part for file in (*bases, last) for part in ("--config", str(file))]
    return found


def _plain(config: Any) -> Any:
    """A jsonargparse namespace as plain dicts. None stays: where it was said, the default may be something else."""
    if hasattr(config, "as_dict"):
        config = config.as_dict()
    if isinstance(config, dict):
        return {k: _plain(v) for k, v in config.items()}
    if isinstance(config, list | tuple):
        return [_plain(v) for v in config]
    return str(config) if isinstance(config, Path) else config


def without_none(config: Any) -> Any:
    """A tree of plain dicts without what is None: for the doctor, to which that is not there."""
    if isinstance(config, dict):
        return {k: without_none(v) for k, v in config.items() if v is not None}
    return [without_none(v) for v in config] if isinstance(config, list) else config


def _seed(data: Any) -> int:
    own = arguments_of(_plain(data))
    return int(arguments_of(own.get("train")).get("seed", own.get("seed", 0)))
