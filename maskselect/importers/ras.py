"""The released RAS (arXiv 2506.05342, hub id Shengcao1006/RAS-13B-General) into a folder that `maskselect.load` takes.

    DST/llava/             its LLaVA, as transformers reads it, with the tokenizer
    DST/ras.safetensors    mask projector, pre-tokens and classifier; its card's config finds the LLaVA beside it
    DST/ras.import.json    what became of every tensor

Nobody here has seen the file. Its LLaVA has known names; the rest is found by shape (`ras_shapes.py`) and must be told
apart without doubt, and no tensor may be left over that neither is a frozen encoder's nor was dropped by request.

What shapes cannot tell is assumed, told, and kept in the JSON: GELU between layers; that the projector reads the
features of CLIP, ConvNeXt, SigLIP, DINOv2 and positions in this order, which `order` changes; that they are not
standardised. A classifier of fewer hidden channels than ours gets ones that give nothing.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from maskselect.backends import checkpoints
from maskselect.backends.configs import read_configs
from maskselect.backends.name_map import NameMap
from maskselect.importers.account import NONE, REFUSED, Row, report_rows, row, write_rows
from maskselect.importers.hub_folder import HubWeights
from maskselect.importers.llava import LlavaPlan, plan_llava, write_llava
from maskselect.importers.llava_folder import SHARD
from maskselect.importers.llava_names import EMBEDDINGS, ORIGINAL, OUTPUT
from maskselect.importers.ras_config import block_order, card_config, encoder_channels, ras_task
from maskselect.importers.ras_shapes import ROLES, VECTORS, Found, Mlp, Part, Vector, find_parts, members
from maskselect.importers.soundness import sound
from maskselect.ops.atomic import atomic_folder, refuse_filled
from maskselect.systems.scoring import ParallelScorer
from maskselect.tokens.mask_tokenizer import MaskTokenizer

WHAT, EXAMPLE = "RAS", "Shengcao1006/RAS-13B-General"

THRESHOLD = 0.5
"""Not published."""

TOKENIZER, HEAD = "reader.mask_tokenizer.", "scorer."
"""Where the system holds what its LLaVA does not have."""

LLAVA = "llava: "
"""What targets in the new LLaVA begin with in the account."""

TARGETS = {
    "projector": f"{TOKENIZER}projector",
    "classifier": f"{HEAD}head.layers",
    "pool_pre": f"{TOKENIZER}pre[0]",
    "ref_pre": f"{TOKENIZER}pre[1]",
}
"""Where parts go."""

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
"""Beginnings of names that are left behind: the config names the encoders' own files."""

_TRAINED = re.compile(r"(^|[._])(lora|adapter|\w*classifier|\w*projector|mask_(head|decoder|pre))", re.IGNORECASE)
"""In the name of a tensor that is no frozen encoder's."""

LEFT = f"{REFUSED}: nothing explains it"

_SHOWN = 4


@dataclass(frozen=True)
class Choices:
    """What a person says where the file does not.

    order: names of the config's encoders in the order of the projector's columns.
    parts: beginnings of names by role, see `ras_shapes.find_parts`.  drop: beginnings of names to leave behind.
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
    """Read a release and write what we need of it; the folder appears whole or not at all.

    source, tokenizer, tower, shard: see `llava.import_llava`.
    destination: a folder that is not there yet, or empty.
    configs: the config of the system, and overlays; their data is what the card says it was trained on.
    tell: is given a row for every tensor, and what is assumed, before anything is refused for its tensors.

    Raises FileNotFoundError when something is not there; ValueError when it is damaged or unsafe, when a part cannot be
    found without doubt, when a tensor is left over, or when config and release have features of other sizes.
    """
    refuse_filled(destination)
    config = read_configs(configs)
    task = ras_task(config)
    weights = HubWeights(source, WHAT, EXAMPLE)
    plan, found, rows = _sorted_out(source, weights.headers, tokenizer, tower, choices)
    channels = encoder_channels(task)
    order = block_order(channels, choices.order)
    assumed = [
        *found.assumed,
        f"the projector reads features in the order {', '.join(order)}, not standardised",
        "GELU between the layers of projector and classifier",
        "encoders' layers, mask resize, map of positions, prompt layout and second pass are those of the config",
        f"the threshold is {THRESHOLD}",
    ]
    tell(rows, assumed)
    _check(source, plan, found, rows, channels)
    card = {
        "system": "ras",
        "name": "ras-released",
        "config": card_config(task),
        **({"data": config["data"]} if "data" in config else {}),
        "threshold": THRESHOLD,
        "source": str(source),
        "imported": {"matched": sum(r.target != NONE for r in rows), "assumed": assumed},
    }
    tensors = _system_tensors(weights, plan, found, _columns(channels, order))
    with atomic_folder(destination, durable=True) as folder:
        (folder / "llava").mkdir()
        write_llava(folder / "llava", plan, weights, shard)
        checkpoints.write_checkpoint(folder / "ras.safetensors", tensors, card, stored=None)
        write_rows(folder / "ras.import.json", source, rows, assumed)


def _sorted_out(
    source: Path, headers: Mapping[str, Tensor], tokenizer: Path | None, tower: str | None, choices: Choices
) -> tuple[LlavaPlan, Found, list[Row]]:
    """Its LLaVA, the other parts, and a row for every tensor."""
    known = {name: header for name, header in headers.items() if ORIGINAL.own(name) or ORIGINAL.reason(name)}
    others = {name: header for name, header in headers.items() if name not in known}
    _check_choices(choices, others)
    plan = plan_llava(source, known, tokenizer, tower)
    asked_for = tuple(text.partition("[")[0] for text in choices.parts.values())
    dropped = {name: why for name in others if (why := _reason(name, choices.drop)) and not name.startswith(asked_for)}
    shapes = {name: header.shape for name, header in others.items() if name not in dropped}
    words = plan.words.get_vocab()
    tokens = {role: Vector(EMBEDDINGS, words[text]) for role, text in VECTORS.items() if text in words}
    width = int(plan.config.text_config.hidden_size)
    tokens = tokens if len(tokens) == len(VECTORS) else {}
    found = find_parts(shapes, width, choices.parts, tokens)
    told = {name: (NONE, f"left behind: {why}") for name, why in dropped.items()}
    told |= {name: (NONE, f"{REFUSED}: one of several that could be {part}") for name, part in found.rivals.items()}
    for role, part in found.parts.items():
        told |= {name: (_target(role, part, name), f"{role}, by shape") for name in members(part, shapes)}
    rows = _llava_rows(plan, headers)
    rows += [row(name, header, *told.get(name, (NONE, LEFT))) for name, header in others.items()]
    if tokens and found.parts["pool_pre"] == tokens["pool_pre"]:
        vector = torch.empty(width, dtype=headers[EMBEDDINGS].dtype, device="meta")
        rows += [row(str(at), vector, _target(role, at, at.name), "its name") for role, at in tokens.items()]
    absent = [role for role in ROLES if role not in found.parts]
    return plan, found, rows + [Row(NONE, (), NONE, TARGETS[role], f"{REFUSED}: no {role} found") for role in absent]


def _llava_rows(plan: LlavaPlan, headers: Mapping[str, Tensor]) -> list[Row]:
    longer = f"; filled up to {plan.config.text_config.vocab_size} rows by their mean"
    rows = report_rows(plan.report, headers, LLAVA, "LLaVA's, by name")
    rows = [
        replace(r, why=r.why + longer) if r.source in (EMBEDDINGS, OUTPUT) and r.target != NONE else r for r in rows
    ]
    return rows + [row(NONE, tensor, LLAVA + own, "of the vision tower given") for own, tensor in plan.tower.items()]


def _check_choices(choices: Choices, others: Mapping[str, Tensor]) -> None:
    """Raises ValueError for a part that there is not, or names to drop that no tensor has."""
    for role in choices.parts:
        if role not in ROLES:
            raise ValueError(f"RAS has no part {role!r}; expected one of {', '.join(ROLES)}")
    for start in choices.drop:
        if not any(name.startswith(start) for name in others):
            raise ValueError(
                f"nothing begins with {start!r} among the tensors that are not LLaVA's, so nothing to drop"
            )


def _reason(name: str, drop: tuple[str, ...]) -> str | None:
    """Why a tensor is left behind. What may have been trained is not, whatever encoder it is called after."""
    if name.startswith(drop):
        return "as asked"
    return None if _TRAINED.search(name) else FROZEN.reason(name)


def _target(role: str, part: Part, name: str) -> str:
    """Our name of a tensor of a part."""
    if isinstance(part, Mlp):
        layer, _, kind = name.rpartition(".")
        return f"{TARGETS[role]}.{0 if layer == part.first else 2}.{kind}"
    return f"{TOKENIZER}pre" if part.row in (0, 1) else TARGETS[role]


def _check(source: Path, plan: LlavaPlan, found: Found, rows: Sequence[Row], channels: Mapping[str, int]) -> None:
    """Raises ValueError with everything that is wrong."""
    report = plan.report
    problems = [f"of its LLaVA, {report}"] if report.unknown or report.missing or report.reshaped else []
    problems += found.problems
    left = [r.source for r in rows if r.why == LEFT]
    if left:
        shown = ", ".join(left[:_SHOWN]) + (", ..." if len(left) > _SHOWN else "")
        problems.append(f"{len(left)} tensors are left over, {shown} (--drop leaves them behind)")
    width = int(plan.config.text_config.hidden_size)
    if "projector" in found.parts and (read := found.mlp("projector").sizes[0]) != sum(channels.values()):
        told = ", ".join(f"{name} {count}" for name, count in channels.items())
        problems.append(
            f"its mask projector reads {read} channels, the config's encoders give {sum(channels.values())} ({told})"
        )
    if "classifier" in found.parts and (hidden := found.mlp("classifier").sizes[1]) > width:
        problems.append(f"its classifier has {hidden} hidden channels, but ours has room for {width}")
    if problems:
        raise ValueError(f"checkpoint {source} cannot be imported as a RAS: {'; '.join(problems)}")


def _columns(channels: Mapping[str, int], order: Sequence[str]) -> Tensor:
    """Which column of the release's projector each of ours is. channels: in our order.  order: the release's."""
    blocks = dict(zip(order, torch.arange(sum(channels.values())).split([channels[n] for n in order]), strict=True))
    return torch.cat([blocks[name] for name in channels])


def _system_tensors(weights: Mapping[str, Tensor], plan: LlavaPlan, found: Found, columns: Tensor) -> dict[str, Tensor]:
    """All that the system holds beside its LLaVA. Features are taken as they come: their statistics change nothing.

    Raises ValueError for a tensor that cannot be computed with.
    """
    width = int(plan.config.text_config.hidden_size)
    (first, first_bias), (second, second_bias) = _layers(weights, found.mlp("projector"))
    (inner, inner_bias), (outer, outer_bias) = _layers(weights, found.mlp("classifier"))
    more = width - len(inner)
    tokenizer = {
        "mean": torch.zeros(len(columns)),
        "scale": torch.ones(len(columns)),
        "fitted": torch.tensor(True),
        "pre": torch.stack([found.vector(role).of(weights, width) for role in VECTORS]),
        "projector.0.weight": first[:, columns],
        "projector.0.bias": first_bias,
        "projector.2.weight": second,
        "projector.2.bias": second_bias,
    }
    head = {
        "head.layers.0.weight": F.pad(inner, (0, 0, 0, more)),
        "head.layers.0.bias": F.pad(inner_bias, (0, more)),
        "head.layers.2.weight": F.pad(outer, (0, more)),
        "head.layers.2.bias": outer_bias,
    }
    tensors = {TOKENIZER + n: t for n, t in tokenizer.items()} | {HEAD + n: t for n, t in head.items()}
    with torch.device("meta"):
        own = {TOKENIZER + n: t for n, t in MaskTokenizer(len(columns), width).state_dict().items()}
        own |= {HEAD + n: t for n, t in ParallelScorer(width).state_dict().items()}
    checkpoints.check_fit(own, tensors, "of the import", "RAS")
    return {name: sound(name, tensor) if own[name].is_floating_point() else tensor for name, tensor in tensors.items()}


def _layers(weights: Mapping[str, Tensor], mlp: Mlp) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of both layers; a bias that there is not is zero."""
    found = []
    for layer in (mlp.first, mlp.second):
        weight = weights[f"{layer}.weight"]
        found.append((weight, weights.get(f"{layer}.bias", weight.new_zeros(len(weight)))))
    return found
