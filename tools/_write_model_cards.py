#!/usr/bin/env python3
"""Writes docs/models.md from the cards of the shipped checkpoints and from the reports in docs/reports.

tests/test_docs.py fails if the page is out of date.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import _environment  # noqa: F401  finds the repository's own environment

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "models.md"
HEAD = """# Model cards

<!-- Written by tools/_write_model_cards.py; do not edit. -->

Every checkpoint in `checkpoints/`: what it is, what it learned from, how long it was trained, and its figures. Each was
trained on CPU cores of one machine. `maskselect push` writes a longer card with a checkpoint
([publishing](guide/publishing.md)).

**Limits of all of them.** They learned from generated scenes of twenty kinds of drawn objects. They know these scenes
and not the world: on photographs masks are mostly patches of colour and light, and words that the scenes never use get
an empty answer or a wrong one. Use them to learn, to test and to start a training, not to decide anything.

**Licence of all of them:** Apache-2.0, as the code. The generated scenes are made by this project.
"""
ROLES = {
    "ras": "Selects masks: scores all candidates for a prompt in one pass.",
    "llmseg": "Selects masks: compares the token `[SEG]` with the candidates.",
    "instructseg": "Makes masks by a decoder whose queries the language model writes; pictures and clips. A beginning.",
    "text4segpp": "Makes masks: the language model writes them as text. Use it with `--refiner snap`.",
    "text4seg": "Makes masks: the language model writes run lengths of rows. Use it with `--refiner snap`.",
    "captioner": "Stage 1 of RAS: captions a picture from its mask tokens. A start for training; answers no prompts.",
    "sam": "A compact Segment Anything: the candidates of `ras` and `llmseg`, and masks for boxes and points.",
    "mask2former": "A compact Mask2Former decoder: finds all objects. A start for InstructSeg, and a proposer.",
    "encoder_conv": "A frozen ConvNet: features of masks for `ras` and others.",
    "encoder_vit": "A frozen ViT: features of masks for `ras` and others.",
}
REPORTS = {"ras": ("test", "words", "look", "unknown"), "llmseg": ("llmseg", "llmseg_words", "llmseg_look")}
"""The reports in docs/reports on each checkpoint."""
MEASURES = ("gIoU", "cIoU", "F1", "N-acc", "T-acc")


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())


def page() -> str:
    """The whole page."""
    return HEAD + "".join("\n".join(["", *_section(name), ""]) for name in ROLES)


def _section(name: str) -> Iterator[str]:
    """One checkpoint."""
    from maskselect.backends import checkpoints  # noqa: PLC0415  after `_environment`
    from maskselect.reports.model_parts import describe_parts  # noqa: PLC0415

    file = ROOT / "checkpoints" / f"{name}.safetensors"
    card = checkpoints.read_card(file)
    yield f"## {name}\n\n{ROLES[name]}\n\n| | |\n|---|---|"
    size = f"{file.stat().st_size / 1e6:.1f} MB"
    yield f"| File | `checkpoints/{name}.safetensors`, {size}; card `checkpoints/{name}.json` |"
    yield f"| System | {_system(card)} |"
    yield f"| Trained on | {_trained_on(card)} |"
    yield f"| How long | {_how_long(card)} |"
    if "threshold" in card:
        yield f"| Selection threshold | {card['threshold']}{_threshold_from(card)} |"
    yield f"| Code | commit `{card['commit']}` |"
    parts = [part for part in describe_parts(card.get("config", {}), file) if part.role != "mask tokens and heads"]
    if parts:
        yield "\n| part | made of | parameters |\n|---|---|---|"
        yield from (f"| {part.role} | {part.made} | {part.size} |" for part in parts)
    yield from _figures(name, card)


def _system(card: Mapping[str, Any]) -> str:
    from maskselect.backends.building import find_class  # noqa: PLC0415
    from maskselect.backends.config_tree import Node  # noqa: PLC0415

    node = Node.of(card.get("config"))
    kind = None if node is None else find_class(node.path)
    paper = getattr(kind, "paper", "")
    title = getattr(kind, "title", None) or card["system"]
    return f"{title}, arXiv [{paper}](https://arxiv.org/abs/{paper})" if paper else title


def _trained_on(card: Mapping[str, Any]) -> str:
    from maskselect.backends.training_data import card_data  # noqa: PLC0415

    sources = card_data(card)
    if not sources:
        return f"generated scenes, split `train`, seed {card.get('data_seed', 0)}"
    names = {"scenes": "generated scenes", "scenes-clips": "generated clips"}
    return "; ".join(
        f"{names.get(one.dataset, one.dataset)}, split `{one.split}`, seed {one.seed}, {one.count:,} scenes"
        + (f", {one.share:.0%} of draws" if one.share < 1 else "")
        for one in sources
    )


def _how_long(card: Mapping[str, Any]) -> str:
    measured = card.get("metrics", {})
    facts = [
        (card.get("steps"), "{:,} steps of the last run"),
        (card.get("minutes"), "{:g} minutes of it"),
        (card.get("images_seen", measured.get("images_seen")), "{:,} pictures seen"),
        (measured.get("cpu_minutes"), "{:g} minutes"),
    ]
    words = [text.format(value) for value, text in facts if value is not None]
    if card.get("average_of"):
        words.append(f"mean of {len(card['average_of'])} checkpoints")
    return ", ".join(words)


def _threshold_from(card: Mapping[str, Any]) -> str:
    source = card.get("threshold_from")
    return "" if not source else f", from {source['samples']:,} samples of `{source['dataset']}` {source['split']}"


def _figures(name: str, card: Mapping[str, Any]) -> Iterator[str]:
    """The numbers of its reports, else those of its card."""
    from maskselect.reports.evaluated import read_evaluation  # noqa: PLC0415

    reports = [read_evaluation(ROOT / "docs" / "reports" / f"{one}.json") for one in REPORTS.get(name, ())]
    if reports:
        yield f"\n| data | samples | {' | '.join(MEASURES)} |\n|---|---|{'---|' * len(MEASURES)}"
        for one in reports:
            overall = one.report["metrics"]["overall"]
            cells = ["–" if overall.get(key) is None else f"{overall[key]:.1f}" for key in MEASURES]
            data = f"`{one.report['dataset']}`, `{one.report['split']}`"
            yield f"| {data} | {one.report['samples']:,} | {' | '.join(cells)} |"
        yield "\nIn percent; the reports are in `docs/reports/`."
        return
    figures = list(_flat(card.get("metrics", {})))
    if figures:
        yield "\n| figure of the card | value |\n|---|---|"
        yield from (f"| {key} | {value} |" for key, value in figures)


def _flat(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}: ")
        elif key not in ("images_seen", "cpu_minutes"):
            yield f"{before}{key}", value


if __name__ == "__main__":
    main()
