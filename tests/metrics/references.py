"""Measures written out again, from the published rules and by other means than maskselect uses, and cases to try.

Plain NumPy, with pycocotools, torchvision, OpenCV, Pillow and SciPy where they have the same thing. The tests and
`benchmarks/metric_parity.py` hold maskselect against these.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torchvision.ops as boxes
from PIL import Image
from pycocotools import mask as coco
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

F1_AT = np.arange(0.5, 1, 0.05)
PRECISION_AT = (0.5, 0.6, 0.7, 0.8, 0.9)
Scaling = Callable[[np.ndarray], np.ndarray]


class Case(NamedTuple):
    """One sample, bool arrays: prediction (M, H, W), targets (G, H, W), pool (N, H, W), ignore (H, W).

    rejected: a decision of its own, which may contradict the pixels.
    """

    prediction: np.ndarray
    targets: np.ndarray
    pool: np.ndarray
    ignore: np.ndarray
    rejected: bool

    def tensors(self) -> list[torch.Tensor]:
        return [torch.from_numpy(each) for each in self[:4]]


def draw_mask(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Empty, full, one pixel, noise, or a box with holes."""
    mask, kind = np.zeros(size, bool), rng.integers(12)
    if kind == 1:
        mask[:] = True
    elif kind == 2:
        mask[rng.integers(size[0]), rng.integers(size[1])] = True
    elif kind == 3:
        mask = rng.random(size) < rng.random()
    elif kind > 3:
        (top, bottom), (left, right) = (np.sort(rng.integers(0, side + 1, 2)) for side in size)
        mask[top:bottom, left:right] = rng.random((bottom - top, right - left)) < rng.choice([0.9, 1.0])
    return mask


def draw_cases(count: int, seed: int) -> list[Case]:
    rng = np.random.default_rng(seed)

    def draw(most: int) -> np.ndarray:
        return np.stack([draw_mask(rng, size) for _ in range(most)]) if most else np.zeros((0, *size), bool)

    cases = []
    for _ in range(count):
        size = int(rng.integers(3, 48)), int(rng.integers(3, 48))
        targets, pool = draw(int(rng.integers(0, 4))), draw(int(rng.integers(0, 5)))
        near = targets & (rng.random(targets.shape) < rng.choice([0.7, 0.95, 1.0]))
        pool = np.concatenate([pool, near])
        prediction = pool[rng.random(len(pool)) < 0.6]
        cases.append(
            Case(prediction, targets, pool, rng.random(size) < rng.choice([0.0, 0.3]), bool(rng.random() < 0.2))
        )
    return cases


def draw_clip(rng: np.random.Generator, masks: int, frames: int, size: tuple[int, int]) -> np.ndarray:
    return np.array([[draw_mask(rng, size) for _ in range(frames)] for _ in range(masks)], bool).reshape(
        -1, frames, *size
    )


def union_of(masks: np.ndarray) -> np.ndarray:
    return masks.any(0)


def counts(a: np.ndarray, b: np.ndarray) -> tuple[int, int]:
    return int(np.logical_and(a, b).sum()), int(np.logical_or(a, b).sum())


def coco_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """pycocotools on its own encoding: (N, M)."""
    codes = [[coco.encode(np.asfortranarray(mask, np.uint8)) for mask in masks] for masks in (a, b)]
    return np.asarray(coco.iou(*codes, [0] * len(b))) if len(a) and len(b) else np.zeros((len(a), len(b)))


def is_hit(prediction: np.ndarray, target: np.ndarray) -> float:
    """Acc@0.5 of two (H, W) masks through torchvision's boxes, whose ends are pixel indices, too."""
    if not (prediction.any() and target.any()):
        return 0.0
    a, b = (boxes.masks_to_boxes(torch.from_numpy(mask)[None]) for mask in (prediction, target))
    return float(boxes.box_iou(a, b) > 0.5)


def set_f1(case: Case) -> list[float]:
    sides = [boxes.masks_to_boxes(torch.from_numpy(m)) + torch.tensor([0, 0, 1, 1]) if len(m) else torch.zeros(0, 4)
             for m in (case.prediction, case.targets)]  # fmt: skip
    iou = boxes.box_iou(*sides).numpy().astype(float)
    empty = [~masks.any((1, 2)) for masks in (case.prediction, case.targets)]
    iou[empty[0]], iou[:, empty[1]] = 0, 0
    total = sum(len(side) for side in sides)
    matched = iou[linear_sum_assignment(-iou)]
    return [2 * float((matched >= limit - 1e-6).sum()) / total if total else 1.0 for limit in F1_AT]


def as_it_is(mask: np.ndarray) -> np.ndarray:
    return mask


def stretched(mask: np.ndarray, side: int) -> np.ndarray:
    """Pillow's nearest neighbour: by the centres of pixels."""
    return np.asarray(Image.fromarray(mask).resize((side, side), Image.Resampling.NEAREST))


def letterboxed(mask: np.ndarray, side: int) -> np.ndarray:
    scale = side / max(mask.shape)
    height, width = (max(1, int(each * scale)) for each in mask.shape)
    small = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    top, left = (side - height) // 2, (side - width) // 2
    return cv2.copyMakeBorder(small, top, side - height - top, left, side - width - left, cv2.BORDER_CONSTANT) > 0


def share(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else math.nan


def lisa(cases: list[Case], epsilon: float, ignore: bool, scaled: Scaling = as_it_is) -> dict[str, float]:
    """Histograms of labels 0 and 1, where label 255 of the truth takes the pixel out of both."""
    summed, iou_sum = np.zeros(2), 0.0
    for case in cases:
        away = scaled(case.ignore) & ignore
        label = np.where(away, 255, scaled(union_of(case.targets)))
        said = np.where(away, 255, scaled(union_of(case.prediction)))
        inter = (said[said == label] == 1).sum()
        union = (said == 1).sum() + (label == 1).sum() - inter
        iou_sum += inter / (union + epsilon) + (union == 0)
        summed += inter, union
    return {"gIoU": iou_sum / (len(cases) + 1e-5), "cIoU": summed[0] / (summed[1] + 1e-10)}


def rela(cases: list[Case], least: int | None, scaled: Scaling) -> dict[str, float]:
    """gRefCOCO's evaluator: flags decide. least: fewer pixels say "nothing"; None takes the decision of the case."""
    tally, iou_sum, inters, unions, right = dict.fromkeys(("TP", "FN", "FP", "TN"), 0), 0.0, 0, 0, []
    for case in cases:
        answer = scaled(union_of(case.prediction))
        inter, union = counts(answer, scaled(union_of(case.targets)))
        rejected = case.rejected if least is None else bool(answer.sum() < least)
        if len(case.targets) == 0:
            tally["TP" if rejected else "FN"] += 1
            iou_sum += rejected
            unions += 0 if rejected else union
            continue
        tally["FP" if rejected else "TN"] += 1
        inter = 0 if rejected else inter
        iou = inter / union if union else 0.0
        iou_sum, inters, unions = iou_sum + iou, inters + inter, unions + union
        right.append([iou >= limit for limit in PRECISION_AT])
    passed = np.mean(right, 0) if right else [math.nan] * len(PRECISION_AT)
    return {
        "gIoU": iou_sum / len(cases), "cIoU": share(inters, unions),
        "N-acc": share(tally["TP"], tally["TP"] + tally["FN"]), "T-acc": share(tally["TN"], tally["TN"] + tally["FP"]),
    } | {f"Pr@{limit}": float(value) for limit, value in zip(PRECISION_AT, passed, strict=True)}  # fmt: skip


def gsva(cases: list[Case], zom: bool) -> dict[str, float]:
    """GSVA's `eval_gres`: no target means no pixel, and the mask of a rejected target counts like any other."""
    iou_sum, inters, unions = 0.0, 0, 0
    found: dict[bool, list[bool]] = {True: [], False: []}
    for case in cases:
        inter, union = counts(union_of(case.prediction), union_of(case.targets))
        nothing = not case.targets.any()
        found[nothing].append(case.rejected)
        if not nothing:
            iou_sum, inters, unions = iou_sum + inter / (union + 1e-8), inters + inter, unions + union
        elif case.rejected:
            iou_sum += 1
        elif not zom:
            unions += union
    return {
        "gIoU": iou_sum / (len(cases) + 1e-5), "cIoU": inters / (unions + 1e-10),
        "N-acc": share(sum(found[True]), len(found[True])),
        "T-acc": share(found[False].count(False), len(found[False])),
    }  # fmt: skip


def plain(cases: list[Case], scaled: Scaling, strict: bool) -> dict[str, float]:
    """RMSIN (>=, empty union 0), or SegEarth-R1 (>, epsilons, empty union 1)."""
    pairs = np.array([counts(scaled(union_of(case.prediction)), scaled(union_of(case.targets))) for case in cases])
    inter, union = pairs.T.astype(float)
    if strict:
        iou = np.where(union == 0, 1.0, inter / (union + 1e-5))
    else:
        iou = np.where(union == 0, 0.0, inter / np.maximum(union, 1))
    passed = {f"Pr@{limit}": float((iou > limit if strict else iou >= limit).mean()) for limit in PRECISION_AT}
    total = inter.sum() / (union.sum() + 1e-10) if strict else share(inter.sum(), union.sum())
    return {"gIoU": float(iou.mean()), "cIoU": float(total)} | passed


def muse(cases: list[Case]) -> dict[str, float]:
    """Pairs of greatest summed IoU by trying every order, the rest against nothing."""
    summed, means = np.zeros(2), []
    for case in cases:
        size = max(len(case.prediction), len(case.targets))
        frame = case.targets.shape[1:]
        a, b = (np.concatenate([m, np.zeros((size - len(m), *frame), bool)]) for m in case[:2])
        pairs = np.array([[counts(x, y) for y in b] for x in a], float).reshape(size, size, 2)
        iou = np.where(pairs[..., 1] > 0, pairs[..., 0] / np.maximum(pairs[..., 1], 1), 1.0)
        places = np.arange(size)
        order = max(itertools.permutations(range(size)), key=lambda o: iou[list(o), places].sum())
        chosen = pairs[list(order), places]
        summed += chosen.sum(0)
        each = chosen[:, 0] / (chosen[:, 1] + 1e-5) + (chosen[:, 1] == 0)
        means.append(each.mean() if size else 1.0)
    return {"gIoU": float(np.sum(means)) / (len(cases) + 1e-5), "cIoU": summed[0] / (summed[1] + 1e-10)}


def slow_f(prediction: np.ndarray, target: np.ndarray, void: np.ndarray) -> float:
    """F with SciPy's dilation, pixel by pixel where the boundary is drawn."""
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
    """(G, 2): J and F of the objects in the order of greatest sum."""
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
    """VISA's evaluator in its own uint8 arithmetic. draws: (answer, truth, rest) as (3, T, H, W) bool, and type_id.

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
