"""`VideoSample`: an expression about a video, with masks that are read by frame."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from maskselect.structures.clip import Clip


class FrameMasks(Protocol):
    """One mask per frame, read on demand. Cheap to pickle."""

    def __len__(self) -> int: ...

    def __getitem__(self, frame: int) -> np.ndarray:
        """(H, W) bool. Raises ValueError or FileNotFoundError, with file and frame, if it cannot be read."""
        ...


@dataclass(frozen=True)
class VideoReference:
    """A reference of an expression: the mask of `masks` on one frame."""

    masks: FrameMasks
    frame: int


@dataclass(frozen=True)
class VideoSample:
    """One expression.

    Attributes:
        video_id, sample_id: as published; the latter is "video/expression".
        prompt: the expression.
        frames: image files in order; empty if `clip` has the frames.
        frame_names: their names without suffix, for submitted answers.
        size: (H, W).
        kind: "referring", "reasoning" or "none" in ReVOS, else "".
        object_ids: ids of the target objects.
        masks: of the objects together; None if they are not public.
        foreground: every annotated object of the video, for R; None in data sets without R.
        void: pixels that are not counted, or None.
        tag: a finer kind of prompt, for the report; "" if the data set has none.
        clip: the frames, if they are not in files.
        references: for each `<mask-ref>` of the prompt.
    """

    video_id: str
    sample_id: str
    prompt: str
    frames: tuple[Path, ...]
    frame_names: tuple[str, ...]
    size: tuple[int, int]
    kind: str = ""
    object_ids: tuple[str, ...] = ()
    masks: FrameMasks | None = None
    foreground: FrameMasks | None = None
    void: FrameMasks | None = None
    tag: str = ""
    clip: Clip | None = None
    references: tuple[VideoReference, ...] = ()


def stacked(masks: FrameMasks) -> Tensor:
    """The masks of all frames: (T, H, W) bool."""
    return torch.from_numpy(np.stack([masks[frame] for frame in range(len(masks))]))
