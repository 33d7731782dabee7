"""`VideoSample`: an expression about a video, with masks that are read frame by frame."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class FrameMasks(Protocol):
    """One mask a frame, read when it is asked for. Cheap to pickle."""

    def __len__(self) -> int: ...

    def __getitem__(self, frame: int) -> np.ndarray:
        """(H, W) bool. Raises ValueError or FileNotFoundError, naming file and frame, when it cannot be read."""
        ...


@dataclass(frozen=True)
class VideoSample:
    """One expression.

    video_id, sample_id: identity as published; the latter is "video/expression".
    frames: image files in order.  frame_names: their names without the ending, under which answers are handed in.
    size: (H, W).
    kind: "referring", "reasoning" or "none" where the data set tells (ReVOS), else "".
    object_ids: what answers, as the annotations number it.
    masks: of the objects together; None where the truth is not public.
    foreground: every annotated object of the video, for R; None where nobody measures it.
    void: pixels that count nowhere, or None.
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


def stacked(masks: FrameMasks) -> Tensor:
    """The masks of all frames: (T, H, W) bool."""
    return torch.from_numpy(np.stack([masks[frame] for frame in range(len(masks))]))
