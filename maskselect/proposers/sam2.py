"""`Sam2Proposer`: everything mode and prompts of SAM 2 and 2.1 (arXiv 2408.00714), EdgeTAM and SAM 3's tracker.

These image models of transformers share one decoder. `proposers/everything.py` implements the modes. Differences from
SAM: an image is stretched to the model's square instead of padded, logits are upsampled to the image in one step, and
the upscaling of masks adds two finer feature maps of the encoder.

Shape letters: N masks, P prompts, T tokens of a prompt, C channels, h w cells of the image embedding, l side of logits.
"""

from dataclasses import InitVar, dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
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
"""Supported `model_type`. Only the image part of a video model is loaded."""

_EXAMPLE = "facebook/sam2.1-hiera-large"
_CHUNK = 16
"""Prompts whose masks are upscaled at once; bounds the memory of the largest arrays."""


@dataclass(frozen=True)
class Embedded:
    """An encoded image.

    Attributes:
        coarse: (1, C, h, w).
        half: (1, C / 4, 2h, 2w).
        fine: (1, C / 8, 4h, 4w).
    """

    coarse: Tensor
    half: Tensor
    fine: Tensor


class Sam2Decoder(PointDecoder):
    """Runs batches of prompts through SAM 2's decoder; see `PointDecoder`.

    Args:
        model: model of transformers, one of MODEL_TYPES. Its two-way transformer equals SAM's and is rebuilt as that
            over the same layers, for the speed of `backends/sam_attention.py`.
        batch, precision, memory_budget_mb: see `PointDecoder`.
    """

    def __init__(self, model: Any, batch: int, precision: Precision, memory_budget_mb: int | None) -> None:
        self.model, self.masks = model, model.mask_decoder
        self.masks.transformer = _as_sam(self.masks.transformer)
        position = model.get_image_wide_positional_embeddings()
        prompts = SimpleNamespace(
            get_dense_pe=partial(nn.Identity(), position),  # can be pickled
            no_mask_embed=model.prompt_encoder.no_mask_embed,
            mask_downscaling=model.prompt_encoder.mask_embed,
            image_embedding_size=model.prompt_encoder.image_embedding_size,
            embed_dim=model.prompt_encoder.hidden_size,
        )
        sam: Any = SimpleNamespace(image_encoder=model.vision_encoder, mask_decoder=self.masks, prompt_encoder=prompts)
        super().__init__(sam, batch, precision, memory_budget_mb=memory_budget_mb)

    def embed(self, pixels: Tensor) -> Any:
        """Normalised pixels (1, 3, S, S) float32 to `Embedded`."""
        fine, half, coarse = (x.to(self.dtype) for x in self.model.get_image_embeddings(pixels.to(self.dtype)))
        return Embedded(coarse, half, fine)

    def _redecode_batch(self, embedding: Any, sparse: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        tokens, pixels, iou = attend_prompts(self.sam, embedding.coarse, sparse[None], low[None])
        return self._upscale(embedding, tokens[:, :1], pixels)[:, 0], iou[:, 0].float()

    def _decode_batch(self, embedding: Any, sparse: Tensor, least_iou: float) -> tuple[Tensor, Tensor]:
        tokens, pixels, iou = attend_prompts(self.sam, embedding.coarse, sparse[None])
        iou = iou[:, 1:].float()
        good = (iou > least_iou).any(1).nonzero()[:, 0]
        return self._upscale(embedding, tokens[good, 1:], pixels[good], first=1), iou[good]

    def _upscale(self, embedding: Embedded, tokens: Tensor, pixels: Tensor, first: int = 0) -> Tensor:
        """Logits (N, k, l, l) float32 from mask tokens (N, k, C), with the numbers `first` to `first` + k - 1."""
        heads = self.masks.output_hypernetworks_mlps[first : first + tokens.shape[1]]
        logits = []
        for some, image in zip(tokens.split(_CHUNK), pixels.split(_CHUNK), strict=True):
            finer = self.masks.upscale_conv1(image) + embedding.half
            finer = self.masks.activation(self.masks.upscale_layer_norm(finer))
            finer = self.masks.activation(self.masks.upscale_conv2(finer) + embedding.fine)
            weights = torch.stack([head(token) for head, token in zip(heads, some.unbind(1), strict=True)], 1)
            low = weights @ rearrange(finer, "n c h w -> n c (h w)")
            logits.append(rearrange(low, "n k (h w) -> n k h w", h=finer.shape[-2]).float())
        return torch.cat(logits)


class Sam2Network:
    """A model of transformers as a `PromptNetwork`. An image is stretched to the encoder's square."""

    def __init__(self, model: Any, processor: Any, decoder: Sam2Decoder, source: str) -> None:
        self.prompts, self.processor = model.prompt_encoder, processor
        self.decoder: PointDecoder = decoder
        self.source, self.device = source, model.device
        self.side: int = self.prompts.input_image_size
        self.low: int = self.prompts.mask_input_size[0]
        # The token that predicts whether the object exists is an additional prompt token.
        self.presence = model.mask_decoder.obj_score_token

    def frame(self, size: tuple[int, int]) -> Frame:
        """The frame of an image of (height, width)."""
        return Frame(size, (self.side, self.side), self.side, self.low, through_model=False)

    def embed(self, image: np.ndarray) -> Any:
        """Image (H, W, 3) uint8 to `Embedded`."""
        size = {"height": self.side, "width": self.side}
        inputs = self.processor(images=image, size=size, input_data_format="channels_last", return_tensors="pt")
        return self.decoder.embed(inputs["pixel_values"].to(self.device))

    def encode_points(self, points: Tensor) -> Tensor:
        """Foreground points (P, 2) in the model frame, one per prompt, to (P, T, C)."""
        labels = torch.ones(1, len(points), 1, dtype=torch.int64, device=points.device)
        return self._with_presence(self.prompts(points[None, :, None], labels, None, None)[0])

    def encode_boxes(self, corners: Tensor) -> Tensor:
        """Box corners (P, 4) in the model frame to (P, T, C)."""
        return self._with_presence(self.prompts(None, None, corners[None], None)[0])

    def _with_presence(self, sparse: Tensor) -> Tensor:
        presence = self.presence.weight.to(sparse.dtype).expand(sparse.shape[1], -1, -1)
        return torch.cat([presence, sparse[0]], 1)


@dataclass(kw_only=True, eq=False, repr=False)
class Sam2Proposer(EverythingProposer):
    """A `PromptableProposer` by SAM 2.

    Args:
        model: hub id or folder, for example facebook/sam2.1-hiera-large, or yonigozlan/EdgeTAM-hf.
        device: auto, cpu or cuda.
        points_per_side, …, memory_budget_mb: see `EverythingSettings`.

    Raises:
        FileNotFoundError: the model is not available.
        ValueError: it is another kind of model, or a setting is out of range.
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


def _as_sam(theirs: Any) -> TwoWayTransformer:
    """A two-way transformer of transformers as SAM's, over the same layers."""
    final = theirs.final_attn_token_to_image
    rate = final.hidden_size // final.internal_dim
    ours: Any = TwoWayTransformer(
        len(theirs.layers), final.hidden_size, final.num_attention_heads, 1, downsample_rate=rate
    )
    for block, layer in zip(ours.layers, theirs.layers, strict=True):
        for name in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token"):
            _share_layers(getattr(block, name), getattr(layer, name))
        block.norm1, block.norm2, block.norm3, block.norm4 = (getattr(layer, f"layer_norm{k}") for k in (1, 2, 3, 4))
        block.mlp, block.skip_first_layer_pe = layer.mlp, layer.skip_first_layer_pe
    _share_layers(ours.final_attn_token_to_image, final)
    ours.norm_final_attn = theirs.layer_norm_final_attn
    return ours.eval().requires_grad_(False)


def _share_layers(ours: Attention, theirs: Any) -> None:
    ours.q_proj, ours.k_proj, ours.v_proj, ours.out_proj = theirs.q_proj, theirs.k_proj, theirs.v_proj, theirs.o_proj
