"""Facts and training texts of scenes whose objects are boxes: nothing is drawn."""

from collections.abc import Iterator

import numpy as np

from maskselect.scenes.captions import draw_caption, draw_dialogue
from maskselect.scenes.facts import SceneFacts
from maskselect.scenes.prompts import draw_prompts
from maskselect.scenes.spec import (
    CATEGORIES,
    COLOURS,
    HELD_OUT_PAIRS,
    RELATIONS,
    SIZE_BANDS,
    SIZES,
    TEXTURES,
    Look,
    Scene,
    SceneObject,
)

_SIDE = 64  # pixels; boxes need no more
_PROMPTS = 12  # per scene


def training_texts(count: int, seed: int) -> Iterator[str]:
    """`count` prompts of the training split, captions and dialogue turns."""
    rng = np.random.default_rng(seed)
    left = count
    while left > 0:
        facts = box_facts(rng)
        lines = [p.text for p in draw_prompts(facts, _PROMPTS, rng, "train")]
        lines += [draw_caption(facts, rng) for _ in range(3)]
        lines += [f"{question} {answer}" for question, answer in draw_dialogue(facts, rng)]
        yield from lines[:left]
        left -= len(lines)


def box_facts(rng: np.random.Generator) -> SceneFacts:
    """Facts of a training scene of three to ten boxes that do not overlap."""
    index = np.zeros((_SIDE, _SIDE), np.uint8)
    objects: list[SceneObject] = []
    count = int(rng.integers(3, 11))
    for _ in range(20 * count):
        if len(objects) == count:
            break
        size = SIZES[rng.integers(len(SIZES))]
        side = int(rng.uniform(*SIZE_BANDS[size]) * _SIDE)
        x, y = (int(v) for v in rng.integers(0, _SIDE - side, 2))
        category, colour = _pair(rng, objects)
        if index[y : y + side, x : x + side].any() or (colour, category) in HELD_OUT_PAIRS:
            continue
        texture = TEXTURES[rng.integers(len(TEXTURES))]
        centre = (x + side / 2, y + side / 2)
        objects.append(SceneObject(category, colour, texture, size, centre, (side, side), 0.0, 0, 0))
        index[y : y + side, x : x + side] = len(objects)
    relations = []
    if len(objects) > 2 and rng.random() < 0.4:
        a, b = (int(v) for v in rng.choice(len(objects), 2, replace=False))
        relations.append((RELATIONS[rng.integers(len(RELATIONS))], a, b))
    look = Look("", "", "", "", 0)
    scene = Scene("train-0-0", "train", index.shape, tuple(objects), tuple(relations), look, 0)
    return SceneFacts.measure(scene, index)


def _pair(rng: np.random.Generator, objects: list[SceneObject]) -> tuple[str, str]:
    """Category and colour, half of the time those of an earlier object, so that groups arise."""
    category, colour = CATEGORIES[rng.integers(len(CATEGORIES))], COLOURS[rng.integers(len(COLOURS))]
    if objects and rng.random() < 0.5:
        category = objects[rng.integers(len(objects))].category
    if objects and rng.random() < 0.3:
        colour = objects[rng.integers(len(objects))].colour
    return category, colour
