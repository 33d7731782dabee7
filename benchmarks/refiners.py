"""Compares refiners on masks of generated scenes that are reduced to a grid: gIoU, and seconds per mask.

python benchmarks/refiners.py --grid 16 --scenes 100 --split val
python benchmarks/refiners.py --sweep   # settings of the snapping refiner
"""

import argparse
import time
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from maskselect.ops.masks import resize_nearest, resize_smooth
from maskselect.ops.overlap import pairwise_iou
from maskselect.refiners.snapping import SnappingRefiner
from maskselect.scenes.samples import ask_scenes
from maskselect.structures.protocols import Proposer
from maskselect.systems.refining import REFINERS, default_proposer, load_refiner

THRESHOLDS = (0.3, 0.5, 0.7)
LEASTS = (0.0, 0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
BLURS = (1.0, 0.5, 0.0)


def questions(options: argparse.Namespace) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """Image, union of the targets of each prompt (M, H, W), and the same at grid size, or enlarged again."""
    grid = options.grid
    for scene in ask_scenes(options.split, options.seed, options.scenes):
        unions = [scene.masks[list(p.targets)].any(0) for p in scene.prompts if p.targets]
        if unions:
            coarse = [torch.from_numpy(resize_smooth(mask, (grid, grid))) for mask in unions]
            size = (scene.image.shape[0], scene.image.shape[1]) if options.enlarged else (grid, grid)
            yield scene.image, torch.from_numpy(np.stack(unions)), resize_nearest(torch.stack(coarse), size)


def ious(masks: Tensor, truth: Tensor) -> list[float]:
    """IoU of each mask with its ground truth."""
    return pairwise_iou(masks, truth).diagonal().tolist()


def compare(options: argparse.Namespace) -> None:
    """Print one line for each refiner."""
    for name in ("none", *options.refiners):
        refiner = None if name == "none" else load_refiner(name)
        rows: list[float] = []
        start = time.perf_counter()
        for image, truth, coarse in questions(options):
            size = (image.shape[0], image.shape[1])
            rows += ious(resize_nearest(coarse, size) if refiner is None else refiner.refine(image, coarse), truth)
        seconds = (time.perf_counter() - start) / len(rows)
        print(f"{name:12} masks {len(rows)}  gIoU {100 * np.mean(rows):.2f}  {seconds:.3f} s per mask", flush=True)


def sweep(options: argparse.Namespace) -> None:
    """Print the gIoU of snapping for rules (rows) and `least` (columns), on coarse and exact masks."""
    proposer: Proposer = default_proposer("cpu")
    asked = [(image, truth, coarse, proposer.propose(image)) for image, truth, coarse in questions(options)]

    def score(threshold: float | None, blur: float, least: float, exact: bool) -> float:
        rule: Literal["match", "inside"] = "match" if threshold is None else "inside"
        refiner = SnappingRefiner(proposer, rule, threshold or 0.0, least, options.compared, blur)
        rows = [
            iou
            for image, truth, coarse, pool in asked
            for iou in ious(refiner.refine(image, truth if exact else coarse, pool), truth)
        ]
        return 100 * float(np.mean(rows))

    rules = [(None, blur) for blur in BLURS] + [(threshold, 0.0) for threshold in THRESHOLDS]
    for exact in (False, True):
        print("exact masks" if exact else f"masks of {options.grid} x {options.grid}", "; least:", *LEASTS)
        for threshold, blur in rules:
            rule = f"match, blur {blur}" if threshold is None else f"inside, threshold {threshold}"
            print(rule, *(f"{score(threshold, blur, least, exact):.2f}" for least in LEASTS), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="val")
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grid", type=int, default=16)
    parser.add_argument("--refiners", nargs="*", default=list(REFINERS), help="names or configs (default: all)")
    parser.add_argument("--enlarged", action="store_true", help="enlarge masks first, as systems that write text do")
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--compared", type=int, default=16, help="grid of the snapping refiner (--sweep)")
    given = parser.parse_args()
    (sweep if given.sweep else compare)(given)
