"""Damages valid data sets at random and reads them: every reader must give samples or one sentence, nothing else.

    .venv/bin/python -m tests.data.fuzz_readers --cases 20000

Two kinds of damage: a value somewhere inside an annotation becomes another value, or bytes of the file change. A case
that raises anything but ValueError or FileNotFoundError is kept in a folder and named, and the exit status is 1.
"""

import argparse
import json
import pickle
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from maskselect.data.catalog import EVERYTHING
from maskselect.ops import rle
from maskselect.structures.video import stacked
from tests.data import (
    test_coco,
    test_llava,
    test_lvis,
    test_maskgroups,
    test_own,
    test_panoptic,
    test_parts,
    test_reasoning_sets,
    test_refer,
    test_semantic,
    test_video,
    test_visual_genome,
)
from tests.recipes import test_maskgroups_2m

LARGE = 2**63 - 1
ODD: list[Any] = [
    None, True, -1, 0, 1, 10**6, LARGE, 1e300, -0.5, "", "x", "../x", "\0", "é", [], [[]], [1], {}, {"a": 1},
    [[0, 0, 1]], {"size": [8, 10], "counts": "0"}, {"size": [8, 10], "counts": [80]}, [float("inf")],
]  # fmt: skip


def _write_maskgroups(folder: Path) -> None:
    rows = test_maskgroups.rows(test_maskgroups.three_masks())
    test_maskgroups.write_in_form(test_maskgroups.folder(folder), "val", rows, "json")


def _build_maskgroups(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as sources:
        roots = test_maskgroups_2m.Roots(
            test_maskgroups_2m.refer(Path(sources) / "refer"), test_maskgroups_2m.coco(Path(sources) / "coco")
        )
        test_maskgroups_2m.build_maskgroups_2m(roots, folder, test_maskgroups_2m.SETS, per_shard=1)
    # The pictures themselves instead of links to the sources, which are gone.
    for link in list((folder / "images").iterdir()):
        link.unlink()
        for name in ("COCO_train2014_000000000011.jpg", "000000000011.jpg"):
            test_maskgroups_2m.picture(folder / "images" / link.name / name)


Maker = Callable[[Path], object]
MAKERS: dict[str, tuple[Maker, str]] = {
    "own": (lambda folder: test_own._own(folder, test_own.PROMPTS), "train"),
    "refcoco": (test_refer.write_root, "val"),
    "grefcoco": (lambda folder: test_refer.write_root(folder, "grefcoco"), "val"),
    "reasonseg": (test_reasoning_sets.reasonseg_files, "val"),
    "llm-seg40k": (test_reasoning_sets._llm_seg, "val"),
    "muse": (test_reasoning_sets.muse_files, "val"),
    "earthreason": (test_reasoning_sets._earth, "val"),
    "maskgroups": (_write_maskgroups, "val"),
    "maskgroups-2m": (_build_maskgroups, "train"),
    "coco": (test_coco.coco_root, "val2017"),
    "entityseg": (test_coco.entity_root, "val"),
    "lvis": (test_lvis.lvis_root, "val"),
    "egoobjects": (test_lvis.ego_root, "val"),
    "paco": (test_parts.paco_root, "val"),
    "pascal-part": (test_parts.pascal_root, "train"),
    "coco-panoptic": (test_panoptic.root_of, "val2017"),
    "pix2cap": (lambda folder: test_panoptic.root_of(folder, test_panoptic.CAPTIONED, "pix2cap_coco_val.json"), "val"),
    "coco-stuff": (test_semantic.stuff_root, "val2017"),
    "ade20k": (test_semantic.ade_root, "training"),
    "mapillary": (test_semantic.vistas_root, "validation"),
    "visual-genome": (test_visual_genome.write, "all"),
    "ref-youtube-vos": (test_video.youtube, "train"),
    "ref-davis17": (test_video.davis, "valid"),
    "revos": (test_video.revos, "valid"),
    "mevis": (test_video.mevis, "valid_u"),
    "llava": (lambda folder: test_llava.write(folder, "llava_v1_5_mix665k.json", test_llava.TALKS), "mix-665k"),
}


def fuzz(cases: int, seed: int, keep: Path | None = None) -> tuple[Counter[str], list[str]]:
    """Cases of each data set and outcome, and a line for each crash.

    cases: how many, the data sets in turn; and as many run-length texts.  keep: where data that crashed goes.
    """
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    crashes: list[str] = []
    with tempfile.TemporaryDirectory() as base:
        whole = {name: Path(base) / name for name in MAKERS}
        for name, (make, _) in MAKERS.items():
            whole[name].mkdir()
            make(whole[name])
        for number, name in zip(range(cases), cycle(MAKERS), strict=False):
            folder = Path(base) / "case"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(whole[name], folder)
            done = _damage(folder, rng)
            outcome = _read(name, folder)
            counts[f"{name}: {outcome if outcome in ('read', 'refused') else 'crashed'}"] += 1
            if outcome not in ("read", "refused"):
                crashes.append(f"{name}, case {number}, {done}: {outcome}")
                if keep is not None:
                    shutil.copytree(folder, keep / f"{name}-{number}", dirs_exist_ok=True)
        counts["run lengths"] = cases
        _fuzz_codes(rng, cases, crashes)
    return counts, crashes


def _read(name: str, folder: Path) -> str:
    try:
        reader: Any = EVERYTHING[name].open(folder, MAKERS[name][1])
        if hasattr(reader, "image_ids"):
            reader.image_ids()
        for number in range(len(reader)):
            try:
                found = reader[number]
                if getattr(found, "masks", None) is not None:
                    stacked(found.masks)
            except (ValueError, FileNotFoundError):
                continue
    except (ValueError, FileNotFoundError):
        return "refused"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "read"


def _damage(folder: Path, rng: random.Random) -> str:
    told = (".json", ".p", ".parquet", ".png")
    files = [path for path in folder.rglob("*") if path.is_file() and (path.suffix in told or rng.random() < 0.1)]
    path = rng.choice(files)
    if path.suffix in (".json", ".p") and rng.random() < 0.7:
        plain = json.loads(path.read_text()) if path.suffix == ".json" else pickle.loads(path.read_bytes())
        for _ in range(rng.choice((1, 1, 2, 5))):
            plain = _changed(plain, rng)
        path.write_text(json.dumps(plain)) if path.suffix == ".json" else path.write_bytes(pickle.dumps(plain, 2))
        return f"values in {path.name}"
    data = bytearray(path.read_bytes())
    if rng.random() < 0.3:
        del data[rng.randrange(len(data) + 1) :]
    for _ in range(rng.choice((0, 1, 3, 20))):
        if data:
            data[rng.randrange(len(data))] = rng.randrange(256)
    path.write_bytes(data)
    return f"bytes of {path.name}"


def _changed(value: Any, rng: random.Random) -> Any:
    """The value with something in it replaced, removed or doubled."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: _changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        if rng.random() < 0.1:
            return value[:place] + value[place + 1 :] if rng.random() < 0.5 else [*value, value[place]]
        return [*value[:place], _changed(value[place], rng), *value[place + 1 :]]
    return rng.choice(ODD)


def _fuzz_codes(rng: random.Random, cases: int, crashes: list[str]) -> None:
    """Random and damaged run-length texts; those that decode must hold as many pixels as their runs say."""
    for _ in range(cases):
        height, width = rng.randrange(1, 30), rng.randrange(1, 30)
        mask = np.array([[rng.random() < 0.4 for _ in range(width)] for _ in range(height)])
        code = bytearray(rle.encode(mask[None])[0]["counts"].encode())
        for _ in range(rng.choice((0, 1, 2, 5))):
            code[rng.randrange(len(code))] = rng.randrange(40, 120)
        try:
            found = rle.decode({"size": [height, width], "counts": bytes(code)})
            if found.sum() != rle.run_lengths(bytes(code))[1::2].sum():
                crashes.append(f"run lengths {bytes(code)!r} of {height}x{width}: other pixels than its runs")
        except ValueError:
            continue
        except Exception as error:
            crashes.append(f"run lengths {bytes(code)!r} of {height}x{width}: {type(error).__name__}: {error}")


def main() -> int:
    """Print the counts; 1 when something crashed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for data that crashed a reader")
    options = parser.parse_args()
    counts, crashes = fuzz(options.cases, options.seed, options.keep)
    for name, count in sorted(counts.items()):
        print(f"{name:28} {count}")
    print(f"{sum(counts.values())} cases, {len(crashes)} crashes")
    print("\n".join(crashes[:40]))
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())
