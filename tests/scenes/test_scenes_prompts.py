"""Facts, predicates, prompts and captions of generated scenes, against definitions written out naively here."""

import pickle
import re
from collections import Counter

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from maskselect.scenes import phrases
from maskselect.scenes.captions import draw_caption, draw_dialogue
from maskselect.scenes.facts import Judge, SceneFacts, bits
from maskselect.scenes.phrases import Forms
from maskselect.scenes.prompts import KIND_SHARES, draw_prompts
from maskselect.scenes.spec import (
    CATEGORIES,
    COLOURS,
    HELD_OUT_PAIRS,
    SIZES,
    TEXTURES,
    Look,
    Scene,
    SceneObject,
    ScenePrompt,
)
from tests.scenes.box_scenes import box_facts, training_texts

SIDE = 96
LOOK = Look("", "", "", "", 0)
WORDS = (  # noqa: SIM905 - quoted one by one they would be harder to read
    "circle square triangle star ring cross diamond heart mug bottle ball book key leaf fish house car tree chair lamp "
    "red orange yellow green blue purple pink brown black white grey striped dotted plain shiny small large "
    "left right top bottom middle corner near on inside touching above below leftmost rightmost largest smallest"
).split()
RELATION_WORDS = ("left of", "right of", "larger than", "smaller than", "same colour as", "same shape as")
NAMES = {plural: c for c in CATEGORIES for plural in (c, phrases.PLURALS.get(c, c + "s"))}
NAMES |= {name: c for c, names in phrases.CATEGORY_NAMES.items() for name in names}
ATTRIBUTES = {w: w for w in (*COLOURS, *TEXTURES, *SIZES)} | {o: w for w, os in phrases.WORDS.items() for o in os}
ATTRIBUTES |= {"stripes": "striped", "dots": "dotted", "spots": "dotted"}


def drawn(seed: int, rectangles: int = 7) -> tuple[Scene, np.ndarray]:
    """A scene of overlapping discs and rectangles and its visible index map."""
    rng = np.random.default_rng(seed)
    index = np.zeros((SIDE, SIDE), np.uint8)
    objects = []
    y, x = np.mgrid[:SIDE, :SIDE]
    for k in range(rectangles):
        cx, cy = rng.uniform(12, SIDE - 12, 2)
        r = rng.uniform(4, 12)
        inside = (abs(x - cx) < r) & (abs(y - cy) < r * 0.7) if k % 2 else np.hypot(x - cx, y - cy) < r
        words = [str(rng.choice(table)) for table in (CATEGORIES[:5], COLOURS[:4], TEXTURES, SIZES)]
        objects.append(SceneObject(*words, (cx, cy), (2 * r, 2 * r), 0.0, 0, k))
        index[inside] = k + 1
    keep = [k for k in range(rectangles) if (index == k + 1).any()]
    index = np.array([0, *(keep.index(k) + 1 if k in keep else 0 for k in range(rectangles))], np.uint8)[index]
    scene = Scene("test-0-0", "test", (SIDE, SIDE), tuple(objects[k] for k in keep), (("inside", 1, 0),), LOOK, 0)
    return scene, index


def many(split: str, scenes: int = 60, count: int = 24, seed: int = 0) -> list[tuple[SceneFacts, ScenePrompt]]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(scenes):
        facts = box_facts(rng)
        found += [(facts, prompt) for prompt in draw_prompts(facts, count, rng, split)]
    return found


@pytest.fixture(scope="module")
def train() -> list[tuple[SceneFacts, ScenePrompt]]:
    return many("train", 150)


@pytest.mark.parametrize("seed", range(6))
def test_facts_are_what_the_masks_say(seed: int) -> None:
    scene, index = drawn(seed)
    facts = SceneFacts.measure(scene, index)
    points = [np.argwhere(index == k + 1)[:, ::-1] for k in range(facts.count)]
    for k, p in enumerate(points):
        assert facts.area[k] == len(p)
        np.testing.assert_allclose(facts.centroid_xy[k], p.mean(0), rtol=1e-5)
        assert facts.box_xyxy[k].tolist() == [*p.min(0), *(p.max(0) + 1)]
        for j in range(k):
            gap = cdist(p, points[j]).min()
            if gap <= 0.18 * SIDE:
                assert facts.gap[k, j] == pytest.approx(gap, abs=1e-4)
            else:
                assert 0.18 * SIDE < facts.gap[k, j] <= gap + 1e-4


def test_large_pictures_take_the_other_way_to_the_same_gaps() -> None:
    scene, index = drawn(3)
    big = np.kron(index, np.ones((24, 24), np.uint8))
    small, large = SceneFacts.measure(scene, index), SceneFacts.measure(scene, big)
    close = (small.gap > 1) & (small.gap < 0.15 * SIDE)
    assert close.any()
    assert np.all(abs(large.gap[close] / 24 - small.gap[close]) < 2)


def test_hidden_object_is_refused() -> None:
    scene, index = drawn(0)
    with pytest.raises(ValueError, match="no visible pixel"):
        SceneFacts.measure(scene, np.where(index == 1, 0, index).astype(np.uint8))


@pytest.mark.parametrize("seed", range(8))
def test_predicates_follow_their_definitions(seed: int) -> None:
    facts = SceneFacts.measure(*drawn(seed))
    judge = Judge(facts)
    xy, area = facts.centroid_xy.astype(float) / SIDE, facts.area.astype(float)

    def check(verdict: tuple[int, int], yes: dict[int, bool], no: dict[int, bool]) -> None:
        assert set(bits(verdict[0])) == {k for k in yes if yes[k]}
        assert set(bits(verdict[1])) == {k for k in no if not no[k]}

    everyone = range(facts.count)
    check(judge.position("left"), {k: xy[k, 0] < 0.44 for k in everyone}, {k: xy[k, 0] > 0.56 for k in everyone})
    check(judge.position("bottom"), {k: xy[k, 1] > 0.56 for k in everyone}, {k: xy[k, 1] < 0.44 for k in everyone})
    corner = {k: (xy[k, 0] > 0.66 and xy[k, 1] < 0.34) for k in everyone}
    check(judge.position("top right"), corner, {k: xy[k, 0] < 0.58 or xy[k, 1] > 0.42 for k in everyone})
    off = abs(xy - 0.5).max(1)
    check(judge.position("middle"), {k: off[k] <= 0.16 for k in everyone}, {k: off[k] > 0.22 for k in everyone})
    for a in everyone:
        rest = [k for k in everyone if k != a]
        dx, gap, ratio = xy[:, 0] - xy[a, 0], facts.gap[a] / SIDE, area / area[a]
        check(judge.relation("left of", a), {k: dx[k] < -0.035 for k in rest}, {k: dx[k] > 0.035 for k in rest})
        check(judge.relation("near", a), {k: gap[k] <= 0.09 for k in rest}, {k: gap[k] >= 0.18 for k in rest})
        check(judge.relation("larger", a), {k: ratio[k] >= 1.35 for k in rest}, {k: ratio[k] <= 1 / 1.35 for k in rest})
        same = {k: facts.colour[k] == facts.colour[a] for k in rest}
        check(judge.relation("same colour", a), same, {k: not same[k] for k in rest})
        scaled = facts.gap[a] * 256 / SIDE
        check(judge.relation("touching", a), {k: scaled[k] <= 2 for k in rest}, {k: scaled[k] > 6 for k in rest})
    assert judge.relation("inside", 0)[0] == 0b10
    assert judge.relation("containing", 1)[0] == 0b1


def test_kleene_conjunction_keeps_clear_answers_only() -> None:
    facts = SceneFacts.measure(*drawn(1))
    judge = Judge(facts)
    for word in ("left", "top", "middle", "corner", "bottom left"):
        yes, possible = judge.position(word)
        assert yes & ~possible == 0
        assert judge.negate(judge.negate((yes, possible))) == (yes, possible)


def _naive(facts: SceneFacts, prompt: ScenePrompt) -> tuple[int, ...] | None:
    """Answer worked out from the sentence alone, None where this small reader does not understand it."""
    text = prompt.text.lower().rstrip(".?")
    if re.search(r"\b(or|not|and|but|except|other|both|these|than|as|between|size)\b", text) or text.count("<") > 1:
        return None
    text, clause, rest = _split_clause(text)
    if "the" in rest.split() or (clause in ("left of", "right of", "above", "below") and rest != "<mask-ref>"):
        return None
    tokens = re.findall(r"[a-z][a-z-]*", text.replace("coffee mug", "mug").replace("light gray", "grey"))
    wanted = [(ATTRIBUTES | NAMES)[t] for t in tokens if t in ATTRIBUTES or t in NAMES]
    chosen = [k for k in range(facts.count) if all(w in facts.words(k) for w in wanted)]
    xy = facts.centroid_xy / np.array(facts.image_size)[::-1]
    if clause in ("left of", "right of", "above", "below"):
        axis, sign = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}[clause]
        anchor = prompt.references[0]
        chosen = [k for k in chosen if k != anchor and sign * (xy[k, axis] - xy[anchor, axis]) > 0]
    elif clause in ("leftmost", "rightmost", "largest", "smallest"):
        value = {"l": xy[:, 0], "r": -xy[:, 0]}[clause[0]] if clause.endswith("most") else facts.area
        value = -value if clause == "largest" else value
        chosen = sorted(chosen, key=lambda k: value[k])[:1]
    elif clause:
        axis, sign = {"left": (0, -1), "right": (0, 1), "top": (1, -1), "bottom": (1, 1)}[clause.split()[-1]]
        chosen = [k for k in chosen if sign * (xy[k, axis] - 0.5) > 0]
    return tuple(chosen)


def _split_clause(text: str) -> tuple[str, str, str]:
    found = re.search(r"(?<!the )(left of|right of|above|below) (<mask-ref>)", text)
    found = found or re.search(r"(on the left|on the right|at the top|at the bottom)()$", text)
    if found:
        return text[: found.start()], found[1], found[2]
    found = re.search(r"the (leftmost|rightmost|largest|smallest) ", text)
    if found:
        return text[found.end() :], found[1], ""
    return text, "", ""


def test_targets_agree_with_a_naive_reader(train: list[tuple[SceneFacts, ScenePrompt]]) -> None:
    checked: Counter[str] = Counter()
    for facts, prompt in train:
        simple = prompt.kind in ("category", "attribute") or _split_clause(prompt.text.lower().rstrip(".?"))[1]
        answer = _naive(facts, prompt) if simple else None
        extra = r"with|size|most|est |near|close|next|touch|behind|inside|under|front"
        extra += r"|contain|around|on top|corner|middle|cent|half"
        if answer is None or (prompt.kind == "combination" and re.search(extra, prompt.text)):
            continue
        assert answer == prompt.targets, prompt
        checked[prompt.kind] += 1
    kinds = ("category", "attribute", "absolute position", "relative position", "comparison")
    assert all(checked[k] > 20 for k in kinds), checked


def test_references_are_the_placeholders(train: list[tuple[SceneFacts, ScenePrompt]]) -> None:
    for facts, prompt in train:
        assert prompt.text.count("<mask-ref>") == len(prompt.references)
        assert len(set(prompt.references)) == len(prompt.references)
        assert all(0 <= k < facts.count for k in (*prompt.references, *prompt.targets))
        assert list(prompt.targets) == sorted(set(prompt.targets))
        assert not re.search(r"[{}]|  |that that", prompt.text), prompt.text


def test_held_out_pairs_are_never_said_in_training(train: list[tuple[SceneFacts, ScenePrompt]]) -> None:
    pattern = _pair_pattern()
    assert pattern.search("find the violet key")
    for _, prompt in train:
        assert not pattern.search(prompt.text.lower()), prompt.text
    for line in training_texts(3000, 5):
        assert not pattern.search(line.lower()), line


def _pair_pattern() -> re.Pattern[str]:
    pairs = []
    for colour, category in HELD_OUT_PAIRS:
        names = "|".join(n for n, c in NAMES.items() if c == category)
        shades = "|".join((colour, *phrases.WORDS.get(colour, ())))
        pairs.append(rf"\b(?:{shades}) (?:{names})\b|\b(?:{names}) (?:in|coloured|of|that is|that are) (?:{shades})\b")
    return re.compile("|".join(pairs))


def _tables() -> list[Forms]:
    found: list[Forms] = []
    for value in vars(phrases).values():
        entries = value.values() if isinstance(value, dict) else [value]
        found += [entry for entry in entries if isinstance(entry, Forms)]
    return found


def test_held_out_forms_are_new_sentences_of_known_words(train: list[tuple[SceneFacts, ScenePrompt]]) -> None:
    said = " ".join([p.text.lower() for _, p in train] + [form for forms in _tables() for form in forms.train])
    known = set(re.findall(r"[a-z][a-z-]*", re.sub(r"\{.*?\}", " ", said)))
    for forms in _tables():
        assert not set(forms.train) & set(forms.held)
        for form in forms.held:
            assert set(re.findall(r"[a-z][a-z-]*", re.sub(r"\{.*?\}", " ", form))) <= known, form


def _frames() -> re.Pattern[str]:
    tables = (phrases.FRAMES, phrases.WHICH, phrases.WHAT, *phrases.SPECIAL.values())
    forms = [form for table in tables for form in table.held]
    forms = [re.sub(r"\\\{.*?\\\}", ".+", re.escape(f)) for f in forms]
    # Frames lose "in this picture" when the picture is spoken of already.
    forms += ["please highlight .+", "find .+ in this image"]
    return re.compile("|".join(f"^{f}[.]?$" for f in forms))


def test_held_out_frames_are_said_in_test_words_only(train: list[tuple[SceneFacts, ScenePrompt]]) -> None:
    frames = _frames()
    training = [p.text for _, p in train if frames.match(p.text.lower())]
    assert training == []
    held = [bool(frames.match(p.text.lower())) for _, p in many("test-words", 30)]
    assert np.mean(held) >= 0.7


def test_every_promised_word_is_said_in_training(train: list[tuple[SceneFacts, ScenePrompt]]) -> None:
    text = " . ".join(p.text.lower() for _, p in train)
    said = set(re.findall(r"[a-z][a-z-]*", text))
    assert [w for w in WORDS if w not in said] == []
    assert [w for w in RELATION_WORDS if w not in text] == []


def test_shares(train: list[tuple[SceneFacts, ScenePrompt]]) -> None:
    kinds = Counter(p.kind for _, p in train)
    for kind, share in KIND_SHARES.items():
        assert abs(kinds[kind] / len(train) - share) < 0.05, kind
    referring = [p for _, p in train if p.references]
    assert abs(len(referring) / len(train) - 0.28) < 0.04
    assert abs(np.mean([len(p.references) == 2 for p in referring]) - 0.12) < 0.05
    assert abs(np.mean([not p.targets for _, p in train]) - 0.12) < 0.03


def test_same_rng_same_prompts_and_no_repeats() -> None:
    facts = box_facts(np.random.default_rng(4))
    facts = pickle.loads(pickle.dumps(facts))
    first, again = (draw_prompts(facts, 40, np.random.default_rng(7), "val") for _ in range(2))
    assert first == again
    assert len({(p.text.lower(), p.references) for p in first}) == len(first) == 40
    assert first != draw_prompts(facts, 40, np.random.default_rng(8), "val")


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_reference_share_is_kept_at_its_ends(share: float) -> None:
    facts = box_facts(np.random.default_rng(2))
    prompts = draw_prompts(facts, 60, np.random.default_rng(0), "train", reference_share=share, no_target_share=0.0)
    assert all(bool(p.references) == bool(share) and p.targets for p in prompts)
    assert len(prompts) == 60


def test_kind_shares_can_be_changed() -> None:
    rng = np.random.default_rng(3)
    shares = {**dict.fromkeys(KIND_SHARES, 0.1), "comparison": 0.4}
    kinds = Counter(
        p.kind for _ in range(12) for p in draw_prompts(box_facts(rng), 30, rng, "train", kind_shares=shares)
    )
    assert abs(kinds["comparison"] / kinds.total() - 0.4) < 0.08
    with pytest.raises(ValueError, match="kind_shares names comparison; expected category"):
        draw_prompts(box_facts(rng), 1, rng, "train", kind_shares={"comparison": 1.0})


def test_unknown_split_and_scene_with_one_object() -> None:
    scene, index = drawn(0, rectangles=1)
    scene = Scene(scene.id, scene.split, scene.image_size, scene.objects, (), LOOK, 0)
    facts = SceneFacts.measure(scene, index)
    assert len(draw_prompts(facts, 10, np.random.default_rng(0), "test")) == 10
    with pytest.raises(ValueError, match="unknown split"):
        draw_prompts(facts, 1, np.random.default_rng(0), "training")


def test_captions_are_true_and_repeatable() -> None:
    rng, lists = np.random.default_rng(3), 0
    for _ in range(20):
        facts = box_facts(rng)
        seed = int(rng.integers(1 << 30))
        for turn in range(12):
            text = draw_caption(facts, np.random.default_rng(seed + turn))
            assert text == draw_caption(facts, np.random.default_rng(seed + turn))
            if "from left to right: " in text:
                x, y = facts.centroid_xy.T
                order = [facts.words(int(k))[0] for k in np.lexsort((y, x))]
                assert re.findall("|".join(CATEGORIES), text) == order
                lists += 1
        for question, answer in draw_dialogue(facts, rng):
            assert question.endswith("?")
            assert answer
            found = re.match(r"how many (\w+) objects are there", question)
            if found:
                assert phrases.NUMBERS.index(answer) == sum(facts.words(j)[1] == found[1] for j in range(facts.count))
    assert lists
