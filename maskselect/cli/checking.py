"""Around training: `doctor`, what a config lacks and takes; `features`, what is frozen, beforehand; and `merge`, the
weights out of a checkpoint; `average`, the mean of several.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskselect.cli.failures import tell_left_out
from maskselect.cli.parsing import Parser, add_device
from maskselect.structures.left_out import LeftOut


class _Overridable(Parser):
    """Takes any option: what it does not know changes the config, as in `fit`. They stay in their order."""

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """`arguments` holds all of them, as they were given; `rest` those that it does not know."""
        given = list(sys.argv[1:] if args is None else args)
        options, rest = self.parse_known_args(given, namespace)
        options.arguments, options.rest = given, rest
        return options


def doctor_parser(prog: str) -> argparse.ArgumentParser:
    """Options of `doctor`."""
    told = (
        "Lists everything that a training run would lack, each with the command that helps: weights, data, packages, "
        "device, memory (an estimate). Prints parameter counts part by part. Builds nothing and asks no network. "
        "Status: 0 all is there, 1 something is missing, 2 the config is bad."
    )
    return _of_a_config(prog, told)


def _of_a_config(prog: str, told: str, more: str = "") -> argparse.ArgumentParser:
    """more: what else it takes, as the usage tells it."""
    usage = f"{prog} -c CONFIG [-c OVERLAY ...] {more}[--any.setting VALUE ...]"
    parser = _Overridable(prog=prog, description=told, usage=usage, allow_abbrev=False)
    config_help = "as `lightning fit` takes it; later ones are laid over earlier ones"
    parser.add_argument("-c", "--config", action="append", required=True, metavar="CONFIG", help=config_help)
    return parser


def doctor(options: argparse.Namespace) -> int:
    """Prints what was found; status 1 when something is missing."""
    from maskselect.doctor.commands import foreign_lightning
    from maskselect.doctor.examine import examine
    from maskselect.doctor.report import print_findings
    from maskselect.training.cli import parse

    found = examine(parse(options.arguments))
    print_findings(found, " + ".join(options.config))
    if foreign := foreign_lightning():
        print(f"Beware: {foreign}.")
    return 1 if found.needs else 0


def features_parser(prog: str) -> argparse.ArgumentParser:
    """Options of `features`."""
    told = (
        "Computes the frozen features of all images of a run, its candidates among them, and keeps them where the "
        "run will look for them (data.init_args.cache_dir), so that it runs neither encoders nor proposer. What is "
        "there already is left alone, so an interrupted one goes on; several may fill one folder."
    )
    parser = _of_a_config(prog, told, "[--part I/N] ")
    part_help = "of N machines or processes this is the I-th, from 1 (default: %(default)s)"
    parser.add_argument("--part", type=_part, default="1/1", metavar="I/N", help=part_help)
    add_device(parser)
    return parser


def features(options: argparse.Namespace) -> int:
    """Prints how many were computed; status 1 when images were left out."""
    from maskselect.backends.devices import pick_device
    from maskselect.training.cli import parse
    from maskselect.training.filling import fill

    configs = [word for config in options.config for word in ("-c", config)]
    part, parts = options.part
    config, device, left_out = parse([*configs, *options.rest], with_none=True), pick_device(options.device), LeftOut()
    done, images = fill(config, part, parts, str(device), left_out)
    print(f"{done} of {images} images computed, the others were there" + (" or were left out" if left_out else ""))
    return tell_left_out(left_out, "images")


def _part(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text} is not I/N with I from 1 to N")
    return int(part), int(parts)


def merge_parser(prog: str) -> argparse.ArgumentParser:
    """Options of `merge`."""
    told = (
        "Writes what a run learned as safetensors with a card, out of its last.ckpt: a file, FSDP2's or DeepSpeed's "
        "folder of shards. A run does so itself at every checkpoint, but under ZeRO-3, or when it was killed."
    )
    parser = Parser(prog=prog, description=told)
    parser.add_argument("checkpoint", type=Path, metavar="LAST.CKPT")
    parser.add_argument("--output", type=Path, metavar="FILE.safetensors", help="default: beside the checkpoint")
    return parser


def merge(options: argparse.Namespace) -> int:
    """Prints where the weights are."""
    from maskselect.training.merging import merge as merged

    print(merged(options.checkpoint, options.output))
    return 0


def average_parser(prog: str) -> argparse.ArgumentParser:
    """Options of `average`."""
    description = (
        "Averages the weights of checkpoints of one system: points of one training run often generalise better "
        "together. The threshold stays the last checkpoint's; `calibrate` chooses a new one."
    )
    parser = Parser(prog=prog, description=description)
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.safetensors")
    return parser


def average(options: argparse.Namespace) -> int:
    """Prints where the average is."""
    from maskselect.backends.checkpoints import average_checkpoints

    average_checkpoints(options.checkpoints, options.output)
    print(f"{len(options.checkpoints)} checkpoints averaged -> {options.output}")
    return 0
