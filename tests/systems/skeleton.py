"""A whole system in one file: the half of the picture that the prompt names. No candidates, no threshold."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maskselect.structures.answer import Answer
from maskselect.structures.clip import Clip, ClipMasks
from maskselect.structures.groups import GroupSource, PrepareSettings, using
from maskselect.structures.masks import MaskSet
from maskselect.structures.sample import Prompt


class Halves(nn.Module):
    name, paper, uses_threshold, answers_prompts, runs_every_part = "halves", "", False, True, True

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.zeros(()))

    def read(self, visual: np.ndarray | Clip, extra: MaskSet | None = None) -> Any:
        if extra is not None:
            raise ValueError("halves has no candidates")
        return visual.shape[:2] if isinstance(visual, np.ndarray) else visual

    def answer(self, reading: Any, prompts: list[Prompt], threshold: float | None) -> list[Answer]:
        height, width = reading if isinstance(reading, tuple) else reading.size
        masks: Any = (torch.arange(width) < width // 2).expand(1, height, width)
        if not isinstance(reading, tuple):
            half, masks = masks[0], ClipMasks(len(reading), reading.size)
            number = masks.add()
            for frame in range(len(reading)):
                masks.put(number, frame, half)
        return [Answer(masks, torch.ones(1), text=f"the left half for {p.text}") for p in prompts]

    def preparer(self, settings: PrepareSettings, training: bool) -> "Halves":
        return self

    def prepare(self, source: GroupSource, number: int, rng: np.random.Generator, prompts: int) -> float:
        with using(source, number):
            masks = source.load(number).masks
        return float(masks[..., : masks.shape[-1] // 2].sum() / masks.sum())

    collate = staticmethod(torch.tensor)

    def loss(self, batch: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.left - batch).square().mean()}

    validate = loss

    def blocks(self) -> list[nn.Module]:
        return []

    def learned_state(self) -> dict[str, Tensor]:
        return self.state_dict()

    def load_learned(self, tensors: dict[str, Tensor], origin: object) -> None:
        self.load_state_dict(tensors)
