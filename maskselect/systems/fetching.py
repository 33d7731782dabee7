"""Downloads a checkpoint from a repository of the hub: its card, then the files that the card names."""

import glob
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskselect.backends import hub
from maskselect.backends.hub import Repository
from maskselect.systems.named_weights import named_weights


def fetch_checkpoint(name: str) -> Path:
    """Download the checkpoint of a repository with all files that it needs; cached files need no network.

    Args:
        name: `hf://org/name` or `hf://org/name@revision`.

    Returns:
        The safetensors file in the hub's cache.

    Raises:
        FileNotFoundError: if the repository cannot be read or holds no checkpoint.
        ValueError: if the name is malformed, the card is damaged or there are several checkpoints.
    """
    repository = Repository.parse(name)
    cards = hub.fetch(repository, ["*.json"], excluded=["*/*"])
    stem, card = _checkpoint(repository, cards)
    paths = [f"{stem}.safetensors", f"{stem}.json", *named_weights(card.get("config")).beside]
    patterns = [glob.escape(path) for path in paths]
    folder = hub.fetch(replace(repository, revision=cards.name), [*patterns, *(f"{path}/*" for path in patterns)])
    file = folder / paths[0]
    if not file.is_file():
        raise FileNotFoundError(f"{repository} has a card {stem}.json but no {file.name}; expected both")
    return file


def _checkpoint(repository: Repository, folder: Path) -> tuple[str, dict[str, Any]]:
    """Stem and card of the checkpoint that no other checkpoint needs."""
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
    stems = [stem for stem in cards if f"{stem}.safetensors" not in needed]
    if len(stems) > 1:
        raise ValueError(f"{repository} holds the checkpoints {', '.join(stems)}; expected one")
    if not stems and damaged:
        raise ValueError(f"card {damaged[0]} of {repository} is not valid JSON")
    if not stems:
        raise FileNotFoundError(
            f"{repository} holds no checkpoint of maskselect; expected NAME.safetensors with its card NAME.json"
        )
    return stems[0], cards[stems[0]]
