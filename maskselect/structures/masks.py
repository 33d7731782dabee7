"""`MaskSet`: candidate or reference masks with aligned columns."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from maskselect.structures.by_value import ByValue

OF_PROMPT = "of the prompt"
"""`MaskSet.source` of masks that a system draws for one prompt; another mask cannot be compared with them."""


@dataclass(frozen=True, eq=False, repr=False)
class MaskSet(ByValue):
    """N masks of one image with scores and further columns of their source.

    Attributes:
        masks: (N, H, W) bool.
        scores: (N,) float32, higher is better; the source defines the meaning (predicted IoU for SAM).
        source: the proposer, for example "sam".
        columns: further (N, ...) tensors, filtered and concatenated together with the masks.

    Raises:
        ValueError: lengths or types disagree.
    """

    masks: Tensor
    scores: Tensor
    source: str
    columns: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.masks.ndim != 3 or self.masks.dtype != torch.bool:
            raise ValueError(f"masks must be (N, H, W) bool, got {tuple(self.masks.shape)} {self.masks.dtype}")
        count = len(self.masks)
        for name, column in {"scores": self.scores, **self.columns}.items():
            if len(column) != count:
                raise ValueError(f"column {name!r} must have {count} rows like masks, got {len(column)}")

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return int(self.masks.shape[1]), int(self.masks.shape[2])

    @classmethod
    def empty(cls, image_size: tuple[int, int], source: str = "none") -> "MaskSet":
        """A set of no masks for an image of (H, W)."""
        return cls(torch.zeros(0, *image_size, dtype=torch.bool), torch.zeros(0, dtype=torch.float32), source)

    def copy(self) -> "MaskSet":
        """A copy that shares no memory."""
        columns = {name: column.clone() for name, column in self.columns.items()}
        return MaskSet(self.masks.clone(), self.scores.clone(), self.source, columns)

    def keep(self, index: Tensor) -> "MaskSet":
        """The rows of `index`, (K,) int64 or (N,) bool, in its order, with all columns."""
        columns = {name: column[index] for name, column in self.columns.items()}
        return MaskSet(self.masks[index], self.scores[index], self.source, columns)

    def concat(self, other: "MaskSet") -> "MaskSet":
        """Both sets, self first, with the columns that both have.

        Raises:
            ValueError: the image sizes differ.
        """
        if self.image_size != other.image_size:
            raise ValueError(f"cannot join masks of sizes {self.image_size} and {other.image_size}")
        shared = self.columns.keys() & other.columns.keys()
        return MaskSet(
            torch.cat([self.masks, other.masks]),
            torch.cat([self.scores, other.scores]),
            self.source if self.source == other.source else f"{self.source}+{other.source}",
            {name: torch.cat([self.columns[name], other.columns[name]]) for name in sorted(shared)},
        )
