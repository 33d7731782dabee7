"""A LLaVA as its authors store it: the true names, of any size, made here in the formats of the hub.

And what such a LLaVA computes, from those tensors alone: nothing of ours is used.
"""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaModel

from tests.importers import release
from tests.importers.release import P, Sizes

TOWER = "model.vision_tower.vision_tower.vision_model."
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def base(folder: Path, sizes: Sizes, **changed: Any) -> int:
    """Tokenizer and config.json of liuhaotian/llava-v1.5-13b; gives how many tokens there are."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = release.base_llava(folder, sizes) - 3
    config = {
        "_name_or_path": "llava-v1.5-13b",
        "architectures": ["LlavaLlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": sizes.width,
        "image_aspect_ratio": "pad",
        "intermediate_size": sizes.ffn,
        "max_position_embeddings": 4096,
        "mm_hidden_size": sizes.vision,
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": release.clip_config(folder, sizes),
        "model_type": "llava",
        "num_attention_heads": sizes.heads,
        "num_hidden_layers": sizes.layers,
        "num_key_value_heads": sizes.heads,
        "pad_token_id": 0,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "use_mm_proj": True,
        "vocab_size": rows,
    }
    (folder / "config.json").write_text(json.dumps(config | changed))
    return rows


def shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Every tensor, without the tables that older versions of transformers stored."""
    kept, tables = ("embed_tokens", "layers", "norm", "vision_tower"), ("lora_", "inv_freq", "position_ids")
    names = {name.removeprefix(P): shape for name, shape in release.shapes(sizes).items()}
    out = {
        name: shape
        for name, shape in names.items()
        if (name.removeprefix("model.").split(".")[0] in kept or name == "lm_head.weight")
        and not any(part in name for part in tables)
    }
    for number, read in ((0, sizes.vision), (2, sizes.width)):
        out[f"model.mm_projector.{number}.weight"] = (sizes.width, read)
        out[f"model.mm_projector.{number}.bias"] = (sizes.width,)
    return out


def tensors(sizes: Sizes, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    """Random weights by the true names; norms near one."""
    generator = torch.Generator().manual_seed(0)
    out = {}
    for name, shape in shapes(sizes).items():
        value = torch.randn(shape, generator=generator) * 0.25
        scale = "norm" in name and name.endswith("weight")
        out[name] = (value + 1 if scale else value).to(dtype)
    return out


def write(folder: Path, weights: dict[str, Tensor], form: str = "bin", shards: int = 3) -> Path:
    """Files as the hub has them. form: "bin", "safetensors", or "legacy", the pickles of torch before 1.6."""
    folder.mkdir(parents=True, exist_ok=True)
    stem, ending = ("model", "safetensors") if form == "safetensors" else ("pytorch_model", "bin")
    names = list(weights)
    size = -(-len(names) // shards)
    placed: dict[str, str] = {}
    for number in range(shards):
        part = {name: weights[name] for name in names[number * size : (number + 1) * size]}
        file = f"{stem}-{number + 1:05}-of-{shards:05}.{ending}" if shards > 1 else f"{stem}.{ending}"
        placed |= dict.fromkeys(part, file)
        if form == "safetensors":
            save_file(part, folder / file, metadata={"format": "pt"})
        else:
            torch.save(part, folder / file, _use_new_zipfile_serialization=form == "bin")
    if shards > 1:
        total = sum(t.numel() * t.element_size() for t in weights.values())
        index = {"metadata": {"total_size": total}, "weight_map": placed}
        (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index, indent=2))
    return folder


class Original:
    """What the tensors compute, in float32."""

    def __init__(self, weights: dict[str, Tensor], sizes: Sizes, tower: dict[str, Tensor] | None = None) -> None:
        """tower: that of another file, by the names of `CLIPVisionModel`."""
        self.tensors = {name: tensor.float() for name, tensor in weights.items()}
        text = LlamaConfig(
            vocab_size=len(weights["lm_head.weight"]),
            hidden_size=sizes.width,
            intermediate_size=sizes.ffn,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            rms_norm_eps=1e-5,
        )
        self.llama = LlamaModel(text).eval()
        self.llama.load_state_dict({name: self.tensors[f"model.{name}"] for name in self.llama.state_dict()})
        vision = CLIPVisionConfig(
            hidden_size=sizes.vision,
            intermediate_size=sizes.vision_ffn,
            num_hidden_layers=sizes.vision_layers,
            num_attention_heads=1,
            image_size=sizes.grid * sizes.patch,
            patch_size=sizes.patch,
        )
        self.tower = CLIPVisionModel(vision).eval()
        own = {name.removeprefix(TOWER): t for name, t in self.tensors.items() if name.startswith(TOWER)}
        own = own if tower is None else {name: tensor.float() for name, tensor in tower.items()}
        self.tower.load_state_dict({name: own[name.removeprefix("vision_model.")] for name in self.tower.state_dict()})

    def mlp(self, first: str, second: str, x: Tensor) -> Tensor:
        """Linear, GELU, linear; a bias that there is not is none."""
        inner = F.linear(x, self.tensors[f"{first}.weight"], self.tensors.get(f"{first}.bias"))
        return F.linear(F.gelu(inner), self.tensors[f"{second}.weight"], self.tensors.get(f"{second}.bias"))

    @torch.no_grad()
    def image(self, images: Tensor) -> Tensor:
        """Image tokens (T, D) of (1, 3, S, S) in [0, 1], as large as the tower wants it."""
        pixels = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        seen = self.tower(pixels, output_hidden_states=True).hidden_states[-2][0, 1:]
        return self.mlp("model.mm_projector.0", "model.mm_projector.2", seen)

    def embedded(self, ids: list[int]) -> Tensor:
        return self.tensors["model.embed_tokens.weight"][ids]

    @torch.no_grad()
    def hidden(self, embeddings: Tensor, visible: Tensor | None = None, positions: list[int] | None = None) -> Tensor:
        """(L, D) to the same. visible: (L, L) bool.  positions: of every token."""
        out = self.llama(
            inputs_embeds=embeddings[None],
            attention_mask=None if visible is None else visible[None, None],
            position_ids=None if positions is None else torch.tensor([positions]),
        )
        return out.last_hidden_state[0]
