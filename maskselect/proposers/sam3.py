"""`Sam3Proposer`: all instances of noun phrases, by SAM 3 (arXiv 2511.16719), through transformers.

An image is encoded once for all phrases, and the phrases are encoded once for all images.

Shape letters: N masks, Q queries, L text tokens, C channels, h w cells of the mask logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from transformers import Sam3LiteTextModel, Sam3Model, Sam3Processor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from maskselect.backends import hub_cache
from maskselect.backends.cache_keys import cache_key, weights_digest
from maskselect.backends.devices import pick_device
from maskselect.backends.pretrained import load_pretrained, model_type
from maskselect.backends.sam_points import Precision
from maskselect.backends.weightless import reads_weights
from maskselect.ops.images import size_of
from maskselect.ops.masks import not_empty, upsample_logits
from maskselect.ops.overlap import mask_nms
from maskselect.structures.masks import MaskSet
from maskselect.structures.needs import Arguments, Need

NETWORKS = {"sam3": Sam3Model, "sam3_video": Sam3Model, "sam3_lite_text": Sam3LiteTextModel}
"""Network class for each supported `model_type`. Only the detector of a video model is loaded."""

_EXAMPLE = "facebook/sam3"
_TOKENS = 32
"""Length to which the processor pads phrases."""
_CHUNK = 8
"""Masks that are upsampled at once."""


@dataclass(frozen=True)
class Phrase:
    """An encoded noun phrase.

    Attributes:
        features: (1, L, C).
        attention: (1, L) int64, 1 for tokens and 0 for padding.
    """

    features: Tensor
    attention: Tensor


class Sam3Proposer:
    """A `Proposer` by SAM 3.

    Args:
        model: hub id or folder, for example facebook/sam3.
        phrases: noun phrases, for every image.
        score_thresh: queries must have a greater score.
        mask_thresh: pixels inside a mask have a greater probability.
        mask_nms_thresh: suppression by mask IoU at low resolution, across phrases; None for none.
        max_candidates: greatest number of candidates, by score; None for all.
        precision: of the whole network. All thresholds use float32.
        device: auto, cpu or cuda.

    Raises:
        FileNotFoundError: the model is not available.
        ValueError: it is another kind of model, or a threshold or phrase is invalid.
    """

    def __init__(
        self,
        model: str = _EXAMPLE,
        phrases: Sequence[str] = ("object",),
        score_thresh: float = 0.3,
        mask_thresh: float = 0.5,
        mask_nms_thresh: float | None = 0.8,
        max_candidates: int | None = None,
        precision: Precision = "float32",
        device: str = "auto",
    ) -> None:
        for name, value in (("score_thresh", score_thresh), ("mask_thresh", mask_thresh)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {value}")
        if precision not in get_args(Precision):
            raise ValueError(f"precision {precision!r} is unknown; expected one of {', '.join(get_args(Precision))}")
        place = pick_device(device)
        kind = model_type(model, "SAM 3 model", _EXAMPLE, NETWORKS)
        self.dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
        self.processor, loaded = load_pretrained(
            model, "SAM 3 model", _EXAMPLE, NETWORKS[kind], Sam3Processor, dtype=self.dtype
        )
        self.model = loaded.to(place)
        self.score_thresh, self.mask_thresh = score_thresh, mask_thresh
        self.mask_nms_thresh, self.max_candidates = mask_nms_thresh, max_candidates
        self._key_parts = {"kind": kind, "phrases": list(phrases), "precision": precision}
        self._phrases = self._encode_phrases(phrases) if reads_weights() else []

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The model with its image processor and tokenizer."""
        model = arguments.get("model", _EXAMPLE)
        return hub_cache.transformers_model(model, "SAM 3", _EXAMPLE, hub_cache.PROCESSOR, hub_cache.TOKENIZER)

    def cache_key(self) -> str:
        """The key of the weights and all settings but the device."""
        return cache_key(
            "Sam3Proposer",
            weights=weights_digest(self.model),
            score_thresh=self.score_thresh,
            mask_thresh=self.mask_thresh,
            mask_nms_thresh=self.mask_nms_thresh,
            max_candidates=self.max_candidates,
            **self._key_parts,
        )

    @torch.inference_mode()
    def _encode_phrases(self, phrases: Sequence[str]) -> list[Phrase]:
        if isinstance(phrases, str) or not phrases or not all(phrase.strip() for phrase in phrases):
            raise ValueError(f"phrases must be a list of at least one phrase, none of them empty, got {phrases!r}")
        for phrase in phrases:
            count = len(self.processor.tokenizer(phrase)["input_ids"])
            if count > _TOKENS:
                raise ValueError(f"phrase {phrase!r} takes {count} tokens, expected at most {_TOKENS}")
        inputs = self.processor(text=list(phrases), return_tensors="pt").to(self.model.device)
        features = self.model.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output
        return [Phrase(f, a) for f, a in zip(features.split(1), inputs["attention_mask"].split(1), strict=True)]

    @torch.inference_mode()
    def propose(self, image: np.ndarray) -> MaskSet:
        """Propose candidates for an image.

        Args:
            image: (H, W, 3) uint8.

        Returns:
            Masks at the size of the image, by falling score. The score, in [0, 1], is the probability that the query
            matches the phrase, times the probability that the phrase has an instance. Column "phrase", (N,) int64:
            index of the phrase.

        Raises:
            ValueError: the array has another shape or dtype.
        """
        size = size_of(image)
        inputs = self.processor(images=image, input_data_format="channels_last", return_tensors="pt")
        embeds = self.model.get_vision_features(inputs["pixel_values"].to(self.model.device, self.dtype))
        parts = [self._match(embeds, phrase) for phrase in self._phrases]
        low, scores = (torch.cat(column) for column in zip(*parts, strict=True))
        counts = torch.tensor([len(part[1]) for part in parts], dtype=torch.int64)
        number = torch.arange(len(parts)).repeat_interleave(counts).to(scores.device)
        if self.mask_nms_thresh is None:
            kept = torch.sort(scores, descending=True, stable=True).indices
        else:
            kept = mask_nms(low > self.mask_thresh, scores, self.mask_nms_thresh)
        kept = kept[: self.max_candidates]
        masks = torch.cat([(upsample_logits(rows, size) > self.mask_thresh).cpu() for rows in low[kept].split(_CHUNK)])
        result = MaskSet(masks, scores[kept].cpu(), "sam3", {"phrase": number[kept].cpu()})
        return result.keep(not_empty(masks))

    def _match(self, embeds: Any, phrase: Phrase) -> tuple[Tensor, Tensor]:
        """Mask probabilities (N, h, w) and scores (N,), float32, of the queries above the threshold."""
        text = BaseModelOutputWithPooling(pooler_output=phrase.features)
        out = self.model(vision_embeds=embeds, text_embeds=text, attention_mask=phrase.attention)
        scores = (out.pred_logits.float().sigmoid() * out.presence_logits.float().sigmoid())[0]
        above = scores > self.score_thresh
        return out.pred_masks[0, above].float().sigmoid(), scores[above]
