"""What each class of a config needs, by its import path.

One line a class that may stand in a config; a test holds that there is one for every class in `configs/`. A function
gets the class's `init_args`, without those that are None, and gives what is missing. It imports nothing that the class
itself does not need, and builds nothing.
"""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from maskselect.backends.optional import installing
from maskselect.doctor import hub_cache, weights
from maskselect.doctor.datasets import captions, dataset
from maskselect.doctor.needs import Arguments, Need

_SAM = "https://dl.fbaipublicfiles.com/segment_anything/"

Needs = Callable[[Arguments], list[Need]]


def nothing(arguments: Arguments) -> list[Need]:
    """For classes that bring all they need."""
    return []


def package(module: str, name: str, extra: str) -> list[Need]:
    """A package that not everybody has. extra: the group of `pyproject.toml` that brings it."""
    return [] if find_spec(module) else [Need("package", name, installing(extra))]


def _start(arguments: Arguments) -> list[Need]:
    return weights.checkpoint(arguments.get("start"), "where training starts from")


def _llava(arguments: Arguments) -> list[Need]:
    found = weights.checkpoint(arguments.get("base"), "the language model under what trains") + _start(arguments)
    model = arguments.get("model")
    if arguments.get("quantize"):
        found += package("bitsandbytes", "bitsandbytes", "qlora")
    if model is None:
        return found
    lacking = hub_cache.transformers_model(model, "LLaVA", "llava-hf/llava-1.5-7b-hf", hub_cache.TOKENIZER)
    if lacking and "llm-seg" in Path(model).parts:
        lacking = [Need("weights", lacking[0].what, weights.source_of(Path(model)))]
    return lacking + found


def _qwen(arguments: Arguments) -> list[Need]:
    model = arguments.get("model")
    found = package("bitsandbytes", "bitsandbytes", "qlora") if arguments.get("quantize") else []
    if model is None:
        return found
    example = "Qwen/Qwen2.5-VL-7B-Instruct"
    return hub_cache.transformers_model(model, "Qwen2.5-VL", example, hub_cache.TOKENIZER) + found


def _sam(arguments: Arguments) -> list[Need]:
    kind, path = arguments.get("model_type", "compact"), arguments.get("checkpoint", "sam")
    if kind == "compact":
        return weights.checkpoint(path, "compact SAM")
    if kind == "vit_t":
        from maskselect.backends.mobile_sam import URL  # noqa: PLC0415  timm loads slowly; few ask for it

        return weights.file(path, "MobileSAM", f"curl -L --create-dirs -o {path} {URL}")
    from maskselect.backends.sam import OFFICIAL  # noqa: PLC0415

    if kind not in OFFICIAL:
        return []  # the class itself says so
    return weights.file(path, f"SAM {kind}", f"curl -L --create-dirs -o {path} {_SAM}{OFFICIAL[kind]}")


def _codetr(arguments: Arguments) -> list[Need]:
    from maskselect.proposers.codetr.importer import REPOSITORIES  # noqa: PLC0415

    variant, path = arguments.get("variant", "coco"), Path(arguments["checkpoint"])
    if variant not in REPOSITORIES:
        return weights.checkpoint(path, "Co-DETR") if variant == "own" else []
    command = f"hf download {REPOSITORIES[variant]} pytorch_model.pth --local-dir {path.parent}"
    return weights.file(path, f"Co-DETR ({variant})", command)


def _transformers(what: str, example: str, *further: tuple[str, ...]) -> Needs:
    """For proposers whose `model` is a folder or hub id of transformers."""
    return lambda arguments: hub_cache.transformers_model(arguments.get("model", example), what, example, *further)


def _compact(arguments: Arguments) -> list[Need]:
    return weights.checkpoint(arguments.get("checkpoint"), f"encoder {arguments.get('name', '')}".strip())


def _timm(arguments: Arguments) -> list[Need]:
    found = weights.checkpoint(arguments.get("checkpoint"), f"encoder {arguments['name']}")
    further = arguments.get("model_args") or {}
    if not arguments.get("pretrained") or any(key in further for key in ("pretrained_cfg", "checkpoint_path")):
        return found
    other = (further.get("pretrained_cfg_overlay") or {}).get("file")
    if other:
        return found + weights.file(other, f"encoder {arguments['name']}", "a file of weights of that model")
    return found + hub_cache.timm_weights(arguments["model"])


def _open_clip(arguments: Arguments) -> list[Need]:
    found = weights.checkpoint(arguments.get("checkpoint"), f"encoder {arguments['name']}")
    tag = arguments.get("pretrained")
    return found + (hub_cache.open_clip_weights(arguments["model"], tag) if tag else [])


def _kept(arguments: Arguments) -> list[Need]:
    folder = Path(arguments["folder"])
    command = f"maskselect propose --images DIR --output {folder}"
    return [] if folder.is_dir() else [Need("data", f"{folder}, candidates made before", command)]


NEEDS: Mapping[str, Needs] = {
    "maskselect.data.groups.DatasetGroups": dataset,
    "maskselect.scenes.groups.SceneGroups": nothing,
    "maskselect.data.llava.CaptionGroups": captions,
    "maskselect.data.mixing.MixedGroups": nothing,
    "maskselect.encoders.compact.ConvEncoder": _compact,
    "maskselect.encoders.compact.VitEncoder": _compact,
    "maskselect.encoders.ensemble.EncoderEnsemble": nothing,
    "maskselect.encoders.open_clip.OpenClipEncoder": _open_clip,
    "maskselect.encoders.position.SinusoidEncoder": nothing,
    "maskselect.encoders.sam.SamEncoder": _sam,
    "maskselect.encoders.timm.TimmEncoder": _timm,
    "maskselect.lmm.compact.LlavaSizes": nothing,
    "maskselect.lmm.llava.Llava": _llava,
    "maskselect.lmm.lora.LoraSettings": nothing,
    "maskselect.lmm.qwen_building.QwenSizes": nothing,
    "maskselect.lmm.qwen_vl.QwenVl": _qwen,
    "maskselect.proposers.codetr.proposer.CoDetrProposer": _codetr,
    "maskselect.proposers.kept.KeptProposer": nothing,
    "maskselect.proposers.precomputed.PrecomputedProposer": _kept,
    "maskselect.proposers.queries.QueryProposer": _transformers(
        "a model with mask queries", "facebook/mask2former-swin-large-coco-instance", hub_cache.PROCESSOR
    ),
    "maskselect.proposers.regions.RegionProposer": lambda _: package("skimage", "scikit-image", "regions"),
    "maskselect.proposers.sam.SamProposer": _sam,
    "maskselect.proposers.sam2.Sam2Proposer": _transformers(
        "SAM 2", "facebook/sam2.1-hiera-large", hub_cache.PROCESSOR
    ),
    "maskselect.proposers.sam3.Sam3Proposer": _transformers(
        "SAM 3", "facebook/sam3", hub_cache.PROCESSOR, hub_cache.TOKENIZER
    ),
    "maskselect.proposers.snapping.SnappingProposer": nothing,
    "maskselect.proposers.union.UnionProposer": nothing,
    "maskselect.systems.decoder_scorer.DecoderSettings": nothing,
    "maskselect.systems.llmseg.LLMSeg": _start,
    "maskselect.systems.ras.RAS": _start,
    "maskselect.recipes.compact.captioner.CaptionTask": nothing,
    "maskselect.training.data.GroupsData": nothing,
    "maskselect.training.data.ScenesData": nothing,
    "maskselect.recipes.compact.encoder.EncoderTask": nothing,
    "maskselect.recipes.compact.sam.SamTask": nothing,
    "maskselect.training.stand_ins.StandIns": nothing,
}
"""Import path to what finds out what is missing."""
