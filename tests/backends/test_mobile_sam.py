"""MobileSAM: its published names and sizes, its encoder against one written anew here, and prompts through it.

There are no published weights here. What is known of them is written down in `mobile_sam_reference`; the file that the
tests load is made from its table.
"""

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from torch import Tensor

from maskselect.backends import mobile_sam
from maskselect.backends.sam import load_sam
from maskselect.backends.sam_network import Sam
from maskselect.ops.overlap import pairwise_iou
from maskselect.proposers.sam import SamProposer
from tests.backends.mobile_sam_reference import (
    CLASSIFIER,
    ENCODER,
    PUBLISHED_BYTES,
    PUBLISHED_PARAMETERS,
    attending_block,
    encoded,
    made,
    published_shapes,
)
from tests.backends.sam_package import to_package


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: made(name, shape) for name, shape in published_shapes().items()}


@pytest.fixture(scope="module")
def checkpoint(tensors: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mobile_sam.pt"
    torch.save(OrderedDict(tensors), path)
    return path


@pytest.fixture(scope="module")
def sam(checkpoint: Path) -> Sam:
    return load_sam("vit_t", checkpoint)


def test_the_table_is_the_published_model(checkpoint: Path, tensors: dict[str, Tensor]) -> None:
    computed = ("running_mean", "running_var", "num_batches_tracked", "gaussian_matrix")
    assert sum(t.numel() for name, t in tensors.items() if not name.endswith(computed)) == PUBLISHED_PARAMETERS
    assert abs(checkpoint.stat().st_size - PUBLISHED_BYTES) < 0.001 * PUBLISHED_BYTES


def test_the_model_has_the_published_size(sam: Sam) -> None:
    assert sum(p.numel() for p in sam.parameters()) == PUBLISHED_PARAMETERS - CLASSIFIER
    assert sum(p.numel() for p in sam.mask_decoder.parameters()) == 4_058_340
    assert not sam.training and not any(p.requires_grad for p in sam.parameters())


def test_every_tensor_is_taken(sam: Sam, tensors: dict[str, Tensor]) -> None:
    own = sam.state_dict()
    taken = {mobile_sam.published_name(name): name for name in own}
    assert len(taken) == len(own)
    left = {"norm_head.weight", "norm_head.bias", "head.weight", "head.bias"}
    assert tensors.keys() - taken.keys() == {ENCODER + name for name in left}
    assert all(torch.equal(own[taken[name]], tensors[name]) for name in taken)


@pytest.mark.parametrize("size", [(14, 14), (14, 28), (10, 17)])
def test_a_block_is_the_reference(sam: Sam, tensors: dict[str, Tensor], size: tuple[int, int]) -> None:
    """One window, several that fit, and windows that hang over both edges."""
    x = torch.randn(1, 160, *size)
    with torch.inference_mode():
        found = sam.image_encoder.stages[2].blocks[3](x.permute(0, 2, 3, 1))
        expected = attending_block(tensors, f"{ENCODER}layers.2.blocks.3", x[0], 5, 14)
    torch.testing.assert_close(found[0].permute(2, 0, 1), expected, atol=1e-5, rtol=1e-5)


def test_the_encoder_is_the_reference(sam: Sam, tensors: dict[str, Tensor]) -> None:
    """From the file's names to the embedding. Grids of 16 and 8 cells are filled up to windows of 7 and 14."""
    pixels = torch.randn(1, 3, 128, 128)
    with torch.inference_mode():
        found, expected = sam.image_encoder(pixels), encoded(tensors, pixels)
    assert found.shape == (1, 256, 8, 8)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_smaller_images_give_smaller_grids() -> None:
    small = mobile_sam.build_mobile_sam(image_size=96).eval()
    with torch.inference_mode():
        embedding = small.image_encoder(small.preprocess(torch.rand(2, 3, 96, 96) * 255))
    assert embedding.shape == (2, 256, 6, 6)
    assert small.prompt_encoder.get_dense_pe().shape[-2:] == (6, 6)
    for size in (0, -16, 100):
        with pytest.raises(ValueError, match=f"image_size {size} is not a positive multiple of 16"):
            mobile_sam.build_mobile_sam(image_size=size)


@pytest.fixture(scope="module")
def proposer(checkpoint: Path) -> SamProposer:
    """Everything goes. The encoder remembers its last image, since 1024 pixels take seconds."""
    settings: dict[str, Any] = dict(pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0)
    settings |= dict(points_per_side=2, mask_nms_thresh=None, max_candidates=None)
    proposer = SamProposer(checkpoint, model_type="vit_t", **settings)
    encoder, seen = proposer.sam.image_encoder, []
    forward = encoder.forward

    def remembering(pixels: Tensor) -> Tensor:
        if not seen or not torch.equal(seen[0], pixels):
            seen[:] = [pixels, forward(pixels)]
        return seen[1]

    encoder.forward = remembering
    return proposer


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Two things on a ground, wider than high."""
    image = np.full((72, 96, 3), 60, np.uint8)
    image[20:50, 10:40], image[30:60, 55:85] = (220, 40, 40), (40, 60, 230)
    return image


@pytest.fixture(scope="module")
def shapes(proposer: SamProposer, image: np.ndarray) -> Iterator[dict[str, tuple[int, ...]]]:
    """What enters the stages and their attention at full size."""
    found: dict[str, tuple[int, ...]] = {}
    hooks = []
    for number, stage in enumerate(proposer.sam.image_encoder.stages):
        parts = {f"grid {number}": stage.blocks[0]} | ({f"windows {number}": stage.blocks[0].attn} if number else {})
        for name, part in parts.items():
            hooks.append(part.register_forward_pre_hook(lambda _, x, name=name: found.update({name: x[0].shape})))
    proposer.propose(image)
    yield found
    for hook in hooks:
        hook.remove()


def test_grids_and_windows_at_full_size(shapes: dict[str, tuple[int, ...]]) -> None:
    """A side of 1024: 256, 128, 64 and again 64 cells; 19, 5 and 10 windows a side cover the last three."""
    assert shapes == {
        "grid 0": (1, 64, 256, 256),
        "grid 1": (1, 128, 128, 128),
        "windows 1": (19 * 19, 7 * 7, 128),
        "grid 2": (1, 64, 64, 160),
        "windows 2": (5 * 5, 14 * 14, 160),
        "grid 3": (1, 64, 64, 320),
        "windows 3": (10 * 10, 7 * 7, 320),
    }


def test_it_proposes(proposer: SamProposer, image: np.ndarray) -> None:
    found = proposer.propose(image)
    assert proposer.side == 1024
    assert found.image_size == (72, 96)
    assert 0 < len(found) <= 2 * 2 * 3
    assert found.masks.flatten(1).any(1).all()


def test_boxes_and_points_are_the_packages(proposer: SamProposer, image: np.ndarray) -> None:
    predictor = SamPredictor(to_package(proposer.sam))
    predictor.set_image(image)
    masks, scores, _ = predictor.predict(point_coords=np.array([[25.0, 35.0]]), point_labels=np.array([1]))
    point = proposer.segment_point(image, (25.0, 35.0))
    boxed, box_scores, _ = predictor.predict(box=np.array([50.0, 25.0, 90.0, 65.0]))
    box = proposer.segment_box(image, (50, 25, 90, 65))
    theirs = torch.from_numpy(np.stack([masks[scores.argmax()], boxed[box_scores.argmax()]]))
    assert theirs.flatten(1).any(1).all()
    assert pairwise_iou(torch.stack([point, box]), theirs).diagonal().min() > 0.99


# Files that are not as they should be.


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"image_encoder.layers.2.blocks.5.attn.attention_biases": None},
            r"1 missing \[.*5\.attn\.attention_biases'\], 0",
        ),
        (
            {"image_encoder.layers.4.blocks.0.attn.norm.bias": torch.zeros(3)},
            r"1 unknown \[.*layers\.4\.blocks\.0\.attn",
        ),
        ({"stray": torch.zeros(3)}, r"0 missing \[\], 1 unknown \['stray'\], 0 of another shape"),
        (
            {"image_encoder.neck.0.weight": torch.zeros(2, 2)},
            r"1 of another shape \['image_encoder\.neck\.0\.weight'\]",
        ),
        ({"mask_decoder.iou_token.weight": None}, r"1 missing \['mask_decoder\.iou_token\.weight'\]"),
    ],
)
def test_files_of_other_tensors_are_refused(
    tensors: dict[str, Tensor], tmp_path: Path, change: dict[str, Tensor | None], told: str
) -> None:
    path = tmp_path / "other.pt"
    torch.save({name: t for name, t in (tensors | change).items() if t is not None}, path)
    with pytest.raises(ValueError, match=told) as caught:
        load_sam("vit_t", path)
    assert str(caught.value).startswith(f"checkpoint {path} does not fit MobileSAM: ")


def test_what_nobody_asks_may_be_there_or_not(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    kept = {
        name: t for name, t in tensors.items() if "head." not in name.removeprefix(ENCODER)[:10] or "decoder" in name
    }
    assert len(kept) == len(tensors) - 4
    kept[f"{ENCODER}layers.1.blocks.0.attn.attention_bias_idxs"] = torch.zeros(49, 49, dtype=torch.long)
    torch.save(kept, tmp_path / "bare.pt")
    loaded = load_sam("vit_t", tmp_path / "bare.pt").image_encoder.neck[0].weight
    assert torch.equal(loaded, tensors[f"{ENCODER}neck.0.weight"])


def test_damaged_files_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"mobile\.pt not found; get it with: curl -LO https://.*mobile_sam\.pt"
    ):
        load_sam("vit_t", tmp_path / "mobile.pt")
    whole, path = bytearray(checkpoint.read_bytes()), tmp_path / "mobile.pt"
    path.write_bytes(b"<!DOCTYPE html><title>a page of a web site</title>")
    with pytest.raises(ValueError, match=r"truncated or not a plain weights file \(it has another format.*curl -LO"):
        load_sam("vit_t", path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"truncated or not a plain weights file"):
        load_sam("vit_t", path)
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"checksum of .* is wrong"):
        load_sam("vit_t", path)
    for content in (torch.zeros(3), {"model": {"a": torch.zeros(1)}}):
        torch.save(content, path)
        with pytest.raises(ValueError, match="holds no state dict; expected tensors by name"):
            load_sam("vit_t", path)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"a": Path("anything")}, tmp_path / "code.pt")
    with pytest.raises(ValueError, match=r"weights file \(it has another format, or holds more than tensors\)"):
        load_sam("vit_t", tmp_path / "code.pt")
