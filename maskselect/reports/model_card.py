"""The model card of a checkpoint: the README.md of its repository on the hub, from the card and reports.

It begins with YAML for the hub (https://huggingface.co/docs/hub/model-cards): library, task, base model, and the
reports' numbers as `model-index`.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from maskselect.backends.building import find_class
from maskselect.backends.config_tree import Node
from maskselect.backends.training_data import card_data
from maskselect.data.catalog import EVERYTHING
from maskselect.reports.evaluated import Evaluation
from maskselect.reports.model_parts import describe_parts
from maskselect.reports.table import SHOWN, counted
from maskselect.scenes.asking import GENERATED
from maskselect.structures.provenance import TrainingData
from maskselect.systems.named_weights import NamedWeights, named_weights

_TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
_TASK = "image-segmentation"
_TAGS = ("maskselect", "referring-image-segmentation", "mask-reference", "vision-language")


@runtime_checkable
class Described(Protocol):
    """A class of systems that states its name, the arXiv number of its paper, and how it works."""

    title: str
    paper: str
    summary: str


def draw_model_card(
    card: Mapping[str, Any],
    file: Path,
    name: str,
    link: str,
    evaluations: Sequence[Evaluation] = (),
    license: str | None = None,
) -> str:
    """The model card as Markdown after YAML.

    Args:
        card: the checkpoint's card.
        file: the checkpoint.
        name: its repository, `org/name`.
        link: its name for `maskselect.load`.
        evaluations: reports on this checkpoint.
        license: the hub's name of the licence, if the model card shall name one.
    """
    config = card.get("config", {})
    weights = named_weights(config)
    node = Node.of(config)
    kind = None if node is None else find_class(node.path)
    title, paper, summary = card["system"], "", ""
    if isinstance(kind, Described):
        title, paper, summary = kind.title, kind.paper, kind.summary
    source = f", of [arXiv {paper}](https://arxiv.org/abs/{paper})" if paper else ""
    data = ModelCardData(
        base_model=weights.hub or None,
        eval_results=[result for one in evaluations for result in _results(one)] or None,
        language="en",
        library_name="maskselect",
        license=license,
        model_name=name,
        pipeline_tag=_TASK,
        tags=[*_TAGS, card["system"], *([f"arxiv:{paper}"] if paper else [])],
    )
    model_card = ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        title=name,
        about=f"A checkpoint of {title}{source}" + (f": {summary}." if summary else "."),
        made_with=f"written with version {version('maskselect')}",
        link=link,
        parts=describe_parts(config, file),
        notes=_notes(weights),
        training=_training(card),
        threshold=_threshold(card),
        evaluations=[_section(one, link) for one in evaluations],
    )
    return str(model_card)


def _results(one: Evaluation) -> list[EvalResult]:
    """The metrics of all samples for the model-index, without the oracle, which measures the candidates."""
    overall = one.report["metrics"]["overall"]
    return [
        EvalResult(
            task_type=_TASK,
            task_name="Referring image segmentation",
            dataset_type=str(one.report["dataset"]),
            dataset_name=one.title,
            dataset_config="ground-truth masks among the candidates" if one.ground_truth_added else None,
            dataset_split=str(one.report["split"]),
            metric_type=measure,
            metric_name=f"{measure} (percent)",
            metric_value=overall[measure],
        )
        for measure in _measures(one)
        if not measure.startswith("oracle") and overall.get(measure) is not None
    ]


def _section(one: Evaluation, link: str) -> dict[str, Any]:
    report = one.report
    seed = f", seed {one.seed}" if one.seed is not None else ""
    size = f"{counted(report['samples'], 'sample')}, {counted(report['images'], 'image')}{seed}."
    return {
        "title": f"{one.title}, `{report['split']}`",
        "size": size + (f" Candidates: {one.pool}." if one.pool else ""),
        "table": _table(one),
        "notes": [*_intervals(one), *_overlaps(one)],
        "command": one.command(link),
    }


def _measures(one: Evaluation) -> list[str]:
    return [name for name in SHOWN if any(row.get(name) is not None for row in one.report["metrics"].values())]


def _table(one: Evaluation) -> str:
    """A row for all samples, and one for those without and with references."""
    measures = _measures(one)
    lines = [_row(["", "samples", *measures]), "|---|" + "---:|" * (len(measures) + 1)]
    for label, row in one.report["metrics"].items():
        if row.get("samples"):
            cells = [f"{row[name]:.1f}" if row.get(name) is not None else "–" for name in measures]
            lines.append(_row([label, str(row["samples"]), *cells]))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _intervals(one: Evaluation) -> list[str]:
    edges = one.report.get("intervals", {}).get("overall", {})
    ranges = [f"{name} {edges[name][0]:.1f} to {edges[name][1]:.1f}" for name in _measures(one) if edges.get(name)]
    return [f"95 % intervals of all samples: {', '.join(ranges)}."] if ranges else []


def _overlaps(one: Evaluation) -> list[str]:
    if "overlap" not in one.report:
        return ["The overlap of these samples with training data was not checked."]
    warnings = [f"**Beware: {sentence}.**" for sentence in one.report["overlap"]]
    return warnings or ["No overlap of these samples or their pictures with training data is known."]


def _notes(weights: NamedWeights) -> list[str]:
    """The places of weights that are not in the checkpoint."""
    places = (
        ("Part of the package `maskselect`, and not in this repository", weights.shipped),
        ("In this repository beside the checkpoint, which needs them", weights.beside),
        ("Fetched from the hub when the model is loaded", weights.hub),
        ("Not in this repository; put them at these paths, relative to the working folder", weights.published),
    )
    return [f"{text}: {', '.join(f'`{name}`' for name in names)}." for text, names in places if names]


def _threshold(card: Mapping[str, Any]) -> str:
    if "threshold" not in card:
        return "The card names none; 0.5 is used."
    text = f"A candidate is in the group from a score of {card['threshold']} on."
    source = card.get("threshold_from")
    if source:
        text += f" Chosen for the highest F1 on {source['samples']} samples of `{source['dataset']}` {source['split']}"
        text += f", with an N-acc of at least {source['least_n_acc']:g} %." if source.get("least_n_acc") else "."
    elif card.get("metrics"):
        text += " Chosen by F1 on the validation samples of training."
    if "clip_threshold" in card:
        text += f" On clips it is {card['clip_threshold']}"
        source = card.get("clip_threshold_from")
        text += (
            f", chosen on {source['samples']} prompts of `{source['dataset']}` {source['split']}." if source else "."
        )
    return text


def _training(card: Mapping[str, Any]) -> list[str]:
    lines = [_describe_data(one) for one in card_data(card)] or ["The training data is unknown."]
    facts = {"steps": "{} steps of the last run", "minutes": "{} minutes of it", "commit": "code at commit `{}`"}
    lines += [text.format(card[name]) for name, text in facts.items() if card.get(name) is not None]
    if card.get("average_of"):
        lines.append(f"the mean of {len(card['average_of'])} checkpoints")
    return lines


def _describe_data(one: TrainingData) -> str:
    """Data set, split, the part of it, and its share of draws."""
    title = "generated scenes"
    if one.dataset not in GENERATED:
        entry = EVERYTHING.get(one.dataset)
        title = one.dataset if entry is None else f"{entry.title} ({entry.page})"
    numbers = [f", {name} {value}" for name, value in (("seed", one.seed), ("count", one.count)) if value is not None]
    limit = f", the first {one.limit} samples" if one.limit else ""
    share = f", {one.share:.0%} of draws" if one.share < 1 else ""
    return f"{title}, split `{one.split}`{one.described_images}{''.join(numbers)}{limit}{share}"
