"""Example pictures of an evaluation: the best answers, the worst, and wrong ones with the highest scores."""

import base64
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from maskselect.data.images import load_image
from maskselect.ops.atomic import write_text
from maskselect.ops.masks import resize_nearest
from maskselect.structures.prediction import MaskGroup
from maskselect.structures.sample import Sample
from maskselect.structures.scored import Scored

SIDE = 260
"""Longer side of each picture, px."""
WRONG_BELOW = 0.1
_TARGET, _ANSWER, _REFERENCE = (60, 220, 110), (255, 170, 40), (255, 0, 200)


@dataclass(frozen=True)
class Case:
    """A sample, and a JPEG of up to three pictures side by side: targets, answer, candidates."""

    row: Scored
    jpeg: bytes

    @property
    def source(self) -> str:
        """The picture as `src` of an HTML image."""
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode()


def _best(row: Scored) -> tuple[float, ...] | None:
    return None if row.no_target else (row.iou, row.targets)


def _worst(row: Scored) -> tuple[float, ...] | None:
    return None if row.no_target else (-row.iou, row.target_share)


def _surely_wrong(row: Scored) -> tuple[float, ...] | None:
    return (max(row.scores),) if row.chosen and row.iou < WRONG_BELOW and row.scores else None


RANKS: dict[str, Callable[[Scored], tuple[float, ...] | None]] = {
    "best": _best,
    "worst": _worst,
    "surest and wrong": _surely_wrong,
}
"""For each kind of example the rank of a sample, higher is better; None if it is no example."""


class CaseKeeper:
    """Keeps and draws the best examples of each kind.

    Args:
        each: number of examples of each kind.
    """

    def __init__(self, each: int = 6) -> None:
        self.each = each
        self._kept: dict[str, list[tuple[tuple[float, ...], Case]]] = {kind: [] for kind in RANKS}

    def watch(self, row: Scored, sample: Sample, answer: MaskGroup, pool: Tensor | None) -> None:
        """See a scored sample; a `Watcher` of `maskselect.evaluation.samples.score_samples`."""
        case: Case | None = None
        for kind, rank_of in RANKS.items():
            kept, rank = self._kept[kind], rank_of(row)
            if rank is None or (len(kept) >= self.each and rank <= kept[-1][0]):
                continue
            case = case or Case(row, _draw(sample, answer, None if pool is None else pool.numpy()))
            kept.append((rank, case))
            kept.sort(key=lambda one: one[0], reverse=True)
            del kept[self.each :]

    def save(self, path: Path) -> None:
        """Write the examples as JSON, for a resumed run."""
        kept = {kind: [[case.row.as_json(), case.source] for case in cases] for kind, cases in self.cases().items()}
        write_text(path, json.dumps(kept))

    def load(self, path: Path) -> None:
        """Replace the examples by those that `save` wrote. Raises ValueError if the file is damaged."""
        try:
            for kind, cases in json.loads(path.read_text()).items():
                loaded = [Case(Scored.from_json(row), base64.b64decode(source.split(",")[1])) for row, source in cases]
                self._kept[kind] = [(RANKS[kind](case.row) or (), case) for case in loaded]
        except (ValueError, KeyError, IndexError, AttributeError) as error:
            raise ValueError(f"{path} is damaged ({error}); remove it to start again") from error

    def cases(self) -> dict[str, list[Case]]:
        """The examples of each kind, the best first."""
        return {kind: [case for _, case in kept] for kind, kept in self._kept.items()}


def _draw(sample: Sample, answer: MaskGroup, pool: np.ndarray | None) -> bytes:
    image = load_image(sample.image)
    factor = SIDE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)

    def resized(masks: Iterable[np.ndarray]) -> list[np.ndarray]:
        return [resize_nearest(torch.from_numpy(mask)[None], size[::-1])[0].numpy() for mask in masks]

    references = resized(sample.prompt.references.numpy())
    targets = resized(sample.gt_pool[list(sample.targets)].numpy())
    panels = [_tint(small, targets, _TARGET, references), _tint(small, resized(answer), _ANSWER, references)]
    if pool is not None:
        panels.append(_outline(small, resized(pool)))
    gap = np.full((small.shape[0], 6, 3), 255, np.uint8)
    strip = np.concatenate([part for panel in panels for part in (gap, panel)][1:], axis=1)
    data = io.BytesIO()
    Image.fromarray(strip).save(data, "JPEG", quality=82)
    return data.getvalue()


def _tint(
    image: np.ndarray, masks: list[np.ndarray], colour: tuple[int, int, int], references: list[np.ndarray]
) -> np.ndarray:
    out = image.copy()
    for mask in masks:
        out[mask] = (0.5 * out[mask] + 0.5 * np.array(colour)).astype(np.uint8)
    for outlined, line in ((masks, colour), (references, _REFERENCE)):
        for mask in outlined:
            _draw_contours(out, mask, line, 2)
    return out


def _outline(image: np.ndarray, masks: list[np.ndarray]) -> np.ndarray:
    out = image.copy()
    for number, mask in enumerate(masks):
        hue = np.array([[[number * 47 % 180, 220, 255]]], np.uint8)
        red, green, blue = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].tolist()
        _draw_contours(out, mask, (red, green, blue), 1)
    return out


def _draw_contours(canvas: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], width: int) -> None:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, colour, width)
