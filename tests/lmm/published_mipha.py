"""A tiny Mipha as its authors store it: true names and config, from transformers' own Phi and SigLIP."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as Bytes
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn
from transformers import (
    PhiConfig,
    PhiForCausalLM,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    SiglipVisionModel,
)

SIDE, PATCH, GRID, WIDTH, TOWER = 28, 7, 4, 40, 16
END = "<|endoftext|>"
SPARE = 8
"""Rows of the LM head beyond the embeddings."""


def words(*added: str) -> PreTrainedTokenizerFast:
    """Phi-2's kind of tokenizer, GPT-2's byte-level BPE, with hardly any words."""
    alphabet = sorted(ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("\u0120", "r"), ("e", "d")]
    pieces = [*alphabet, *("".join(pair) for pair in merges), END]
    made = Tokenizer(BPE({piece: number for number, piece in enumerate(pieces)}, merges))
    made.pre_tokenizer, made.decoder = ByteLevel(add_prefix_space=False), Bytes()
    out = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END, bos_token=END, unk_token=END)
    if added:
        out.add_tokens(list(added))
    return out


class Original:
    """The parts, with weights that matter, and their tensors by the published names.

    phi: the language model; its LM head has no bias.  tower, projector: see Mipha.
    """

    def __init__(self, vocabulary: int, spare: int = SPARE, seed: int = 0) -> None:
        torch.manual_seed(seed)
        text = PhiConfig(
            vocab_size=vocabulary + spare, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=512, bos_token_id=None, eos_token_id=vocabulary - 1,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.4},
        )  # fmt: skip
        vision = SiglipVisionConfig(
            hidden_size=TOWER, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24, image_size=SIDE,
            patch_size=PATCH,
        )  # fmt: skip
        self.vocabulary, self.spare = vocabulary, spare
        self.phi, self.tower = PhiForCausalLM(text).eval(), SiglipVisionModel(vision).eval()
        self.projector = nn.Sequential(nn.Linear(TOWER, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
        with torch.no_grad():
            for part in (self.phi, self.tower, self.projector):
                for parameter in part.parameters():
                    parameter.add_(torch.randn_like(parameter) * (0.05 if parameter.ndim == 1 else 0.2))
            self.phi.lm_head.bias.zero_()

    def tensors(self) -> dict[str, Tensor]:
        out = {name: t for name, t in self.phi.state_dict().items() if name != "lm_head.bias"}
        out["model.embed_tokens.weight"] = out["model.embed_tokens.weight"][: self.vocabulary]
        tower = {name.removeprefix("vision_model."): t for name, t in self.tower.state_dict().items()}
        out |= {f"model.vision_tower.vision_model.{name}": t for name, t in tower.items()}
        out |= {f"model.mm_projector.{name}": t for name, t in self.projector.state_dict().items()}
        return {name: t.clone().contiguous() for name, t in out.items()}

    def config(self) -> dict[str, Any]:
        text, vision = self.phi.config, self.tower.config
        return {
            "architectures": ["MiphaPhiForCausalLM"],
            "model_type": "mipha_phi",
            "vocab_size": self.vocabulary,
            "hidden_size": WIDTH,
            "intermediate_size": text.intermediate_size,
            "num_hidden_layers": text.num_hidden_layers,
            "num_attention_heads": text.num_attention_heads,
            "num_key_value_heads": text.num_attention_heads,
            "hidden_act": "gelu_new",
            "max_position_embeddings": text.max_position_embeddings,
            "partial_rotary_factor": 0.4,
            "rope_theta": 10000.0,
            "rope_scaling": None,
            "layer_norm_eps": 1e-05,
            "qk_layernorm": False,
            "tie_word_embeddings": False,
            "bos_token_id": text.eos_token_id,
            "eos_token_id": text.eos_token_id,
            "torch_dtype": "float32",
            "vision_config": {
                "vision_tower": {
                    "hidden_size": TOWER,
                    "intermediate_size": vision.intermediate_size,
                    "num_hidden_layers": vision.num_hidden_layers,
                    "num_attention_heads": vision.num_attention_heads,
                    "image_size": SIDE,
                    "patch_size": PATCH,
                    "hidden_act": "gelu_pytorch_tanh",
                    "layer_norm_eps": 1e-06,
                    "mm_vision_select_feature": "patch",
                    "mm_vision_select_layer": -2,
                    "model_type": "mipha_vision_model",
                },
                "mm_projector": {
                    "mm_projector_type": "mlp2x_gelu",
                    "mm_hidden_size": TOWER,
                    "hidden_size": WIDTH,
                    "model_type": "mipha_projector",
                },
            },
        }

    def write(self, folder: Path, added: tuple[str, ...] = (), form: str = "safetensors", **changes: Any) -> Path:
        """A folder as the hub has it. form: "safetensors" or "bin"."""
        folder.mkdir(parents=True, exist_ok=True)
        rows = {"output_rows": self.vocabulary + self.spare} if self.spare else {}
        (folder / "config.json").write_text(json.dumps(self.config() | rows | changes))
        if form == "bin":
            torch.save(self.tensors(), folder / "pytorch_model.bin")
        else:
            save_file(self.tensors(), folder / "model.safetensors", metadata={"format": "pt"})
        words(*added).save_pretrained(folder)
        return folder
