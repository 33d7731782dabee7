"""Tables for the terminal that fit into 80 columns. Numbers are never truncated; words wrap."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

WIDTH = 80
"""Columns if standard output is not a terminal."""


def console() -> Console:
    """A console on standard output, as wide as the terminal, without automatic highlighting."""
    screen = Console(highlight=False)
    return screen if screen.is_terminal else Console(highlight=False, width=WIDTH)


def narrow_table(*columns: str, words: int = 1) -> Table:
    """A table with one blank between columns and a rule below the header.

    Args:
        columns: names of the columns.
        words: the first so many columns hold words, which wrap; the others hold numbers, which are right-aligned.
    """
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=0)
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number < words else "right", overflow="fold")
    return table


def print_table(table: Table, title: str = "") -> None:
    """Print a table below its title."""
    screen = console()
    if title:
        screen.print(title, style="italic", markup=False, soft_wrap=True)
    screen.print(table)
