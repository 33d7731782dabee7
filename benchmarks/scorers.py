"""All candidates in one pass against one after another: the ratio of their latencies, side by side in one run.

    .venv/bin/python benchmarks/scorers.py --parallel ras --autoregressive runs/ras_autoregressive/ras.safetensors

Both sides get the same images, candidates, features and prompts. What is timed is what differs, scoring behind an image
that has been read: once with one prompt a call, and once with all prompts of the image in one call, which the
non-autoregressive side answers in one pass and the other one prompt after another.

The floor is one forward pass of a prompt's own tokens: the non-autoregressive side runs exactly one, the other one more
for each mask that it names. So one prompt alone cannot be more than 1 + named times faster.
"""

import argparse
import statistics
import time

import numpy as np
import torch

from maskselect.predictor import Model, load
from maskselect.scenes.groups import SceneGroups


def main() -> None:
    """Print median, spread and ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parallel", default="ras")
    parser.add_argument("--autoregressive", required=True)
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--prompts", type=int, default=16)
    options = parser.parse_args()
    sides = {"parallel": load(options.parallel, "cpu"), "autoregressive": load(options.autoregressive, "cpu")}
    source = SceneGroups("test", 77, options.scenes)
    alone: list[tuple[float, float]] = []
    together: list[tuple[float, float]] = []
    named: list[int] = []
    for item in range(options.scenes):
        annotated = source.load(item)
        queries = source.queries(item, annotated.extra, options.prompts, np.random.default_rng(item))
        found = sides["parallel"].system.proposer.propose(annotated.image)  # type: ignore[attr-defined]
        system = sides["parallel"].system
        maps = system.encode(annotated.image)
        candidates, masks = system.pool_features(maps, found), system.pool_features(maps, annotated.masks)
        if len(found) == 0:
            continue
        read = {name: model.system.read_candidates(annotated.image, candidates) for name, model in sides.items()}
        texts, references = [q.text for q in queries], [masks[list(q.references)] for q in queries]
        for text, own in zip(texts, references, strict=True):
            spent = [_timed(sides[name], read[name], [text], [own])[0] for name in sides]
            alone.append((spent[0], spent[1]))
        spent, counts = zip(*(_timed(sides[name], read[name], texts, references) for name in sides), strict=True)
        together.append((spent[0], spent[1]))
        named += counts[1]
    print(
        f"{len(alone)} prompts on {len(together)} images; the autoregressive side named {np.mean(named):.2f} masks each"
    )
    _tell("one prompt a call", alone)
    _tell(f"{options.prompts} prompts a call", together)
    for least, most in ((0, 0), (1, 1), (2, 3), (4, 99)):
        some = [pair for pair, count in zip(alone, named, strict=True) if least <= count <= most]
        if len(some) >= 4:
            _tell(
                f"  one prompt, {least}{'' if least == most else ' or more' if most > 9 else f' to {most}'} named", some
            )


def _tell(what: str, pairs: list[tuple[float, float]]) -> None:
    """Median and quartiles of autoregressive / parallel, and the ratio of the sums."""
    quarter = statistics.quantiles([second / first for first, second in pairs], n=4)
    total = sum(second for _, second in pairs) / sum(first for first, _ in pairs)
    print(f"{what:34} {quarter[1]:.2f} (quartiles {quarter[0]:.2f} to {quarter[2]:.2f}); of the sums {total:.2f}")


def _timed(model: Model, read: object, texts: list[str], references: list[torch.Tensor]) -> tuple[float, list[int]]:
    """Seconds of the faster of two runs (the slower one holds somebody else's work), and masks named for each text."""
    spent, scores = [], torch.zeros(0)
    for _ in range(2):
        start = time.perf_counter()
        scores = model.system.score_candidates(read, texts, references, 0.5)[0]  # type: ignore[arg-type]
        spent.append(time.perf_counter() - start)
    return min(spent), [int(count) for count in (scores >= model.threshold).sum(1)]


if __name__ == "__main__":
    main()
