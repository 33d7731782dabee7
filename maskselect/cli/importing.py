"""`import`: published weights of others into ours; one verb a release."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskselect.cli.parsing import Parser

if TYPE_CHECKING:
    from maskselect.backends.name_map import ImportReport

NAMES = ("llm-seg", "co-detr")


def import_parser(prog: str) -> argparse.ArgumentParser:
    """Options of `import`."""
    parser = Parser(prog=prog, description="Turn published weights into a checkpoint that --model takes.")
    verbs = parser.add_subparsers(dest="name", required=True, metavar="|".join(NAMES), parser_class=Parser)
    _add_llm_seg(verbs)
    _add_co_detr(verbs)
    return parser


def import_weights(options: argparse.Namespace) -> int:
    """Runs one importer."""
    return {"llm-seg": _llm_seg, "co-detr": _co_detr}[options.name](options)


def _add_llm_seg(verbs: Any) -> None:
    told = "A DeepSpeed checkpoint of LLM-Seg, as its authors released them, into a LLaVA and what was trained on it."
    parser = verbs.add_parser("llm-seg", help="LLM-Seg's released checkpoints", description=told)
    source_help = "folder with `latest` and global_step*, or a file mp_rank_00_model_states.pt"
    parser.add_argument("source", type=Path, metavar="SRC", help=source_help)
    parser.add_argument("destination", type=Path, metavar="DST", help="folder to make")
    tokenizer_help = "folder of the LLaVA that it was trained from: its tokenizer files and config.json"
    parser.add_argument("--tokenizer", type=Path, required=True, metavar="DIR", help=tokenizer_help)
    config_help = "of the system, and overlays that say what it was trained on; default: configs/paper/llmseg_7b.yaml"
    parser.add_argument("--config", "-c", type=Path, action="append", metavar="FILE", help=config_help)


def _llm_seg(options: argparse.Namespace) -> int:
    from maskselect.importers.configs import PAPER
    from maskselect.importers.llm_seg import import_llm_seg

    configs = options.config or [PAPER / "llmseg_7b.yaml"]
    report = import_llm_seg(options.source, options.destination, options.tokenizer, configs)
    _tell(report)
    print(f"-> {options.destination}; use it with --model {options.destination}")
    return 0


def _add_co_detr(verbs: Any) -> None:
    told = (
        "What of a published Co-DETR file is read, tensor by tensor. Nothing is written but the report: the proposer "
    )
    parser = verbs.add_parser("co-detr", help="Co-DETR's published files", description=told + "reads the file itself.")
    parser.add_argument("source", type=Path, metavar="SRC", help="pytorch_model.pth")
    parser.add_argument("--variant", choices=("coco", "lvis"), default="coco", help="default: %(default)s")
    report_help = "JSON: our name of every tensor that is read, and why each other one is not"
    parser.add_argument("--report", type=Path, metavar="FILE", help=report_help)


def _co_detr(options: argparse.Namespace) -> int:
    from maskselect.proposers.codetr.config import VARIANTS
    from maskselect.proposers.codetr.importer import account_for
    from maskselect.reports.files import write_json

    report = account_for(VARIANTS[options.variant], options.source)
    _tell(report)
    if options.report is not None:
        read = {foreign: names[0] for foreign, names in report.matched.items()}
        write_json({"read": read, "left_behind": report.dropped}, options.report)
    print(f"use it as `checkpoint` of maskselect.proposers.codetr.proposer.CoDetrProposer, variant {options.variant}")
    return 0


def _tell(report: "ImportReport") -> None:
    print(f"{len(report.matched)} tensors taken, {len(report.dropped)} left behind:")
    for reason, count in report.reasons().items():
        print(f"  {count}: {reason}")
