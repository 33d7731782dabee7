"""LoRA (arXiv 2106.09685): low-rank adapters beside linear layers, and the sum of both.

Names of tensors are those of peft (`base_layer`, `lora_A.default`, `lora_B.default`), whose checkpoints fit; tests
compare the numbers. `fit_adapters` reads files of networks with adapters into networks without, and back.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from maskselect.backends import checkpoints
from maskselect.backends.config_tree import arguments_of

_BASE, _A, _B = ".base_layer.", ".lora_A.default.weight", ".lora_B.default.weight"
"""What peft puts into the name of an adapted layer's own weight and of its two factors."""


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


def fit_adapters(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], origin: str | Path, from_files: str | None = None
) -> dict[str, Tensor]:
    """The tensors of a file as a network names them that has adapters on other layers than the file's had.

    Plain weights go below the adapters of the network, which stay as they are: new ones change no output. Adapters that
    the network does not have are added to the weights that they stood on. Everything else stays as it is.

    Args:
        tensors: of the file.
        own: the state of the network.
        origin: the file; its card tells how adapters are scaled.
        from_files: what the names of weights begin with that come from files of the network's own, so that adapters
            whose file holds nothing below them may be added to them; None where nothing does.

    Raises:
        ValueError: nothing says what the file's adapters stood on.
    """
    found = dict(tensors)
    for name in [name for name in own if _BASE in name]:
        plain = name.replace(_BASE, ".")
        if plain in found and name not in found:
            found[name] = found.pop(plain)
            layer = name.partition(_BASE)[0]
            found |= {key: own[key] for key in (layer + _A, layer + _B) if key not in found}
    merged = _merged(found, own, origin, from_files)
    return found | merged


def _merged(
    found: dict[str, Tensor], own: Mapping[str, Tensor], origin: str | Path, from_files: str | None
) -> dict[str, Tensor]:
    """The weights of layers that have adapters in the file alone; takes what they are made of out of `found`."""
    layers = [name.removesuffix(_A) for name in found if name.endswith(_A) and name not in own]
    layers = [layer for layer in layers if f"{layer}.weight" in own]
    if not layers:
        return {}
    alpha = _alpha(origin)
    weights: dict[str, Tensor] = {}
    for layer in layers:
        a, b = found.pop(layer + _A), found.pop(layer + _B)
        base = found.pop(f"{layer}{_BASE}weight", None)
        if base is None and from_files is not None and layer.startswith(from_files):
            base = own[f"{layer}.weight"]
            weights = {k: v for k, v in own.items() if k.startswith(from_files) and k not in found} | weights
        if base is None:
            raise ValueError(
                f"checkpoint {origin} holds adapters (LoRA) without the language model that they were trained on; "
                "expected its weights in lmm (model or base), as in the run that wrote the checkpoint"
            )
        weights[f"{layer}.weight"] = base + (alpha / len(a)) * (b.to(base) @ a.to(base))
        for name in [name for name in found if name.startswith(f"{layer}{_BASE}")]:
            weights[name.replace(_BASE, ".")] = found.pop(name)
    return weights


def _alpha(origin: str | Path) -> float:
    """LoRA's alpha of the run that wrote a checkpoint. Raises ValueError when its card does not tell."""
    settings = next(_settings(checkpoints.read_card(origin).get("config")), None)
    if settings is None:
        raise ValueError(f"the card of checkpoint {origin} does not tell the settings of its adapters; expected lora")
    return float(settings.get("alpha", LoraSettings.alpha))


def _settings(config: Any) -> Iterator[Mapping[str, Any]]:
    """The values of every `lora` in a config tree."""
    if isinstance(config, Mapping):
        if isinstance(config.get("lora"), Mapping):
            yield arguments_of(config["lora"]) or config["lora"]
        for value in config.values():
            yield from _settings(value)
    elif isinstance(config, list):
        for value in config:
            yield from _settings(value)
