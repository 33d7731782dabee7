"""RAS at the sizes of the paper, with random weights: what it must compute, and how near to that it comes.

    python benchmarks/paper_scale.py                          # operations and bytes of 7B and 13B, on no device
    python benchmarks/paper_scale.py --run 7b --device cuda   # and measured: latency, step, memory, utilisation
    python benchmarks/paper_scale.py --run compact            # the same measurements at compact size, on a CPU

Counted with `torch.utils.flop_counter` on meta tensors: an image (encoders, tower, prefix with 100 candidates), one
prompt behind it, 16 prompts behind it, and a training step of one image and 16 prompts. The floor of a prompt alone is
reading the language model's weights once from memory; the floor of everything else is its operations.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from maskselect.encoders.ensemble import EncoderEnsemble
from maskselect.encoders.position import SinusoidEncoder
from maskselect.encoders.timm import TimmEncoder
from maskselect.lmm.compact import LlavaSizes
from maskselect.lmm.llava import Llava
from maskselect.lmm.lora import LoraSettings
from maskselect.structures.masks import MaskSet
from maskselect.structures.sample import Batch
from maskselect.systems.ras import RAS

TOWER = {"vision_width": 1024, "vision_layers": 24, "vision_heads": 16, "vision_ffn": 4096, "image_size": 336}
SIZES = {
    "compact": LlavaSizes(),
    "7b": LlavaSizes(4096, 32, 32, 11008, 4096, patch_size=14, **TOWER),
    "13b": LlavaSizes(5120, 40, 40, 13824, 4096, patch_size=14, **TOWER),
}
ENCODERS = (
    ("clip", "vit_large_patch14_clip_quickgelu_336", 336, (-2,)),
    ("convnext", "convnext_xxlarge", 1024, (-1,)),
    ("siglip", "vit_so400m_patch14_siglip_384", 384, (-1,)),
    ("dinov2", "vit_large_patch14_dinov2", 518, (-1,)),
)
CANDIDATES, PROMPTS, PROMPT_TOKENS = 100, 16, 30
PEAK = {"NVIDIA H200": 989e12, "NVIDIA H100": 989e12, "NVIDIA A100": 312e12}
"""Dense bfloat16 operations a second (data sheets)."""
BANDWIDTH = {"NVIDIA H200": 4.8e12, "NVIDIA H100": 3.35e12, "NVIDIA A100": 2.0e12}
"""Bytes a second that are read from memory (data sheets)."""
PEAK_SOURCE = {"cuda": "its data sheet's rate", "cpu": "the rate of a product of matrices of 1024 x 1024"}


@dataclass(frozen=True)
class Counted:
    """Operations of each part of an answer, and of a training step; recomputed: of that step for want of memory."""

    encoders: int
    prefix: int
    one_prompt: int
    many_prompts: int
    step: int
    recomputed: int


def main() -> None:
    """Print the counts, and what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", choices=tuple(SIZES), help="measure this size too")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--lora", type=int, default=128, help="rank of LoRA in training steps (default: %(default)s)")
    options = parser.parse_args()
    for name in ("7b", "13b"):
        _tell(name, _count(name, options.lora))
    if options.run:
        _measure(options)


def _system(name: str, lora: int) -> RAS:
    """A RAS of a size, its weights as the current default device and dtype have them."""
    encoders: list[Any] = [SinusoidEncoder(32, 64)]
    if name != "compact":
        encoders = [TimmEncoder(short, model, side, layers) for short, model, side, layers in ENCODERS] + encoders
    adapters = LoraSettings(r=lora, alpha=2 * lora, dropout=0.0)
    lmm = Llava(sizes=SIZES[name], lora=adapters, gradient_checkpointing=name != "compact")
    return RAS(_Given(), EncoderEnsemble(encoders, geometry=False), lmm, proposal_score=False)


class _Given:
    """A proposer that is not asked."""

    def propose(self, image: np.ndarray) -> MaskSet:
        return MaskSet.empty((image.shape[0], image.shape[1]))


# --- counting ---------------------------------------------------------------------------------------------------------


def _count(name: str, lora: int) -> Counted:
    with torch.device("meta"):
        system = _system(name, lora)
    lmm = system.eval().lmm
    side, width = SIZES[name].image_size, SIZES[name].width
    image = torch.empty(1, 3, 1024, 1024, device="meta")
    tokens = (side // SIZES[name].patch_size) ** 2
    prefix = 36 + tokens + 2 * CANDIDATES
    suffix = PROMPT_TOKENS + CANDIDATES

    def hidden(rows: int, length: int, behind: int = 0, cache: Any = None) -> Tensor:
        seen = torch.ones(rows, 1, length, behind + length, dtype=torch.bool, device="meta")
        places = torch.arange(behind, behind + length, device="meta").expand(rows, -1)
        return lmm.hidden(_empty(rows, length, width).requires_grad_(), seen, places, cache)

    def behind(rows: int) -> int:
        cache = lmm.new_cache()
        with torch.no_grad():
            hidden(rows, prefix, 0, cache)
            return _flops(lambda: hidden(rows, suffix, prefix, cache))

    def step() -> None:
        lmm.train()
        hidden(1, prefix + PROMPTS * suffix).sum().backward()

    recomputes = lmm.gradient_checkpointing
    with torch.no_grad():
        recomputed = _flops(lambda: hidden(1, prefix + PROMPTS * suffix)) if recomputes else 0
        seeing = _flops(lambda: (system.encoders.encode(image), lmm.vision_features(image)))
        reading = _flops(lambda: hidden(1, prefix))
    return Counted(seeing, reading, behind(1), behind(PROMPTS), _flops(step), recomputed)


def _empty(*shape: int) -> Tensor:
    return torch.empty(*shape, device="meta")


def _flops(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def _weights(name: str) -> int:
    """Numbers in the language model's layers."""
    sizes = SIZES[name]
    return sizes.layers * (4 * sizes.width**2 + 3 * sizes.width * sizes.ffn)


def _tell(name: str, counted: Counted) -> None:
    weights = _weights(name)
    print(f"RAS-{name}: {weights / 1e9:.2f} B weights in its layers, {2 * weights / 1e9:.1f} GB in bfloat16; in 10^12:")
    for part, value in vars(counted).items():
        print(f"  {part:14} {value / 1e12:8.2f}")
    alone = 2 * weights / 4.8e12
    print(f"  floors on an H200: one prompt {1e3 * max(alone, counted.one_prompt / 989e12):.1f} ms,", end=" ")
    print(f"{PROMPTS} prompts {1e3 * counted.many_prompts / 989e12:.1f} ms, step {counted.step / 989e12:.2f} s")


# --- measuring --------------------------------------------------------------------------------------------------------


def _measure(options: argparse.Namespace) -> None:
    device = torch.device(options.device)
    torch.set_default_dtype(torch.bfloat16 if device.type == "cuda" else torch.float32)
    with device:
        system = _system(options.run, options.lora)
    for parameter in system.parameters():
        parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
    torch.set_default_dtype(torch.float32)
    image = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    features = torch.randn(CANDIDATES, system.channels, device=device)
    prompt = " ".join(["red"] * (PROMPT_TOKENS - 3))
    system.eval()
    with torch.autocast(device.type, torch.bfloat16):
        read = system.read_candidates(image, features)
        none = torch.zeros(0, system.channels, device=device)
        seen = _seconds(lambda: (system.encode(image), system.read_candidates(image, features)), options.repeats)
        alone = _seconds(lambda: system.score_candidates(read, [prompt], [none], 0.5)[0], options.repeats)
        many = _seconds(
            lambda: system.score_candidates(read, [prompt] * PROMPTS, [none] * PROMPTS, 0.5)[0], options.repeats
        )
    counted, peak = _count(options.run, options.lora), _of_device(PEAK, device, _product)
    reading = 2 * _weights(options.run) / _of_device(BANDWIDTH, device, lambda: float("inf"))  # of the weights, once
    print(f"RAS-{options.run}, {CANDIDATES} candidates: time over that of one prompt behind an image that was read,")
    print(f"and over the floor: its operations at {PEAK_SOURCE[device.type]}, or reading the weights once")
    for what, spent, operations in (
        ("an image", seen, counted.encoders + counted.prefix),
        ("one prompt", alone, counted.one_prompt),
        (f"{PROMPTS} prompts", many, counted.many_prompts),
    ):
        over = statistics.median(spent) / max(operations / peak, reading)
        line = f"  {what:12} {_relative(spent, alone)}; {over:.1f} times the floor"
        print(line + (f"  median {statistics.median(spent):.4f} s" if device.type == "cuda" else ""))
    _measure_steps(system, device, options, (counted.step / peak, (counted.step - counted.recomputed) / peak))


def _measure_steps(system: RAS, device: torch.device, options: argparse.Namespace, floors: tuple[float, float]) -> None:
    """Training steps at growing batches, until memory ends.

    floors: of one image's step, in seconds, with what is recomputed and without.
    """
    system.train()
    floor, model = floors
    optimizer = torch.optim.AdamW([p for p in system.parameters() if p.requires_grad], 1e-4)
    first: list[float] = []
    for images in (1, 2, 4, 8, 16, 32, 64, 128):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        batch = _batch(system, images, device)

        def step(batch: Batch = batch) -> None:
            with torch.autocast(device.type, torch.bfloat16):
                loss = system.loss(batch)["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        try:
            spent = _seconds(step, max(2, options.repeats // 3))
        except torch.cuda.OutOfMemoryError:
            print(f"  a step of {images} images does not fit")
            return
        first = first or spent
        middle = statistics.median(spent)
        line = f"  step of {images} images: {_relative(spent, first)} times one image's; "
        line += f"{middle / (images * floor):.1f} times the floor"
        if device.type == "cuda":
            held = torch.cuda.max_memory_allocated() / 2**30
            line += f", model FLOPs utilisation {100 * images * model / middle:.0f} %; {middle:.3f} s, {held:.0f} GiB"
        print(line)
        if device.type == "cpu" and images == 4:
            return


def _of_device(table: dict[str, float], device: torch.device, otherwise: Callable[[], float]) -> float:
    """What a data sheet says of a GPU; of a CPU something else."""
    if device.type == "cpu":
        return otherwise()
    name = torch.cuda.get_device_name()
    return next((value for known, value in table.items() if name.startswith(known)), float("nan"))


def _product() -> float:
    """Operations a second in a large product of matrices."""
    side = 1024
    one, other = torch.randn(2, side, side, dtype=torch.bfloat16)
    return 2 * side**3 / min(_seconds(lambda: one @ other, 10))


def _batch(system: RAS, images: int, device: torch.device) -> Batch:
    prompts = [[" ".join(["red"] * (PROMPT_TOKENS - 3))] * PROMPTS] * images
    valid = torch.ones(images, CANDIDATES, dtype=torch.bool, device=device)
    side = SIZES["compact"] if system.lmm.width == SIZES["compact"].width else SIZES["7b"]
    pixels = torch.randn(images, (side.image_size // side.patch_size) ** 2, system.lmm.vision_width, device=device)
    none = [[torch.zeros(0, system.channels, device=device)] * PROMPTS] * images
    labels = torch.zeros(images, PROMPTS, CANDIDATES, device=device)
    features = torch.randn(images, CANDIDATES, system.channels, device=device)
    return Batch(features, valid, pixels, prompts, none, labels)


def _seconds(run: Callable[[], object], repeats: int) -> list[float]:
    spent = []
    for number in range(repeats + 2):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if number >= 2:  # the first ones warm up
            spent.append(time.perf_counter() - start)
    return spent


def _relative(spent: list[float], base: list[float]) -> str:
    low, middle, high = statistics.quantiles(spent, n=4) if len(spent) > 1 else [spent[0]] * 3
    one = statistics.median(base)
    return f"{middle / one:6.2f} (quartiles {low / one:.2f} to {high / one:.2f})"


if __name__ == "__main__":
    main()
