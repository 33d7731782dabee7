"""What a proposer finds on photographs: the best candidate of every annotated object, by source and by size.

    python benchmarks/photo_candidates.py --proposer CONFIG_OR_NAME --data ../shared/data      # three tables
    … --pictures DIR                     # the best candidates beside the annotated objects

Photographs are `photos` (val), `coco128`, and the things and the stuff of `coco_panoptic_mini` (val2017) in the folder
of the data.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from maskselect.backends.progress import track
from maskselect.data.catalog import CATALOG
from maskselect.data.images import load_image
from maskselect.data.panoptic import read_ids
from maskselect.ops.overlap import pairwise_intersection
from maskselect.proposers.loading import load_proposer
from maskselect.recipes.photos.groups import PhotoGroups

SIZES = {0.005: "below 0.5 %", 0.02: "0.5 to 2 %", 0.1: "2 to 10 %", 1.0: "above 10 %"}
"""Upper limits of the share of the image that an object covers, and their names."""

SETS = ("photos", "coco128", "panoptic")


@dataclass(frozen=True)
class Photograph:
    """An image, its objects (M, H, W) bool, and to which group of the table each object belongs."""

    name: str
    image: np.ndarray
    masks: Tensor
    groups: list[str]


@dataclass
class Tally:
    """Best candidates of objects: their IoU, intersections and unions in pixels, and candidates of each image."""

    iou: list[float] = field(default_factory=list)
    shared: float = 0.0
    joined: float = 0.0

    def add(self, iou: float, shared: float, joined: float) -> None:
        self.iou.append(iou)
        self.shared += shared
        self.joined += joined

    def row(self, name: str) -> str:
        iou = np.array(self.iou)
        cells = [
            100 * self.shared / self.joined,
            100 * iou.mean(),
            100 * (iou >= 0.5).mean(),
            100 * (iou >= 0.75).mean(),
        ]
        return f"| {name} | {len(iou)} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |"


HEAD = "| | objects | oracle cIoU | oracle gIoU | recall at 0.5 | recall at 0.75 |\n|---|---|---|---|---|---|"


def photos(root: Path, split: str) -> Iterator[Photograph]:
    groups = PhotoGroups(root, split)
    for number, photo in enumerate(groups.photos):
        annotated = groups.load(number)
        yield Photograph(groups.ids[number], annotated.image, annotated.masks, [photo.source] * len(annotated.masks))


def coco128(root: Path) -> Iterator[Photograph]:
    for _, group in groupby(CATALOG["coco"].open(root, "train2017"), key=lambda sample: sample.image_id):
        sample = next(group)
        yield Photograph(sample.image_id, load_image(sample.image), sample.gt_pool, ["coco128"] * len(sample.gt_pool))


def panoptic(root: Path) -> Iterator[Photograph]:
    maps = root / "panoptic_segmentation" / "annotations" / "panoptic_val2017"
    record = json.loads(maps.with_suffix(".json").read_text())
    things = {one["id"] for one in record["categories"] if one["isthing"]}
    for one in record["annotations"]:
        ids = read_ids(maps / one["file_name"])
        segments = [segment for segment in one["segments_info"] if not segment["iscrowd"]]
        masks = torch.stack([torch.from_numpy(ids == segment["id"]) for segment in segments])
        kinds = ["things" if segment["category_id"] in things else "stuff" for segment in segments]
        file = root / "images" / "val2017" / f"{Path(one['file_name']).stem}.jpg"
        yield Photograph(file.stem, load_image(file), masks, kinds)


def best(pool: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """IoU, intersection, union, and number of the best candidate of each object; an object that none touches has 0."""
    sizes = truth.flatten(1).sum(1).double()
    if len(pool) == 0:
        none = torch.zeros(len(truth), dtype=torch.float64)
        return none, none, sizes, none.long()
    shared = pairwise_intersection(truth, pool).double()
    joined = sizes[:, None] + pool.flatten(1).sum(1).double()[None] - shared
    iou, chosen = (shared / joined).max(1)
    rows = torch.arange(len(truth))
    return iou, shared[rows, chosen], torch.where(iou > 0, joined[rows, chosen], sizes), chosen


def drawn(image: np.ndarray, masks: Tensor, height: int = 300) -> np.ndarray:
    width = round(image.shape[1] * height / image.shape[0])
    canvas = (cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) * 0.6).astype(np.uint8)
    for number in masks.flatten(1).sum(1).argsort(descending=True).tolist():
        small = cv2.resize(masks[number].numpy().astype(np.uint8) * 255, (width, height)) >= 128
        hue = np.array([[[int(number * 180 * 0.618) % 180, 200, 255]]], np.uint8)
        colour = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0]
        canvas[small] = (0.5 * canvas[small] + 0.5 * colour).astype(np.uint8)
    return canvas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proposer", required=True, metavar="CONFIG_OR_NAME")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), metavar="DIR")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--split", default="val", help="of photos (default: %(default)s)")
    parser.add_argument("--limit", type=int, metavar="N", help="first N pictures of each set")
    parser.add_argument("--pictures", type=Path, metavar="DIR")
    options = parser.parse_args()
    proposer = load_proposer(options.proposer, "cpu")
    sources = {
        "photos": lambda: photos(options.data / "photos", options.split),
        "coco128": lambda: coco128(options.data / "coco128"),
        "panoptic": lambda: panoptic(options.data / "coco_panoptic_mini"),
    }
    for name in options.sets:
        tallies: dict[str, Tally] = defaultdict(Tally)
        counts = []
        for photo in track(islice(sources[name](), options.limit), options.limit, name, "images"):
            pool = proposer.propose(photo.image).masks.cpu()
            counts.append(len(pool))
            iou, shared, joined, chosen = best(pool, photo.masks)
            for number, group in enumerate(photo.groups):
                share = float(photo.masks[number].float().mean())
                size = next(label for limit, label in SIZES.items() if share <= limit)
                for part in ("all", group, size):
                    tallies[part].add(float(iou[number]), float(shared[number]), float(joined[number]))
            if options.pictures is not None and len(pool) and len(photo.masks):
                options.pictures.mkdir(parents=True, exist_ok=True)
                tiles = [drawn(photo.image, photo.masks), drawn(photo.image, pool[chosen]), drawn(photo.image, pool)]
                file = options.pictures / f"{name}_{100 * float(iou.mean()):03.0f}_{Path(photo.name).stem}.jpg"
                Image.fromarray(np.concatenate(tiles, 1)).save(file)
        print(f"\n{name}: {len(counts)} images, {np.mean(counts):.1f} candidates an image\n\n{HEAD}")
        order = ["all", *sorted(tallies.keys() - {"all", *SIZES.values()}), *SIZES.values()]
        print("\n".join(tallies[part].row(part) for part in order if part in tallies), flush=True)


if __name__ == "__main__":
    main()
