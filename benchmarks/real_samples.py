"""The real samples of ../shared/data: read, checked, and scored with an oracle, with annotated masks as candidates, and
with compact RAS, which has seen nothing but generated scenes.

    python benchmarks/real_samples.py --write

prints a table, and with `--write` puts it into docs/results/data.md.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import maskselect
from maskselect.data.catalog import CATALOG
from maskselect.data.check import check
from maskselect.evaluation.samples import build_report, score_samples
from maskselect.ops.atomic import write_text
from maskselect.structures.sample import Sample

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the samples' layouts lie among the tests, which are no installed package
from tests.real_samples import REAL_SAMPLES, Oracle, RealSample, is_real  # noqa: E402

DOCUMENT = ROOT / "docs" / "results" / "data.md"
MARKS = ("<!-- real samples: benchmarks/real_samples.py --write -->", "<!-- end of real samples -->")


def row(real: RealSample, model: Any, name: str, shared: Path, base: Path, images: int) -> str:
    data = real.open(shared, base / f"{real.title}-{real.split}")
    found = check(data)
    protocol = CATALOG[real.dataset].protocol
    oracle = Oracle(data)
    best = measured(oracle, oracle.samples(), real, "oracle", protocol)
    cells = [
        f"{real.title}, {real.split}",
        real.dataset,
        str(found.images),
        str(found.samples),
        str(found.problems.total()),
        protocol,
        f"{best['gIoU']:.1f} / {best['cIoU']:.1f}",
    ]
    asked = list(first_images((sample for sample in data if is_real(sample, shared)), images))
    for with_gt in (True, False):
        if not asked:
            cells.append("no pictures")
            continue
        scores = measured(model, asked, real, name, protocol, with_gt)
        cells.append(f"{scores['gIoU']:.1f} / {scores['cIoU']:.1f}")
    return f"| {' | '.join(cells)} |"


def first_images(samples: Iterable[Sample], count: int) -> Iterator[Sample]:
    for _, group in islice(groupby(samples, key=lambda sample: sample.image_id), count):
        yield from group


def measured(
    model: Any, samples: Iterable[Sample], real: RealSample, name: str, protocol: str, with_gt: bool = False
) -> dict[str, float]:
    rows = list(score_samples(model, samples, protocol=protocol, with_gt=with_gt))
    report = build_report(rows, real.dataset, real.split, name, with_gt, protocol)
    return report["metrics"]["overall"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data", metavar="DIR")
    parser.add_argument("--images", type=int, default=40, metavar="N", help="of each that the model is asked about")
    parser.add_argument("--model", default="ras", metavar="NAME_OR_PATH")
    parser.add_argument("--write", action="store_true", help="into docs/results/data.md")
    options = parser.parse_args()
    model = maskselect.load(options.model, device="cpu")
    lines = [
        "| sample | read as | images | samples | problems | protocol | oracle | ras, annotated masks too | ras |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as base:
        for real in REAL_SAMPLES:
            start = time.perf_counter()
            lines.append(row(real, model, options.model, options.shared, Path(base), options.images))
            print(f"{lines[-1]}   {time.perf_counter() - start:.0f} s", flush=True)
    if options.write:
        text = DOCUMENT.read_text()
        before, _, rest = text.partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        write_text(DOCUMENT, f"{before}{MARKS[0]}\n\n" + "\n".join(lines) + f"\n\n{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
