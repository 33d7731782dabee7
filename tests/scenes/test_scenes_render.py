"""Scenes: rebuilt from their ids alone, drawn exactly, and true to what they say about themselves."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from maskselect.scenes.layout import build_scene, parse_id, scene_ids
from maskselect.scenes.materials import NAMED_SHADES, lab, shade
from maskselect.scenes.render import render
from maskselect.scenes.shapes import DRAWINGS, rotated_box, silhouette
from maskselect.scenes.spec import (
    CATEGORIES,
    COLOURS,
    HELD_OUT_PAIRS,
    SIZE_BANDS,
    SPLITS,
    Look,
    Scene,
    SceneObject,
)

PLAIN = Look("white", "none", "none", "none", 1)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [build_scene(scene_id) for split in SPLITS for scene_id in scene_ids(split, 5, 16)]


def _single(category: str, variant: int = 0, colour: str = "grey", side: float = 40.0, seed: int = 8) -> Scene:
    aspect = DRAWINGS[category][variant].aspect
    extent = (side * min(1.0, aspect), side * min(1.0, 1 / aspect))
    thing = SceneObject(category, colour, "plain", "medium", (40.3, 35.6), extent, 0.0, variant, seed)
    return Scene("train-0-0", "train", (72, 80), (thing,), (), PLAIN, 0)


def silhouettes(scene: Scene) -> np.ndarray:
    """Whole silhouettes, hidden parts included, (N, H, W) bool."""
    height, width = scene.image_size
    masks = np.zeros((len(scene.objects), 3 * height, 3 * width), bool)
    for mask, thing in zip(masks, scene.objects, strict=True):
        patch = silhouette(thing)
        top, left = patch.top + height, patch.left + width
        mask[top : top + patch.alpha.shape[0], left : left + patch.alpha.shape[1]] = patch.mask
    return masks[:, height : 2 * height, width : 2 * width]


def test_ids_with_hyphens_are_parsed_from_the_right() -> None:
    assert parse_id("test-words-3-14") == ("test-words", 3, 14)
    assert scene_ids("val", 2, 2) == ["val-2-0", "val-2-1"]
    with pytest.raises(ValueError, match="split"):
        parse_id("holiday-1-2")


def test_a_scene_is_rebuilt_from_its_id() -> None:
    first, second = build_scene("train-7-3"), build_scene("train-7-3")
    assert first == second
    assert first != build_scene("train-7-4")
    one, two = render(first), render(second)
    assert np.array_equal(one.image, two.image)
    assert np.array_equal(one.index, two.index)


def test_objects_are_visible_and_of_the_size_they_say(scenes: list[Scene]) -> None:
    for scene in scenes:
        drawn, whole = render(scene), silhouettes(scene)
        masks = drawn.masks(len(scene.objects))
        assert drawn.image.dtype == np.uint8
        assert drawn.image.shape == (256, 256, 3)
        assert 2 <= len(scene.objects) <= 9
        assert masks.sum(axis=0).max() <= 1
        assert not (masks & ~whole).any()
        shares = masks.sum(axis=(1, 2)) / whole.sum(axis=(1, 2))
        assert shares.min() >= 0.5, scene.id
        assert masks.sum(axis=(1, 2)).min() >= 40, scene.id
        for thing, mask in zip(scene.objects, whole, strict=True):
            low, high = SIZE_BANDS[thing.size]
            assert low <= max(rotated_box(thing)) / 256 <= high
            ys, xs = np.nonzero(mask)
            assert abs((xs.min() + xs.max() + 1) / 2 - thing.centre_xy[0]) < 1.6
            assert abs((ys.min() + ys.max() + 1) / 2 - thing.centre_xy[1]) < 1.6


def test_relations_hold_and_others_keep_apart(scenes: list[Scene]) -> None:
    seen = set()
    square = np.ones((3, 3), np.uint8)
    for scene in scenes:
        whole = silhouettes(scene)
        related = {frozenset(pair) for _, *pair in scene.relations}
        for relation, subject, host in scene.relations:
            seen.add(relation)
            shared = (whole[subject] & whole[host]).sum() / whole[subject].sum()
            meets = (cv2.dilate(whole[subject].astype(np.uint8), square) & whole[host]).any()
            rows = [np.flatnonzero(mask.any(axis=1)) for mask in whole]
            columns = [np.flatnonzero(mask.any(axis=0)) for mask in whole]
            if relation == "on":
                assert meets
                assert shared == 0
                assert rows[subject][-1] <= rows[host][0] + 0.15 * len(rows[host]) + 2
                assert columns[host][0] <= columns[subject][0]
                assert columns[subject][-1] <= columns[host][-1]
            elif relation == "inside":
                assert shared == (0 if scene.objects[host].category == "ring" else 1)
                assert rows[host][0] < rows[subject][0]
                assert columns[host][0] < columns[subject][0]
                assert subject > host
            elif relation == "touching":
                assert meets
                assert shared == 0
            else:
                assert 0.14 < shared < 0.41
                assert subject < host
        for first in range(len(whole)):
            near = cv2.dilate(whole[first].astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
            for second in range(first + 1, len(whole)):
                if frozenset((first, second)) not in related:
                    assert not (near & whole[second]).any(), (scene.id, first, second)
    assert seen == {"on", "inside", "touching", "behind"}


def test_held_out_pairs_are_only_in_test_words() -> None:
    counts = {}
    for split in SPLITS:
        things = [thing for scene_id in scene_ids(split, 1, 40) for thing in build_scene(scene_id).objects]
        counts[split] = np.mean([(thing.colour, thing.category) in HELD_OUT_PAIRS for thing in things])
    assert counts.pop("test-words") >= 1 / 3
    assert set(counts.values()) == {0.0}


def test_looks_of_training_and_test_look_are_disjoint() -> None:
    for field in ("background", "outline", "lighting", "finish"):
        names = [
            {getattr(build_scene(scene_id).look, field) for scene_id in scene_ids(split, 2, 60)}
            for split in ("train", "test-look")
        ]
        assert names[0].isdisjoint(names[1])


def test_some_training_looks_are_plain() -> None:
    looks = [build_scene(scene_id).look for scene_id in scene_ids("train", 3, 120)]
    plain = [look.background in ("white", "flat") and look.lighting == look.finish == "none" for look in looks]
    assert 0.15 < np.mean(plain) < 0.45


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (300, 120)])
def test_any_size_is_drawn(size: tuple[int, int]) -> None:
    for split in ("train", "test-look"):
        for scene_id in scene_ids(split, 4, 6):
            drawn = render(build_scene(scene_id, size))
            assert drawn.image.shape == (*size, 3)
            assert drawn.index.shape == size
            assert drawn.index.max() >= 2


def test_too_small_a_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="64"):
        build_scene("train-0-0", (63, 100))


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_drawing_fills_its_box(category: str) -> None:
    assert len(DRAWINGS[category]) >= 3
    for variant in range(len(DRAWINGS[category])):
        drawn = render(_single(category, variant))
        ys, xs = np.nonzero(drawn.index)
        assert 38 <= max(np.ptp(xs), np.ptp(ys)) + 1 <= 43
        assert len(xs) > 150


def test_masks_follow_the_pixels() -> None:
    scene = _single("circle", 0, "red", seed=8)
    drawn = render(scene)
    dark = drawn.image[..., 1] < 128
    assert (dark != (drawn.index == 1)).mean() < 0.01
    area = np.pi * 20**2
    assert abs((drawn.index == 1).sum() - area) < 0.04 * area


def test_counter_clockwise_rotation() -> None:
    scene = _single("key")
    turned = replace(scene, objects=(replace(scene.objects[0], rotation=90.0),))
    flat, upright = (np.ptp(np.nonzero(render(each).index), axis=1) for each in (scene, turned))
    assert flat[1] > flat[0]
    assert upright[0] > upright[1]


def test_colour_words_are_told_apart() -> None:
    names = [name for name in COLOURS for _ in NAMED_SHADES[name]]
    known = lab(np.array([rgb for name in COLOURS for rgb in NAMED_SHADES[name]]))
    right = []
    for colour in COLOURS:
        for seed in range(40):
            distance = np.linalg.norm(known - lab(shade(colour, seed)), axis=1)
            right.append(names[int(distance.argmin())] == colour)
    assert np.mean(right) > 0.95


@pytest.mark.parametrize("colour", COLOURS)
def test_plain_objects_show_their_shade(colour: str) -> None:
    for seed in (8, 16, 24):
        drawn = render(_single("square", 0, colour, seed=seed))
        mean = drawn.image[drawn.index == 1].mean(axis=0)
        assert np.abs(mean - shade(colour, seed)).max() < 14
