"""SAM's everything mode: ours, the package's `SamAutomaticMaskGenerator` and transformers' `mask-generation`, same
weights, same image, one run.

    python benchmarks/everything.py --model-type vit_b                 # shapes of ViT-B, random weights
    python benchmarks/everything.py --model-type compact               # the shipped SAM on a generated scene

Random weights find nothing, so with an official shape the networks run for their time and what they say is replaced by
blobs: things of several sizes, three masks a point, logits and predicted IoU as a trained decoder gives them. Both
sides get the same blobs. Times are split by stage; a ratio is the package's time over the row's. The floor is what the
multiplications of encoder and decoder would take at the rate of one large matrix product, measured in the same run.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sam_in_transformers import to_transformers
from segment_anything import SamAutomaticMaskGenerator
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import pipeline

from maskselect.backends import sam_points
from maskselect.backends.sam import OFFICIAL_SIZES, attend_prompts, build_sam, load_sam, upscale_masks
from maskselect.backends.sam_network import Sam
from maskselect.ops.overlap import pairwise_iou
from maskselect.proposers import sam as proposer_module
from maskselect.proposers.sam import SamProposer
from maskselect.scenes.layout import scene_ids
from maskselect.scenes.render import render
from maskselect.scenes.stream import scene_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.backends.sam_package import to_package

STAGES = ("encoder", "decoder", "after")
PACKAGE = {"points_per_side": 32, "pred_iou_thresh": 0.88, "stability_score_thresh": 0.95, "box_nms_thresh": 0.7}
COMPACT = {"points_per_side": 32, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.6, "box_nms_thresh": 0.7}


class Clock:
    """Seconds by stage, and what the networks say replaced by blobs where there are some."""

    def __init__(self, blobs: tuple[Tensor, Tensor] | None) -> None:
        self.blobs = blobs
        self.reset()

    def reset(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.points = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start

    def next_blobs(self, count: int) -> tuple[Tensor, Tensor] | None:
        """Logits (count, 4, l, l) and IoU (count, 4) of the next points."""
        if self.blobs is None:
            return None
        start = self.points
        self.points += count
        return self.blobs[0][start : start + count], self.blobs[1][start : start + count]


def make_blobs(points: int, side: int, things: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Things as ellipses; a point gets the nearest, a part of it, and it with its surroundings, each a little off."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(0, side, (things, 2))
    radius = side * np.exp(rng.normal(-3.0, 0.6, (things, 2)))
    grid = np.stack(np.meshgrid(np.arange(points), np.arange(points)), -1).reshape(-1, 2)
    grid = (grid + 0.5) / points * side
    nearest = np.argmin(np.linalg.norm((grid[:, None] - centre[None]) / radius[None], axis=2), 1)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    noise = torch.nn.functional.interpolate(
        torch.from_numpy(rng.normal(0, 1, (64, 1, side // 8, side // 8)).astype(np.float32)),
        (side, side),
        mode="bilinear",
    )[:, 0]
    low = torch.zeros(len(grid), 4, side, side, dtype=torch.float16)
    for row, thing in enumerate(nearest):
        for place, scale in enumerate((1.0, 0.5, 1.0, 1.6)):
            shift = rng.normal(0, 0.02, 2) * radius[thing]
            reach = radius[thing] * scale
            away = np.hypot((x - centre[thing, 0] - shift[0]) / reach[0], (y - centre[thing, 1] - shift[1]) / reach[1])
            slope = reach.min() * 10  # stable enough for the default threshold, as most of a trained decoder's are
            logits = torch.from_numpy((1 - away) * slope) + 0.4 * noise[int(rng.integers(64))]
            low[row, place] = logits.clamp(-15, 15).half()
    iou = torch.from_numpy(rng.uniform(0.7, 1.0, (len(grid), 4)).astype(np.float32))
    return low, iou


def package(sam: Sam, clock: Clock, settings: dict[str, Any]) -> Callable[[np.ndarray], Any]:
    """The package's generator, its encoder and decoder timed."""
    theirs = to_package(sam)
    generator = SamAutomaticMaskGenerator(theirs, **settings)
    encode, predict = theirs.image_encoder.forward, theirs.mask_decoder.predict_masks

    def encoder(pixels: Tensor) -> Tensor:
        with clock.stage("encoder"):
            return encode(pixels)

    def decoder(**given: Tensor) -> tuple[Tensor, Tensor]:
        with clock.stage("decoder"):
            found = predict(**given)
        told = clock.next_blobs(len(found[0]))
        return found if told is None else (told[0].float(), told[1])

    theirs.image_encoder.forward, theirs.mask_decoder.predict_masks = encoder, decoder  # type: ignore[method-assign]
    return generator.generate


def library(sam: Sam, clock: Clock, settings: dict[str, Any]) -> Callable[[np.ndarray], Any]:
    """Transformers' pipeline over the same weights, its encoder and decoder timed."""
    model, processor = to_transformers(sam)
    made = pipeline("mask-generation", model=model, image_processor=processor)
    encode, decode = model.vision_encoder.forward, model.mask_decoder.forward

    def encoder(*given: Any, **named: Any) -> Any:
        with clock.stage("encoder"):
            return encode(*given, **named)

    def decoder(*given: Any, **named: Any) -> Any:
        with clock.stage("decoder"):
            found = decode(*given, **named)
        told = clock.next_blobs(found[0].shape[1])
        return found if told is None else (told[0][None, :, 1:].float(), told[1][None, :, 1:])

    model.vision_encoder.forward, model.mask_decoder.forward = encoder, decoder
    asked = {
        "points_per_crop": settings["points_per_side"],
        "pred_iou_thresh": settings["pred_iou_thresh"],
        "stability_score_thresh": settings["stability_score_thresh"],
        "crops_nms_thresh": settings["box_nms_thresh"],
    }
    return lambda image: [{"segmentation": np.asarray(m)} for m in made(Image.fromarray(image), **asked)["masks"]]


class TimedDecoder(sam_points.PointDecoder):
    """Ours, timed."""

    clock: Clock

    def embed(self, pixels: Tensor) -> Tensor:
        with self.clock.stage("encoder"):
            return super().embed(pixels)

    def _decoded(self, embedding: Tensor, sparse: Tensor, least_iou: float) -> tuple[Tensor, Tensor]:
        told = self.clock.next_blobs(len(sparse))
        with self.clock.stage("decoder"):
            if told is None:
                return super()._decoded(embedding, sparse, least_iou)
            attend = self._attend
            self._attend = lambda *given: (*attend(*given)[:2], told[1])
            try:
                _, iou = super()._decoded(embedding, sparse, least_iou)
            finally:
                self._attend = attend
        drawn = (told[1][:, 1:] > least_iou).any(1)
        return told[0][drawn, 1:].float(), iou


def ours(sam: Sam, clock: Clock, **settings: Any) -> Callable[[np.ndarray], Any]:
    """Our proposer over the same network."""
    TimedDecoder.clock = clock
    proposer_module.load_sam, proposer_module.PointDecoder = lambda *_: sam, TimedDecoder  # type: ignore[assignment]
    made = SamProposer("", "", mask_nms_thresh=None, max_candidates=None, **settings)
    return made.propose


def floor_seconds(sam: Sam, points: int, dtype: torch.dtype) -> tuple[float, float]:
    """Seconds that encoder and decoder would take at the rate of a large matrix product."""
    one = torch.randn(2048, 2048).to(dtype)
    one @ one
    start = time.perf_counter()
    for _ in range(5):
        one @ one
    rate = 5 * 2 * 2048**3 / (time.perf_counter() - start)
    side = sam.image_encoder.img_size
    with torch.inference_mode(), FlopCounterMode(display=False) as encoder:
        embedding = sam.image_encoder(torch.zeros(1, 3, side, side, dtype=dtype))
    sparse = torch.zeros(1, 16, 2, embedding.shape[1])
    with torch.inference_mode(), FlopCounterMode(display=False) as decoder:
        tokens, pixels, _ = attend_prompts(sam, embedding, sparse)
        upscale_masks(sam, tokens, pixels)
    return encoder.get_total_flops() / rate, decoder.get_total_flops() / 16 * points / rate


def measure(run: Callable[[np.ndarray], Any], image: np.ndarray, clock: Clock, repeats: int) -> tuple[Any, list[Any]]:
    rows = []
    found = None
    for _ in range(repeats):
        clock.reset()
        start = time.perf_counter()
        with torch.inference_mode():
            found = run(image)
        whole = time.perf_counter() - start
        clock.seconds["after"] = whole - clock.seconds["encoder"] - clock.seconds["decoder"]
        rows.append({**clock.seconds, "all": whole})
    return found, rows


def stacked(records: list[dict[str, Any]]) -> torch.Tensor:
    return torch.from_numpy(np.stack([record["segmentation"] for record in records]))


def agreement(theirs: Tensor, found: Tensor) -> str:
    best = pairwise_iou(theirs, found).max(1).values
    shares = (float((best >= least).float().mean()) for least in (0.9, 0.99))
    return f"{len(found)} masks to {len(theirs)}, partner of IoU 0.9: {next(shares):.1%}, of 0.99: {next(shares):.1%}"


def ratios(base: dict[str, float], rows: list[dict[str, float]]) -> str:
    told = []
    for stage in (*STAGES, "all"):
        each = sorted(base[stage] / row[stage] for row in rows)
        told.append(f"{stage} {statistics.median(each):.1f} ({each[0]:.1f} to {each[-1]:.1f})")
    return "; ".join(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-type", default="compact", choices=("compact", "vit_b", "vit_l", "vit_h"))
    parser.add_argument("--size", type=int, nargs=2, default=(768, 1024), metavar=("H", "W"))
    parser.add_argument("--points", type=int, default=32, help="a side of the grid")
    parser.add_argument("--repeats", type=int, default=3, help="of ours")
    parser.add_argument("--package-repeats", type=int, default=1)
    parser.add_argument("--things", type=int, default=150)
    options = parser.parse_args()
    compact = options.model_type == "compact"
    torch.manual_seed(0)

    def network() -> Sam:
        if compact:
            return load_sam()
        return build_sam(**OFFICIAL_SIZES[options.model_type]).eval().requires_grad_(False)

    state = network().state_dict()
    settings = (COMPACT if compact else PACKAGE) | {"points_per_side": options.points}
    blobs = None if compact else make_blobs(options.points, network().image_encoder.img_size // 4, options.things)
    drawn = render(scene_of(next(iter(scene_ids("test", 5, 1))))).image
    height, width = options.size
    image = np.ascontiguousarray(np.resize(drawn, (height, width, 3))) if blobs else drawn
    clock = Clock(blobs)
    sam = network()
    sam.load_state_dict(state)
    expected, theirs = measure(package(sam, clock, settings), image, clock, options.package_repeats)
    base = {stage: statistics.median(row[stage] for row in theirs) for stage in (*STAGES, "all")}
    shares = ", ".join(f"{stage} {base[stage] / base['all']:.0%}" for stage in STAGES)
    print(f"package: {len(expected)} masks; {shares}", flush=True)
    known = stacked(expected)
    sam = network()
    sam.load_state_dict(state)
    found, rows = measure(library(sam, clock, settings), image, clock, options.package_repeats)
    print(f"transformers: {ratios(base, rows)}; {agreement(known, stacked(found))}", flush=True)
    kinds = [
        ("exact", {"mode": "exact"}),
        ("fast", {}),
        ("fast, bf16", {"precision": "bfloat16"}),
        ("exact, compiled", {"mode": "exact", "compile": True}),
        ("fast, bf16, compiled", {"precision": "bfloat16", "compile": True}),
    ]
    side = {} if not compact else {"decision_side": 256}
    for name, changes in kinds:
        sam = network()
        sam.load_state_dict(state)
        run = ours(sam, clock, **settings, **side, **changes)
        if changes.get("compile"):
            measure(run, image, clock, 1)
        found, rows = measure(run, image, clock, options.repeats)
        floors = floor_seconds(sam, options.points**2, run.__self__.decoder.dtype)  # type: ignore[attr-defined]
        ours_all = statistics.median(row["all"] for row in rows)
        print(
            f"{name}: {ratios(base, rows)}; floor {sum(floors) / ours_all:.0%} of it; {agreement(known, found.masks)}",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
