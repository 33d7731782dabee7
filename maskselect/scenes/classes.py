"""Generated scenes as semantic segmentation: the class of an object is its category, all else is `others`."""

from collections.abc import Iterator

import numpy as np
import torch

from maskselect.scenes.facts import SceneFacts
from maskselect.scenes.layout import build_scene, scene_ids
from maskselect.scenes.render import render
from maskselect.scenes.spec import CATEGORIES, SPLITS
from maskselect.structures.semantic import LabelledImage

SCENE_CLASSES = ("others", *CATEGORIES)
"""Names of the classes by number."""


def label_scenes(
    split: str, seed: int, count: int, image_size: tuple[int, int] = (256, 256)
) -> Iterator[LabelledImage]:
    """The first `count` scenes of a split with a class for each pixel, one after another.

    Raises:
        ValueError: there is no such split; raised by the call itself.
    """
    if split not in SPLITS:
        raise ValueError(f"scenes have no split {split!r}; there are {', '.join(SPLITS)}")
    return (_label_scene(scene_id, image_size) for scene_id in scene_ids(split, seed, count))


def _label_scene(scene_id: str, image_size: tuple[int, int]) -> LabelledImage:
    scene = build_scene(scene_id, image_size)
    rendering = render(scene)
    numbers = np.array([0, *(SCENE_CLASSES.index(one.category) for one in scene.objects)], np.uint8)
    return LabelledImage(rendering.image, scene_id, torch.from_numpy(numbers[rendering.index]))


def draw_class_prompt(facts: SceneFacts, rng: np.random.Generator) -> tuple[str, tuple[int, ...], tuple[str, ...]]:
    """A prompt that lists classes, the objects of these classes, and the class of each.

    Half of the prompts list all classes in their order, as the evaluation does. The others follow Text4Seg (arXiv
    2410.09855): some of the classes of the scene, `others` in half of them, and in nine of ten some classes that the
    scene does not show, in random order.
    """
    if rng.random() < 0.5:
        names = list(SCENE_CLASSES)
    else:
        present = sorted({CATEGORIES[number] for number in facts.category})
        absent = [name for name in CATEGORIES if name not in present]
        names = [str(name) for name in rng.permutation(present)[: rng.integers(1, len(present) + 1)]]
        names += ["others"] if rng.random() < 0.5 else []
        if rng.random() < 0.9 or len(names) < 2:
            names += [str(name) for name in rng.permutation(absent)[: rng.integers(1, len(absent) + 1)]]
        names = [names[n] for n in rng.permutation(len(names))]
    targets = tuple(n for n in range(facts.count) if CATEGORIES[facts.category[n]] in names)
    return "|".join(names), targets, tuple(CATEGORIES[facts.category[n]] for n in targets)
