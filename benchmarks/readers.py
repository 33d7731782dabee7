"""What a large annotation file costs: resident memory, start-up, and what worker processes add.

    .venv/bin/python benchmarks/readers.py --megabytes 200

Writes a COCO file of about that size, opens it through its index and with `json.load`, each in its own process, and
prints memory as a share of the file's size and start-up as ratios. The floor of start-up is opening the
index, which reads none of the file; the floor of the first opening is reading its bytes once.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from maskselect.data.coco_file import CocoFile

WORKERS = 4


def main() -> None:
    """Print the shares and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances.json"
        _write(path, options.megabytes)
        size = path.stat().st_size
        first, again, whole = (_apart(work, path) for work in (_open, _open, _load))
        print(f"file of {size / 1e6:.0f} MB; memory as a share of it, start-up as a share of json.load's")
        for name, (memory, seconds) in {"first opening": first, "with the index": again, "json.load": whole}.items():
            print(f"{name:16} memory {100 * memory / size:6.1f} %   start-up {seconds / whole[1]:7.4f}")
        print(f"{WORKERS} workers, private memory of each: {100 * _workers(path) / size:.1f} % of the file")


def _write(path: Path, megabytes: int) -> None:
    """Images of seven annotations with polygons of 40 corners, as COCO's are on average."""
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        outlines = [json.dumps([[round(float(v), 2) for v in rng.uniform(0, 600, 80)]]) for _ in range(500)]
        images = megabytes * 220
        rows = (f'{{"id": {n}, "file_name": "{n:012}.jpg", "height": 600, "width": 600}}' for n in range(images))
        file.write('{"images": [' + ", ".join(rows) + '], "annotations": [')
        for number in range(images * 7):
            file.write(", " if number else "")
            file.write(f'{{"id": {number}, "image_id": {number // 7}, "iscrowd": 0, "category_id": 1, ')
            file.write(f'"segmentation": {outlines[number % 500]}}}')
        file.write('], "categories": [{"id": 1, "name": "thing"}]}')


def _apart(work: Callable[[Path], float], path: Path) -> tuple[float, float]:
    """Growth of the peak resident memory in bytes, and seconds, of `work` in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (work, path))


def _measured(work: Callable[[Path], float], path: Path) -> tuple[float, float]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew, below that of the imports
    before = _status("VmHWM")
    seconds = work(path)
    return _status("VmHWM") - before, seconds


def _status(field: str) -> float:
    """A memory figure of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def _open(path: Path) -> float:
    """Seconds until the first image's annotations are there; then a thousand others are read."""
    start = time.perf_counter()
    data = CocoFile(path)
    data.annotations(0)
    seconds = time.perf_counter() - start
    for number in range(1000):
        data.annotations(number * 37 % data.index.count("image"))
    return seconds


def _load(path: Path) -> float:
    start = time.perf_counter()
    with path.open() as file:
        json.load(file)
    return time.perf_counter() - start


def _workers(path: Path) -> float:
    """Private memory that a worker process adds, in bytes: the median of several that read at the same time."""
    data = CocoFile(path)
    with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
        return float(np.median(pool.map(_private_growth, [data] * WORKERS, chunksize=1)))


def _private_growth(data: CocoFile) -> float:
    before = _private()
    for number in range(2000):
        data.annotations(number * 53 % data.index.count("image"))
    return _private() - before


def _private() -> float:
    lines = Path(f"/proc/{os.getpid()}/smaps_rollup").read_text().splitlines()
    return sum(1024.0 * int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))


if __name__ == "__main__":
    main()
