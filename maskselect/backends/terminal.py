"""Tables for the terminal, which fit into 80 columns: numbers are never cut off, words are broken at blanks."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

WIDTH = 80
"""Columns where there is no terminal whose width could be asked for."""


def console() -> Console:
    """Standard output, as wide as the terminal; marks and colours are only those that are asked for."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=WIDTH)


def narrow_table(*columns: str, words: int = 1) -> Table:
    """A table with one blank between columns and a line below their names.

    columns: their names.
    words: so many of them, from the left, hold words, which are broken where they do not fit; the others hold numbers.
    """
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=0)
    for place, name in enumerate(columns):
        if place < words:
            table.add_column(name, overflow="fold")
        else:
            table.add_column(name, justify="right", overflow="fold")
    return table


def print_table(table: Table, title: str = "") -> None:
    """A table below its title, which may be wider than the table."""
    screen = console()
    if title:
        screen.print(title, style="italic", markup=False, soft_wrap=True)
    screen.print(table)
