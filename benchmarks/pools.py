"""What the pools of the proposers that run without published weights hold, on generated scenes and on photographs.

    python benchmarks/pools.py --write                   # tables into docs/results/proposers.md, pictures beside it
    python benchmarks/pools.py --pictures DIR            # pictures of scenes and photographs elsewhere

Every annotated object is looked for alone: its oracle is the candidate that overlaps it most. Times are relative: those
of the package's `SamAutomaticMaskGenerator` over the proposer's own, image by image, in one run.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from segment_anything import SamAutomaticMaskGenerator
from torch import Tensor

from maskselect.backends.progress import track
from maskselect.backends.sam import load_sam
from maskselect.data.catalog import CATALOG
from maskselect.data.images import load_image
from maskselect.ops.atomic import write_text
from maskselect.ops.overlap import pairwise_intersection, pairwise_iou
from maskselect.predictor import load
from maskselect.proposers.regions import RegionProposer
from maskselect.proposers.sam import SamProposer
from maskselect.proposers.union import UnionProposer
from maskselect.scenes.samples import ask_scenes
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import Proposer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.backends.sam_package import to_package

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "results" / "proposers.md"
MARKS = ("<!-- pools: benchmarks/pools.py --write -->", "<!-- end of pools -->")
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9)
POINTS = 16
FILTERS = {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.6, "box_nms_thresh": 0.7}
OFFICIAL = "package's generator"


class PackageProposer:
    """`SamAutomaticMaskGenerator` as a proposer."""

    def __init__(self) -> None:
        self.generator = SamAutomaticMaskGenerator(to_package(load_sam()), points_per_side=POINTS, **FILTERS)

    def propose(self, image: np.ndarray) -> MaskSet:
        records = self.generator.generate(image)
        if not records:
            return MaskSet.empty((image.shape[0], image.shape[1]))
        masks = torch.from_numpy(np.stack([record["segmentation"] for record in records]))
        return MaskSet(masks, torch.tensor([record["predicted_iou"] for record in records]), "package")


@dataclass
class Tally:
    """What was found of all objects.

    best: IoU of each object's oracle; shared, joined: its pixels.
    partners: of each mask of the package's generator the IoU with the most like one here.
    """

    best: list[float] = field(default_factory=list)
    shared: float = 0.0
    joined: float = 0.0
    masks: list[int] = field(default_factory=list)
    speed: list[float] = field(default_factory=list)
    partners: list[float] = field(default_factory=list)

    def add(self, pool: Tensor, truth: Tensor) -> None:
        self.masks.append(len(pool))
        sizes = truth.flatten(1).sum(1).double()
        if len(pool) == 0:
            self.best += [0.0] * len(truth)
            self.joined += float(sizes.sum())
            return
        shared = pairwise_intersection(truth, pool).double()
        joined = sizes[:, None] + pool.flatten(1).sum(1).double()[None] - shared
        iou, chosen = (shared / joined).max(1)
        self.best += iou.tolist()
        # An object that nothing touches has no oracle; the empty choice then costs its own pixels alone.
        rows = torch.arange(len(truth))
        self.shared += float(shared[rows, chosen].sum())
        self.joined += float(torch.where(iou > 0, joined[rows, chosen], sizes).sum())

    def row(self, name: str) -> str:
        best = np.array(self.best)
        recall = " | ".join(f"{(best >= level).mean():.1%}" for level in LEVELS)
        low, middle, high = np.percentile(self.speed, (25, 50, 75))
        partners = np.array(self.partners)
        alike = f"{(partners >= 0.9).mean():.1%} / {(partners >= 0.99).mean():.1%}"
        return (
            f"| {name} | {100 * self.shared / self.joined:.2f} | {100 * best.mean():.1f} | {recall} | "
            f"{statistics.mean(self.masks):.1f} | {middle:.2f} ({low:.2f} to {high:.2f}) | {alike} |"
        )


def proposers() -> dict[str, Proposer]:
    shipped = load("ras", device="cpu").system.proposer
    made: dict[str, Proposer] = {
        OFFICIAL: PackageProposer(),
        "SAM, exact": SamProposer(
            mode="exact", points_per_side=POINTS, mask_nms_thresh=None, max_candidates=None, **FILTERS
        ),
        "SAM, fast": SamProposer(
            decision_side=256, points_per_side=POINTS, mask_nms_thresh=None, max_candidates=None, **FILTERS
        ),
        "SAM, fast, bfloat16": SamProposer(
            decision_side=256,
            precision="bfloat16",
            points_per_side=POINTS,
            mask_nms_thresh=None,
            max_candidates=None,
            **FILTERS,
        ),
        "what ships with `ras`": shipped,
        "regions": RegionProposer(),
        "union of these two": UnionProposer([shipped, RegionProposer()], nms_iou=0.8),
    }
    return made


def scenes(count: int) -> Iterator[tuple[np.ndarray, Tensor]]:
    for scene in ask_scenes("test", 5, count):
        masks = torch.from_numpy(scene.masks)
        yield scene.image, masks[masks.flatten(1).any(1)]


def photographs(root: Path, count: int) -> Iterator[tuple[np.ndarray, Tensor]]:
    samples = CATALOG["coco"].open(root, "train2017")
    for _, group in islice(groupby(samples, key=lambda sample: sample.image_id), count):
        sample = next(group)
        masks = sample.gt_pool
        yield load_image(sample.image), masks[masks.flatten(1).any(1)]


def measure(
    made: dict[str, Proposer], images: Iterator[tuple[np.ndarray, Tensor]], total: int, what: str
) -> dict[str, Tally]:
    tallies = {name: Tally() for name in made}
    for image, truth in track(images, total, what, "images"):
        seconds, official = {}, torch.zeros(0, *image.shape[:2], dtype=torch.bool)
        for name, proposer in made.items():
            start = time.perf_counter()
            found = proposer.propose(image).masks.cpu()
            seconds[name] = time.perf_counter() - start
            tallies[name].add(found, truth)
            official = found if name == OFFICIAL else official
            tallies[name].partners += best_overlaps(official, found)
        for name, own in seconds.items():
            tallies[name].speed.append(seconds[OFFICIAL] / own)
    return tallies


def best_overlaps(masks: Tensor, others: Tensor) -> list[float]:
    """Of each mask the IoU with the most like of the others, 0 where there is none."""
    return pairwise_iou(masks, others).amax(1).tolist() if len(others) else [0.0] * len(masks)


def table(tallies: dict[str, Tally]) -> list[str]:
    head = " | ".join(f"recall at {level}" for level in LEVELS)
    lines = [
        f"| proposer | oracle cIoU | mean IoU of the oracle | {head} | masks an image | times as fast | "
        "package's masks with a partner of IoU 0.9 / 0.99 |",
        "|---" * (6 + len(LEVELS)) + "|",
    ]
    return lines + [tally.row(name) for name, tally in tallies.items()]


def picture(made: dict[str, Proposer], image: np.ndarray, truth: Tensor, height: int = 220) -> Image.Image:
    """The annotated objects, then each pool, side by side, the largest masks at the back."""
    tiles = [_tile(image, masks, height) for masks in (truth, *(p.propose(image).masks.cpu() for p in made.values()))]
    return Image.fromarray(np.concatenate(tiles, 1))


def _tile(image: np.ndarray, masks: Tensor, height: int) -> np.ndarray:
    width = round(image.shape[1] * height / image.shape[0])
    canvas = (cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) * 0.55).astype(np.uint8)
    order = masks.flatten(1).sum(1).argsort(descending=True)
    for number, mask in enumerate(masks[order].numpy()):
        small = cv2.resize(mask.astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_LINEAR) >= 128
        hue = np.uint8([[[int(number * 180 * 0.618) % 180, 200, 255]]])
        colour = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0]
        canvas[small] = (0.5 * canvas[small] + 0.5 * colour).astype(np.uint8)
        outline, _ = cv2.findContours(small.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, outline, -1, colour.tolist(), 1)
    return np.pad(canvas, ((2, 2), (2, 2), (0, 0)), constant_values=255)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=200, metavar="N")
    parser.add_argument("--photographs", type=int, default=128, metavar="N")
    parser.add_argument("--root", type=Path, default=ROOT.parent / "shared" / "data" / "coco128", metavar="DIR")
    parser.add_argument("--pictures", type=Path, metavar="DIR")
    parser.add_argument("--write", action="store_true", help="into docs/results/proposers.md")
    options = parser.parse_args()
    made = proposers()
    lines = []
    parts = [("Scenes", scenes, options.scenes)]
    if options.root.is_dir():
        parts.append(("Photographs", lambda count: photographs(options.root, count), options.photographs))
    else:
        print(f"no photographs: {options.root} is not there", file=sys.stderr)
    for title, source, count in parts:
        tallies = measure(made, source(count), count, title)
        told = f"{title}: {len(tallies[OFFICIAL].masks)} images, {len(tallies[OFFICIAL].best)} objects."
        lines += [told, "", *table(tallies), ""]
        print("\n".join(lines[-len(made) - 5 :]), flush=True)
        if options.pictures is not None:
            options.pictures.mkdir(parents=True, exist_ok=True)
            for number, (image, truth) in enumerate(islice(source(4), 4)):
                picture(made, image, truth).save(options.pictures / f"{title.lower()}_{number}.png")
    if options.write:
        text = DOCUMENT.read_text()
        before, _, rest = text.partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        write_text(DOCUMENT, f"{before}{MARKS[0]}\n\n" + "\n".join(lines) + f"\n{MARKS[1]}{after}")
        rows = [picture(made, image, truth) for image, truth in scenes(3)]
        Image.fromarray(np.concatenate([np.asarray(row) for row in rows])).save(DOCUMENT.with_name("pools.png"))


if __name__ == "__main__":
    main()
