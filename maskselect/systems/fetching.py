"""A checkpoint out of a repository of the hub: its card first, then what the card says is needed, and nothing else."""

import glob
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskselect.backends import hub
from maskselect.backends.hub import Repository
from maskselect.systems.named_weights import named_weights


def fetch_checkpoint(name: str) -> Path:
    """The safetensors file, in the hub's cache, of the one checkpoint that a repository holds, with what it needs.

    name: `hf://org/name` or `hf://org/name@revision`; where the cache has it all, no network is needed.

    Raises ValueError when the name is none, the card is damaged or there are several checkpoints, FileNotFoundError
    when the repository cannot be had or holds no checkpoint.
    """
    repository = Repository.parse(name)
    cards = hub.fetch(repository, ["*.json"], unwanted=["*/*"])
    stem, card = _checkpoint(repository, cards)
    wanted = [f"{stem}.safetensors", f"{stem}.json", *named_weights(card.get("config")).beside]
    patterns = [glob.escape(path) for path in wanted]
    folder = hub.fetch(replace(repository, revision=cards.name), [*patterns, *(f"{path}/*" for path in patterns)])
    file = folder / wanted[0]
    if not file.is_file():
        raise FileNotFoundError(f"{repository} has a card {stem}.json but no {file.name}; expected both")
    return file


def _checkpoint(repository: Repository, folder: Path) -> tuple[str, dict[str, Any]]:
    """Stem and card of the checkpoint, which is the one that no other needs beside it."""
    cards: dict[str, dict[str, Any]] = {}
    damaged: list[str] = []
    for path in sorted(folder.glob("*.json")):
        try:
            card = json.loads(path.read_text())
        except ValueError:
            damaged.append(path.name)
            continue
        if isinstance(card, dict) and "system" in card:
            cards[path.stem] = card
    needed = {path for card in cards.values() for path in named_weights(card.get("config")).beside}
    found = [stem for stem in cards if f"{stem}.safetensors" not in needed]
    if len(found) > 1:
        raise ValueError(f"{repository} holds the checkpoints {', '.join(found)}; expected one")
    if not found and damaged:
        raise ValueError(f"card {damaged[0]} of {repository} is not valid JSON")
    if not found:
        raise FileNotFoundError(
            f"{repository} holds no checkpoint of maskselect; expected NAME.safetensors with its card NAME.json"
        )
    return found[0], cards[found[0]]
