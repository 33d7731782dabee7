"""What keeping the candidates of a data set in shards saves against one JSON file that is loaded whole.

    .venv/bin/python benchmarks/proposals.py --images 100000

Writes the same synthetic candidates in both forms, then opens each in a process of its own, in turn, several times,
and prints, as shares of the JSON file's, the median and the range over the turns of: time until the first sample is
there, growth of the peak resident memory (mapped pages count) after random accesses, and time of a random access. The
shards are opened with the index that `propose` leaves beside them, and without. Both sides make the same `MaskSet` of
the same image; decoding the masks is the floor of an access, given as a share too. Files are in the page cache for
both, since they were just written.

The JSON side needs several times the file's size in memory; where that is more than is free, it is told before anything
is written. 100,000 images of 60 masks take about 10 GB and of 20 masks about 3 GB; the shards take the same for either.
"""

import argparse
import json
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskselect.ops import rle
from maskselect.proposers.proposal_rows import ProposalRows, Row, shards_of
from maskselect.proposers.store import INDEX, ProposalStore, write_index
from maskselect.structures.masks import MaskSet

HASH = "0123456789ab"
SIZE = (480, 640)
PER_SHARD = 128
BYTES_A_MASK = 443  # of the JSON file, with these blobs
GROWTH = 4.0  # resident at most while `json` loads a file, over its size: 3.5 were measured, and some room
Measured = tuple[float, float, float]
"""Seconds to the first sample, bytes, seconds a random access."""


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--masks", type=int, default=60, help="an image, on average")
    parser.add_argument("--accesses", type=int, default=300)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    _refuse_what_does_not_fit(options.images * options.masks * BYTES_A_MASK * GROWTH)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder, options.images, options.masks)
        keys = random.Random(0).sample(range(options.images), min(options.accesses, options.images))
        asked = [_key(number) for number in keys]
        _print_sizes(folder, options)
        sides = {"shards": _with_index, "shards, no index": _without_index, "JSON": _json}
        found: dict[str, list[Measured]] = {side: [] for side in sides}
        floor = []
        for _ in range(options.turns):
            for side, work in sides.items():
                found[side].append(_apart(work, folder, asked))
            floor.append(_apart(_decoding, folder, asked))
        _print(found, floor)


def _refuse_what_does_not_fit(needed: float) -> None:
    lines = Path("/proc/meminfo").read_text().splitlines()
    there = next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    if needed > there:
        told = f"needs about {needed / 1e9:.0f} GB, of which {there / 1e9:.0f} are free"
        raise SystemExit(f"the JSON file, loaded whole, {told}: fewer --masks or --images")


def _print_sizes(folder: Path, options: argparse.Namespace) -> None:
    on_disk = sum(file.stat().st_size for file in shards_of(folder)), (folder / "all.json").stat().st_size
    index = (folder / INDEX).stat().st_size
    print(
        f"{options.images} images of {options.masks} masks on average: JSON {on_disk[1] / 1e6:.0f} MB, shards "
        f"{on_disk[0] / on_disk[1]:.3f} of it in {len(shards_of(folder))} files, index {index / on_disk[1]:.4f} of it"
    )


def _print(found: dict[str, list[Measured]], floor: list[Measured]) -> None:
    print("shares of the JSON file's, median (least to most) of the turns")
    print(f"{'':18}{'first sample':>28}{'peak memory':>28}{'random access':>28}")
    for side in ("shards", "shards, no index"):
        print(f"{side:18}" + "".join(_share(found, side, what) for what in range(3)))
    shares = [floors[2] / whole[2] for floors, whole in zip(floor, found["JSON"], strict=True)]
    print(f"{'decoding alone':18}" + " " * 56 + _spread(shares))
    print(f"the JSON side's peak memory: {statistics.median(one[1] for one in found['JSON']) / 1e9:.2f} GB")


def _share(found: dict[str, list[Measured]], side: str, what: int) -> str:
    return _spread([one[what] / whole[what] for one, whole in zip(found[side], found["JSON"], strict=True)])


def _spread(shares: list[float]) -> str:
    return f"{statistics.median(shares):10.4f} ({min(shares):.4f} to {max(shares):.4f})".rjust(28)


# Writing.


def _key(number: int) -> str:
    return f"{number * 7919 % 10**9:012}.jpg"


def _write(folder: Path, images: int, masks: int) -> None:
    rows = _rows(images, masks)
    total = -(-images // PER_SHARD)
    with (folder / "all.json").open("w") as file:
        file.write("{")
        for number in range(total):
            part = list(islice(rows, PER_SHARD))
            path = folder / f"proposals-00-{number:05d}-of-{total:05d}.parquet"
            ProposalRows().write(path, part)
            for place, row in enumerate(part):
                file.write(", " if number or place else "")
                file.write(f"{json.dumps(row['key'])}: {json.dumps(_record(row))}")
        file.write("}")
    write_index(folder)


def _rows(images: int, masks: int) -> Iterator[Row]:
    """Candidates out of 1,000 blobs; how many an image has is drawn too."""
    rng = np.random.default_rng(0)
    blobs = [rle.encode(_blob(rng)[None])[0] for _ in range(1000)]
    for number in range(images):
        count = int(rng.poisson(masks))
        scores = rng.random((3, count), np.float32).astype(float)
        columns = [
            {"name": name, "dtype": "float32", "values": scores[1 + place].tolist()}
            for place, name in enumerate(("predicted_iou", "stability_score"))
        ]
        yield {
            "key": _key(number),
            "content": _key(number),
            "height": SIZE[0],
            "width": SIZE[1],
            "source": "sam",
            "proposer": HASH,
            "masks": [blobs[place] for place in rng.integers(0, len(blobs), count)],
            "scores": scores[0].tolist(),
            "boxes_xyxy": rng.integers(0, 480, (count, 4)).tolist(),
            "columns": columns,
        }


def _blob(rng: np.random.Generator) -> np.ndarray:
    """An ellipse with a wavy outline: (480, 640) bool."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    y, x = rng.uniform(0, SIZE[0]), rng.uniform(0, SIZE[1])
    angle = np.arctan2(rows - y, columns - x)
    radius = rng.uniform(8, 90) * (1 + 0.2 * np.sin(rng.integers(3, 9) * angle + rng.uniform(0, 6)))
    return (rows - y) ** 2 / rng.uniform(0.4, 1) + (columns - x) ** 2 < radius**2


def _record(row: Row) -> Row:
    """The same as the JSON files of this field hold it: a list of masks, each with its numbers."""
    columns = {column["name"]: column["values"] for column in row["columns"]}
    masks = [
        {"segmentation": code, "score": score, "box": box, **{name: columns[name][place] for name in columns}}
        for place, (code, score, box) in enumerate(zip(row["masks"], row["scores"], row["boxes_xyxy"], strict=True))
    ]
    return {"size": [row["height"], row["width"]], "proposer": row["proposer"], "masks": masks}


# Reading.


def _with_index(folder: Path, keys: list[str]) -> tuple[float, float]:
    """Seconds until the first of the keys is there, and of each further one."""
    start = time.perf_counter()
    store = ProposalStore(folder)
    store.find(HASH, keys[0])
    first = time.perf_counter() - start
    return first, _each(lambda key: store.find(HASH, key), keys)


def _without_index(folder: Path, keys: list[str]) -> tuple[float, float]:
    hidden = (folder / INDEX).rename(folder / "hidden")
    try:
        return _with_index(folder, keys)
    finally:
        hidden.rename(folder / INDEX)


def _json(folder: Path, keys: list[str]) -> tuple[float, float]:
    start = time.perf_counter()
    with (folder / "all.json").open() as file:
        records = json.load(file)
    _masks_of(records[keys[0]])
    first = time.perf_counter() - start
    return first, _each(lambda key: _masks_of(records[key]), keys)


def _decoding(folder: Path, keys: list[str]) -> tuple[float, float]:
    store = ProposalStore(folder)
    codes = {key: [*map(_encoded, _stored(store, key).masks.numpy())] for key in keys}
    return 0.0, _each(lambda key: rle.decode_many(codes[key], SIZE), keys)


def _stored(store: ProposalStore, key: str) -> MaskSet:
    found = store.find(HASH, key)
    if found is None:
        raise LookupError(f"no candidates are stored for {key}")
    return found


def _encoded(mask: np.ndarray) -> rle.Rle:
    return rle.encode(mask[None])[0]


def _masks_of(record: dict[str, Any]) -> MaskSet:
    rows, size = record["masks"], (record["size"][0], record["size"][1])
    masks = torch.from_numpy(rle.decode_many([row["segmentation"] for row in rows], size))
    names = ("predicted_iou", "stability_score")
    columns = {name: torch.tensor([row[name] for row in rows]) for name in names}
    return MaskSet(masks, torch.tensor([row["score"] for row in rows]), "sam", columns)


def _each(work: Callable[[str], object], keys: list[str]) -> float:
    start = time.perf_counter()
    for key in keys[1:]:
        work(key)
    return (time.perf_counter() - start) / max(len(keys) - 1, 1)


def _apart(work: Callable[..., tuple[float, float]], folder: Path, keys: list[str]) -> Measured:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (work, folder, keys))


def _measured(work: Callable[..., tuple[float, float]], folder: Path, keys: list[str]) -> Measured:
    """In a process of its own, so that nothing that another side has left counts."""
    torch.set_num_threads(1)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew, below that of the imports
    before = _peak()
    first, each = work(folder, keys)
    return first, _peak() - before, each


def _peak() -> float:
    """Most bytes that this process has had resident."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main()
