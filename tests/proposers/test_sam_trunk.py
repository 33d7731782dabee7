"""SAM over a frozen pretrained network: what is trained, what is stored, and what the frozen part does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from maskselect.backends import sam as backend
from maskselect.backends.checkpoints import write_checkpoint
from maskselect.backends.sam_trunk import FROZEN, TrunkEncoder
from maskselect.encoders.compact import ConvEncoder
from maskselect.proposers.sam import SamProposer
from maskselect.recipes.compact.sam import SamTask
from tests.proposers.test_sam import scene_batch

ENCODER: dict[str, Any] = {
    "name": "e", "image_size": 64, "depths": [1, 1, 1], "channels": [8, 12, 16], "levels": [1, 2, 3], "stem_width": 4,
    "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3],
}  # fmt: skip
MODEL: dict[str, Any] = {
    "image_size": 64, "patch_size": 8, "prompt_dim": 16, "decoder_mlp_dim": 16, "iou_head_hidden_dim": 16,
}  # fmt: skip


def tiny(keep_maps: bool = False) -> SamTask:
    torch.manual_seed(0)
    trunk = ConvEncoder(**ENCODER)
    model = MODEL | {"trunk": trunk, "keep_maps": keep_maps}
    return SamTask(model, precision="fp32", auxiliary_weight=0.0, background_points=0, refined=0, flips="none")


def test_only_the_neck_and_the_decoder_are_trained() -> None:
    task = tiny().train()
    before = {name: tensor.clone() for name, tensor in task.sam.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=0.1)
    task.loss(scene_batch(task, 2))["loss"].backward()
    optimiser.step()
    changed = {name for name, tensor in task.sam.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not any(name.startswith(FROZEN) for name in changed)
    assert any(name.startswith("image_encoder.neck.") for name in changed)
    assert {f"image_encoder.project.{n}.weight" for n in range(3)} <= changed
    assert not any(name.startswith(FROZEN) for name in task.learned_state())


def test_pictures_are_normalised_as_the_trunk_wants_them() -> None:
    """A map of the trunk on a picture in [0, 1] is what SAM's encoder reads, and finer cells become channels."""
    trunk = ConvEncoder(**ENCODER)
    sam = backend.build_sam(**MODEL, trunk=trunk)
    pixels = torch.randint(0, 256, (1, 3, 64, 64)).float()
    maps = trunk.encode(pixels / 255)
    encoder: Any = sam.image_encoder
    fine = [F.pixel_unshuffle(maps[0].features, 2), maps[1].features, maps[2].features]
    own = [project(one) for project, one in zip(encoder.project, fine, strict=True)]
    assert [one.stride for one in maps] == [4, 8, 16] and own[0].shape == own[1].shape
    expected = own[0] + own[1] + F.interpolate(own[2], (8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(sam.image_encoder(sam.preprocess(pixels)), encoder.neck(expected), atol=1e-4, rtol=1e-4)


def test_kept_maps_are_those_of_each_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    task = tiny(keep_maps=True).train()
    batch = scene_batch(task, 3)
    images, _ = task.prepare(batch)
    expected = tiny().train().sam.image_encoder(images)
    calls: list[int] = []
    encoder: Any = task.sam.image_encoder
    maps = encoder.trunk.maps
    monkeypatch.setattr(encoder.trunk, "maps", lambda x: calls.append(len(x)) or maps(x))
    for order in ([0, 1], [1, 2], [2, 0]):
        torch.testing.assert_close(encoder(images[order]), expected[order], atol=2e-2, rtol=2e-2)
    assert calls == [2, 1]  # the second picture, and then all three, were seen before
    task.eval()
    encoder(images[:1])
    assert calls == [2, 1, 1]


def test_a_checkpoint_names_its_trunk_and_proposes(tmp_path: Path) -> None:
    task = tiny()
    trunk: Any = task.sam.image_encoder.trunk
    write_checkpoint(tmp_path / "trunk.safetensors", trunk.state_dict(), {"system": "encoder"}, stored=torch.float32)
    node = {
        "class_path": "maskselect.encoders.compact.ConvEncoder",
        "init_args": ENCODER | {"checkpoint": "{beside}/trunk.safetensors"},
    }
    config = {
        "class_path": "maskselect.recipes.compact.sam.SamTask",
        "init_args": {"model": MODEL | {"trunk": node}},
    }
    card = {"system": "sam", "config": config}
    write_checkpoint(tmp_path / "sam.safetensors", task.learned_state(), card, stored=torch.float32)
    sam = backend.load_sam("compact", tmp_path / "sam.safetensors")
    assert isinstance(sam.image_encoder, TrunkEncoder)
    pixels = torch.rand(1, 3, 64, 64) * 255
    torch.testing.assert_close(
        sam.image_encoder(sam.preprocess(pixels)), task.sam.image_encoder(task.sam.preprocess(pixels))
    )
    proposer = SamProposer(tmp_path / "sam.safetensors", pred_iou_thresh=0.0, stability_score_thresh=0.0)
    found = proposer.propose(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    assert found.masks.shape[1:] == (48, 64)


def test_sizes_must_fit() -> None:
    trunk = ConvEncoder(**ENCODER)
    with pytest.raises(ValueError, match="image_size 128 is not the input size of the trunk, 64"):
        backend.build_sam(**MODEL | {"image_size": 128}, trunk=trunk)
    with pytest.raises(ValueError, match=r"maps of the strides \[4, 8, 16\]; expected 32 among them"):
        backend.build_sam(**MODEL | {"patch_size": 32}, trunk=trunk)
    with pytest.raises(ValueError, match="flips 'sideways' is unknown; expected one of both, horizontal, none"):
        SamTask(flips="sideways")  # type: ignore[arg-type]
