"""The released InstructSeg (arXiv 2412.14006, weic22/InstructSeg) to a folder that `maskselect.load` takes.

    DST/mipha/                    its Mipha with all that trained in it, token embeddings and LM head too, and the
                                  tokenizer, as `lmm/mipha.py` reads it
    DST/swin/swin.safetensors     its Swin, a checkpoint of system "encoder"
    DST/instructseg.safetensors   the other parts; the config of its card points to the two beside it

The release is one merged folder of its authors' Mipha: config.json with Mipha's settings, a tokenizer, and the weights
of all parts.

A release has no references. A reference becomes what the image's projector makes of the mean feature under the mask,
which nothing was trained on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from maskselect.backends import checkpoints
from maskselect.backends.building import build
from maskselect.backends.config_tree import arguments_of, changed
from maskselect.backends.configs import read_configs
from maskselect.backends.name_map import ImportReport
from maskselect.backends.weightless import weightless
from maskselect.importers.hub_folder import HubWeights, Renamed, read_json
from maskselect.importers.instructseg_names import EMBEDDINGS, ENCODER, INSTRUCTSEG, LMM, OUTPUT
from maskselect.importers.llava_folder import SHARD, check_finite, write_weights
from maskselect.importers.release import TOKENIZER, mask_tokenizer, release_card, system_task
from maskselect.lmm.mipha_network import MiphaConfig, MiphaNetwork
from maskselect.ops.atomic import atomic_folder, refuse_filled
from maskselect.systems.instructseg import InstructSeg
from maskselect.systems.loading import BESIDE
from maskselect.tokens.instruction_rows import SEG

WHAT, EXAMPLE = "InstructSeg", "weic22/InstructSeg"

_SWIN = "swin/swin.safetensors"


@dataclass(frozen=True)
class Release:
    """A released InstructSeg.

    Attributes:
        folder: its folder.
        weights: its tensors by foreign name.
        config: of its Mipha; the numbers of rows are those of the weights.
    """

    folder: Path
    weights: HubWeights
    config: MiphaConfig

    def account(self, shapes: Mapping[str, torch.Size]) -> tuple[dict[str, str], ImportReport]:
        """Match the release with a system.

        Args:
            shapes: of every tensor that the system takes from the release, by our name.

        Returns:
            The foreign name for each of our names, and the report.

        Raises:
            ValueError: if a tensor is unknown, missing or of another shape.
        """
        names, report = INSTRUCTSEG.account(self.weights.headers, shapes)
        report.check(str(self.folder), f"an {WHAT} as configured")
        return names, report


def import_instructseg(
    source: Path,
    destination: Path,
    configs: Sequence[str | Path],
    tokenizer: Path | None = None,
    shard: str = SHARD,
) -> tuple[ImportReport, list[str]]:
    """Read the release and write a checkpoint with its Mipha and its Swin; the folder appears whole or not at all.

    Args:
        source: folder of the release.
        destination: a new or empty folder.
        configs: the config of the system, and overlays; the card names their data as training data.
        tokenizer: folder of the tokenizer; default: the release.
        shard: maximum size of a file of the Mipha's weights.

    Returns:
        The report on every tensor, and sentences about what was assumed.

    Raises:
        FileNotFoundError: if an input is missing.
        ValueError: if an input is damaged or unsafe, or if names or shapes are not those of the release.
    """
    refuse_filled(destination)
    config = read_configs(configs)
    task = system_task(config, InstructSeg, ("lmm", "encoder"))
    release = read_release(source)
    names, report = release.account(expected_shapes(release.config, task))
    assumed = ["references are untrained", "the words around a prompt are those of the config, which no file has"]
    imported = {"matched": len(report.matched), "dropped": report.reasons(), "assumed": assumed}
    encoder = changed(arguments_of(task)["encoder"], without=("checkpoint",))
    own = changed(task, without=("decoder_start",), encoder=changed(encoder, checkpoint=f"{BESIDE}/{_SWIN}"))
    config = config | {"model": {"task": own}}
    card = release_card("instructseg", "instructseg-released", config, source, imported, ("lora",), 0.0, "mipha")
    swin_card = {"system": "encoder", "config": encoder, "source": str(source)}
    with atomic_folder(destination, durable=True) as new:
        (new / "mipha").mkdir()
        write_language_model(new / "mipha", release, names, tokenizer, shard)
        swin = Renamed(release.weights, names, ENCODER)
        checkpoints.write_checkpoint(new / _SWIN, _finite(swin), swin_card, stored=None)
        others = {name: foreign for name, foreign in names.items() if not name.startswith((LMM, ENCODER))}
        tensors = _finite(Renamed(release.weights, others))
        tensors |= mask_tokenizer(Renamed(release.weights, names, LMM).__getitem__)
        checkpoints.write_checkpoint(new / "instructseg.safetensors", tensors, card, stored=None)
    return report, assumed


def expected_shapes(config: MiphaConfig, task: Mapping[str, Any]) -> dict[str, torch.Size]:
    """Shapes of all tensors that the release must hold, by their names in the system.

    Args:
        config: of the release's Mipha.
        task: the config tree of the InstructSeg.

    Raises:
        ValueError: if the system of the config has a part that the release does not have.
    """
    with TemporaryDirectory() as folder, weightless():
        config.save_pretrained(folder)
        lmm = changed(arguments_of(task)["lmm"], without=("lora",), model=folder)
        system: InstructSeg = build(changed(task, without=("start", "decoder_start"), lmm=lmm))
    tensors = {name: one for name, one in system.state_dict().items() if not name.startswith(TOKENIZER)}
    for name in tensors:
        try:
            INSTRUCTSEG.foreign(name)
        except ValueError as error:
            raise ValueError(f"the config's InstructSeg has {name}, which the release does not have") from error
    return {name: tensor.shape for name, tensor in tensors.items()}


def _finite(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors. Raises ValueError for one that `check_finite` refuses."""
    return {name: check_finite(name, tensor) for name, tensor in tensors.items()}


def read_release(folder: Path) -> Release:
    """Read the config and the names of all tensors.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged, or is not that of an InstructSeg.
    """
    weights = HubWeights(folder, WHAT, EXAMPLE)
    for name in (EMBEDDINGS, OUTPUT):
        if name not in weights.headers:
            raise ValueError(f"checkpoint {folder} is not an {WHAT}: {name} is missing")
    rows, outputs = len(weights.headers[EMBEDDINGS]), len(weights.headers[OUTPUT])
    if outputs < rows:
        raise ValueError(f"checkpoint {folder} has embeddings of {rows} tokens, but its {OUTPUT} has {outputs} rows")
    path = folder / "config.json"
    settings = read_json(path)
    if settings.get("model_type") != MiphaConfig.model_type:
        kind = settings.get("model_type")
        raise ValueError(f"{path} has model_type {kind!r}; expected {MiphaConfig.model_type!r}")
    config = MiphaConfig.from_dict(settings | {"vocab_size": rows, "output_rows": outputs})
    try:
        _ = config.siglip
    except ValueError as error:
        raise ValueError(f"{path} is not that of a Mipha: {error}") from error
    return Release(folder, weights, config)


def write_language_model(
    folder: Path, release: Release, names: Mapping[str, str], tokenizer: Path | None = None, shard: str = SHARD
) -> None:
    """Write the Mipha of a release into an existing folder, with at most one shard in memory.

    Args:
        folder: receives config, weights and tokenizer.
        release: the release.
        names: what `Release.account` returned; names of other parts are ignored.
        tokenizer: folder of the tokenizer; default: the release.
        shard: maximum size of a file of weights.

    Raises:
        ValueError: for a tensor that is not finite, or a tokenizer of another vocabulary.
    """
    words = _read_tokenizer(tokenizer or release.folder, release)
    tensors = Renamed(release.weights, names, LMM)
    write_weights(folder, tensors, release.config, shard, MiphaNetwork.__name__)
    words.save_pretrained(folder)


def _read_tokenizer(folder: Path, release: Release) -> PreTrainedTokenizerBase:
    """The tokenizer with `[SEG]`, which is added if the embeddings have one row more than the tokenizer has tokens."""
    try:
        words: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} has no tokenizer of an {WHAT} that can be read: {error}") from error
    rows = int(release.config.vocab_size)
    if SEG not in words.get_vocab() and len(words) == rows - 1:
        words.add_tokens([SEG])
    if SEG not in words.get_vocab() or len(words) > rows:
        raise ValueError(
            f"the tokenizer in {folder} has {len(words)} tokens, but {release.folder} has embeddings of {rows}; "
            f"expected the tokenizer that it was trained with, {SEG} in it"
        )
    return words
