"""Prompts with words that the scenes never show: which words, who may say them, and that nothing answers them."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from maskselect import cli
from maskselect.backends.training_data import training_data
from maskselect.data.maskgroups import MaskGroupsDataset
from maskselect.evaluation.leakage import find_overlaps
from maskselect.evaluation.questions import open_samples
from maskselect.scenes import phrases, properties, spec, templates
from maskselect.scenes.groups import SceneGroups
from maskselect.scenes.samples import ask_scene, ask_scenes
from maskselect.scenes.spec import CATEGORIES, COLOURS, SIZES, SPLITS, ScenePrompt
from maskselect.scenes.unknown import UNKNOWN_SHARES, draw_unknown
from maskselect.scenes.unknown_words import ADJECTIVES, NOUNS, UNKNOWN_PLURALS, words_of
from tests.data.test_reasoning_samples import digest
from tests.scenes.box_scenes import box_facts, training_texts

WORDS = {*NOUNS, *UNKNOWN_PLURALS.values(), *ADJECTIVES}


def said(text: str) -> set[str]:
    return set(re.findall(r"[a-z-]+", text.lower()))


def words_in(table: object) -> set[str]:
    """All words of a table of phrases, whatever it is made of."""
    if isinstance(table, str):
        return said(re.sub(r"\{\w*(:\w+)?\}", " ", table))
    if isinstance(table, dict):
        table = (*table, *table.values())
    return {word for part in table for word in words_in(part)} if isinstance(table, tuple) else set()


def drawn(split: str, scenes: int = 60, count: int = 16) -> list[ScenePrompt]:
    rng = np.random.default_rng(7)
    return [prompt for _ in range(scenes) for prompt in draw_unknown(box_facts(rng), count, rng, split)]


def spoken_by(split: str) -> set[str]:
    """The words, plurals too, that the prompts of a split may say."""
    nouns, adjectives = words_of(split)
    return {*nouns, *(UNKNOWN_PLURALS[noun] for noun in nouns), *adjectives}


# The words.
def test_no_unknown_word_is_one_that_the_generator_says() -> None:
    modules = (phrases, properties, templates, spec)
    known = set().union(
        *(words_in(table) for module in modules for name, table in vars(module).items() if name[0] != "_")
    )
    known |= set().union(*(said(line) for line in training_texts(3000, 0)))
    assert {*CATEGORIES, *COLOURS, *SIZES, "automobiles", "drink", "stripy", "furthest"} <= known
    assert not known & WORDS


def test_there_are_many_nouns_and_each_belongs_to_one_part() -> None:
    assert len(NOUNS) >= 500 and len(set(NOUNS)) == len(NOUNS) and len(set(ADJECTIVES)) == len(ADJECTIVES)
    nouns, adjectives = zip(*(words_of(split) for split in ("train", "val", "test")), strict=True)
    assert sorted(sum(nouns, ())) == sorted(NOUNS) and sorted(sum(adjectives, ())) == sorted(ADJECTIVES)
    assert 0.22 < len(nouns[2]) / len(NOUNS) < 0.28 and len(nouns[1]) > 50
    assert {"submarine", "skyscraper", "laptop"} <= set(nouns[2])
    assert words_of("test") == words_of("test-words") == words_of("test-look")
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not spoken_by(first) & spoken_by(second)


def test_an_unknown_split_says_no_words() -> None:
    with pytest.raises(ValueError, match="unknown split 'exam'; there are train, val, test"):
        words_of("exam")


@pytest.mark.parametrize(
    ("noun", "plural"),
    [("camel", "camels"), ("fox", "foxes"), ("bunny", "bunnies"), ("monkey", "monkeys"), ("wolf", "wolves"),
     ("fisherman", "fishermen"), ("woman", "women"), ("sheep", "sheep"), ("scissors", "scissors"), ("bus", None)],
)  # fmt: skip
def test_plurals(noun: str, plural: str | None) -> None:
    assert UNKNOWN_PLURALS.get(noun) == plural


# The prompts.
@pytest.mark.parametrize("split", SPLITS)
def test_prompts_say_words_of_their_own_part_and_mean_nothing(split: str) -> None:
    prompts = drawn(split)
    assert len(prompts) > 900
    for prompt in prompts:
        unknown = said(prompt.text) & WORDS
        assert unknown and unknown <= spoken_by(split), prompt
        assert prompt.targets == () and prompt.text.count("<mask-ref>") == len(prompt.references)
        # An adjective of theirs describes something known.
        assert prompt.kind != "unknown adjective" or unknown <= set(ADJECTIVES), prompt


def test_prompts_are_asked_as_those_that_have_an_answer() -> None:
    prompts = drawn("train", 200)
    kinds = Counter(prompt.kind for prompt in prompts)
    for kind, share in UNKNOWN_SHARES.items():
        assert abs(kinds[kind] / len(prompts) - share) < 0.05
    texts = [prompt.text for prompt in prompts]
    assert sum("<mask-ref>" in text for text in texts) > 0.1 * len(texts)
    for word in ("left", "smallest", "all", "red", "near", "two", "between"):
        assert any(word in said(text) for text in texts)
    nouns = {word for text in texts for word in said(text)}
    assert len(nouns & set(words_of("train")[0])) > 300


def test_a_scene_asks_for_unknown_words_after_the_rest_and_leaves_the_rest_alone() -> None:
    plain, both = ask_scene("val-1-0", (96, 96), 3, 1), ask_scene("val-1-0", (96, 96), 3, 1, 2)
    assert both.prompts[:5] == plain.prompts
    assert [prompt.kind in UNKNOWN_SHARES for prompt in both.prompts[5:]] == [True, True]
    assert draw_unknown(box_facts(np.random.default_rng(0)), 0, np.random.default_rng(0), "val") == []


# What published numbers rest on.
def test_the_held_out_prompts_are_those_that_models_were_measured_with() -> None:
    scenes = ask_scenes("test", 5, 20, prompts_per_scene=0, unknown_per_scene=3)
    rows = [[p.text, p.references, p.targets, p.kind] for scene in scenes for p in scene.prompts]
    assert digest(rows) == "abbb6d0a1c9f043a"


# On their way.
def test_scenes_unknown_asks_about_the_pictures_of_scenes() -> None:
    samples, total = open_samples("scenes-unknown", None, "test", scenes=2, seed=5)
    asked = list(samples)
    assert len(asked) == total == 6
    assert all(sample.targets == () and len(sample.gt_pool) for sample in asked)
    pictures = {sample.image_id: sample.image for sample in open_samples("scenes", None, "test", scenes=2, seed=5)[0]}
    assert all(np.array_equal(sample.image, pictures[sample.image_id]) for sample in asked)


def test_written_scenes_hold_them(tmp_path: Path) -> None:
    options = ["--split", "val", "--count", "1", "--seed", "4", "--size", "96", "--unknown-per-scene", "2"]
    assert cli.main(["make_scenes", "--output", str(tmp_path), *options]) == 0
    stored = [sample.prompt.text for sample in MaskGroupsDataset(tmp_path, "val")]
    assert stored == [prompt.text for prompt in ask_scene("val-4-0", (96, 96), 3, 0, 2).prompts]


def test_scenes_that_were_trained_on_are_told() -> None:
    scenes = {"class_path": "maskselect.scenes.groups.SceneGroups", "init_args": {"split": "train", "seed": 3}}
    assert find_overlaps(training_data(scenes), "scenes-unknown", "train", 3)
    assert not find_overlaps(training_data(scenes), "scenes-unknown", "test", 3)


def test_training_groups_have_the_share_that_is_asked_for() -> None:
    def unknown(share: float, count: int = 60) -> list[bool]:
        groups = SceneGroups("train", 0, 1, unknown_share=share)
        queries = groups.queries(0, groups.load(0).extra, count, np.random.default_rng(5))
        assert len(queries) == count
        return [bool(said(query.text) & WORDS) for query in queries]

    assert not any(unknown(0.0))
    assert all(unknown(1.0))
    assert 6 < sum(unknown(0.3)) < 30


@pytest.mark.parametrize(
    ("reasoning", "unknown", "told"),
    [(0.0, -0.1, "unknown_share must be within 0 to 1"), (0.0, float("nan"), "unknown_share must be within 0 to 1"),
     (0.6, 0.6, "above 1 together: 0.6, 0.6, 0.0, 0.0")],
)  # fmt: skip
def test_shares_that_are_none(reasoning: float, unknown: float, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        SceneGroups(reasoning_share=reasoning, unknown_share=unknown)
