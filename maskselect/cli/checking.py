"""Commands around training: `doctor`, `features`, `merge` and `average`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskselect.cli.failures import report_left_out
from maskselect.cli.parsing import Parser, add_device
from maskselect.structures.left_out import LeftOut


class _ConfigParser(Parser):
    """Takes configs, and unknown options as changes of them, as `fit` does.

    The namespace has `arguments`, all arguments in their order, and `rest`, the unknown ones.
    """

    def __init__(self, prog: str, description: str, more: str = "", other: str = "") -> None:
        usage = f"{prog} -c CONFIG [-c OVERLAY ...] {more}[--any.setting VALUE ...]" + (f" | {other}" if other else "")
        super().__init__(prog=prog, description=description, usage=usage, allow_abbrev=False)
        config_help = "a config as of `lightning fit`; later ones replace values of earlier ones"
        self.add_argument("-c", "--config", action="append", required=not other, metavar="CONFIG", help=config_help)
        self.set_defaults(models=None)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse the arguments. See the class."""
        arguments = list(sys.argv[1:] if args is None else args)
        options, rest = self.parse_known_args(arguments, namespace)
        if (options.config is None) == (options.models is None):
            self.error("expected either -c CONFIG or --models")
        options.arguments, options.rest = arguments, rest
        return options


def doctor_parser(prog: str) -> argparse.ArgumentParser:
    """Options of `doctor`."""
    parser = _ConfigParser(
        prog,
        "Lists everything that a training run lacks, each with the command that helps: weights, data, packages, "
        "device, memory (an estimate). Prints the parameters of each part. With --models it says instead whether this "
        "machine can run the named models of public weights, and how fast. Builds nothing and uses no network. "
        "Status: 0 nothing is missing, 1 something is missing, 2 the config is bad.",
        other=f"{prog} --models [NAME ...]",
    )
    models_help = "named models such as photos-small, or YAML files of that form; all of them without a name"
    parser.add_argument("--models", nargs="*", metavar="NAME", help=models_help)
    return parser


def doctor(options: argparse.Namespace) -> int:
    """Examine a training config, or named models; status 1 if something is missing."""
    if options.models is not None:
        from maskselect.doctor.public_models import print_models

        return 0 if print_models(options.models) else 1
    from maskselect.doctor.commands import foreign_lightning
    from maskselect.doctor.report import examine, print_findings
    from maskselect.training.cli import parse

    findings = examine(parse(options.arguments))
    print_findings(findings, " + ".join(options.config))
    if foreign := foreign_lightning():
        print(f"Beware: {foreign}.")
    return 1 if findings.needs else 0


def features_parser(prog: str) -> argparse.ArgumentParser:
    """Options of `features`."""
    description = (
        "Computes the frozen features and the candidates of all images of a run, and stores them where the run looks "
        "for them (data.init_args.cache_dir), so that it needs neither encoders nor proposer. Images that are stored "
        "already are skipped, so an interrupted command can be repeated. Several may fill one folder."
    )
    parser = _ConfigParser(prog, description, "[--part I/N] ")
    part_help = "compute the I-th of N parts, from 1, on one of several machines (default: %(default)s)"
    parser.add_argument("--part", type=_part, default="1/1", metavar="I/N", help=part_help)
    add_device(parser)
    return parser


def features(options: argparse.Namespace) -> int:
    """Compute the frozen features of a run; status 1 if images were left out."""
    from maskselect.backends.devices import pick_device
    from maskselect.training.cli import parse
    from maskselect.training.filling import fill

    configs = [word for config in options.config for word in ("-c", config)]
    part, parts = options.part
    config, device, left_out = parse([*configs, *options.rest], with_none=True), pick_device(options.device), LeftOut()
    done, images = fill(config, part, parts, str(device), left_out)
    print(f"{done} of {images} images computed, the others were there" + (" or were left out" if left_out else ""))
    return report_left_out(left_out, "images")


def _part(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text} is not I/N with I from 1 to N")
    return int(part), int(parts)


def merge_parser(prog: str) -> argparse.ArgumentParser:
    """Options of `merge`."""
    description = (
        "Writes the learned weights of a last.ckpt as safetensors with a card. The checkpoint is a file, or a folder "
        "of shards of FSDP2 or DeepSpeed. A run writes them itself, except under ZeRO-3 or when it was killed."
    )
    parser = Parser(prog=prog, description=description)
    parser.add_argument("checkpoint", type=Path, metavar="LAST.CKPT")
    parser.add_argument("--output", type=Path, metavar="FILE.safetensors", help="default: beside the checkpoint")
    return parser


def merge(options: argparse.Namespace) -> int:
    """Write the weights of a resumable checkpoint."""
    from maskselect.training.merging import merge

    print(merge(options.checkpoint, options.output))
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
    """Write the average of checkpoints."""
    from maskselect.backends.checkpoints import average_checkpoints

    average_checkpoints(options.checkpoints, options.output)
    print(f"{len(options.checkpoints)} checkpoints averaged -> {options.output}")
    return 0
