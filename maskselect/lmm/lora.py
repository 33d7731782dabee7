"""LoRA (arXiv 2106.09685): low-rank adapters of linear layers.

Tensor names are those of peft (`base_layer`, `lora_A.default`, `lora_B.default`), so its checkpoints fit; tests compare
the results. `fit_adapters` converts between files and networks with adapters on different layers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from maskselect.backends import checkpoints
from maskselect.backends.config_tree import arguments_of, walk

_BASE, _A, _B = ".base_layer.", ".lora_A.default.weight", ".lora_B.default.weight"
"""Parts of peft's names of the weight of an adapted layer and of its two factors."""


@dataclass(frozen=True)
class LoraSettings:
    """LoRA hyper-parameters. The defaults are those of LLaVA-1.5.

    Attributes:
        r: rank.
        alpha: the product is scaled by `alpha / r`.
        dropout: probability.
        targets: names of linear layers of the language model.
    """

    r: int = 128
    alpha: int = 256
    dropout: float = 0.05
    targets: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )


class LoraLinear(nn.Module):
    """A frozen linear layer plus `alpha / r` times the product of two low-rank layers, which train in float32.

    Args:
        layer: the linear layer; half precision and 4 bits are allowed.
        settings: rank, alpha and dropout.
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
        """(..., width) to (..., out), in the dtype of the layer's output."""
        out: Tensor = self.base_layer(x)
        if self.merged:
            return out
        down, up = cast(nn.Linear, self.lora_A["default"]), self.lora_B["default"]
        delta: Tensor = up(down(self.lora_dropout["default"](x.to(down.weight.dtype))))
        return (out + delta * self.scaling).to(out.dtype)

    def product(self) -> Tensor:
        """The adapter's change of the layer's weight: (out, width)."""
        up, down = self.lora_B["default"].weight, self.lora_A["default"].weight
        return (up @ down) * self.scaling  # type: ignore[operator, return-value]

    @torch.no_grad()
    def merge(self) -> None:
        """Add the product to the layer's weight, once."""
        if not self.merged:
            weight: Tensor = self.base_layer.weight  # type: ignore[assignment]
            weight += self.product().to(weight.dtype)
            self.merged = True


def add_lora(language_model: nn.Module, settings: LoraSettings) -> None:
    """Freeze the language model and replace the target layers by `LoraLinear`.

    Raises:
        ValueError: if a target name matches no layer, or one that is not linear.
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


def merge_adapters(module: nn.Module) -> None:
    """Add the products of adapters to the weights of their layers, in place, for faster inference.

    Weights of 4 or 8 bits keep their adapters, because the sum would be rounded to few levels.
    """
    for layer in module.modules():
        if isinstance(layer, LoraLinear) and layer.base_layer.weight.is_floating_point():  # type: ignore[operator]
            layer.merge()


def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of a network without adapters: a copy in which their products are added to the weights."""
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


def fit_adapters(
    tensors: Mapping[str, Tensor], state: Mapping[str, Tensor], origin: str | Path, from_files: str | None = None
) -> dict[str, Tensor]:
    """Convert the tensors of a file for a network that has adapters on other layers than the file.

    Plain weights become the base layers of the network's adapters, which keep their values: new adapters change no
    output. Adapters that the network lacks are added to their base layers.

    Args:
        tensors: of the file.
        state: the state of the network.
        origin: the file; its card has the scale of the adapters.
        from_files: prefix of the weights that the network reads from files of its own. They are the base layers of
            adapters whose file has none. None if there are no such weights.

    Raises:
        ValueError: if adapters have no base layer in the file or the network.
    """
    fitted = dict(tensors)
    for name in [name for name in state if _BASE in name]:
        plain = name.replace(_BASE, ".")
        if plain in fitted and name not in fitted:
            fitted[name] = fitted.pop(plain)
            layer = name.partition(_BASE)[0]
            fitted |= {key: state[key] for key in (layer + _A, layer + _B) if key not in fitted}
    return fitted | _merge_extra(fitted, state, origin, from_files)


def _merge_extra(
    tensors: dict[str, Tensor], state: Mapping[str, Tensor], origin: str | Path, from_files: str | None
) -> dict[str, Tensor]:
    """The weights of layers that have adapters only in the file; their parts are removed from `tensors`."""
    layers = [name.removesuffix(_A) for name in tensors if name.endswith(_A) and name not in state]
    layers = [layer for layer in layers if f"{layer}.weight" in state]
    if not layers:
        return {}
    alpha = _alpha(origin)
    weights: dict[str, Tensor] = {}
    for layer in layers:
        a, b = tensors.pop(layer + _A), tensors.pop(layer + _B)
        base = tensors.pop(f"{layer}{_BASE}weight", None)
        if base is None and from_files is not None and layer.startswith(from_files):
            base = state[f"{layer}.weight"]
            weights = {k: v for k, v in state.items() if k.startswith(from_files) and k not in tensors} | weights
        if base is None:
            raise ValueError(
                f"checkpoint {origin} holds adapters (LoRA) without the language model that they were trained on; "
                "expected its weights in lmm (model or base), as in the run that wrote the checkpoint"
            )
        weights[f"{layer}.weight"] = base + (alpha / len(a)) * (b.to(base) @ a.to(base))
        for name in [name for name in tensors if name.startswith(f"{layer}{_BASE}")]:
            weights[name.replace(_BASE, ".")] = tensors.pop(name)
    return weights


def _alpha(origin: str | Path) -> float:
    """LoRA's alpha of the run that wrote a checkpoint. Raises ValueError if the card has no `lora`."""
    for node in walk(checkpoints.read_card(origin).get("config")):
        lora = node.arguments.get("lora")
        if isinstance(lora, Mapping):
            return float((arguments_of(lora) or lora).get("alpha", LoraSettings.alpha))
    raise ValueError(f"the card of checkpoint {origin} has no `lora`, the settings of its adapters")
