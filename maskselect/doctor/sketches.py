"""A system without weights: the real classes of a config, built on the meta device, where tensors have no values.

Classes that read weights as they are built are built without them, or something of the same shape stands for them; all
others are themselves. So what trains, and what does not, is decided by the same code as in training.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from maskselect.backends import checkpoints
from maskselect.backends.building import build
from maskselect.backends.precision import widen
from maskselect.backends.sam import OFFICIAL_SIZES, build_sam
from maskselect.doctor.classes import NEEDS
from maskselect.doctor.llava_sketch import UnknownSizesError
from maskselect.structures.features import FeatureInfo

Sketch = Callable[[str, dict[str, Any]], Any]
"""Import path of a class and its arguments, nested classes built, to what stands for it."""


class Held(nn.Module):
    """Stands for a proposer: the frozen network within, or the proposers."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts).requires_grad_(False)


class SamEncoderSketch(nn.Module):
    """Stands for a `SamEncoder`: SAM's image encoder, and what it declares."""

    def __init__(self, name: str, sam: nn.Module) -> None:
        super().__init__()
        network: Any = sam
        height, width = network.prompt_encoder.image_embedding_size
        nobody = (0.0, 0.0, 0.0)
        channels, side = int(network.prompt_encoder.embed_dim), int(network.image_encoder.img_size)
        self.info = FeatureInfo(name, channels, side, (int(height), int(width)), nobody, nobody)
        self.encoder = network.image_encoder.requires_grad_(False)


@dataclass
class Sketched:
    """What could be built of a config.

    whole: the class at its top, or None.  parts: by their place, the largest things that were built instead.
    reasons: why the others were not.
    """

    whole: nn.Module | None = None
    parts: dict[tuple[str, ...], nn.Module] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)


def sketch(config: Mapping[str, Any]) -> Sketched:
    """A tree of `class_path` and `init_args` on the meta device, or as much of it as there are sizes for.

    Nothing is read but configs and cards. Raises ValueError or TypeError for arguments that a class refuses.
    """
    found = Sketched()
    with torch.device("meta"):
        made = _built(dict(config), (), found)
    found.whole = made if isinstance(made, nn.Module) else None
    if found.whole is not None:
        found.parts = {}
        widen(found.whole)  # as training does
    return found


class _Absent:
    """In the place of what could not be built."""


def _built(config: Any, keys: tuple[str, ...], found: Sketched) -> Any:
    if isinstance(config, list):
        items = [_built(item, (*keys, str(number)), found) for number, item in enumerate(config)]
        return _Absent() if any(isinstance(item, _Absent) for item in items) else items
    if not isinstance(config, dict):
        return config
    given = config.get("init_args", {}) if "class_path" in config else config
    built = {name: _built(value, (*keys, name), found) for name, value in given.items()}
    if any(isinstance(value, _Absent) for value in built.values()):
        return _Absent()
    if "class_path" not in config:
        return built
    try:
        made = _made(str(config["class_path"]), built)
    except (UnknownSizesError, FileNotFoundError) as error:
        found.reasons.append(" ".join(str(error).split()))
        return _Absent()
    if isinstance(made, nn.Module):
        found.parts = {place: part for place, part in found.parts.items() if place[: len(keys)] != keys}
        found.parts[_place(keys, built)] = made
    return made


def _place(keys: tuple[str, ...], arguments: dict[str, Any]) -> tuple[str, ...]:
    """Where a part stands; an encoder of an ensemble under its name, as in the whole system."""
    within = keys and keys[0] == "encoders" and "name" in arguments
    return (keys[0], f"encoder_{arguments['name']}") if within else keys


def _made(path: str, arguments: dict[str, Any]) -> Any:
    if path not in NEEDS:
        raise UnknownSizesError(f"{path} is not in maskselect/doctor/classes.py")
    return SKETCHES.get(path, _itself)(path, arguments)


def _itself(path: str, arguments: dict[str, Any]) -> Any:
    return build({"class_path": path, "init_args": arguments})


def _without(*names: str) -> Sketch:
    """The class itself, without the arguments that make it read weights."""
    return lambda path, given: _itself(path, {name: value for name, value in given.items() if name not in names})


def _standing(stands: str) -> Sketch:
    """Another class, with the same arguments. stands: its import path, imported when it is needed."""
    return lambda path, given: _itself(stands, given)


def _llava(path: str, arguments: dict[str, Any]) -> Any:
    if arguments.get("model") is None:
        return _without("base", "start")(path, arguments)
    return _standing("maskselect.doctor.llava_sketch.LlavaSketch")(path, arguments)


def _qwen(path: str, arguments: dict[str, Any]) -> Any:
    if arguments.get("model") is None:
        return _itself(path, arguments)
    return _standing("maskselect.doctor.qwen_sketch.QwenSketch")(path, arguments)


def _sam(arguments: dict[str, Any]) -> nn.Module:
    kind = arguments.get("model_type", "compact")
    if kind == "vit_t":
        from maskselect.backends.mobile_sam import build_mobile_sam  # noqa: PLC0415

        return build_mobile_sam()
    if kind != "compact":
        return build_sam(**OFFICIAL_SIZES[kind])
    config = checkpoints.read_card(arguments.get("checkpoint", "sam")).get("config", {})
    return build_sam(**((config["init_args"].get("model") or {}) if "init_args" in config else config))


def _codetr(arguments: dict[str, Any]) -> nn.Module:
    from maskselect.proposers.codetr.config import VARIANTS, compact_config  # noqa: PLC0415
    from maskselect.proposers.codetr.model import CoDetr  # noqa: PLC0415

    variant = arguments.get("variant", "coco")
    if variant in VARIANTS:
        return CoDetr(VARIANTS[variant])
    config = checkpoints.read_card(arguments["checkpoint"]).get("config", {})
    return CoDetr(compact_config(config["init_args"].get("model") if "init_args" in config else config))


def _transformers(classes: str) -> Sketch:
    """A network of transformers by the config that is on this machine. classes: the name of its `Auto` class."""

    def made(path: str, arguments: dict[str, Any]) -> nn.Module:
        import transformers  # noqa: PLC0415

        model = arguments.get("model", "")
        try:
            config = transformers.AutoConfig.from_pretrained(model, local_files_only=True)
            return Held(getattr(transformers, classes).from_config(config))
        except (OSError, ValueError, KeyError) as error:
            raise UnknownSizesError(f"the config of {model or path} is not on this machine, or another's") from error

    return made


def _nested(path: str, arguments: dict[str, Any]) -> nn.Module:
    """For proposers around others, and for those without a network."""
    inner = arguments.get("proposers") or [arguments.get("proposer")]
    return Held(*(part for part in inner if isinstance(part, nn.Module)))


SKETCHES: Mapping[str, Sketch] = {
    "maskselect.encoders.compact.ConvEncoder": _without("checkpoint"),
    "maskselect.encoders.compact.VitEncoder": _without("checkpoint"),
    "maskselect.encoders.open_clip.OpenClipEncoder": _standing("maskselect.doctor.open_clip_sketch.OpenClipSketch"),
    "maskselect.encoders.sam.SamEncoder": lambda _, given: SamEncoderSketch(given.get("name", "sam"), _sam(given)),
    "maskselect.encoders.timm.TimmEncoder": _without("pretrained", "checkpoint"),
    "maskselect.lmm.llava.Llava": _llava,
    "maskselect.lmm.qwen_vl.QwenVl": _qwen,
    "maskselect.proposers.codetr.proposer.CoDetrProposer": lambda _, given: Held(_codetr(given)),
    "maskselect.proposers.kept.KeptProposer": _nested,
    "maskselect.proposers.precomputed.PrecomputedProposer": _nested,
    "maskselect.proposers.queries.QueryProposer": _transformers("AutoModelForUniversalSegmentation"),
    "maskselect.proposers.regions.RegionProposer": _nested,
    "maskselect.proposers.sam.SamProposer": lambda _, given: Held(_sam(given)),
    "maskselect.proposers.sam2.Sam2Proposer": _transformers("AutoModelForMaskGeneration"),
    "maskselect.proposers.sam3.Sam3Proposer": _transformers("AutoModel"),
    "maskselect.proposers.snapping.SnappingProposer": _nested,
    "maskselect.proposers.union.UnionProposer": _nested,
    "maskselect.systems.llmseg.LLMSeg": _without("start"),
    "maskselect.systems.ras.RAS": _without("start"),
}
"""For classes that are not built as they are: what is built in their place."""
