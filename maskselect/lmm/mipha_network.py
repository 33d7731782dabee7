"""The network of Mipha (arXiv 2403.06199): Phi behind SigLIP and an MLP, composed of transformers' `Phi` and `Siglip`.

transformers has no Mipha. `MiphaConfig` reads the config of the published files (zhumj34/Mipha-3B: `mipha_phi`, Phi's
settings with those of tower and projector in `vision_config`), and `PUBLISHED_NAMES` maps their tensor names. As in the
published model, the LM head has no bias, and may have more rows than the embeddings.
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PhiConfig, PreTrainedModel, SiglipVisionConfig

from maskselect.lmm.compact import Projector

PROJECTOR_TYPE = "mlp2x_gelu"
"""The only projector, as the config names it: two linear layers with GELU."""

PUBLISHED_NAMES = {
    r"^model\.embed_tokens\.": "model.language_model.embed_tokens.",
    r"^model\.layers\.": "model.language_model.layers.",
    r"^model\.final_layernorm\.": "model.language_model.final_layernorm.",
    r"^model\.mm_projector\.0\.": "model.multi_modal_projector.linear_1.",
    r"^model\.mm_projector\.2\.": "model.multi_modal_projector.linear_2.",
    r"^model\.vision_tower\.vision_model\.": "model.vision_tower.",
}
"""Prefixes of tensor names in published files, as regular expressions, and ours."""


class MiphaConfig(PhiConfig):
    """The config of a Mipha: that of its Phi, and two settings.

    Attributes:
        vision_config: `vision_tower`, SigLIP's settings with `mm_vision_select_layer`, and `mm_projector`.
        output_rows: rows of the LM head; None for as many as the vocabulary has.
    """

    model_type = "mipha_phi"

    vision_config: dict[str, Any] | None = None
    output_rows: int | None = None

    @property
    def phi(self) -> PhiConfig:
        """The config of the language model."""
        return PhiConfig(**{one.name: getattr(self, one.name) for one in fields(PhiConfig)})

    @property
    def siglip(self) -> SiglipVisionConfig:
        """The config of the vision tower, without the pooling head, which nothing uses.

        Raises:
            ValueError: if the config has no vision tower, or another projector than `PROJECTOR_TYPE`.
        """
        parts = self.vision_config or {}
        if not {"vision_tower", "mm_projector"} <= set(parts):
            raise ValueError("its config lacks vision_tower and mm_projector in vision_config")
        projector = parts["mm_projector"].get("mm_projector_type")
        if projector != PROJECTOR_TYPE:
            raise ValueError(f"its config says mm_projector_type {projector!r}, expected {PROJECTOR_TYPE!r}")
        known = {one.name for one in fields(SiglipVisionConfig)}
        given = {name: value for name, value in parts["vision_tower"].items() if name in known}
        return SiglipVisionConfig(**(given | {"vision_use_head": False}))

    @property
    def select_layer(self) -> int:
        """The hidden state of the tower that becomes the feature: a number of a layer, -1 for the last one's output."""
        return int((self.vision_config or {}).get("vision_tower", {}).get("mm_vision_select_layer", -2))


AutoConfig.register(MiphaConfig.model_type, MiphaConfig, exist_ok=True)  # `AutoTokenizer` asks for it


@dataclass(frozen=True)
class MiphaSizes:
    """Sizes of a Mipha; the defaults are those of Mipha-3B.

    Attributes:
        width, layers, heads, ffn, max_positions: of Phi.
        rotary: share of a head's width that is rotated.
        vision_width, vision_layers, vision_heads, vision_ffn: of SigLIP.
        image_size, patch_size: in pixels.
        select_layer: see `MiphaConfig`.
    """

    width: int = 2560
    layers: int = 32
    heads: int = 32
    ffn: int = 10_240
    max_positions: int = 2048
    rotary: float = 0.4
    vision_width: int = 1152
    vision_layers: int = 27
    vision_heads: int = 16
    vision_ffn: int = 4304
    image_size: int = 384
    patch_size: int = 14
    select_layer: int = -2

    def config(self, vocabulary: int, **changes: Any) -> MiphaConfig:
        """The config of a network with these sizes; `changes` are further settings of it."""
        tower = {
            "hidden_size": self.vision_width,
            "num_hidden_layers": self.vision_layers,
            "num_attention_heads": self.vision_heads,
            "intermediate_size": self.vision_ffn,
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "hidden_act": "gelu_pytorch_tanh",
            "layer_norm_eps": 1e-6,
            "mm_vision_select_layer": self.select_layer,
        }
        projector = {
            "mm_projector_type": PROJECTOR_TYPE,
            "mm_hidden_size": self.vision_width,
            "hidden_size": self.width,
        }
        return MiphaConfig(
            vocab_size=vocabulary,
            hidden_size=self.width,
            intermediate_size=self.ffn,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            max_position_embeddings=self.max_positions,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "partial_rotary_factor": self.rotary,
            },
            vision_config={"vision_tower": tower, "mm_projector": projector},
            **changes,
        )


class _Trunk(nn.Module):
    """The modules whose parameter names begin with "model."."""

    def __init__(self, config: MiphaConfig) -> None:
        super().__init__()
        vision = config.siglip
        self.vision_tower = AutoModel.from_config(vision, attn_implementation="sdpa")
        self.multi_modal_projector = Projector(vision.hidden_size, config.hidden_size)
        self.language_model = AutoModel.from_config(config.phi, attn_implementation="sdpa")


class MiphaNetwork(PreTrainedModel):
    """Vision tower, projector, Phi and LM head, which `lmm/mipha.py` runs one by one.

    Args:
        config: its sizes.

    Raises:
        ValueError: for a config without these parts.
    """

    config_class = MiphaConfig

    def __init__(self, config: MiphaConfig) -> None:
        super().__init__(config)
        self.model = _Trunk(config)
        self.lm_head = nn.Linear(config.hidden_size, config.output_rows or config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embeddings."""
        embeddings: nn.Embedding = self.model.language_model.embed_tokens
        return embeddings

    def get_output_embeddings(self) -> nn.Linear:
        """The LM head."""
        return self.lm_head

    @torch.no_grad()
    def resize_token_embeddings(self, rows: int, mean_resizing: bool = False) -> nn.Embedding:
        """Give the embeddings more rows, and the LM head as many if it has fewer; the values of new rows are undefined.

        Args:
            rows: the number of rows, at least the present one.
            mean_resizing: must be False; transformers has this argument.
        """
        if mean_resizing:
            raise NotImplementedError("new rows are not drawn here; expected mean_resizing False")
        embeddings = self.get_input_embeddings()
        embeddings.weight = _grown(embeddings.weight, rows)
        embeddings.num_embeddings = rows
        if self.lm_head.out_features < rows:
            self.lm_head.weight = _grown(self.lm_head.weight, rows)
            self.lm_head.out_features = rows
        self.config.vocab_size, self.config.output_rows = rows, self.lm_head.out_features
        return embeddings


def _grown(weight: Tensor, rows: int) -> nn.Parameter:
    """A weight with more rows."""
    out = torch.zeros(rows, weight.shape[1], dtype=weight.dtype, device=weight.device)
    out[: len(weight)] = weight
    return nn.Parameter(out, requires_grad=weight.requires_grad)
