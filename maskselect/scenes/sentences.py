"""Writes the sentence of an `Ask`, with the tables of `phrases.py`."""

import random

from maskselect.scenes.motion_phrases import MOTION_CLAUSES, MOTION_EXTREME_AFTER, MOTION_EXTREME_WORDS
from maskselect.scenes.phrases import (
    AFTER,
    CATEGORY_NAMES,
    CLAUSES,
    COLOUR_AFTER,
    EXTREME_AFTER,
    EXTREME_WORDS,
    FRAMES,
    GENERIC,
    NUMBERS,
    PLURALS,
    REF,
    SPECIAL,
    WHAT,
    WHICH,
    WITH,
    WORDS,
    Anchor,
    Ask,
    Forms,
    Noun,
)
from maskselect.scenes.unknown_words import UNKNOWN_PLURALS

_CLAUSES = CLAUSES | MOTION_CLAUSES
_EXTREME_WORDS = EXTREME_WORDS | MOTION_EXTREME_WORDS
_EXTREME_AFTER = EXTREME_AFTER | MOTION_EXTREME_AFTER
_AGREEING = {"is": ("is", "are"), "has": ("has", "have"), "does": ("does", "do"), "s": ("s", ""), "es": ("es", "")}


class Voice:
    """Chooses forms. `start` draws `hold`: whether a prompt must use a held-out sentence frame."""

    def __init__(self, rng: random.Random, split: str) -> None:
        self.rng = rng
        self.words_split = split == "test-words"
        self.hold = False

    def start(self) -> None:
        """Begin a new prompt."""
        self.hold = self.words_split and self.rng.random() < 0.85

    def choose(self, options: tuple[str, ...]) -> str:
        """Any of `options`."""
        return options[int(self.rng.random() * len(options))]

    def pick(self, forms: Forms, frame: bool = False) -> str:
        """One of `forms`. In a `hold` prompt held-out ones, always for the frame and else half of the time."""
        if self.hold and forms.held and (frame or self.rng.random() < 0.5):
            return self.choose(forms.held)
        return self.choose(forms.train)

    def word(self, word: str) -> str:
        """An attribute word or one of its synonyms."""
        others = WORDS.get(word)
        return self.choose(others) if others and self.rng.random() < 0.3 else word

    def chance(self, share: float) -> bool:
        """True in `share` of the cases."""
        return self.rng.random() < share


def plural(word: str) -> str:
    """The plural of a category, a generic noun or an unknown noun."""
    return PLURALS.get(word) or UNKNOWN_PLURALS.get(word) or word + "s"


def category_name(voice: Voice, category: str, many: bool) -> str:
    """A word for `category` ("" for any object)."""
    if not category:
        word = voice.choose(GENERIC)
        return plural(word) if many else word
    names = CATEGORY_NAMES.get(category)
    if names and voice.chance(0.3):
        at = 2 * int(voice.rng.random() * (len(names) // 2))
        return names[at + many]
    return plural(category) if many else category


def article(text: str) -> str:
    """`text` with "a" or "an" before it."""
    return ("an " if text[0] in "aeio" else "a ") + text


def head(voice: Voice, noun: Noun, many: bool, spread: bool = True) -> tuple[str, list[str]]:
    """The adjectives with the noun, and the modifiers after it; `spread` allows attributes there."""
    after: list[str] = []
    front: list[str] = []
    late = voice.rng.randrange(6) if spread else -1  # at most one attribute follows the noun
    for place, word in enumerate((noun.size, noun.texture)):
        if not word:
            continue
        if place == late and place == 1 and word in WITH:
            after.append(voice.choose(WITH[word]))
        elif place == late:
            after.append(voice.pick(AFTER).replace("{0}", voice.word(word)))
        else:
            front.append(voice.word(word))
    if noun.colour:
        colour = voice.word(noun.colour) + (f" or {voice.word(noun.either)}" if noun.either else "")
        if late >= 2 and late < 4 and not after:
            after.append(voice.pick(COLOUR_AFTER).replace("{0}", colour))
        else:
            front.append(colour)
    if noun.without:
        after.append(f"that {{is}} not {voice.word(noun.without)}")
    return " ".join([*front, category_name(voice, noun.category, many)]), after


def anchor_text(voice: Voice, anchor: Anchor) -> str:
    """A reference placeholder, or "the" and a description."""
    if anchor.noun is None:
        return REF
    return "the " + head(voice, anchor.noun, False, spread=False)[0]


def say(ask: Ask, answers: int, voice: Voice) -> tuple[str, tuple[int, ...]]:
    """The sentence of `ask` with `answers` targets, and the object index of each placeholder."""
    forms = [(voice.pick(_CLAUSES[c.key]), c) for c in ask.clauses]
    # Relative clauses are last: "mugs on the left that are larger than ...".
    if len(forms) > 1:
        forms = [(form.removeprefix("that {is} "), clause) for form, clause in forms]
    forms.sort(key=lambda pair: (pair[0].startswith("that "), len(pair[1].anchors)))
    references = tuple(a.item for _, c in forms for a in c.anchors if a.noun is None)
    posts = []
    for form, clause in forms:
        text = form
        for place, anchor in enumerate(clause.anchors):
            text = text.replace(f"{{{place}}}", anchor_text(voice, anchor))
        if clause.negated:
            text = text.replace("that {is} ", "that {is} not ", 1) if text.startswith("that {is} ") else "not " + text
        posts.append(text)
    return _punctuated(_sentence(ask, answers, voice, posts), voice), references


def say_special(key: str, references: tuple[int, ...], voice: Voice) -> str:
    """The sentence of bare references."""
    text = voice.pick(SPECIAL[key], frame=True)
    for place in range(len(references)):
        text = text.replace(f"{{{place}}}", REF)
    many = key != "this"
    return _punctuated(_framed(text, many, voice) if not voice.chance(0.4) else text, voice)


def _sentence(ask: Ask, answers: int, voice: Voice, posts: list[str]) -> str:
    noun = ask.nouns[0]
    if len(ask.nouns) > 1:
        return _union(ask, answers, voice, posts)
    if ask.extreme:
        return _framed(_extreme(ask, noun, voice, posts), False, voice)
    many = answers > 1 or voice.chance(0.45)
    plain = posts and not posts[0].startswith(("that", "with", "of ", "the same", "like"))
    if plain and len(posts) == 1 and not ask.counted and voice.chance(0.18):
        return _question(noun, many, voice, posts[0])
    if not (noun.category or noun.colour or noun.texture or noun.size or ask.counted) and voice.chance(0.5):
        word = voice.choose(("everything", "everything", "anything", "every object", "all objects", "all things"))
        several = word.startswith("all")
        after = [f"that {{is}} not {voice.word(noun.without)}"] if noun.without else []
        return _framed(_tail(word, [*after, *posts], several, voice), several, voice)
    # Without posts only: "cars near the chair that are green" is ambiguous.
    text, after = head(voice, noun, many, spread=not posts)
    if ask.counted and 1 < answers < len(NUMBERS):
        number = NUMBERS[answers]
        before = voice.choose((f"the {number} ", f"the {number} ", f"{number} " if answers > 3 else f"all {number} "))
        before = "both " if answers == 2 and before.startswith("all") else before
    elif many:
        before = voice.choose(("the ", "the ", "", "", "all ", "all the ", "all of the ", "any "))
        before = "all " if answers <= 1 and before == "the " else before
    elif answers > 1 or voice.chance(0.3):
        before = voice.choose(("every ", "each "))
    else:
        before = "the "
        if not voice.hold and voice.chance(0.15):
            return _tail(text, after + posts, many, voice)
    return _framed(before + _tail(text, after + posts, many, voice), many, voice)


def _extreme(ask: Ask, noun: Noun, voice: Voice, posts: list[str]) -> str:
    if ask.extreme in _EXTREME_WORDS and (posts or voice.chance(0.6)):
        text, after = head(voice, noun, False, spread=not posts)
        return "the " + _tail(f"{voice.choose(_EXTREME_WORDS[ask.extreme])} {text}", after + posts, False, voice)
    text, after = head(voice, noun, False, spread=False)
    form = voice.pick(_EXTREME_AFTER[ask.extreme])
    return "the " + _tail(text, [*after, form], False, voice)


def _union(ask: Ask, answers: int, voice: Voice, posts: list[str]) -> str:
    parts = [head(voice, noun, True, spread=False)[0] for noun in ask.nouns]
    forms = ("{0} and {1}", "all {0} and {1}", "{0} or {1}", "all {0} and all {1}", "the {0} and the {1}")
    joined = voice.choose(forms)
    text = joined.format(*parts)
    return _framed(_tail(text, posts, True, voice), True, voice)


def _question(noun: Noun, many: bool, voice: Voice, post: str) -> str:
    verb = "are" if many else "is"
    if not (noun.category or noun.colour or noun.texture or noun.size or noun.without):
        return voice.pick(WHAT, frame=True).replace("{1}", post)
    text, after = head(voice, noun, many, spread=False)
    text = _tail(text, after, many, voice)
    form = voice.pick(WHICH, frame=True)
    if "{0:all}" in form:
        text, verb = _tail(*head(voice, noun, True, spread=False), True, voice), "are" if many else "is"
    return form.replace("{0:all}", "{0}").replace("{is}", verb).replace("{1}", post).replace("{0}", text)


def _tail(text: str, posts: list[str], many: bool, voice: Voice) -> str:
    """`text` with its modifiers, joined to a readable sentence."""
    posts = sorted(posts, key=lambda post: post.startswith(("that ", "which ")))
    before = ""
    for place, post in enumerate(posts):
        relative = post.startswith(("that ", "which "))
        if place == 0:
            # "the same colour as" needs a verb in front; other clauses sometimes have one.
            bare = relative or post.count(" ") < 2 or " or " in post or post.startswith(("with ", "coloured ", "of "))
            verb = post.startswith(("the same", "not ")) or (not bare and voice.chance(0.15))
            text += (" that {is} " if verb else " ") + post
            before = "that" if relative or verb else "plain"
        elif relative and before == "that":
            text += " and " + post.split(" ", 1)[1]
        else:
            same = post.startswith("the same")
            text += (" that {is} " if same else " " if relative else " and ") + post
            before = "that" if relative or same else before
    return agreeing(text, many)


def agreeing(text: str, many: bool) -> str:
    """`text` with its verbs in the singular or the plural: "{is}", "{has}", "{does}", "{s}", "{es}"."""
    for slot, (one, several) in _AGREEING.items():
        text = text.replace(f"{{{slot}}}", several if many else one)
    return text


def _framed(text: str, many: bool, voice: Voice) -> str:
    frame = voice.pick(FRAMES, frame=True)
    plain = not text.startswith(("every", "anything", "each"))
    verb = "are" if many and plain else "is"
    frame = frame.replace("{is}", verb).replace("{0:it}", "these" if many else "this one")
    if frame.startswith(("where", "the masks", "show me where")) and text.startswith(("this", "these", "any ")):
        frame = "{0}"
    if "image" in text or "picture" in text:
        for twice in (" in the image", " in this picture", "in this image, "):
            frame = frame.replace(twice, "")
    return frame.replace("{0}", text)


def _punctuated(text: str, voice: Voice) -> str:
    """Sometimes add a capital letter or a full stop."""
    if voice.chance(0.12) and text[0] != "<":
        text = text[0].upper() + text[1:]
    return text + "." if text[-1] != "?" and voice.chance(0.1) else text
