"""Models of the hub that are here already: in a folder, or whole in the hub's cache. No network is ever asked.

What is looked for is what transformers, timm and open_clip ask `huggingface_hub` for when they load a model.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from maskselect.backends.needs import release_of
from maskselect.ops.paths import expanded
from maskselect.structures.needs import Need

Find = Callable[[str], Path | None]
"""A file of a model by name, or None."""

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model")
"""Any of these makes a tokenizer."""
PROCESSOR = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
"""Any of these makes an image processor."""


def offline() -> bool:
    """Whether the hub's client was told not to ask the network (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants  # noqa: PLC0415  its package is quick to import and this is not

    return bool(constants.HF_HUB_OFFLINE)


def cached(repository: str, name: str, revision: str | None = None) -> Path | None:
    """A file of a repository in the hub's cache, or None."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415

    try:
        found = try_to_load_from_cache(repository, name, revision=revision)
    except HFValidationError:  # no id that the hub could have
        return None
    return Path(found) if isinstance(found, str) else None


def files_of(model: str) -> Find:
    """Files of a model by folder or hub id, where they are on this machine."""
    folder = Path(model)
    if folder.is_dir():
        return lambda name: folder / name if (folder / name).is_file() else None
    return lambda name: cached(model, name)


def transformers_model(model: str, what: str, example: str, *further: Sequence[str]) -> list[Need]:
    """What a model of transformers lacks: nothing, or one need.

    model: folder or hub id.  what: what it is, for people.  example: a hub id of that kind.
    further: beside config and weights, groups of file names of which one each must be there.
    """
    find = files_of(model)
    lacking = [] if find("config.json") else ["config.json"]
    lacking += _lacking_weights(find)
    lacking += [names[0] for names in further if not any(find(name) for name in names)]
    if not lacking:
        return []
    told = f"{model}, {what}"
    if Path(model).is_dir() or find("config.json"):
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        told += f": lacks {lacking[0]}{more}"
    if imported := release_of(Path(model)):
        return [Need("weights", told, imported)]
    return [Need("weights", told, _command(model, example), fetched=_may_be_id(model))]


def _lacking_weights(find: Find) -> list[str]:
    """Names of weight files that are not there: of one file, or of the shards that an index names."""
    if find("adapter_config.json"):
        return []  # weights of an adapter, which name those that they stand on
    for name in (*_named_weights(find), *_WEIGHTS):
        if find(name):
            return []
        index = find(f"{name}.index.json")
        if index is not None:
            try:
                shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            except (ValueError, KeyError, AttributeError, TypeError):
                return [f"a readable {name}.index.json"]
            return [shard for shard in shards if not find(str(shard))]
    return [_WEIGHTS[0]]


def _named_weights(find: Find) -> list[str]:
    """The file that a config says its weights are in, where it says so."""
    config = find("config.json")
    try:
        named = json.loads(config.read_text()).get("transformers_weights") if config else None
    except (ValueError, AttributeError):
        return []
    return [str(named)] if named else []


def _may_be_id(model: str) -> bool:
    return not Path(model).is_dir() and bool(_HUB_ID.fullmatch(model))


def _command(model: str, example: str) -> str:
    """What brings a model: by its id, or the example into the folder that was named."""
    if _may_be_id(model) and not Path(model).parent.is_dir():
        return f"hf download {model}"
    return f"hf download {example} --local-dir {model}"


def timm_weights(model: str) -> list[Need]:
    """What `timm.create_model(model, pretrained=True)` lacks. Raises ValueError for weights that timm does not know."""
    from timm.models import get_pretrained_cfg, is_model  # noqa: PLC0415  slow, and only asked for pretrained ones

    if not is_model(model):
        return []  # the encoder itself says so, with close names
    try:
        told = get_pretrained_cfg(model)
    except RuntimeError as error:
        raise ValueError(f"timm model {model!r}: {error}") from error
    if told is None or told.file:
        return []
    if told.hf_hub_id:
        repository, _, revision = str(told.hf_hub_id).partition("@")
        names = safe_first(str(told.hf_hub_filename or "pytorch_model.bin"))
        return _repository_file(repository, names, f"{model}, weights of timm", revision or None)
    return _torch_hub_file(str(told.url), f"{model}, weights of timm") if told.url else []


def open_clip_weights(model: str, pretrained: str) -> list[Need]:
    """What `open_clip.create_model(model, pretrained)` lacks. Raises ValueError for weights that it does not know."""
    import open_clip  # noqa: PLC0415  slow, and few configs have it

    if Path(pretrained).is_file():
        return []
    told = open_clip.get_pretrained_cfg(model, pretrained)
    if not told:
        known = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise ValueError(f"open_clip model {model!r} has no weights {pretrained!r}, nor is that a file; it has {known}")
    name = f"{model} {pretrained}, weights of open_clip"
    if told.get("hf_hub"):
        repository, _, file = str(told["hf_hub"]).rpartition("/")
        return _repository_file(repository, safe_first(file or "open_clip_pytorch_model.bin"), name)
    if not told.get("url"):
        return []
    kept = expanded("~/.cache/clip") / Path(told["url"]).name
    return [] if kept.is_file() else [Need("weights", name, f"curl -L -o {kept} {told['url']}", fetched=True)]


def safe_first(name: str) -> list[str]:
    """File names under which timm and open_clip look for weights, in their order."""
    safe = {
        "pytorch_model.bin": "model.safetensors",
        "open_clip_pytorch_model.bin": "open_clip_model.safetensors",
    }.get(name, f"{name.removesuffix('.bin')}.safetensors" if name.endswith(".bin") else name)
    return list(dict.fromkeys((safe, name)))


def _repository_file(repository: str, names: Sequence[str], what: str, revision: str | None = None) -> list[Need]:
    if any(cached(repository, name, revision) for name in names):
        return []
    at = f" --revision {revision}" if revision else ""
    return [Need("weights", what, f"hf download {repository} {names[0]}{at}", fetched=True)]


def _torch_hub_file(url: str, what: str) -> list[Need]:
    from torch import hub  # noqa: PLC0415

    kept = Path(hub.get_dir()) / "checkpoints" / Path(url).name
    return [] if kept.is_file() else [Need("weights", what, f"curl -L --create-dirs -o {kept} {url}", fetched=True)]
