"""Masks as text: how fast the codecs write and read masks of 64 x 64, and how many tokens a mask takes.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/codecs.py --output outputs/codecs.json
    .venv/bin/python benchmarks/codecs.py --data ../shared/data --tokenizer tokenizer.json

Speed: every way runs in turn in each round, so that other load of the machine falls on all of them. Figures are masks a
second of CPU time, median and quartiles over the rounds. The floors are what is left of each direction without any
text: finding where runs start, and filling grids from ready runs; pycocotools' run lengths stand beside them. Texts
of the layout `full` have about 44,000 bytes; their own floor is a copy. Each mask has its own label, of the length of a
usual referring expression.

Tokens: means over masks of the generated scenes and, with --data, of COCO and RefCOCO. Without --tokenizer the compact
tokenizer counts, which is not the paper's. The paper's numbers are for R-RLE and for both box-wise forms, on its own
selection of masks.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from pycocotools import mask as coco
from tokenizers import Tokenizer

from maskselect.codecs.boxwise import BoxwiseCodec
from maskselect.codecs.descriptors import DescriptorCodec
from maskselect.ops.atomic import write_text
from maskselect.ops.rle import decode, to_compressed
from maskselect.scenes.groups import SceneGroups

ROOT = Path(__file__).resolve().parents[1]
SIDE = 64
DESCRIPTORS = {layout: DescriptorCodec(SIDE, layout) for layout in ("full", "image", "row")}  # type: ignore[arg-type]
BOXWISE = {"boxes, no bricks": BoxwiseCodec(SIDE, bricks=False), "boxes, bricks": BoxwiseCodec(SIDE)}
PAPER = {"row": 767.6, "boxes, no bricks": 283.0, "boxes, bricks": 150.4}
Pair = tuple[np.ndarray, str]


def outlines(count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, SIDE, SIDE) bool: ragged outlines, 10 to 60 cells across."""
    masks = np.zeros((count, SIDE, SIDE), np.uint8)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    for mask in masks:
        radii = rng.integers(5, 30) * (1 + 0.3 * rng.standard_normal(40))
        middle = rng.integers(16, SIDE - 16, 2)
        outline = middle + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
        cv2.fillPoly(mask, [outline.astype(np.int32)], 1)
        mask[tuple(middle)] = 1
    return masks.astype(bool)


def ways(masks: np.ndarray) -> dict[str, Callable[[], object]]:
    """What is timed. Results are compared before."""
    count = len(masks)
    labels = [f"thing {n} on left" for n in range(count)]
    own = [[label] for label in labels]
    made: dict[str, Callable[[], object]] = {}
    for name, codec in DESCRIPTORS.items():
        texts = codec.encode_grids(masks, own)
        for known in (None, own):
            found = codec.decode_grids(texts, known)
            assert all(np.array_equal(one.cells, mask) for one, mask in zip(found, masks, strict=True))
        made[f"{name}, encode"] = lambda codec=codec: codec.encode_grids(masks, own)
        made[f"{name}, decode"] = lambda codec=codec, texts=texts: codec.decode_grids(texts, own)
        made[f"{name}, decode, any label"] = lambda codec=codec, texts=texts: codec.decode_grids(texts)
    boxes = {geometry: BoxwiseCodec(SIDE, geometry=geometry) for geometry in ("cell_inclusive", "raster")}  # type: ignore[arg-type]
    for name, boxwise in boxes.items():
        texts = boxwise.encode_grids(masks, labels, [1] * count)
        found = boxwise.decode_grids(texts, own)
        assert all(np.array_equal(one.cells[0], mask) for one, mask in zip(found, masks, strict=True))
        made[f"boxes, {name}, encode"] = lambda boxwise=boxwise: boxwise.encode_grids(masks, labels, [1] * count)
        made[f"boxes, {name}, decode"] = lambda boxwise=boxwise, texts=texts: boxwise.decode_grids(texts, own)
    starts = np.ones((count, SIDE, SIDE), bool)
    starts[:, :, 1:] = masks[:, :, 1:] != masks[:, :, :-1]
    positions = np.flatnonzero(starts)
    values, lengths = masks.reshape(-1)[positions], np.diff(positions, append=masks.size)
    columns = [np.asfortranarray(mask, np.uint8) for mask in masks]
    codes = [coco.encode(mask) for mask in columns]
    made["floor, encode: starts of runs"] = lambda: np.flatnonzero(masks[:, :, 1:] != masks[:, :, :-1])
    made["floor, decode: fill from runs"] = lambda: np.repeat(values, lengths)
    texts = DESCRIPTORS["full"].encode_grids(masks, own)
    made["floor, full: copy the texts"] = lambda texts=texts: ["".join((text[:9], text[9:])) for text in texts]  # type: ignore[misc]
    made["pycocotools, encode"] = lambda: [coco.encode(mask) for mask in columns]
    made["pycocotools, decode"] = lambda: [coco.decode(code) for code in codes]
    return made


def measure_speed(masks: np.ndarray, rounds: int) -> dict[str, list[float]]:
    """Masks a second of each way: lower quartile, median, upper quartile."""
    made = ways(masks)
    spent: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(rounds):
        for name, way in made.items():
            start = time.process_time()
            way()
            spent[name].append(len(masks) / (time.process_time() - start))
    return {name: [round(value) for value in statistics.quantiles(rates, n=4)] for name, rates in spent.items()}


def scenes(count: int) -> Iterator[Pair]:
    """One query with a target of each scene: the union of its masks, and its text."""
    source = SceneGroups("test", 77, count)
    for number in range(count):
        annotated = source.load(number)
        for query in source.queries(number, annotated.extra, 4, np.random.default_rng(number)):
            if len(query.targets) and not len(query.references):
                yield annotated.masks[list(query.targets)].any(0).numpy(), query.text
                break


def coco_masks(root: Path) -> Iterator[Pair]:
    """Every mask that is no crowd, and its category."""
    data = json.loads((root / "coco128/annotations/instances_train2017.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    names = {category["id"]: category["name"] for category in data["categories"]}
    for annotation in data["annotations"]:
        if not annotation["iscrowd"]:
            size = sizes[annotation["image_id"]]
            yield decode(to_compressed(annotation["segmentation"], size), size), names[annotation["category_id"]]


def refcoco(root: Path) -> Iterator[Pair]:
    """Every sentence of RefCOCO, and its mask."""
    folder = root / "refcoco_mini/refcoco"
    data = json.loads((folder / "instances.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    masks = {one["id"]: one for one in data["annotations"]}
    for ref in json.loads((folder / "refs_unc.json").read_text()):
        size, code = sizes[ref["image_id"]], masks[ref["ann_id"]]["segmentation"]
        for sentence in ref["sentences"]:
            yield decode(to_compressed(code, size), size), sentence["raw"].strip()


def count_tokens(pairs: list[Pair], file: Path) -> dict[str, float]:
    """Mean number of tokens of each form."""
    counts = {}
    for name, codec in {**DESCRIPTORS, **BOXWISE}.items():
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.add_special_tokens(list(codec.tokens))
        texts = [codec.encode(torch.from_numpy(mask[None]), [label]) for mask, label in pairs]
        encoded = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
        counts[name] = round(statistics.mean(len(one.ids) for one in encoded), 1)
    return counts


def main() -> None:
    """Print both tables, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--data", type=Path, help="folder of real samples")
    parser.add_argument("--tokenizer", type=Path, default=ROOT / "maskselect/lmm/compact_tokenizer.json")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    speed = measure_speed(outlines(options.masks, np.random.default_rng(0)), options.rounds)
    print(f"{options.masks} masks of {SIDE} x {SIDE}, {options.rounds} rounds; masks a second of CPU time")
    for name, (low, middle, high) in speed.items():
        print(f"  {name:34} {middle:9,}  ({low:,} to {high:,})")
    sources = {"scenes": scenes(options.scenes)}
    if options.data is not None:
        sources |= {"coco128": coco_masks(options.data), "refcoco_mini": refcoco(options.data)}
    tokens = {"paper": dict(PAPER)}
    for source, pairs in sources.items():
        known = [(mask, label) for mask, label in islice(pairs, 5000) if mask.any()]
        tokens[f"{source}, {len(known)}"] = count_tokens(known, options.tokenizer)
    print(f"tokens a mask, {options.tokenizer.name}: {', '.join((*DESCRIPTORS, *BOXWISE))}")
    for source, counts in tokens.items():
        print(f"  {source:20}", *(f"{counts.get(name, '-'):>9}" for name in (*DESCRIPTORS, *BOXWISE)))
    if options.output:
        result = {"side": SIDE, "masks": options.masks, "rounds": options.rounds, "masks_per_second": speed}
        result |= {"tokenizer": options.tokenizer.name, "tokens": tokens}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        write_text(options.output, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
