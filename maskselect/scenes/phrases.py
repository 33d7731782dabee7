"""The words of the generated prompts: synonyms, clause forms and sentence frames.

The second half of a `Forms` pair is held out: only the `test-words` split uses it. Each of its words occurs in a
training form, too, because the models start without any knowledge of words. In clause forms "{0}" and "{1}" stand for
anchors, "{is}" and "{has}" agree with the noun; a form that starts with "that" is a relative clause.
"""

from typing import NamedTuple

REF = "<mask-ref>"


class Forms(NamedTuple):
    """Phrasings with one meaning: `train` for every split, `held` for `test-words` only."""

    train: tuple[str, ...]
    held: tuple[str, ...] = ()


class Noun(NamedTuple):
    """A description of objects by words of `spec`; "" for any.

    Attributes:
        either: a second colour ("red or blue").
        without: an excluded attribute word.
    """

    category: str = ""
    colour: str = ""
    texture: str = ""
    size: str = ""
    either: str = ""
    without: str = ""


class Anchor(NamedTuple):
    """The object that a clause refers to: by description, or by `<mask-ref>` if `noun` is None."""

    item: int
    noun: Noun | None = None


class Clause(NamedTuple):
    """A predicate in addition to the noun. `key` is a key of CLAUSES."""

    key: str
    anchors: tuple[Anchor, ...] = ()
    negated: bool = False


class Ask(NamedTuple):
    """The meaning of a prompt.

    Attributes:
        nouns: descriptions, of which one must fit.
        clauses: predicates, which must all hold.
        extreme: one of EXTREMES, to select one of these objects.
        special: a key of SPECIAL, for bare references instead of the above.
        counted: whether the text states the number of targets.
    """

    nouns: tuple[Noun, ...] = (Noun(),)
    clauses: tuple[Clause, ...] = ()
    extreme: str = ""
    special: str = ""
    counted: bool = False


CATEGORY_NAMES = {
    "circle": ("disc", "discs"), "diamond": ("rhombus", "rhombuses"), "ring": ("hoop", "hoops"),
    "mug": ("cup", "cups", "coffee mug", "coffee mugs"), "car": ("automobile", "automobiles"),
    "house": ("home", "homes"), "chair": ("seat", "seats"), "fish": ("fish", "fish"), "ball": ("ball", "balls"),
}  # fmt: skip
PLURALS = {"cross": "crosses", "leaf": "leaves", "fish": "fish"}
GENERIC = ("thing", "object", "thing", "object", "item")
WORDS = {
    "grey": ("gray",), "purple": ("violet",), "small": ("little", "tiny"), "large": ("big",),
    "medium": ("medium-sized",), "striped": ("stripy",), "dotted": ("spotted", "polka-dot"), "shiny": ("glossy",),
}  # fmt: skip
WITH = {"striped": ("with stripes", "with a striped pattern"), "dotted": ("with dots", "with spots")}
COLOUR_AFTER = Forms(("in {0}", "coloured {0}", "of {0} colour", "that {is} {0}"), ("that {is} coloured {0}",))
AFTER = Forms(("that {is} {0}", "which {is} {0}"))
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def _side(word: str) -> Forms:
    half = {"top": "upper", "bottom": "lower"}.get(word, word)
    at, also = ("at", "in the {0} part") if half != word else ("on", "to the {0}")
    side = (f"on the {word} side", f"on the {word}-hand side") if half == word else (f"towards the {word}",)
    train = (f"{at} the {word}", f"{at} the {word}", *side, f"in the {half} half", also.format(half),
             f"in the {word} half of the image", f"{at} the {word} of the picture",
             f"in the {half} part of the image")  # fmt: skip
    held = (f"in the {half} half of the picture", f"{at} the {word} of the image", f"in the {half} part of the picture")
    return Forms(train, held)


def _corner(word: str) -> Forms:
    upper = word.replace("top", "upper").replace("bottom", "lower")
    train = (f"in the {word} corner", f"at the {word}", f"in the {upper} corner", f"in the {word} corner of the image",
             f"in the {word} of the picture")  # fmt: skip
    held = (f"in the {upper} corner of the picture", f"at the {word} corner", f"at the {word} of the image")
    return Forms(train, held)


def _beside(word: str) -> Forms:
    return Forms(
        (f"{word} of {{0}}", f"{word} of {{0}}", f"to the {word} of {{0}}", f"on the {word} of {{0}}",
         f"further {word} than {{0}}", f"that {{is}} {word} of {{0}}", f"more to the {word} than {{0}}"),
        (f"further to the {word} than {{0}}", f"that {{is}} to the {word} of {{0}}"),
    )  # fmt: skip


def _same(*names: str) -> Forms:
    train = [f for n in names for f in (f"with the same {n} as {{0}}", f"of the same {n} as {{0}}",
                                        f"that {{has}} the same {n} as {{0}}")]  # fmt: skip
    if "colour" in names or "shape" in names:  # things "are" the same colour, but "have" the same pattern
        train += [f"the same {names[0]} as {{0}}", f"that {{is}} the same {names[0]} as {{0}}"]
    held = (f"that {{has}} a {names[0]} like that of {{0}}", f"with a {names[-1]} like that of {{0}}")
    return Forms(tuple(train), held)


def _either(word: str) -> Forms:
    train = (f"with the same {word} as {{0}} or {{1}}", f"of the same {word} as {{0}} or {{1}}",
             f"that {{has}} the {word} of {{0}} or {{1}}")  # fmt: skip
    return Forms(train, (f"that {{has}} the same {word} as {{0}} or as {{1}}",))


CLAUSES: dict[str, Forms] = {
    **{side: _side(side) for side in ("left", "right", "top", "bottom")},
    **{corner: _corner(corner) for corner in ("top left", "top right", "bottom left", "bottom right")},
    "middle": Forms(("in the middle", "in the middle", "in the centre", "in the center", "at the centre",
                     "in the middle of the image", "in the middle part", "in the centre of the picture"),
                    ("in the middle of the picture", "at the centre of the image", "in the centre part")),
    "corner": Forms(("in a corner", "in any corner", "in a corner of the image", "in one of the corners",
                     "that {is} in a corner"), ("in any corner of the picture", "in any of the corners")),
    "left of": _beside("left"),
    "right of": _beside("right"),
    "above": Forms(("above {0}", "above {0}", "higher than {0}", "higher up than {0}", "further up than {0}",
                    "that {is} above {0}"), ("that {is} higher than {0}", "that {is} further up than {0}")),
    "below": Forms(("below {0}", "below {0}", "lower than {0}", "lower down than {0}", "further down than {0}",
                    "that {is} below {0}"), ("that {is} lower than {0}", "that {is} further down than {0}")),
    "near": Forms(("near {0}", "near {0}", "close to {0}", "next to {0}", "that {is} near {0}", "right next to {0}"),
                  ("near to {0}", "that {is} close to {0}")),
    "between": Forms(("between {0} and {1}", "between {0} and {1}", "in between {0} and {1}",
                      "in the middle between {0} and {1}"), ("that {is} in between {0} and {1}",)),
    "larger": Forms(("larger than {0}", "bigger than {0}", "that {is} larger than {0}", "that {is} bigger than {0}"),
                    ("that {is} larger in size than {0}", "bigger in size than {0}")),
    "smaller": Forms(("smaller than {0}", "smaller than {0}", "that {is} smaller than {0}", "smaller in size than {0}"),
                     ("that {is} smaller in size than {0}",)),
    "same colour": _same("colour", "color"),
    "same shape": Forms((*_same("shape").train, "that {is} the same kind of thing as {0}", "of the same kind as {0}",
                         "like {0}", "that {has} a shape like that of {0}"), (*_same("shape").held[1:],
                        "that {is} of the same kind as {0}")),
    "same texture": _same("pattern", "texture"),
    "different colour": Forms(("with a different colour from {0}", "of a different colour than {0}",
                               "that {has} a different colour from {0}", "that {is} not the same colour as {0}"),
                              ("that {has} a colour different from that of {0}",)),
    "same colour either": _either("colour"),
    "same shape either": _either("shape"),
    "on": Forms(("on {0}", "on {0}", "on top of {0}", "that {is} on {0}"), ("that {is} on top of {0}",)),
    "inside": Forms(("inside {0}", "inside {0}", "in {0}", "inside of {0}", "that {is} inside {0}"),
                    ("that {is} inside of {0}", "that {is} in {0}")),
    "touching": Forms(("touching {0}", "touching {0}", "that {is} touching {0}", "in touch with {0}"),
                      ("that {is} in touch with {0}",)),
    "behind": Forms(("behind {0}", "behind {0}", "that {is} behind {0}", "partly behind {0}", "partly hidden by {0}"),
                    ("that {is} partly hidden by {0}", "that {is} partly behind {0}")),
    "in front of": Forms(("in front of {0}", "in front of {0}", "that {is} in front of {0}", "partly covering {0}"),
                         ("that {is} partly covering {0}",)),
    "under": Forms(("under {0}", "underneath {0}", "that {is} under {0}", "with {0} on top"),
                   ("that {is} underneath {0}", "that {has} {0} on top")),
    "containing": Forms(("containing {0}", "around {0}", "with {0} inside", "that {has} {0} inside",
                         "holding {0} inside"), ("that {is} around {0}", "that {is} containing {0}")),
}  # fmt: skip

EXTREME_WORDS = {
    "leftmost": ("leftmost",), "rightmost": ("rightmost",), "topmost": ("topmost", "highest"),
    "bottommost": ("bottommost", "lowest"), "largest": ("largest", "largest", "biggest"), "smallest": ("smallest",),
}  # fmt: skip
EXTREME_AFTER = {
    "leftmost": Forms(("furthest to the left", "closest to the left edge", "furthest left"),
                      ("that is furthest left",)),
    "rightmost": Forms(("furthest to the right", "closest to the right edge", "furthest right"),
                       ("that is furthest right",)),
    "topmost": Forms(("furthest up", "closest to the top edge", "furthest to the top"), ("that is furthest up",)),
    "bottommost": Forms(("furthest down", "closest to the bottom edge", "furthest to the bottom"),
                        ("that is furthest down",)),
    "largest": Forms(("of the largest size", "that is the largest"), ("that is largest in size",)),
    "smallest": Forms(("of the smallest size", "that is the smallest"), ("that is smallest in size",)),
}  # fmt: skip
SPECIAL = {
    "this": Forms(("{0}", "{0}", "this one: {0}", "this object: {0}", "the object {0}", "the one marked {0}"),
                  ("this thing: {0}", "the thing marked {0}")),
    "these": Forms(("{0} and {1}", "both {0} and {1}", "these two: {0} and {1}", "the objects {0} and {1}"),
                   ("these objects: {0} and {1}", "both of these: {0} and {1}")),
    "except": Forms(("everything except {0}", "everything but {0}", "all objects except {0}", "all things but {0}",
                     "everything other than {0}", "all objects other than {0}", "everything that is not {0}"),
                    ("every object except {0}", "all but {0}", "all things other than {0}")),
}  # fmt: skip
FRAMES = Forms(
    ("{0}", "{0}", "{0}", "{0}", "find {0}", "select {0}", "segment {0}", "show me {0}", "show {0}", "mark {0}",
     "highlight {0}", "pick {0}", "point out {0}", "{0} please", "please select {0}", "please find {0}", "look for {0}",
     "where {is} {0}?", "can you find {0}?", "i want {0}", "give me {0}", "the masks of {0}", "i am looking for {0}",
     "could you mark {0}?", "find {0} in the image", "segment {0} for me", "which part of the picture shows {0}?",
     "select {0} in this picture"),
    ("can you show me {0} please?", "please give me the masks of {0}", "i want you to find {0}",
     "please mark {0} for me",
     "could you look for {0}?", "show me where {0} {is}", "in this image, find {0}", "can you point out {0} for me?",
     "i am looking for {0}, please mark {0:it}", "please highlight {0} in this picture", "could you select {0}?"),
)  # fmt: skip
WHICH = Forms(("which {0} {is} {1}?", "which of the {0:all} {is} {1}?", "find which {0} {is} {1}"),
              ("can you show me which {0} {is} {1}?", "please mark which {0} {is} {1}"))  # fmt: skip
WHAT = Forms(("what is {1}?", "what can you find {1}?", "find what is {1}", "which ones are {1}?"),
             ("can you show me what is {1}?", "please mark what is {1}"))  # fmt: skip
