"""The released Text4Seg (arXiv 2410.09855, lmc22/text4seg-llava-7b-p24) to a folder that `maskselect.load` takes.

    DST/llava/                    its LLaVA, as transformers reads it, with the tokenizer; adapters are added to weights
    DST/text4seg.safetensors      what the release does not have; the config of its card points to the LLaVA beside it

Three forms are read: a whole LLaVA in its authors' naming, which is the release on the hub; LoRA adapters of LLaVA's
training code; LoRA adapters of ms-swift. Adapters need the LLaVA that they were trained on, in either naming.

A release has no references. A reference becomes what the image's projector makes of the mean feature under the mask,
which nothing was trained on.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

from maskselect.backends import checkpoints
from maskselect.backends.config_tree import arguments_of, changed
from maskselect.backends.configs import read_configs
from maskselect.backends.name_map import ImportReport
from maskselect.importers.adapters import CONFIG, TRANSFORMERS, AdaptedWeights, Adapters, read_adapters
from maskselect.importers.hub_folder import HubWeights, Renamed, read_json
from maskselect.importers.llava import plan_llava, write_llava
from maskselect.importers.llava_folder import SHARD, read_tokenizer, write_tokenizer, write_weights
from maskselect.importers.llava_names import ORIGINAL
from maskselect.importers.release import mask_tokenizer, release_card, system_task
from maskselect.ops.atomic import atomic_folder, refuse_filled
from maskselect.systems.text4seg import Text4Seg

WHAT, EXAMPLE = "Text4Seg on LLaVA-1.5", "lmc22/text4seg-llava-7b-p24"

GRID = 24
"""Side of the grid of the release on the hub; no file of it says so."""

_SHOWN = 8  # tensors that an error names


def import_text4seg(
    source: Path,
    destination: Path,
    configs: Sequence[str | Path],
    base: Path | None = None,
    tokenizer: Path | None = None,
    tower: str | None = None,
    grid: int = GRID,
    shard: str = SHARD,
) -> tuple[ImportReport, list[str]]:
    """Read a release and write a checkpoint with its LLaVA; the folder appears whole or not at all.

    Args:
        source: a whole LLaVA, or adapters, see `adapters.py`.
        destination: a new or empty folder.
        configs: the config of the system, and overlays; the card names their data as training data.
        base: folder of the LLaVA that adapters were trained on.
        tokenizer: folder of the tokenizer; default: that of the LLaVA.
        tower: folder or hub id of the CLIP to take if the weights hold no vision tower.
        grid: side of the grid that the release was trained on.
        shard: maximum size of a file of weights.

    Returns:
        The report on every tensor of the LLaVA, and sentences about the adapters and what was assumed.

    Raises:
        FileNotFoundError: if an input is missing.
        ValueError: if an input is damaged or unsafe, or if names or shapes are not those of a LLaVA. The message names
            the tensors that are missing.
    """
    refuse_filled(destination)
    config = read_configs(configs)
    task = _task(config, grid)
    adapters = _adapters(source, base)
    folder = base or source
    names = TRANSFORMERS if "vision_config" in read_json(folder / "config.json") else ORIGINAL
    weights = AdaptedWeights(HubWeights(folder, WHAT, EXAMPLE), names, adapters)
    told = [f"the grid is {grid} x {grid}", "references are untrained"]
    if adapters.factors:
        told.insert(0, f"{len(adapters.factors)} adapters, trained on {adapters.base!r}, are added to {folder}")
    write, report = _plan(source, folder, weights, tokenizer or folder, tower)
    _check(folder, report, weights, adapters)
    imported = {"matched": len(report.matched), "dropped": report.reasons(), "assumed": told}
    config = config | {"model": {"task": task}}
    card = release_card("text4seg", "text4seg-released", config, source, imported, ("lora", "base"), 0.0)
    with atomic_folder(destination, durable=True) as new:
        (new / "llava").mkdir()
        write(new / "llava", shard)
        checkpoints.write_checkpoint(new / "text4seg.safetensors", mask_tokenizer(weights.own), card, stored=None)
    return report, told


def _task(config: Mapping[str, Any], grid: int) -> dict[str, Any]:
    """The system of a training config on a grid. Raises ValueError if it is none that the release can be."""
    task = system_task(config, Text4Seg, ("lmm", "codec"))
    arguments = arguments_of(task)
    if arguments.get("extra_tokens") or arguments_of(arguments["codec"]).get("special_tags"):
        raise ValueError("the config's Text4Seg has tokens that the release does not have (extra_tokens, special_tags)")
    return changed(task, codec=changed(arguments["codec"], grid=grid))


def _adapters(source: Path, base: Path | None) -> Adapters:
    """The adapters of a release; none if it is whole. Raises ValueError if the base is missing, or of no use."""
    if (source / CONFIG).is_file():
        if base is None:
            trained = read_json(source / CONFIG).get("base_model_name_or_path")
            raise ValueError(f"{source} holds adapters alone; expected the LLaVA that they were trained on as --base "
                             f"(its config names {trained!r})")  # fmt: skip
        return read_adapters(source)
    if base is not None:
        raise ValueError(f"{source} has no {CONFIG}, so it is no adapter; expected no --base for whole weights")
    return Adapters()


def _has_settings(folder: Path) -> bool:
    """Whether a folder has the config.json of a LLaVA in its authors' naming."""
    path = folder / "config.json"
    return path.is_file() and any(name.startswith("mm_") for name in read_json(path))


def _check(folder: Path, report: ImportReport, weights: AdaptedWeights, adapters: Adapters) -> None:
    """Raise ValueError with all problems; it names the tensors that are missing."""
    problems = list(weights.problems[:_SHOWN])
    for kind, lines in (
        ("missing", report.missing),
        ("unknown", report.unknown),
        ("of another shape", report.reshaped),
    ):
        if lines:
            more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
            problems.append(f"{len(lines)} tensors are {kind}: {', '.join(lines[:_SHOWN])}{more}")
    problems += report.doubled[:1]
    if problems:
        expected = (
            f"; expected the LLaVA that the adapters were trained on, {adapters.base!r}" if adapters.factors else ""
        )
        raise ValueError(f"{folder} is not a LLaVA for this release: {'; '.join(problems)}{expected}")


def _plan(
    source: Path, folder: Path, weights: AdaptedWeights, tokenizer: Path, tower: str | None
) -> tuple[Callable[[Path, str], None], ImportReport]:
    """What writes the LLaVA into a folder in shards of a size, and what becomes of every tensor; not checked yet."""
    if weights.names is ORIGINAL:
        # LLaVA's code writes a config beside adapters, too; Vicuna as a base has none of a LLaVA.
        plan = plan_llava(source if _has_settings(source) else folder, weights.headers, tokenizer, tower)
        return lambda new, shard: write_llava(new, plan, weights, shard), plan.report
    config = LlavaConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    names, report = TRANSFORMERS.account(weights.headers, shapes)
    words = read_tokenizer(tokenizer)

    def write(new: Path, shard: str) -> None:
        write_weights(new, Renamed(weights, names), config, shard)
        write_tokenizer(new, words)

    return write, report
