"""The commands, see `maskselect.cli.program`."""

from maskselect.cli.program import main, tool

__all__ = ["main", "tool"]
