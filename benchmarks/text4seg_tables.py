"""Compares systems on generated scenes, with and without refiners and grammar: the tables of docs/results/text4seg.md.

    python benchmarks/text4seg_tables.py --models text4segpp ras llmseg --splits test test-words --scenes 334
    python benchmarks/text4seg_tables.py --models text4segpp --refiners snap crf --grammar --write

Each model answers every prompt once; refiners change the masks of that answer. Rows of prompts are kept in --cache, so
that an interrupted run goes on with the next seed, and a repeated one only prints. Every seed has scenes of its own.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

import maskselect
from maskselect.backends.checkpoints import find_checkpoint
from maskselect.ops.atomic import write_text
from maskselect.predictor import Model, fingerprint
from maskselect.scenes.samples import ask_scenes
from maskselect.structures.answer import Answer
from maskselect.structures.refiner import Refiner
from maskselect.systems.refining import load_refiner, refine_answer
from maskselect.systems.text4seg import Text4Seg

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "results" / "text4seg.md"
MARKS = ("<!-- systems: benchmarks/text4seg_tables.py --write -->", "<!-- end of systems -->")
PROMPTS = 3
Row = dict[str, Any]

COLUMNS: dict[str, Callable[[Row], bool]] = {
    "one target": lambda row: row["targets"] == 1 and row["form"] == "plain",
    "several": lambda row: row["targets"] > 1 and row["form"] == "plain",
    "all": lambda row: row["form"] == "plain",
    "N-acc": lambda row: row["targets"] == 0 and row["form"] == "plain",
    "reasoning": lambda row: row["form"] == "reasoning",
    "by name": lambda row: row["form"] == "naming",
}
"""Columns of mean IoU by prompts; IoU is 1 if answer and ground truth are empty, so N-acc is one of them."""
FLAWS = ("invalid", "repaired", "cut")


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """IoU of two masks (H, W) bool; 1 if both are empty."""
    either = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / either if either else 1.0


def union(answer: Answer) -> np.ndarray:
    """(H, W) bool, the pixels of all masks."""
    assert isinstance(answer.masks, torch.Tensor)
    return answer.masks.any(0).cpu().numpy()


def answers(model: Model, refiners: dict[str, Refiner], split: str, seed: int, scenes: int) -> Iterator[Row]:
    """One row for each prompt."""
    asked = ask_scenes(split, seed, scenes, prompts_per_scene=PROMPTS, reasoning_per_scene=1)
    for scene in track(asked, f"{model.name}, {split}, seed {seed}", scenes):
        samples = list(scene.samples())
        with torch.inference_mode():
            reading = model.system.read(scene.image)
            answered = model.system.answer(reading, [sample.prompt for sample in samples], model.threshold)
        for number, (sample, answer) in enumerate(zip(samples, answered, strict=True)):
            truth = sample.target_mask.numpy()
            refined = {name: refine_answer(refiner, scene.image, answer) for name, refiner in refiners.items()}
            found = {name: iou(union(one), truth) for name, one in {"none": answer, **refined}.items()}
            written = model.system.texts.encode(answer.text or "") if isinstance(model.system, Text4Seg) else []
            yield {
                "form": "plain" if number < PROMPTS else ("reasoning", "naming")[(number - PROMPTS) % 2],
                "kind": sample.kind,
                "targets": len(sample.targets),
                "iou": found,
                "invalid": answer.failure is not None,
                "repaired": answer.repairs > 0,
                "cut": answer.cut,
                "tokens": len(written),
            }


def is_text(name: str) -> bool:
    """Whether a model writes its masks."""
    return "text4seg" in Path(name).stem


def refiners_of(options: argparse.Namespace, name: str) -> list[str]:
    """The refiners of a model; those that select candidates refine them before."""
    return options.refiners if is_text(name) or "instructseg" in Path(name).stem else []


def measured(options: argparse.Namespace, name: str, grammar: bool, split: str, seed: int) -> list[Row]:
    """The rows of a model, from the cache if it has them."""
    file, names = find_checkpoint(name), refiners_of(options, name)
    key = "-".join([Path(name).stem, fingerprint(file)[:8], "grammar" * grammar, *names, split, str(seed)])
    kept: Path = options.cache / f"{key}-{options.scenes}.json"
    if not kept.is_file():
        model = maskselect.load(name, "cpu")
        if grammar:
            assert isinstance(model.system, Text4Seg)
            model.system.constrained = True
        refiners = {refiner: load_refiner(refiner) for refiner in names}
        write_text(kept, json.dumps(list(answers(model, refiners, split, seed, options.scenes))))
    rows: list[Row] = json.loads(kept.read_text())
    return rows


def percent(values: Sequence[float]) -> str:
    """Mean of the seeds, and lowest and highest if there are several."""
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.1f} to {max(values):.1f})"


def share(rows: Sequence[Row], value: Callable[[Row], float]) -> float:
    """Mean in percent; NaN without rows."""
    return 100 * statistics.mean(map(value, rows)) if rows else float("nan")


def lines(options: argparse.Namespace, split: str) -> Iterator[str]:
    """The rows of the table of a split."""
    for name in options.models:
        for grammar in (False, True) if options.grammar and is_text(name) else (False,):
            seeds = [measured(options, name, grammar, split, seed) for seed in options.seeds]
            for refiner in ("none", *refiners_of(options, name)):
                cells = [
                    percent([share([r for r in rows if of(r)], lambda r: r["iou"][refiner]) for rows in seeds])  # noqa: B023
                    for of in COLUMNS.values()
                ]
                flaws = [percent([share(rows, lambda r: r[flaw]) for rows in seeds]) for flaw in FLAWS]  # noqa: B023
                tokens = statistics.mean(row["tokens"] for rows in seeds for row in rows)
                label = (
                    Path(name).stem + (", grammar" if grammar else "") + (f", {refiner}" if refiner != "none" else "")
                )
                of_text = [*flaws, f"{tokens:.0f}"] if is_text(name) else ["-"] * (len(FLAWS) + 1)
                yield "| " + " | ".join([label, *cells, *of_text]) + " |"


def table(options: argparse.Namespace) -> str:
    """Markdown of all splits."""
    head = ["", *COLUMNS, *FLAWS, "tokens"]
    parts = []
    for split in options.splits:
        scenes = f"{options.scenes} scenes of `{split}` for each of the seeds {', '.join(map(str, options.seeds))}"
        parts.append(f"{scenes}; {PROMPTS} prompts and a reasoning prompt with its naming prompt each. Percent:\n")
        parts += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *lines(options, split), ""]
    return "\n".join(parts)


def main() -> None:
    """Measure what is missing, and print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["text4segpp", "ras", "llmseg"], help="names or files")
    parser.add_argument("--splits", nargs="+", default=["test"])
    parser.add_argument("--scenes", type=int, default=334, help="of each seed (default: %(default)s)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--refiners", nargs="*", default=["snap"], help="names or configs (default: snap)")
    parser.add_argument("--grammar", action="store_true", help="also with constrained decoding")
    parser.add_argument("--cache", type=Path, default=Path(".cache/text4seg_tables"))
    parser.add_argument("--write", action="store_true", help="into docs/results/text4seg.md")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    text = table(options)
    print(text)
    if options.write:
        before, rest = DOCUMENT.read_text().split(MARKS[0])
        write_text(DOCUMENT, f"{before}{MARKS[0]}\n\n{text}\n{MARKS[1]}{rest.split(MARKS[1])[1]}")


if __name__ == "__main__":
    main()
