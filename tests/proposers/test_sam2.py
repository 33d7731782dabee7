"""`Sam2Proposer` against transformers' own models, processor and pipeline: tiny random weights, loaded from folders."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import nms
from transformers import AutoModelForMaskGeneration, Sam2ImageProcessor, Sam2Model, SamConfig, pipeline

from maskselect.ops.boxes import masks_to_boxes_xyxy
from maskselect.ops.overlap import pairwise_iou
from maskselect.proposers.sam2 import Sam2Proposer
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import PromptableProposer
from tests.proposers.tiny_networks import enliven, model_of, prompt_processor, write

OPEN: dict[str, Any] = dict(pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0, points_per_side=3)
KINDS = ("sam2", "sam2_video", "edgetam", "sam3_tracker", "sam3_video")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model of each kind as the hub has one, its weights large enough for logits of both signs."""
    made = {}
    for kind in KINDS:
        torch.manual_seed(0)
        model = model_of(kind)
        enliven(model)
        made[kind] = write(model, tmp_path_factory.mktemp(kind))
        prompt_processor(kind).save_pretrained(made[kind])
    return made


def image_of(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    stripes = np.stack([np.sin(x / 5) + np.cos(y / 7), np.sin((x + y) / 9), np.cos(x / 3) * np.sin(y / 4)], -1)
    noise = np.random.default_rng(0).normal(0, 0.3, stripes.shape)
    return np.clip(127 + 60 * (stripes + noise), 0, 255).astype(np.uint8)


def proposer_of(folder: Path, **changes: Any) -> Sam2Proposer:
    return Sam2Proposer(str(folder), **{**OPEN, "points_per_batch": 4, "device": "cpu", **changes})


def grid(side: int, height: int, width: int) -> Tensor:
    """(side ** 2, 2) pixels, x and y: the centres of cells."""
    steps = (torch.arange(side) + 0.5) / side
    return torch.stack([p.flatten() for p in torch.meshgrid(steps * width, steps * height, indexing="xy")], 1)


@torch.inference_mode()
def asked(kind: str, folder: Path, image: np.ndarray, **prompts: Any) -> tuple[Tensor, Tensor]:
    """The library's own answer: logits (P, 3, H, W) at the image's size, predicted IoU (P, 3)."""
    processor = prompt_processor(kind)
    given = processor(images=image, return_tensors="pt", **prompts)
    sizes = given.pop("original_sizes")
    model: Any = AutoModelForMaskGeneration.from_pretrained(folder).eval()
    out = model(**given)
    logits = processor.post_process_masks(out.pred_masks, sizes, binarize=False)[0]
    return logits, out.iou_scores[0]


def check_equal(found: MaskSet, masks: Tensor, scores: Tensor) -> None:
    """The same masks with the same scores, in whatever order."""
    assert len(found) == len(masks) > 0
    best, place = pairwise_iou(found.masks, masks).max(1)
    assert float(best.min()) > 0.995
    torch.testing.assert_close(found.scores, scores[place], atol=1e-4, rtol=0)
    assert torch.equal(found.scores, found.scores.sort(descending=True).values)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(64, 64), (50, 90), (101, 40)])
def test_everything_mode_is_the_librarys_answer_at_every_point(
    folders: dict[str, Path], kind: str, size: tuple[int, int]
) -> None:
    image = image_of(*size)
    found = proposer_of(folders[kind]).propose(image)
    points = grid(3, *size)[None, :, None].tolist()
    logits, scores = asked(kind, folders[kind], image, input_points=points, input_labels=[[[1]] * 9])
    masks = (logits > 0).flatten(0, 1)
    shown = masks.flatten(1).any(1)
    assert 0.1 < float(masks.float().mean()) < 0.9
    assert found.image_size == size and found.source == kind.split("_", maxsplit=1)[0]
    check_equal(found, masks[shown], scores.flatten()[shown])


def test_exact_mode_filters_as_defined(folders: dict[str, Path]) -> None:
    image, thresholds = image_of(60, 90), dict(pred_iou_thresh=0.42, stability_score_thresh=0.7, box_nms_thresh=0.9)
    found = proposer_of(folders["sam2"], points_per_side=6, mode="exact", **thresholds).propose(image)
    points = grid(6, 60, 90)[None, :, None].tolist()
    logits, scores = asked("sam2", folders["sam2"], image, input_points=points, input_labels=[[[1]] * 36])
    logits, scores = logits.flatten(0, 1), scores.flatten()
    inner, outer = ((logits > offset).flatten(1).sum(1) for offset in (1.0, -1.0))
    good = (scores > 0.42) & (inner / outer.clamp(min=1) >= 0.7) & (logits > 0).flatten(1).any(1)
    assert 0.05 < float(good.float().mean()) < 0.95
    logits, scores = logits[good], scores[good]
    boxes = masks_to_boxes_xyxy(logits > 0) - torch.tensor([0, 0, 1, 1])
    kept = nms(boxes, scores, 0.9)
    assert len(kept) < len(boxes)
    check_equal(found, logits[kept] > 0, scores[kept])
    stability = (inner / outer.clamp(min=1))[good][kept]
    torch.testing.assert_close(found.columns["stability_score"].sort().values, stability.sort().values)


def test_fast_mode_decides_nearly_the_same(folders: dict[str, Path]) -> None:
    thresholds = dict(pred_iou_thresh=0.42, stability_score_thresh=0.7, points_per_side=6)
    exact, fast = (
        proposer_of(folders["sam2"], mode=mode, **thresholds).propose(image_of(60, 90)) for mode in ("exact", "fast")
    )
    assert float((pairwise_iou(exact.masks, fast.masks).max(1).values > 0.9).float().mean()) > 0.8


@pytest.mark.parametrize("crop_n_layers", [0, 1])
def test_everything_mode_is_the_pipelines(folders: dict[str, Path], crop_n_layers: int) -> None:
    """On a square image: transformers places the points of other images wrongly, as if they were padded."""
    image, folder = image_of(96, 96), folders["sam2"]
    made = pipeline(
        "mask-generation",
        model=AutoModelForMaskGeneration.from_pretrained(folder),
        image_processor=Sam2ImageProcessor.from_pretrained(folder),
    )
    theirs = made(
        Image.fromarray(image), points_per_crop=4, points_per_batch=5, crops_n_layers=crop_n_layers,
        pred_iou_thresh=0.4, stability_score_thresh=0.5, crops_nms_thresh=1.0,
    )  # fmt: skip
    masks = torch.stack([torch.as_tensor(mask) for mask in theirs["masks"]]).bool()
    shown = masks.flatten(1).any(1)
    found = proposer_of(
        folder, points_per_side=4, crop_n_layers=crop_n_layers, pred_iou_thresh=0.4, stability_score_thresh=0.5,
        crop_nms_thresh=1.0, mode="exact",
    ).propose(image)  # fmt: skip
    check_equal(found, masks[shown], theirs["scores"][shown])


@pytest.mark.parametrize("kind", KINDS)
def test_points_and_boxes_equal_the_librarys(folders: dict[str, Path], kind: str) -> None:
    image, proposer = image_of(50, 90), proposer_of(folders[kind], points_per_batch=2)
    assert isinstance(proposer, PromptableProposer)
    logits, scores = asked(kind, folders[kind], image, input_points=[[[[30.0, 20.0]]]], input_labels=[[[1]]])
    assert torch.equal(proposer.segment_point(image, (30.0, 20.0)), logits[0, scores[0].argmax()] > 0)
    boxes = torch.tensor([[30.0, 3, 70, 30], [5, 6, 50, 40], [0, 0, 90, 50]])
    logits, scores = asked(kind, folders[kind], image, input_boxes=[boxes.tolist()])
    best, chosen = scores.max(1)
    found = proposer.segment_boxes(image, boxes)
    torch.testing.assert_close(found.scores, best, atol=1e-5, rtol=0)
    expected = logits[torch.arange(3), chosen] > 0
    assert float((found.masks == expected).float().mean()) > 0.999
    assert torch.equal(proposer.segment_box(image, (5, 6, 50, 40)), found.masks[1])
    none = proposer.segment_boxes(image, torch.zeros(0, 4))
    assert len(none) == 0 and none.image_size == (50, 90)


def test_suppression_number_and_mending(folders: dict[str, Path]) -> None:
    image = image_of(60, 90)
    whole = proposer_of(folders["sam2"]).propose(image)
    thinned = proposer_of(folders["sam2"], mask_nms_thresh=0.5).propose(image)
    overlaps = pairwise_iou(thinned.masks, thinned.masks).fill_diagonal_(0)
    assert 1 < len(thinned) < len(whole) and float(overlaps.max()) < 0.55
    assert len(proposer_of(folders["sam2"], max_candidates=2).propose(image)) == 2
    mended = proposer_of(folders["sam2"], min_mask_region_area=30).propose(image)
    assert len(mended) > 0 and mended.masks.flatten(1).any(1).all()


@torch.inference_mode()
def test_refining_asks_by_box_and_logits(folders: dict[str, Path]) -> None:
    """Each mask is the library's single answer to the box and the logits that were found before."""
    image, folder = image_of(64, 64), folders["sam2"]
    proposer = proposer_of(folder, points_per_side=1, max_candidates=1)
    before = proposer._candidates(image)
    after = proposer_of(folder, points_per_side=1, refine=True).propose(image)
    model: Any = AutoModelForMaskGeneration.from_pretrained(folder).eval()
    given = prompt_processor("sam2")(images=image, input_boxes=[before.boxes.tolist()], return_tensors="pt")
    given.pop("original_sizes")
    model.mask_decoder.dynamic_multimask_via_stability = False
    out = model(**given, input_masks=before.low[:, None], multimask_output=False)
    masks = torch.nn.functional.interpolate(out.pred_masks[0], (64, 64), mode="bilinear")[:, 0] > 0
    assert float(pairwise_iou(masks, after.masks).max()) > 0.99
    assert float((after.scores - out.iou_scores.flatten()).abs().min()) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_half_the_digits_change_little(folders: dict[str, Path], kind: str) -> None:
    whole, half = (proposer_of(folders[kind], precision=p).propose(image_of(50, 90)) for p in ("float32", "bfloat16"))
    best, place = pairwise_iou(whole.masks, half.masks).max(1)
    assert float(best.mean()) > 0.9 and half.scores.dtype == torch.float32
    assert float((whole.scores - half.scores[place]).abs().median()) < 0.02


def test_little_memory_changes_nothing(folders: dict[str, Path]) -> None:
    image = image_of(50, 90)
    whole = proposer_of(folders["sam2"]).propose(image)
    poor = proposer_of(folders["sam2"], memory_budget_mb=1, points_per_batch=10_000)
    assert poor.network.decoder.batch < 10_000
    assert torch.equal(poor.propose(image).masks, whole.masks)


def test_columns_and_nothing_found(folders: dict[str, Path]) -> None:
    image, proposer = image_of(300, 150), proposer_of(folders["sam2"])
    found = proposer.propose(image)
    assert found.image_size == (300, 150) and len(found) > 0
    assert set(found.columns) == {"predicted_iou", "stability_score"}
    for changes in ({"pred_iou_thresh": 1e6}, {"stability_score_thresh": 1e6}):
        for refine in (False, True):
            none = proposer_of(folders["sam2"], **changes, refine=refine, mask_nms_thresh=0.8).propose(image)
            assert len(none) == 0 and none.image_size == (300, 150)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (2, 60)])
def test_very_small_images(folders: dict[str, Path], size: tuple[int, int]) -> None:
    proposer = proposer_of(folders["sam2"], crop_n_layers=0)
    assert proposer.propose(image_of(*size)).image_size == size
    assert proposer.segment_box(image_of(*size), (0, 0, size[1], size[0])).shape == size


@pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint8), np.zeros((0, 8, 3), np.uint8), np.zeros((8, 8, 3))])
def test_images_of_other_kinds_are_refused(folders: dict[str, Path], image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be"):
        proposer_of(folders["sam2"]).propose(image)


def test_models_that_will_not_do(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none' could not be loaded.*hf download facebook/sam2\.1-hiera-large"):
        Sam2Proposer(str(tmp_path / "none"), device="cpu")
    SamConfig().save_pretrained(tmp_path / "sam")
    with pytest.raises(
        ValueError, match=r"not a SAM 2 model.*hf download facebook.*model_type 'sam', expected edgetam"
    ):
        Sam2Proposer(str(tmp_path / "sam"), device="cpu")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="not a SAM 2 model"):
        Sam2Proposer(str(tmp_path), device="cpu")


def test_weights_that_are_not_whole(folders: dict[str, Path], tmp_path: Path) -> None:
    model = Sam2Model.from_pretrained(folders["sam2"])
    state = {name: tensor for name, tensor in model.state_dict().items() if "iou_prediction_head" not in name}
    model.save_pretrained(tmp_path, state_dict=state)
    prompt_processor("sam2").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks 6 tensors that its config asks for: mask_decoder.iou_prediction_head"):
        Sam2Proposer(str(tmp_path), device="cpu")
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match="not a SAM 2 model"):
        Sam2Proposer(str(tmp_path), device="cpu")
    file.unlink()
    with pytest.raises(FileNotFoundError, match="could not be loaded"):
        Sam2Proposer(str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"points_per_side": 0}, "points_per_side and points_per_batch must be at least 1"),
        ({"mode": "exact", "precision": "bfloat16"}, "mode exact needs precision float32, got bfloat16"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Sam2Proposer("none", **settings)
