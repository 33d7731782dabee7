"""LLaVA with a small interface: embeddings in, hidden states out.

The model is transformers' `LlavaForConditionalGeneration` (LLaVA-1.5 7B and 13B by hub id or folder) or the compact one
of `lmm/compact.py`. This file knows nothing about masks.

Shape letters: B images, T image tokens, L sequence positions, D language-model width, E vision width.
"""

from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskselect.backends import checkpoints, hub_cache, needs
from maskselect.backends.hub_cache import TOKENIZER
from maskselect.backends.weightless import reads_weights
from maskselect.lmm import tokenizer as compact_tokenizer
from maskselect.lmm.compact import CompactLlava, LlavaSizes
from maskselect.lmm.image_square import CLIP_MEAN, CLIP_STD, CentreCrop, MeanPadding
from maskselect.lmm.lora import LoraSettings, add_lora, fit_adapters
from maskselect.lmm.wrapped import Quantize, Wrapped, check_quantize
from maskselect.ops.masks import pad_to_square
from maskselect.structures.chat import ChatIds
from maskselect.structures.needs import Arguments, Need
from maskselect.structures.protocols import VisionTower

EXAMPLE = "llava-hf/llava-1.5-7b-hf"
_WITHIN = "reader.lmm.model."
"""Prefix of the language model in a system's checkpoint."""

IMAGE_FRAME = ("<im_start>", "<im_end>")
"""Tokens before and after the image in the first LLaVAs."""


class Llava(Wrapped):
    """A LLaVA with its tokenizer and chat template; the paper configs have the system prompts of published ones.

    Args:
        model: hub id or folder of a LLaVA in transformers' format; None builds a compact one from `sizes`.
        sizes: sizes of the compact model, used if `model` is None.
        tower: replaces the CLIP tower of the compact model (ours). Its weights come from files of its own.
        start: checkpoint of system "llava" to start from (shipped name or path).
        base: checkpoint of a language model, or of a system with one, that later checkpoints build on and do not
            contain, as with LoRA.
        lora: LoRA on the language model; None trains all of it.
        system_prompt: text before " USER:"; empty for the compact model.
        gradient_checkpointing: recompute activations in the backward pass.
        crop_image: crop the central square of a picture, as in the first LLaVAs. Else a picture is padded: with CLIP's
            mean colour for a `model`, as in LLaVA-1.5, and with black for the compact model.
        frame_image: put the image between `IMAGE_FRAME`, as in the first LLaVAs. Added tokens then strip the spaces
            around them, as in their tokenizer, and the line break after the image.
        dtype: dtype of the frozen weights of a `model`; trained weights stay float32. None for that of the files.
        quantize: hold the language model of a `model` in 4 bits ("nf4", QLoRA: arXiv 2305.14314), for LoRA only; LM
            head, projector and tower are not quantised.

    Raises:
        FileNotFoundError: if weights are missing.
        ValueError: if settings exclude each other or a package is not installed.
    """

    def __init__(
        self,
        model: str | None = None,
        sizes: LlavaSizes | None = None,
        tower: VisionTower | None = None,
        start: str | None = None,
        base: str | None = None,
        lora: LoraSettings | None = None,
        system_prompt: str = "",
        gradient_checkpointing: bool = False,
        crop_image: bool = False,
        frame_image: bool = False,
        dtype: Literal["float32", "bfloat16", "float16"] | None = None,
        quantize: Quantize | None = None,
    ) -> None:
        super().__init__()
        check_quantize(quantize, model, lora)
        if tower is not None and model is not None:
            raise ValueError("tower replaces that of the compact model; expected no model beside it")
        self.tower = [tower] if tower is not None else []  # the module is registered in the model
        if model is None:
            self.tokenizer = compact_tokenizer.load_compact()
            self.model = CompactLlava(sizes or LlavaSizes(), len(self.tokenizer), tower)
        else:
            from maskselect.lmm.loading import load_llava  # noqa: PLC0415  transformers is slow to import

            self.tokenizer, self.model = load_llava(model, EXAMPLE, dtype, quantize)
            if dtype is not None:
                self.upcast_trained()
        self.system_prompt = system_prompt
        self.square: nn.Module | None = None
        if tower is None:
            side = self.model.config.vision_config.image_size
            padding = None if model is None else MeanPadding(side)
            self.square = CentreCrop(side) if crop_image else padding
        self.strip_added = frame_image
        self.frame_ids = [self.add_token(text, special=True) for text in IMAGE_FRAME] if frame_image else None
        if not reads_weights():
            start = base = None
        if start is not None and checkpoints.read_card(start)["system"] != "llava":
            raise ValueError(f"checkpoint {start} is not a language model's; expected one of system 'llava'")
        for weights in (base, start):
            if weights is not None:
                self._load(weights)
        self.has_own_files = start is None and (model is not None or base is not None)
        if lora is not None:
            add_lora(self.language_model, lora)
        if gradient_checkpointing:
            self.checkpoint_activations()
        self.vision_tower.requires_grad_(False)

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """Weights of the language model in files or on the hub, and the package that quantises them."""
        files = needs.checkpoint(arguments.get("base"), "the language model under what trains")
        files += needs.checkpoint(arguments.get("start"), "where training starts from") + needs.quantizing(arguments)
        model = arguments.get("model")
        return files if model is None else hub_cache.transformers_model(model, "LLaVA", EXAMPLE, TOKENIZER) + files

    def _load(self, checkpoint: str) -> None:
        """Load the checkpoint of a language model, or the language model of a system's checkpoint."""
        tied = {"lm_head.weight": self.model.state_dict()["lm_head.weight"]}
        tensors = checkpoints.read_tensors(checkpoint)
        if checkpoints.read_card(checkpoint)["system"] != "llava":
            tensors = {k.removeprefix(_WITHIN): v for k, v in tensors.items() if k.startswith(_WITHIN)}
        tensors = fit_adapters(tensors, self.model.state_dict(), checkpoint)
        checkpoints.load_strictly(self.model, tied | tensors, checkpoint)
        self.model.tie_weights()

    def chat(self, with_image: bool) -> ChatIds:
        """The template of LLaVA-1.5 or of the first LLaVAs: "… USER:", the image, a line break, " ASSISTANT:"."""
        begin = self.token_ids(f"{self.system_prompt} USER:" if self.system_prompt else "USER:", begin=True)
        line, closing = self.token_ids("\n"), self.token_ids(" ASSISTANT:")
        if self.frame_ids is None or not with_image:
            return ChatIds(begin, [], line, closing, line)
        start, end = self.frame_ids
        return ChatIds([*begin, start], [end], [], closing, line)

    @property
    def visual_parts(self) -> tuple[nn.Module, ...]:
        """The parts that decide `vision_features`."""
        return (self.vision_tower,) if self.square is None else (self.vision_tower, self.square)

    @property
    def vision_width(self) -> int:
        """E."""
        if self.tower:
            return self.tower[0].channels
        return int(self.model.config.vision_config.hidden_size)

    @property
    def most_image_tokens(self) -> int:
        """T."""
        if self.tower:
            return self.tower[0].tokens
        vision = self.model.config.vision_config
        return int(vision.image_size // vision.patch_size) ** 2

    def image_grid(self, height: int, width: int) -> tuple[int, int] | None:
        """None: every image becomes a plain sequence of T tokens."""
        return None

    @property
    def frozen_elsewhere(self) -> set[str]:
        """Names of frozen tensors that are read from files of their own, so that no checkpoint holds them."""
        tower = {f"model.model.vision_tower.{name}" for name in self.vision_tower.state_dict()} if self.tower else set()
        return super().frozen_elsewhere | tower

    def vision_features(self, images: Tensor) -> Tensor:
        """Features of the frozen vision tower: (B, 3, H, W) float in [0, 1] to (B, T, E).

        The checkpoint's config chooses the layer (`vision_feature_layer`, -2 in LLaVA-1.5); the class token is dropped.
        """
        if self.tower:
            return self.tower[0].features(pad_to_square(images))
        config = self.model.config
        side = config.vision_config.image_size
        if self.square is not None:
            images = self.square(images)
        else:
            padded = pad_to_square(images)
            images = F.interpolate(padded, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
        mean, std = (
            torch.tensor(v, dtype=torch.float32, device=images.device).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD)
        )
        tower: Any = self.vision_tower
        out = tower(pixel_values=((images - mean) / std).to(tower.dtype), output_hidden_states=True)
        return cast(Tensor, out.hidden_states[config.vision_feature_layer][:, 1:])

    def project_image(self, features: Tensor) -> Tensor:
        """Image tokens: (B, T, E) to (B, T, D) float32."""
        projector: Any = self.projector
        return cast(Tensor, projector(features.to(projector.linear_1.weight.dtype)).float())
