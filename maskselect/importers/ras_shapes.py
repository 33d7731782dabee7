"""The parts of RAS beside its LLaVA, found by their shapes among tensors whose names nobody here has seen.

    projector    two linear layers under one name, C -> D -> D: features of a mask to a token
    classifier   two linear layers under one name, D -> any -> 1: a hidden state to a logit
    pool_pre, ref_pre    the vectors of <mask-pool-pre> and <mask-ref-pre>: rows of a matrix 2 x D, or two vectors whose
        names differ in one part, in which one of them says "ref"

Where shapes allow two answers there is none: the caller is told all of them, and may choose by name.
D is the width of the language model, C any number.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Size, Tensor

MLPS = {"projector": "the mask projector (C → D → D)", "classifier": "the classifier (D → any → 1)"}
VECTORS = {"pool_pre": "<mask-pool-pre>", "ref_pre": "<mask-ref-pre>"}
ROLES = (*MLPS, *VECTORS)
"""What can be chosen by name."""

_SHOWN = 4


@dataclass(frozen=True)
class Mlp:
    """Two linear layers. first, second: their names, to which `.weight` and perhaps `.bias` belong.

    sizes: channels read, hidden, given.
    """

    prefix: str
    first: str
    second: str
    sizes: tuple[int, int, int]

    def __str__(self) -> str:
        return f"{self.prefix}: {' → '.join(map(str, self.sizes))}"


@dataclass(frozen=True)
class Vector:
    """A tensor that is a vector, or a row of one that is a matrix."""

    name: str
    row: int | None = None

    def __str__(self) -> str:
        return self.name if self.row is None else f"{self.name}[{self.row}]"

    def of(self, tensors: Mapping[str, Tensor], width: int) -> Tensor:
        """(D,)."""
        return tensors[self.name].reshape(-1, width)[self.row or 0]


Part = Mlp | Vector


@dataclass(frozen=True)
class Found:
    """parts: by role.  problems: why others were not found.  assumed: what neither shapes nor names say.

    rivals: names of tensors that could be of a part, but so could others, and what part that is.
    """

    parts: dict[str, Part] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    rivals: dict[str, str] = field(default_factory=dict)

    def mlp(self, role: str) -> Mlp:
        """The part of that role, which is an MLP."""
        part = self.parts[role]
        assert isinstance(part, Mlp)
        return part

    def vector(self, role: str) -> Vector:
        """The part of that role, which is a vector."""
        part = self.parts[role]
        assert isinstance(part, Vector)
        return part


def find_parts(
    shapes: Mapping[str, Size], width: int, chosen: Mapping[str, str], tokens: Mapping[str, Vector]
) -> Found:
    """All parts of RAS, or why not.

    shapes: of tensors by name, without LLaVA's and those of frozen encoders.  width: D.
    chosen: by role, the beginning of its names; of a vector its name, with `[0]` or `[1]` for a row.
    tokens: both vectors, where the vocabulary has them, and else nothing.
    Raises ValueError when what is chosen does not exist or has another shape.
    """
    found = Found()
    every = list(mlps(shapes))
    for role, told in MLPS.items():
        if role in chosen:
            within = {name: shape for name, shape in shapes.items() if name.startswith(chosen[role])}
            candidates = [mlp for mlp in _orders(chosen[role], within) if _suits(mlp, role, width)]
        else:
            candidates = [mlp for mlp in every if _suits(mlp, role, width)]
        if len(candidates) == 1:
            found.parts[role] = candidates[0]
        elif role in chosen:
            raise ValueError(f"the tensors under {chosen[role]!r} are not {told} and nothing else; D is {width}")
        else:
            found.problems.append(_told(role, told, candidates))
            found.rivals.update({name: told for mlp in candidates for name in members(mlp, shapes)})
    inside = {name for mlp in every for name in members(mlp, shapes)}
    _find_vectors({n: s for n, s in shapes.items() if n not in inside}, width, chosen, tokens, found)
    return found


def members(part: Part, names: Iterable[str]) -> list[str]:
    """Those of `names` that a part is made of."""
    if isinstance(part, Vector):
        return [name for name in names if name == part.name]
    return [name for name in names if name.rpartition(".")[0] in (part.first, part.second)]


def mlps(shapes: Mapping[str, Size]) -> Iterator[Mlp]:
    """Every name under which there are two linear layers that fit together, and nothing else; the longest such name."""
    under: dict[str, list[str]] = defaultdict(list)
    for name in shapes:
        levels = name.split(".")
        for depth in range(1, len(levels) - 1):
            under[".".join(levels[:depth])].append(name)
    longest: dict[frozenset[str], str] = {}
    for prefix, names in sorted(under.items(), key=lambda item: item[0].count(".")):
        if len(names) <= 4:  # two weights, two biases
            longest[frozenset(names)] = prefix
    for together, prefix in longest.items():
        yield from _orders(prefix, {name: shapes[name] for name in together})


def _orders(prefix: str, shapes: Mapping[str, Size]) -> Sequence[Mlp]:
    """The tensors as two layers: in one order, or in both where neither shapes nor numbers tell; or none."""
    layers: dict[str, dict[str, Size]] = defaultdict(dict)
    for name, shape in shapes.items():
        layer, _, kind = name.rpartition(".")
        layers[layer][kind] = shape
    if len(layers) != 2 or not all(_is_linear(parts) for parts in layers.values()):
        return []
    names = sorted(layers, key=_numbers)
    found = []
    for first, second in (names, names[::-1]):
        (hidden, read), (given, through) = layers[first]["weight"], layers[second]["weight"]
        if hidden == through:
            found.append(Mlp(prefix, first, second, (read, hidden, given)))
    numbered = re.sub(r"\d+", "#", names[0]) == re.sub(r"\d+", "#", names[1])
    same = len(found) == 2 and found[0].sizes == found[1].sizes
    return found[:1] if numbered and same else found


def _is_linear(parts: Mapping[str, Size]) -> bool:
    weight = parts.get("weight", Size())
    return len(weight) == 2 and (parts == {"weight": weight} or parts == {"weight": weight, "bias": weight[:1]})


def _numbers(name: str) -> list[tuple[int, str]]:
    """Sorts names with numbers in them by these."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _suits(mlp: Mlp, role: str, width: int) -> bool:
    read, hidden, given = mlp.sizes
    return (hidden, given) == (width, width) if role == "projector" else (read, given) == (width, 1)


def _find_vectors(
    shapes: Mapping[str, Size],
    width: int,
    chosen: Mapping[str, str],
    tokens: Mapping[str, Vector],
    found: Found,
) -> None:
    """Adds both vectors to `found`, or why they are not there."""
    named = {role: _chosen_vector(chosen[role], shapes, width) for role in VECTORS if role in chosen}
    if named.keys() == VECTORS.keys():
        if len(set(named.values())) == 1:
            raise ValueError(f"pool_pre and ref_pre are both {named['pool_pre']}; expected two vectors")
        found.parts.update(named)
        return
    if named:
        found.problems.append("of pool_pre and ref_pre only one is chosen; say --part for both")
        return
    if tokens:
        found.parts.update(tokens)
        return
    rows = {name: count for name, shape in shapes.items() if (count := _vectors(shape, width))}
    single, double = ([name for name, count in rows.items() if count == wanted] for wanted in (1, 2))
    told = "<mask-pool-pre> and <mask-ref-pre> (two vectors of D)"
    if len(double) == 1 and not single:
        found.parts.update(pool_pre=Vector(double[0], 0), ref_pre=Vector(double[0], 1))
        found.assumed.append(f"the first row of {double[0]} is <mask-pool-pre>, the second <mask-ref-pre>")
    elif len(single) == 2 and not double and (pair := _pool_and_ref(*single)):
        found.parts.update(zip(VECTORS, map(Vector, pair), strict=True))
    elif len(single) == 2 and not double:
        found.problems.append(
            f"which of {' and '.join(single)} is <mask-ref-pre> cannot be told from their names; "
            "say --part pool_pre=NAME --part ref_pre=NAME"
        )
        found.rivals.update(dict.fromkeys(single, told))
    else:
        found.problems.append(_told("pool_pre=NAME --part ref_pre", told, [*double, *single]))
        found.rivals.update(dict.fromkeys([*double, *single], told))


def _vectors(shape: Size, width: int) -> int:
    """How many vectors of D a tensor may be: 1, 2, or 0 for none."""
    count = shape.numel() // width if len(shape) and shape[-1] == width else 0
    return count if count in (1, 2) else 0


def _pool_and_ref(one: str, other: str) -> tuple[str, str] | None:
    """Two names, that of <mask-ref-pre> last; None when they do not say."""
    parts = list(zip(one.split("."), other.split("."), strict=False))
    differ = [pair for pair in parts if pair[0] != pair[1]]
    if one.count(".") != other.count(".") or len(differ) != 1:
        return None
    # By whole words: "prefix" and "refine" have "ref" in them too, and a norm has scales and no token.
    first, second = (set(re.split(r"[^a-z]+", text.lower())) for text in differ[0])
    if "norm" in first | second:
        return None
    for words, others, pair in ((first, second, (other, one)), (second, first, (one, other))):
        if words & _REF and not words & _POOL and others & _POOL and not others & _REF:
            return pair
    return None


_REF, _POOL = {"ref", "reference", "references"}, {"pool", "pooled", "pooling", "candidate", "candidates"}


def _chosen_vector(text: str, shapes: Mapping[str, Size], width: int) -> Vector:
    match = re.fullmatch(r"(.+?)(?:\[([01])\])?", text)
    vector = Vector(match[1], None if match[2] is None else int(match[2])) if match else Vector(text)
    count = _vectors(shapes.get(vector.name, Size()), width)
    if count != (1 if vector.row is None else 2):
        raise ValueError(f"{text!r} is no vector of {width}; expected the name of one, or of two and [0] or [1]")
    return vector


def _told(role: str, told: str, candidates: Sequence[object]) -> str:
    if not candidates:
        return f"nothing has the shape of {told}"
    if len(candidates) == 1:
        return f"only {candidates[0]} has the shape of {told}"
    some = "; ".join(map(str, candidates[:_SHOWN])) + ("; ..." if len(candidates) > _SHOWN else "")
    return f"{len(candidates)} have the shape of {told}: {some} (choose with --part {role}=NAME)"
