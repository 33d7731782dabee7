"""Systems whose answers are known: a score depends on prompt, references and picture, and on nothing else."""

import io
import threading
import time
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from maskselect.heads.selection import select
from maskselect.predictor import Model
from maskselect.structures.answer import Answer
from maskselect.structures.clip import Clip, ClipMasks
from maskselect.structures.masks import MaskSet
from maskselect.structures.sample import Prompt

SIDES = (4, 4)


def png(seed: int = 0, height: int = 96, width: int = 128, form: str = "PNG") -> bytes:
    """A picture of coloured cells."""
    cells = np.random.default_rng(seed).integers(30, 255, (4, 4, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(cells).resize((width, height), Image.Resampling.NEAREST).save(content, form)
    return content.getvalue()


def cells(height: int, width: int) -> Tensor:
    """Sixteen cells, the left half, and a copy of it that lacks a row: (18, H, W) bool."""
    masks = torch.zeros(18, height, width, dtype=torch.bool)
    for number in range(16):
        row, column = divmod(number, 4)
        masks[number, row * height // 4 : (row + 1) * height // 4, column * width // 4 : (column + 1) * width // 4] = (
            True
        )
    masks[16, :, : width // 2] = True
    masks[17, 1:, : width // 2] = True
    return masks


def score_of(text: str, references: Tensor, picture: np.ndarray, candidate: int) -> float:
    """A number in [0, 1) that differs between any two questions."""
    places = [int(one.nonzero().sum()) for one in references]
    return zlib.crc32(f"{text}|{places}|{int(picture.astype(np.int64).sum())}|{candidate}".encode()) / 2**32


@dataclass
class Read:
    """A reading of `Cells`."""

    visual: Any
    pool: MaskSet | None


class Cells(nn.Module):
    """A candidate system, with and without candidates of the picture.

    Args:
        delay: seconds of each call of the model.
        own: the candidates belong to an answer, as InstructSeg's do.
        best: only the best candidate above the threshold is selected.
    """

    name = "cells"
    duplicates_iou = 0.5
    uses_threshold = True

    def __init__(self, delay: float = 0.0, own: bool = False, best: bool = False) -> None:
        super().__init__()
        self.best = best
        self.delay, self.own = delay, own
        self.reads, self.asked = 0, 0
        self.gate = threading.Event()  # clear it to keep the model busy
        self.gate.set()

    def read(self, visual: Any, extra: MaskSet | None = None) -> Read:
        self.reads += 1
        if not isinstance(visual, np.ndarray):
            return Read(visual, None)
        masks = cells(*visual.shape[:2])
        return Read(visual, None if self.own else MaskSet(masks, torch.ones(len(masks), dtype=torch.float32), "cells"))

    def answer(self, reading: Read, prompts: list[Prompt], threshold: float | None) -> list[Answer]:
        self.asked += 1
        self.gate.wait()
        time.sleep(self.delay)
        if any("explode" in prompt.text for prompt in prompts):
            raise ValueError("this prompt is refused")
        if not isinstance(reading.visual, np.ndarray):
            return [self._clip(reading.visual, prompt) for prompt in prompts]
        answers = []
        for prompt in prompts:
            masks = cells(*reading.visual.shape[:2])
            pool = reading.pool or MaskSet(masks, torch.ones(len(masks), dtype=torch.float32), "own")
            scores = torch.tensor(
                [score_of(prompt.text, prompt.references, reading.visual, number) for number in range(len(pool))],
                dtype=torch.float32,
            )
            group = select(pool.masks, scores, scores >= (0.5 if threshold is None else threshold), self.duplicates_iou)
            group = group[:1] if self.best else group
            answers.append(Answer(pool.masks[group], scores[group], pool, scores))
        return answers

    def _clip(self, clip: Clip, prompt: Prompt) -> Answer:
        """One object, cell 5, in every frame but the first."""
        masks = ClipMasks(len(clip), clip.size)
        number = masks.add()
        for frame in range(len(clip)):
            time.sleep(self.delay)
            clip[frame]
            if frame:
                masks.put(number, frame, cells(*clip.size)[5])
        return Answer(masks, torch.tensor([0.75], dtype=torch.float32))


class Writer(nn.Module):
    """A system without candidates, which writes a text."""

    name = "writer"
    uses_threshold = False

    def read(self, visual: Any, extra: MaskSet | None = None) -> Read:
        return Read(visual, None)

    def answer(self, reading: Read, prompts: list[Prompt], threshold: float | None) -> list[Answer]:
        masks = cells(*reading.visual.shape[:2])[[5, 6]]
        score = torch.tensor([0.9, 0.8], dtype=torch.float32)
        return [Answer(masks, score, text=f"cells for {prompt.text}") for prompt in prompts]


class BoxPrompter:
    """The mask of a box is the box; that of a point is its cell."""

    def segment_box(self, image: np.ndarray, box_xyxy: tuple[float, float, float, float]) -> Tensor:
        mask = torch.zeros(image.shape[:2], dtype=torch.bool)
        x0, y0, x1, y1 = (round(value) for value in box_xyxy)
        mask[y0:y1, x0:x1] = True
        return mask

    def segment_point(self, image: np.ndarray, point_xy: tuple[float, float]) -> Tensor:
        x, y = (int(value) for value in point_xy)
        return next(mask for mask in cells(*image.shape[:2]) if mask[y, x])


def cells_model(delay: float = 0.0, own: bool = False, best: bool = False) -> Model:
    return Model(Cells(delay, own, best), 0.5, "cells", BoxPrompter())


def writer_model() -> Model:
    return Model(Writer(), None, "writer", BoxPrompter())
