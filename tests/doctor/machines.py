"""Stand-ins for what a machine may hold: the hub's cache, and a LLaVA's folder without weights."""

import json
from pathlib import Path
from typing import Any

from maskselect.backends.configs import read_configs
from maskselect.lmm.llava import Llava
from tests.lmm.twin import save

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
PAPER = CONFIGS / "paper"
COMPACT = sorted(CONFIGS.glob("*.yaml"))


def put_into_cache(cache: Path, repository: str, *names: str) -> Path:
    """Files of a repository, empty, as `huggingface_hub` lays them out."""
    home = cache / f"models--{repository.replace('/', '--')}"
    snapshot = home / "snapshots" / "abc"
    snapshot.mkdir(parents=True, exist_ok=True)
    (home / "refs").mkdir(exist_ok=True)
    (home / "refs" / "main").write_text("abc")
    for name in names:
        (snapshot / name).touch()
    return snapshot


def write_index(folder: Path, *shards: str) -> None:
    weight_map = {f"tensor.{number}": shard for number, shard in enumerate(shards)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def saved(made: Any, folder: Path) -> Path:
    """The folder, with a wrapped language model and its tokenizer as transformers writes them."""
    if isinstance(made, Llava):
        return save(made, folder)
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    return folder


def config_of(*names: str) -> dict[str, Any]:
    """A config of the repository with its overlays, as YAML has it."""
    return read_configs([CONFIGS / name for name in names])
