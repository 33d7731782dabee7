"""The config of a LLaVA in original naming, in transformers' terms, and its vision tower where the file has none.

Sizes come from config.json; those of the vision tower from its own tensors, or from the CLIP that is named instead.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlavaConfig

from maskselect.backends.pretrained import load_pretrained
from maskselect.importers.hub_folder import read_json
from maskselect.importers.llava_names import EMBEDDINGS, ORIGINAL, TOWER
from maskselect.importers.llm_seg_shapes import CLIP_HEAD

CLIP = "openai/clip-vit-large-patch14-336"
"""The vision tower of LLaVA-1.5."""

WHOLE = 64
"""The number of embeddings is a multiple of this in llava-hf's files."""

_WANTED = {
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_feature": "patch",
    "hidden_act": "silu",
    "rope_scaling": None,
    "tie_word_embeddings": False,
}
"""Settings, with their defaults where a config may leave them out, of which no other value is known here."""


def read_base(folder: Path) -> dict[str, Any]:
    """The folder's config.json.

    Raises FileNotFoundError without it, ValueError when it is damaged, or not of a LLaVA in original naming.
    """
    base = read_json(folder / "config.json")
    if not any(name.startswith("mm_") for name in base):
        raise ValueError(
            f"{folder / 'config.json'} has no mm_* settings; expected the config of a LLaVA in original naming"
        )
    return base


def llava_config(folder: Path, base: Mapping[str, Any], vision: CLIPVisionConfig, rows: int) -> LlavaConfig:
    """The config in transformers' terms.

    base: see `read_base`.  vision: of the tower.  rows: how many tokens have embeddings.
    Raises ValueError when a size is missing, or when that LLaVA is put together otherwise than LLaVA-1.5 is.
    """
    path = folder / "config.json"
    for name, wanted in _WANTED.items():
        if base.get(name, wanted) != wanted:
            raise ValueError(f"{path} has {name} {base[name]!r}; only {wanted!r} can be imported")
    vocabulary = whole_number(base, "vocab_size", path) if "vocab_size" in base else rows
    if vocabulary != rows:
        raise ValueError(f"{path} has vocab_size {vocabulary}, but {EMBEDDINGS} has {rows} rows")
    sizes = {
        name: whole_number(base, name, path)
        for name in (
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "max_position_embeddings",
        )
    }
    text = LlamaConfig(
        vocab_size=-(-(rows + 2) // WHOLE) * WHOLE,
        num_key_value_heads=int(base.get("num_key_value_heads") or sizes["num_attention_heads"]),
        rms_norm_eps=float(base.get("rms_norm_eps", 1e-6)),
        rope_parameters={"rope_type": "default", "rope_theta": float(base.get("rope_theta", 10_000))},
        tie_word_embeddings=False,
        pad_token_id=rows + 1,
        **sizes,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        projector_hidden_act="gelu",
        vision_feature_layer=int(base.get("mm_vision_select_layer", -2)),
        vision_feature_select_strategy="default",
        image_token_index=rows,
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        tie_word_embeddings=False,
    )


def whole_number(config: Mapping[str, Any], name: str, path: Path) -> int:
    """A setting that counts something. Raises ValueError when it does not."""
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{path} has {name} {value!r}; expected a whole number from 1")
    return value


def vision_tower(
    folder: Path, base: Mapping[str, Any], headers: Mapping[str, Tensor], instead: str | None
) -> tuple[CLIPVisionConfig, dict[str, Tensor]]:
    """The config of the vision tower and, where the file has none, its tensors by transformers' names for a LLaVA.

    base: see `read_base`.  headers: the file's tensors, or what has their shapes.
    instead: folder or hub id of the CLIP to take then.
    Raises FileNotFoundError when it is not there, ValueError when none is named, or the file's own has no sizes.
    """
    named = str(base.get("mm_vision_tower"))
    if any(name.startswith(TOWER) for name in headers):
        # Those of LAION, and others, have GELU where OpenAI's have its fast form; names of tensors do not tell.
        if "clip" not in named.lower() or "laion" in named.lower():
            raise ValueError(f"{folder / 'config.json'} has mm_vision_tower {named!r}; only OpenAI's CLIP is known")
        return _stored_tower(folder, headers), {}
    if instead is None:
        raise ValueError(
            f"{folder} holds no vision tower; expected the CLIP that it was trained with, {named!r}, as --vision-tower "
            f"(get it with: hf download {CLIP})"
        )
    config, tower = load_pretrained(instead, "CLIP vision tower", CLIP, CLIPVisionModel, CLIPVisionConfig, dtype="auto")
    return config, {TOWER + name: tensor for name, tensor in tower.state_dict().items()}


def _stored_tower(folder: Path, headers: Mapping[str, Tensor]) -> CLIPVisionConfig:
    shapes = {own: tensor.shape for foreign, tensor in headers.items() for own in ORIGINAL.own(foreign)}

    def shape(name: str, sides: int) -> tuple[int, ...]:
        found = tuple(shapes.get(TOWER + name, ()))
        if len(found) != sides:
            told = f"has {len(found)} sides, not {sides}" if found else "is missing"
            raise ValueError(f"the vision tower in {folder} cannot be read: {ORIGINAL.foreign(TOWER + name)} {told}")
        return found

    width, _, patch, _ = shape("embeddings.patch_embedding.weight", 4)
    places, _ = shape("embeddings.position_embedding.weight", 2)
    layers = {name.split(".")[4] for name in shapes if name.startswith(f"{TOWER}encoder.layers.")}
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=shape("encoder.layers.0.mlp.fc1.weight", 2)[0],
        num_hidden_layers=len(layers),
        num_attention_heads=max(1, width // CLIP_HEAD),
        image_size=round((places - 1) ** 0.5) * patch,
        patch_size=patch,
    )
