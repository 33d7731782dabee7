"""Prompts about clips: every kind occurs, the answers are right by definitions written out here, words are held out."""

import re
from collections import Counter

import numpy as np
import pytest
import torch

from maskselect.scenes.clip_drawing import ClipDrawing
from maskselect.scenes.clip_facts import ClipFacts
from maskselect.scenes.clip_groups import MotionGroups
from maskselect.scenes.motion import build_clip, clip_ids
from maskselect.scenes.motion_phrases import MOTION_CLAUSES, MOTION_EXTREME_AFTER, MOTION_REASONS
from maskselect.scenes.motion_prompts import draw_clip_prompts
from maskselect.scenes.phrases import REF
from maskselect.scenes.spec import HELD_OUT_PAIRS, KINDS, ScenePrompt
from maskselect.structures.clip import Clip
from maskselect.structures.clip_groups import ClipGroupSource

Drawn = list[tuple[ClipFacts, ScenePrompt]]


def many(split: str, count: int = 40, seed: int = 2) -> Drawn:
    found: Drawn = []
    for number, clip_id in enumerate(clip_ids(split, seed, count)):
        facts = ClipFacts.measure(ClipDrawing(build_clip(clip_id)))
        rng = np.random.default_rng(number)
        found += [(facts, prompt) for prompt in draw_clip_prompts(facts, 24, rng, split, motion_share=0.6)]
    return found


@pytest.fixture(scope="module")
def train() -> Drawn:
    return many("train")


def test_every_kind_occurs(train: Drawn) -> None:
    kinds = Counter(prompt.kind for _, prompt in train)
    expected = (set(KINDS) - {"interaction"}) | {"motion", "order", "reasoning", "none"}
    assert expected <= set(kinds) and min(kinds[kind] for kind in expected) >= 20
    assert {len(prompt.targets) for _, prompt in train} >= {0, 1, 2, 3}
    assert all((prompt.kind == "none") == (not prompt.targets) for _, prompt in train)
    with_references = [prompt for _, prompt in train if prompt.references]
    assert 0.15 < len(with_references) / len(train) < 0.4
    assert all(prompt.text.count(REF) == len(prompt.references) for _, prompt in train)


def test_every_form_of_motion_is_written(train: Drawn) -> None:
    texts = " | ".join(prompt.text.lower() for _, prompt in train)
    for words in (r"mov\w+ left|to the left", r"upper (left|right)", "turn|spin|rotat", "grow|bigger|nearer|closer",
                  "shrink|smaller|further away", "leav|out of", "enter|into", r"first|last", "fastest",
                  "same (direction|way)", "opposite (direction|way)", "hidden|covered", "in front of", "from behind",
                  "not move|not moving|still|one place", "back", "before", "after", "furthest|slow"):  # fmt: skip
        assert re.search(words, texts), words
    assert "{" not in texts


def path(facts: ClipFacts, k: int) -> np.ndarray:
    """Centres in the frames in which a part of the object is inside the picture."""
    return facts.centre_xy[facts.inside[:, k] > 0, k]


def direction(facts: ClipFacts, k: int) -> np.ndarray:
    points = path(facts, k)
    return points[-1] - points[0]


def speed(facts: ClipFacts, k: int) -> float:
    return float(np.linalg.norm(np.diff(path(facts, k), axis=0), axis=1).mean())


def described(facts: ClipFacts, text: str) -> list[int]:
    """The objects that the category and colour in a text fit; only for texts with plain words."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    members = list(range(facts.count))
    for place in (0, 1):
        table = {facts.words(k)[place] for k in range(facts.count)}
        named = {word for word in table if words & {word, word + "s", word + "es"}}
        if named:
            members = [k for k in members if facts.words(k)[place] in named]
    return members


def test_targets_have_the_motion_that_the_prompt_names(train: Drawn) -> None:
    checked: Counter[str] = Counter()
    for facts, prompt in train:
        text = prompt.text.lower()
        if prompt.kind == "motion" and " and " not in text and not prompt.references and "opposite" not in text:
            for word, axis, sign in (("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)):
                if re.search(rf"(moving|moves?|going|goes|heading) (to the )?{word}(wards)?\b", text):
                    for k in prompt.targets:
                        away = direction(facts, k)
                        assert sign * away[axis] > 2 * abs(away[1 - axis]), prompt
                    checked[word] += 1
        if prompt.kind == "motion" and re.search("same (direction|way) as <", text):
            (base,) = prompt.references
            for k in prompt.targets:
                a, b = direction(facts, k), direction(facts, base)
                assert a @ b > 0.9 * np.linalg.norm(a) * np.linalg.norm(b)
                checked["same"] += 1
        if prompt.kind == "motion" and "fastest" in text and prompt.targets:
            (winner,) = prompt.targets
            rivals = [k for k in described(facts, text) if facts.words(k)[0] == facts.words(winner)[0] and k != winner]
            assert all(speed(facts, k) < speed(facts, winner) for k in rivals)
            checked["fastest"] += 1
        if prompt.kind == "order" and len(prompt.targets) == 1 and "before" not in text and "after" not in text:
            (k,) = prompt.targets
            if re.search("leav|goes out|go out|going out", text):
                assert facts.inside[-1, k] == 0
                checked["leaves"] += 1
            elif re.search("enter|comes in|come in|appear", text):
                assert facts.area[0, k] == 0
                checked["enters"] += 1
        if prompt.kind == "order" and "before <" in text:
            edges = [np.flatnonzero(facts.area[:, k])[[0, -1]] for k in prompt.references]
            for k in prompt.targets:
                own = np.flatnonzero(facts.area[:, k])[[0, -1]]
                side = 1 if re.search("leav|out", text) else 0
                assert own[side] < edges[0][side]
                checked["before"] += 1
        if prompt.kind == "motion" and re.search(r"not mov|still|in one place", text) and " and " not in text:
            assert all(np.ptp(facts.centre_xy[:, k], axis=0).max() < 1 for k in prompt.targets)
            checked["still"] += 1
        if prompt.kind == "motion" and re.search("turn|spin|rotat", text) and " and " not in text:
            assert all(np.ptp(facts.turn[:, k]) >= 60 for k in prompt.targets)
            checked["turns"] += 1
        if prompt.kind == "motion" and re.search("grow|bigger|larger|nearer|closer", text) and " and " not in text:
            assert all(facts.scale[-1, k] > 1.3 * facts.scale[0, k] for k in prompt.targets)
            checked["grows"] += 1
    assert all(checked[name] >= 3 for name in (
        "left", "right", "up", "down", "same", "fastest", "leaves", "enters", "before", "still", "turns", "grows"
    )), checked  # fmt: skip


def test_nothing_that_answers_is_left_out(train: Drawn) -> None:
    """Who is described and clearly has the motion is a target: turning and growing, which have no dead zone here."""
    for facts, prompt in train:
        text = prompt.text.lower()
        if prompt.kind not in ("motion", "none") or prompt.references or " and " in text or " behind" in text:
            continue
        match = re.fullmatch(r"(?:find |select |show me |mark )?(?:the |all |every )?(?:things?|objects?|items?) that "
                             r"(?:(turns?|spins?|rotates?)|(grows?))\.?", text)  # fmt: skip
        if match:
            turned, grown = np.ptp(facts.turn, axis=0) >= 60, facts.scale[-1] > 1.3 * facts.scale[0]
            assert prompt.targets == tuple(np.flatnonzero(turned if match[1] else grown))


def test_positions_hold_in_every_frame(train: Drawn) -> None:
    height_checked = 0
    for facts, prompt in train:
        if prompt.kind == "absolute position" and re.search(r"(at|in) the (left|right) (half|part|side)", prompt.text):
            sign = -1 if "left" in prompt.text else 1
            for k in prompt.targets:
                shown = facts.area[:, k] > 0
                assert (sign * (facts.centroid_xy[shown, k, 0] / facts.image_size[1] - 0.5) > 0).all()
                height_checked += 1
    assert height_checked >= 3


def test_an_object_that_changes_its_size_has_no_size_word(train: Drawn) -> None:
    for facts, prompt in train:
        changing = np.ptp(facts.scale, axis=0) > 0
        if prompt.kind == "attribute" and re.search(r"\b(small|little|tiny|large|big|medium)\b", prompt.text):
            assert not any(changing[k] for k in prompt.targets)


def words_of(forms: tuple[str, ...]) -> set[str]:
    return set(re.findall(r"[a-z]+", " ".join(forms)))


def test_held_out_forms_are_new_sentences_of_known_words() -> None:
    tables = (MOTION_CLAUSES, MOTION_EXTREME_AFTER, MOTION_REASONS)
    known = set().union(*(words_of(forms.train) for table in tables for forms in table.values()))
    for table in tables:
        for key, forms in table.items():
            held, trained = ({re.sub(r"^that (\{is\}|is) ", "", form) for form in own} for own in forms[::-1])
            assert held and not held & trained, key
            assert words_of(forms.held) <= known, (key, words_of(forms.held) - known)


def test_held_out_words_are_in_their_splits_only(train: Drawn) -> None:
    held = [form for forms in MOTION_CLAUSES.values() for form in forms.held if "{" not in form]
    assert not any(re.search(rf"\b{form}\b", p.text.lower()) for _, p in train for form in held)
    slots = {"{is}": "(is|are)", "{has}": "(has|have)", "{s}": "s?", "{es}": "(es)?", "{0}": ".+"}
    texts = " | ".join(prompt.text.lower() for _, prompt in many("test-words", 15))
    found = 0
    for forms in MOTION_CLAUSES.values():
        for pattern in forms.held:
            for slot, expression in slots.items():
                pattern = pattern.replace(slot, expression)  # noqa: PLW2901
            found += re.search(pattern, texts) is not None
    assert found >= 8
    for _, prompt in train:
        assert not any(f"{colour} {category}" in prompt.text.lower() for colour, category in HELD_OUT_PAIRS)


def test_groups_draw_new_prompts_and_only_the_frames_that_are_used() -> None:
    groups = MotionGroups("train", 7, 3, frames=6)
    assert isinstance(groups, ClipGroupSource) and len(groups) == 3
    loaded = groups.load_clip(1)
    assert isinstance(loaded.clip, Clip) and len(loaded.clip) == 6 == len(loaded.masks)
    assert loaded.masks[5].dtype == torch.bool and loaded.masks[5].shape[1:] == loaded.clip[5].shape[:2]
    with pytest.raises(IndexError):
        loaded.clip[6]
    first = groups.queries(1, loaded.extra, 20, np.random.default_rng(0))
    assert first == groups.queries(1, loaded.extra, 20, np.random.default_rng(0))
    assert first != groups.queries(1, loaded.extra, 20, np.random.default_rng(1))
    referring = [query for query in first if query.references]
    assert referring and len(first) == 20
    for query in referring:
        for number, frame in zip(query.references, query.reference_frames, strict=True):
            assert loaded.masks[frame][number].any()
    with pytest.raises(ValueError, match="above 1 together"):
        MotionGroups(motion_share=0.8, reasoning_share=0.4)
    with pytest.raises(ValueError, match="frames must be 3 to 60, got 2"):
        MotionGroups(frames=2)
