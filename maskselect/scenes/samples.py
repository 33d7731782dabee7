"""Generated scenes with their questions, made on the spot: `tools/make_scenes.py` writes them, the evaluator asks."""

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
from maskselect.scenes.unknown import draw_unknown
from maskselect.structures.sample import Prompt, Sample


@dataclass(frozen=True)
class AskedScene:
    """One scene with questions about it.

    image: (H, W, 3) uint8.  masks: (G, H, W) bool, the visible mask of every object.
    """

    id: str
    image: np.ndarray
    masks: np.ndarray
    prompts: list[ScenePrompt]

    def samples(self) -> Iterator[Sample]:
        """One `Sample` a question; its id is the scene's with the question's number."""
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
) -> AskedScene:
    """A scene and its questions from nothing but its id, the same in every process.

    After the prompts come the pairs of `draw_reasoning`, each a reasoning prompt and then the same asked by name, and
    then the prompts of `draw_unknown`.
    """
    scene = build_scene(scene_id, image_size)
    rendering = render(scene)
    facts = SceneFacts.measure(scene, rendering.index)
    # crc32 rather than hash(), which differs between processes.
    rng = np.random.default_rng(zlib.crc32(f"prompts {scene_id}".encode()))
    prompts = draw_prompts(facts, prompts_per_scene, rng, scene.split)
    own = np.random.default_rng(zlib.crc32(f"reasoning {scene_id}".encode()))
    prompts += [prompt for pair in draw_reasoning(facts, reasoning_per_scene, own, scene.split) for prompt in pair]
    own = np.random.default_rng(zlib.crc32(f"unknown {scene_id}".encode()))
    prompts += draw_unknown(facts, unknown_per_scene, own, scene.split)
    return AskedScene(scene_id, rendering.image, rendering.masks(len(scene.objects)), prompts)


def ask_scenes(
    split: str,
    seed: int,
    count: int,
    image_size: tuple[int, int] = (256, 256),
    prompts_per_scene: int = 3,
    reasoning_per_scene: int = 0,
    unknown_per_scene: int = 0,
) -> Iterator[AskedScene]:
    """The first `count` scenes of a split with `prompts_per_scene` questions each, one after another.

    reasoning_per_scene: so many reasoning prompts more, each followed by the same asked by name.
    unknown_per_scene: so many prompts more that say a word which the scenes never show.
    Raises ValueError at once for an unknown split, a count below one, or numbers of prompts that give none.
    """
    if split not in SPLITS:
        raise ValueError(f"scenes have no split {split!r}; there are {', '.join(SPLITS)}")
    for name, value in (("reasoning_per_scene", reasoning_per_scene), ("unknown_per_scene", unknown_per_scene)):
        if value < 0:
            raise ValueError(f"{name} must be at least 0, got {value}")
    least = 0 if reasoning_per_scene or unknown_per_scene else 1
    for name, value, bound in (("count", count, 1), ("prompts_per_scene", prompts_per_scene, least)):
        if value < bound:
            raise ValueError(f"{name} must be at least {bound}, got {value}")
    if seed < 0 or min(image_size) < 64:
        raise ValueError(f"expected a seed of at least 0 and at least 64 pixels a side, got {seed} and {image_size}")
    wanted = image_size, prompts_per_scene, reasoning_per_scene, unknown_per_scene
    return (ask_scene(scene_id, *wanted) for scene_id in scene_ids(split, seed, count))
