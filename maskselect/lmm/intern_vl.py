"""InternVL (InternVL 2.5 and 3: arXiv 2412.05271, 2504.10479) with the interface of `llava.py`.

The model is transformers' `InternVLForConditionalGeneration`, of any size, by hub id or folder. This file knows nothing
about masks.

An image is one tile, a square of 448 pixels, whose 32 x 32 patches become 16 x 16 tokens in rows; the family's own
preprocessing may add tiles of a large image. The vision tower is frozen. The projector is the MLP behind it.

Shape letters: B images, T image tokens, D language-model width, E features of a token, S side of a tile in pixels.
"""

from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import InternVLConfig, InternVLForConditionalGeneration, PreTrainedTokenizerBase

from maskselect.backends import hub_cache, needs
from maskselect.backends.hub_cache import TOKENIZER
from maskselect.backends.pretrained import model_type
from maskselect.backends.weightless import reads_weights
from maskselect.lmm.image_square import Squash
from maskselect.lmm.loading import load_language_model
from maskselect.lmm.lora import LoraSettings
from maskselect.lmm.wrapped import Quantize, Wrapped, check_quantize
from maskselect.structures.chat import ChatIds
from maskselect.structures.needs import Arguments, Need

EXAMPLE = "OpenGVLab/InternVL3-8B-hf"
WHAT = "InternVL"

TURN, TURN_END = "<|im_start|>", "<|im_end|>"
IMAGE_START, IMAGE, IMAGE_END = "<img>", "<IMG_CONTEXT>", "</img>"
CHAT_TOKENS = (TURN, TURN_END, IMAGE_START, IMAGE, IMAGE_END)
"""Tokens of the chat template (interface constants)."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the pixels of a picture (ImageNet's; the family's preprocessing)."""


class InternVl(Wrapped):
    """An InternVL with its tokenizer and chat template.

    Args:
        model: hub id or folder.
        lora: LoRA on the language model; None trains all of it.
        system_prompt: the system's turn; empty for none, as in the template of transformers.
        gradient_checkpointing: recompute activations in the backward pass.
        dtype: dtype of the frozen weights; trained weights stay float32. None for that of the files.
        quantize: hold the language model in 4 bits ("nf4", QLoRA: arXiv 2305.14314), for LoRA only; LM head, projector
            and tower are not quantised.

    Raises:
        FileNotFoundError: if weights are missing.
        ValueError: if settings exclude each other, the model is of another family, or a package is not installed.
    """

    def __init__(
        self,
        model: str,
        lora: LoraSettings | None = None,
        system_prompt: str = "",
        gradient_checkpointing: bool = False,
        dtype: Literal["float32", "bfloat16", "float16"] | None = None,
        quantize: Quantize | None = None,
    ) -> None:
        super().__init__()
        check_quantize(quantize, model, lora)
        self.tokenizer, self.model = load_intern_vl(model, dtype, quantize)
        self.has_own_files = True
        self.system_prompt = system_prompt
        self.square = Squash(self._side)
        self.prepare_training(dtype is not None, lora, gradient_checkpointing)

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """Weights of the hub or a folder, and the package that quantises them."""
        model, packages = str(arguments.get("model")), needs.quantizing(arguments)
        return hub_cache.transformers_model(model, WHAT, EXAMPLE, TOKENIZER) + packages

    def chat(self, with_image: bool) -> ChatIds:
        """The family's template: turns between `<|im_start|>` and `<|im_end|>`, the image and a line break first.

        The template has no place for candidates; they stand between the image and the line break.
        """
        system = f"{TURN}system\n{self.system_prompt}{TURN_END}\n" if self.system_prompt else ""
        begin = f"{system}{TURN}user\n" + (IMAGE_START if with_image else "")
        closing = self.token_ids(f"{TURN_END}\n{TURN}assistant\n")
        behind, line = (self.token_ids(IMAGE_END), self.token_ids("\n")) if with_image else ([], [])
        return ChatIds(self.token_ids(begin), behind, line, closing, closing)

    @property
    def output_layer(self) -> nn.Module | None:
        """The LM head; None when it is tied to the embeddings, which configs of this family do not always say."""
        head: Any = self.model.lm_head
        return None if head.weight is self.model.get_input_embeddings().weight else cast(nn.Module, head)

    @property
    def visual_parts(self) -> tuple[nn.Module, ...]:
        """The parts that decide `vision_features`."""
        return self.vision_tower, self.square

    @property
    def vision_width(self) -> int:
        """E, which is the tower's width for each patch of a token."""
        return int(self.model.config.vision_config.hidden_size / self.model.config.downsample_ratio**2)

    @property
    def most_image_tokens(self) -> int:
        """T."""
        vision = self.model.config.vision_config
        return int(self._side // vision.patch_size[0] * self.model.config.downsample_ratio) ** 2

    @property
    def _side(self) -> int:
        """S."""
        return int(self.model.config.vision_config.image_size[0])

    def image_grid(self, height: int, width: int) -> tuple[int, int] | None:
        """None: every image becomes a plain sequence of T tokens."""
        return None

    def vision_features(self, images: Tensor) -> Tensor:
        """Features of the frozen tower: (B, 3, H, W) float in [0, 1] to (B, T, E) float32, row by row.

        Each token has a mean of 0 and a standard deviation of 1. The projector begins with the same norm, so its result
        does not change.
        """
        mean, std = (torch.tensor(v, dtype=torch.float32, device=images.device).view(3, 1, 1) for v in (MEAN, STD))
        tower: Any = self.vision_tower
        pixels = (self.square(images) - mean) / std
        layer = self.model.config.vision_feature_layer
        out = tower(pixel_values=pixels.to(tower.dtype), output_hidden_states=layer != -1)
        states = out.last_hidden_state if layer == -1 else out.hidden_states[layer]
        patches = states[:, 1:].float()
        side = round(patches.shape[1] ** 0.5)
        merged = self.model.model.pixel_shuffle(patches.unflatten(1, (side, side)), self.model.config.downsample_ratio)
        norm = self.model.model.multi_modal_projector.layer_norm
        return F.layer_norm(merged, merged.shape[-1:], eps=norm.eps).flatten(1, 2)

    def project_image(self, features: Tensor) -> Tensor:
        """Image tokens: (B, T, E) to (B, T, D) float32."""
        projector: Any = self.projector
        return cast(Tensor, projector(features.to(projector.linear_1.weight.dtype)).float())


def load_intern_vl(
    model: str, dtype: str | None = None, quantize: str | None = None
) -> tuple[PreTrainedTokenizerBase, InternVLForConditionalGeneration]:
    """Load an InternVL; see `load_language_model`. Its end token is that of a turn.

    Raises:
        FileNotFoundError: if files are missing.
        ValueError: for another family, missing tensors, a tokenizer without the chat's tokens, or if the package that
            quantises is not installed.
    """
    if reads_weights():
        model_type(model, WHAT, EXAMPLE, (InternVLConfig.model_type,))
    kept = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]
    tokenizer, loaded = load_language_model(
        model, WHAT, EXAMPLE, InternVLForConditionalGeneration, dtype, quantize, kept
    )
    known = tokenizer.get_vocab()
    absent = [token for token in CHAT_TOKENS if token not in known]
    if absent:
        raise ValueError(f"the tokenizer of {model!r} lacks {', '.join(absent)}; expected that of an {WHAT}")
    if reads_weights():
        tokenizer.eos_token = TURN_END
    return tokenizer, loaded
