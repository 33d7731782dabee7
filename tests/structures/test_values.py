"""What holds arrays compares, prints, copies and is small, as other Python values do and are."""

import copy
import dataclasses
import importlib
import pickle
import pkgutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import maskselect.structures
from maskselect.structures.by_value import ByValue
from maskselect.structures.masks import MaskSet
from maskselect.structures.packed_masks import PackedMasks
from maskselect.structures.prediction import MaskGroup
from maskselect.structures.references import BoxRef, MaskRef, PointRef, as_reference, as_references
from maskselect.structures.sample import Prompt, Sample


def masks(count: int = 3, size: tuple[int, int] = (12, 16), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, *size)) < 0.3


def group(count: int = 3, **changed: Any) -> MaskGroup:
    own = masks(count)
    scores = np.linspace(0.9, 0.6, count, dtype=np.float32)
    settings = {
        "image": np.zeros((12, 16, 3), np.uint8), "prompt": "the mugs", "masks": own, "scores": scores,
        "candidates": 9, "threshold": 0.5, "references": own[:1], "candidate_scores": np.ones(9, np.float32),
    }  # fmt: skip
    return MaskGroup(**(settings | changed))


def values() -> list[tuple[Any, Any]]:
    """Pairs of equal values that are made apart, each with something large in it."""

    def one() -> list[Any]:
        own = torch.from_numpy(masks(40, (64, 64)))
        prompt = Prompt("the <mask-ref>", own[:1])
        image = np.zeros((64, 64, 3), np.uint8)
        return [
            MaskSet(own, torch.ones(40), "sam", {"box": torch.zeros(40, 4)}),
            prompt,
            Sample(Path("a.png"), "a", "a/1", prompt, own, (0, 1)),
            Sample(image, "a", "a/1", prompt, own, (0, 1), ignore=own[0]),
            group(),
            MaskRef(own[0].numpy()),
        ]

    return list(zip(one(), one(), strict=True))


# Equality, hash, repr, pickling.
@pytest.mark.parametrize("number", range(6))
def test_values_compare_print_and_pickle(number: int) -> None:
    first, second = values()[number]
    assert first == second and hash(first) == hash(second) and first in [second]
    assert first != values()[(number + 1) % 6][0] and first != "text"
    assert pickle.loads(pickle.dumps(first)) == first == copy.deepcopy(first)
    assert len(repr(first)) < 600 and "True" not in repr(first) and type(first).__name__ in repr(first)


def test_groups_differ_by_what_is_in_them() -> None:
    other = masks(3, seed=1)
    for changed in (
        {"prompt": "x"}, {"masks": other}, {"scores": np.ones(3, np.float32)}, {"references": other[:1]},
        {"image": np.ones((12, 16, 3), np.uint8)}, {"candidate_scores": None}, {"threshold": 0.4},
    ):  # fmt: skip
        assert group() != group(**changed)


def test_every_structure_with_arrays_is_by_value() -> None:
    found = []
    for module in pkgutil.walk_packages(maskselect.structures.__path__, "maskselect.structures."):
        for kind in vars(importlib.import_module(module.name)).values():
            if not dataclasses.is_dataclass(kind) or kind.__module__ != module.name:
                continue
            if any(word in str(field.type) for field in dataclasses.fields(kind) for word in ("Tensor", "ndarray")):
                assert issubclass(kind, ByValue) and kind.__eq__ is ByValue.__eq__, kind
                found.append(kind)
    assert len(found) >= 7


# Groups.
def test_a_group_is_its_masks() -> None:
    own = masks()
    found = group()
    assert len(found) == 3 and bool(found) and not group(0) and group(0).no_target
    assert np.array_equal(np.stack(list(found)), own) and np.array_equal(found.masks, own)
    assert np.array_equal(found.mask, own.any(0)) and np.array_equal(found.references, own[:1])
    assert found.boxes.tolist() == [
        [int(c.min()), int(r.min()), int(c.max()) + 1, int(r.max()) + 1] for r, c in map(np.nonzero, own)
    ]
    assert [record["area"] for record in found.to_coco()] == own.sum((1, 2)).tolist()
    assert group(0).boxes.shape == (0, 4) and group(0).masks.shape == (0, 12, 16) and not group(0).mask.any()
    assert np.array_equal(dataclasses.replace(found, prompt="x").masks, own)


def test_a_group_cannot_be_changed_through_what_it_gives() -> None:
    found, own = group(), masks()
    found.masks[:] = False
    next(iter(found))[:] = False
    own[:] = True
    assert found == group()


def test_masks_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match=r"masks must be \(M, H, W\) bool, got \(3, 12, 16\) float32"):
        group(masks=masks().astype(np.float32))
    with pytest.raises(ValueError, match=r"masks must be \(M, H, W\) bool, got \(12, 16\) bool"):
        group(masks=masks()[0])


# Memory.
def test_packed_masks_are_whole_again() -> None:
    own = masks(5, (37, 53))
    own[1] = False
    own[2] = True
    packed = PackedMasks(own)
    assert np.array_equal(packed.dense(), own) and np.array_equal(packed.union(), own.any(0)) and len(packed) == 5
    assert PackedMasks(own[:0]).dense().shape == (0, 37, 53) and packed == PackedMasks(own.copy())
    assert packed != PackedMasks(own[:4])


def test_many_masks_of_a_large_picture_take_little_memory() -> None:
    """16 prompts of 12 masks each at 9000 x 9000 would be 14.5 GiB as arrays."""
    decided = np.zeros((12, 1024, 1024), bool)
    for number, mask in enumerate(decided):
        mask[40 * number : 40 * number + 500, 100:900] = True
    groups = [PackedMasks(decided, (9000, 9000)) for _ in range(16)]
    held = sum(part[-1].nbytes for packed in groups for part in packed._parts)
    assert held < 16 * 2**20
    assert sum(len(pickle.dumps(packed)) for packed in groups) < 17 * 2**20
    assert groups[0].size == (9000, 9000) and groups[0].stored == (1024, 1024)


@pytest.mark.parametrize("size", [(1300, 1300), (1500, 1300), (1025, 1100), (3000, 2000)])
def test_a_single_pixel_survives_enlarging(size: tuple[int, int]) -> None:
    for place in ((0, 0), (511, 300), (1023, 1023)):
        own = np.zeros((1, 1024, 1024), bool)
        own[(0, *place)] = True
        record = group(1, masks=PackedMasks(own, size), image=np.zeros((*size, 3), np.uint8)).to_coco()[0]
        x, y, width, height = record["bbox"]
        assert record["area"] >= 1 and width >= 1 and height >= 1
        assert abs(x + width / 2 - (place[1] + 0.5) * size[1] / 1024) <= 2
        assert abs(y + height / 2 - (place[0] + 0.5) * size[0] / 1024) <= 2


# References.
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_masks_of_zero_and_one_value_are_references(dtype: type) -> None:
    own = masks(1)[0]
    for top in (1, 255) if dtype is not bool else (1,):
        given = own.astype(dtype) * dtype(top)
        for form in (given, torch.from_numpy(given), MaskRef(given)):
            reference = as_reference(form)
            assert isinstance(reference, MaskRef) and np.array_equal(reference.mask, own)
    assert as_references(masks(2).astype(np.uint8))[1] == MaskRef(masks(2)[1])  # a stack


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.full((4, 4), 0.3, np.float32), "values from 0.3 to 0.3"),
        (np.array([[0.0, 0.99], [1.0, 0.5]]), "values from 0 to 1"),
        (np.array([[-5.0, 5.0]], np.float32), "values from -5 to 5"),
        (np.array([[0, np.nan]], np.float32), "NaN"),
        (np.array([[0, 1, 2]], np.uint8), "values from 0 to 2"),
        (np.array([[0, 1, 255]], np.uint8), "values from 0 to 255"),
        (np.array([[0, 1j]]), "dtype complex128"),
        (np.array([["a", "b"]]), "dtype <U1"),
        (np.zeros((2, 2), np.float32), "is empty"),
    ],
)
def test_other_values_are_no_mask(values: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        as_reference(values)


@pytest.mark.parametrize("given", [(1, 2, 3, 4), [1, 2], "box:1,2,3,4", {"mask": 1}, None, 3.5, b"x"])
def test_what_is_no_reference(given: object) -> None:
    with pytest.raises(TypeError, match=r"a reference is of type \w+; expected a mask \(H, W\) bool, BoxRef"):
        as_reference(given)


@pytest.mark.parametrize("given", ["mask.png", b"x", np.ones((4, 4), bool), torch.ones(4, 4), BoxRef((0, 0, 1, 1)), 3])
def test_references_are_a_list(given: object) -> None:
    with pytest.raises(TypeError, match=r"references are of type \w+; expected a list with one reference for each"):
        as_references(given)
    assert as_references(None) == [] and as_references((PointRef((1, 2)),)) == [PointRef((1.0, 2.0))]


@pytest.mark.parametrize(
    ("kind", "given"),
    [(BoxRef, (1, 2, 3)), (BoxRef, "abcd"), (BoxRef, None), (BoxRef, ("a", 1, 2, 3)), (PointRef, (1,)), (PointRef, 5)],
)
def test_boxes_and_points_of_other_numbers(kind: type, given: Any) -> None:
    with pytest.raises(ValueError, match=r"cannot be read; expected \w+Ref\("):
        kind(given)
    assert BoxRef(np.array([1, 2, 3, 4])) == BoxRef((1.0, 2.0, 3.0, 4.0))  # type: ignore[arg-type]
