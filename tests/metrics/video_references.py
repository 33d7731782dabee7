"""Measures of videos written out again from the published evaluators, as `references.py` has those of images."""

import itertools

import numpy as np
from scipy import ndimage

from tests.metrics.references import counts


def slow_f(prediction: np.ndarray, target: np.ndarray, void: np.ndarray) -> float:
    """davisvideochallenge/davis2017-evaluation@30b698a, davis2017/metrics.py, f_measure and _seg2bmap.

    With SciPy's dilation, and pixel by pixel where the boundary is drawn.
    """
    maps = []
    for mask in (prediction & ~void, target & ~void):
        height, width = mask.shape
        edge = np.zeros_like(mask)
        for y, x in itertools.product(range(height), range(width)):
            near = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            edge[y, x] = any(mask[y, x] != mask[p] for p in near if p[0] < height and p[1] < width)
        maps.append(edge)
    radius = int(np.ceil(0.008 * np.linalg.norm(target.shape)))
    yy, xx = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    wide = [ndimage.binary_dilation(edge, yy**2 + xx**2 <= radius**2) for edge in maps]
    (drawn, true), sizes = maps, [edge.sum() for edge in maps]
    if 0 in sizes:
        return float(sizes[0] == sizes[1])
    p, r = (drawn & wide[1]).sum() / sizes[0], (true & wide[0]).sum() / sizes[1]
    return 2 * p * r / (p + r) if p + r else 0.0


def best_order(answers: np.ndarray, objects: np.ndarray, void: np.ndarray) -> np.ndarray:
    """davisvideochallenge/davis2017-evaluation@30b698a, davis2017/evaluation.py, _evaluate_unsupervised.

    (G, 2), J and F of the objects; every order is tried for the greatest sum.
    """
    size = max(len(answers), len(objects))
    answers = np.concatenate([answers, np.zeros((size - len(answers), *objects.shape[1:]), bool)])
    table = np.zeros((size, len(objects), 2))
    for (k, a), (g, b) in itertools.product(enumerate(answers), enumerate(objects)):
        inter, union = (a & b & ~void).sum((1, 2)), ((a | b) & ~void).sum((1, 2))
        j = [i / u if u else 1.0 for i, u in zip(inter, union, strict=True)]
        table[k, g] = np.mean(j), np.mean([slow_f(*frame) for frame in zip(a, b, void, strict=True)])
    orders = itertools.permutations(range(size), len(objects))
    order = max(orders, key=lambda o: sum(table[k, g].sum() for g, k in enumerate(o)))
    return table[list(order), range(len(objects))]


def revos(draws: list[tuple[np.ndarray, int]], white: int) -> dict[str, float]:
    """cilinyan/VISA@40ae6e8, tools/eval_revos.py and tools/metrics.py, in their own uint8 arithmetic.

    draws: (answer, truth, rest) as (3, T, H, W) bool, and type_id.

    white: what a predicted pixel is, 255 from PNG or 1 from RLE.
    """
    groups: dict[int, list[np.ndarray]] = {0: [], 1: [], 2: []}
    for (answer, truth, rest), kind in draws:
        drawn, label = answer.astype(np.uint8) * np.uint8(white), truth.astype(np.uint8)
        wrong = ((1 - label) * drawn).sum((1, 2))
        r = np.maximum(1 - wrong / ((truth | rest).sum((1, 2)) + 1e-6), 0).mean()
        shared = [counts(*pair) for pair in zip(answer, truth, strict=True)]
        j = np.mean([i / u if u else 1.0 for i, u in shared])
        nothing = np.zeros_like(answer[0])
        f = np.mean([slow_f(a, b, nothing) for a, b in zip(answer, truth, strict=True)])
        groups[kind].append(np.array([100 * each for each in (j, f, (drawn == label).mean(), r)]).round(2))
    means = (np.mean(groups[0], 0) + np.mean(groups[1], 0)) / 200
    return dict(zip("JFAR", means.tolist(), strict=True))


def expressions(clips: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """cilinyan/VISA@40ae6e8, tools/eval_mevis.py and tools/eval_davis17.py: means, rounded once at the very end.

    clips: answer and truth of each expression, (T, H, W) bool. Unrounded here.
    """
    j, f = [], []
    for answer, truth in clips:
        shared = [counts(*pair) for pair in zip(answer, truth, strict=True)]
        j.append(np.mean([inter / union if union else 1.0 for inter, union in shared]))
        f.append(np.mean([slow_f(a, b, np.zeros_like(a)) for a, b in zip(answer, truth, strict=True)]))
    return {"J": float(np.mean(j)), "F": float(np.mean(f)), "J&F": float((np.mean(j) + np.mean(f)) / 2)}
