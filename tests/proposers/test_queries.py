"""Queries of Mask2Former and OneFormer as candidates: against the library's own instances, on tiny random models."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    DetrConfig,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    OneFormerConfig,
    OneFormerForUniversalSegmentation,
    OneFormerImageProcessor,
    OneFormerProcessor,
    SwinConfig,
)

from maskselect.lmm.tokenizer import load_compact_in_transformers
from maskselect.ops.overlap import pairwise_iou
from maskselect.proposers.queries import QueryProposer, _without_padding
from maskselect.structures.protocols import Proposer


def swin() -> SwinConfig:
    return SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Mask2Former as the hub has one."""
    torch.manual_seed(0)
    config = Mask2FormerConfig(
        backbone_config=swin(), feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=16, num_queries=7, num_labels=3,
        train_num_points=10,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("mask2former")
    Mask2FormerForUniversalSegmentation(config).save_pretrained(path)
    Mask2FormerImageProcessor(size={"height": 64, "width": 64}, num_labels=3).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def oneformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random OneFormer as the hub has one: the list of class names that its processor reads is elsewhere."""
    torch.manual_seed(0)
    config = OneFormerConfig(
        backbone_config=swin(), conv_dim=32, mask_dim=32, hidden_dim=32, encoder_feedforward_dim=16, encoder_layers=1,
        decoder_layers=2, num_attention_heads=2, dim_feedforward=16, num_queries=7, num_labels=3, train_num_points=10,
        task_seq_len=20, text_encoder_width=16, text_encoder_context_length=20, text_encoder_num_layers=1,
        text_encoder_vocab_size=100,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("oneformer")
    OneFormerForUniversalSegmentation(config).save_pretrained(path)
    names = tmp_path_factory.mktemp("elsewhere") / "names.json"
    names.write_text(json.dumps({str(k): {"name": f"thing {k}", "isthing": 1} for k in range(3)}))
    images = OneFormerImageProcessor(
        size={"shortest_edge": 48, "longest_edge": 96}, repo_path=str(names.parent), class_info_file=names.name,
        num_text=4, num_labels=3,
    )  # fmt: skip
    OneFormerProcessor(images, load_compact_in_transformers(), task_seq_length=20).save_pretrained(path)
    names.unlink()
    return path


@torch.inference_mode()
def answer(folder: Path, task: str) -> Any:
    """OneFormer's own answer to a task, given the words as numbers by hand."""
    model = OneFormerForUniversalSegmentation.from_pretrained(folder).eval()
    images = OneFormerImageProcessor(size={"shortest_edge": 48, "longest_edge": 96})
    given = images(image(), [task], return_tensors="pt")
    ids = load_compact_in_transformers()(f"the task is {task}")["input_ids"]
    words = torch.tensor([ids + [0] * (20 - len(ids))])
    return model(pixel_values=given["pixel_values"], pixel_mask=given["pixel_mask"], task_inputs=words)


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


@pytest.mark.parametrize("task", ["instance", "panoptic", "semantic"])
def test_queries_of_oneformer_are_the_librarys(oneformer: Path, task: Any) -> None:
    proposer = QueryProposer(str(oneformer), score_thresh=0.0, device="cpu", task=task)
    found = proposer.propose(image())
    assert found.image_size == (48, 80) and 0 < len(found) <= 7
    out = answer(oneformer, task)
    logits = torch.nn.functional.interpolate(out.masks_queries_logits, (48, 80), mode="bilinear")[0]
    chances, labels = out.class_queries_logits[0].softmax(-1)[:, :-1].max(-1)
    inside = torch.stack([(one.sigmoid()[one > 0]).mean() for one in logits])
    shown = (logits > 0).flatten(1).any(1)
    scores, order = (chances * inside)[shown].sort(descending=True)
    torch.testing.assert_close(found.scores, scores, atol=1e-5, rtol=0)
    assert torch.equal(found.columns["label"], labels[shown][order])
    assert float((found.masks == (logits > 0)[shown][order]).float().mean()) > 0.999


def test_segments_of_oneformer_lie_in_candidates(oneformer: Path) -> None:
    """The library's panoptic segments give each pixel to the surest query: where one is sure, its candidate has it."""
    found = QueryProposer(str(oneformer), score_thresh=0.0, device="cpu", task="panoptic").propose(image())
    out = answer(oneformer, "panoptic")
    theirs = OneFormerImageProcessor().post_process_panoptic_segmentation(
        out, threshold=0.0, mask_threshold=0.0, overlap_mask_area_threshold=0.0, target_sizes=[(48, 80)]
    )[0]
    chances = torch.nn.functional.interpolate(out.masks_queries_logits.sigmoid(), (48, 80), mode="bilinear")[0]
    segments = [
        ((theirs["segmentation"] == info["id"]) & (chances.amax(0) > 0.5), info["label_id"])
        for info in theirs["segments_info"]
    ]
    assert sum(int(segment.sum()) for segment, _ in segments) > 500
    for segment, label in segments:
        covered: Tensor = (found.masks & segment).flatten(1).sum(1) / segment.sum().clamp(min=1)
        assert not segment.any() or float(covered[found.columns["label"] == label].max()) > 0.9


def test_tasks_differ_and_instance_is_the_first(oneformer: Path) -> None:
    plain, instance, panoptic = (
        QueryProposer(str(oneformer), score_thresh=0.0, device="cpu", task=task).propose(image())
        for task in (None, "instance", "panoptic")
    )
    assert torch.equal(plain.masks, instance.masks) and torch.equal(plain.scores, instance.scores)
    assert not torch.equal(panoptic.scores[:3], instance.scores[:3])


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


def test_models_that_are_not_there(tmp_path: Path, oneformer: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none' could not be loaded.*hf download facebook/mask2former"):
        QueryProposer(str(tmp_path / "none"))
    for path in oneformer.glob("*.json"):
        if "tokenizer" not in path.name:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(FileNotFoundError, match="could not be loaded"):
        QueryProposer(str(tmp_path))


def test_models_of_another_kind_and_tasks_that_are_not_theirs(tmp_path: Path, folder: Path) -> None:
    DetrConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"not a model with mask queries such as .*model_type 'detr', expected mask2f"):
        QueryProposer(str(tmp_path))
    with pytest.raises(ValueError, match=r"task 'panoptic' was given but .* is a mask2former model"):
        QueryProposer(str(folder), task="panoptic")
    with pytest.raises(ValueError, match="task 'things' is unknown; expected one of instance, panoptic, semantic"):
        QueryProposer(str(folder), task="things")  # type: ignore[arg-type]


def test_images_of_other_kinds_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="image must be"):
        QueryProposer(str(folder), device="cpu").propose(np.zeros((8, 8), np.uint8))
