"""LoRA (arXiv 2106.09685): low-rank adapters beside linear layers, and the sum of both.

Names of tensors are those of peft (`base_layer`, `lora_A.default`, `lora_B.default`), whose checkpoints fit; tests
compare the numbers.
"""

import math
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LoraSettings:
    """LoRA hyper-parameters. The defaults are LLaVA-1.5's published ones.

    targets: names of Linear layers inside the language model.
    """

    r: int = 128
    alpha: int = 256
    dropout: float = 0.05
    targets: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )


class LoraLinear(nn.Module):
    """A frozen linear layer plus `alpha / r` times the product of two narrow ones, which train in float32.

    Args:
        layer: the linear layer, perhaps in half precision or 4 bits.
        settings: r, alpha and dropout.
    """

    def __init__(self, layer: nn.Module, settings: LoraSettings) -> None:
        super().__init__()
        width, out = int(layer.in_features), int(layer.out_features)  # type: ignore[arg-type]
        device = layer.weight.device  # type: ignore[union-attr]
        self.base_layer = layer
        self.scaling, self.merged = settings.alpha / settings.r, False
        self.in_features, self.out_features = width, out
        self.lora_dropout = nn.ModuleDict({"default": nn.Dropout(settings.dropout)})
        self.lora_A = nn.ModuleDict({"default": nn.Linear(width, settings.r, bias=False, device=device)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(settings.r, out, bias=False, device=device)})
        nn.init.kaiming_uniform_(self.lora_A["default"].weight, a=math.sqrt(5))  # type: ignore[arg-type]
        nn.init.zeros_(self.lora_B["default"].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., out), in the dtype of the layer's own output."""
        own: Tensor = self.base_layer(x)
        if self.merged:
            return own
        narrow, back = cast(nn.Linear, self.lora_A["default"]), self.lora_B["default"]
        added: Tensor = back(narrow(self.lora_dropout["default"](x.to(narrow.weight.dtype))))
        return (own + added * self.scaling).to(own.dtype)

    def product(self) -> Tensor:
        """What the adapter adds to the layer's weight: (out, width)."""
        back, narrow = self.lora_B["default"].weight, self.lora_A["default"].weight
        return (back @ narrow) * self.scaling  # type: ignore[operator, return-value]

    @torch.no_grad()
    def merge(self) -> None:
        """Add the product to the layer's weight, once."""
        if not self.merged:
            weight: Tensor = self.base_layer.weight  # type: ignore[assignment]
            weight += self.product().to(weight.dtype)
            self.merged = True


def add_lora(language_model: nn.Module, settings: LoraSettings) -> list[str]:
    """Freeze the language model, put LoRA on the named layers in place, and return the trainable parameter names.

    Raises ValueError when no layer matches a target name, or one that is not linear does.
    """
    leaves = {name.rpartition(".")[2] for name, _ in language_model.named_modules()}
    absent = sorted(set(settings.targets) - leaves)
    if absent:
        raise ValueError(f"LoRA targets {absent} match no layer; layers are named {sorted(leaves)}")
    language_model.requires_grad_(False)
    for name, layer in list(language_model.named_modules()):
        if name.rpartition(".")[2] in settings.targets:
            if not hasattr(layer, "in_features"):
                raise ValueError(f"LoRA target {name} is a {type(layer).__name__}; expected a linear layer")
            language_model.set_submodule(name, LoraLinear(layer, settings).train(layer.training))
    return [name for name, parameter in language_model.named_parameters() if parameter.requires_grad]


def merge_adapters(module: nn.Module) -> None:
    """Add the products of adapters to the weights they stand on, in place: for inference, where they only take time.

    Weights of 4 or 8 bits keep their adapters, since a sum would be rounded to their few levels.
    """
    for layer in module.modules():
        if isinstance(layer, LoraLinear) and layer.base_layer.weight.is_floating_point():  # type: ignore[operator]
            layer.merge()


def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of a network as if it had never had adapters: their products are added to the weights they stand on.

    Tensors are copies, on the devices of the network's own.
    """
    products = {
        f"{name}.base_layer.weight": layer.product()
        for name, layer in module.named_modules()
        if isinstance(layer, LoraLinear) and not layer.merged
    }
    return {
        name.replace(".base_layer.", "."): (tensor + products.get(name, 0)).detach().clone()
        for name, tensor in module.state_dict().items()
        if ".lora_" not in name
    }
