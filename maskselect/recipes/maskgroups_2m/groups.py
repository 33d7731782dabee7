"""The groups of an image's objects for prompts of MaskGroups-2M (RAS, section 4.1), and their texts.

A group is dropped if its answer is ambiguous: an object is neither clearly on one side nor clearly not.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np

from maskselect.recipes.maskgroups_2m import templates
from maskselect.recipes.maskgroups_2m.objects import Drawn

LEAST = 2
"""Least number of objects in a group by category, attribute or relationship."""
_FAR = 0.05  # least lead of the outermost object, as a share of the image's side
_MOSTLY = 0.6  # share of an object's extent; a larger one beyond an edge is neither clearly there nor clearly not
SIDES = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}
"""Axis and direction."""
_HALVES = {"left": (0, -1), "right": (0, 1), "top": (1, -1), "bottom": (1, 1)}
_MOST = {"leftmost": (0, -1), "rightmost": (0, 1), "topmost": (1, -1), "bottommost": (1, 1)}
Relations = Sequence[tuple[int, str, int]]
Option = TypeVar("Option")


@dataclass(frozen=True)
class GroupPrompt:
    """A prompt about an image; references and targets are indices of its objects."""

    text: str
    kind: str
    references: tuple[int, ...]
    targets: tuple[int, ...]

    def as_record(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self) | {"references": list(self.references), "targets": list(self.targets)}


def named_groups(objects: Sequence[Drawn], field: str, leave_out: frozenset[str] = frozenset()) -> dict[str, list[int]]:
    """Groups of at least `LEAST` objects that share a word. Of two words with the same objects, the first is used.

    Args:
        field: "names" or "attributes".
        leave_out: words of which some objects of the image have no mask.
    """
    by_word: dict[str, list[int]] = {}
    for place, one in enumerate(objects):
        for word in getattr(one, field):
            by_word.setdefault(word, []).append(place)
    groups: dict[str, list[int]] = {}
    for word, places in by_word.items():
        if len(places) >= LEAST and word not in leave_out and places not in groups.values():
            groups[word] = places
    return groups


def by_word(groups: dict[str, list[int]], kind: str, rng: np.random.Generator) -> list[GroupPrompt]:
    """Two prompts for each group of a category or attribute: by its word, and with one of its objects as reference."""
    prompts = []
    slot = "name" if kind == "category" else "attribute"
    for word, places in groups.items():
        prompts.append(GroupPrompt(_worded(templates.NAMED[kind], rng, **{slot: word}), kind, (), tuple(places)))
        chosen = int(rng.choice(places))
        alone = bool(rng.random() < 0.5)
        texts = templates.OTHERS[kind] if alone else templates.WITH_ITSELF[kind]
        if kind == "attribute" and sum(chosen in others for others in groups.values()) == 1:
            texts = (*texts, *templates.SAME_ATTRIBUTE[not alone])  # the reference shares no other attribute
        targets = tuple(place for place in places if place != chosen or not alone)
        prompts.append(GroupPrompt(_worded(texts, rng, **{slot: word}), kind, (chosen,), targets))
    return prompts


def by_position(
    groups: dict[str, list[int]],
    boxes: np.ndarray,
    size: tuple[int, int],
    most: int,
    rng: np.random.Generator,
    superlatives: bool = True,
) -> list[GroupPrompt]:
    """At most `most` prompts for the objects of a name by their position in the image.

    Args:
        boxes: (N, 4), x0, y0, x1, y1 of the masks.
        size: (H, W).
        superlatives: whether "the leftmost" and the like are among them.
    """
    texts = {**templates.NAMED, **templates.SUPERLATIVES}
    options: list[tuple[str, str, tuple[int, ...]]] = []
    for name, places in groups.items():
        for side in _HALVES:
            options += [(side, name, targets) for targets in [_in_half(boxes, places, side, size)] if targets]
        for side in _MOST if superlatives else ():
            options += [
                (side, name, (place,)) for place in [_outermost(boxes, places, side, size)] if place is not None
            ]
    return [
        GroupPrompt(_worded(texts[side], rng, name=name), "absolute position", (), targets)
        for side, name, targets in _some(options, most, rng)
    ]


def any_by_position(boxes: np.ndarray, size: tuple[int, int], most: int, rng: np.random.Generator) -> list[GroupPrompt]:
    """At most `most` prompts for the objects of any category in a half of the image.

    An object that is in the half by more than `_MOSTLY` but not wholly makes the answer ambiguous.

    Args:
        boxes: (N, 4), x0, y0, x1, y1 of the masks.
        size: (H, W).
    """
    options = []
    for side, (axis, sign) in _HALVES.items():
        middle = (size[1], size[0])[axis] / 2
        options += [(side, targets) for targets in [_beyond(boxes, range(len(boxes)), axis, sign, middle)] if targets]
    return [
        GroupPrompt(_worded(templates.ANY_NAMED[side], rng), "absolute position", (), targets)
        for side, targets in _some(options, most, rng)
    ]


def beside_reference(
    groups: dict[str, list[int]], boxes: np.ndarray, most: int, rng: np.random.Generator, distinct: bool = True
) -> list[GroupPrompt]:
    """At most `most` prompts for the objects of a name on one side of a reference.

    Args:
        distinct: other objects of the name must not be on that side.
    """
    options = [
        (side, name, reference, targets)
        for name, places in groups.items()
        for side in SIDES
        for reference in range(len(boxes))
        if (targets := _on_side(boxes, places, side, reference, distinct))
    ]
    return [
        GroupPrompt(_worded(templates.BESIDE[side], rng, name=name), "relative position", (reference,), targets)
        for side, name, reference, targets in _some(options, most, rng)
    ]


def any_beside_reference(boxes: np.ndarray, most: int, rng: np.random.Generator) -> list[GroupPrompt]:
    """At most `most` prompts for the objects of any category on one side of a reference; see `any_by_position`."""
    options = []
    for reference, box in enumerate(boxes):
        others = [place for place in range(len(boxes)) if place != reference]
        for side, (axis, sign) in SIDES.items():
            edge = float(box[axis] if sign < 0 else box[2 + axis])
            options += [(side, reference, t) for t in [_beyond(boxes, others, axis, sign, edge)] if t]
    return [
        GroupPrompt(_worded(templates.ANY_BESIDE[side], rng), "relative position", (reference,), targets)
        for side, reference, targets in _some(options, most, rng)
    ]


def by_relation(relations: Relations, rng: np.random.Generator) -> list[GroupPrompt]:
    """Prompts for relationships with the same predicate and the same subject or object, which is the reference.

    Args:
        relations: (subject, predicate, object), with indices of objects.
    """
    sharing: dict[tuple[str, str, int], list[int]] = {}
    for subject, predicate, target in relations:
        if subject != target:
            sharing.setdefault(("target", predicate, subject), []).append(target)
            sharing.setdefault(("subject", predicate, target), []).append(subject)
    prompts = []
    for (role, predicate, reference), places in sharing.items():
        targets = tuple(dict.fromkeys(places))
        if len(targets) >= LEAST:
            text = _worded(templates.RELATED[role], rng, predicate=predicate)
            prompts.append(GroupPrompt(text, "interaction", (reference,), targets))
    return prompts


def _in_half(boxes: np.ndarray, places: list[int], side: str, size: tuple[int, int]) -> tuple[int, ...]:
    """The objects wholly within the half; none if all are, or one crosses the middle."""
    axis, sign = _HALVES[side]
    middle = (size[1], size[0])[axis] / 2
    near, far = boxes[places, axis], boxes[places, 2 + axis]
    inside, outside = (far <= middle, near >= middle) if sign < 0 else (near >= middle, far <= middle)
    return _split(places, inside, outside)


def _on_side(boxes: np.ndarray, places: list[int], side: str, reference: int, distinct: bool = True) -> tuple[int, ...]:
    """The objects wholly on a side of the reference; none if one is so in part only, or, if `distinct`, if all are."""
    axis, sign = SIDES[side]
    others = [place for place in places if place != reference]
    near, far = boxes[others, axis], boxes[others, 2 + axis]
    start, end = boxes[reference, axis], boxes[reference, 2 + axis]
    centre, middle = (near + far) / 2, (start + end) / 2
    if sign < 0:
        return _split(others, far <= start, centre >= middle, distinct)
    return _split(others, near >= end, centre <= middle, distinct)


def _beyond(boxes: np.ndarray, places: Sequence[int], axis: int, sign: int, edge: float) -> tuple[int, ...]:
    """The objects wholly beyond an edge; none if one is mostly beyond it, or if all or none are."""
    near, far = boxes[places, axis].astype(float), boxes[places, 2 + axis].astype(float)
    lengths = np.maximum(far - near, 1e-6)
    share = (np.clip(edge, near, far) - near) / lengths
    share = share if sign < 0 else 1 - share
    return _split(list(places), share >= 1, share <= _MOSTLY)


def _split(places: list[int], inside: np.ndarray, outside: np.ndarray, distinct: bool = True) -> tuple[int, ...]:
    """The places inside; none unless each place is inside or outside and, if `distinct`, there are both."""
    if not (inside | outside).all() or not inside.any() or (distinct and not outside.any()):
        return ()
    return tuple(place for place, chosen in zip(places, inside, strict=True) if chosen)


def _outermost(boxes: np.ndarray, places: list[int], side: str, size: tuple[int, int]) -> int | None:
    axis, sign = _MOST[side]
    centre = sign * (boxes[places, axis] + boxes[places, 2 + axis]) / 2
    order = np.argsort(-centre, kind="stable")
    gap = centre[order[0]] - centre[order[1]]
    return places[int(order[0])] if gap >= _FAR * (size[1], size[0])[axis] else None


def _some(options: list[Option], most: int, rng: np.random.Generator) -> list[Option]:
    """A random choice, in order."""
    if len(options) <= most:
        return options
    return [options[number] for number in sorted(rng.permutation(len(options))[:most])]


def _worded(texts: Sequence[str], rng: np.random.Generator, **words: str) -> str:
    return str(texts[int(rng.integers(len(texts)))]).format(**words)
