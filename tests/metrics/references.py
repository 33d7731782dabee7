"""Measures written out again from the published evaluators, by other means than maskselect uses, and cases to try.

Each function names the repository, commit, file and function whose rule it states. Plain NumPy, with pycocotools,
torchvision, OpenCV, Pillow, SciPy and torch's own resizing where the evaluators use them or they have the same thing.
The tests and `benchmarks/metric_parity.py` hold maskselect against these. Videos: `video_references.py`.
"""

import contextlib
import io
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
import torchvision.ops as boxes
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
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
        size = int(rng.integers(3, 52)), int(rng.integers(3, 52))  # 49: where 1024 / size * size falls short
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
    """mc-lan/Text4Seg@069a7f7, ms-swift/text4seg/eval_refer_comprehen.py: Acc@0.5 of two (H, W) masks.

    Through torchvision's boxes, whose ends are pixel indices, as those of Text4Seg's masks_to_boxes are.
    """
    if not (prediction.any() and target.any()):
        return 0.0
    a, b = (boxes.masks_to_boxes(torch.from_numpy(mask)[None]) for mask in (prediction, target))
    return float(boxes.box_iou(a, b) > 0.5)


def set_f1(case: Case) -> list[float]:
    """Our own definition of F1, with torchvision's boxes."""
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
    """yz93/LAVT-RIS@066bcf2, transforms.py, Resize: Pillow's nearest neighbour. RMSIN keeps it."""
    return np.asarray(Image.fromarray(mask).resize((side, side), Image.Resampling.NEAREST))


def floored(mask: np.ndarray, side: int) -> np.ndarray:
    """wangjunchi/LLMSeg@9d9cf58, training.py, validate_threshold: torch's `interpolate(mode="nearest")`."""
    batch = torch.from_numpy(mask.astype(np.uint8))[None, None]
    return F.interpolate(batch, size=(side, side), mode="nearest")[0, 0].numpy() > 0


def letterboxed(mask: np.ndarray, side: int) -> np.ndarray:
    """earth-insights/SegEarth-R1@07dee34, segearth_r1/eval_and_test/eval_dataset/RS_val_dataset.py, preprocess_mask.

    Where the shorter side would be rounded to nothing, which OpenCV refuses, it is one pixel.
    """
    height, width = mask.shape
    if width > height:
        size = (side, max(1, int(height * (side / width))))
    else:
        size = (max(1, int(width * (side / height))), side)
    small = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    rest_x, rest_y = side - size[0], side - size[1]
    top, left = rest_y // 2, rest_x // 2
    return cv2.copyMakeBorder(small, top, rest_y - top, left, rest_x - left, cv2.BORDER_CONSTANT, value=0) > 0


def share(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else math.nan


def foreground(output: np.ndarray, target: np.ndarray, ignore: np.ndarray | None = None) -> np.ndarray:
    """dvlab-research/LISA@37531c5, utils/utils.py, intersectionAndUnionGPU: (2,), intersection and union of class 1.

    Histograms of labels 0 and 1, where label 255 of the target takes the pixel out of both.
    """
    label = np.where(False if ignore is None else ignore, 255, target.astype(int))
    said = np.where(label == 255, 255, output.astype(int))

    def counted(labels: np.ndarray) -> np.ndarray:
        return np.histogram(labels, bins=2, range=(0, 1))[0]

    inter = counted(said[said == label])
    return np.array([inter, counted(said) + counted(label) - inter])[:, 1].astype(float)


def lisa(
    cases: list[Case], epsilon: float, ignore: bool, scaled: Scaling = as_it_is, count_epsilon: float = 1e-5
) -> dict[str, float]:
    """dvlab-research/LISA@4b17762, train_ds.py, validate; all_reduce of utils/utils.py adds 1e-5 to the count.

    epsilon: of the IoU: 1e-5 in LISA, 1e-8 in wangjunchi/LLMSeg@9d9cf58, training.py and validate_llmseg.py.
    count_epsilon: 0 where no all_reduce follows: bytedance/Sa2VA@0d8f983, projects/sa2va/evaluation/dataset/RES.py,
        RESDataset.evaluate; mc-lan/Text4Seg@fdd1188, ms-swift/text4seg/eval_refer_seg.py; zamling/PSALM@94b2d33,
        psalm/eval/referring_segmentation.py.
    """
    summed, mean = np.zeros(2), 0.0
    for case in cases:
        away = scaled(case.ignore) if ignore else None
        pair = foreground(scaled(union_of(case.prediction)), scaled(union_of(case.targets)), away)
        mean += pair[0] / (pair[1] + epsilon) + (1.0 if pair[1] == 0 else 0.0)
        summed += pair
    return {"gIoU": mean / (len(cases) + count_epsilon), "cIoU": summed[0] / (summed[1] + 1e-10)}


def rela(cases: list[Case], least: int | None, scaled: Scaling) -> dict[str, float]:
    """henghuiding/ReLA@1e6e889, gres_model/evaluation/refer_evaluation.py, ReferEvaluator.evaluate: flags decide.

    least: fewer pixels say "nothing", for models without a flag; None takes the decision of the case.
    ReLA writes N-acc and T-acc as 0 where no sample lacks a target; here they are what its formulas give.
    """
    nt, iou_sum, inters, unions, right = dict.fromkeys(("TP", "TN", "FP", "FN"), 0), 0.0, 0, 0, []
    for case in cases:
        answer = scaled(union_of(case.prediction))
        inter, union = counts(answer, scaled(union_of(case.targets)))
        pred_nt = case.rejected if least is None else bool(answer.sum() < least)
        if len(case.targets) == 0:
            nt["TP" if pred_nt else "FN"] += 1
            iou_sum += 1 if pred_nt else 0
            unions += 0 if pred_nt else union
        else:
            nt["FP" if pred_nt else "TN"] += 1
            inter = 0 if pred_nt else inter
            this_iou = 0.0 if union == 0 else inter / union
            iou_sum, inters, unions = iou_sum + this_iou, inters + inter, unions + union
            right.append([this_iou >= limit for limit in PRECISION_AT])
    passed = np.mean(right, 0) if right else [math.nan] * len(PRECISION_AT)
    return {
        "gIoU": iou_sum / len(cases), "cIoU": share(inters, unions),
        "N-acc": share(nt["TP"], nt["TP"] + nt["FN"]), "T-acc": share(nt["TN"], nt["TN"] + nt["FP"]),
    } | {f"Pr@{limit}": float(value) for limit, value in zip(PRECISION_AT, passed, strict=True)}  # fmt: skip


def gsva(cases: list[Case], zom: bool) -> dict[str, float]:
    """LeapLabTHU/GSVA@a1af9b2, solver.py, eval_gres: truth by pixels, and a rejected target's mask counts like any."""
    nt, iou_sum, summed = dict.fromkeys(("TP", "TN", "FP", "FN"), 0), 0.0, np.zeros(2)
    for case in cases:
        pair = foreground(union_of(case.prediction), union_of(case.targets))
        if not case.targets.any():
            nt["TP" if case.rejected else "FN"] += 1
            iou_sum += 1.0 if case.rejected else 0.0
            summed[1] += 0 if case.rejected or zom else pair[1]
        else:
            nt["FP" if case.rejected else "TN"] += 1
            iou_sum += pair[0] / (pair[1] + 1e-8)
            summed += pair
    return {
        "gIoU": iou_sum / (len(cases) + 1e-5), "cIoU": summed[0] / (summed[1] + 1e-10),
        "N-acc": share(nt["TP"], nt["TP"] + nt["FN"]), "T-acc": share(nt["TN"], nt["TN"] + nt["FP"]),
    }  # fmt: skip


def rmsin(cases: list[Case], scaled: Scaling) -> dict[str, float]:
    """Lsan2401/RMSIN@17c7787, test.py, evaluate and computeIoU: an empty union is 0, Pr@X with >=, no epsilon."""
    cum, ious = np.zeros(2), []
    for case in cases:
        inter, union = counts(scaled(union_of(case.prediction)), scaled(union_of(case.targets)))
        ious.append(0.0 if union == 0 else inter / union)
        cum += inter, union
    passed = {f"Pr@{limit}": float(np.mean([iou >= limit for iou in ious])) for limit in PRECISION_AT}
    return {"gIoU": float(np.mean(ious)), "cIoU": share(*cum)} | passed


def segearth(cases: list[Case], scaled: Scaling) -> dict[str, float]:
    """earth-insights/SegEarth-R1@4b32e94, segearth_r1/eval_and_test/eval.py, compute_metric: Pr@X with >."""
    summed, ious = np.zeros(2), []
    for case in cases:
        pair = foreground(scaled(union_of(case.prediction)), scaled(union_of(case.targets)))
        ious.append(1.0 if pair[1] == 0 else pair[0] / (pair[1] + 1e-5))
        summed += pair
    passed = {f"Pr@{limit}": float(np.mean([iou > limit for iou in ious])) for limit in PRECISION_AT}
    return {"gIoU": float(np.mean(ious)), "cIoU": summed[0] / (summed[1] + 1e-10)} | passed


def muse(images: list[list[Case]]) -> dict[str, float]:
    """MaverickRen/PixelLM@c43c0af, train_ds.py, ar_validate: an image with the cases that are its questions.

    acc_iou is divided by max_num, the larger number of masks of the whole image, and enters the meter max_num times.
    PixelLM's matching needs logits; here every assignment is tried, for the greatest sum of IoUs of all pairs, those of
    the left-over masks with nothing included. Left-over predictions are masks here, not raw logits.
    """
    meter, count, summed = 0.0, 0, np.zeros(2)
    for questions in images:
        max_num = max(sum(len(case.prediction) for case in questions), sum(len(case.targets) for case in questions))
        for case in questions:
            pairs = _best_pairs(case.prediction, case.targets)
            meter += sum(pair[0] / (pair[1] + 1e-5) + (pair[1] == 0) for pair in pairs)
            summed += np.sum(pairs, 0) if pairs else 0
        count += max_num
    mean = meter / (count + 1e-5) if count else math.nan  # of no mask at all PixelLM makes no sum, and stops
    return {"gIoU": mean, "cIoU": summed[0] / (summed[1] + 1e-10)}


def _best_pairs(given: np.ndarray, true: np.ndarray) -> list[np.ndarray]:
    """Intersection and union of each pair: as many as the smaller side has, then the rest against nothing."""
    if len(given) > len(true):
        return _best_pairs(true, given)
    nothing = np.zeros_like(true[:1]).any(0) if len(true) else None
    options = []
    for order in itertools.permutations(range(len(true)), len(given)):
        pairs = [foreground(mask, true[place]) for mask, place in zip(given, order, strict=True)]
        pairs += [foreground(nothing, true[place]) for place in range(len(true)) if place not in order]
        options.append(pairs)
    return max(options, key=lambda pairs: sum(pair[0] / pair[1] if pair[1] else 1.0 for pair in pairs))


def average_recall(cases: list[Case], most: int = 1000) -> dict[float, float]:
    """cocodataset/cocoapi@e81c312, PythonAPI/pycocotools/cocoeval.py, COCOeval, run as it is installed.

    Each case is an image, its targets are the objects and its pool the detections, the first of the highest score; one
    category, every size. Recall at each threshold; NaN without objects. An object without a pixel is none.
    """
    objects: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number, case in enumerate(cases):
        for mask in case.targets[case.targets.any((1, 2))]:
            code = coco.encode(np.asfortranarray(mask, np.uint8))
            objects.append({"id": len(objects) + 1, "segmentation": code, "area": int(mask.sum()), "iscrowd": 0}
                           | {"image_id": number, "category_id": 1})  # fmt: skip
        for place, mask in enumerate(case.pool):
            code = coco.encode(np.asfortranarray(mask, np.uint8))
            found.append({"image_id": number, "category_id": 1, "segmentation": code, "score": 1 / (1 + place)})
    if not objects or not found:
        return dict.fromkeys(F1_AT.round(2).tolist(), 0.0 if objects else math.nan)
    truth = COCO()
    truth.dataset = {
        "images": [{"id": number, "height": c.ignore.shape[0], "width": c.ignore.shape[1]}
                   for number, c in enumerate(cases)],
        "categories": [{"id": 1, "name": "object"}], "annotations": objects,
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(found), "segm")
        run.params.maxDets, run.params.areaRng, run.params.areaRngLbl = [most], [[0, 1e10]], ["all"]
        run.evaluate()
        run.accumulate()
    return dict(zip(F1_AT.round(2).tolist(), run.eval["recall"][:, 0, 0, 0].tolist(), strict=True))
