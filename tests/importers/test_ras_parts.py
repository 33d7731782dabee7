"""The search by shape: what is planted among other tensors is found, and what could be two things is not."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Size

from maskselect.importers.ras_parts import Mlp, Vector, find_parts, linear_pairs

WIDTH = 32
LAYERS = [("0", "2"), ("fc1", "fc2"), ("linear_1", "linear_2"), ("layers.0", "layers.1"), ("9", "10"), ("up", "down")]
PLACES = ["", "model.", "model.mask_head.", "base.inner.deep."]
VECTORS = {
    "vectors": {"pool_pre": (WIDTH,), "ref_pre": (1, 1, WIDTH)},
    "embeddings": {"mask_pool_pre.weight": (1, WIDTH), "mask_ref_pre.weight": (1, WIDTH)},
    "matrix": {"pre_tokens": (2, WIDTH)},
    "matrix of three sides": {"pre_tokens.weight": (1, 2, WIDTH)},
}
# Names with a module each, so that none is beside two others.
OTHERS = {
    "other.conv.proj.weight": (8, 3, 4, 4),
    "other.norm.weight": (24,),
    "other.attn.qkv.weight": (72, 24),
    "other.attn.proj.weight": (24, 24),
    "tower.blocks.0.mlp.fc1.weight": (96, 24),
    "tower.blocks.0.mlp.fc2.weight": (24, 96),
    "tower.blocks.0.mlp.fc2.bias": (24,),
    "tower.head.0.weight": (WIDTH, 24),
    "tower.head.1.scale": (),
    "tower.table": (4, WIDTH),
}


def mlp(prefix: str, names: tuple[str, str], sizes: tuple[int, int, int], biases: tuple[bool, bool]) -> dict[str, Any]:
    read, hidden, out = sizes
    first, second = (f"{prefix}.{name}" for name in names)
    shapes = {f"{first}.weight": (hidden, read), f"{second}.weight": (out, hidden)}
    shapes |= {f"{first}.bias": (hidden,)} if biases[0] else {}
    return shapes | ({f"{second}.bias": (out,)} if biases[1] else {})


both = st.tuples(st.booleans(), st.booleans())


@given(data=st.data(), channels=st.integers(1, 80).filter(lambda c: c != WIDTH), hidden=st.integers(2, 48))
@settings(max_examples=60)
def test_planted_parts_are_found_and_doubled_ones_are_not(data: st.DataObject, channels: int, hidden: int) -> None:
    names = data.draw(st.tuples(st.sampled_from(LAYERS), st.sampled_from(LAYERS)))
    place = data.draw(st.tuples(*[st.sampled_from(PLACES)] * 3))
    form = data.draw(st.sampled_from(sorted(VECTORS)))
    projector = mlp(f"{place[0]}region", names[0], (channels, WIDTH, WIDTH), data.draw(both))
    classifier = mlp(f"{place[1]}judge", names[1], (WIDTH, hidden, 1), data.draw(both))
    planted = projector | classifier | {f"{place[2]}{name}": shape for name, shape in VECTORS[form].items()}
    extra = data.draw(st.lists(st.sampled_from(sorted(OTHERS)), unique=True))
    order = data.draw(st.permutations(sorted(planted) + extra))
    shapes = {name: Size((planted | OTHERS)[name]) for name in order}
    found = find_parts(shapes, WIDTH, {}, {})
    assert not found.problems and not found.rivals
    first, second = (f"{place[0]}region.{name}" for name in names[0])
    assert (found.mlps["projector"].first, found.mlps["projector"].second) == (first, second)
    assert found.mlps["projector"].sizes == (channels, WIDTH, WIDTH)
    assert found.mlps["classifier"].first == f"{place[1]}judge.{names[1][0]}"
    assert found.mlps["classifier"].sizes == (WIDTH, hidden, 1)
    pool, ref = found.vectors["pool_pre"], found.vectors["ref_pre"]
    assert (pool.row, ref.row) == ((0, 1) if "matrix" in form else (None, None))
    assert "matrix" in form or ("pool" in pool.name and "ref" in ref.name)

    role, part = data.draw(st.sampled_from([("projector", projector), ("classifier", classifier)]))
    again = find_parts(shapes | {f"second.{name}": Size(shape) for name, shape in part.items()}, WIDTH, {}, {})
    assert role not in again.mlps and len(again.problems) == 1 and "2 have the shape of" in again.problems[0]
    assert again.rivals.keys() == part.keys() | {f"second.{name}" for name in part}
    chosen = find_parts(
        shapes | {f"second.{name}": Size(shape) for name, shape in part.items()}, WIDTH, {role: "second."}, {}
    )
    assert chosen.mlps[role].first.startswith("second.") and not chosen.problems


def test_square_layers_stand_in_the_order_of_their_numbers() -> None:
    shapes = {f"model.p.{n}.weight": Size((WIDTH, WIDTH)) for n in ("10", "9")}
    (found,) = linear_pairs(shapes)
    assert found == Mlp("model.p", "model.p.9", "model.p.10", (WIDTH, WIDTH, WIDTH))
    unnumbered = {f"model.p.{n}.weight": Size((WIDTH, WIDTH)) for n in ("down", "up")}
    assert len(linear_pairs(unnumbered)) == 2  # so neither is taken
    problems = find_parts(unnumbered, WIDTH, {}, {}).problems
    assert "2 have the shape of the mask projector" in problems[0]


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ("model.pool_prefix", "model.ref_prefix", True),
        ("model.pre.reference", "model.pre.candidate", True),
        ("model.mask_prefix_a", "model.mask_prefix_b", False),
        ("model.ref_a", "model.ref_b", False),
        ("model.pool.weight", "mask.ref.weight", True),
        ("model.pool_norm", "model.ref_norm", False),
    ],
)
def test_only_a_name_that_says_so_is_of_references(one: str, other: str, told: bool) -> None:
    shapes = {one: Size((WIDTH,)), other: Size((1, WIDTH))}
    for swapped in (shapes, dict(reversed(shapes.items()))):
        found = find_parts(swapped, WIDTH, {}, {})
        if told:
            ref = one if "reference" in one else other
            assert found.vectors["ref_pre"] == Vector(ref) and found.vectors["pool_pre"].name in {one, other} - {ref}
        else:
            assert not found.vectors and found.rivals.keys() == {one, other}
            assert any("do not say which of them" in problem for problem in found.problems)
