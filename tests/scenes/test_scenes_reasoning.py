"""Reasoning prompts: what the tables promise, and what is drawn from them."""

import re
from collections import Counter
from functools import cache

import numpy as np
import pytest

from maskselect.scenes import phrases, templates
from maskselect.scenes.facts import SceneFacts
from maskselect.scenes.properties import PROPERTIES
from maskselect.scenes.reasoning import ReasoningPair, draw_reasoning, phrases_of
from maskselect.scenes.spec import CATEGORIES, COLOURS, HELD_OUT_PAIRS, SIZES, SPLITS, TEXTURES
from tests.scenes.box_scenes import box_facts

NAMES = {form: c for c in CATEGORIES for form in (c, phrases.PLURALS.get(c, c + "s"))}
NAMES |= {name: c for c, names in phrases.CATEGORY_NAMES.items() for name in names}
ATTRIBUTES = {w: w for w in (*COLOURS, *TEXTURES, *SIZES)} | {o: w for w, os in phrases.WORDS.items() for o in os}
ATTRIBUTES |= {"stripes": "striped", "dots": "dotted", "spots": "dotted"}
AGREEMENT = {"{s}": ("s", ""), "{es}": ("es", ""), "{is}": ("is", "are"), "{has}": ("has", "have")}
Drawn = list[tuple[SceneFacts, ReasoningPair]]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z][a-z'-]*", text.lower())


def said(phrase: str, many: bool) -> str:
    for slot, forms in AGREEMENT.items():
        phrase = phrase.replace(slot, forms[many])
    return phrase


def said_words(category: str, held: bool) -> set[str]:
    return {w for _, p in phrases_of(category, held) for many in (False, True) for w in words(said(p, many))}


def frame_words(held: bool) -> set[str]:
    forms = [form for table in (*templates.TEMPLATES.values(), templates.TAILS) for form in table[held]]
    return set(words(re.sub(r"\{.*?\}", " ", " . ".join(forms))))


def drawn(split: str, scenes: int = 60, count: int = 12, seed: int = 0) -> Drawn:
    rng = np.random.default_rng(seed)
    found: Drawn = []
    for _ in range(scenes):
        facts = box_facts(rng)
        found += [(facts, pair) for pair in draw_reasoning(facts, count, rng, split)]
    return found


@pytest.fixture(scope="module")
def train() -> Drawn:
    return drawn("train", 150)


# The tables.
def test_no_phrase_is_said_of_two_categories_or_held_out_and_not() -> None:
    listed = [phrase for p in PROPERTIES.values() for forms in p for half in forms for phrase in half]
    assert list(PROPERTIES) == list(CATEGORIES)
    owners: dict[str, set[str]] = {}
    for category in CATEGORIES:
        for held in (False, True):
            for _, phrase in phrases_of(category, held):
                owners.setdefault(phrase, set()).add(category)
    assert [phrase for phrase, of in owners.items() if len(of) > 1] == []
    assert [phrase for phrase, times in Counter(listed).items() if times > 1] == []


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_category_has_phrases_of_different_grammar_in_training_and_held_out(category: str) -> None:
    for held, least in ((False, 5), (True, 3)):
        found = phrases_of(category, held)
        assert len(found) >= least
        assert len({kind for kind, _ in found}) >= 3
        assert all(" " in phrase or kind != "use" for kind, phrase in found)


@pytest.mark.parametrize("category", CATEGORIES)
def test_phrases_name_no_category_and_no_attribute_or_side(category: str) -> None:
    others = {*NAMES, *ATTRIBUTES, "left", "right", "top", "bottom", "middle"}
    own = [name for name, of in NAMES.items() if of == category and " " not in name]
    for word in said_words(category, False) | said_words(category, True):
        assert word not in others
        assert not any(word.startswith(name) or word.endswith(name) for name in own), word  # "football", "keyhole"


def test_sentences_name_no_category_and_no_attribute_or_side() -> None:
    assert not (frame_words(False) | frame_words(True)) & {*NAMES, *ATTRIBUTES, "left", "right", "top", "bottom"}


def test_traits_that_have_something_have_no_other_verb() -> None:
    for properties in PROPERTIES.values():
        for trait in (*properties.traits.train, *properties.traits.held):
            assert trait.count("{") >= 1
            assert not trait.startswith("{has}") or trait.count("{") == 1
    others = [p for c in CATEGORIES for held in (False, True) for kind, p in phrases_of(c, held) if kind != "trait"]
    assert not any("{" in phrase for phrase in others)


@pytest.mark.parametrize("category", CATEGORIES)
def test_held_out_phrases_are_new_but_hint_at_their_category_with_known_words(category: str) -> None:
    known = set().union(*(said_words(c, False) for c in CATEGORIES)) | frame_words(False)
    elsewhere = set().union(*(said_words(c, False) for c in CATEGORIES if c != category)) | frame_words(False)
    telling = said_words(category, False) - elsewhere
    trained = [phrase for _, phrase in phrases_of(category, False)]
    for _, phrase in phrases_of(category, True):
        found = {w for many in (False, True) for w in words(said(phrase, many))}
        assert found <= known, found - known
        assert found & telling, phrase
        assert not any(phrase in one for one in trained), phrase


def test_held_out_sentences_are_new_but_of_known_words() -> None:
    assert frame_words(True) <= frame_words(False) | set(words(" ".join(phrases.FRAMES.train)))
    for table in (*templates.TEMPLATES.values(), templates.TAILS):
        assert len(table.train) >= 3 and len(table.held) >= 2
        assert not set(table.train) & set(table.held)


# What is drawn.
@cache
def sentences(held: bool) -> list[tuple[re.Pattern[str], bool, str]]:
    """Every template with every phrase as a pattern, whether its phrase is held out, and the phrase's category."""
    found = []
    tails = "|".join(re.escape(tail).replace(r"\{ones\}", "the .+?") for tail in templates.TAILS[held])
    for category in CATEGORIES:
        for new in (False, True):
            for kind, phrase in phrases_of(category, new):
                for template in templates.TEMPLATES[kind][held]:
                    found.append((_pattern(template, kind, phrase, tails), new, category))
    return found


def _pattern(template: str, kind: str, phrase: str, tails: str) -> re.Pattern[str]:
    text = re.escape(template).replace(r"\.\{tail\}", rf"\.?(?:{tails})?").replace(r"\{tail\}", f"(?:{tails})?")
    text = text.replace(r"\{is\}", "(?:is|are)")
    text = re.sub(r"\\\{nouns?\\\}", "[^?.]+?", text)
    either = "|".join(re.escape(said(phrase, many)) for many in (False, True))
    text = re.sub(rf"\\\{{{kind}[1s]?\\\}}", lambda _: f"(?:{either})", text, flags=re.IGNORECASE)
    return re.compile(text.removesuffix(r"\.") + (r"\.?" if text.endswith(r"\.") else ""), re.IGNORECASE)


def read(text: str, held: bool) -> list[tuple[bool, str]]:
    """(phrase held out, category) of all readings of a sentence as one of the training or of the held-out ones."""
    return [(new, category) for pattern, new, category in sentences(held) if pattern.fullmatch(text)]


@pytest.mark.parametrize("split", SPLITS)
def test_splits_say_their_own_phrasing_about_the_right_category(split: str) -> None:
    for facts, (reasoning, naming) in drawn(split, 10, 8, seed=4):
        found = read(reasoning.text, split.startswith("test"))
        assert found, reasoning.text
        assert not read(reasoning.text, not split.startswith("test")), reasoning.text
        assert {new for new, _ in found} == {split == "test-words"}, reasoning.text
        (category,) = {category for _, category in found}
        assert any(NAMES.get(w) == category for w in words(naming.text)), naming.text
        assert all(facts.words(k)[0] == category for k in reasoning.targets)


def test_a_pair_asks_for_the_same_and_only_one_half_says_its_name(train: Drawn) -> None:
    for facts, (reasoning, naming) in train:
        assert (reasoning.kind, naming.kind) == ("reasoning", "naming")
        assert (reasoning.references, reasoning.targets) == (naming.references, naming.targets)
        for prompt in (reasoning, naming):
            assert prompt.text.count("<mask-ref>") == len(prompt.references) <= 1
            assert not re.search(r"[{}]|  |that that|\.\.|\?\?|[?.] [a-z]", prompt.text), prompt.text
            assert list(prompt.targets) == sorted(set(prompt.targets))
            assert all(0 <= k < facts.count for k in (*prompt.targets, *prompt.references))
        assert not set(words(reasoning.text)) & set(NAMES), reasoning.text


def test_targets_agree_with_a_naive_reader(train: Drawn) -> None:
    place = r"<mask-ref>|left|right|top|bottom|upper|lower|middle|corner|cent(re|er) of|in the cent|at the cent"
    checked: Counter[int] = Counter()
    for facts, (reasoning, naming) in train[::3]:
        found = read(reasoning.text, False)
        pattern = r"\b(" + "|".join(sorted(ATTRIBUTES, key=len, reverse=True)) + r")\b"
        asked = {ATTRIBUTES[w] for w in re.findall(pattern, reasoning.text.lower())}
        assert asked == {ATTRIBUTES[w] for w in re.findall(pattern, naming.text.lower())}
        wanted = {*asked, found[0][1]}
        fitting = tuple(k for k in range(facts.count) if wanted <= set(facts.words(k)))
        if re.search(place, naming.text):
            assert set(reasoning.targets) <= set(fitting)
        else:
            assert reasoning.targets == fitting, reasoning.text
            checked[min(len(fitting), 2)] += 1
    assert all(checked[answers] > 20 for answers in range(3)), checked


def test_nouns_and_verbs_agree(train: Drawn) -> None:
    one, several = r"(thing|object|item|shape|figure)", r"(things|objects|items|shapes|figures)"
    for _, (reasoning, _) in train:
        text = reasoning.text.lower()
        if len(reasoning.targets) > 1:
            assert not re.search(rf"\b(which|the) ([a-z-]+ )*{one}\b|\bthe ([a-z-]+ )?one\b", text), text
        assert not re.search(rf"(which|the) ([a-z-]+ )?{several} (has|is)\b|{one} (have|are)\b", text) or "of" in text
        assert not re.search(rf"where is the [a-z -]*{several}|where are the [a-z -]*{one}\b|\b(a|an) {several}", text)


def test_held_out_pairs_are_not_asked_for_in_training(train: Drawn) -> None:
    for _, (reasoning, naming) in train:
        category = next(NAMES[w] for w in words(naming.text) if w in NAMES)
        colours = {ATTRIBUTES[w] for w in words(reasoning.text) if w in ATTRIBUTES}
        assert not any((colour, category) in HELD_OUT_PAIRS for colour in colours), reasoning.text


def test_shares_and_variety(train: Drawn) -> None:
    pairs = [pair for _, pair in train]
    assert len(pairs) > 1700
    assert abs(np.mean([bool(pair.reasoning.references) for pair in pairs]) - 0.28) < 0.05
    assert abs(np.mean([not pair.reasoning.targets for pair in pairs]) - 0.12) < 0.04
    assert np.mean([len(pair.reasoning.targets) > 1 for pair in pairs]) > 0.15
    assert len({pair.reasoning.text.lower() for pair in pairs}) > 0.9 * len(pairs)


def test_reference_and_no_target_shares_are_kept_at_their_ends() -> None:
    facts = box_facts(np.random.default_rng(2))
    for share in (0.0, 1.0):
        pairs = draw_reasoning(facts, 20, np.random.default_rng(0), "val", share, 1 - share)
        assert len(pairs) == 20
        assert all(bool(p.reasoning.references) == bool(share) == bool(p.reasoning.targets) for p in pairs)


def test_same_rng_same_pairs_about_different_things() -> None:
    facts = box_facts(np.random.default_rng(4))
    first, again = (draw_reasoning(facts, 10, np.random.default_rng(7), "val") for _ in range(2))
    assert first == again and len(first) == 10
    assert first != draw_reasoning(facts, 10, np.random.default_rng(8), "val")
    used, other = np.random.default_rng(7), np.random.default_rng(7)
    draw_reasoning(facts, 10, used, "val")
    other.integers(2**63)
    assert used.random() == other.random()  # one draw, however many pairs


def test_unknown_split_and_no_objects() -> None:
    facts, rng = box_facts(np.random.default_rng(0)), np.random.default_rng(0)
    with pytest.raises(ValueError, match="unknown split 'exam'; there are train"):
        draw_reasoning(facts, 1, rng, "exam")
    arrays = {name: value[:0] for name, value in vars(facts).items() if isinstance(value, np.ndarray)}
    assert draw_reasoning(SceneFacts(facts.image_size, **arrays), 3, rng, "test") == []


def test_scene_that_has_every_category() -> None:
    facts = box_facts(np.random.default_rng(0))
    arrays = {name: np.resize(v, (20, *v.shape[1:])) for name, v in vars(facts).items() if isinstance(v, np.ndarray)}
    arrays |= {"gap": np.zeros((20, 20), np.float32), "category": np.arange(20, dtype=np.uint8)}
    full = SceneFacts(facts.image_size, **arrays | {"relations": facts.relations[:0]})
    pairs = draw_reasoning(full, 4, np.random.default_rng(0), "val", 0.0, 1.0)
    assert len(pairs) == 4 and not any(pair.reasoning.targets for pair in pairs)
