"""`CoDetrProposer` from file to masks, at tiny width."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from maskselect.backends.building import find_class
from maskselect.ops.overlap import pairwise_iou
from maskselect.proposers.codetr import importer
from maskselect.proposers.codetr.config import VARIANTS, CoDetrConfig
from maskselect.proposers.codetr.detections import paste_masks, soft_nms, top_detections
from maskselect.proposers.codetr.frame import to_frame
from maskselect.proposers.codetr.proposer import CoDetrProposer
from maskselect.structures.protocols import Proposer
from tests.proposers.codetr.test_names import TINY, official_tensors, tiny_model

ROOT = Path(__file__).resolve().parents[3]
SQUARE = CoDetrConfig(**(vars(TINY) | {"square_canvas": True, "short_side": 96}))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the published names, of a tiny model."""
    path = tmp_path_factory.mktemp("codetr") / "pytorch_model.pth"
    torch.save({"state_dict": official_tensors(tiny_model())}, path)
    return path


@pytest.fixture(params=[TINY, SQUARE], ids=["coco", "lvis"])
def variant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Either published variant, as small as the file."""
    name = "lvis" if request.param.square_canvas else "coco"
    monkeypatch.setitem(VARIANTS, name, request.param)
    return name


def image_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def proposer_of(path: Path, variant: str, **changes: Any) -> CoDetrProposer:
    return CoDetrProposer(path, variant, **({"score_threshold": 0.0, "max_candidates": None} | changes))


@pytest.mark.parametrize("size", [(40, 60), (60, 40), (96, 96), (200, 150), (3, 70)])
def test_from_file_to_masks(published: Path, variant: str, size: tuple[int, int]) -> None:
    found = proposer_of(published, variant).propose(image_of(*size))
    assert found.image_size == size and found.masks.dtype == torch.bool and found.source == "codetr"
    assert 0 < len(found) <= TINY.queries
    assert set(found.columns) == {"label", "box", "box_score"}
    assert found.columns["label"].dtype == torch.int64 and int(found.columns["label"].max()) < TINY.classes
    assert found.columns["box"].shape == (len(found), 4)
    assert found.masks.flatten(1).any(1).all()
    assert ((found.scores > 0) & (found.scores <= found.columns["box_score"])).all()
    assert torch.equal(found.scores, found.scores.sort(descending=True).values)
    x0, y0, x1, y1 = found.columns["box"].T
    assert (x0 >= 0).all() and (y0 >= 0).all() and (x1 <= size[1]).all() and (y1 <= size[0]).all()
    for mask, box in zip(found.masks, found.columns["box"], strict=True):
        rows, columns = mask.nonzero().T
        assert columns.min() >= box[0] - 1 and columns.max() <= box[2] + 1
        assert rows.min() >= box[1] - 1 and rows.max() <= box[3] + 1


def test_boxes_are_in_image_pixels_and_scores_are_products(published: Path, variant: str) -> None:
    proposer, image = proposer_of(published, variant), image_of(40, 60)
    found, frame = proposer.propose(image), to_frame(image, proposer.model.config)
    with torch.inference_mode():
        seen = proposer.model.detect(frame.pixels, frame.padding)
        best = soft_nms(top_detections(seen.logits[0], seen.boxes[0], frame.extent))
        logits, iou = proposer.model.segment(seen.maps, best.boxes_xyxy, best.labels, 7)
    scale = torch.tensor([*frame.scale, *frame.scale])
    edges = torch.tensor([60.0, 40, 60, 40])
    expected = (best.boxes_xyxy / scale).clamp(min=0).minimum(edges)
    rows = [int((expected - box).abs().sum(1).argmin()) for box in found.columns["box"]]
    torch.testing.assert_close(found.columns["box"], expected[rows], atol=1e-4, rtol=1e-4)
    # Masks without a pixel, for example in the padding of a square canvas, are left out.
    assert len(found) == int(paste_masks(logits, best.boxes_xyxy / scale, (40, 60)).flatten(1).any(1).sum()) > 10
    products = (best.scores * iou).tolist()
    assert all(min(abs(score - p) for p in products) < 1e-5 for score in found.scores.tolist())


def test_threshold_cap_and_chunks(published: Path, variant: str) -> None:
    image = image_of(64, 64)
    every = proposer_of(published, variant).propose(image)
    threshold = float(every.scores.median())
    above = proposer_of(published, variant, score_threshold=threshold).propose(image)
    wanted = every.keep(every.scores >= threshold)
    assert 0 < len(wanted) < len(every) and torch.equal(above.masks, wanted.masks)
    assert torch.equal(above.columns["label"], wanted.columns["label"])
    capped = proposer_of(published, variant, max_candidates=3).propose(image)
    assert 0 < len(capped) <= 3
    assert set(capped.columns["box_score"].tolist()) <= set(every.columns["box_score"].topk(6).values.tolist())
    parts = proposer_of(published, variant, regions_per_chunk=2).propose(image)
    assert torch.equal(parts.masks, every.masks)
    none = proposer_of(published, variant, score_threshold=1.0).propose(image)
    assert len(none) == 0 and none.image_size == (64, 64)


def test_masks_that_are_nearly_one_become_one(published: Path, variant: str) -> None:
    image = image_of(64, 64)
    every = proposer_of(published, variant).propose(image)
    before = pairwise_iou(every.masks, every.masks).fill_diagonal_(0)
    limit = float(before.max()) / 2
    assert limit > 0
    thinned = proposer_of(published, variant, mask_nms_thresh=limit).propose(image)
    after = pairwise_iou(thinned.masks, thinned.masks).fill_diagonal_(0)
    assert 0 < len(thinned) < len(every) and float(after.max()) <= limit


def test_reduced_precision_finds_much_the_same(published: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, "coco", TINY)
        exact, reduced = proposer_of(published, "coco"), proposer_of(published, "coco", precision="bf16")
    frame = to_frame(image_of(64, 64), TINY)
    with torch.inference_mode():
        one = exact.model.detect(frame.pixels, frame.padding)
        other = reduced.model.detect(frame.pixels, frame.padding, precision=torch.bfloat16)
    assert other.maps[0].dtype == torch.float32
    torch.testing.assert_close(one.maps[0], other.maps[0], atol=0.3, rtol=0.1)
    assert not torch.equal(one.maps[0], other.maps[0])
    assert len(reduced.propose(image_of(64, 64))) > 0


def test_the_protocol(published: Path, variant: str) -> None:
    assert isinstance(proposer_of(published, variant), Proposer)


@pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint8), np.zeros((0, 8, 3), np.uint8), np.zeros((8, 8, 3))])
def test_images_of_other_kinds_are_refused(published: Path, variant: str, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="image must be"):
        proposer_of(published, variant).propose(image)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"regions_per_chunk": 0}, "at least 1"),
        ({"max_candidates": 0}, "at least 1"),
        ({"score_threshold": 1.5}, "between 0 and 1"),
        ({"precision": "fp8"}, "fp32 or bf16"),
    ],
)
def test_arguments_out_of_range_are_refused(published: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        proposer_of(published, "coco", **change)


def test_the_paper_config_names_what_exists() -> None:
    config = yaml.safe_load((ROOT / "configs" / "paper" / "overlays" / "codetr.yaml").read_text())
    proposer = config["model"]["task"]["init_args"]["proposer"]
    assert find_class(proposer["class_path"]) is CoDetrProposer
    arguments = proposer["init_args"]
    assert arguments["variant"] in importer.REPOSITORIES
    with pytest.raises(FileNotFoundError, match="hf download"):
        CoDetrProposer(**(arguments | {"checkpoint": "nowhere.pth", "device": "cpu"}))
