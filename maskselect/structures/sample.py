"""`Prompt`, `Sample`, `ImageSamples` and `Batch`: questions on their way into a system."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskselect.ops.text import tidy
from maskselect.structures.by_value import ByValue

MASK_REF = "<mask-ref>"
"""How a user writes a reference mask inside a prompt."""


@dataclass(frozen=True, eq=False, repr=False)
class Prompt(ByValue):
    """Free text with reference masks.

    text: becomes what `ops.text.tidy` makes of it, so that invisible characters change no answer.
    references: (R, H, W) bool at the image's own size; the n-th belongs to the n-th `<mask-ref>` in `text`.
    frames: for each reference the number of the frame of a clip on which it was given; 0 for a picture.

    Raises TypeError when the text is no str, ValueError when it is empty or holds a lone surrogate, or when the number
    of placeholders differs from R.
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
    """The text of a prompt as systems read it. Raises TypeError and ValueError as `Prompt` does."""
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

    image: file, or uint8 array (H, W, 3).
    image_id, sample_id: identity as published.
    gt_pool: (G, H, W) bool, every annotated mask of the image; ground truth only, never candidates unless asked for.
    targets: indices into gt_pool that answer the prompt; empty for a no-target prompt.
    reference_ids: for each reference its index in gt_pool, or -1 when it is a mask of its own.
    kind: prompt kind, "" where the dataset has none.
    ignore: (H, W) bool, pixels that no measure counts, or None where the dataset knows none.
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
    """Of every candidate with the union of a prompt's targets.

    Not frozen, since Lightning writes into batches where it brings them to another precision.

    iou, iop: (B, P, N) float32 in [0, 1], intersection over union and over the candidate's own area.
    any_target: (B, P) bool, whether the prompt means anything in the image.
    """

    iou: Tensor
    iop: Tensor
    any_target: Tensor


@dataclass(eq=False, repr=False)
class Batch(ByValue):
    """B images with frozen features and P prompts each, ready for a system.

    candidate_features: (B, N, C) float; candidate_valid: (B, N) bool, False on padding.
    image_features: (B, T, D) float, output of the language model's frozen vision tower, or None without image tokens.
        Of language models for which images are of different lengths, padded.
    prompts: for each image its prompt texts.
    reference_features: for each image and prompt (R, C) float.
    labels: (B, P, N) float, 1 in the group, 0 not, -1 left out of the loss; None at inference.
    captions: for each image a text to be generated from mask tokens (stage 1), or None.
    overlaps: of every candidate with the mask that answers a prompt; None at inference.
    image_grids: (B, 2) int64, rows and columns of each image's tokens, where the language model puts them on a grid;
        always on the CPU, since they say what stands where.
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
