"""The task that trains the decoder of points, its cache of maps, and the proposer that reads its checkpoint."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from maskselect.backends.checkpoints import write_checkpoint
from maskselect.decoders.points import PointFeatures, PointMaskDecoder
from maskselect.encoders.compact import ConvEncoder
from maskselect.ops.images import cornered_image
from maskselect.ops.masks import upsample_logits
from maskselect.proposers.loading import identify_proposer, load_proposer
from maskselect.proposers.points import PointMaskProposer
from maskselect.proposers.store import proposer_key
from maskselect.recipes.compact.kept_maps import KeptMaps
from maskselect.recipes.compact.point_masks import PointMasksTask, points_of, random_pixels
from maskselect.scenes.groups import SceneGroups
from maskselect.structures.batches import MaskBatch
from maskselect.structures.features import finest_first
from maskselect.structures.groups import PrepareSettings
from maskselect.structures.protocols import GroupLearner, PromptableProposer

ENCODER: dict[str, Any] = {
    "name": "e", "image_size": 64, "depths": [1, 1, 1], "channels": [8, 12, 16], "levels": [1, 2, 3], "stem_width": 4,
}  # fmt: skip
DECODER: dict[str, Any] = {
    "channels": [8, 12, 16], "dim": 16, "detail_dim": 8, "mask_dim": 6, "hidden": 6, "context_layers": 1, "heads": 2,
}  # fmt: skip
RANGES = ((0, 24), (16, 1000))


def tiny_task() -> PointMasksTask:
    torch.manual_seed(0)
    return PointMasksTask(ConvEncoder(**ENCODER), PointMaskDecoder(**DECODER), ranges=RANGES)


def scene_batch(task: PointMasksTask, count: int = 4, cache_dir: Path | None = None) -> MaskBatch:
    preparer, scenes = task.preparer(PrepareSettings(cache_dir=cache_dir), False), SceneGroups("val", 3, count)
    return preparer.collate([preparer.prepare(scenes, k, np.random.default_rng(k), 1) for k in range(count)])


def test_it_learns_a_batch_and_leaves_the_encoder_alone() -> None:
    task = tiny_task().train()
    assert isinstance(task, GroupLearner)
    batch = scene_batch(task)
    before = {k: v.clone() for k, v in task.encoder.state_dict().items()}
    optimiser = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=5e-3)
    torch.manual_seed(0)
    first = float(task.loss(batch)["loss"].detach())
    for _ in range(30):
        losses = task.loss(batch)
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
    assert float(losses["loss"].detach()) < 0.8 * first
    assert [name for name, p in task.decoder.named_parameters() if p.grad is None] == []
    assert all(torch.equal(v, before[k]) for k, v in task.encoder.state_dict().items())
    assert task.learned_state().keys() == task.decoder.state_dict().keys()


def test_what_nobody_annotated_gets_no_loss() -> None:
    task = tiny_task().train()
    batch = scene_batch(task)
    empty = MaskBatch(batch.images, batch.sizes, [one[:0] for one in batch.masks], batch.image_ids)
    losses = task.loss(empty)
    losses["loss"].backward()
    assert float(losses["loss"].detach()) == 0
    assert all(p.grad is None or not p.grad.any() for p in task.decoder.parameters())


def test_points_lie_in_objects_and_levels_learn_their_own_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture with an object of 8 x 8 and one of 40 x 40: each level draws one of them, and has none at the other."""
    task = tiny_task()
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 8:16, 40:48] = masks[1, 20:60, 4:44] = True
    batch = MaskBatch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.tensor([[64, 64]]), [masks], ["a"])
    drawn: list[Tensor] = []

    def decode(features: PointFeatures, points: Tensor) -> tuple[Tensor, Tensor]:
        drawn.append(points)
        logits = torch.full((len(points), 3, 16, 16), -9.0)
        for row, (_, level, y, x) in zip(logits, points.tolist(), strict=True):
            row[level] = 18.0 * masks[level].float()[2::4, 2::4] - 9.0
            assert masks[level].unflatten(0, (8 >> level, -1)).unflatten(2, (8 >> level, -1))[y, :, x].any()
        return logits, torch.full((len(points), 3), 0.5)

    monkeypatch.setattr(task.decoder, "decode", decode)
    task.decoder.iou_head[-1].weight.data.zero_()
    task.decoder.iou_head[-1].bias.data.zero_()
    found = task.validate(batch)
    assert sorted(drawn[0][:, 1].tolist()) == [0] * 4 + [1] * 4
    assert float(found["best_iou"]) == 1
    # Half of the rows are points that were drawn, with true IoU of 1, 0, 0; the other half has 0. All predict 0.5.
    assert float(found["iou"]) == pytest.approx(0.25)


def test_a_large_object_is_no_mistake_where_a_small_one_lies_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The coarse level learns nothing from a point of a small object on a large one, because both cover the point."""
    task = tiny_task()
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 8:16, 40:48] = masks[1, 4:44, 20:60] = True
    batch = MaskBatch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.tensor([[64, 64]]), [masks], ["a"])
    seen: list[Tensor] = []
    vectors = task.decoder.vectors
    monkeypatch.setattr(task.decoder, "vectors", lambda f, points: seen.append(points) or vectors(f, points))
    torch.manual_seed(0)
    task.validate(batch)
    drawn, without = seen  # of 4 points of each object
    assert len(drawn) == 8
    assert (without[:, 1] == 0).all() and len(without) == 4  # points of the large object, at the fine level


def test_random_pixels_lie_in_their_masks() -> None:
    masks = torch.zeros(2, 6, 9, dtype=torch.bool)
    masks[0, 1, 2:8] = masks[1, 5, 0] = True
    rows = torch.tensor([0, 1] * 40)
    found = random_pixels(masks, rows)
    assert all(masks[row, y, x] for row, (x, y) in zip(rows.tolist(), found.tolist(), strict=True))
    assert len(found[::2].unique(dim=0)) == 6
    owners = torch.tensor([[3, 63, 0], [1, 7, 8]])
    assert points_of(owners, 2, 64, (8, 8)).tolist() == [[3, 2, 0, 7], [1, 2, 1, 0]]


def test_maps_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tiny_task()
    images = scene_batch(task).images
    kept, plain = KeptMaps(task.encoder, tmp_path), finest_first(task.encoder.encode(images.float() / 255))
    assert all(torch.equal(a, b) for a, b in zip(KeptMaps(task.encoder, None)(images), plain, strict=True))
    first = kept(images)
    assert all(torch.equal(a, b.half().float()) for a, b in zip(first, plain, strict=True))
    (broken,) = list(tmp_path.rglob("*.safetensors"))[:1]
    broken.write_bytes(b"cut")
    computed: list[int] = []
    encode = task.encoder.encode
    monkeypatch.setattr(task.encoder, "encode", lambda one: computed.append(len(one)) or encode(one))
    again = kept(images.flip(0))
    assert computed == [1]  # the damaged one
    assert all(torch.allclose(a.flip(0), b, atol=1e-3) for a, b in zip(again, first, strict=True))


def test_parts_must_fit() -> None:
    with pytest.raises(ValueError, match=r"channels \[8, 12, 16\], but encoder gives \[8, 12\]"):
        PointMasksTask(ConvEncoder(**ENCODER | {"levels": [1, 2]}), PointMaskDecoder(**DECODER), ranges=RANGES)
    with pytest.raises(ValueError, match="2 levels; expected as many ranges, got 1"):
        PointMasksTask(ConvEncoder(**ENCODER), PointMaskDecoder(**DECODER), ranges=RANGES[:1])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    task = tiny_task()
    write_checkpoint(tmp_path / "conv.safetensors", task.encoder.state_dict(), {"system": "encoder"})
    encoder = {"class_path": "maskselect.encoders.compact.ConvEncoder", "init_args": ENCODER}
    encoder["init_args"] = ENCODER | {"checkpoint": "{beside}/conv.safetensors"}
    decoder = {"class_path": "maskselect.decoders.points.PointMaskDecoder", "init_args": DECODER}
    path = "maskselect.recipes.compact.point_masks.PointMasksTask"
    card = {"system": task.name, "config": {"class_path": path, "init_args": {"encoder": encoder, "decoder": decoder}}}
    write_checkpoint(tmp_path / "points.safetensors", task.learned_state(), card, stored=torch.float32)
    return tmp_path / "points.safetensors"


def test_a_checkpoint_is_a_proposer(checkpoint: Path) -> None:
    proposer = load_proposer(str(checkpoint), "cpu")
    assert isinstance(proposer, PointMaskProposer) and isinstance(proposer, PromptableProposer)
    assert identify_proposer(str(checkpoint)) == proposer_key(proposer)
    assert proposer_key(PointMaskProposer(checkpoint, drawn=9)) != proposer_key(proposer)
    assert all(torch.equal(v, proposer.decoder.state_dict()[k]) for k, v in tiny_task().decoder.state_dict().items())
    with pytest.raises(ValueError, match="of system 'encoder'; expected 'point_masks'"):
        PointMaskProposer(checkpoint.with_name("conv.safetensors"))
    with pytest.raises(ValueError, match="drawn must be at least 1"):
        PointMaskProposer(checkpoint, drawn=0)


class Drawing:
    """A decoder of two objects on a picture of 32 x 64 in a square of 64: left half and right half.

    Cells of the finer level draw the half in which they lie, cells of the coarser one all of the picture. Two of three
    masks are empty.
    """

    def __init__(self, decoder: Any, monkeypatch: pytest.MonkeyPatch, of_empty: float = 0.9) -> None:
        self.of_empty, self.points = of_empty, list[Tensor]()
        monkeypatch.setattr(decoder, "predicted_iou", self.predicted_iou)
        monkeypatch.setattr(decoder, "decode", self.decode)

    def predicted_iou(self, features: PointFeatures) -> list[Tensor]:
        fine, coarse = torch.full((1, 3, 8, 8), 0.5), torch.full((1, 3, 4, 4), 0.4)
        fine[:, :, :, 4:], fine[:, :, 4:] = 0.6, 0.9  # below the picture is padding
        return [fine, coarse]

    def decode(self, features: PointFeatures, points: Tensor) -> tuple[Tensor, Tensor]:
        self.points.append(points)
        logits, iou = torch.full((len(points), 3, 8, 16), -9.0), torch.zeros(len(points), 3)
        assert features.mask_features.shape[2:] == (8, 16)  # those of the picture without padding
        for row, score, (_, level, _y, x) in zip(logits, iou, points.tolist(), strict=True):
            left = x < 4 >> level
            columns = slice(0, 16) if level else slice(0, 8) if left else slice(8, 16)
            row[1, :, columns] = 9.0
            score[1] = 0.4 if level else 0.5 if left else 0.6
            score[2] = self.of_empty
        return logits, iou


def test_proposals(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proposer = PointMaskProposer(checkpoint, drawn=40, pred_iou_thresh=0.2)
    drawing = Drawing(proposer.decoder, monkeypatch)
    found = proposer.propose(np.zeros((60, 120, 3), dtype=np.uint8))
    points = drawing.points[0]
    assert (points[points[:, 1] == 0][:, 2] < 4).all() and (points[points[:, 1] == 1][:, 2] < 2).all()
    assert len(points) == 32 + 8  # all cells that do not lie in the padding
    assert found.masks.shape == (3, 60, 120) and found.source == "point_masks"
    assert found.scores.tolist() == pytest.approx([0.6, 0.5, 0.4], abs=0.01)
    assert found.masks[0, :, 64:].all() and not found.masks[0, :, :56].any()
    assert found.masks[1, :, :56].all() and found.masks[2].all()
    few = PointMaskProposer(checkpoint, drawn=4, pred_iou_thresh=0.45, max_candidates=2)
    drawing = Drawing(few.decoder, monkeypatch)
    assert few.propose(np.zeros((60, 120, 3), dtype=np.uint8)).scores.tolist() == pytest.approx([0.6], abs=0.01)
    assert (drawing.points[0][:4, 3] >= 4).all()  # those with the highest predicted IoU


def test_boxes_and_points(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proposer = PointMaskProposer(checkpoint)
    Drawing(proposer.decoder, monkeypatch, of_empty=0.1)
    image = np.zeros((60, 120, 3), dtype=np.uint8)
    boxes = torch.tensor([[1.0, 1, 60, 59], [0, 0, 120, 60], [70, 20, 72, 22]])
    found = proposer.segment_boxes(image, boxes)
    assert found.scores.tolist() == pytest.approx([0.5, 0.4, 0.6])
    assert found.masks[0, :, :56].all() and not found.masks[0, :, 64:].any() and found.masks[1].all()
    assert torch.equal(proposer.segment_box(image, (1, 1, 60, 59)), found.masks[0])
    assert len(proposer.segment_boxes(image, boxes[:0])) == 0
    assert torch.equal(proposer.segment_point(image, (3.0, 30.0)), found.masks[0])
    assert torch.equal(proposer.segment_point(image, (118.0, 30.0)), found.masks[2])


def test_pictures_of_any_size(checkpoint: Path) -> None:
    proposer = PointMaskProposer(checkpoint, pred_iou_thresh=0.0)
    assert proposer.propose(np.full((7, 9, 3), 40, dtype=np.uint8)).masks.shape[1:] == (7, 9)
    assert proposer.segment_point(np.full((90, 9, 3), 40, dtype=np.uint8), (8.0, 89.0)).shape == (90, 9)


def test_masks_of_a_tall_picture_are_those_of_the_whole_square(checkpoint: Path) -> None:
    """Cutting the padding away before drawing changes only what lies beside the picture."""
    proposer = PointMaskProposer(checkpoint, pred_iou_thresh=0.0, mask_nms_thresh=None, max_candidates=None)
    image = np.random.default_rng(0).integers(0, 256, (64, 40, 3), dtype=np.uint8)
    picture, _ = cornered_image(image, 64)
    features = proposer.decoder(finest_first(proposer.encoder.encode(picture[None].float() / 255)))
    points = torch.tensor([[0, 0, 3, 4], [0, 1, 2, 1]])
    whole = upsample_logits(proposer.decoder.decode(features, points)[0].flatten(0, 1), (64, 64))[:, :, :40] > 0
    found = proposer.propose(image).masks
    for mask in whole[whole.flatten(1).any(1)]:
        difference = (found ^ mask).flatten(1).sum(1).min()
        assert difference <= 64  # a column of pixels at the border
