"""LLaVA behind one small interface: embeddings in, hidden states out.

The model is transformers' `LlavaForConditionalGeneration`: LLaVA-1.5 7B and 13B by hub id or folder, or the compact one
built here from sizes. Nothing in this file knows about masks.

Shape letters: B images, T image tokens, L sequence positions, D language-model width, E vision width.
"""

from contextlib import nullcontext
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AddedToken, DynamicCache, PreTrainedTokenizerBase

from maskselect.backends import checkpoints
from maskselect.lmm import tokenizer as compact_tokenizer
from maskselect.lmm.building import LlavaSizes, build_llava, load_llava
from maskselect.lmm.image_crop import CentreCrop
from maskselect.lmm.lora import LoraSettings, add_lora
from maskselect.ops.masks import pad_to_square

_WITHIN = "reader.lmm.model."
"""Where a system's checkpoint holds its language model."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
"""The system sentence that LLaVA-1.5 checkpoints were trained with (an interface constant)."""

LIGHTNING_SYSTEM = VICUNA_SYSTEM.replace("curious user", "curious human").replace("the user's", "the human's")
"""That of the first LLaVAs, LLaVA-lightning among them (an interface constant)."""

IMAGE_FRAME = ("<im_start>", "<im_end>")
"""Tokens around the image in the first LLaVAs."""


class Llava(nn.Module):
    """A LLaVA with its tokenizer and chat template.

    Args:
        model: hub id or folder of a transformers-format LLaVA; None builds one from `sizes`.
        sizes: sizes of the compact model, used when `model` is None.
        start: compact weights to start from (shipped name or path of a safetensors file of system "llava").
        base: the same for good: a checkpoint that holds only what was trained on top of it, as with LoRA, needs it
            again. It may be a whole system's, whose language model is then taken.
        lora: LoRA on the language model; None trains all of it.
        system_prompt: text before " USER:"; empty for the compact model.
        gradient_checkpointing: recompute activations in the backward pass.
        crop_image: the tower sees the middle square of a picture, as in the first LLaVAs, not all of it, padded.
        frame_image: the image stands between `IMAGE_FRAME`, as in the first LLaVAs. Added tokens then swallow the
            spaces around them, as their tokenizer had it, and with them the line break behind the image.
        dtype: of the frozen weights of a `model`; what systems train stays float32. None for that of the files.
        quantize: hold the language model of a `model` in 4 bits ("nf4", QLoRA: arXiv 2305.14314), for LoRA alone; its
            output layer, the projector and the tower stay as they are.

    Raises FileNotFoundError when weights are absent, ValueError for settings that exclude each other, or a package that
    is not installed.
    """

    def __init__(
        self,
        model: str | None = None,
        sizes: LlavaSizes | None = None,
        start: str | None = None,
        base: str | None = None,
        lora: LoraSettings | None = None,
        system_prompt: str = "",
        gradient_checkpointing: bool = False,
        crop_image: bool = False,
        frame_image: bool = False,
        dtype: Literal["float32", "bfloat16", "float16"] | None = None,
        quantize: Literal["nf4"] | None = None,
    ) -> None:
        super().__init__()
        if quantize is not None and (model is None or lora is None):
            raise ValueError("quantize freezes the weights of a `model`, on which then `lora` trains; give both")
        self.tokenizer: PreTrainedTokenizerBase
        self.model: Any
        if model is None:
            self.tokenizer = compact_tokenizer.load_compact()
            self.model = build_llava(sizes or LlavaSizes(), len(self.tokenizer))
        else:
            self.tokenizer, self.model = load_llava(model, dtype, quantize)
            if dtype is not None:
                for part in (self.model.get_input_embeddings(), self.model.lm_head, self.projector):
                    part.float()
        self.system_prompt = system_prompt
        self.crop = CentreCrop(self.model.config.vision_config.image_size) if crop_image else None
        self.strip_added = frame_image
        self.frame_ids = [self.add_token(text, special=True) for text in IMAGE_FRAME] if frame_image else None
        if start is not None and checkpoints.read_card(start)["system"] != "llava":
            raise ValueError(f"checkpoint {start} is not a language model's; expected one of system 'llava'")
        for weights in (base, start):
            if weights is not None:
                self._load(weights)
        self.has_own_files = start is None and (model is not None or base is not None)
        if lora is not None:
            add_lora(self.language_model, lora)
        self.gradient_checkpointing = gradient_checkpointing
        if gradient_checkpointing:
            language_model: Any = self.language_model
            language_model.gradient_checkpointing_enable()
        self.vision_tower.requires_grad_(False)

    def _load(self, checkpoint: str) -> None:
        """A language model's checkpoint, or the language model out of a system's."""
        tied = {"lm_head.weight": self.model.state_dict()["lm_head.weight"]}
        tensors = checkpoints.read_tensors(checkpoint)
        if checkpoints.read_card(checkpoint)["system"] != "llava":
            tensors = {k.removeprefix(_WITHIN): v for k, v in tensors.items() if k.startswith(_WITHIN)}
        checkpoints.load_strictly(self.model, tied | tensors, checkpoint)
        self.model.tie_weights()

    def add_token(self, text: str, special: bool = False) -> int:
        """The id of a token, added to vocabulary and embeddings when it is not there yet.

        special: left out of decoded text.
        """
        if text not in self.tokenizer.get_vocab():
            strip = self.strip_added
            token = AddedToken(text, lstrip=strip, rstrip=strip, normalized=False, special=special)
            self.tokenizer.add_tokens([token], special_tokens=special)
        known = len(self.tokenizer)
        if known > self.model.get_input_embeddings().num_embeddings:  # published vocabularies have spare rows
            self.model.resize_token_embeddings(known, mean_resizing=False)
        return int(self.tokenizer.convert_tokens_to_ids(text))

    @property
    def frozen_elsewhere(self) -> set[str]:
        """Names of frozen tensors that `model` or `base` gives again, so that no checkpoint needs to hold them."""
        if not self.has_own_files:
            return set()
        frozen = {name for name, parameter in self.named_parameters() if not parameter.requires_grad}
        # What belongs to weights in 4 bits has names below theirs.
        return {key for key in self.state_dict() if any(key == name or key.startswith(f"{name}.") for name in frozen)}

    @property
    def language_model(self) -> nn.Module:
        """The Llama, without its output layer."""
        return cast(nn.Module, self.model.model.language_model)

    @property
    def vision_tower(self) -> nn.Module:
        """The CLIP vision tower."""
        return cast(nn.Module, self.model.model.vision_tower)

    @property
    def visual_parts(self) -> tuple[nn.Module, ...]:
        """What decides `vision_features`."""
        return (self.vision_tower,) if self.crop is None else (self.vision_tower, self.crop)

    @property
    def projector(self) -> nn.Module:
        """From the tower's width to the language model's."""
        return cast(nn.Module, self.model.model.multi_modal_projector)

    @property
    def width(self) -> int:
        """D."""
        return int(self.model.config.text_config.hidden_size)

    @property
    def vision_width(self) -> int:
        """E."""
        return int(self.model.config.vision_config.hidden_size)

    @property
    def max_positions(self) -> int:
        """Longest sequence that the language model was built for, in tokens."""
        return int(self.model.config.text_config.max_position_embeddings)

    def vision_features(self, images: Tensor) -> Tensor:
        """Features of the vision tower: (B, 3, H, W) float in [0, 1], any shape, to (B, T, E).

        The tower is frozen unless someone unfreezes it.
        Layer and class-token choice are the checkpoint's own (`vision_feature_layer`, -2 in LLaVA-1.5).
        """
        config = self.model.config
        side = config.vision_config.image_size
        if self.crop is not None:
            images = self.crop(images)
        else:
            square = pad_to_square(images)
            images = F.interpolate(square, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
        mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
        tower: Any = self.vision_tower
        out = tower(pixel_values=((images - mean) / std).to(tower.dtype), output_hidden_states=True)
        return cast(Tensor, out.hidden_states[config.vision_feature_layer][:, 1:])

    def project_image(self, features: Tensor) -> Tensor:
        """Image tokens: (B, T, E) to (B, T, D) float32."""
        projector: Any = self.projector
        return cast(Tensor, projector(features.to(projector.linear_1.weight.dtype)).float())

    def embed(self, token_ids: Tensor) -> Tensor:
        """Token embeddings: (..., L) int64 to (..., L, D) float32, whatever the weights are."""
        return cast(Tensor, self.model.get_input_embeddings()(token_ids).float())

    def hidden(
        self,
        embeddings: Tensor,
        visible: Tensor | None = None,
        positions: Tensor | None = None,
        cache: DynamicCache | None = None,
    ) -> Tensor:
        """Last hidden states, after the final norm: (B, L, D) float32 to the same.

        visible: (B, 1, L, K) bool, True where a query may look at a key (K includes the cache), or None for causal.
        positions: (B, L) int64 position ids, or None for 0, 1, 2, ….
        cache: keys and values of earlier positions; extended in place.
        """
        # The CPU's fused attention has a backward pass that is twice as slow as plain matrix products (measured at the
        # compact sizes), so training on the CPU takes the latter, unless activations are recomputed, outside of this.
        plain = embeddings.device.type == "cpu" and torch.is_grad_enabled() and not self.gradient_checkpointing
        with sdpa_kernel(SDPBackend.MATH) if plain else nullcontext():
            out = self.language_model(
                inputs_embeds=embeddings.to(self._dtype),
                attention_mask=visible,
                position_ids=positions,
                past_key_values=cache,
                use_cache=cache is not None,
            )
        return cast(Tensor, out.last_hidden_state.float())

    @property
    def _dtype(self) -> torch.dtype:
        """That of the language model's own weights."""
        language_model: Any = self.language_model
        return cast(torch.dtype, language_model.norm.weight.dtype)

    def new_cache(self) -> DynamicCache:
        """An empty key-value cache for `hidden`."""
        return DynamicCache(config=self.model.config.text_config)

    def token_logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits: (..., D) to (..., V)."""
        return cast(Tensor, self.model.lm_head(hidden.to(self.model.lm_head.weight.dtype)))

    def token_ids(self, text: str, begin: bool = False) -> list[int]:
        """Ids of a text without any added special token, or with the begin token in front."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [self.tokenizer.bos_token_id, *ids] if begin else list(ids)

    @torch.no_grad()
    def generate(self, embeddings: Tensor, max_new_tokens: int = 48) -> str:
        """Greedy continuation of (1, L, D) as text, up to the end token."""
        out = self.model.generate(
            inputs_embeds=embeddings.to(self._dtype),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
        )
        return str(self.tokenizer.decode(out[0], skip_special_tokens=True)).strip()
