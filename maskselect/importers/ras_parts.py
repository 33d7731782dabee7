"""The parts of RAS beside its LLaVA, identified by their shapes, because the names in the release are not published.

    projector            two linear layers below one prefix, C -> D -> D: from features of a mask to a mask token
    classifier           two linear layers below one prefix, D -> any -> 1: from a hidden state to a logit
    pool_pre, ref_pre    <mask-pool-pre> and <mask-ref-pre>: both rows of a (2, D) matrix, or two vectors, one with
                         "pool" and one with "ref" in its name

D is the width of the language model, C any number. A part that several tensors fit is not assigned: all of them are
reported, and the user chooses by name.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Size, Tensor

MLPS = {"projector": "the mask projector (C → D → D)", "classifier": "the classifier (D → any → 1)"}
VECTORS = {"pool_pre": "<mask-pool-pre>", "ref_pre": "<mask-ref-pre>"}
ROLES = (*MLPS, *VECTORS)
"""The parts that can be chosen by name."""

_PAIR = "<mask-pool-pre> and <mask-ref-pre> (two vectors of D)"
_REF, _POOL = {"ref", "reference", "references"}, {"pool", "pooled", "pooling", "candidate", "candidates"}
_SHOWN = 4  # candidates that an error lists


@dataclass(frozen=True)
class Mlp:
    """Two linear layers.

    Attributes:
        prefix: common beginning of their names.
        first, second: names of the layers, without `.weight` and `.bias`.
        sizes: input, hidden and output channels.
    """

    prefix: str
    first: str
    second: str
    sizes: tuple[int, int, int]

    def __str__(self) -> str:
        return f"{self.prefix}: {' → '.join(map(str, self.sizes))}"

    def holds(self, name: str) -> bool:
        """Whether the tensor of this name belongs to it."""
        return name.rpartition(".")[0] in (self.first, self.second)


@dataclass(frozen=True)
class Vector:
    """A tensor that is a vector, or one row of a matrix."""

    name: str
    row: int | None = None

    def __str__(self) -> str:
        return self.name if self.row is None else f"{self.name}[{self.row}]"

    def holds(self, name: str) -> bool:
        """Whether the tensor of this name contains it."""
        return name == self.name

    def of(self, tensors: Mapping[str, Tensor], width: int) -> Tensor:
        """Its values, (D,)."""
        return tensors[self.name].reshape(-1, width)[self.row or 0]


@dataclass(frozen=True)
class Parts:
    """The result of a search.

    Attributes:
        mlps, vectors: the assigned parts by role.
        problems: why other parts are not assigned.
        assumed: what neither shapes nor names prove.
        rivals: names of tensors that compete for a part, and a description of the part.
    """

    mlps: dict[str, Mlp] = field(default_factory=dict)
    vectors: dict[str, Vector] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    rivals: dict[str, str] = field(default_factory=dict)

    @property
    def by_role(self) -> dict[str, Mlp | Vector]:
        """All assigned parts."""
        return {**self.mlps, **self.vectors}


def find_parts(
    shapes: Mapping[str, Size], width: int, chosen: Mapping[str, str], tokens: Mapping[str, Vector]
) -> Parts:
    """Assign tensors to the parts of RAS.

    Args:
        shapes: shapes of tensors by name, without those of LLaVA and of frozen encoders.
        width: D.
        chosen: by role, the prefix of an MLP, or the name of a vector, with `[0]` or `[1]` for a row.
        tokens: both vectors if they are tokens of the vocabulary, else empty.

    Raises:
        ValueError: if a chosen part does not exist or has another shape.
    """
    parts, mlps = Parts(), linear_pairs(shapes)
    for role, what in MLPS.items():
        named = {name: shape for name, shape in shapes.items() if name.startswith(chosen.get(role, ""))}
        fitting = [mlp for mlp in (linear_pairs(named) if role in chosen else mlps) if _fits(mlp, role, width)]
        if len(fitting) == 1:
            parts.mlps[role] = fitting[0]
        elif role in chosen:
            raise ValueError(f"the tensors under {chosen[role]!r} are not {what} and nothing else; D is {width}")
        else:
            parts.problems.append(_ambiguity(role, what, fitting))
            parts.rivals.update({name: what for name in shapes if any(mlp.holds(name) for mlp in fitting)})
    others = {name: shape for name, shape in shapes.items() if not any(mlp.holds(name) for mlp in mlps)}
    _find_vectors(parts, others, width, chosen, tokens)
    return parts


def linear_pairs(shapes: Mapping[str, Size]) -> list[Mlp]:
    """All pairs of linear layers that fit together and are alone below a prefix; both orders if either is possible."""
    below: dict[str, dict[str, dict[str, Size]]] = defaultdict(lambda: defaultdict(dict))
    for name, shape in shapes.items():
        layer, _, kind = name.rpartition(".")
        below[layer.rpartition(".")[0]][layer][kind] = shape
    pairs = []
    for prefix, layers in below.items():
        names = sorted(layers, key=_natural)
        count = sum(name.startswith(f"{prefix}.") for name in shapes)
        alone = bool(prefix) and len(names) == 2 and count == sum(map(len, layers.values()))
        if not alone or not all(map(_is_linear, layers.values())):
            continue
        fitting = []
        for first, second in (names, names[::-1]):
            (hidden, inputs), (outputs, read) = layers[first]["weight"], layers[second]["weight"]
            if hidden == read:
                fitting.append(Mlp(prefix, first, second, (inputs, hidden, outputs)))
        square = len(fitting) == 2 and fitting[0].sizes == fitting[1].sizes
        numbered = re.sub(r"\d+", "#", names[0]) == re.sub(r"\d+", "#", names[1])
        pairs += fitting[:1] if square and numbered else fitting
    return pairs


def _is_linear(tensors: Mapping[str, Size]) -> bool:
    weight = tensors.get("weight", Size())
    return len(weight) == 2 and tensors in ({"weight": weight}, {"weight": weight, "bias": weight[:1]})


def _natural(name: str) -> list[int | str]:
    """Sort key that orders numbers in names by value."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _fits(mlp: Mlp, role: str, width: int) -> bool:
    inputs, hidden, outputs = mlp.sizes
    return (hidden, outputs) == (width, width) if role == "projector" else (inputs, outputs) == (width, 1)


def _find_vectors(
    parts: Parts, shapes: Mapping[str, Size], width: int, chosen: Mapping[str, str], tokens: Mapping[str, Vector]
) -> None:
    """Add both vectors to `parts`, or the reason why they are not assigned."""
    named = {role: _chosen_vector(chosen[role], shapes, width) for role in VECTORS if role in chosen}
    if len(named) == 1:
        parts.problems.append("of pool_pre and ref_pre only one is chosen; say --part for both")
        return
    if len(set(named.values())) == 1:
        raise ValueError(f"pool_pre and ref_pre are both {named['pool_pre']}; expected two vectors")
    if named or tokens:
        parts.vectors.update(named or tokens)
        return
    single, double = ([name for name, shape in shapes.items() if _rows(shape, width) == rows] for rows in (1, 2))
    if len(double) == 1 and not single:
        parts.vectors.update(pool_pre=Vector(double[0], 0), ref_pre=Vector(double[0], 1))
        parts.assumed.append(f"the first row of {double[0]} is <mask-pool-pre>, the second <mask-ref-pre>")
    elif len(single) == 2 and not double and (pair := _pool_and_ref(single)):
        parts.vectors.update(pair)
    else:
        parts.rivals.update(dict.fromkeys([*double, *single], _PAIR))
        parts.problems.append(
            f"the names of {' and '.join(single)} do not say which of them is <mask-ref-pre>; "
            "say --part pool_pre=NAME --part ref_pre=NAME"
            if len(single) == 2 and not double
            else _ambiguity("pool_pre=NAME --part ref_pre", _PAIR, [*double, *single])
        )


def _rows(shape: Size, width: int) -> int:
    """The number of vectors of D in a tensor if it is 1 or 2, else 0."""
    rows = shape.numel() // width if len(shape) and shape[-1] == width else 0
    return rows if rows in (1, 2) else 0


def _pool_and_ref(names: Sequence[str]) -> dict[str, Vector] | None:
    """The vectors by role; None unless one name has a word for the pool and the other one for references."""
    # Whole words: "prefix" and "refine" contain "ref", too. A norm has scales and is no token.
    words = {name: set(re.split(r"[^a-z]+", name.lower())) for name in names}
    pool = [name for name, held in words.items() if held & _POOL and not held & (_REF | {"norm"})]
    ref = [name for name, held in words.items() if held & _REF and not held & (_POOL | {"norm"})]
    return {"pool_pre": Vector(pool[0]), "ref_pre": Vector(ref[0])} if len(pool) == len(ref) == 1 else None


def _chosen_vector(text: str, shapes: Mapping[str, Size], width: int) -> Vector:
    match = re.fullmatch(r"(.+?)\[([01])\]", text)
    vector = Vector(match[1], int(match[2])) if match else Vector(text)
    if _rows(shapes.get(vector.name, Size()), width) != (1 if vector.row is None else 2):
        raise ValueError(f"{text!r} is no vector of {width}; expected the name of one, or of two and [0] or [1]")
    return vector


def _ambiguity(role: str, what: str, candidates: Sequence[object]) -> str:
    if not candidates:
        return f"nothing has the shape of {what}"
    if len(candidates) == 1:
        return f"only {candidates[0]} has the shape of {what}"
    some = "; ".join(map(str, candidates[:_SHOWN])) + ("; ..." if len(candidates) > _SHOWN else "")
    return f"{len(candidates)} have the shape of {what}: {some} (choose with --part {role}=NAME)"
