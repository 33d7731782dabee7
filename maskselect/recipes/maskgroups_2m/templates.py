"""Templates of the prompts of MaskGroups-2M. They are ours; the paper gives examples only.

The paper's examples have "the same attribute as <mask-ref>" (`SAME_ATTRIBUTE`), positions of objects of any category
(`ANY_NAMED`, `ANY_BESIDE`), and "Select the <expression>" (`EXPRESSIONS`). Superlatives (`SUPERLATIVES`) are ours.

Names come from annotators in singular and plural, so no template depends on the number. A predicate may be a verb or a
preposition ("wears", "on top of"), so a relationship is quoted literally.
"""

from collections.abc import Mapping, Sequence

NAMED: Mapping[str, Sequence[str]] = {
    "category": (
        "{name}",
        "every {name}",
        "all instances of {name}",
        "find each {name} in the image",
        "whatever in the picture counts as {name}",
        "mark all that is {name}",
    ),
    "attribute": (
        "everything that is {attribute}",
        "all {attribute} things",
        "the objects one would call {attribute}",
        "which objects are {attribute}?",
        "mark whatever is {attribute}",
    ),
    "left": (
        "{name} on the left",
        "{name} on the left side of the image",
        "each {name} in the left part of the picture",
    ),
    "right": (
        "{name} on the right",
        "{name} on the right side of the image",
        "each {name} in the right part of the picture",
    ),
    "top": ("{name} at the top", "{name} in the upper part of the image", "each {name} near the top of the picture"),
    "bottom": (
        "{name} at the bottom",
        "{name} in the lower part of the image",
        "each {name} near the bottom of the picture",
    ),
}
"""Without a reference."""

SUPERLATIVES: Mapping[str, Sequence[str]] = {
    "leftmost": ("the leftmost {name}", "the {name} closest to the left edge"),
    "rightmost": ("the rightmost {name}", "the {name} closest to the right edge"),
    "topmost": ("the topmost {name}", "the {name} closest to the top edge"),
    "bottommost": ("the bottommost {name}", "the {name} closest to the bottom edge"),
}
"""Without a reference. The paper has no such prompts; `Rules.superlatives` leaves them out."""

ANY_NAMED: Mapping[str, Sequence[str]] = {
    "left": ("all the items on the left", "everything in the left half of the image", "whatever is on the left side"),
    "right": (
        "all the items on the right",
        "everything in the right half of the image",
        "whatever is on the right side",
    ),
    "top": ("all the items at the top", "everything in the upper half of the image", "whatever is in the upper part"),
    "bottom": (
        "all the items at the bottom",
        "everything in the lower half of the image",
        "whatever is in the lower part",
    ),
}
"""Objects of any category in a half of the image, without a reference."""

OTHERS: Mapping[str, Sequence[str]] = {
    "category": (
        "all other objects of the same kind as <mask-ref>",
        "everything else that is what <mask-ref> is",
        "the remaining members of the category that <mask-ref> belongs to",
        "what else in the image is of the category of <mask-ref>?",
    ),
    "attribute": (
        "other things that are {attribute}, as <mask-ref> is",
        "everything {attribute} besides <mask-ref>",
        "<mask-ref> is {attribute}; what else is?",
    ),
}
"""With a reference that is not a target."""

SAME_ATTRIBUTE: Mapping[bool, Sequence[str]] = {
    False: (
        "all other objects with the same attribute as <mask-ref>",
        "whatever else shares its attribute with <mask-ref>",
    ),
    True: (
        "<mask-ref> and everything with the same attribute as it",
        "all objects that share an attribute with <mask-ref>, itself included",
    ),
}
"""With a reference that is a target or not, for an attribute that the prompt does not name."""

WITH_ITSELF: Mapping[str, Sequence[str]] = {
    "category": (
        "<mask-ref> and everything of its kind",
        "all objects in the category of <mask-ref>, itself included",
        "the whole group of things that are the same as <mask-ref>, with it",
    ),
    "attribute": (
        "<mask-ref> and all else that is {attribute}",
        "all {attribute} things, <mask-ref> among them",
    ),
}
"""With a reference that is a target."""

BESIDE: Mapping[str, Sequence[str]] = {
    "left of": ("{name} to the left of <mask-ref>", "each {name} further left than <mask-ref>"),
    "right of": ("{name} to the right of <mask-ref>", "each {name} further right than <mask-ref>"),
    "above": ("{name} above <mask-ref>", "each {name} higher up than <mask-ref>"),
    "below": ("{name} below <mask-ref>", "each {name} further down than <mask-ref>"),
}
"""Objects of a name on one side of a reference."""

ANY_BESIDE: Mapping[str, Sequence[str]] = {
    "left of": ("all objects to the left of <mask-ref>", "everything that is left of <mask-ref>"),
    "right of": ("all objects to the right of <mask-ref>", "everything that is right of <mask-ref>"),
    "above": ("all objects above <mask-ref>", "everything that is higher up than <mask-ref>"),
    "below": ("all objects below <mask-ref>", "everything that is further down than <mask-ref>"),
}
"""Objects of any category on one side of a reference."""

EXPRESSIONS = ("{expression}", "Select the {bare}")
"""A sentence of the REFER family: as people wrote it, and as the paper asks, without its own article."""

RELATED: Mapping[str, Sequence[str]] = {
    "target": (
        "<mask-ref> {predicate} which objects?",
        "the objects that complete the statement: <mask-ref> {predicate} ...",
        "everything of which one can say that <mask-ref> {predicate} it",
    ),
    "subject": (
        "which objects {predicate} <mask-ref>?",
        "the objects that complete the statement: ... {predicate} <mask-ref>",
        "everything of which one can say that it {predicate} <mask-ref>",
    ),
}
"""Relationships of a reference, which is their subject (the targets are asked for) or their object."""
