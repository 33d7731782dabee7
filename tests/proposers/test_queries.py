"""Mask2Former's queries as candidates: against the library's own instances, on a tiny random model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessor, SwinConfig

from maskselect.ops.overlap import pairwise_iou
from maskselect.proposers.queries import QueryProposer, _without_padding
from maskselect.structures.protocols import Proposer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Mask2Former as the hub has one."""
    torch.manual_seed(0)
    swin = SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=swin, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=16, num_queries=7, num_labels=3,
        train_num_points=10,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("mask2former")
    Mask2FormerForUniversalSegmentation(config).save_pretrained(path)
    Mask2FormerImageProcessor(size={"height": 64, "width": 64}, num_labels=3).save_pretrained(path)
    return path


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)


def test_queries_are_the_librarys_instances(folder: Path) -> None:
    proposer = QueryProposer(str(folder), score_thresh=0.0, device="cpu")
    assert isinstance(proposer, Proposer)
    found = proposer.propose(image())
    assert found.image_size == (48, 80) and found.source == "queries" and 0 < len(found) <= 7
    assert torch.equal(found.scores, found.scores.sort(descending=True).values) and float(found.scores.max()) <= 1
    given = proposer.processor(images=image(), return_tensors="pt")
    with torch.inference_mode():
        out = proposer.model(**given)
        theirs = proposer.processor.post_process_instance_segmentation(
            out, threshold=0.0, target_sizes=[(48, 80)], return_binary_maps=True
        )[0]
    masks = torch.stack([m.bool() for m in theirs["segmentation"]])
    # The library goes by way of 384x384, nearest neighbour, and lists a query once a class.
    assert float(pairwise_iou(found.masks, masks).max(1).values.median()) > 0.9
    best = max(info["score"] for info in theirs["segments_info"])
    assert float(found.scores.max()) == pytest.approx(best, abs=0.02)


def test_thresholds_and_number(folder: Path) -> None:
    assert len(QueryProposer(str(folder), score_thresh=1.0, device="cpu").propose(image())) == 0
    few = QueryProposer(str(folder), score_thresh=0.0, max_candidates=2, device="cpu").propose(image())
    assert len(few) == 2 and few.columns["label"].dtype == torch.int64
    with pytest.raises(ValueError, match="score_thresh must be between 0 and 1"):
        QueryProposer(str(folder), score_thresh=2)


def test_padding_is_left_out() -> None:
    logits = torch.arange(64.0).reshape(1, 8, 8)
    marked = torch.zeros(1, 32, 32, dtype=torch.int64)
    marked[:, :24, :16] = 1
    assert torch.equal(_without_padding(logits, marked), logits[:, :6, :4])
    assert torch.equal(_without_padding(logits, None), logits)


def test_models_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="hf download"):
        QueryProposer(str(tmp_path / "none"))
