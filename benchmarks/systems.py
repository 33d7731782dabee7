"""Two systems on the same images and prompts: the ratio of their latencies, side by side in one run.

    .venv/bin/python benchmarks/systems.py --first ras --second llmseg

Candidates are proposed once and given to both. Timed are: an image, which is encoding it, pooling features and reading
it with the language model; one prompt behind an image that has been read; and all prompts of an image in one call.

What an answer cannot do without is counted as floating-point operations (`torch.utils.flop_counter`), which are those
that really ran: RAS reads each candidate once more for every prompt; LLM-Seg writes its answer word by word, of which
`[SEG]` is the first one of the compact model, and fuses candidates with it.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from maskselect.predictor import load
from maskselect.scenes.groups import SceneGroups

PARTS = ("an image", "one prompt a call", "all prompts in one call")


def main() -> None:
    """Print median, spread and ratio of each part, and the operations of each side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", default="ras")
    parser.add_argument("--second", default="llmseg")
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    options = parser.parse_args()
    sides = [load(name, options.device).system for name in (options.first, options.second)]
    source = SceneGroups("test", 77, options.scenes)
    ratios: dict[str, list[float]] = {part: [] for part in PARTS}
    operations: dict[str, list[tuple[int, int]]] = {part: [] for part in PARTS}
    for item in range(options.scenes):
        annotated = source.load(item)
        found = sides[0].proposer.propose(annotated.image)
        if len(found) == 0:
            continue
        queries = source.queries(item, annotated.extra, options.prompts, np.random.default_rng(item))
        tasks = [_tasks(system, annotated.image, annotated.masks, found, queries) for system in sides]
        for part in PARTS:
            spent = [[_timed(run) for run in own[part]] for own in tasks]
            ratios[part] += [second / first for first, second in zip(*spent, strict=True)]
            operations[part].append((_counted(tasks[0][part][0]), _counted(tasks[1][part][0])))
    print(
        f"{len(operations[PARTS[0]])} images of {options.prompts} prompts: time of {options.second} / {options.first}"
    )
    for part in PARTS:
        quarter = statistics.quantiles(ratios[part], n=4)
        first, second = (statistics.fmean(side) / 1e6 for side in zip(*operations[part], strict=True))
        print(f"{part:24} {quarter[1]:.2f} (quartiles {quarter[0]:.2f} to {quarter[2]:.2f}); ", end="")
        print(f"operations {second:.0f} M / {first:.0f} M = {second / first:.2f}")


def _tasks(system: Any, image: np.ndarray, masks: torch.Tensor, found: Any, queries: Any) -> dict[str, list[Any]]:
    """What is timed of one system on one image, by part."""
    maps = system.encode(image)
    pooled = system.pool_features(maps, masks)
    read = system.read_candidates(image, system.pool_features(maps, found))
    texts, references = [q.text for q in queries], [pooled[list(q.references)] for q in queries]

    def see() -> None:
        system.read_candidates(image, system.pool_features(system.encode(image), found))

    def ask(some: slice) -> Callable[[], None]:
        return lambda: system.score_candidates(read, texts[some], references[some], 0.5)

    singles = [ask(slice(number, number + 1)) for number in range(len(texts))]
    return dict(zip(PARTS, ([see], singles, [ask(slice(None))]), strict=True))


def _timed(run: Callable[[], None]) -> float:
    """Seconds of the faster of two runs: the slower one holds somebody else's work."""
    spent = []
    for _ in range(2):
        start = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - start)
    return min(spent)


def _counted(run: Callable[[], None]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


if __name__ == "__main__":
    main()
