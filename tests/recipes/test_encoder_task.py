"""The pretraining task of encoders: its masks, their labels, and that it learns and freezes again."""

import pytest
import torch
from torch import Tensor

from maskselect.encoders.timm import TimmEncoder
from maskselect.recipes.compact import augment as scene_augment
from maskselect.recipes.compact import encoder as encoder_task
from maskselect.recipes.compact import encoder_masks
from maskselect.recipes.compact.encoder import ATTRIBUTES, IGNORE, EncoderTask
from maskselect.recipes.compact.encoder_masks import CLEAN, JUNK, NOISY, clean_masks, corrupt, mixed_masks, object_masks
from maskselect.scenes.spec import CATEGORIES
from maskselect.structures.batches import MaskBatch
from maskselect.structures.protocols import Learner
from maskselect.training.muon import Muon, muon_groups


def scene_index() -> Tensor:
    """Two images of 64 px: two squares, and one."""
    index = torch.zeros(2, 64, 64, dtype=torch.uint8)
    index[0, 4:24, 4:24] = 1
    index[0, 30:60, 30:60] = 2
    index[1, 10:40, 20:50] = 1
    return index


@pytest.fixture
def batch(monkeypatch: pytest.MonkeyPatch) -> MaskBatch:
    rows = {"a": ((3, 2, 1, 0), (5, 4, 0, 2)), "b": ((7, 9, 3, IGNORE),)}
    monkeypatch.setattr(encoder_task, "object_classes", rows.__getitem__)
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator)
    masks = [object_masks(scene_index(), 2)[0], object_masks(scene_index(), 1)[1]]
    return MaskBatch(image, torch.full((2, 2), 64), masks, ["a", "b"])


def tiny_task() -> EncoderTask:
    torch.manual_seed(0)
    arguments = {"layers": [1, 1, 1, 1], "channels": [8, 16, 24, 32], "stem_width": 4, "stem_type": "deep"}
    return EncoderTask(TimmEncoder("e", "resnet18", 64, layers=[1, 2], model_args=arguments))


def test_mixed_masks_have_the_right_labels() -> None:
    torch.manual_seed(0)
    masks = mixed_masks(scene_index(), 2, 4)
    assert masks.masks.shape == (2, 8, 64, 64)
    assert masks.kind[0].tolist() == [CLEAN] * 2 + [NOISY] * 2 + [JUNK] * 4
    assert (masks.iou[0, :2] == 1).all()
    assert masks.best[0, :2].tolist() == [0, 1]
    assert masks.valid[0, :4].all()
    assert not masks.valid[1, 1]  # the second image has no second object
    by_hand = (masks.masks[0, 2] & object_masks(scene_index(), 2)[0, 0]).sum() / masks.masks[0, 2].sum()
    assert masks.share[0, 2] >= by_hand - 1e-6


def test_corrupting_keeps_the_shape_and_empties_no_mask() -> None:
    torch.manual_seed(0)
    objects = object_masks(scene_index(), 2)
    changed = torch.zeros(2, 2, dtype=torch.bool)
    for _ in range(30):
        corrupted = corrupt(objects)
        assert corrupted.shape == objects.shape
        assert corrupted.dtype == torch.bool
        present = objects.flatten(2).any(2)
        assert corrupted.flatten(2).any(2)[present].all()
        changed |= (corrupted != objects).flatten(2).any(2)
    assert changed[0].all()


@pytest.mark.parametrize("way", ["_erode", "_dilate", "_shift", "_box", "_cut", "_stripes"])
def test_corrupted_masks_overlap_their_object(way: str) -> None:
    torch.manual_seed(0)
    square = object_masks(scene_index(), 1)[:1, 0]
    for _ in range(10):
        out = getattr(encoder_masks, way)(square)
        assert (out & square).any()


def test_targets_ignore_what_the_mean_feature_cannot_show(batch: MaskBatch) -> None:
    task = tiny_task()
    labels = encoder_task.scene_labels(batch)
    masks = clean_masks(scene_index(), 2)
    targets = task.targets(masks, labels, with_size=True)
    assert targets["category"][0].tolist() == [3, 5]
    assert targets["size"][1, 0] == IGNORE
    background = encoder_masks.LabelledMasks(
        masks.masks, torch.full_like(masks.kind, JUNK), masks.valid, torch.zeros(2, 2), masks.best, torch.zeros(2, 2)
    )
    assert (task.targets(background, labels, with_size=True)["category"] == len(CATEGORIES)).all()
    assert (task.targets(masks, labels, with_size=False)["size"] == IGNORE).all()


def test_it_overfits_a_batch(batch: MaskBatch) -> None:
    task = tiny_task()
    assert isinstance(task, Learner)
    optimiser = Muon(muon_groups(task, ["heads"]), lr=5e-3)
    first = float(task.loss(batch)["loss"])
    for _ in range(25):
        losses = task.loss(batch)
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
    assert float(losses["loss"]) < 0.7 * first
    scores = task.validate(batch)
    assert set(ATTRIBUTES) | {"joint", "quality_error"} <= scores.keys()
    assert all(0 <= float(value) <= 1 for value in scores.values())
    task.encoder.freeze()
    assert not any(p.requires_grad for p in task.encoder.parameters())
    assert not task.encoder.training


def test_augmentations_keep_picture_and_index_together() -> None:
    torch.manual_seed(0)
    index = scene_index()
    images = (index[:, None] > 0).float().expand(-1, 3, -1, -1).contiguous()
    for change in (scene_augment.flip, scene_augment.rescale):
        moved, labels = change(images, index)
        inside = moved[:, 0][labels > 0]
        assert inside.mean() > 0.95  # the white squares match the index map
        assert labels.dtype == torch.uint8
    swapped = scene_augment.swap_background(images, index, share=1.0)
    assert (swapped[:, 0][index > 0] == 1).all()
    light = scene_augment.vary_light(images * 0.5)
    assert light.shape == images.shape
    assert light.min() >= 0
    assert light.max() <= 1
