"""LoRA: peft's own names, numbers and gradients."""

import copy

import pytest
import torch
from torch import Tensor, nn

from maskselect.lmm.llava import Llava
from maskselect.lmm.lora import LoraLinear, LoraSettings, add_lora, merge_adapters, merged_state
from tests.systems.tiny import SIZES

SETTINGS = LoraSettings(r=3, alpha=7, dropout=0.0, targets=["q_proj", "down_proj"])


def pair(dtype: torch.dtype = torch.float32) -> tuple[nn.Module, nn.Module]:
    """A language model with our adapters and its twin with peft's, with the same weights."""
    peft = pytest.importorskip("peft", reason="the reference implementation is a development package")
    torch.manual_seed(0)
    ours = Llava(sizes=SIZES).language_model.to(dtype)
    theirs = copy.deepcopy(ours)
    add_lora(ours, SETTINGS)
    given = {"r": SETTINGS.r, "lora_alpha": SETTINGS.alpha, "lora_dropout": 0.0, "target_modules": SETTINGS.targets}
    peft.inject_adapter_in_model(peft.LoraConfig(**given), theirs)
    for name, parameter in ours.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    for parameter in theirs.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    theirs.load_state_dict(ours.state_dict())  # strict: the names are the same
    return ours, theirs


def run(model: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = model(x).last_hidden_state
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_and_gradients_are_pefts(dtype: torch.dtype) -> None:
    ours, theirs = pair(dtype)
    x = torch.randn(2, 5, SIZES.width, dtype=dtype)
    outputs = [run(model, x) for model in (ours, theirs)]
    torch.testing.assert_close(*outputs, atol=0, rtol=0)
    for out in outputs:
        out.float().square().mean().backward()
    wanted = {name: parameter.grad for name, parameter in theirs.named_parameters() if parameter.requires_grad}
    found = {name: parameter.grad for name, parameter in ours.named_parameters() if parameter.requires_grad}
    assert found.keys() == wanted.keys() and all("lora_" in name for name in found)
    torch.testing.assert_close(found, wanted, atol=0, rtol=0)


def test_merging_gives_pefts_weights_once() -> None:
    ours, theirs = pair()
    x = torch.randn(2, 5, SIZES.width)
    before, folded = run(ours, x), merged_state(ours)
    for module in theirs.modules():
        if hasattr(module, "merge"):
            module.merge()
    merge_adapters(ours)
    merge_adapters(ours)
    torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()), atol=0, rtol=0)
    torch.testing.assert_close(run(ours, x), run(theirs, x), atol=0, rtol=0)
    torch.testing.assert_close(run(ours, x), before, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(merged_state(ours), folded, atol=0, rtol=0)
    assert not any("lora" in name or "base_layer" in name for name in folded)


def test_an_untrained_adapter_changes_nothing_and_begins_as_pefts() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4096, 8, bias=False)
    adapted = LoraLinear(layer, LoraSettings(r=16, alpha=32))
    x = torch.randn(3, 4096)
    assert torch.equal(adapted(x), layer(x)) and not adapted.lora_B["default"].weight.any()
    narrow = adapted.lora_A["default"].weight.detach()  # uniform within 1 / sqrt(width)
    assert abs(float(narrow.std()) * 3**0.5 * 64 - 1) < 0.05 and float(narrow.abs().max()) <= 1 / 64
    assert adapted.scaling == 2 and adapted.training and not LoraLinear(layer.eval(), SETTINGS).eval().training


def test_dropout_is_on_the_adapter_alone() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(8, 8, bias=False)
    adapted = LoraLinear(layer, LoraSettings(r=8, alpha=8, dropout=0.5))
    nn.init.eye_(adapted.lora_A["default"].weight)
    nn.init.eye_(adapted.lora_B["default"].weight)
    x = torch.ones(1000, 8)
    added = (adapted(x) - layer(x)).detach()
    assert {round(float(v), 3) for v in added.unique()} == {0.0, 2.0} and abs(float(added.mean()) - 1) < 0.1
    torch.testing.assert_close(adapted.eval()(x), layer(x) + x)


@pytest.mark.parametrize(
    ("targets", "words"), [(["nowhere"], "match no layer"), (["mlp"], "is a LlamaMLP; expected a linear layer")]
)
def test_targets_are_linear_layers(targets: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        add_lora(Llava(sizes=SIZES).language_model, LoraSettings(targets=targets))
