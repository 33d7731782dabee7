"""Twin prompts: the same but for the reference, which one has as a mask and the other as a description."""

import re
from functools import cache

import numpy as np
import pytest

from maskselect.evaluation.questions import open_samples
from maskselect.scenes import phrases
from maskselect.scenes.facts import SceneFacts
from maskselect.scenes.groups import SceneGroups
from maskselect.scenes.spec import CATEGORIES, COLOURS, HELD_OUT_PAIRS, SIZES, TEXTURES
from maskselect.scenes.twins import Twins, draw_twins
from maskselect.structures.sample import MASK_REF
from tests.scenes.box_scenes import box_facts

NAMES = {c: c for c in CATEGORIES} | {name: c for c, names in phrases.CATEGORY_NAMES.items() for name in names}
WORDS = {w: w for w in (*COLOURS, *TEXTURES, *SIZES)} | {o: w for w, others in phrases.WORDS.items() for o in others}


@cache
def drawn(split: str) -> list[tuple[SceneFacts, Twins]]:
    rng = np.random.default_rng(0)
    scenes = [box_facts(rng) for _ in range(40)]
    return [(facts, pair) for facts in scenes for pair in draw_twins(facts, 6, rng, split)]


def descriptions(pair: Twins) -> list[str]:
    """What stands in the verbal prompt in place of each reference; fails if anything else differs."""
    pattern = "(the .+?)".join(re.escape(piece) for piece in pair.visual.text.split(MASK_REF))
    match = re.fullmatch(pattern, pair.verbal.text)
    assert match is not None, pair
    return list(match.groups())


@pytest.mark.parametrize("split", ["train", "test-words"])
def test_twins_differ_in_the_reference_alone(split: str) -> None:
    pairs = drawn(split)
    assert len(pairs) > 150
    for _, (visual, verbal) in pairs:
        assert len(visual.references) == visual.text.count(MASK_REF) >= 1
        assert verbal.references == () and MASK_REF not in verbal.text
        assert (visual.targets, visual.kind) == (verbal.targets, verbal.kind)
        assert len(descriptions(Twins(visual, verbal))) == len(visual.references)
    assert {len(pair.visual.references) for _, pair in pairs} == {1, 2}
    assert 0.04 < sum(not pair.visual.targets for _, pair in pairs) / len(pairs) < 0.3


def test_a_description_fits_the_referenced_object_alone() -> None:
    checked = 0
    for facts, pair in drawn("train"):
        objects = facts.judge().words
        for item, text in zip(pair.visual.references, descriptions(pair), strict=True):
            *adjectives, noun = text.removeprefix("the ").rsplit(" ", 1)
            wanted = {WORDS.get(word) for word in " ".join(adjectives).split()} | {NAMES.get(noun, "")} - {""}
            if None in wanted or (noun not in NAMES and noun not in phrases.GENERIC):
                continue  # a name of several words
            fitting = [number for number, words in enumerate(objects) if wanted <= set(words)]
            assert fitting == [item], (text, objects)
            checked += 1
    assert checked > 120


def test_training_names_no_pair_that_is_held_out() -> None:
    for _, pair in drawn("train"):
        for colour, category in HELD_OUT_PAIRS:
            assert f"{colour} {category}" not in pair.verbal.text


def test_the_same_seed_gives_the_same_twins() -> None:
    facts = box_facts(np.random.default_rng(3))
    first, again, other = (draw_twins(facts, 4, np.random.default_rng(seed), "test") for seed in (1, 1, 2))
    assert first == again != other
    with pytest.raises(ValueError, match="unknown split 'no'"):
        draw_twins(facts, 1, np.random.default_rng(0), "no")


def test_the_evaluator_asks_both_twins() -> None:
    samples, total = open_samples("scenes-twins", None, "test", scenes=2, seed=5)
    asked = list(samples)
    assert total == 12 and 8 <= len(asked) <= 12 and len(asked) % 2 == 0
    for visual, verbal in zip(asked[::2], asked[1::2], strict=True):
        assert len(visual.prompt.references) >= 1 and len(verbal.prompt.references) == 0
        assert visual.targets == verbal.targets and visual.image_id == verbal.image_id


def test_both_forms_of_training_have_the_same_prompts_otherwise() -> None:
    asked = []
    for form in ("visual", "verbal"):
        source = SceneGroups(count=2, reference_share=0.0, twin_share=0.5, twin_form=form)  # type: ignore[arg-type]
        extra = source.load(1).extra
        asked.append(source.queries(1, extra, 12, np.random.default_rng(4)))
    visual, verbal = asked
    assert [query.targets for query in visual] == [query.targets for query in verbal]
    referring = [query for query in visual if query.references]
    assert 2 <= len(referring) < len(visual) and not [query for query in verbal if query.references]
    plain = [(a.text, b.text) for a, b in zip(visual, verbal, strict=True) if not a.references]
    assert plain and all(first == second for first, second in plain)
    with pytest.raises(ValueError, match="twin_share must be within 0 to 1"):
        SceneGroups(twin_share=1.5)
