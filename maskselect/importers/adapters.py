"""LoRA adapters of a LLaVA as its authors' code and ms-swift store them, and the LLaVA with the adapters added.

    adapter_config.json                    rank, scale and the name of the base model (peft)
    adapter_model.safetensors or .bin      the factors, by names of the stack that trained them
    non_lora_trainables.bin                what trained as a whole; written by LLaVA's code alone

LLaVA's code (haotian-liu/LLaVA) has its own tensor names, ms-swift those of transformers, which changed over the
versions. All are brought to the names of transformers 5, so that adapters of both stacks go with a base of either.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskselect.backends.name_map import NameMap
from maskselect.backends.pickled import read_state_dict
from maskselect.importers.hub_folder import HubWeights, read_json
from maskselect.importers.llava_names import DROPPED, ORIGINAL

CONFIG = "adapter_config.json"
FILES = ("adapter_model.safetensors", "adapter_model.bin")
OTHERS = "non_lora_trainables.bin"

_PREFIX = "base_model.model."
"""Peft's prefix of all names."""
_FACTOR = re.compile(r"(.+)\.lora_([AB])(?:\.default)?\.weight")
_SETTINGS = {"peft_type": "LORA", "bias": "none", "fan_in_fan_out": False, "use_dora": False}
"""The only supported value of settings of peft, which is also the default."""
_PATTERNS = ("rank_pattern", "alpha_pattern")
"""Settings that must be empty."""

_OWN = tuple(dict.fromkeys(own for _, own in ORIGINAL.templates))
_OLDER = (
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("model.vision_tower.", "model.vision_tower.vision_model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
)
"""Prefixes of transformers 5, and of its earlier versions."""

TRANSFORMERS = NameMap(
    (
        *((own, own) for own in _OWN),
        *((older + own.removeprefix(new), own) for new, older in _OLDER for own in _OWN if own.startswith(new)),
    ),
    (
        *DROPPED,
        (r"(model\.)?language_model\..*rotary_emb\.inv_freq$", "a computed table"),
        (r"(model\.)?vision_tower\..*position_ids$", "a computed table"),
    ),
)
"""The names of a LLaVA in any version of transformers."""


def own_name(foreign: str) -> str | None:
    """The name of transformers 5 for a tensor in any naming; None for an unknown one."""
    return next(iter(TRANSFORMERS.own(foreign) or ORIGINAL.own(foreign)), None)


@dataclass(frozen=True)
class Adapters:
    """The adapters of a training run, by names of transformers 5.

    Attributes:
        base: the model that they were trained on, as their config names it.
        scale: of the product of the factors.
        factors: A (r, in) and B (out, r) of each weight.
        whole: tensors that replace those of the base.
    """

    base: str = ""
    scale: float = 0.0
    factors: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    whole: Mapping[str, Tensor] = field(default_factory=dict)


def read_adapters(folder: Path) -> Adapters:
    """The adapters in a folder.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged or unsafe, an unsupported setting is used, or a tensor is unknown.
    """
    config = read_json(folder / CONFIG)
    scale = _scale(folder / CONFIG, config)
    tensors = dict(HubWeights(folder, "LoRA adapter of a LLaVA", "lmc22/text4seg-llava-7b-p24", FILES))
    if (folder / OTHERS).is_file():
        tensors |= read_state_dict(folder / OTHERS, "LLaVA")
    halves: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    unknown = []
    for foreign, tensor in tensors.items():
        factor = _FACTOR.fullmatch(foreign.removeprefix(_PREFIX))
        name = own_name(f"{factor[1]}.weight" if factor else foreign.removeprefix(_PREFIX))
        if name is None:
            unknown.append(foreign)
        elif factor:
            halves.setdefault(name, {})[factor[2]] = tensor
        else:
            whole[name] = tensor
    single = [f"lora_{'B' if 'A' in pair else 'A'} of {name}" for name, pair in halves.items() if len(pair) == 1]
    if unknown or single:
        wrong = [f"{len(unknown)} tensors are unknown, {unknown[0]} first"] if unknown else []
        wrong += [f"{', '.join(single[:3])} is missing"] if single else []
        raise ValueError(f"{folder} holds no adapters of a LLaVA: {'; '.join(wrong)}")
    factors = {name: (pair["A"], pair["B"]) for name, pair in halves.items()}
    return Adapters(str(config.get("base_model_name_or_path") or ""), scale, factors, whole)


def _scale(path: Path, config: Mapping[str, Any]) -> float:
    for name, value in _SETTINGS.items():
        if config.get(name, value) != value:
            raise ValueError(f"{path} has {name} {config[name]!r}; only {value!r} can be imported")
    for name in _PATTERNS:
        if config.get(name):
            raise ValueError(f"{path} has {name} {config[name]!r}; only one rank and scale for all layers is supported")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise ValueError(f"{path} has r {rank!r} and lora_alpha {alpha!r}; expected a whole number from 1 and a number")
    return float(alpha / rank**0.5 if config.get("use_rslora") else alpha / rank)


class AdaptedWeights(Mapping[str, Tensor]):
    """The weights of a LLaVA with adapters added, by the names of its own files; each sum is made at every access.

    Sums are computed in float32 and have the dtype of the base's weight.

    Args:
        base: the base model.
        names: of its files, `ORIGINAL` or `TRANSFORMERS`.
        adapters: to add; those without any tensor change nothing.

    Attributes:
        names: as given.
        headers: every tensor on the meta device, with its shape and dtype.
        problems: a line for every adapter that does not fit.
    """

    def __init__(self, base: HubWeights, names: NameMap, adapters: Adapters) -> None:
        self.names, self._base, self._adapters = names, base, adapters
        self._own = {foreign: own_name(foreign) for foreign in base}
        self._own |= {names.foreign(own): own for own in adapters.whole if own not in self._own.values()}
        replaced = {foreign: adapters.whole[own] for foreign, own in self._own.items() if own and own in adapters.whole}
        self.headers = base.headers | {
            foreign: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
            for foreign, tensor in replaced.items()
        }
        shapes = {own: self.headers[foreign].shape for foreign, own in self._own.items()}
        self.problems = [
            f"the adapter of {name} is for a weight of {len(up)} x {down.shape[1]}, "
            + (f"which has {' x '.join(map(str, shapes[name]))}" if name in shapes else "which the base lacks")
            for name, (down, up) in adapters.factors.items()
            if shapes.get(name) != (len(up), down.shape[1])
        ]

    def __getitem__(self, foreign: str) -> Tensor:
        own = self._own[foreign] or ""
        whole = self._adapters.whole.get(own)
        tensor = self._base[foreign] if whole is None else whole
        if own not in self._adapters.factors:
            return tensor
        down, up = self._adapters.factors[own]
        return (tensor.float() + self._adapters.scale * (up.float() @ down.float())).to(tensor.dtype)

    def own(self, name: str) -> Tensor:
        """A tensor by its name in transformers 5, which must exist."""
        return self[next(foreign for foreign, own in self._own.items() if own == name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)

    def __len__(self) -> int:
        return len(self._own)
