"""The config of a LLaVA in transformers' terms, from the config.json of its authors' code, and its vision tower.

The sizes of the vision tower are those of the CLIP that config.json names.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlavaConfig

from maskselect.backends.pretrained import load_pretrained
from maskselect.importers.hub_folder import read_json
from maskselect.importers.llava_names import EMBEDDINGS, TOWER

CLIP_224, CLIP = "openai/clip-vit-large-patch14", "openai/clip-vit-large-patch14-336"
"""The vision towers of the first LLaVAs and of LLaVA-1.5."""

VOCABULARY_MULTIPLE = 64
"""llava-hf's files pad the number of embeddings to a multiple of this."""

_SIDES = {CLIP_224: 224, CLIP: 336}  # pixels; all other sizes of the two towers are equal
_SETTINGS = {
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_feature": "patch",
    "hidden_act": "silu",
    "rope_scaling": None,
    "tie_word_embeddings": False,
}
"""The only supported value of settings of LLaVA-1.5, which is also the default."""


def read_base(folder: Path) -> dict[str, Any]:
    """Read the config.json of a LLaVA in original naming.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is damaged, of another kind, or has an unsupported setting.
    """
    path = folder / "config.json"
    base = read_json(path)
    if not any(name.startswith("mm_") for name in base):
        raise ValueError(f"{path} has no mm_* settings; expected the config of a LLaVA in original naming")
    for name, value in _SETTINGS.items():
        if base.get(name, value) != value:
            raise ValueError(f"{path} has {name} {base[name]!r}; only {value!r} can be imported")
    return base


def llava_1_5_config(path: Path, base: Mapping[str, Any], vision: CLIPVisionConfig, rows: int) -> LlavaConfig:
    """The config of a LLaVA-1.5 in transformers' terms.

    Args:
        path: of config.json, for errors.
        base: its content, see `read_base`.
        vision: of the vision tower.
        rows: number of tokens with an embedding.

    Raises:
        ValueError: if a size is missing or contradicts the embeddings.
    """
    vocabulary = whole_number(base, "vocab_size", path) if "vocab_size" in base else rows
    if vocabulary != rows:
        raise ValueError(f"{path} has vocab_size {vocabulary}, but {EMBEDDINGS} has {rows} rows")
    padded = -(-(rows + 2) // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    text = text_config(path, base, padded, pad_token_id=rows + 1)
    return llava_config(base, text, vision, projector_hidden_act="gelu", image_token_index=rows)


def text_config(path: Path, base: Mapping[str, Any], vocabulary: int, **settings: Any) -> LlamaConfig:
    """The config of the language model of a LLaVA. Raises ValueError if `base` of the file `path` lacks a size."""
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
    sizes = {name: whole_number(base, name, path) for name in names}
    return LlamaConfig(
        vocab_size=vocabulary,
        num_key_value_heads=int(base.get("num_key_value_heads") or sizes["num_attention_heads"]),
        rms_norm_eps=float(base.get("rms_norm_eps", 1e-6)),
        rope_parameters={"rope_type": "default", "rope_theta": float(base.get("rope_theta", 10_000))},
        tie_word_embeddings=False,
        **sizes,
        **settings,
    )


def llava_config(base: Mapping[str, Any], text: LlamaConfig, vision: CLIPVisionConfig, **settings: Any) -> LlavaConfig:
    """The config of a LLaVA of these parts."""
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        vision_feature_layer=int(base.get("mm_vision_select_layer", -2)),
        vision_feature_select_strategy="default",
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        tie_word_embeddings=False,
        **settings,
    )


def whole_number(config: Mapping[str, Any], name: str, path: Path) -> int:
    """A count or size in a config. Raises ValueError if it is not a whole number from 1."""
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{path} has {name} {value!r}; expected a whole number from 1")
    return value


def tower_config(path: Path, base: Mapping[str, Any], default: str = CLIP) -> CLIPVisionConfig:
    """The config of the vision tower that a LLaVA names; no file is read for the two that LLaVAs have.

    Args:
        path: of config.json, for errors.
        base: its content.
        default: the tower if `base` names none.

    Raises:
        FileNotFoundError: if the config of another tower cannot be read.
        ValueError: if the tower is not a CLIP.
    """
    name = str(base.get("mm_vision_tower") or default)
    if name in _SIDES:
        return CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            image_size=_SIDES[name],
            patch_size=14,
        )
    if "clip" not in name.lower():
        raise ValueError(f"{path} has mm_vision_tower {name!r}; only CLIP can be imported")
    try:
        return CLIPVisionConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{path} has mm_vision_tower {name!r}, whose config.json cannot be read; expected a folder or a hub id of "
            f"a CLIP such as {CLIP}"
        ) from error


def vision_tower(
    folder: Path, base: Mapping[str, Any], names: Iterable[str], replacement: str | None
) -> tuple[CLIPVisionConfig, dict[str, Tensor]]:
    """The config of the vision tower and, if the weights lack it, its tensors by transformers' names in a LLaVA.

    Args:
        folder: of the LLaVA.
        base: see `read_base`.
        names: of the tensors in the file.
        replacement: folder or hub id of the CLIP to take if the weights hold no tower.

    Raises:
        FileNotFoundError: if the CLIP or its config is missing.
        ValueError: if the weights lack the tower and no CLIP is given.
    """
    if any(name.startswith(TOWER) for name in names):
        return tower_config(folder / "config.json", base), {}
    if replacement is None:
        raise ValueError(
            f"{folder} holds no vision tower; expected the CLIP that it was trained with, "
            f"{str(base.get('mm_vision_tower'))!r}, as --vision-tower (get it with: hf download {CLIP})"
        )
    config, tower = load_pretrained(
        replacement, "CLIP vision tower", CLIP, CLIPVisionModel, CLIPVisionConfig, dtype="auto"
    )
    return config, {TOWER + name: tensor for name, tensor in tower.state_dict().items()}
