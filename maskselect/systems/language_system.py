"""The base of systems whose language model reads image tokens and prompts, but no candidates.

Shape letters: B images, T image tokens, E width of the vision tower, R references, h w pixels of masks.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskselect.backends import checkpoints
from maskselect.lmm.lora import fit_adapters
from maskselect.ops.pooling import cell_weights
from maskselect.structures.protocols import LanguageModel
from maskselect.structures.sample import Prompt
from maskselect.systems.reading import Reader

_MODEL = "reader.lmm.model."
"""Prefix of the language model in a checkpoint."""


class LanguageSystem(nn.Module):
    """A system around a `Reader`. Pictures become squares without padding, so image tokens are the cells of a grid.

    Args:
        reader: embeds image tokens and prompts.
        side: of the square in pixels.
        words: number of tokens of the language model that a checkpoint of another system has.

    Attributes:
        title: name in messages; a subclass sets it.
        cell_layer: number of layers behind which image tokens predict cells; a subclass sets it.
    """

    title: str
    cell_layer: int

    def __init__(self, reader: Reader, side: int, words: int) -> None:
        super().__init__()
        self.reader, self.side, self._words = reader, side, words

    @property
    def lmm(self) -> LanguageModel:
        """The language model."""
        return self.reader.lmm

    def train(self, mode: bool = True) -> Self:
        """Set the training mode; the vision tower stays in evaluation mode."""
        super().train(mode)
        self.lmm.vision_tower.eval()
        return self

    def train_words(self, new_tokens: bool) -> None:
        """Let projector, token embeddings and LM head train; the last two beside LoRA only with new tokens."""
        self.lmm.projector.requires_grad_(True)
        adapted = any(".lora_" in name for name, _ in self.reader.named_parameters())
        for name, parameter in self.reader.named_parameters():
            if "embed_tokens" in name or "lm_head" in name:
                parameter.requires_grad_(not adapted or new_tokens)

    @torch.no_grad()
    def image_features(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 to (B, T, E), computed without autocast."""
        device = next(self.parameters()).device
        with torch.autocast(device.type, enabled=False):
            return self.lmm.vision_features(images.to(device).float() / 255)

    def image_grid(self) -> tuple[int, int]:
        """Rows and columns of the image tokens."""
        return grid_of(self.lmm, self.side)

    def pooled(self, features: Tensor, masks: Tensor) -> Tensor:
        """Mean of the image's features under masks: (T, E) and (R, h, w) bool over all of the picture to (R, E)."""
        grid = self.image_grid()
        if not len(masks):
            return features.new_zeros(0, features.shape[-1])
        weights = cell_weights(masks.to(features.device), grid).flatten(1)
        return (weights @ features) / weights.sum(-1, keepdim=True).clamp(min=1e-6)

    def references_of(self, prompt: Prompt, features_of: Callable[[int], Tensor]) -> Tensor:
        """The pooled references (R, E) of a prompt about a clip, each from its own frame.

        Args:
            prompt: the prompt.
            features_of: gives the features (1, T, E) of a frame.
        """
        pairs = zip(prompt.frames, prompt.references, strict=True)
        rows = [self.pooled(features_of(frame)[0], mask[None]).cpu() for frame, mask in pairs]
        return torch.cat([torch.zeros(0, self.lmm.vision_width, dtype=torch.float32), *rows])

    def hidden_and_cells(self, *inputs: Any) -> Tensor:
        """`lmm.hidden`, with the normalised states behind `cell_layer` layers appended: (B, L, 2 D)."""
        states = self.lmm.layer_states(*inputs)
        return torch.cat([states[-1], F.rms_norm(states[self.cell_layer].float(), (self.lmm.width,))], -1)

    def blocks(self) -> list[nn.Module]:
        """See `Reader.blocks`."""
        return self.reader.blocks()

    def learned_state(self) -> dict[str, Tensor]:
        """All trained tensors, the statistics of features, and a language model that is in no file of its own."""
        trained = {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
        buffers = dict(self.reader.mask_tokenizer.named_buffers(prefix="reader.mask_tokenizer"))
        if self.lmm.has_own_files:
            return {**trained, **buffers}
        elsewhere = {f"reader.lmm.{name}" for name in self.lmm.frozen_elsewhere}
        model = cast(nn.Module, self.lmm).named_parameters("reader.lmm")
        return {**trained, **buffers, **{name: p for name, p in model if name not in elsewhere}}

    def load_learned(self, tensors: dict[str, Tensor], origin: str | Path) -> None:
        """Load the result of `learned_state`; a language model with files of its own may be left out as a whole.

        Raises:
            ValueError: when a tensor is missing, unknown or of another shape.
        """
        held = self.state_dict()
        tensors = fit_adapters(tensors, held, origin, "reader.lmm." if self.lmm.has_own_files else None)
        expected = self.learned_state()
        if self.lmm.has_own_files and not any(name.startswith("reader.lmm.") for name in tensors):
            expected = {name: one for name, one in expected.items() if not name.startswith("reader.lmm.")}
        checkpoints.check_fit(expected, tensors, str(origin), f"{self.title} as configured")
        self.load_state_dict(tensors, strict=False)

    def keep_new_words(self, tensors: dict[str, Tensor]) -> None:
        """Replace the rows of tokens that another system adds to the vocabulary by the rows of this one."""
        held = self.state_dict()
        for name in (f"{_MODEL}model.language_model.embed_tokens.weight", f"{_MODEL}lm_head.weight"):
            if name in tensors:
                tensors[name] = torch.cat([tensors[name][: self._words], held[name][self._words :]])

    def start_from_ras(self, tensors: dict[str, Tensor], checkpoint: str) -> None:
        """Take the language model of RAS, and its mask projector, the latter also for image tokens.

        Args:
            tensors: of a checkpoint of RAS with the same encoders and sizes.
            checkpoint: its name, for messages.

        Raises:
            ValueError: it does not fit.
        """
        tower = f"{_MODEL}model.vision_tower."
        taken = {k: v.float() for k, v in tensors.items() if k.startswith("reader.") and not k.startswith(tower)}
        masks, projector = "reader.mask_tokenizer.", f"{_MODEL}model.multi_modal_projector."
        if f"{masks}mean" not in taken:
            raise ValueError(f"checkpoint {checkpoint} has no mask tokens; expected one of RAS or of {self.title}")
        tokenizer = {k.removeprefix(masks): v for k, v in taken.items() if k.startswith(masks)}
        made = image_projector(tokenizer, self.lmm.vision_width, checkpoint)
        taken |= {f"{projector}{name}": tensor for name, tensor in made.items()}
        for name in ("mean", "scale", "projector.0.weight"):
            taken[masks + name] = taken[masks + name][..., : self.lmm.vision_width]
        self.keep_new_words(taken)
        held = self.state_dict()
        checkpoints.check_fit(
            {k: held[k] for k in taken if k in held}, taken, checkpoint, f"{self.title} as configured"
        )
        self.load_state_dict(taken, strict=False)


def image_projector(masks: Mapping[str, Tensor], channels: int, checkpoint: str) -> dict[str, Tensor]:
    """The projector of image tokens that does for features what the mask projector of RAS does for masks.

    Args:
        masks: tensors of a `MaskTokenizer`.
        channels: E, of the vision tower.
        checkpoint: name of their checkpoint, for messages.

    Returns:
        `linear_1` and `linear_2`, weights and biases.

    Raises:
        ValueError: the mask tokens are of other features.
    """
    held = len(masks["mean"])
    if held not in (channels, channels + 1):
        raise ValueError(
            f"checkpoint {checkpoint} has {held} channels per mask; expected {channels}, or one more with the "
            "score of the proposal: the encoders must be the same"
        )
    # RAS appends the score of the proposal to the features of a mask.
    mean, scale, first = (masks[name][..., :channels] for name in ("mean", "scale", "projector.0.weight"))
    # Image tokens come from features that are not standardised, so their projector standardises too.
    weight = first * scale
    return {
        "linear_1.weight": weight,
        "linear_1.bias": masks["projector.0.bias"] - weight @ mean,
        "linear_2.weight": masks["projector.2.weight"],
        "linear_2.bias": masks["projector.2.bias"],
    }


def grid_of(lmm: LanguageModel, side: int) -> tuple[int, int]:
    """Rows and columns of the image tokens of a square picture of a side in pixels."""
    length = round(lmm.most_image_tokens**0.5)
    return lmm.image_grid(side, side) or (length, length)
