"""Masks written out."""

import torch


def grid(*rows: str) -> torch.Tensor:
    """(H, W) bool, True where a row says "#": grid("#...", "....", "....", "....")."""
    return torch.tensor([[letter == "#" for letter in row] for row in rows])


EMPTY = grid("....", "....", "....", "....")
FULL = grid("####", "####", "####", "####")
LEFT = grid("##..", "##..", "##..", "##..")
TOP = grid("####", "####", "....", "....")
CORNER = grid("##..", "##..", "....", "....")
DOT = grid("#...", "....", "....", "....")
NONE = EMPTY[None][:0]
