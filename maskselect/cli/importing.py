"""`import`: published weights of others into ours; one verb a release."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskselect.cli.parsing import Parser

if TYPE_CHECKING:
    from maskselect.backends.name_map import ImportReport
    from maskselect.importers.account import Row

NAMES = ("llm-seg", "co-detr", "llava", "ras")


def import_parser(prog: str) -> argparse.ArgumentParser:
    """Options of `import`."""
    parser = Parser(prog=prog, description="Turn published weights into a checkpoint that --model takes.")
    verbs = parser.add_subparsers(dest="name", required=True, metavar="|".join(NAMES), parser_class=Parser)
    _add_llm_seg(verbs)
    _add_co_detr(verbs)
    _add_llava(verbs)
    _add_ras(verbs)
    return parser


def import_weights(options: argparse.Namespace) -> int:
    """Runs one importer."""
    return {"llm-seg": _llm_seg, "co-detr": _co_detr, "llava": _llava, "ras": _ras}[options.name](options)


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
    from maskselect.importers.llm_seg import import_llm_seg

    configs = options.config or ["paper/llmseg_7b.yaml"]
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


def _add_llava(verbs: Any) -> None:
    told = "A LLaVA as its authors name its tensors (liuhaotian/llava-v1.5-13b) into a folder that transformers reads."
    parser = verbs.add_parser("llava", help="LLaVA in its authors' naming", description=told)
    _add_hub_folder(parser)


def _add_hub_folder(parser: argparse.ArgumentParser) -> None:
    source_help = "folder with config.json, weights (shards with their index, or one file) and tokenizer"
    parser.add_argument("source", type=Path, metavar="SRC", help=source_help)
    parser.add_argument("destination", type=Path, metavar="DST", help="folder to make")
    tokenizer_help = "folder with its tokenizer.model or tokenizer.json; default: SRC"
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help=tokenizer_help)
    tower_help = "folder or hub id of the CLIP that it was trained with, for when SRC holds no vision tower"
    parser.add_argument("--vision-tower", metavar="CLIP", help=tower_help)


def _llava(options: argparse.Namespace) -> int:
    from maskselect.importers.llava import import_llava

    _tell(import_llava(options.source, options.destination, options.tokenizer, options.vision_tower))
    print(f"-> {options.destination}; use it as `model` of maskselect.lmm.llava.Llava")
    return 0


def _add_ras(verbs: Any) -> None:
    told = (
        "The released RAS (Shengcao1006/RAS-13B-General). Names of its LLaVA are known; mask projector, classifier and "
        "pre-tokens are found by shape. Nothing is written while a tensor is unexplained or a part could be several."
    )
    parser = verbs.add_parser("ras", help="RAS's released weights", description=told)
    _add_hub_folder(parser)
    config_help = "of the system, and overlays that say what it was trained on; default: configs/paper/ras_13b.yaml"
    parser.add_argument("--config", "-c", type=Path, action="append", metavar="FILE", help=config_help)
    order_help = (
        "the config's encoders in the order of the projector's input columns, which is not published; "
        "default: clip,convnext,siglip,dinov2,position"
    )
    parser.add_argument("--encoder-order", type=lambda text: tuple(text.split(",")), metavar="A,B,...", help=order_help)
    part_help = (
        "where several tensors could be a part: projector or classifier and what its names begin with; pool_pre or "
        "ref_pre and its name, with [0] or [1] for a row"
    )
    parser.add_argument("--part", type=_named, action="append", default=[], metavar="PART=NAME", help=part_help)
    drop_help = "leave behind what begins with this and nothing explains; may be given several times"
    parser.add_argument("--drop", action="append", default=[], metavar="NAME", help=drop_help)


def _named(text: str) -> tuple[str, str]:
    part, _, name = text.partition("=")
    if not part or not name:
        raise argparse.ArgumentTypeError(f"{text} is not PART=NAME")
    return part, name


def _ras(options: argparse.Namespace) -> int:
    from maskselect.importers.ras import Choices, import_ras

    import_ras(
        options.source,
        options.destination,
        options.config or ["paper/ras_13b.yaml"],
        options.tokenizer,
        options.vision_tower,
        Choices(options.encoder_order, dict(options.part), tuple(options.drop)),
        tell=_tell_all,
    )
    print(f"-> {options.destination}; use it with --model {options.destination}")
    return 0


def _tell_all(rows: "list[Row]", assumed: list[str]) -> None:
    """Two lines for every tensor, and what is assumed."""
    for row in rows:
        source, shape, dtype, target, why = row.cells
        print(f"{source} ({shape}, {dtype})\n    -> {target}: {why}")
    for sentence in assumed:
        print(f"Assumed: {sentence}.")


def _tell(report: "ImportReport") -> None:
    print(f"{len(report.matched)} tensors taken, {len(report.dropped)} left behind:")
    for reason, count in report.reasons().items():
        print(f"  {count}: {reason}")
