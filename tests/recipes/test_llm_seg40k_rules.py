"""The builder `llm-seg40k`: rules, sampling and settings by themselves."""

import doctest
from collections import Counter
from typing import Any

import pytest

from maskselect.recipes.llm_seg40k import answers as llm_seg40k_answers
from maskselect.recipes.llm_seg40k.answers import (
    DUPLICATE,
    LENGTH,
    LOCATED,
    NAMED,
    NO_QUESTION,
    NOT_LISTED,
    REPEATED,
    SURPLUS,
    UNREADABLE,
    Rules,
    Thing,
    check,
    listed,
    locates,
    names,
    read_reply,
)
from maskselect.recipes.llm_seg40k.build import Settings
from maskselect.recipes.llm_seg40k.images import Group, choose
from maskselect.recipes.llm_seg40k.worker import EXAMPLE, EXAMPLE_REPLY, EXAMPLE_THINGS

GOOD = "Which of these would somebody use to drink hot tea?"
CUP, SAUCER = Thing("cup", ("mug",)), Thing("saucer")


def test_examples() -> None:
    assert doctest.testmod(llm_seg40k_answers).failed == 0


@pytest.mark.parametrize(
    ("reply", "entries"),
    [
        ('[{"question": "a"}]', 1),
        ('```json\n[{"question": "a"}, {"question": "b"}]\n```', 2),
        ('Of course! As [1] says: {"questions": [{"question": "a"}, 3]} Anything else?', 2),
        ('{"question": "a"}\n{"question": "b"}', 2),
        ("[]", 0),
        ("", None),
        ("I cannot help with that.", None),
        ("[{'question': 'a'}]", None),
        ('[{"question": "a"', None),
        ("[" * 100_000, None),
        ("{" * 100_000, None),
        ('{"a": ' * 5000, None),
        ('["a", "b"]', None),
    ],
)
def test_replies_are_read_tolerantly(reply: str, entries: int | None) -> None:
    found = read_reply(reply)
    assert (None if found is None else len(found)) == entries


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("text", UNREADABLE),
        ({"question": GOOD.replace("tea", "<mask-ref>"), "answer": "cup"}, UNREADABLE),
        ({"question": "Which of these \ud800 would one use for tea?", "answer": "cup"}, UNREADABLE),
        ({"answer": "cup"}, NO_QUESTION),
        ({"question": 3, "answer": "cup"}, NO_QUESTION),
        ({"question": "The thing that one drinks hot tea from.", "answer": "cup"}, NO_QUESTION),
        ({"question": " ?", "answer": "cup"}, NO_QUESTION),
        ({"question": GOOD}, NOT_LISTED),
        ({"question": GOOD, "answer": "teapot"}, NOT_LISTED),
        ({"question": GOOD, "answer": ["cup"]}, NOT_LISTED),
        ({"question": GOOD, "answer": ""}, NOT_LISTED),
        ({"question": "Which one drinks?", "answer": "cup"}, LENGTH),
        ({"question": "What " + "very " * 60 + "old thing is this?", "answer": "cup"}, LENGTH),
        ({"question": "Which of the cups holds the tea?", "answer": "cup"}, NAMED),
        ({"question": "Which mug would hold the most tea?", "answer": "cup"}, NAMED),
        ({"question": "What holds tea next to the plate?", "answer": "cup"}, LOCATED),
        ({"question": "What on the Left would hold the tea?", "answer": "cup"}, LOCATED),
    ],
)
def test_what_is_refused(entry: Any, reason: str) -> None:
    assert check([entry], [CUP, SAUCER], Rules()) == ([], Counter({reason: 1}))


def test_what_passes() -> None:
    entries = [
        {"question": f"  {GOOD}\n", "answer": "The Cups."},
        {"question": GOOD.upper(), "answer": "saucer"},
        {"question": "What keeps the table clean under a dripping cup?", "answer": "saucer"},
        {"question": "What would be drunk from in the morning?", "answer": "cup"},
    ]
    kept, refused = check(entries, [CUP, SAUCER], Rules(most=2))
    assert kept == [(GOOD, "cup"), ("What keeps the table clean under a dripping cup?", "saucer")]
    assert refused == {DUPLICATE: 1, SURPLUS: 1}


def test_an_object_answers_at_most_two_questions() -> None:
    """Rule 7 of LLM-Seg's prompt (arXiv 2404.08767, section 4.2)."""
    entries = [{"question": GOOD.replace("hot tea", drink), "answer": "cup"} for drink in ("tea", "milk", "water")]
    entries.append({"question": GOOD.replace("drink", "serve"), "answer": "saucer"})
    kept, refused = check(entries, [CUP, SAUCER], Rules())
    assert [answer for _, answer in kept] == ["cup", "cup", "saucer"] and refused == {REPEATED: 1}
    assert len(check(entries, [CUP, SAUCER], Rules(most_an_answer=3))[0]) == 4
    with pytest.raises(ValueError, match="most_an_answer and min_words must be at least 1"):
        Rules(most_an_answer=0)


def test_the_example_of_the_request_keeps_the_rules() -> None:
    entries = read_reply(EXAMPLE_REPLY)
    kept, refused = check(entries or [], [Thing(name) for name in EXAMPLE_THINGS], Rules())
    assert len(kept) == 4 and not refused and EXAMPLE_REPLY in EXAMPLE
    assert max(Counter(answer for _, answer in kept).values()) == 2  # it shows the rule about answers, too


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("Which knives cut bread?", "knife"),
        ("Whose olives are these?", "olive"),
        ("Who are these people?", "person"),
        ("Which mouse's cable is it?", "mouse (computer equipment)"),
        ("What lifts hot air balloons?", "hot-air balloon"),
        ("Whose teddybear is it?", "teddy bear"),
        ("Who wears a T-shirt?", "tshirt"),
        ("What do berries taste of?", "berry"),
        ("Is it one of the buses?", "bus"),
    ],
)
def test_names_in_any_number(question: str, name: str) -> None:
    assert names(question, Thing(name))
    assert not names("Which of these would one need at once?", Thing(name))


def test_no_name_is_found_inside_a_word() -> None:
    assert not names("Who is captured carpeting the cupboard?", Thing("cup", ("cap", "car", "pet")))
    assert not locates("Who came upright to the topic of laptops?")


def test_an_answer_must_mean_one_object() -> None:
    mice = [Thing("mouse (animal)"), Thing("mouse (computer equipment)")]
    assert listed("mouse", mice) is None and listed("mouse", mice[:1]) == mice[0]
    assert listed("Mouse (Animal)", mice) == mice[0]
    assert listed("wine glasses", [Thing("wineglass"), Thing("glasses")]) == Thing("wineglass")


def test_rules_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="max_words not below min_words"):
        Rules(min_words=9, max_words=8)


# --- sampling --------------------------------------------------------------------------------------------------------


class Ids:
    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes = sizes

    def image_ids(self) -> list[str]:
        return [image for image, count in self.sizes.items() for _ in range(count)]


def test_sampling_depends_on_seed_and_ids_alone() -> None:
    sizes = {str(number): number % 7 for number in range(700)}
    group = Group("simple", "coco", 2, 5, 280)
    chosen, tally = choose(group, Ids(sizes), (11, 1, 2), seed=3)
    assert tally == (280, 400, 280) and len({one.image_id for one in chosen}) == 280
    assert all(sizes[one.image_id] == one.count and 2 <= one.count <= 5 for one in chosen)
    ids = Ids(sizes).image_ids()
    assert all(set(ids[one.first : one.first + one.count]) == {one.image_id} for one in chosen)
    assert Counter(one.split for one in chosen) == {"train": 220, "validation": 20, "test": 40}

    turned, _ = choose(group, Ids(dict(reversed(sizes.items()))), (11, 1, 2), seed=3)
    assert [(one.image_id, one.split) for one in turned] == [(one.image_id, one.split) for one in chosen]
    other, _ = choose(group, Ids(sizes), (11, 1, 2), seed=4)
    assert {one.image_id for one in other} != {one.image_id for one in chosen}


def test_fewer_than_wanted() -> None:
    chosen, tally = choose(Group("all", "coco", 6, None, 10), Ids({"a": 6, "b": 5, "c": 90}), (1, 0, 0), seed=0)
    assert tally == (10, 2, 2) and {one.image_id for one in chosen} == {"a", "c"}
    assert {one.split for one in chosen} == {"train"}


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"simple": -1}, "numbers of images"),
        ({"simple": 0, "complex": 0, "ego_objects": 0}, "numbers of images"),
        ({"shares": (0, 0, 0)}, "expected those of train, validation and test"),
        ({"shares": (float("nan"), 1, 1)}, "expected those of train, validation and test"),
        ({"attempts": 0}, "attempts must be at least 1"),
    ],
)
def test_settings_that_cannot_be(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Settings(**change)
