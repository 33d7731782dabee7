"""All candidates in one pass against one after another: the ratio of their latencies, side by side in one run.

    .venv/bin/python benchmarks/scorers.py --parallel ras --autoregressive runs/ras_autoregressive/ras.safetensors

Both sides get the same images, candidates, features and prompts. What is timed is what differs: scoring one prompt
behind an image that has been read. The floor is one forward pass of the prompt's own tokens: the non-autoregressive
side runs exactly one, the other one more for each mask that it names.
"""

import argparse
import statistics
import time

import numpy as np
import torch

from maskselect.data.groups import SceneGroups
from maskselect.predictor import Model, load


def main() -> None:
    """Print median, spread and ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parallel", default="ras")
    parser.add_argument("--autoregressive", required=True)
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--prompts", type=int, default=8)
    options = parser.parse_args()
    sides = {"parallel": load(options.parallel, "cpu"), "autoregressive": load(options.autoregressive, "cpu")}
    source = SceneGroups("test", 77, options.scenes)
    times: dict[str, list[float]] = {name: [] for name in sides}
    ratios: list[float] = []
    named: list[int] = []
    for item in range(options.scenes):
        annotated = source.load(item)
        queries = source.queries(item, annotated.extra, options.prompts, np.random.default_rng(item))
        found = sides["parallel"].candidates(annotated.image)
        pool = sides["parallel"].system.pool_features
        candidates, masks = pool(annotated.image, found), pool(annotated.image, annotated.masks)
        if len(found) == 0:
            continue
        read = {name: model.system.read(annotated.image, candidates) for name, model in sides.items()}
        for query in queries:
            references = [masks[list(query.references)]]
            spent = {name: _timed(sides[name], read[name], query.text, references) for name in sides}
            named.append(len(query.targets))
            for name, seconds in spent.items():
                times[name].append(seconds)
            ratios.append(spent["autoregressive"] / spent["parallel"])
    for name, values in times.items():
        quarter = statistics.quantiles(values, n=4)
        print(f"{name:15} median 1, spread {quarter[0] / quarter[1]:.2f} to {quarter[2] / quarter[1]:.2f} (quartiles)")
    quarter = statistics.quantiles(ratios, n=4)
    print(f"autoregressive / parallel: median {quarter[1]:.2f}, quartiles {quarter[0]:.2f} to {quarter[2]:.2f}")
    total = sum(times["autoregressive"]) / sum(times["parallel"])
    print(f"of the sums: {total:.2f}; {len(ratios)} prompts, {np.mean(named):.2f} targets each")


def _timed(model: Model, read: object, text: str, references: list[torch.Tensor]) -> float:
    """Seconds of the faster of two runs; the slower one holds somebody else's work."""
    spent = []
    for _ in range(2):
        start = time.perf_counter()
        model.system.score(read, [text], references)  # type: ignore[arg-type]
        spent.append(time.perf_counter() - start)
    return min(spent)


if __name__ == "__main__":
    main()
