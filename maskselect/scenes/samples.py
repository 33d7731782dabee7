"""Generates scenes with their prompts on demand, for `tools/make_scenes.py` and the evaluator."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from maskselect.scenes.facts import SceneFacts
from maskselect.scenes.layout import build_scene, scene_ids
from maskselect.scenes.prompts import draw_prompts
from maskselect.scenes.reasoning import draw_reasoning
from maskselect.scenes.render import render
from maskselect.scenes.spec import SPLITS, ScenePrompt
from maskselect.scenes.twins import draw_twins
from maskselect.scenes.unknown import draw_unknown
from maskselect.structures.sample import Prompt, Sample


@dataclass(frozen=True)
class AskedScene:
    """A scene with prompts.

    Attributes:
        image: (H, W, 3) uint8.
        masks: (G, H, W) bool, the visible mask of every object.
    """

    id: str
    image: np.ndarray
    masks: np.ndarray
    prompts: list[ScenePrompt]

    def samples(self) -> Iterator[Sample]:
        """One `Sample` a prompt; its id is the scene's id with the prompt's number."""
        pool = torch.from_numpy(self.masks)
        for number, prompt in enumerate(self.prompts):
            yield Sample(
                image=self.image,
                image_id=self.id,
                sample_id=f"{self.id}/{number}",
                prompt=Prompt(prompt.text, pool[list(prompt.references)]),
                gt_pool=pool,
                targets=prompt.targets,
                reference_ids=prompt.references,
                kind=prompt.kind,
            )


def ask_scene(
    scene_id: str,
    image_size: tuple[int, int],
    prompts_per_scene: int,
    reasoning_per_scene: int = 0,
    unknown_per_scene: int = 0,
    twins_per_scene: int = 0,
) -> AskedScene:
    """A scene and its prompts, which depend on the scene's id only.

    The plain prompts are followed by the pairs of `draw_reasoning` (reasoning prompt, naming prompt), by the prompts of
    `draw_unknown`, and by the pairs of `draw_twins` (with references, without).
    """
    scene = build_scene(scene_id, image_size)
    rendering = render(scene)
    facts = SceneFacts.measure(scene, rendering.index)
    prompts = draw_prompts(facts, prompts_per_scene, _generator("prompts", scene_id), scene.split)
    pairs = draw_reasoning(facts, reasoning_per_scene, _generator("reasoning", scene_id), scene.split)
    prompts += [prompt for pair in pairs for prompt in pair]
    prompts += draw_unknown(facts, unknown_per_scene, _generator("unknown", scene_id), scene.split)
    twins = draw_twins(facts, twins_per_scene, _generator("twins", scene_id), scene.split)
    prompts += [prompt for pair in twins for prompt in pair]
    return AskedScene(scene_id, rendering.image, rendering.masks(len(scene.objects)), prompts)


def _generator(purpose: str, scene_id: str) -> np.random.Generator:
    # crc32, because hash() differs between processes.
    return np.random.default_rng(zlib.crc32(f"{purpose} {scene_id}".encode()))


def ask_scenes(
    split: str,
    seed: int,
    count: int,
    image_size: tuple[int, int] = (256, 256),
    prompts_per_scene: int = 3,
    reasoning_per_scene: int = 0,
    unknown_per_scene: int = 0,
    twins_per_scene: int = 0,
) -> Iterator[AskedScene]:
    """The first `count` scenes of a split with their prompts, one after another.

    Args:
        image_size: (H, W), each at least 64.
        prompts_per_scene: number of plain prompts.
        reasoning_per_scene: number of pairs of a reasoning prompt and a naming prompt.
        unknown_per_scene: number of no-target prompts with an unknown word.
        twins_per_scene: number of pairs of a prompt with references and one without.

    Raises:
        ValueError: an argument is out of range, or there are no prompts; raised by the call itself.
    """
    if split not in SPLITS:
        raise ValueError(f"scenes have no split {split!r}; there are {', '.join(SPLITS)}")
    others = {"reasoning": reasoning_per_scene, "unknown": unknown_per_scene, "twins": twins_per_scene}
    for name, value in others.items():
        if value < 0:
            raise ValueError(f"{name}_per_scene must be at least 0, got {value}")
    least = 0 if any(others.values()) else 1
    for name, value, bound in (("count", count, 1), ("prompts_per_scene", prompts_per_scene, least)):
        if value < bound:
            raise ValueError(f"{name} must be at least {bound}, got {value}")
    if seed < 0 or min(image_size) < 64:
        raise ValueError(f"expected a seed of at least 0 and at least 64 pixels a side, got {seed} and {image_size}")
    counts = prompts_per_scene, reasoning_per_scene, unknown_per_scene, twins_per_scene
    return (ask_scene(scene_id, image_size, *counts) for scene_id in scene_ids(split, seed, count))
