"""Mipha (arXiv 2403.06199), the language model of InstructSeg, with the interface of `llava.py`.

Phi-2 reads the image tokens of a SigLIP tower; `mipha_network.py` has the network. This file knows nothing about masks.

An image is squashed to a square (InstructSeg's preprocessing; Mipha itself pads it), whose patches become tokens.

Shape letters: B images, T image tokens, L positions, D language-model width, E tower width, V rows of the embeddings.
"""

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, DynamicCache

from maskselect.backends import hub_cache
from maskselect.backends.hub_cache import TOKENIZER
from maskselect.backends.pretrained import load_pretrained
from maskselect.backends.weightless import reads_weights
from maskselect.lmm import tokenizer as compact_tokenizer
from maskselect.lmm.image_square import Squash
from maskselect.lmm.lora import LoraSettings
from maskselect.lmm.mipha_network import PUBLISHED_NAMES, MiphaNetwork, MiphaSizes
from maskselect.lmm.wrapped import Wrapped
from maskselect.structures.chat import ChatIds
from maskselect.structures.generation import Generated, LogitsProcessor
from maskselect.structures.needs import Arguments, Need

EXAMPLE = "zhumj34/Mipha-3B"
WHAT = "Mipha"

VOCABULARY = 51_200
"""Rows of Phi-2's embeddings (its config.json)."""

SYSTEM_PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
"""LLaVA-v1's system prompt (lm-sys/FastChat, conversation template "vicuna_v1.1"). That of a published checkpoint
belongs to its weights, and may differ: give its exact wording as `system_prompt`."""


class Mipha(Wrapped):
    """A Mipha with its tokenizer and chat template.

    Args:
        model: hub id or folder; None builds one with random weights from `sizes`, with the compact tokenizer.
        sizes: sizes of that one.
        lora: LoRA on the language model; None trains all of it. InstructSeg adapts q_proj and v_proj.
        system_prompt: text before " USER:"; empty for none.
        gradient_checkpointing: recompute activations in the backward pass.
        dtype: dtype of the frozen weights of a `model`; trained weights stay float32. None for that of the files.

    Raises:
        FileNotFoundError: if weights are missing.
        ValueError: if the model is of another family, or neither `model` nor `sizes` is given.
    """

    def __init__(
        self,
        model: str | None = None,
        sizes: MiphaSizes | None = None,
        lora: LoraSettings | None = None,
        system_prompt: str = SYSTEM_PROMPT,
        gradient_checkpointing: bool = False,
        dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    ) -> None:
        super().__init__()
        if model is not None:
            self.tokenizer, self.model = _load(model, dtype)
        elif sizes is not None:
            self.tokenizer = compact_tokenizer.load_compact_in_transformers()
            self.model = MiphaNetwork(sizes.config(len(self.tokenizer)))
        else:
            raise ValueError("a Mipha has no weights; expected its model, or sizes for random ones")
        self.has_own_files = model is not None
        self.system_prompt = system_prompt
        self.square = Squash(self._side)
        self.prepare_training(dtype is not None, lora, gradient_checkpointing)

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """Weights of the hub or a folder."""
        model = arguments.get("model")
        return [] if model is None else hub_cache.transformers_model(str(model), WHAT, EXAMPLE, TOKENIZER)

    def chat(self, with_image: bool) -> ChatIds:
        """LLaVA-v1's template: "… USER: ", the image, a line break, the prompt, " ASSISTANT:"."""
        user = f"{self.system_prompt} USER:" if self.system_prompt else "USER:"
        closing = self.token_ids(" ASSISTANT:")
        if not with_image:
            return ChatIds(self.token_ids(user), [], [], closing, closing)
        return ChatIds(self.token_ids(f"{user} "), [], self.token_ids("\n"), closing, closing)

    @property
    def visual_parts(self) -> tuple[nn.Module, ...]:
        """The parts that decide `vision_features`."""
        return self.vision_tower, self.square

    @property
    def width(self) -> int:
        """D."""
        return int(self.model.config.hidden_size)

    @property
    def max_positions(self) -> int:
        """The maximum length of a sequence in tokens."""
        return int(self.model.config.max_position_embeddings)

    @property
    def vision_width(self) -> int:
        """E."""
        return int(self.model.config.siglip.hidden_size)

    @property
    def most_image_tokens(self) -> int:
        """T."""
        return int(self._side // self.model.config.siglip.patch_size) ** 2

    @property
    def _side(self) -> int:
        """Side of the squashed image in pixels."""
        return int(self.model.config.siglip.image_size)

    @property
    def _dtype(self) -> torch.dtype:
        """Dtype of the language model's weights."""
        language_model: Any = self.language_model
        return cast(torch.dtype, language_model.final_layernorm.weight.dtype)

    def image_grid(self, height: int, width: int) -> tuple[int, int] | None:
        """None: every image becomes a plain sequence of T tokens."""
        return None

    def new_cache(self) -> DynamicCache:
        """An empty key-value cache for `hidden`."""
        return DynamicCache(config=self.model.config.phi)

    def vision_features(self, images: Tensor) -> Tensor:
        """Features of the frozen tower: (B, 3, H, W) float in [0, 1] to (B, T, E), row by row.

        The config chooses the layer (`mm_vision_select_layer`). SigLIP has no class token.
        """
        tower: Any = self.vision_tower
        pixels = (self.square(images) - 0.5) / 0.5  # SigLIP's mean and standard deviation
        out = tower(pixel_values=pixels.to(tower.dtype), output_hidden_states=True)
        return cast(Tensor, out.hidden_states[self.model.config.select_layer])

    def project_image(self, features: Tensor) -> Tensor:
        """Image tokens: (B, T, E) to (B, T, D) float32."""
        projector: Any = self.projector
        return cast(Tensor, projector(features.to(projector.linear_1.weight.dtype)).float())

    def generate(
        self, embeddings: Tensor, max_new_tokens: int = 48, *, process: LogitsProcessor | None = None, **others: Any
    ) -> Generated:
        """Greedy continuations of rows, see `LanguageModel.generate`; only tokens with an embedding are generated."""
        known = self.model.get_input_embeddings().num_embeddings

        def within(ids: list[list[int]], logits: Tensor) -> Tensor:
            out = logits[:, :known]
            return out if process is None else process(ids, out)

        return super().generate(embeddings, max_new_tokens, process=within, **others)


def _load(model: str, dtype: str | None) -> tuple[Any, Any]:
    """Tokenizer and network, every parameter trainable; see `load_pretrained`. Without weights sizes are published."""
    arguments: dict[str, Any] = {"dtype": dtype or "auto", "key_mapping": PUBLISHED_NAMES}
    if not reads_weights():
        arguments["published"] = MiphaSizes().config(VOCABULARY, dtype="float16") if model == EXAMPLE else None
    tokenizer, loaded = load_pretrained(model, WHAT, EXAMPLE, MiphaNetwork, AutoTokenizer, **arguments)
    for parameter in loaded.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return tokenizer, loaded
