import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from maskselect.ops import packed
from maskselect.ops.overlap import pairwise_intersection
from maskselect.ops.rle import decode, encode
from tests.metrics import references as ref

seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def draw(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return tuple(
        np.array([ref.draw_mask(rng, size) for _ in range(rng.integers(0, 5))], bool).reshape(-1, *size)
        for _ in range(2)
    )


def shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a[:, None] & b[None]).sum((2, 3))


@settings(max_examples=300)
@given(seeds, st.integers(1, 40), st.integers(1, 40))
def test_all_ways_count_the_same_pixels(rng: np.random.Generator, height: int, width: int) -> None:
    a, b = draw(rng, (height, width))
    expected = shared(a, b)
    inter, union = packed.pairwise_counts(torch.from_numpy(a), torch.from_numpy(b))
    assert np.array_equal(inter.numpy(), expected)
    assert np.array_equal(union.numpy(), (a[:, None] | b[None]).sum((2, 3)))
    assert np.array_equal(pairwise_intersection(torch.from_numpy(a), torch.from_numpy(b)).numpy(), expected)
    assert np.array_equal(packed.packed_area(packed.pack(a)), a.sum((1, 2)))


def test_a_thousand_pairs_agree_with_pycocotools() -> None:
    rng = np.random.default_rng(1)
    for _ in range(1000):
        a, b = draw(rng, (int(rng.integers(1, 40)), int(rng.integers(1, 40))))
        expected = ref.coco_iou(a, b)
        inter, union = packed.pairwise_counts(torch.from_numpy(a), torch.from_numpy(b))
        assert np.abs((inter / union.clamp(min=1)).numpy() - expected).max(initial=0) < 1e-6
        assert np.array_equal(packed.rle_iou(encode(a), encode(b)), expected)


def test_without_numpy_2_bytes_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = np.random.default_rng(3).random((3, 17, 23)) < 0.5
    words = packed.pack(masks)
    with_count = packed.packed_intersection(words, words)
    monkeypatch.setattr(packed, "_bitwise_count", None)
    assert np.array_equal(packed.packed_intersection(words, words), with_count)
    assert np.array_equal(with_count, shared(masks, masks))


def test_large_masks_are_counted_to_the_pixel() -> None:
    rng = np.random.default_rng(6)
    a, b = (rng.random((2, 1500, 1400)) < share for share in (0.9, 0.5))
    inter, _ = packed.pairwise_counts(torch.from_numpy(a), torch.from_numpy(b))
    assert np.array_equal(inter.numpy(), shared(a, b))


def test_a_view_that_does_not_lie_in_a_row_is_packed_too() -> None:
    masks = torch.rand(3, 8, 12) < 0.5
    turned = masks.transpose(1, 2)
    assert torch.equal(packed.pairwise_counts(turned, turned)[0], packed.pairwise_counts(masks, masks)[0])


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"share one image size, got \(4, 4\) and \(4, 5\)"):
        packed.pairwise_counts(torch.zeros(1, 4, 4, dtype=torch.bool), torch.zeros(1, 4, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="share one image size, got 1 and 2 words"):
        packed.packed_intersection(np.zeros((1, 1), np.uint64), np.zeros((1, 2), np.uint64))
    with pytest.raises(ValueError, match=r"share one image size, got \[\(4, 4\), \(4, 5\)\]"):
        packed.rle_iou(encode(np.zeros((1, 4, 4), bool)), encode(np.zeros((1, 4, 5), bool)))


def test_real_masks_of_coco(shared_data: Path) -> None:
    file = shared_data / "coco128" / "annotations" / "instances_train2017.json"
    annotations = json.loads(file.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in annotations["images"]}
    by_image: dict[int, list] = {}
    for each in annotations["annotations"]:
        by_image.setdefault(each["image_id"], []).append(each["segmentation"])
    compared = 0
    for image_id, segmentations in list(by_image.items())[:40]:
        masks = np.stack([decode(each, sizes[image_id]) for each in segmentations])
        codes = encode(masks)
        counted = packed.pairwise_counts(torch.from_numpy(masks), torch.from_numpy(masks))[0].numpy()
        assert np.array_equal(np.diag(counted), [coco.area({**c, "counts": c["counts"].encode()}) for c in codes])
        compared += counted.size
    assert compared > 0
