"""Checks which model files are on this machine, in a folder or in the hub's cache, without network access.

The files are those that transformers, timm and open_clip load for a model.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from maskselect.backends.needs import release_of
from maskselect.ops.paths import expanded
from maskselect.structures.needs import Need

Find = Callable[[str], Path | None]
"""From the name of a model file to its path, or None."""

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model")
"""Files of a tokenizer; one of them is enough."""
PROCESSOR = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
"""Files of an image processor; one of them is enough."""


def offline() -> bool:
    """Whether HF_HUB_OFFLINE is set."""
    from huggingface_hub import constants  # noqa: PLC0415  slow to import

    return bool(constants.HF_HUB_OFFLINE)


def cached(repository: str, name: str, revision: str | None = None) -> Path | None:
    """A file of a repository in the hub's cache, or None."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415

    try:
        path = try_to_load_from_cache(repository, name, revision=revision)
    except HFValidationError:  # not a valid id
        return None
    return Path(path) if isinstance(path, str) else None


def files_of(model: str) -> Find:
    """The lookup for files of a model, by folder or hub id."""
    folder = Path(model)
    if folder.is_dir():
        return lambda name: folder / name if (folder / name).is_file() else None
    return lambda name: cached(model, name)


def transformers_model(model: str, what: str, example: str, *groups: Sequence[str]) -> list[Need]:
    """The need of the missing files of a model of transformers; empty if no file is missing.

    Args:
        model: folder or hub id.
        what: kind of the model, for messages.
        example: a hub id of this kind, for messages.
        groups: groups of further file names; one file of each group must exist.
    """
    find = files_of(model)
    missing = [] if find("config.json") else ["config.json"]
    missing += _missing_weights(find)
    missing += [names[0] for names in groups if not any(find(name) for name in names)]
    if not missing:
        return []
    text = f"{model}, {what}"
    if Path(model).is_dir() or find("config.json"):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        text += f": lacks {missing[0]}{more}"
    if imported := release_of(Path(model)):
        return [Need("weights", text, imported)]
    return [Need("weights", text, _command(model, example), fetched=_may_be_id(model))]


def _missing_weights(find: Find) -> list[str]:
    """Names of the missing weight files: one file, or the shards of an index."""
    if find("adapter_config.json"):
        return []  # an adapter, whose config names its base model
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
    """The weight file that the config names, if any."""
    config = find("config.json")
    try:
        name = json.loads(config.read_text()).get("transformers_weights") if config else None
    except (ValueError, AttributeError):
        return []
    return [str(name)] if name else []


def _may_be_id(model: str) -> bool:
    return not Path(model).is_dir() and bool(_HUB_ID.fullmatch(model))


def _command(model: str, example: str) -> str:
    """The command that downloads a model, or the example into the folder `model`."""
    if _may_be_id(model) and not Path(model).parent.is_dir():
        return f"hf download {model}"
    return f"hf download {example} --local-dir {model}"


def timm_weights(model: str) -> list[Need]:
    """The need of weights for `timm.create_model(model, pretrained=True)`. Raises ValueError for an unknown tag."""
    from timm.models import get_pretrained_cfg, is_model  # noqa: PLC0415  slow to import
    from torch import hub  # noqa: PLC0415

    if not is_model(model):
        return []  # the encoder reports it, with similar names
    try:
        config = get_pretrained_cfg(model)
    except RuntimeError as error:
        raise ValueError(f"timm model {model!r}: {error}") from error
    if config is None or config.file:
        return []
    what = f"{model}, weights of timm"
    if config.hf_hub_id:
        repository, _, revision = str(config.hf_hub_id).partition("@")
        names = safe_first(str(config.hf_hub_filename or "pytorch_model.bin"))
        return _repository_file(repository, names, what, revision or None)
    if not config.url:
        return []
    path = Path(hub.get_dir()) / "checkpoints" / Path(config.url).name
    command = f"curl -L --create-dirs -o {path} {config.url}"
    return [] if path.is_file() else [Need("weights", what, command, fetched=True)]


def open_clip_weights(model: str, pretrained: str) -> list[Need]:
    """The need of weights for `open_clip.create_model(model, pretrained)`. Raises ValueError for unknown weights."""
    import open_clip  # noqa: PLC0415  slow to import

    if Path(pretrained).is_file():
        return []
    config = open_clip.get_pretrained_cfg(model, pretrained)
    if not config:
        known = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise ValueError(f"open_clip model {model!r} has no weights {pretrained!r}, nor is that a file; it has {known}")
    name = f"{model} {pretrained}, weights of open_clip"
    if config.get("hf_hub"):
        repository, _, file = str(config["hf_hub"]).rpartition("/")
        return _repository_file(repository, safe_first(file or "open_clip_pytorch_model.bin"), name)
    if not config.get("url"):
        return []
    path = expanded("~/.cache/clip") / Path(config["url"]).name
    return [] if path.is_file() else [Need("weights", name, f"curl -L -o {path} {config['url']}", fetched=True)]


def safe_first(name: str) -> list[str]:
    """The file names that timm and open_clip try for weights, in their order."""
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
