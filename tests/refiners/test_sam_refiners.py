"""Refiners by SAM: prompts and masks against the package's predictor, determinism, settings."""

import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt
from segment_anything import SamPredictor

from maskselect.backends import sam as backend
from maskselect.backends.checkpoints import write_checkpoint
from maskselect.refiners.sam import IterativeSamRefiner, SamRefiner, distance_prompts
from maskselect.refiners.sam_image import SamImage
from maskselect.structures.needs import StatesNeeds
from maskselect.structures.protocols import Cacheable
from maskselect.structures.refiner import Refiner
from tests.backends.sam_package import to_package

TINY: dict[str, Any] = dict(image_size=64, patch_size=16, embed_dim=16, depth=1, num_heads=2, window_size=0)
TINY |= dict(prompt_dim=16, global_attn_indexes=[0], decoder_mlp_dim=16, iou_head_hidden_dim=16)
SIZES = [(64, 64), (48, 80), (100, 70)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("sam") / "tiny.safetensors"
    write_checkpoint(path, backend.build_sam(**TINY).state_dict(), {"system": "sam", "config": TINY})
    return path


@pytest.fixture(scope="module", params=[SamRefiner, IterativeSamRefiner])
def refiner(request: pytest.FixtureRequest, checkpoint: Path) -> Any:
    return request.param(checkpoint)


def image_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def masks_of(count: int, height: int = 8, width: int = 8) -> torch.Tensor:
    return torch.rand(count, height, width, generator=torch.Generator().manual_seed(1)) > 0.6


@pytest.mark.parametrize("size", SIZES)
def test_a_refiner_gives_masks_at_the_images_size(refiner: Any, size: tuple[int, int]) -> None:
    assert isinstance(refiner, Refiner) and isinstance(refiner, Cacheable) and isinstance(refiner, StatesNeeds)
    masks = masks_of(4)
    masks[1] = False
    masks[2] = True
    found = refiner.refine(image_of(*size), masks)
    assert found.shape == (4, *size) and found.dtype == torch.bool and not found[1].any()
    assert refiner.refine(image_of(*size), masks[:0]).shape == (0, *size)


def test_a_mask_is_refined_by_itself_and_always_the_same(refiner: Any) -> None:
    image, masks = image_of(48, 80), masks_of(3)
    together = refiner.refine(image, masks)
    other = refiner.refine(image_of(30, 30), masks)
    again = torch.cat([refiner.refine(image, mask[None]) for mask in masks.flip(0)]).flip(0)
    assert torch.equal(together, again) and other.shape == (3, 30, 30)
    copied = pickle.loads(pickle.dumps(refiner))
    assert torch.equal(copied.refine(image, masks), together) and copied.cache_key() == refiner.cache_key()


@pytest.mark.parametrize("size", SIZES)
def test_prompts_and_masks_are_those_of_the_package(checkpoint: Path, size: tuple[int, int]) -> None:
    sam = backend.load_sam("compact", checkpoint)
    image = image_of(*size)
    ours, theirs = SamImage(sam, image), SamPredictor(to_package(sam))
    theirs.set_image(image)
    points, labels = np.array([[5, 6], [40, 30], [12, 3]]), np.array([1, 1, 0])
    low = np.random.default_rng(2).normal(0, 3, (1, ours.low, ours.low)).astype(np.float32)
    for box in (None, np.array([4, 5, 50, 40])):
        for several in (False, True):
            masks, iou, logits = theirs.predict(points, labels, box, low, multimask_output=several)
            given = None if box is None else tuple(box.tolist())
            found, scores = ours.predict(points, labels, given, torch.from_numpy(low[0]))
            rows = slice(1, None) if several else slice(0, 1)
            np.testing.assert_allclose(found[rows].detach().numpy(), logits, atol=2e-4)
            np.testing.assert_allclose(scores[rows].detach().numpy(), iou, atol=1e-4)
            drawn = torch.stack([ours.draw(one) for one in found[rows]]).numpy()
            assert (drawn == masks).mean() > 0.999


def test_three_calls_feed_the_logits_back(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    predict = SamImage.predict

    def noted(self: SamImage, points: Any, labels: Any, box: Any = None, mask: Any = None) -> Any:
        found = predict(self, points, labels, box, mask)
        calls.append((points, labels, box, mask, found[0]))
        return found

    monkeypatch.setattr(SamImage, "predict", noted)
    coarse = torch.zeros(1, 4, 4, dtype=torch.bool)
    coarse[0, 1:3, 1:4] = True
    SamRefiner(checkpoint).refine(image_of(64, 64), coarse)
    assert len(calls) == 3
    points, labels, box, first, _ = calls[0]
    assert box is None and labels.tolist() == [1] * 10 + [0] * 10
    full = coarse[0].numpy().repeat(16, 0).repeat(16, 1)
    assert full[points[:10, 1], points[:10, 0]].all() and not full[points[10:, 1], points[10:, 0]].any()
    assert len({tuple(point) for point in points.tolist()}) == 20
    assert first.min() == pytest.approx(-6.9068, abs=1e-4) and first.max() == pytest.approx(6.9068, abs=1e-4)
    for before, after in pairwise(calls):
        assert after[0] is points and torch.equal(after[3], before[4][0])


def test_the_two_mask_prompts_differ_in_the_padding(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[torch.Tensor] = []
    predict = SamImage.predict
    monkeypatch.setattr(
        SamImage, "predict", lambda self, *a, mask: (prompts.append(mask), predict(self, *a, mask=mask))[1]
    )
    coarse = torch.ones(1, 4, 4, dtype=torch.bool)
    for kind in ("padded", "stretched"):
        refined = SamRefiner(checkpoint, mask_prompt=kind, calls=1)  # type: ignore[arg-type]
        refined.refine(image_of(32, 64), coarse)
    padded, stretched = prompts
    assert (padded[:8] > 6.9).all() and (padded[8:] == 0).all() and (stretched > 6.9).all()


def test_points_depend_on_seed_and_mask_alone(checkpoint: Path) -> None:
    mask = masks_of(1, 40, 40)[0].numpy()
    first, second = SamRefiner(checkpoint), SamRefiner(checkpoint, seed=1)
    same, other = SamRefiner(checkpoint)._draw_points(mask)[0], second._draw_points(mask)[0]
    assert np.array_equal(first._draw_points(mask)[0], same) and not np.array_equal(same, other)
    assert first.cache_key() != second.cache_key()
    few = np.zeros((5, 5), bool)
    few[0, :3] = True
    points, labels = first._draw_points(few)
    assert labels.tolist() == [1] * 3 + [0] * 10 and sorted(points[:3].tolist()) == [[0, 0], [1, 0], [2, 0]]


@given(st.integers(0, 10_000), st.integers(2, 20), st.integers(2, 20))
@settings(max_examples=50)
def test_distance_prompts_are_the_innermost_pixels(seed: int, height: int, width: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) > 0.4
    mask[0, 0] = True
    points, labels, (x0, y0, x1, y1) = distance_prompts(mask)
    box = mask[y0 : y1 + 1, x0 : x1 + 1]
    assert box.sum() == mask.sum() and box[0].any() and box[-1].any() and box[:, 0].any() and box[:, -1].any()
    assert labels.tolist() == [1, 0][: 1 if box.all() else 2]
    for (x, y), inside in zip(points, labels, strict=True):
        side = mask if inside else ~mask
        if not mask.all():
            distance = distance_transform_edt(side)
            window = distance if inside else distance[y0 : y1 + 1, x0 : x1 + 1]
            assert side[y, x] and distance[y, x] == pytest.approx(window.max(), rel=1e-5)


def test_the_gaussian_falls_off_from_the_innermost_pixel(checkpoint: Path) -> None:
    refiner = IterativeSamRefiner(checkpoint)
    with torch.inference_mode():
        image = SamImage(refiner.sam, image_of(32, 64))
    mask = torch.zeros(32, 64, dtype=torch.bool)
    mask[8:24, 16:48] = True
    low = refiner._gaussian(image, mask)
    assert (low[8:] == -30).all() and low.max() == pytest.approx(30) and low[3, 8] > low[2, 4] > 0


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (SamRefiner, {"points": -1}, "points must be at least 0"),
        (SamRefiner, {"calls": 0}, "calls at least 1"),
        (SamRefiner, {"mask_prompt": "round"}, "mask_prompt 'round' is unknown; expected one of padded, stretched"),
        (IterativeSamRefiner, {"iterations": 0}, "iterations must be at least 1"),
    ],
)
def test_bad_settings(kind: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**arguments)


def test_bad_masks(refiner: Any) -> None:
    with pytest.raises(ValueError, match=r"masks must be \(M, h, w\) bool, got \(1, 4, 4\) torch.float32"):
        refiner.refine(image_of(64, 64), torch.zeros(1, 4, 4))


def test_missing_weights_are_needs() -> None:
    (need,) = SamRefiner.needs({"model_type": "vit_h", "checkpoint": "gone/sam_vit_h_4b8939.pth"})
    assert need.kind == "weights"
