"""`Sam2Proposer`: everything mode and prompts of SAM 2 and 2.1 (arXiv 2408.00714), EdgeTAM and SAM 3's tracker.

Image models of transformers that share one decoder. The work is that of `proposers/everything.py`, the settings those
of `EverythingSettings`. What differs from SAM: an image is squashed to the model's square instead of padded, logits are
enlarged to the image in one step, and two finer maps of the encoder are added where masks are upscaled.

Shape letters: N masks, P prompts, T tokens of a prompt, C channels, h w cells of the image embedding, l side of logits.
"""

from dataclasses import InitVar, dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForMaskGeneration

from maskselect.backends import hub_cache
from maskselect.backends.devices import pick_device
from maskselect.backends.pretrained import load_pretrained, model_type
from maskselect.backends.sam import attend_prompts
from maskselect.backends.sam_network import Attention, TwoWayTransformer
from maskselect.backends.sam_points import PointDecoder, Precision
from maskselect.proposers.everything import EverythingProposer
from maskselect.proposers.sam_filter import Frame
from maskselect.structures.needs import Arguments, Need

MODEL_TYPES = ("sam2", "sam2_video", "edgetam", "edgetam_video", "sam3_tracker", "sam3_video")
"""`model_type` of configs that will do. Of a video model the image part is read."""

_EXAMPLE = "facebook/sam2.1-hiera-large"
_DRAWN_AT_ONCE = 16
"""Prompts whose masks are upscaled together: what bounds the memory of the widest arrays."""


@dataclass(frozen=True)
class Embedded:
    """An encoded image. coarse: (1, C, h, w).  half: (1, C / 4, 2h, 2w).  fine: (1, C / 8, 4h, 4w)."""

    coarse: Tensor
    half: Tensor
    fine: Tensor


class Sam2Decoder(PointDecoder):
    """Batches of prompts through SAM 2's decoder; see `PointDecoder`.

    model: of transformers, one of MODEL_TYPES. Its transformer is rebuilt, over the same layers, as SAM's, which it
    equals; so what makes SAM's cheap does it here too (`backends/sam_attention.py`).
    """

    def __init__(self, model: Any, batch: int, precision: Precision, memory_budget_mb: int | None) -> None:
        self.model, self.masks = model, model.mask_decoder
        self.masks.transformer = _as_sam(self.masks.transformer)
        position = model.get_image_wide_positional_embeddings()
        prompts = SimpleNamespace(
            get_dense_pe=partial(_given, position),
            no_mask_embed=model.prompt_encoder.no_mask_embed,
            mask_downscaling=model.prompt_encoder.mask_embed,
            image_embedding_size=model.prompt_encoder.image_embedding_size,
            embed_dim=model.prompt_encoder.hidden_size,
        )
        sam: Any = SimpleNamespace(image_encoder=model.vision_encoder, mask_decoder=self.masks, prompt_encoder=prompts)
        super().__init__(sam, batch, precision, memory_budget_mb=memory_budget_mb)

    def embed(self, pixels: Tensor) -> Any:
        """(1, 3, S, S) float32, normalised, to `Embedded`."""
        fine, half, coarse = (x.to(self.dtype) for x in self.model.get_image_embeddings(pixels.to(self.dtype)))
        return Embedded(coarse, half, fine)

    def _redrawn(self, embedding: Any, sparse: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        tokens, pixels, iou = attend_prompts(self.sam, embedding.coarse, sparse[None], low[None])
        return self._drawn(embedding, tokens[:, :1], pixels)[:, 0], iou[:, 0].float()

    def _decoded(self, embedding: Any, sparse: Tensor, least_iou: float) -> tuple[Tensor, Tensor]:
        tokens, pixels, iou = attend_prompts(self.sam, embedding.coarse, sparse[None])
        iou = iou[:, 1:].float()
        asked = (iou > least_iou).any(1).nonzero()[:, 0]
        return self._drawn(embedding, tokens[asked, 1:], pixels[asked], first=1), iou[asked]

    def _drawn(self, embedding: Embedded, tokens: Tensor, pixels: Tensor, first: int = 0) -> Tensor:
        """Logits (N, k, l, l) float32 from mask tokens (N, k, C), of which the first is number `first`."""
        heads = self.masks.output_hypernetworks_mlps[first : first + tokens.shape[1]]
        drawn = []
        for own, image in zip(tokens.split(_DRAWN_AT_ONCE), pixels.split(_DRAWN_AT_ONCE), strict=True):
            finer = self.masks.upscale_conv1(image) + embedding.half
            finer = self.masks.activation(self.masks.upscale_layer_norm(finer))
            finer = self.masks.activation(self.masks.upscale_conv2(finer) + embedding.fine)
            weights = torch.stack([head(token) for head, token in zip(heads, own.unbind(1), strict=True)], 1)
            low = weights @ rearrange(finer, "n c h w -> n c (h w)")
            drawn.append(rearrange(low, "n k (h w) -> n k h w", h=finer.shape[-2]).float())
        return torch.cat(drawn)


class Sam2Network:
    """A model of transformers as a `PromptNetwork`. Frames: an image squashed to the encoder's square."""

    def __init__(self, model: Any, processor: Any, decoder: Sam2Decoder, source: str) -> None:
        self.prompts, self.processor = model.prompt_encoder, processor
        self.decoder: PointDecoder = decoder
        self.source, self.device = source, model.device
        self.side: int = self.prompts.input_image_size
        self.low: int = self.prompts.mask_input_size[0]
        # The token that asks whether there is anything at all; it is one more beside those of the prompt.
        self.presence = model.mask_decoder.obj_score_token

    def frame(self, size: tuple[int, int]) -> Frame:
        """Where an image of (height, width) lies in the model's square and in the logits': everywhere."""
        return Frame(size, (self.side, self.side), self.side, self.low, through_model=False)

    def embed(self, image: np.ndarray) -> Any:
        """(H, W, 3) uint8 to `Embedded`."""
        size = {"height": self.side, "width": self.side}
        given = self.processor(images=image, size=size, input_data_format="channels_last", return_tensors="pt")
        return self.decoder.embed(given["pixel_values"].to(self.device))

    def encode_points(self, points: Tensor) -> Tensor:
        """(P, 2) points in the model frame, one a prompt, inside what is looked for, to (P, T, C)."""
        labels = torch.ones(1, len(points), 1, dtype=torch.int64, device=points.device)
        return self._with_presence(self.prompts(points[None, :, None], labels, None, None)[0])

    def encode_boxes(self, corners: Tensor) -> Tensor:
        """(P, 4) corners in the model frame to (P, T, C)."""
        return self._with_presence(self.prompts(None, None, corners[None], None)[0])

    def _with_presence(self, sparse: Tensor) -> Tensor:
        own = self.presence.weight.to(sparse.dtype).expand(sparse.shape[1], -1, -1)
        return torch.cat([own, sparse[0]], 1)


@dataclass(kw_only=True, eq=False, repr=False)
class Sam2Proposer(EverythingProposer):
    """A `PromptableProposer` by SAM 2.

    Args:
        model: hub id or folder, for example facebook/sam2.1-hiera-large, or yonigozlan/EdgeTAM-hf.
        device: auto, cpu or cuda.
        points_per_side, …, memory_budget_mb: see `EverythingSettings`.

    Raises:
        FileNotFoundError: the model is not there.
        ValueError: it is of another kind, or a setting is out of range.
    """

    model: InitVar[str] = field(default=_EXAMPLE, kw_only=False)
    device: InitVar[str] = "auto"

    def __post_init__(self, model: str, device: str) -> None:
        self.check()
        place = pick_device(device)
        kind = model_type(model, "SAM 2 model", _EXAMPLE, MODEL_TYPES)
        processor, loaded = load_pretrained(
            model, "SAM 2 model", _EXAMPLE, AutoModelForMaskGeneration, AutoImageProcessor, dtype=torch.float32
        )
        loaded = loaded.to(place)
        decoder = Sam2Decoder(loaded, self.points_per_batch, self.precision, self.memory_budget_mb)
        self.use(Sam2Network(loaded, processor, decoder, kind.split("_")[0]), loaded, kind=kind)

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The model with its image processor."""
        model = arguments.get("model", _EXAMPLE)
        return hub_cache.transformers_model(model, "SAM 2", _EXAMPLE, hub_cache.PROCESSOR)


def _given(value: Tensor) -> Tensor:
    return value


def _as_sam(theirs: Any) -> TwoWayTransformer:
    """A two-way transformer of transformers as that of SAM, over the very same layers."""
    some = theirs.final_attn_token_to_image
    rate = some.hidden_size // some.internal_dim
    ours: Any = TwoWayTransformer(
        len(theirs.layers), some.hidden_size, some.num_attention_heads, 1, downsample_rate=rate
    )
    for own, layer in zip(ours.layers, theirs.layers, strict=True):
        for name in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token"):
            _share(getattr(own, name), getattr(layer, name))
        own.norm1, own.norm2, own.norm3, own.norm4 = (getattr(layer, f"layer_norm{k}") for k in (1, 2, 3, 4))
        own.mlp, own.skip_first_layer_pe = layer.mlp, layer.skip_first_layer_pe
    _share(ours.final_attn_token_to_image, some)
    ours.norm_final_attn = theirs.layer_norm_final_attn
    return ours.eval().requires_grad_(False)


def _share(ours: Attention, theirs: Any) -> None:
    ours.q_proj, ours.k_proj, ours.v_proj, ours.out_proj = theirs.q_proj, theirs.k_proj, theirs.v_proj, theirs.o_proj
