"""Scenes in motion: clips from their ids, exact masks, and facts against the masks."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from maskselect.scenes.clip_drawing import ClipDrawing, windows
from maskselect.scenes.clip_facts import ClipFacts
from maskselect.scenes.motion import MOTIONS, build_clip, clip_ids
from maskselect.scenes.palette import CONTRAST
from maskselect.scenes.shapes import silhouette
from maskselect.scenes.spec import HELD_OUT_PAIRS, SPLITS

SHOWN = """
import zlib
from maskselect.scenes.clip_drawing import ClipDrawing
from maskselect.scenes.motion import build_clip
drawing = ClipDrawing(build_clip("train-clip-3-1", 5))
print([zlib.crc32(drawing.image(t).tobytes() + drawing.index(t).tobytes()) for t in (4, 0)])
"""


@pytest.fixture(scope="module")
def clips() -> list[ClipDrawing]:
    return [ClipDrawing(build_clip(clip_id)) for clip_id in clip_ids("train", 0, 24)]


def test_a_clip_is_the_same_in_every_process() -> None:
    command = [sys.executable, "-c", SHOWN]
    runs = {subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(runs) == 1


def test_frames_may_be_drawn_in_any_order(clips: list[ClipDrawing]) -> None:
    again = ClipDrawing(clips[0].scene)
    for frame in (11, 0, 5):
        assert np.array_equal(again.image(frame), clips[0].image(frame))
        assert np.array_equal(again.index(frame), clips[0].index(frame))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="clip id 'train-0-1'"):
        build_clip("train-0-1")
    with pytest.raises(ValueError, match="a clip of 2 frames; expected 3 to 60"):
        build_clip("train-clip-0-1", 2)
    with pytest.raises(ValueError, match="no split 'fit'"):
        clip_ids("fit", 0, 1)


def test_other_numbers_of_frames_sample_the_same_motion() -> None:
    few, many = build_clip("val-clip-0-3", 3), build_clip("val-clip-0-3", 59)
    assert few.objects == many.objects
    for short, long in zip(few.tracks, many.tracks, strict=True):
        assert np.allclose(short.centre_xy, long.centre_xy[[0, 29, 58]])


def test_masks_are_the_topmost_silhouettes(clips: list[ClipDrawing]) -> None:
    for drawing in clips[:8]:
        size = drawing.scene.image_size
        for frame in (0, 6, 11):
            index, masks = drawing.index(frame), drawing.masks(frame)
            assert np.array_equal(masks.sum(0), index > 0)  # a partition of all but the background
            for number in range(len(masks)):
                sprite = drawing.sprite(number, frame)
                whole = np.zeros(size, bool)
                there, here = windows(sprite, size)
                whole[there] = sprite.alpha[here] >= 128
                over = (index > number + 1) & whole
                assert np.array_equal(masks[number], whole & ~over)


def test_masks_follow_the_pixels() -> None:
    """An object that is left out of the clip changes exactly its pixels, up to its antialiased edge."""
    checked = 0
    for clip_id in clip_ids("train", 5, 30):
        scene = build_clip(clip_id, 4)
        if (scene.look.lighting, scene.look.finish) != ("none", "none"):
            continue
        last = len(scene.objects) - 1
        less = replace(scene, objects=scene.objects[:last], tracks=scene.tracks[:last])
        for frame in range(4):
            full, bare = ClipDrawing(scene), ClipDrawing(less)
            changed = (full.image(frame) != bare.image(frame)).any(-1)
            mask, alpha = full.masks(frame)[last], full.sprite(last, frame).alpha
            assert not (changed & ~mask).sum() > (alpha > 0).sum() - (alpha >= 128).sum()
            assert (changed & mask).sum() >= 0.8 * mask.sum()
            checked += bool(mask.any())
    assert checked > 10 and CONTRAST > 0


def test_an_unchanged_object_is_drawn_as_in_a_scene(clips: list[ClipDrawing]) -> None:
    for drawing in clips[:6]:
        for number, (thing, track) in enumerate(zip(drawing.scene.objects, drawing.scene.tracks, strict=True)):
            if track.motion == "still":
                assert abs(int((drawing.sprite(number, 3).alpha >= 128).sum()) - int(silhouette(thing).mask.sum())) < 40


def test_every_motion_occurs_and_objects_are_visible(clips: list[ClipDrawing]) -> None:
    motions = {track.motion for drawing in clips for track in drawing.scene.tracks}
    assert motions == set(MOTIONS)
    for drawing in clips:
        facts = ClipFacts.measure(drawing)
        assert 2 <= facts.count <= 7
        assert ((2 * facts.area >= facts.whole).sum(0) >= 3).all()
        assert any(track.motion != "still" for track in drawing.scene.tracks)


def test_facts_are_what_the_masks_say(clips: list[ClipDrawing]) -> None:
    for drawing in clips[:10]:
        facts = ClipFacts.measure(drawing)
        masks = np.stack([drawing.masks(t) for t in range(12)])
        assert np.array_equal(facts.area, masks.sum((2, 3)))
        for frame, number in np.argwhere(facts.area):
            y, x = np.nonzero(masks[frame, number])
            assert tuple(facts.box_xyxy[frame, number]) == (x.min(), y.min(), x.max() + 1, y.max() + 1)
            assert np.allclose(facts.centroid_xy[frame, number], (x.mean(), y.mean()), atol=1e-3)
        hidden = facts.inside - facts.area
        assert (hidden >= 0).all() and np.array_equal(facts.cover.sum(2), hidden)
        for number in range(facts.count):
            first = facts.reference_frame(number)
            sizes = masks[:, number].sum((1, 2))
            assert 2 * sizes[first] >= sizes.max() > 2 * sizes[:first].max(initial=0)


def test_directions_and_times_are_those_of_the_masks(clips: list[ClipDrawing]) -> None:
    seen = 0
    for drawing in clips:
        facts, judge = ClipFacts.measure(drawing), ClipFacts.measure(drawing).judge()
        for number in range(facts.count):
            sizes = facts.area[:, number]
            clear = np.flatnonzero(sizes == facts.whole[:, number])  # neither hidden nor cut by the border
            if len(clear) < 2 or drawing.scene.tracks[number].motion not in ("moves", "enters", "leaves", "still"):
                continue
            dx, dy = facts.centroid_xy[clear[-1], number] - facts.centroid_xy[clear[0], number]
            bit, seen = 1 << number, seen + 1
            for word, value, other in (
                ("moves left", -dx, dy), ("moves right", dx, dy), ("moves up", -dy, dx), ("moves down", dy, dx)
            ):  # fmt: skip
                if np.hypot(dx, dy) < 15:  # a short part of the path: whole pixels would decide
                    continue
                if judge.state(word)[0] & bit:
                    assert value > 1.5 * abs(other)
                if not judge.state(word)[1] & bit:
                    assert value < 0.8 * abs(other)
            if judge.state("still")[0] & bit or clear[-1] - clear[0] == 11:
                assert bool(judge.state("still")[0] & bit) == (max(abs(dx), abs(dy)) < 1)
            if judge.state("enters")[0] & bit:
                assert sizes[0] == 0
            if judge.state("leaves")[0] & bit:
                assert sizes[-1] == 0
    assert seen > 30


@pytest.mark.parametrize("split", SPLITS)
def test_splits_keep_the_held_out_rules(split: str) -> None:
    scenes = [build_clip(clip_id) for clip_id in clip_ids(split, 0, 24)]
    pairs = {(thing.colour, thing.category) for scene in scenes for thing in scene.objects}
    assert bool(pairs & set(HELD_OUT_PAIRS)) == (split == "test-words")
    train = {scene.look.background for scene in map(build_clip, clip_ids("train", 1, 24))}
    assert bool(train & {scene.look.background for scene in scenes}) == (split != "test-look")
