"""Qwen2.5-VL behind the same interface as `llava.py`: images at their own resolution, positions in two dimensions.

The model is transformers' `Qwen2_5_VLForConditionalGeneration` (arXiv 2502.13923): 3B, 7B, 32B and 72B by hub id or
folder, or a compact one built from sizes. Nothing in this file knows about masks.

An image becomes a token for every 28 by 28 pixels, and these stand on a grid (M-RoPE, arXiv 2409.12191, section 2.1):
`image_grid` says how large it is, and `tokens/sequence.py` what position ids follow. Its vision tower with its window
attention is frozen; its merger, which makes one token of two by two patches, is the projector.

Qwen3-VL is not read here: its tower hands features of several layers to the first layers of its language model
(DeepStack), which `hidden` has no way to take.

Shape letters: B images, T image tokens, L sequence positions, D language-model width, E features of a token, V width of
the tower.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskselect.backends import hub_cache, needs
from maskselect.backends.hub_cache import TOKENIZER
from maskselect.lmm.lora import LoraSettings, add_lora
from maskselect.lmm.native_size import NativeSize
from maskselect.lmm.quantizing import Quantize, check_quantize
from maskselect.lmm.qwen_building import (
    EXAMPLE,
    IMAGE_END,
    IMAGE_START,
    TURN,
    TURN_END,
    WHAT,
    QwenSizes,
    build_qwen,
    load_qwen,
)
from maskselect.lmm.wrapped import Wrapped
from maskselect.structures.chat import ChatIds
from maskselect.structures.needs import Arguments, Need

QWEN_SYSTEM = "You are a helpful assistant."
"""The system sentence of the family's own chat template (an interface constant)."""


class QwenVl(Wrapped):
    """A Qwen2.5-VL with its tokenizer and chat template.

    Args:
        model: hub id or folder of a Qwen2.5-VL; None builds one from `sizes`.
        sizes: sizes of the compact model, used when `model` is None.
        lora: LoRA on the language model; None trains all of it.
        system_prompt: the system's turn; empty for none.
        gradient_checkpointing: recompute activations in the backward pass.
        dtype: of the frozen weights of a `model`; what systems train stays float32. None for that of the files.
        quantize: hold the language model of a `model` in 4 bits ("nf4", QLoRA: arXiv 2305.14314), for LoRA alone; its
            output layer, the merger and the tower stay as they are.
        min_pixels, max_pixels: an image is scaled as little as it takes to have that many; 28 by 28 are one token. The
            defaults are transformers' own, 4 and 1280 tokens; the published models were trained with up to 16,384.

    Raises FileNotFoundError when weights are absent, ValueError for settings that exclude each other, a model of
    another family, or a package that is not installed.
    """

    images_on_grids = True

    def __init__(
        self,
        model: str | None = None,
        sizes: QwenSizes | None = None,
        lora: LoraSettings | None = None,
        system_prompt: str = QWEN_SYSTEM,
        gradient_checkpointing: bool = False,
        dtype: Literal["float32", "bfloat16", "float16"] | None = None,
        quantize: Quantize | None = None,
        min_pixels: int = 4 * 28 * 28,
        max_pixels: int = 1280 * 28 * 28,
    ) -> None:
        super().__init__()
        check_quantize(quantize, model, lora)
        if model is None:
            self.tokenizer, self.model = build_qwen(sizes or QwenSizes())
        else:
            self.tokenizer, self.model = load_qwen(model, dtype, quantize)
        self.has_own_files = model is not None
        self._arrange(lora, system_prompt, gradient_checkpointing, dtype, min_pixels, max_pixels)

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """Weights of the hub or a folder, and what quantises them."""
        model, found = arguments.get("model"), needs.quantizing(arguments)
        return found if model is None else hub_cache.transformers_model(model, WHAT, EXAMPLE, TOKENIZER) + found

    def _arrange(
        self,
        lora: LoraSettings | None,
        system_prompt: str,
        gradient_checkpointing: bool,
        dtype: str | None,
        min_pixels: int,
        max_pixels: int,
    ) -> None:
        """What follows once there is a network: how it sees, what trains, and in which dtype."""
        vision = self.model.config.vision_config
        self.system_prompt = system_prompt
        self.size = NativeSize(
            min_pixels, max_pixels, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
        )
        if dtype is not None:
            for part in (self.model.get_input_embeddings(), self.model.lm_head, self.projector):
                part.float()
        if lora is not None:
            add_lora(self.language_model, lora)
        if gradient_checkpointing:
            self.checkpoint_activations()
        self.vision_tower.requires_grad_(False)
        self.projector.requires_grad_(True)

    def chat(self, with_image: bool) -> ChatIds:
        """The family's template: turns between `<|im_start|>` and `<|im_end|>`, the image in front of the prompt.

        Candidates stand between image and prompt, of which the template knows nothing.
        """
        system = f"{TURN}system\n{self.system_prompt}{TURN_END}\n" if self.system_prompt else ""
        begin = f"{system}{TURN}user\n" + (IMAGE_START if with_image else "")
        closing = self.token_ids(f"{TURN_END}\n{TURN}assistant\n")
        behind = self.token_ids(IMAGE_END) if with_image else []
        return ChatIds(self.token_ids(begin), behind, [], closing, closing)

    @property
    def vision_tower(self) -> nn.Module:
        """What sees images, with the merger, which trains, at its end."""
        return cast(nn.Module, self.model.model.visual)

    @property
    def projector(self) -> nn.Module:
        """The merger: from two by two patches to one token of the language model's width."""
        return cast(nn.Module, self.model.model.visual.merger)

    @property
    def visual_parts(self) -> tuple[nn.Module, ...]:
        """What decides `vision_features`: all of the tower but the merger, and the size of what it sees."""
        return self.model.model.visual.patch_embed, self.model.model.visual.blocks, self.size

    @property
    def vision_width(self) -> int:
        """E, which is V for each patch of a token."""
        vision = self.model.config.vision_config
        return int(vision.hidden_size * vision.spatial_merge_size**2)

    @property
    def most_image_tokens(self) -> int:
        """The most that T can be."""
        return self.size.max_pixels // self.size.side**2

    def image_grid(self, height: int, width: int) -> tuple[int, int] | None:
        """Rows and columns of the tokens of an image of that many pixels: T is their product.

        Raises ValueError for an image that is too long and narrow.
        """
        return self.size.grid(height, width)

    def vision_features(self, images: Tensor) -> Tensor:
        """What the frozen tower sees: (B, 3, H, W) float in [0, 1], any shape, to (B, T, E) float32, row by row.

        A token is its patches, each scaled to a root mean square of 1: the merger begins with that, so nothing changes
        there, and half precision can hold the numbers. The tower is frozen unless someone unfreezes it.
        Raises ValueError for images that are too long and narrow.
        """
        patches, grids = self.size(images)
        tower: Any = self.vision_tower
        with _without_merger(tower):
            seen = tower(patches.to(tower.dtype), grid_thw=grids.to(patches.device)).last_hidden_state.float()
        level = F.rms_norm(seen, seen.shape[-1:], eps=self.model.model.visual.merger.ln_q.variance_epsilon)
        rows, columns = self.size.grid(*images.shape[-2:])
        order = window_order(rows, columns, tower.window_size // self.size.side)
        by_window = level.reshape(len(images), len(order), -1)
        return by_window[:, torch.argsort(order).to(seen.device)]

    def project_image(self, features: Tensor) -> Tensor:
        """Image tokens: (B, T, E) to (B, T, D) float32."""
        merger: Any = self.projector
        patches = features.unflatten(-1, (-1, self.model.config.vision_config.hidden_size)).flatten(0, 2)
        merged = merger(patches.to(merger.mlp[0].weight.dtype))
        return cast(Tensor, merged.reshape(*features.shape[:2], -1).float())


def window_order(rows: int, columns: int, side: int) -> Tensor:
    """(rows * columns,) int64: the order in which the tower has an image's tokens, window by window of side * side.

    Windows stand row by row, and so do the tokens in each; those at the lower and right edge may be smaller.
    """
    tokens = torch.arange(rows * columns).reshape(rows, columns)
    return torch.cat([window.flatten() for band in tokens.split(side) for window in band.split(side, 1)])


@contextmanager
def _without_merger(tower: Any) -> Iterator[None]:
    """Have the tower end before its merger, which trains, and whose weights may be shards where features are made."""
    merger, tower.merger = tower.merger, nn.Identity()
    try:
        yield
    finally:
        tower.merger = merger
