"""`export`: writes a model in the format of another program."""

import argparse
from pathlib import Path

from maskselect.cli.parsing import Parser


def export_parser(prog: str) -> argparse.ArgumentParser:
    """Options of `export`."""
    description = "Write the networks of compact RAS and of its SAM as ONNX files. See docs/guide/onnx.md."
    parser = Parser(prog=prog, description=description)
    model_help = "shipped name, file or folder of a compact RAS (default: %(default)s)"
    parser.add_argument("--model", default="ras", metavar="NAME_OR_PATH", help=model_help)
    onnx_help = "a new or an empty folder; needs the extra onnx"
    parser.add_argument("--onnx", type=Path, required=True, metavar="DIR", help=onnx_help)
    return parser


def export(options: argparse.Namespace) -> int:
    """Write the files and list them with their sizes."""
    from maskselect.exports.onnx import export_onnx
    from maskselect.systems.loading import load_system

    system, card = load_system(options.model)
    for path in export_onnx(system, options.onnx, float(card.get("threshold", 0.5))):
        print(f"{path} {path.stat().st_size / 1e6:.1f} MB")
    return 0
