"""`download`: fetches the public weights of a named model before its first use."""

import argparse

from maskselect.cli.parsing import Parser


def download_parser(prog: str) -> argparse.ArgumentParser:
    """Options of `download`."""
    description = (
        "Download the public weights of a named model, after a message with sizes, licences and place. Files that are "
        "there are kept, so an interrupted download can be repeated. Afterwards the model needs no network."
    )
    parser = Parser(prog=prog, description=description)
    name_help = "photos-fast, photos-small, photos-base, or a YAML file of that form"
    parser.add_argument("name", metavar="NAME", help=name_help)
    return parser


def download(options: argparse.Namespace) -> int:
    """Download what is missing, and print the folder of each part."""
    from maskselect.systems import named_models

    model = named_models.read(options.name)
    for link, folder in named_models.fetch(model).items():
        print(f"{link.partition('@')[0]}@{folder.name} -> {folder}")
    print(f"{model.name} is complete; use it with --model {options.name}")
    return 0
