"""Overlap of masks on runs and on packed bits, against decoding and comparing dense masks.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/overlap.py

N candidates against G targets of 1024 x 1024, given as COCO RLE as files hold them, and given as dense masks as a
predictor does. Every way is timed in turn in each round, so that whatever else the machine does falls on all of them;
what is printed are ratios, with quartiles over the rounds. Results are compared before anything is timed.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch

from maskselect.ops.overlap import pairwise_iou
from maskselect.ops.packed import pairwise_counts, rle_iou
from maskselect.ops.rle import decode_many, encode

SIDE = 1024
Way = Callable[[], np.ndarray]


def things(count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, SIDE, SIDE) bool: ragged outlines of 30 to 300 pixels across, as things in photographs have."""
    masks = np.zeros((count, SIDE, SIDE), bool)
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    for mask in masks:
        radii = rng.integers(15, 150) * (1 + 0.3 * rng.standard_normal(60))
        middle = rng.integers(0, SIDE, 2)
        outline = middle + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
        mask[:] = cv2.fillPoly(np.zeros((SIDE, SIDE), np.uint8), [outline.astype(np.int32)], 1).astype(bool)
    return masks


def speckled(count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, SIDE, SIDE) bool: noise in patches of 4 x 4, hard on runs: each mask has about 131,000 of them."""
    patches = rng.random((count, SIDE // 4, SIDE // 4)) < 0.5
    return patches.repeat(4, axis=1).repeat(4, axis=2)


def ways(candidates: np.ndarray, targets: np.ndarray) -> tuple[dict[str, Way], dict[str, Way]]:
    """From RLE and from dense masks; the first of each is what the others are compared with."""
    codes = encode(candidates), encode(targets)
    tensors = torch.from_numpy(candidates), torch.from_numpy(targets)

    def decoded() -> list[np.ndarray]:
        return [decode_many(side, (SIDE, SIDE)) for side in codes]

    def ratio(masks: tuple[torch.Tensor, ...]) -> np.ndarray:
        inter, union = pairwise_counts(*masks)
        return (inter.double() / union.clamp(min=1)).numpy()

    from_rle: dict[str, Way] = {
        "decode, dense matrix product": lambda: pairwise_iou(*(torch.from_numpy(m) for m in decoded())).numpy(),
        "decode, packed bits": lambda: ratio(tuple(torch.from_numpy(m) for m in decoded())),
        "runs: rle_iou": lambda: rle_iou(*codes),
    }
    from_dense: dict[str, Way] = {
        "dense matrix product": lambda: pairwise_iou(*tensors).numpy(),
        "packed bits: pairwise_counts": lambda: ratio(tensors),
        "encode, runs": lambda: rle_iou(encode(candidates), encode(targets)),
    }
    return from_rle, from_dense


def check(some: dict[str, Way]) -> float:
    """The largest difference of any way from the first, after which it may be timed."""
    first, *others = some.values()
    expected = first()
    return max(float(np.abs(way() - expected).max()) for way in others)


def compare(some: dict[str, Way], rounds: int) -> list[str]:
    """One line a way: how many times faster than the first."""
    spent: dict[str, list[float]] = {name: [] for name in some}
    for _ in range(rounds):
        for name, way in some.items():
            start = time.perf_counter()
            way()
            spent[name].append(time.perf_counter() - start)
    first, *others = some
    lines = [f"  {first}: 1"]
    for name in others:
        ratios = [slow / fast for slow, fast in zip(spent[first], spent[name], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        lines.append(f"  {name}: {middle:.1f} times faster (quartiles {low:.1f} to {high:.1f})")
    return lines


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--candidates", type=int, default=60)
    parser.add_argument("--targets", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(options.seed)
    for kind in (things, speckled):
        candidates, targets = kind(options.candidates, rng), kind(options.targets, rng)
        for source, some in zip(("RLE", "dense masks"), ways(candidates, targets), strict=True):
            difference = check(some)
            print(f"{kind.__name__}, {options.candidates} x {options.targets} of {SIDE} x {SIDE}, given as {source}; "
                  f"largest difference {difference:.1e}; {options.rounds} rounds")  # fmt: skip
            print(*compare(some, options.rounds), sep="\n")


if __name__ == "__main__":
    main()
