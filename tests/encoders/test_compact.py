"""The compact encoders in plain PyTorch give timm's own numbers, with weights of the same names."""

from typing import Any

import pytest
import torch
from torch import nn

from maskselect.backends.building import build
from maskselect.backends.checkpoints import read_card, write_checkpoint
from maskselect.encoders.compact import ConvEncoder, VitEncoder
from maskselect.encoders.frozen import FrozenEncoder, merged
from maskselect.encoders.timm import TimmEncoder

EXACT = {"atol": 0.0, "rtol": 0.0}
FRAME: dict[str, Any] = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear"}
CONV = {"layers": [1, 2, 2, 1], "channels": [32, 64, 160, 160], "stem_width": 16, "stem_type": "deep"}
VIT = {"embed_dim": 128, "depth": 4, "num_heads": 2, "class_token": False, "global_pool": ""}


def of_timm(name: str, side: int = 256) -> TimmEncoder:
    """What timm builds of the same sizes."""
    if name == "conv":
        return TimmEncoder("conv", "resnet18", side, [2, 3], model_args=CONV, **FRAME)
    return TimmEncoder("vit", "vit_tiny_patch16_224", side, [-1], final_norm=True, stem="conv", model_args=VIT, **FRAME)


CLASSES: dict[str, type[FrozenEncoder]] = {"conv": ConvEncoder, "vit": VitEncoder}


def lively(encoder: nn.Module) -> None:
    """Batch statistics and weights that are not those of a new network."""
    for name, tensor in encoder.state_dict().items():
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.copy_(
                torch.rand_like(tensor) + 0.5 if "var" in name or "weight" in name else torch.randn_like(tensor) / 4
            )


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("side", [256, 90])
def test_features_are_timms(name: str, side: int) -> None:
    torch.manual_seed(0)
    ours, theirs = CLASSES[name](), of_timm(name)  # type: ignore[call-arg]
    lively(ours)
    theirs.load_state_dict(ours.state_dict())  # strict: the names are the same
    assert ours.info == theirs.info
    for images in (torch.rand(2, 3, side, side), torch.rand(2, 3, side, 2 * side // 3)):
        for found, expected in zip(ours.encode(images), theirs.encode(images), strict=True):
            torch.testing.assert_close(found.features, expected.features, **EXACT)


@pytest.mark.parametrize("name", CLASSES)
def test_gradients_are_timms(name: str) -> None:
    torch.manual_seed(0)
    ours, theirs = CLASSES[name](image_size=64), of_timm(name, 64)  # type: ignore[call-arg]
    lively(ours)
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(2, 3, 64, 64)
    for encoder in (ours, theirs):
        encoder.thaw()
        encoder(images).square().mean().backward()
    wanted = {key: parameter.grad for key, parameter in theirs.named_parameters()}
    torch.testing.assert_close({key: parameter.grad for key, parameter in ours.named_parameters()}, wanted, **EXACT)
    torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()), **EXACT)  # batch statistics too


@pytest.mark.parametrize("name", CLASSES)
def test_random_weights_are_spread_as_timms(name: str) -> None:
    torch.manual_seed(0)
    ours, theirs = CLASSES[name](), dict(of_timm(name).named_parameters())  # type: ignore[call-arg]
    for key, parameter in ours.named_parameters():
        wanted = theirs[key].detach()
        spread = float(wanted.std()) or 1.0
        assert abs(float(parameter.mean() - wanted.mean())) <= 0.25 * spread, key
        assert abs(float(parameter.std()) - float(wanted.std())) <= 0.25 * spread, key


@pytest.mark.parametrize("name", CLASSES)
def test_shipped_cards_name_them(name: str) -> None:
    """`timm` is not what the shipped checkpoints need."""
    card = read_card(f"encoder_{name}")
    assert type(build(card["config"])) is CLASSES[name]


def test_another_pick_of_levels_and_a_checkpoint(tmp_path) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    whole = ConvEncoder(image_size=64, depths=[1, 1, 1], channels=[8, 16, 24], levels=[1, 2, 3], stem_width=4)
    first = ConvEncoder(image_size=64, depths=[1, 1, 1], channels=[8, 16, 24], levels=[1], stem_width=4)
    assert whole.info.channels == 48 and whole.info.grid == first.info.grid == (16, 16) and first.info.channels == 8
    assert len(first.trunk.stages) == 1  # nothing behind the last level
    path = tmp_path / "e.safetensors"
    write_checkpoint(path, first.state_dict(), {"system": "encoder"})
    again = ConvEncoder(
        image_size=64, depths=[1, 1, 1], channels=[8, 16, 24], levels=[1], stem_width=4, checkpoint=str(path)
    )
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(
        merged(again.encode(images)).features, merged(first.encode(images)).features, atol=1e-2, rtol=1e-2
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ConvEncoder(depths=[1, 1]), r"as many depths as channels .* got depths \[1, 1\]"),
        (lambda: ConvEncoder(levels=[4]), r"levels \[4\]"),
        (lambda: ConvEncoder(levels=[]), r"levels \[\]"),
        (lambda: VitEncoder(width=128, heads=3), "128 is not a multiple of 3 heads"),
        (lambda: VitEncoder(image_size=250), "divide 250 x 250"),
        (lambda: ConvEncoder(mean=[0.5]), "three values"),
    ],
)
def test_errors_are_one_clear_sentence(make, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
