"""LoRA through peft: wiring and the report of what it touched."""

from dataclasses import dataclass, field
from typing import Any, cast

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


def add_lora(language_model: nn.Module, settings: LoraSettings) -> list[str]:
    """Freeze the language model, put LoRA on the named layers in place, and return the trainable parameter names.

    Raises ValueError when no layer matches a target name.
    """
    from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415  slow, and few models have adapters

    leaves = {name.rpartition(".")[2] for name, _ in language_model.named_modules()}
    absent = sorted(set(settings.targets) - leaves)
    if absent:
        raise ValueError(f"LoRA targets {absent} match no layer; layers are named {sorted(leaves)}")
    language_model.requires_grad_(False)
    config = LoraConfig(
        r=settings.r, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=settings.targets
    )
    inject_adapter_in_model(config, language_model)
    trainable = {name: parameter for name, parameter in language_model.named_parameters() if parameter.requires_grad}
    for parameter in trainable.values():
        parameter.data = parameter.data.float()  # peft takes the dtype of the frozen layer, in which little is learned
    return list(trainable)


def merge_adapters(module: nn.Module) -> None:
    """Add the products of adapters to the weights they stand on, in place: for inference, where they only take time.

    Weights of 4 or 8 bits stay as they are, since a sum would be rounded to their few levels.
    """
    if not any(".lora_" in name for name, _ in module.named_parameters()):
        return
    from peft.tuners.lora import LoraLayer  # noqa: PLC0415  slow, and few models have adapters

    for layer in module.modules():
        if isinstance(layer, LoraLayer) and cast(Tensor, layer.get_base_layer().weight).is_floating_point():
            cast(Any, layer).merge()


def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of a network as if it had never had adapters: their products are added to the weights they stand on.

    Tensors are copies, on the devices of the network's own.
    """
    from peft.tuners.lora import LoraLayer  # noqa: PLC0415  slow, and few models have adapters

    changes = {}
    for name, layer in module.named_modules():
        if isinstance(layer, LoraLayer):
            changes[f"{name}.base_layer.weight"] = sum(
                cast(Tensor, layer.get_delta_weight(adapter)) for adapter in layer.active_adapters
            )
    return {
        name.replace(".base_layer.", "."): (tensor + changes.get(name, 0)).detach().clone()
        for name, tensor in module.state_dict().items()
        if ".lora_" not in name
    }
