"""The task that trains the segmentation decoder alone, and the proposer that reads its checkpoint."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskselect.backends.building import build
from maskselect.backends.checkpoints import write_checkpoint
from maskselect.decoders.mask2former import MaskPredictions, ObjectDecoder
from maskselect.encoders.compact import ConvEncoder
from maskselect.proposers.loading import identify_proposer, load_proposer
from maskselect.proposers.mask2former import Mask2FormerProposer
from maskselect.proposers.store import proposer_key
from maskselect.recipes.compact.mask2former import ObjectMasksTask
from maskselect.scenes.groups import SceneGroups
from maskselect.structures.batches import MaskBatch
from maskselect.structures.groups import PrepareSettings
from maskselect.structures.protocols import GroupLearner, Proposer

_DECODERS = "maskselect.decoders.mask2former."
PARTS: dict[str, Any] = {
    "pixel_decoder": {
        "class_path": _DECODERS + "PixelDecoder",
        "init_args": {
            "channels": [8, 12, 16], "dim": 16, "heads": 2, "points": 2, "layers": 1, "ffn": 16, "mask_dim": 16,
            "extra_levels": 1,
        },
    },
    "mask_decoder": {
        "class_path": _DECODERS + "MaskDecoder",
        "init_args": {"dim": 16, "heads": 2, "ffn": 16, "layers": 2, "queries": 8, "mask_dim": 16},
    },
}  # fmt: skip
ENCODER: dict[str, Any] = {
    "name": "e", "image_size": 64, "depths": [1, 1, 1], "channels": [8, 12, 16], "levels": [1, 2, 3], "stem_width": 4,
}  # fmt: skip
GREY = 128 / 255


def tiny_decoder() -> ObjectDecoder:
    return ObjectDecoder(build(PARTS["pixel_decoder"]), build(PARTS["mask_decoder"]))


def tiny_task() -> ObjectMasksTask:
    torch.manual_seed(0)
    return ObjectMasksTask(ConvEncoder(**ENCODER), tiny_decoder())


def scene_batch(task: ObjectMasksTask, count: int = 4) -> MaskBatch:
    preparer, scenes = task.preparer(PrepareSettings(), training=False), SceneGroups("val", 3, count)
    return preparer.collate([preparer.prepare(scenes, k, np.random.default_rng(k), 1) for k in range(count)])


def test_pictures_move_to_the_corner_of_a_grey_square_with_their_masks() -> None:
    image = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    image[0, :, 16:48] = 255  # a picture of 32 x 64, centred
    mask = torch.zeros(2, 64, 64, dtype=torch.bool)
    mask[0, 20:30, 4:14] = True
    batch = MaskBatch(image, torch.tensor([[32, 64]]), [mask], ["a"])
    images, targets = tiny_task().prepare(batch)
    assert (images[0, :, :32] == 1).all() and (images[0, :, 32:] == GREY).all()
    expected = torch.zeros(1, 64, 64, dtype=torch.bool)  # the empty mask is gone
    expected[0, 4:14, 4:14] = True
    assert torch.equal(targets[0], expected)
    task = tiny_task()
    flipped = [task.prepare(batch, flips=True)[1][0] for _ in range(16)]
    assert all(torch.equal(t, expected) or torch.equal(t, expected.flip(-1)) for t in flipped)
    assert {torch.equal(t, expected) for t in flipped} == {True, False}


def test_it_learns_a_batch_and_leaves_the_encoder_alone() -> None:
    task = tiny_task().train()
    assert isinstance(task, GroupLearner)
    batch = scene_batch(task)
    before = {k: v.clone() for k, v in task.encoder.state_dict().items()}
    optimiser = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=3e-3)
    torch.manual_seed(0)
    first = float(task.loss(batch)["loss"])
    for _ in range(30):
        losses = task.loss(batch)
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
    assert float(losses["loss"]) < 0.8 * first
    assert [name for name, p in task.decoder.named_parameters() if p.grad is None] == []
    assert all(torch.equal(v, before[k]) for k, v in task.encoder.state_dict().items())
    assert task.learned_state().keys() == task.decoder.state_dict().keys()


def test_measures_of_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two objects: one is found exactly by a good query, one is missed; a second query with a score finds nothing."""
    task = tiny_task()
    truth = torch.zeros(2, 64, 64, dtype=torch.bool)
    truth[0, :32, :32] = truth[1, 40:60, 40:60] = True
    batch = MaskBatch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.tensor([[64, 64]]), [truth], ["a"])
    masks = torch.full((1, 3, 64, 64), -9.0)
    masks[0, 0, :32, :32] = masks[0, 1, :, 62:] = 9.0
    predictions = MaskPredictions([torch.tensor([[2.0, 1.0, -1.0]])], [masks])
    monkeypatch.setattr(task.decoder, "forward", lambda _: predictions)
    found = task.validate(batch)
    assert float(found["recall"]) == 0.5 and float(found["precision"]) == 0.5
    assert float(found["best_iou"]) == pytest.approx(0.5, abs=0.01)
    empty = MaskBatch(batch.images, batch.sizes, [truth[:0]], ["a"])
    assert float(task.validate(empty)["recall"]) == 0


def test_channels_must_fit() -> None:
    with pytest.raises(ValueError, match=r"channels \[8, 12, 16\], but encoder gives \[8, 12\]"):
        ObjectMasksTask(ConvEncoder(**ENCODER | {"levels": [1, 2]}), tiny_decoder())


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    task = tiny_task()
    encoder = {"class_path": "maskselect.encoders.compact.ConvEncoder"}
    write_checkpoint(tmp_path / "conv.safetensors", task.encoder.state_dict(), {"system": "encoder"})
    config = {
        "encoder": {**encoder, "init_args": ENCODER | {"checkpoint": "{beside}/conv.safetensors"}},
        "decoder": {"class_path": "maskselect.decoders.mask2former.ObjectDecoder", "init_args": PARTS},
    }
    path = "maskselect.recipes.compact.mask2former.ObjectMasksTask"
    card = {"system": task.name, "config": {"class_path": path, "init_args": config}}
    write_checkpoint(tmp_path / "objects.safetensors", task.learned_state(), card, stored=torch.float32)
    return tmp_path / "objects.safetensors"


def test_a_checkpoint_is_a_proposer(checkpoint: Path) -> None:
    proposer = load_proposer(str(checkpoint), "cpu")
    assert isinstance(proposer, Mask2FormerProposer) and isinstance(proposer, Proposer)
    assert identify_proposer(str(checkpoint)) == proposer_key(proposer)
    other = Mask2FormerProposer(checkpoint, score_thresh=0.2)
    assert proposer_key(other) != proposer_key(proposer)
    assert all(torch.equal(v, proposer.decoder.state_dict()[k]) for k, v in tiny_task().decoder.state_dict().items())


def test_proposals_are_those_of_the_task(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits on the grid of 16 x 16 come back at the size of a picture in the corner, with Mask2Former's scores."""
    proposer = Mask2FormerProposer(checkpoint, score_thresh=0.3, mask_nms_thresh=0.8)
    masks = torch.full((1, 4, 16, 16), -9.0)
    masks[0, 0, :8, :8] = masks[0, 1, :8, :8] = 9.0  # one object twice
    masks[0, 2] = -1.0
    masks[0, 2, :8, 8:] = 1.0
    masks[0, 3, 12:] = 9.0  # in the padding alone
    seen = []

    def forward(maps: list[torch.Tensor], only_last: bool) -> MaskPredictions:
        seen.append([tuple(m.shape) for m in maps])
        return MaskPredictions([torch.tensor([[1.0, 2.0, 3.0, 4.0]])], [masks])

    monkeypatch.setattr(proposer.decoder, "forward", forward)
    found = proposer.propose(np.zeros((60, 120, 3), dtype=np.uint8))
    assert seen == [[(1, 8, 16, 16), (1, 12, 8, 8), (1, 16, 4, 4)]]
    assert found.masks.shape == (2, 60, 120) and found.source == "mask2former"
    assert found.masks[0, :, :56].all() and not found.masks[0, :, 64:].any()
    assert found.masks[1, :, 64:].all() and not found.masks[1, :, :56].any()
    expected = [float(torch.tensor(2.0).sigmoid()), float(torch.tensor(3.0).sigmoid() * torch.tensor(1.0).sigmoid())]
    assert found.scores.tolist() == pytest.approx(expected, abs=0.04)
    monkeypatch.undo()
    assert proposer.propose(np.full((7, 9, 3), 40, dtype=np.uint8)).masks.shape[1:] == (7, 9)
    assert len(Mask2FormerProposer(checkpoint, score_thresh=1.0).propose(np.zeros((60, 120, 3), dtype=np.uint8))) == 0


def test_what_is_no_such_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is of system 'sam'; expected 'mask2former' or 'instructseg'"):
        Mask2FormerProposer("sam")
    write_checkpoint(tmp_path / "a.safetensors", {"x": torch.zeros(1)}, {"system": "mask2former", "config": {}})
    with pytest.raises(ValueError, match="names no encoder; was it"):
        Mask2FormerProposer(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="score_thresh must be between 0 and 1, got 2"):
        Mask2FormerProposer("sam", score_thresh=2)


def test_instructseg_proposes_the_objects_of_its_decoder(checkpoint: Path, tmp_path: Path) -> None:
    """The parts that both have carry the same names; all others of InstructSeg are left alone."""
    config = {
        "encoder": {
            "class_path": "maskselect.encoders.compact.ConvEncoder",
            "init_args": ENCODER | {"checkpoint": "{beside}/conv.safetensors"},
        },
        "lmm": {"class_path": "unread"},
        **PARTS,
    }
    card = {"system": "instructseg", "config": {"class_path": "unread", "init_args": config}}
    tensors = tiny_task().learned_state()
    path = tmp_path / "i.safetensors"
    write_checkpoint(path, tensors | {"reader.x": torch.zeros(1)}, card, stored=torch.float32)
    image = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    found, expected = (load_proposer(str(file), "cpu").propose(image) for file in (path, checkpoint))
    assert len(found) > 0 and torch.equal(found.masks, expected.masks) and torch.equal(found.scores, expected.scores)
    del tensors["object_embed"]
    write_checkpoint(path, tensors, card)
    with pytest.raises(ValueError, match="has no object_embed; expected InstructSeg trained with object_weight"):
        Mask2FormerProposer(path)
