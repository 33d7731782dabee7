"""Systems on the same images and prompts: ratios of their latencies to that of the first, side by side in one run.

    .venv/bin/python benchmarks/systems.py --models ras llmseg
    .venv/bin/python benchmarks/systems.py --models ras text4segpp --refiner snap
    .venv/bin/python benchmarks/systems.py --models ras llmseg instructseg --clips 10

Timed are whole answers about a new image, with one prompt and with all prompts of the image in one call, candidates and
refiner included. Where all systems take candidates, these are also proposed once and given to each: then timed are an
image, which is encoding it, pooling features and reading it with the language model; one prompt behind an image that
has been read; and all prompts in one call.

What an answer cannot do without is counted as floating-point operations (`torch.utils.flop_counter`), which are those
that really ran: RAS reads each candidate once more for every prompt; systems that write do it word by word.

With --clips, whole answers about generated clips take the place of images. Memory is the highest resident memory of a
process of its own that loads a system and answers all prompts of the first image or clip.
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from rich.progress import track
from torch.utils.flop_counter import FlopCounterMode

from maskselect.evaluation.videos import answers_to
from maskselect.predictor import Model, load
from maskselect.scenes.clip_samples import ask_clips
from maskselect.scenes.groups import SceneGroups
from maskselect.structures.video import VideoSample
from maskselect.systems.candidates import CandidateSystem
from maskselect.systems.instructseg import InstructSeg
from maskselect.systems.text4seg import Text4Seg

SEED = 77
WHOLE = ("one prompt, all new", "all prompts, all new")
Task = dict[str, list[Callable[[], Any]]]
PARTS = ("an image", "one prompt a call", "all prompts in one call")


def main() -> None:
    """Print median, spread and ratio of each part, and the operations of each side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["ras", "llmseg"], help="names or files; the first is 1")
    parser.add_argument("--refiner", default=None, help="of systems without candidates")
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--clips", type=int, default=0, help="clips in place of images")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    options = parser.parse_args()
    memory = [_memory(name, options) for name in options.models]
    models = [_loaded(name, options) for name in options.models]
    given = not options.clips and all(isinstance(model.system, CandidateSystem) for model in models)
    parts = (*WHOLE, *PARTS) if given else WHOLE
    seconds: dict[str, list[list[float]]] = {part: [] for part in parts}
    operations: dict[str, list[list[int]]] = {part: [] for part in parts}
    visuals, count = ("clips", options.clips) if options.clips else ("images", options.scenes)
    for tasks in track(_asked(models, options, given), visuals, count):
        for part in parts:
            spent = [[_timed(run) for run in own[part]] for own in tasks]
            seconds[part] += [list(pair) for pair in zip(*spent, strict=True)]
            operations[part].append([_counted(own[part][0]) for own in tasks])
    print(f"{len(operations[WHOLE[0]])} {visuals}: time relative to {options.models[0]}")
    for part in parts:
        counted = [statistics.fmean(side) / 1e6 for side in zip(*operations[part], strict=True)]
        for number, name in enumerate(options.models[1:], 1):
            quarter = statistics.quantiles((own[number] / own[0] for own in seconds[part]), n=4)
            print(
                f"{name:12} {part:26} {quarter[1]:.2f} (quartiles {quarter[0]:.2f} to {quarter[2]:.2f}); operations "
                f"{counted[number]:.0f} M / {counted[0]:.0f} M = {counted[number] / counted[0]:.2f}"
            )
    for number, name in enumerate(options.models):
        pairs = zip(seconds[WHOLE[1]], seconds[WHOLE[0]], strict=True)
        ratio = statistics.median(many[number] / one[number] for many, one in pairs)
        print(f"{name:12} all prompts over one prompt: {ratio:.2f}; at most {memory[number]:.0f} MiB of memory")


def _asked(models: list[Model], options: argparse.Namespace, given: bool) -> Iterator[list[Task]]:
    """What is timed of each model about each image or clip; given: candidates are proposed once for all models."""
    if options.clips:
        for clip in ask_clips("test", SEED, options.clips):
            yield [_whole_clip(model, list(clip.samples())) for model in models]
        return
    source = SceneGroups("test", SEED, options.scenes)
    for item in range(options.scenes):
        annotated = source.load(item)
        queries = source.queries(item, annotated.extra, options.prompts, np.random.default_rng(item))
        tasks = [_whole(model, annotated, queries) for model in models]
        if given:
            sides: list[Any] = [model.system for model in models]
            found = sides[0].proposer.propose(annotated.image)
            if len(found) == 0:
                continue
            for own, system in zip(tasks, sides, strict=True):
                own.update(_tasks(system, annotated.image, annotated.masks, found, queries))
        yield tasks


def _memory(name: str, options: argparse.Namespace) -> float:
    """The highest resident memory in MiB of a process that answers all prompts of one image or clip."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_answer_once, (name, options))


def _answer_once(name: str, options: argparse.Namespace) -> float:
    (task,) = next(_asked([_loaded(name, options)], options, False))
    task[WHOLE[1]][0]()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _loaded(name: str, options: argparse.Namespace) -> Model:
    model = load(name, options.device)
    if options.refiner and isinstance(model.system, Text4Seg | InstructSeg):
        model = load(name, options.device, refiner=options.refiner)
    for parameter in cast(torch.nn.Module, model.system).parameters():
        parameter.requires_grad_(False)  # else counting operations fails where a module gets a parameter as input
    return model


def _whole_clip(model: Model, samples: list[VideoSample]) -> Task:
    """Whole answers about one clip, by part."""
    parts = (samples[:1], samples)
    return {name: [partial(answers_to, model, some)] for name, some in zip(WHOLE, parts, strict=True)}


def _whole(model: Model, annotated: Any, queries: Any) -> Task:
    """Whole answers about one image, by part."""
    texts = [q.text for q in queries]
    references = [list(annotated.masks[list(q.references)].numpy()) for q in queries]

    def ask(some: slice) -> Callable[[], Any]:
        return lambda: model.select_many(annotated.image, texts[some], references[some])

    return {WHOLE[0]: [ask(slice(1))], WHOLE[1]: [ask(slice(None))]}


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


def _timed(run: Callable[[], Any]) -> float:
    """Seconds of the faster of two runs: the slower one holds somebody else's work."""
    spent = []
    for _ in range(2):
        start = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - start)
    return min(spent)


def _counted(run: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


if __name__ == "__main__":
    main()
