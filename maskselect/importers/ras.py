"""The released RAS (arXiv 2506.05342, hub id Shengcao1006/RAS-13B-General) to a folder that `maskselect.load` takes.

    DST/llava/             its LLaVA, as transformers reads it, with the tokenizer
    DST/ras.safetensors    mask projector, pre-tokens and classifier; their card's config points to the LLaVA beside it
    DST/ras.import.json    what became of every tensor

The file was not available when this was written. The names of its LLaVA are known; the other parts are identified by
shape (`ras_parts.py`) without ambiguity, and every other tensor must belong to a frozen encoder or be dropped by
request.

The import assumes, prints and records what shapes do not prove: GELU between layers; the order of features (CLIP,
ConvNeXt, SigLIP, DINOv2, positions; `order` changes it); no standardisation of features. A classifier with fewer hidden
channels than ours is padded with zeros.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from maskselect.backends import checkpoints
from maskselect.backends.building import build
from maskselect.backends.config_tree import arguments_of, changed
from maskselect.backends.configs import read_configs
from maskselect.backends.name_map import NameMap
from maskselect.backends.weightless import weightless
from maskselect.encoders.ensemble import EncoderEnsemble
from maskselect.importers.account import NONE, REFUSED, Row, report_rows, write_rows
from maskselect.importers.hub_folder import HubWeights
from maskselect.importers.llava import LlavaPlan, plan_llava, write_llava
from maskselect.importers.llava_folder import SHARD, check_finite
from maskselect.importers.llava_names import EMBEDDINGS, ORIGINAL, OUTPUT
from maskselect.importers.ras_parts import ROLES, VECTORS, Mlp, Parts, Vector, find_parts
from maskselect.importers.release import THRESHOLD, release_card, system_task
from maskselect.ops.atomic import atomic_folder, refuse_filled
from maskselect.systems.ras import RAS
from maskselect.systems.scoring import ParallelScorer
from maskselect.tokens.mask_tokenizer import MaskTokenizer

WHAT, EXAMPLE = "RAS", "Shengcao1006/RAS-13B-General"

ENCODERS = ("clip", "convnext", "siglip", "dinov2", "position")
"""The encoders in the order of the paper's text (section 4); the order of their features is not published."""

_SETTINGS = {"stage": 2, "scorer": "parallel", "pre_tokens": "different", "proposal_score": False, "image_tokens": True}
"""Arguments of `RAS` that the release has."""

TOKENIZER, HEAD = "reader.mask_tokenizer.", "scorer."
"""Where the system holds the parts that are not of its LLaVA."""

LLAVA = "llava: "
"""Prefix of the account's targets in the new LLaVA."""

TARGETS = {
    "projector": f"{TOKENIZER}projector",
    "classifier": f"{HEAD}head.layers",
    "pool_pre": f"{TOKENIZER}pre[0]",
    "ref_pre": f"{TOKENIZER}pre[1]",
}

FROZEN = NameMap(
    (),
    (
        (r"model\.vision_tower_aux_list\.\d+\.", "a frozen encoder, as Cambrian-1 calls them"),
        (
            r"(\w+\.){0,2}(clip|open_?clip|convnext|siglip|dino|dinov2)(_(tower|encoder|vision_tower|backbone))?\.",
            "a frozen encoder",
        ),
    ),
)
"""Names of frozen encoders, which are left behind: the config names the encoders' own files."""

_TRAINED = re.compile(r"(^|[._])(lora|adapter|\w*classifier|\w*projector|mask_(head|decoder|pre))", re.IGNORECASE)
"""Matches names of tensors that may be trained."""

LEFT = f"{REFUSED}: nothing explains it"

_SHOWN = 4  # tensors that an error lists


@dataclass(frozen=True)
class Choices:
    """Choices of the user where the file is ambiguous.

    Attributes:
        order: names of the config's encoders in the order of the projector's columns.
        parts: names by role, see `ras_parts.find_parts`.
        drop: prefixes of names to leave behind.
    """

    order: tuple[str, ...] | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] = ()


def import_ras(
    source: Path,
    destination: Path,
    configs: Sequence[str | Path],
    tokenizer: Path | None = None,
    tower: str | None = None,
    choices: Choices = Choices(),
    shard: str = SHARD,
    tell: Callable[[list[Row], list[str]], None] = lambda rows, assumed: None,
) -> None:
    """Read a release and write a checkpoint with its LLaVA; the folder appears whole or not at all.

    Args:
        source: see `llava.import_llava`; so are `tokenizer`, `tower` and `shard`.
        destination: a new or empty folder.
        configs: the config of the system, and overlays; the card names their data as training data.
        choices: of the user.
        tell: receives a row for every tensor and the assumptions, before any tensor is refused.

    Raises:
        FileNotFoundError: if an input is missing.
        ValueError: if an input is damaged or unsafe, a part is ambiguous or missing, a tensor is left over, or config
            and release have features of different sizes.
    """
    refuse_filled(destination)
    config = read_configs(configs)
    task = ras_task(config)
    # Where the config is silent, the release reads as the paper's words say.
    second_pass = arguments_of(task).get("second_pass", "causal")
    task = changed(task, second_pass=second_pass, standardise=False)
    config = {**config, "model": {**config["model"], "task": task}}
    weights = HubWeights(source, WHAT, EXAMPLE)
    plan, parts, rows = _assign(source, weights.headers, tokenizer, tower, choices)
    channels = encoder_channels(task)
    order = block_order(channels, choices.order)
    assumed = [
        *parts.assumed,
        f"the projector reads features in the order {', '.join(order)}, not standardised",
        "GELU between the layers of projector and classifier",
        "encoders' layers, mask resize, map of positions and prompt layout are those of the config",
        "duplicates are removed as the config says",
        f"the second pass is {second_pass}",
        f"the threshold is {THRESHOLD}",
    ]
    tell(rows, assumed)
    _check(source, plan, parts, rows, channels)
    imported = {"matched": sum(r.target != NONE for r in rows), "assumed": assumed}
    # All of the LLaVA is trained, and nothing is loaded into it.
    card = release_card("ras", "ras-released", config, source, imported, without=("lora", "start", "base"))
    tensors = _system_tensors(weights, plan, parts, _columns(channels, order))
    with atomic_folder(destination, durable=True) as folder:
        (folder / "llava").mkdir()
        write_llava(folder / "llava", plan, weights, shard)
        checkpoints.write_checkpoint(folder / "ras.safetensors", tensors, card, stored=None)
        write_rows(folder / "ras.import.json", source, rows, assumed)


def ras_task(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config tree of the system in a training config.

    Raises:
        ValueError: if there is none, or one whose settings are not those of the release.
    """
    task = system_task(config, RAS)
    arguments = arguments_of(task)
    parameters = inspect.signature(RAS).parameters
    settings = {name: arguments.get(name, parameters[name].default) for name in _SETTINGS}
    wrong = [f"{name}: {settings[name]}" for name, value in _SETTINGS.items() if settings[name] != value]
    if arguments_of(arguments["encoders"]).get("geometry", True):
        wrong.append("geometry: True")
    if not arguments_of(arguments["lmm"]).get("model"):
        wrong.append("lmm.model: None")
    if wrong:
        raise ValueError(f"the config's RAS has {', '.join(wrong)}, which does not fit the release")
    return task


def encoder_channels(task: Mapping[str, Any]) -> dict[str, int]:
    """Channels of each encoder by name, in the config's order; no weights are read."""
    with weightless():
        encoders: EncoderEnsemble = build(arguments_of(task)["encoders"])
    return {info.name: info.channels for info in encoders.info}


def block_order(channels: Mapping[str, int], order: tuple[str, ...] | None) -> tuple[str, ...]:
    """The encoders in the order of the projector's columns.

    Args:
        channels: of the config's encoders, by name.
        order: the user's choice; None for that of `ENCODERS`.

    Raises:
        ValueError: if the names are not those of the config.
    """
    names = ", ".join(channels)
    if order is not None:
        if sorted(order) != sorted(channels):
            raise ValueError(f"the encoder order is {', '.join(order)}; expected each of {names} once")
        return order
    if not set(channels) <= set(ENCODERS):
        raise ValueError(f"the config's encoders are {names}; expected names of {', '.join(ENCODERS)}, or their order")
    return tuple(name for name in ENCODERS if name in channels)


def _assign(
    source: Path, headers: Mapping[str, Tensor], tokenizer: Path | None, tower: str | None, choices: Choices
) -> tuple[LlavaPlan, Parts, list[Row]]:
    """The LLaVA, the other parts, and a row for every tensor."""
    known = {name: header for name, header in headers.items() if ORIGINAL.own(name) or ORIGINAL.reason(name)}
    others = {name: header for name, header in headers.items() if name not in known}
    _check_choices(choices, others)
    plan = plan_llava(source, known, tokenizer, tower)
    kept = tuple(text.partition("[")[0] for text in choices.parts.values())
    dropped = {name: why for name in others if (why := _reason(name, choices.drop)) and not name.startswith(kept)}
    shapes = {name: header.shape for name, header in others.items() if name not in dropped}
    words = plan.tokenizer.get_vocab()
    tokens = {role: Vector(EMBEDDINGS, words[text]) for role, text in VECTORS.items() if text in words}
    tokens = tokens if len(tokens) == len(VECTORS) else {}
    width = int(plan.config.text_config.hidden_size)
    parts = find_parts(shapes, width, choices.parts, tokens)
    fates = {name: (NONE, f"left behind: {why}") for name, why in dropped.items()}
    fates |= {name: (NONE, f"{REFUSED}: one of several that could be {part}") for name, part in parts.rivals.items()}
    for role, part in parts.by_role.items():
        fates |= {name: (_target(role, part, name), f"{role}, by shape") for name in shapes if part.holds(name)}
    rows = _llava_rows(plan, headers)
    rows += [Row.of(name, header, *fates.get(name, (NONE, LEFT))) for name, header in others.items()]
    if tokens and parts.vectors == tokens:
        vector = torch.empty(width, dtype=headers[EMBEDDINGS].dtype, device="meta")
        rows += [Row.of(str(token), vector, TARGETS[role], "its name") for role, token in tokens.items()]
    absent = [role for role in ROLES if role not in parts.by_role]
    return plan, parts, rows + [Row(NONE, (), NONE, TARGETS[role], f"{REFUSED}: no {role} found") for role in absent]


def _llava_rows(plan: LlavaPlan, headers: Mapping[str, Tensor]) -> list[Row]:
    longer = f"; filled up to {plan.config.text_config.vocab_size} rows by their mean"
    rows = report_rows(plan.report, headers, LLAVA, "LLaVA's, by name")
    rows = [
        replace(r, why=r.why + longer) if r.source in (EMBEDDINGS, OUTPUT) and r.target != NONE else r for r in rows
    ]
    return rows + [
        Row.of(NONE, tensor, LLAVA + name, "of the vision tower given") for name, tensor in plan.tower.items()
    ]


def _check_choices(choices: Choices, others: Mapping[str, Tensor]) -> None:
    """Raise ValueError for an unknown part, or a prefix to drop that no tensor has."""
    for role in choices.parts:
        if role not in ROLES:
            raise ValueError(f"RAS has no part {role!r}; expected one of {', '.join(ROLES)}")
    for prefix in choices.drop:
        if not any(name.startswith(prefix) for name in others):
            raise ValueError(
                f"nothing begins with {prefix!r} among the tensors that are not LLaVA's, so nothing to drop"
            )


def _reason(name: str, drop: tuple[str, ...]) -> str | None:
    """The reason to leave a tensor behind, or None. A tensor that may be trained stays, even if an encoder is named."""
    if name.startswith(drop):
        return "dropped on request"
    return None if _TRAINED.search(name) else FROZEN.reason(name)


def _target(role: str, part: Mlp | Vector, name: str) -> str:
    """Our name of a tensor of a part."""
    if isinstance(part, Mlp):
        layer, _, kind = name.rpartition(".")
        return f"{TARGETS[role]}.{0 if layer == part.first else 2}.{kind}"
    return TARGETS[role] if part.row is None else f"{TOKENIZER}pre"


def _check(source: Path, plan: LlavaPlan, parts: Parts, rows: Sequence[Row], channels: Mapping[str, int]) -> None:
    """Raise ValueError with all problems."""
    report = plan.report
    problems = [f"of its LLaVA, {report}"] if report.unknown or report.missing or report.reshaped else []
    problems += parts.problems
    left = [row.source for row in rows if row.why == LEFT]
    if left:
        shown = ", ".join(left[:_SHOWN]) + (", ..." if len(left) > _SHOWN else "")
        problems.append(f"{len(left)} tensors are left over, {shown} (--drop leaves them behind)")
    width, total = int(plan.config.text_config.hidden_size), sum(channels.values())
    if "projector" in parts.mlps and (inputs := parts.mlps["projector"].sizes[0]) != total:
        counts = ", ".join(f"{name} {count}" for name, count in channels.items())
        problems.append(f"its mask projector reads {inputs} channels, the config's encoders give {total} ({counts})")
    if "classifier" in parts.mlps and (hidden := parts.mlps["classifier"].sizes[1]) > width:
        problems.append(f"its classifier has {hidden} hidden channels, but ours has room for {width}")
    if problems:
        raise ValueError(f"checkpoint {source} cannot be imported as a RAS: {'; '.join(problems)}")


def _columns(channels: Mapping[str, int], order: Sequence[str]) -> Tensor:
    """For each column of our projector the column of the release's. channels: in our order. order: the release's."""
    blocks = dict(zip(order, torch.arange(sum(channels.values())).split([channels[n] for n in order]), strict=True))
    return torch.cat([blocks[name] for name in channels])


def _system_tensors(weights: Mapping[str, Tensor], plan: LlavaPlan, parts: Parts, columns: Tensor) -> dict[str, Tensor]:
    """All tensors of the system beside its LLaVA; the statistics leave features unchanged.

    Raises:
        ValueError: for a tensor that `check_finite` refuses.
    """
    width = int(plan.config.text_config.hidden_size)
    (first, first_bias), (second, second_bias) = _layers(weights, parts.mlps["projector"])
    (inner, inner_bias), (outer, outer_bias) = _layers(weights, parts.mlps["classifier"])
    padding = width - len(inner)
    tokenizer = {
        "mean": torch.zeros(len(columns)),
        "scale": torch.ones(len(columns)),
        "fitted": torch.tensor(True),
        "pre": torch.stack([parts.vectors[role].of(weights, width) for role in VECTORS]),
        "projector.0.weight": first[:, columns],
        "projector.0.bias": first_bias,
        "projector.2.weight": second,
        "projector.2.bias": second_bias,
    }
    head = {
        "head.layers.0.weight": F.pad(inner, (0, 0, 0, padding)),
        "head.layers.0.bias": F.pad(inner_bias, (0, padding)),
        "head.layers.2.weight": F.pad(outer, (0, padding)),
        "head.layers.2.bias": outer_bias,
    }
    tensors = {TOKENIZER + n: t for n, t in tokenizer.items()} | {HEAD + n: t for n, t in head.items()}
    with torch.device("meta"):
        ours = {TOKENIZER + n: t for n, t in MaskTokenizer(len(columns), width).state_dict().items()}
        ours |= {HEAD + n: t for n, t in ParallelScorer(width).state_dict().items()}
    checkpoints.check_fit(ours, tensors, "of the import", "RAS")
    return {n: check_finite(n, tensor) if ours[n].is_floating_point() else tensor for n, tensor in tensors.items()}


def _layers(weights: Mapping[str, Tensor], mlp: Mlp) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of both layers; a missing bias is zero."""
    layers = []
    for layer in (mlp.first, mlp.second):
        weight = weights[f"{layer}.weight"]
        layers.append((weight, weights.get(f"{layer}.bias", weight.new_zeros(len(weight)))))
    return layers
