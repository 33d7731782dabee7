"""IoU of masks after a round trip through the formats of other tools, by the readers' own rules of filling.

    .venv/bin/python benchmarks/exports.py ../shared/data/coco128/annotations/instances_train2017.json

pycocotools fills COCO's polygons; `maskselect.data.own` reads labelme and YOLO by the same rule. `cv2.fillPoly` of
rounded corners is how supervision reads polygons, `PIL.ImageDraw.polygon` with its outline how labelme does.
"""

import argparse
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image, ImageDraw
from pycocotools.coco import COCO

from maskselect.ops import rle
from maskselect.structures.label_files import TOLERANCE, coco_polygons, labelme_record, yolo_lines

Rings = list[np.ndarray]
SMALL = 32**2  # pixels, as COCO's metrics divide


def by_pycocotools(rings: Rings, size: tuple[int, int]) -> np.ndarray:
    return rle.decode([[float(value) for value in ring.ravel()] for ring in rings], size)


def by_cv2(rings: Rings, size: tuple[int, int]) -> np.ndarray:
    canvas = np.zeros(size, np.uint8)
    for ring in rings:
        cv2.fillPoly(canvas, [np.round(ring).astype(np.int32)], 1)
    return canvas.astype(bool)


def by_pil(rings: Rings, size: tuple[int, int]) -> np.ndarray:
    canvas = Image.new("L", size[::-1])
    for ring in rings:
        ImageDraw.Draw(canvas).polygon([tuple(corner) for corner in ring.tolist()], outline=1, fill=1)
    return np.array(canvas).astype(bool)


def of_coco(mask: np.ndarray) -> Rings:
    return [np.reshape(polygon, (-1, 2)) for polygon in coco_polygons(mask)]


def of_labelme(mask: np.ndarray, tolerance: float = TOLERANCE) -> Rings:
    record = labelme_record([(mask, "a", 1.0)], (mask.shape[0], mask.shape[1]), None, tolerance)
    return [np.array(shape["points"]) for shape in record["shapes"]]


def of_yolo(mask: np.ndarray) -> Rings:
    size = mask.shape[0], mask.shape[1]
    lines = yolo_lines([(mask, "a", 1.0)], ["a"], size).splitlines()
    return [np.array(line.split()[1:], float).reshape(-1, 2) * [size[1], size[0]] for line in lines]


FORMATS: dict[str, Callable[[np.ndarray], Rings]] = {
    "coco-polygons": of_coco,
    "labelme": of_labelme,
    "labelme, tolerance 0": lambda mask: of_labelme(mask, 0),
    "yolo": of_yolo,
}
READERS = {"pycocotools": by_pycocotools, "cv2.fillPoly": by_cv2, "PIL with outline": by_pil}


def main() -> None:
    parser = argparse.ArgumentParser(description="IoU after a round trip through formats of other tools.")
    parser.add_argument("annotations", help="a COCO file")
    coco = COCO(parser.parse_args().annotations)
    masks = [coco.annToMask(one).astype(bool) for one in coco.dataset["annotations"]]
    masks = [mask for mask in masks if mask.any()]
    small = np.array([mask.sum() < SMALL for mask in masks])
    holes = np.array([len(cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, 2)[0]) for mask in masks])
    print(f"{len(masks)} masks, {small.sum()} below {SMALL} pixels, {(holes > 1).sum()} with several parts or holes")
    print("| format | corners a mask | filled by | mean IoU | small | lowest |\n|---|---|---|---|---|---|")
    for name, write in FORMATS.items():
        written = [write(mask) for mask in masks]
        corners = np.mean([sum(map(len, rings)) for rings in written])
        for reader, fill in READERS.items():
            overlaps = []
            for mask, rings in zip(masks, written, strict=True):
                again = fill(rings, (mask.shape[0], mask.shape[1]))
                overlaps.append((again & mask).sum() / (again | mask).sum())
            found = np.array(overlaps)
            figures = f"{found.mean():.4f} | {found[small].mean():.4f} | {found.min():.3f}"
            print(f"| {name} | {corners:.0f} | {reader} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
