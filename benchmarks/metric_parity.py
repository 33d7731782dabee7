"""Every measure against somebody else's code, or against its rule written out again.

    python benchmarks/metric_parity.py --write

prints a table of the largest difference over seeded random cases, each case alone and all together, and with `--write`
puts it into docs/results/metrics.md. Cases hold empty, absent and full masks, single pixels, noise and odd sizes. The
rules are in tests/metrics/references.py.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torchmetrics.classification import BinaryJaccardIndex, BinaryRecall, BinarySpecificity
from torchmetrics.functional.classification import binary_jaccard_index

from maskselect.metrics.boundary import boundary_f
from maskselect.metrics.canvas import letterbox, stretch, stretch_floor
from maskselect.metrics.protocols import ALL, PROTOCOLS, RECALL_AT, Protocol
from maskselect.metrics.referring import ReferringMetrics
from maskselect.metrics.summary import add_up, sums_of
from maskselect.metrics.video import VideoMetrics, region_j
from maskselect.ops.atomic import write_text
from maskselect.ops.overlap import pairwise_iou
from maskselect.ops.packed import pairwise_counts, rle_iou
from maskselect.ops.rle import encode
from maskselect.structures.scored import Scored

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the rules lie among the tests, which are no installed package
from tests.metrics import references as ref  # noqa: E402
from tests.metrics import video_references as video  # noqa: E402

DOCUMENT = ROOT / "docs" / "results" / "metrics.md"
MARKS = ("<!-- agreements: benchmarks/metric_parity.py --write -->", "<!-- end of agreements -->")
EVERYTHING = replace(PROTOCOLS["maskselect"], measures=ALL)
BY_PIXELS = replace(EVERYTHING, empty_rule="lisa")
Values = dict[str, float]


class Row(NamedTuple):
    """One line of the table."""

    measure: str
    reference: str
    cases: int
    difference: float


def measured(cases: list[ref.Case], protocol: str | Protocol, decision: bool = False, ignore: bool = False) -> Values:
    metrics = ReferringMetrics(protocol=protocol)
    for case in cases:
        prediction, targets, pool, away = (torch.from_numpy(each) for each in case[:4])
        metrics.update(prediction, targets, pool, case.rejected if decision else None, away if ignore else None)
    return {name: float(value) for name, value in metrics.compute().items()}


def apart(ours: Values, theirs: Values) -> float:
    """The largest difference of what both name; undefined agrees with undefined alone."""
    pairs = [(ours[name], theirs[name]) for name in theirs]
    return max(
        0.0 if math.isnan(a) and math.isnan(b) else math.inf if math.isnan(a - b) else abs(a - b) for a, b in pairs
    )


def agreement(
    cases: list[ref.Case], ours: Callable[[list[ref.Case]], Values], theirs: Callable[[list[ref.Case]], Values]
) -> float:
    """The largest difference of all cases together and of each alone."""
    return max(apart(ours(some), theirs(some)) for some in [cases, *([case] for case in cases)])


def overlaps(cases: list[ref.Case]) -> Iterator[Row]:
    """Pairwise overlap of targets and pool."""

    def dense(case: ref.Case) -> np.ndarray:
        return pairwise_iou(torch.from_numpy(case.targets), torch.from_numpy(case.pool)).numpy()

    def packed(case: ref.Case) -> np.ndarray:
        inter, union = pairwise_counts(torch.from_numpy(case.targets), torch.from_numpy(case.pool))
        return (inter.double() / union.clamp(min=1)).numpy()

    def runs(case: ref.Case) -> np.ndarray:
        return rle_iou(encode(case.targets), encode(case.pool))

    def numpy_iou(case: ref.Case) -> np.ndarray:
        shared = (case.targets[:, None] & case.pool[None]).sum((2, 3))
        return shared / np.maximum((case.targets[:, None] | case.pool[None]).sum((2, 3)), 1)

    library = "pycocotools `mask.iou`"
    for measure, reference, ours, theirs in (
        ("mask IoU, dense", library, dense, lambda case: ref.coco_iou(case.targets, case.pool)),
        ("mask IoU, packed bits", library, packed, lambda case: ref.coco_iou(case.targets, case.pool)),
        ("mask IoU, on RLE", "NumPy, dense", runs, numpy_iou),
    ):
        worst = max(float(np.abs(ours(case) - theirs(case)).max(initial=0)) for case in cases)
        yield Row(measure, reference, len(cases), worst)


def libraries(cases: list[ref.Case]) -> Iterator[Row]:
    """What torchmetrics, torchvision, SciPy, Pillow, OpenCV and pycocotools have, too."""

    def unions(some: list[ref.Case]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(case.prediction.any(0), case.targets.any(0)) for case in some]

    def labels(some: list[ref.Case]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(torch.from_numpy(a).int(), torch.from_numpy(b).int()) for a, b in unions(some)]

    def mean_jaccard(name: str, empty: int) -> Callable[[list[ref.Case]], Values]:
        return lambda some: {
            name: float(np.mean([binary_jaccard_index(*p, zero_division=empty) for p in labels(some)]))
        }

    def jaccard(some: list[ref.Case]) -> Values:
        total = BinaryJaccardIndex(zero_division=math.nan)
        for pair in labels(some):
            total.update(*pair)
        return {"cIoU": float(total.compute())}

    def on_canvas(some: list[ref.Case]) -> Values:
        pairs = [ref.counts(ref.floored(a, 1024), ref.floored(b, 1024)) for a, b in unions(some)]
        return {"ncIoU": ref.share(*np.sum(pairs, axis=0))}

    def decisions(some: list[ref.Case]) -> Values:
        said = torch.tensor([len(case.prediction) == 0 for case in some]).int()
        true = torch.tensor([len(case.targets) == 0 for case in some]).int()
        n_acc = BinaryRecall()(said, true) if true.any() else math.nan
        return {"N-acc": float(n_acc), "T-acc": float(BinarySpecificity()(said, true)) if not true.all() else math.nan}

    def box_hits(some: list[ref.Case]) -> Values:
        found = [ref.is_hit(*pair) for case, pair in zip(some, unions(some), strict=True) if len(case.targets)]
        return {"Acc@0.5": ref.share(sum(found), len(found))}

    def f1s(some: list[ref.Case]) -> Values:
        each = np.array([ref.set_f1(case) for case in some])
        return {"F1": float(each[:, 0].mean()), "F1@.5:.95": float(each.mean())}

    def recall(some: list[ref.Case]) -> Values:
        iou = [ref.coco_iou(c.targets, c.pool).max(1, initial=0)[c.targets.any((1, 2))] for c in some]
        best = np.concatenate(iou)
        return {f"recall@{limit}": ref.share((best >= limit).sum(), len(best)) for limit in RECALL_AT}

    def matched(some: list[ref.Case]) -> Values:
        found = ref.average_recall(some)
        each = {f"matched_recall@{limit}": found[limit] for limit in RECALL_AT}
        return each | {"matched_recall@.5:.95": float(np.mean(list(found.values())))}

    tm = "torchmetrics `binary_jaccard_index`, empty ="
    for measure, reference, protocol, theirs in (
        ("mIoU", f"{tm} 0", EVERYTHING, mean_jaccard("mIoU", 0)),
        ("gIoU by pixels, empty union = 1", f"{tm} 1", BY_PIXELS, mean_jaccard("gIoU", 1)),
        ("cIoU by pixels", "torchmetrics `BinaryJaccardIndex`", BY_PIXELS, jaccard),
        ("ncIoU by pixels", 'torch `interpolate(mode="nearest")`, 1024 x 1024', BY_PIXELS, on_canvas),
        ("N-acc, T-acc", "torchmetrics `BinaryRecall`, `BinarySpecificity`", EVERYTHING, decisions),
        ("Acc@0.5", "torchvision `masks_to_boxes`, `box_iou`", EVERYTHING, box_hits),
        ("F1, F1@.5:.95", "torchvision `box_iou`, SciPy `linear_sum_assignment`", EVERYTHING, f1s),
        ("recall@0.5 to @0.95", "pycocotools `mask.iou`", EVERYTHING, recall),
        ("matched_recall@0.5 to @.5:.95", "pycocotools `COCOeval`", EVERYTHING, matched),
    ):
        yield Row(measure, reference, len(cases), agreement(cases, lambda c, p=protocol: measured(c, p), theirs))


def rules(cases: list[ref.Case]) -> Iterator[Row]:
    """The protocols against what their evaluators do."""

    def side(pixels: int) -> ref.Scaling:
        return lambda mask: ref.stretched(mask, pixels)

    for name, how, theirs in (
        ("lisa", "", lambda c: ref.lisa(c, 1e-5, False)),
        ("sa2va", "", lambda c: ref.lisa(c, 1e-5, False, count_epsilon=0)),
        ("reasonseg", "ignore", lambda c: ref.lisa(c, 1e-5, True)),
        ("llmseg", "ignore", lambda c: ref.lisa(c, 1e-8, True)),
        ("llmseg-1024", "ignore", lambda c: ref.lisa(c, 1e-8, True, lambda mask: ref.floored(mask, 1024))),
        ("grefcoco", "decision", lambda c: ref.rela(c, None, side(480))),
        ("grefcoco", "", lambda c: ref.rela(c, 50, side(480))),
        ("gsva", "decision", lambda c: ref.gsva(c, zom=False)),
        ("gsva-refzom", "decision", lambda c: ref.gsva(c, zom=True)),
        ("rmsin", "", lambda c: ref.rmsin(c, side(480))),
        ("segearth", "", lambda c: ref.segearth(c, lambda mask: ref.letterboxed(mask, 1024))),
        ("muse", "", lambda c: ref.muse([[case] for case in c])),
    ):
        settings = {"decision": how == "decision", "ignore": how == "ignore"}
        named = [key for key in theirs(cases[:1]) if not key.startswith("Pr@")]
        named += ["Pr@X"] if "Pr@0.5" in theirs(cases[:1]) else []
        difference = agreement(cases, lambda c, name=name, settings=settings: measured(c, name, **settings), theirs)
        yield Row(f"`{name}`{f' ({how} given)' if how else ''}: {', '.join(named)}", "its rule", len(cases), difference)


def canvases(count: int, rng: np.random.Generator) -> Iterator[Row]:
    """Masks of many sizes on a canvas: those for which 1024 / size * size falls short of 1024 too, and squares."""
    sizes = [(480, 640), (640, 427), (107, 107), (49, 31), (30, 1373), (1023, 1), (1, 1)]
    sizes += [tuple(int(side) for side in rng.integers(1, 700, 2)) for _ in range(max(count // 20, 5))]
    for measure, reference, ours, theirs, side in (
        ("letterbox, share of pixels", "OpenCV `resize`, `copyMakeBorder`", letterbox, ref.letterboxed, 1024),
        ("stretching, by centres", "Pillow `resize`", stretch, ref.stretched, 480),
        ("stretching, rounded down", 'torch `interpolate(mode="nearest")`', stretch_floor, ref.floored, 1024),
    ):
        masks = [rng.random(size) < 0.5 for size in sizes]
        wrong = [(ours(torch.from_numpy(m[None]), side)[0].numpy() ^ theirs(m, side)).mean() for m in masks]
        yield Row(measure, reference, len(sizes), float(max(wrong)))


def questions(cases: Sequence[ref.Case]) -> Iterator[Row]:
    """`muse` over images with several questions, added up from single samples."""
    images = [list(cases[start : start + 3]) for start in range(0, len(cases), 3)]
    scored = []
    for number, image in enumerate(images):
        for case in image:
            metrics = ReferringMetrics(protocol="muse")
            metrics.update(*(torch.from_numpy(each) for each in case[:2]))
            sums = sums_of(metrics)
            scored.append(Scored("", str(number), "", "", 0, 0, 0, 0.0, 0.0, 0, 0.0, sums))
    got = add_up(scored, lambda: ReferringMetrics(protocol="muse")).fractions()
    expected = ref.muse(images)
    difference = apart({name: float(got[name]) for name in expected}, expected)
    yield Row("`muse`, three questions an image: gIoU, cIoU", "its rule", len(cases), difference)


def frames(count: int, rng: np.random.Generator) -> Iterator[Row]:
    """J and F of single frames, with void pixels; every fortieth of 97 x 250, where the radius is 3."""
    j_off = f_off = 0.0
    for number in range(count):
        size = (97, 250) if number % 40 == 0 else (int(rng.integers(2, 40)), int(rng.integers(2, 40)))
        a, b = ref.draw_mask(rng, size), ref.draw_mask(rng, size)
        b = np.roll(a, (1, 1), (0, 1)) if number % 3 == 0 else b
        void = rng.random(size) < rng.choice([0.0, 0.2])
        f_off = max(f_off, abs(boundary_f(a, b, void) - video.slow_f(a, b, void)))
        kept = [torch.from_numpy(mask[~void]).int() for mask in (a, b)]
        jaccard = float(binary_jaccard_index(*kept, zero_division=1)) if len(kept[0]) else 1.0
        j_off = max(j_off, abs(float(region_j(a[None], b[None], void[None])[0]) - jaccard))
    yield Row("J of a frame, with void", "torchmetrics `binary_jaccard_index`, empty = 1", count, j_off)
    yield Row("F of a frame, with void", "its rule, with SciPy `binary_dilation`", count, f_off)


def clips(count: int, rng: np.random.Generator) -> Iterator[Row]:
    """Whole videos: matched objects, expressions, and ReVOS in the uint8 arithmetic of PNGs (255) and of RLE (1)."""
    worst = 0.0
    for _ in range(count):
        answers, objects = (ref.draw_clip(rng, int(rng.integers(least, 4)), 2, (7, 9)) for least in (0, 1))
        void = rng.random((2, 7, 9)) < 0.1
        metrics = VideoMetrics("davis")
        metrics.update(torch.from_numpy(answers), torch.from_numpy(objects), void=torch.from_numpy(void))
        worst = max(
            worst, abs(float(metrics.compute()["J&F"]) - float(video.best_order(answers, objects, void).mean()))
        )
    yield Row("`davis`: J&F", "its rule, every order tried", count, worst)
    pairs = [tuple(ref.draw_clip(rng, 2, 3, (9, 11))) for _ in range(count)]
    for name in ("mevis", "davis-expression"):
        metrics = VideoMetrics(name)
        for answer, truth in pairs:
            metrics.update(torch.from_numpy(answer), torch.from_numpy(truth))
        got, expected = metrics.compute(), video.expressions(pairs)
        difference = apart({key: float(got[key]) for key in expected}, expected)
        yield Row(f"`{name}`: J, F, J&F", "its rule", count, difference)
    draws = [(ref.draw_clip(rng, 3, 3, (9, 11)), int(rng.integers(0, 3))) for _ in range(count)]
    for white, compat in ((255, True), (1, False)):
        metrics = VideoMetrics("revos", visa_compat=compat)
        for (answer, truth, rest), kind in draws:
            masks = [torch.from_numpy(each) for each in (answer, truth, truth | rest)]
            metrics.update(masks[0], masks[1], foreground=masks[2], group=kind)
        got, expected = metrics.compute(), video.revos(draws, white)
        difference = apart({name: float(got[name]) for name in expected}, expected)
        yield Row(
            f"`revos`{', visa_compat' if compat else ''}: J, F, A, R",
            f"its rule, masks of 0 and {white}",
            count,
            difference,
        )


def rows(count: int, seed: int) -> Iterator[Row]:
    """Every line of the table, for so many cases."""
    cases, rng = ref.draw_cases(count, seed), np.random.default_rng(seed + 1)
    images = (overlaps(cases), libraries(cases), canvases(count, rng), rules(cases), questions(cases))
    for part in (*images, frames(count, rng), clips(count, rng)):
        yield from part


def table(lines: list[Row]) -> str:
    head = "| measure | compared with | cases | largest difference |\n|---|---|---|---|\n"
    return head + "".join(f"| {r.measure} | {r.reference} | {r.cases:,} | {r.difference:.1e} |\n" for r in lines)


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="put the table into docs/results/metrics.md")
    options = parser.parse_args()
    text = table(list(rows(options.cases, options.seed)))
    print(text, end="")
    if options.write:
        before, rest = DOCUMENT.read_text().split(MARKS[0])
        write_text(DOCUMENT, f"{before}{MARKS[0]}\n{text}{MARKS[1]}{rest.split(MARKS[1])[1]}")


if __name__ == "__main__":
    main()
