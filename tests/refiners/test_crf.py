"""The dense CRF against a naive one, and on images with clear edges."""

import pickle

import numpy as np
import pytest
import torch

from maskselect.refiners import crf
from maskselect.refiners.crf import CrfRefiner
from maskselect.structures.protocols import Cacheable
from maskselect.structures.refiner import Refiner


def naive(image: np.ndarray, mask: np.ndarray, iterations: int = 5) -> np.ndarray:
    """Q of the foreground by Algorithm 1 of Krähenbühl and Koltun (arXiv 1210.5644), pair by pair, in float64.

    Kernels are equation 3, the compatibility is Potts. Two things are as in their published code, not as in the paper:
    j = i is part of the sums, and kernels are divided by the root of both of their sums (symmetric normalisation).
    """
    height, width = mask.shape
    places = [(y, x) for y in range(height) for x in range(width)]
    unary = np.array([[-np.log(0.9 if label == mask[p] else 0.1) for label in (0, 1)] for p in places])
    kernels = []
    for bilateral, weight in ((False, 3.0), (True, 10.0)):
        k = np.zeros((len(places), len(places)))
        for i, p in enumerate(places):
            for j, q in enumerate(places):
                apart = (p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2
                colours = ((image[p].astype(float) - image[q].astype(float)) ** 2).sum()
                k[i, j] = np.exp(-apart / (2 * 50**2) - colours / (2 * 13**2)) if bilateral else np.exp(-apart / 18)
        root = np.sqrt(k.sum(1))
        kernels.append((k / root[:, None] / root[None], weight))
    q = np.exp(-unary)
    q /= q.sum(1, keepdims=True)
    for _ in range(iterations):
        energy = unary.copy()
        for k, weight in kernels:
            message = k @ q
            for label in (0, 1):
                energy[:, label] += sum(weight * message[:, other] for other in (0, 1) if other != label)
        q = np.exp(-energy)
        q /= q.sum(1, keepdims=True)
    return q[:, 1].reshape(height, width)


@pytest.mark.parametrize("kept", [True, False])
def test_inference_is_that_of_a_naive_crf(kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crf, "_CHUNK", 500)
    if not kept:
        monkeypatch.setattr(crf, "_KEPT", 0)
    rng = np.random.default_rng(0)
    image = rng.integers(90, 130, (9, 12, 3), dtype=np.uint8)
    masks = rng.random((2, 9, 12)) > 0.6
    refiner = CrfRefiner()
    logits = refiner._infer(refiner._working(image), torch.from_numpy(masks))
    expected = np.stack([naive(image, mask) for mask in masks])
    np.testing.assert_allclose(torch.sigmoid(logits).numpy(), expected, atol=1e-4)
    refined = CrfRefiner().refine(image, torch.from_numpy(masks))
    assert np.array_equal(refined.numpy(), expected > 0.5)


def disc(side: int) -> tuple[np.ndarray, torch.Tensor]:
    y, x = np.mgrid[:side, :side] - side / 2
    inside = np.hypot(x, y) < side / 4
    return np.where(inside[..., None], (200, 40, 40), (230, 230, 220)).astype(np.uint8), torch.from_numpy(inside)


@pytest.mark.parametrize("side", [64, 200])
def test_a_coarse_mask_moves_to_the_edges(side: int) -> None:
    image, inside = disc(side)
    coarse = torch.zeros(2, 8, 8, dtype=torch.bool)
    coarse[0, 2:6, 2:6] = True
    found = CrfRefiner(side=64).refine(image, coarse)
    overlap = float((found[0] & inside).sum() / (found[0] | inside).sum())
    assert found.shape == (2, side, side) and overlap > 0.95 and not found[1].any()
    assert torch.equal(CrfRefiner(side=64).refine(image, coarse.flip(0)), found.flip(0))


def test_kernels_are_computed_once_per_image(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    kernel = crf._Bilateral
    monkeypatch.setattr(crf, "_Bilateral", lambda features: made.append(len(features)) or kernel(features))
    refiner = CrfRefiner(side=32)
    for side, count in ((64, 1), (64, 1), (48, 2), (64, 3)):
        image, inside = disc(side)
        found = refiner.refine(image, inside[None])
        assert len(made) == count and torch.equal(found, CrfRefiner(side=32).refine(image, inside[None]))
        made.pop()  # that of the new refiner
    assert len(pickle.dumps(refiner)) < 10_000


def test_sizes_settings_and_key() -> None:
    assert isinstance(CrfRefiner(), Refiner) and isinstance(CrfRefiner(), Cacheable)
    assert CrfRefiner().cache_key() == CrfRefiner().cache_key() != CrfRefiner(side=64).cache_key()
    image = np.zeros((30, 300, 3), np.uint8)
    assert CrfRefiner(side=32).refine(image, torch.ones(1, 1, 1, dtype=torch.bool)).all()
    for arguments, message in (
        ({"gt_prob": 0.5}, "gt_prob must be above 0.5"),
        ({"bilateral_srgb": 0.0}, "must be above 0"),
        ({"side": 0}, "side at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            CrfRefiner(**arguments)  # type: ignore[arg-type]
