"""`push`: a checkpoint into a repository of the Hugging Face hub, or into a folder."""

import argparse
from pathlib import Path

from maskselect.cli.parsing import Parser


def push_parser(prog: str) -> argparse.ArgumentParser:
    """Options of `push`."""
    told = "Publish a checkpoint with its card and a model card on the Hugging Face hub, for --model hf://ORG/NAME."
    parser = Parser(prog=prog, description=told)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="shipped name, file or folder")
    repository_help = "made where it is not there; with @BRANCH on a branch"
    parser.add_argument("repository", metavar="hf://ORG/NAME", help=repository_help)
    report_help = "what `evaluate` wrote about this checkpoint, for the model card; may be given several times"
    parser.add_argument("--report", type=Path, action="append", default=[], metavar="REPORT.json", help=report_help)
    parser.add_argument("--private", action="store_true", help="make the repository private")
    license_help = "for the model card, for example apache-2.0; default: none is named"
    parser.add_argument("--license", metavar="NAME", help=license_help)
    folder_help = "write there what would be uploaded, and upload nothing"
    parser.add_argument("--folder", type=Path, metavar="DIR", help=folder_help)
    return parser


def push(options: argparse.Namespace) -> int:
    """Uploads, or writes a folder."""
    from maskselect.publishing import push_to_hub

    place = push_to_hub(
        options.checkpoint,
        options.repository,
        report=options.report,
        private=options.private or None,
        license=options.license,
        folder=options.folder,
    )
    print(f"{options.checkpoint} -> {place}")
    return 0
