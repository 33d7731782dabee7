"""Objects made one, and the groups that are asked for, on images drawn by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskselect.ops import rle
from maskselect.recipes.maskgroups_2m.groups import (
    GroupPrompt,
    any_beside_reference,
    any_by_position,
    beside_reference,
    by_position,
    by_relation,
    by_word,
    named_groups,
)
from maskselect.recipes.maskgroups_2m.objects import Drawn, merge
from maskselect.structures.sample import MASK_REF

SIZE = (20, 40)


def drawn(box: tuple[int, int, int, int], *names: str, attributes: tuple[str, ...] = ()) -> Drawn:
    x0, y0, x1, y1 = box
    mask = np.zeros((1, *SIZE), bool)
    mask[0, y0:y1, x0:x1] = True
    return Drawn(rle.encode(mask)[0], names, attributes)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_overlapping_objects_become_one_with_all_names() -> None:
    objects = [drawn((0, 0, 10, 10), "mug"), drawn((20, 0, 30, 10), "mug"), drawn((0, 0, 10, 9), "cup", "mug")]
    merged, places = merge(objects, 0.7)
    assert places == [0, 1, 0]
    assert [one.names for one in merged] == [("mug", "cup"), ("mug",)]
    assert merged[0].code == objects[0].code  # the first one's mask
    assert merge(objects, 0.95)[1] == [0, 1, 2]  # their IoU is 0.9
    assert merge([], 0.7) == ([], [])


def test_groups_have_at_least_two_and_each_set_of_objects_one_word() -> None:
    objects = [drawn((0, 0, 1, 1), *names) for names in (("cup", "mug"), ("mug", "cup"), ("plate",), ("mug",))]
    assert named_groups(objects, "names") == {"cup": [0, 1], "mug": [0, 1, 3]}
    assert named_groups(objects[:3], "names") == {"cup": [0, 1]}
    assert named_groups(objects, "names", frozenset({"mug"})) == {"cup": [0, 1]}
    assert named_groups(objects, "attributes") == {}


def test_each_group_is_asked_by_its_word_and_by_one_of_it() -> None:
    seen = set()
    for seed in range(20):
        plain, referring = by_word({"mug": [0, 2, 5]}, "category", rng(seed))
        assert "mug" in plain.text and plain.targets == (0, 2, 5) and plain.references == ()
        (reference,) = referring.references
        assert reference in (0, 2, 5) and referring.text.count(MASK_REF) == 1 and "mug" not in referring.text
        others = tuple(place for place in (0, 2, 5) if place != reference)
        assert referring.targets in (others, (0, 2, 5))
        itself = reference in referring.targets
        assert itself == any(word in referring.text for word in ("itself included", "and everything", "with it"))
        seen.add(itself)
    assert seen == {True, False}


def test_an_attribute_that_is_not_named_is_the_only_one_that_the_reference_shares() -> None:
    seen = set()
    for seed in range(60):
        for groups in ({"red": [0, 1, 2]}, {"red": [0, 1, 2], "shiny": [1, 2, 3]}):
            for prompt in by_word(groups, "attribute", rng(seed))[1::2]:
                named = any(word in prompt.text for word in groups)
                (reference,) = prompt.references
                shared = sum(reference in places for places in groups.values())
                assert named or (shared == 1 and "attribute" in prompt.text)
                seen.add((named, shared, reference in prompt.targets))
    assert seen == {
        (True, 1, True),
        (True, 1, False),
        (True, 2, True),
        (True, 2, False),
        (False, 1, True),
        (False, 1, False),
    }


BOXES = np.array([(0, 0, 8, 8), (30, 10, 38, 18), (10, 0, 18, 8), (15, 0, 30, 8)])


def positions(places: list[int], most: int = 99) -> dict[str, tuple[int, ...]]:
    found = by_position({"x": places}, BOXES, SIZE, most, rng())
    assert all(prompt.kind == "absolute position" for prompt in found)
    return {prompt.text: prompt.targets for prompt in found}


def told(found: dict[str, tuple[int, ...]], *words: str) -> list[tuple[int, ...]]:
    return [targets for text, targets in found.items() if any(word in text for word in words)]


def test_positions_are_clear() -> None:
    found = positions([0, 1])
    assert len(found) == 8  # four halves, four extremes
    assert told(found, "left") == [(0,), (0,)] and told(found, "right") == [(1,), (1,)]
    assert told(found, "top", "upper") == [(0,), (0,)] and told(found, "bottom", "lower") == [(1,), (1,)]


def test_an_object_across_the_middle_leaves_halves_open() -> None:
    found = positions([0, 1, 3])  # the last crosses the vertical middle
    assert told(found, "leftmost", "closest to the left") == [(0,)]
    assert not [text for text in found if "on the left" in text or "left part" in text or "left side" in text]
    assert told(found, "on the top", "at the top", "upper", "near the top") == [(0, 3)]


def test_extremes_stand_out() -> None:
    assert told(positions([0, 2]), "topmost", "top edge") == []  # both are as high


def test_few_positions_are_chosen() -> None:
    assert len(positions([0, 1], most=3)) == 3 and positions([0, 1], most=0) == {}


def test_sides_of_a_reference() -> None:
    found = beside_reference({"x": [0, 1, 2]}, BOXES, 99, rng())
    asked = {(p.text.replace("further left than", "left of"), p.references, p.targets) for p in found}
    of_2 = [(refs, targets) for text, refs, targets in asked if refs == (2,) and "left" in text]
    assert of_2 == [((2,), (0,))]
    # Object 3 crosses no one of 0 and 1 but begins inside 2: left of it is clear for 0 and 1, not for 2.
    assert not [1 for text, refs, _ in asked if refs == (3,) and "left" in text]
    for prompt in found:
        assert prompt.references[0] not in prompt.targets and prompt.text.count(MASK_REF) == 1


def test_positions_of_objects_of_any_category() -> None:
    """Two thirds of object 3 are right of the middle: not clearly right, and clearly not left."""
    found = any_by_position(BOXES, SIZE, 99, rng())
    assert {prompt.targets for prompt in found} == {(0, 2), (0, 2, 3), (1,)} and len(found) == 3
    assert all(prompt.kind == "absolute position" and prompt.references == () for prompt in found)
    texts = {prompt.targets: prompt.text for prompt in found}
    assert "left" in texts[0, 2] and not any("right" in text for text in texts.values())
    assert any_by_position(BOXES[:1], SIZE, 99, rng()) == []  # all objects are there
    assert len(any_by_position(BOXES, SIZE, 1, rng())) == 1


def test_all_objects_on_one_side_of_a_reference() -> None:
    found = any_beside_reference(BOXES, 99, rng())
    asked = {(prompt.references[0], prompt.targets): prompt.text for prompt in found}
    assert "left" in asked[2, (0,)] and not [1 for reference, targets in asked if (reference, targets) == (3, (0,))]
    assert (0, (1, 2, 3)) not in asked  # all others are right of it, so the prompt would ask for everything
    assert any(word in asked[0, (1,)] for word in ("below", "down"))
    assert all(prompt.kind == "relative position" and prompt.text.count(MASK_REF) == 1 for prompt in found)


def test_relationships_that_share_an_end() -> None:
    relations = [
        (0, "wears", 1),
        (0, "wears", 2),
        (0, "near", 3),
        (4, "on", 3),
        (5, "on", 3),
        (5, "on", 3),
        (2, "on", 2),
    ]
    found = by_relation(relations, rng())
    assert [(p.references, p.targets, p.kind) for p in found] == [
        ((0,), (1, 2), "interaction"),
        ((3,), (4, 5), "interaction"),
    ]
    assert "wears" in found[0].text and " on " in found[1].text


def test_records_are_plain() -> None:
    assert GroupPrompt("a", "b", (1,), (2, 3)).as_record() == {
        "text": "a", "kind": "b", "references": [1], "targets": [2, 3],
    }  # fmt: skip


BOX = st.tuples(*[st.integers(0, 19)] * 4).map(lambda b: (b[0], b[1], b[0] + 1 + b[2], b[1] + 1 + b[3]))


@given(boxes=st.lists(BOX, min_size=2, max_size=6), seed=st.integers(0, 99))
def test_what_is_said_of_sides_is_true(boxes: list[tuple[int, int, int, int]], seed: int) -> None:
    corners = np.array(boxes)
    places = list(range(len(boxes)))
    true = {
        "left": lambda a, b: a[2] <= b[0],
        "right": lambda a, b: a[0] >= b[2],
        "above": lambda a, b: a[3] <= b[1],
        "below": lambda a, b: a[1] >= b[3],
        "higher": lambda a, b: a[3] <= b[1],
        "down": lambda a, b: a[1] >= b[3],
    }
    named, any_kind = (
        beside_reference({"x": places}, corners, 99, rng(seed)),
        any_beside_reference(corners, 99, rng(seed)),
    )
    for prompt in (*named, *any_kind):
        holds = next(check for word, check in true.items() if word in prompt.text)
        reference = corners[prompt.references[0]]
        for place in places:
            if place not in prompt.references:
                assert (place in prompt.targets) == bool(holds(corners[place], reference))


@pytest.mark.parametrize("seed", [1, 2])
def test_chance_comes_from_the_generator_alone(seed: int) -> None:
    groups = {"x": [0, 1, 2]}
    first, second = (
        [*by_word(groups, "attribute", r), *beside_reference(groups, BOXES, 3, r)] for r in (rng(seed), rng(seed))
    )
    assert first == second
