"""What the commands' options share."""

import argparse
import os
import re
from pathlib import Path
from typing import Any, NoReturn


class _Once(argparse.Action):
    """Stores a value, and refuses a second one, which would take the place of the first without a word."""

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
    """argparse whose complaint is one sentence, without the usage above it. Options that take one value stand once."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.register("action", None, _Once)
        self.register("action", "store", _Once)

    def error(self, message: str) -> NoReturn:
        """Status 2 with the message alone."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def add_device(parser: argparse.ArgumentParser) -> None:
    """`--device`."""
    device_help = "auto, cpu, cuda or cuda:N (default: %(default)s)"
    parser.add_argument("--device", type=device, default="auto", metavar="NAME", help=device_help)


def device(text: str) -> str:
    """The name of a device that may be there."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not supported; expected auto, cpu, cuda or cuda:N")
    return text


def words(text: str) -> str:
    """A text as it was typed: where the locale is ASCII, Python hides other bytes in it as lone surrogates."""
    try:
        return os.fsencode(text).decode()
    except UnicodeError:
        return text


def local(text: str) -> Path:
    """A file or folder."""
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
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value
