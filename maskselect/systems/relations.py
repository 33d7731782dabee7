"""Relations to reference masks: what a prompt states in words, and which candidates fulfil it by their masks.

The words are those of the prompts of generated scenes (`scenes/phrases.py`) and a few more. The limits are those of
the facts of generated scenes (`scenes/facts.py`) where these exist. Masks have no depth: "behind" and "in front of" are
read as "touching". No limit here was chosen on photographs.

Shape letters: N candidates, R references, H W pixels.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import torch
from torch import Tensor

from maskselect.ops.boxes import masks_to_boxes_xyxy
from maskselect.ops.masks import area
from maskselect.ops.overlap import pairwise_iou
from maskselect.scenes.phrases import CLAUSES, GENERIC, SPECIAL
from maskselect.structures.sample import MASK_REF

_MORE_WORDS = {
    "left of": ("on the left side of {0}", "to the left side of {0}", "left from {0}"),
    "right of": ("on the right side of {0}", "to the right side of {0}", "right from {0}"),
    "above": ("over {0}",),
    "below": ("beneath {0}",),
    "near": ("beside {0}", "alongside {0}", "nearby {0}"),
    "inside": ("within {0}",),
    "on": ("on top {0}", "resting on {0}", "lying on {0}", "sitting on {0}", "standing on {0}"),
    "same shape": ("similar to {0}", "the same as {0}", "same as {0}"),
}
"""Forms that generated scenes do not use."""
_UNREAD = ("same texture", "same colour either", "same shape either")
_GENERIC = {*GENERIC, *(f"{word}s" for word in GENERIC), "one", "ones", "everything", "anything", "something", "all",
            "any", "every", "each", "whatever", "what", "which", "these", "those", "this", "that", "region", "regions",
            "a", "an", "the", "is", "are", "of", "other", "others"}  # fmt: skip
_FRAME = re.compile(
    r"^(?:please |can you |could you |i want |i am looking for |in this (?:image|picture),? )*"
    r"(?:(?:find|select|segment|show me|show|mark|highlight|pick|point out|look for|give me|(?:the )?masks? of) )?"
)
_TAIL = re.compile(r"(?:,? (?:please|for me|in (?:the|this) (?:image|picture|photo)))*[.?! ]*$")
_LOOSE = re.compile(r"(?:^| )(?:that|which|who) (?:is|are)$|(?:^| )(?:and|or|but|that|which|is|are|located|,)$|[,;:]$")
"""Words that remain of a clause whose relation was taken out."""

_APART = 0.035  # least distance of centroids for left of, right of, above and below, as a share of the side
_NEAR = 0.09  # greatest distance of near masks, as a share of the longer side
_TOUCHING = 2 / 256  # the same of touching masks
_NEIGHBOURS = 1.5  # pixels between the centres of neighbours, also across a corner
_LARGER = 1.35  # least ratio of areas
_INSIDE = 0.9  # least share of the inner mask within the box of the outer one
_SAME = 0.5  # least IoU of a candidate that is the reference itself
_COLOUR = 44.0  # greatest distance of two regions of one colour in CIELAB, see `Regions.colours`
_KIND = 0.8  # least cosine of the embeddings of two things of one kind


@dataclass(frozen=True)
class Clause:
    """A relation to references, by their numbers in the prompt. key: of `scenes.phrases.CLAUSES` or `SPECIAL`."""

    key: str
    references: tuple[int, ...]
    negated: bool = False


@dataclass(frozen=True)
class Statement:
    """What a prompt states.

    Attributes:
        noun: the description that remains without clauses; "" if it says nothing, as "the thing" or "everything".
        clauses: the relations to references, which must all hold.
        unread: the part of the text with references that no clause explains; "" if there is none.
    """

    noun: str
    clauses: tuple[Clause, ...]
    unread: str


def stated(text: str) -> Statement:
    """Read a prompt.

    >>> stated("the mugs to the left of <mask-ref>")
    Statement(noun='the mugs', clauses=(Clause(key='left of', references=(0,), negated=False),), unread='')
    """
    pieces = text.lower().split(MASK_REF)
    rest = pieces[0] + "".join(f"<{number}>{piece}" for number, piece in enumerate(pieces[1:]))
    rest = _TAIL.sub("", _FRAME.sub("", " ".join(rest.split())))
    for pattern, key in _patterns("special"):
        if found := pattern.fullmatch(rest):
            return Statement("", (Clause(key, tuple(map(int, found.groups()))),), "")
    clauses: list[Clause] = []
    for pattern, key in _patterns("clauses"):
        while found := pattern.search(rest):
            before, after = rest[: found.start()].rstrip(), rest[found.end() :].strip()
            bare = re.sub(r"(?: that| which)?(?: is| are)? not$|^not$", "", before)
            clauses.append(Clause(key, tuple(map(int, found.groups())), bare != before))
            rest = f"{_without_loose(bare)} {_without_loose(after)}".strip()
    clauses.sort(key=lambda clause: clause.references)
    rest = _without_loose(re.sub(r"^(?:and|or|but) ", "", rest))
    unread = rest if "<" in rest else ""
    noun = re.sub(r"<\d+>", "", rest).strip()
    return Statement("" if set(re.findall(r"\w+", noun)) <= _GENERIC else noun, tuple(clauses), unread)


def _without_loose(text: str) -> str:
    while (shorter := _LOOSE.sub("", text).strip()) != text:
        text = shorter
    return text


@cache
def _patterns(kind: str) -> list[tuple[re.Pattern[str], str]]:
    """The forms of clauses, or of special prompts, as patterns with a group for each reference; longest first."""
    table = SPECIAL if kind == "special" else CLAUSES
    forms = [
        (form, key)
        for key, known in table.items()
        for form in (*known.train, *known.held, *_MORE_WORDS.get(key, ()))
        if "{0}" in form and key not in _UNREAD
    ]
    made = []
    for form, key in sorted(set(forms), key=lambda one: (-len(one[0]), one)):
        text = re.escape(form).replace(r"\ ", " ")
        for slot, words in (("is", "(?:is|are)"), ("has", "(?:has|have)"), ("0", r"<(\d+)>"), ("1", r"<(\d+)>")):
            text = text.replace(rf"\{{{slot}\}}", words)
        made.append((re.compile(text if kind == "special" else rf"(?<!\w){text}"), key))
    return made


@dataclass(frozen=True)
class Regions:
    """Candidates or references of one picture.

    Attributes:
        masks: (N, H, W) bool on the CPU.
        image: (H, W, 3) uint8.
        embeddings: of `encoders.image_text.ImageText`, (N, D).
    """

    masks: Tensor
    image: np.ndarray
    embeddings: Tensor

    def one(self, number: int) -> "Regions":
        """Region `number` alone."""
        return Regions(self.masks[number : number + 1], self.image, self.embeddings[number : number + 1])

    @property
    def centroids(self) -> Tensor:
        """x, y as shares of the picture's sides, (N, 2) float32."""
        height, width = self.masks.shape[1:]
        rows = [np.nonzero(mask) for mask in self.masks.numpy()]
        means = [(x.mean() / width, y.mean() / height) if len(x) else (0.5, 0.5) for y, x in rows]
        return torch.tensor(means, dtype=torch.float32).reshape(-1, 2)

    @property
    def colours(self) -> Tensor:
        """Mean colours in CIELAB of the more saturated half of the pixels, (N, 3) float32.

        On 120 generated scenes of the training split, the distance of two objects tells one colour from two with a
        balanced accuracy of 0.907 at 44; that of plain means with 0.884.
        """
        lab = cv2.cvtColor(self.image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        saturation = np.hypot(lab[..., 1], lab[..., 2])
        means = []
        for mask in self.masks.numpy():
            strength = saturation[mask]
            means.append(lab[mask][strength >= np.median(strength)].mean(0) if len(strength) else np.zeros(3))
        return torch.tensor(np.array(means), dtype=torch.float32).reshape(-1, 3)


def fulfilled(candidates: Regions, references: Regions, clause: Clause) -> Tensor:
    """Which candidates fulfil a clause, (N,) bool. A reference does not fulfil a relation to itself."""
    own = [pairwise_iou(candidates.masks, references.masks[[number]])[:, 0] for number in clause.references]
    itself = torch.stack([overlap >= _SAME for overlap in own]).any(0)
    if clause.key in ("this", "these"):
        best = torch.stack([(overlap == overlap.max()) & (overlap >= _SAME) for overlap in own])
        return best.any(0)
    if clause.key == "except":
        return ~itself
    anchors = [references.one(number) for number in clause.references]
    return (_RELATIONS[clause.key](candidates, anchors) ^ clause.negated) & ~itself


def _offset(axis: int, sign: int) -> Callable[[Regions, list[Regions]], Tensor]:
    def holds(candidates: Regions, anchors: list[Regions]) -> Tensor:
        return sign * (candidates.centroids[:, axis] - anchors[0].centroids[:, axis]) > _APART

    return holds


def _distance(candidates: Regions, anchor: Regions) -> Tensor:
    """Distance in pixels from each candidate to the reference, (N,) float32; 0 where they overlap."""
    outside = (~anchor.masks[0].numpy()).astype(np.uint8)
    away = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    least = [away[mask].min() if mask.any() else np.inf for mask in candidates.masks.numpy()]
    return torch.tensor(np.array(least), dtype=torch.float32)


def _within(share: float) -> Callable[[Regions, list[Regions]], Tensor]:
    def holds(candidates: Regions, anchors: list[Regions]) -> Tensor:
        return _distance(candidates, anchors[0]) <= max(_NEIGHBOURS, share * max(candidates.masks.shape[1:]))

    return holds


def _between(candidates: Regions, anchors: list[Regions]) -> Tensor:
    height, width = candidates.masks.shape[1:]
    scale = torch.tensor([width, height], dtype=torch.float32)
    point, a, b = (regions.centroids * scale for regions in (candidates, *anchors))
    direction, offset = b - a, point - a
    squared = (direction**2).sum(-1).clamp(min=1e-6)
    along = (offset * direction).sum(-1) / squared
    across = (direction[:, 0] * offset[:, 1] - direction[:, 1] * offset[:, 0]).abs() / squared
    return (along > 0.1) & (along < 0.9) & (across < 0.4)


def _larger(candidates: Regions, anchors: list[Regions]) -> Tensor:
    return area(candidates.masks) >= _LARGER * area(anchors[0].masks)


def _smaller(candidates: Regions, anchors: list[Regions]) -> Tensor:
    return _LARGER * area(candidates.masks) <= area(anchors[0].masks)


def _share_in_box(inner: Tensor, outer: Tensor) -> Tensor:
    """The share of each mask (N, H, W) within the box of each other mask (M, H, W): (N, M) float32."""
    shares = []
    for x0, y0, x1, y1 in masks_to_boxes_xyxy(outer).int().tolist():
        shares.append(area(inner[:, y0:y1, x0:x1].contiguous()) / area(inner).clamp(min=1))
    return torch.stack(shares, 1) if shares else torch.zeros(len(inner), 0, dtype=torch.float32)


def _inside(candidates: Regions, anchors: list[Regions]) -> Tensor:
    return _share_in_box(candidates.masks, anchors[0].masks)[:, 0] >= _INSIDE


def _containing(candidates: Regions, anchors: list[Regions]) -> Tensor:
    return _share_in_box(anchors[0].masks, candidates.masks)[0] >= _INSIDE


def _on(candidates: Regions, anchors: list[Regions]) -> Tensor:
    return _offset(1, -1)(candidates, anchors) & _within(_TOUCHING)(candidates, anchors)


def _under(candidates: Regions, anchors: list[Regions]) -> Tensor:
    return _offset(1, 1)(candidates, anchors) & _within(_TOUCHING)(candidates, anchors)


def _same_colour(candidates: Regions, anchors: list[Regions]) -> Tensor:
    return (candidates.colours - anchors[0].colours).norm(dim=1) <= _COLOUR


def _other_colour(candidates: Regions, anchors: list[Regions]) -> Tensor:
    return ~_same_colour(candidates, anchors)


def _same_kind(candidates: Regions, anchors: list[Regions]) -> Tensor:
    return (candidates.embeddings @ anchors[0].embeddings[0]) >= _KIND


_RELATIONS: dict[str, Callable[[Regions, list[Regions]], Tensor]] = {
    "left of": _offset(0, -1),
    "right of": _offset(0, 1),
    "above": _offset(1, -1),
    "below": _offset(1, 1),
    "near": _within(_NEAR),
    "touching": _within(_TOUCHING),
    "behind": _within(_TOUCHING),
    "in front of": _within(_TOUCHING),
    "between": _between,
    "larger": _larger,
    "smaller": _smaller,
    "inside": _inside,
    "containing": _containing,
    "on": _on,
    "under": _under,
    "same colour": _same_colour,
    "different colour": _other_colour,
    "same shape": _same_kind,
}
"""Which candidates stand in a relation to references, (N,) bool, by the key of the clause."""
KEYS = (*_RELATIONS, *SPECIAL)
"""All keys that a clause may have."""
