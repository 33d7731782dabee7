"""Runs `tools/*.py` with any Python: if maskselect is not installed there, the repository's `.venv` takes over."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

_PYTHON = Path(__file__).resolve().parents[1] / ".venv" / "bin" / "python"

if find_spec("maskselect") is None:
    if not _PYTHON.exists():
        sys.exit("maskselect is not installed here; run `make setup` first")
    os.execv(_PYTHON, [str(_PYTHON), *sys.argv])


def run(verb: str) -> None:
    """Run a verb of maskselect with the options of the command line, and exit."""
    from maskselect.cli import tool  # noqa: PLC0415  after the check above

    sys.exit(tool(verb))
