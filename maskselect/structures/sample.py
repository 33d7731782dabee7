"""`Prompt`, `Sample` and `Batch`: the inputs of systems."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskselect.ops.text import tidy
from maskselect.structures.by_value import ByValue

MASK_REF = "<mask-ref>"
"""Placeholder of a reference mask in a prompt."""


@dataclass(frozen=True, eq=False, repr=False)
class Prompt(ByValue):
    """Free text with reference masks.

    Attributes:
        text: normalised by `ops.text.tidy`, so that invisible characters do not change the answer.
        references: (R, H, W) bool at the image's size; the n-th belongs to the n-th `<mask-ref>` in `text`.
        frames: for each reference the index of its frame in the clip; 0 for a picture.

    Raises:
        TypeError: when the text is not a str.
        ValueError: when the text is empty or holds a lone surrogate, or when the number of placeholders is not R.
    """

    text: str
    references: Tensor
    frames: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", prompt_text(self.text))
        object.__setattr__(self, "frames", self.frames or (0,) * len(self.references))
        expected, given = self.text.count(MASK_REF), len(self.references)
        if expected != given:
            raise ValueError(
                f"prompt has {expected} {MASK_REF} but {given} reference mask(s) were given: {self.text!r}"
            )


def prompt_text(text: object) -> str:
    """The normalised text of a prompt. Errors are those of `Prompt`."""
    if not isinstance(text, str):
        raise TypeError(f"prompt is of type {type(text).__name__}; expected a str such as 'the red mugs'")
    try:
        tidied = tidy(text)
    except ValueError as error:
        raise ValueError(f"prompt {text!a} cannot be read: {error}") from error
    if not tidied:
        raise ValueError("prompt is empty; expected text such as 'the red mugs'")
    return tidied


@dataclass(frozen=True, eq=False, repr=False)
class Sample(ByValue):
    """One annotated question of a dataset.

    Attributes:
        image: file, or uint8 array (H, W, 3).
        image_id, sample_id: ids as published.
        gt_pool: (G, H, W) bool, every annotated mask of the image. They are ground truth, and candidates only in runs
            with the ground truth in the pool.
        targets: indices into gt_pool of the masks that answer the prompt; empty for a no-target prompt.
        reference_ids: for each reference its index in gt_pool, or -1 when it is not in gt_pool.
        kind: prompt kind, "" when the dataset has none.
        ignore: (H, W) bool, pixels that metrics ignore, or None.
    """

    image: Path | np.ndarray
    image_id: str
    sample_id: str
    prompt: Prompt
    gt_pool: Tensor
    targets: tuple[int, ...]
    reference_ids: tuple[int, ...] = ()
    kind: str = ""
    ignore: Tensor | None = None

    @property
    def target_mask(self) -> Tensor:
        """Union of the targets, (H, W) bool."""
        return self.gt_pool[list(self.targets)].any(dim=0)


@dataclass(eq=False, repr=False)
class Overlaps(ByValue):
    """Overlap of every candidate with the union of the targets of a prompt.

    Not frozen, because Lightning writes into batches when it changes their precision.

    Attributes:
        iou, iop: (B, P, N) float32 in [0, 1], intersection over union and over the area of the candidate.
        any_target: (B, P) bool, False for a no-target prompt.
    """

    iou: Tensor
    iop: Tensor
    any_target: Tensor


@dataclass(eq=False, repr=False)
class Batch(ByValue):
    """B images with frozen features and P prompts each: the batch of candidate systems.

    Attributes:
        candidate_features: (B, N, C) float.
        candidate_valid: (B, N) bool, False on padding.
        image_features: (B, T, E) float, output of the frozen vision tower, padded when images have different numbers
            of tokens; None without image tokens.
        prompts: for each image its prompt texts.
        reference_features: for each image and prompt (R, C) float.
        labels: (B, P, N) float, 1 for positive, 0 for negative, -1 for ignored candidates; None at inference.
        captions: for each image the text to generate from mask tokens (stage 1), or None.
        image_ids: id of each image.
        overlaps: of candidates with the targets; None at inference.
        image_grids: (B, 2) int64, rows and columns of the image tokens, for language models that place them on a grid;
            always on the CPU, because the layout of the sequence depends on it.
    """

    candidate_features: Tensor
    candidate_valid: Tensor
    image_features: Tensor | None
    prompts: list[list[str]]
    reference_features: list[list[Tensor]]
    labels: Tensor | None = None
    captions: list[str] | None = None
    image_ids: list[str] = field(default_factory=list)
    overlaps: Overlaps | None = None
    image_grids: Tensor | None = None

    def row(self, number: int) -> "Batch":
        """The batch of image `number` alone."""
        one = slice(number, number + 1)
        return Batch(
            self.candidate_features[one],
            self.candidate_valid[one],
            None if self.image_features is None else self.image_features[one],
            self.prompts[one],
            self.reference_features[one],
            None if self.labels is None else self.labels[one],
            None if self.captions is None else self.captions[one],
            self.image_ids[one],
            None if self.overlaps is None else Overlaps(*(t[one] for t in vars(self.overlaps).values())),
            None if self.image_grids is None else self.image_grids[one],
        )

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device)

        return Batch(
            self.candidate_features.to(device),
            self.candidate_valid.to(device),
            move(self.image_features),
            self.prompts,
            [[r.to(device) for r in references] for references in self.reference_features],
            move(self.labels),
            self.captions,
            self.image_ids,
            None if self.overlaps is None else Overlaps(*(t.to(device) for t in vars(self.overlaps).values())),
            self.image_grids,
        )
