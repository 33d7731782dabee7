"""What the options of all commands share."""

import argparse
import os
import re
from pathlib import Path
from typing import Any, NoReturn


class _Once(argparse.Action):
    """Stores a value, and refuses a second one, which would silently replace the first."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._stored_in: argparse.Namespace | None = None

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        if option is not None and self._stored_in is namespace:
            raise argparse.ArgumentError(self, "is given twice; expected it once")
        self._stored_in = namespace
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """argparse with one-sentence errors, without the usage. An option of one value may be given once."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.register("action", None, _Once)
        self.register("action", "store", _Once)

    def error(self, message: str) -> NoReturn:
        """Print the message and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device`."""
    device_help = "auto, cpu, cuda or cuda:N (default: %(default)s)"
    parser.add_argument("--device", type=device, default="auto", metavar="NAME", help=device_help)


def device(text: str) -> str:
    """The name of a device."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not supported; expected auto, cpu, cuda or cuda:N")
    return text


def words(text: str) -> str:
    """A text in UTF-8, which Python decodes to lone surrogates in an ASCII locale."""
    try:
        return os.fsencode(text).decode()
    except UnicodeError:
        return text


FORMATS = ("json", "mask", "overlay", "masks", "svg", "coco", "coco-polygons", "labelme", "yolo")
"""What `predict` can write about an image."""


def formats(text: str) -> tuple[str, ...]:
    """Names of formats with commas between, in the order of `FORMATS`."""
    names = {name.strip() for name in text.split(",")} - {""}
    if unknown := sorted(names - set(FORMATS)):
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no format; expected some of {', '.join(FORMATS)}")
    if not names:
        raise argparse.ArgumentTypeError(f"no format is named; expected some of {', '.join(FORMATS)}")
    return tuple(name for name in FORMATS if name in names)


def local(text: str) -> Path:
    """A file or folder of this machine."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text} is a URL; expected a file or folder: download it first")
    return Path(text)


def fraction(text: str) -> float:
    """A number in [0, 1]."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not within [0, 1]")
    return value


def positive(text: str) -> int:
    """A whole number from 1."""
    return natural(text, 1)


def natural(text: str, least: int = 0) -> int:
    """A whole number from 0."""
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"{text} is not at least {least}")
    return value
