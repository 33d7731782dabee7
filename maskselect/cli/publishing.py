"""`push`: publishes a checkpoint on the Hugging Face hub, or writes it to a folder."""

import argparse
from pathlib import Path

from maskselect.cli.parsing import Parser


def push_parser(prog: str) -> argparse.ArgumentParser:
    """Options of `push`."""
    description = "Publish a checkpoint with a model card on the Hugging Face hub, for --model hf://ORG/NAME."
    parser = Parser(prog=prog, description=description)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="shipped name, file or folder")
    repository_help = "created if it does not exist; @BRANCH names a branch"
    parser.add_argument("repository", metavar="hf://ORG/NAME", help=repository_help)
    report_help = "report of `evaluate` on this checkpoint, for the model card; may be repeated"
    parser.add_argument("--report", type=Path, action="append", default=[], metavar="REPORT.json", help=report_help)
    parser.add_argument("--private", action="store_true", help="create a private repository")
    license_help = "licence in the model card, for example apache-2.0; default: none"
    parser.add_argument("--license", metavar="NAME", help=license_help)
    folder_help = "write the files there instead of uploading them"
    parser.add_argument("--folder", type=Path, metavar="DIR", help=folder_help)
    return parser


def push(options: argparse.Namespace) -> int:
    """Upload a checkpoint, or write a folder."""
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
