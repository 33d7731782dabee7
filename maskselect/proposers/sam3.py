"""`Sam3Proposer`: everything in an image that a noun phrase names, by SAM 3 (arXiv 2511.16719), through transformers.

A pool guided by text: the phrases may be the same for every image, or those of the prompt that is to be answered. An
image is encoded once however many phrases are asked, and the phrases of the constructor are encoded there.

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
"""Which network reads a config of which `model_type`. Of a video model the detector is read."""

_EXAMPLE = "facebook/sam3"
_TOKENS = 32
"""What the processor fills phrases up to."""
_DRAWN_AT_ONCE = 8
"""Masks that are enlarged together."""


@dataclass(frozen=True)
class Phrase:
    """An encoded noun phrase. features: (1, L, C).  shown: (1, L), 1 where there is a token."""

    features: Tensor
    shown: Tensor


class Sam3Proposer:
    """A `Proposer` by SAM 3.

    Args:
        model: hub id or folder, for example facebook/sam3.
        phrases: noun phrases that `propose` asks of every image.
        score_thresh: a query stays when its score is above.
        mask_thresh: a pixel is inside when its probability is above.
        mask_nms_thresh: of two masks that overlap more (IoU, on the logits' grid) the better scored one stays,
            whichever phrase found it; None keeps all.
        max_candidates: at most so many, those of highest score; None for all.
        precision: of the whole network. Scores and masks are compared with thresholds in float32.
        device: auto, cpu or cuda.

    Raises FileNotFoundError when the model is not there; ValueError when it is of another kind, or for thresholds or
    phrases that cannot be.
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
        self._declared = {"kind": kind, "phrases": list(phrases), "precision": precision}
        self._phrases = self._encode_phrases(phrases) if reads_weights() else []

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The model with its image processor and tokenizer."""
        model = arguments.get("model", _EXAMPLE)
        return hub_cache.transformers_model(model, "SAM 3", _EXAMPLE, hub_cache.PROCESSOR, hub_cache.TOKENIZER)

    def cache_key(self) -> str:
        """Of the weights, the constructor's phrases and all settings but the device."""
        return cache_key(
            "Sam3Proposer",
            weights=weights_digest(self.model),
            score_thresh=self.score_thresh,
            mask_thresh=self.mask_thresh,
            mask_nms_thresh=self.mask_nms_thresh,
            max_candidates=self.max_candidates,
            **self._declared,
        )

    def propose(self, image: np.ndarray) -> MaskSet:
        """(H, W, 3) uint8 to what the constructor's phrases name, at the image's own size, by falling score.

        Scores, in [0, 1]: the probability that a query is what the phrase names, times that there is such a thing.
        Column "phrase", (N,) int64: which phrase, counted from 0. Raises ValueError for another kind of array.
        """
        return self._find(image, self._phrases)

    def propose_for(self, image: np.ndarray, phrases: Sequence[str]) -> MaskSet:
        """As `propose`, with these phrases instead. Raises ValueError for phrases that cannot be."""
        return self._find(image, self._encode_phrases(phrases))

    @torch.inference_mode()
    def _encode_phrases(self, phrases: Sequence[str]) -> list[Phrase]:
        if isinstance(phrases, str) or not phrases or not all(phrase.strip() for phrase in phrases):
            raise ValueError(f"phrases must be a list of at least one phrase, none of them empty, got {phrases!r}")
        for phrase in phrases:
            count = len(self.processor.tokenizer(phrase)["input_ids"])
            if count > _TOKENS:
                raise ValueError(f"phrase {phrase!r} takes {count} tokens, expected at most {_TOKENS}")
        given = self.processor(text=list(phrases), return_tensors="pt").to(self.model.device)
        features = self.model.get_text_features(given["input_ids"], given["attention_mask"]).pooler_output
        return [Phrase(f, s) for f, s in zip(features.split(1), given["attention_mask"].split(1), strict=True)]

    @torch.inference_mode()
    def _find(self, image: np.ndarray, phrases: list[Phrase]) -> MaskSet:
        size = size_of(image)
        given = self.processor(images=image, input_data_format="channels_last", return_tensors="pt")
        pixels = given["pixel_values"].to(self.model.device, self.dtype)
        embeds = self.model.get_vision_features(pixels)
        found = [self._ask(embeds, phrase) for phrase in phrases]
        low, scores = (torch.cat(parts) for parts in zip(*found, strict=True))
        counts = torch.tensor([len(part[1]) for part in found], dtype=torch.int64)
        number = torch.arange(len(found)).repeat_interleave(counts).to(scores.device)
        kept = self._chosen(low, scores)
        masks = self._drawn(low[kept], size)
        result = MaskSet(masks, scores[kept].cpu(), "sam3", {"phrase": number[kept].cpu()})
        return result.keep(not_empty(masks))

    def _ask(self, embeds: Any, phrase: Phrase) -> tuple[Tensor, Tensor]:
        """Mask probabilities (N, h, w) and scores (N,), float32, of the queries above the threshold."""
        text = BaseModelOutputWithPooling(pooler_output=phrase.features)
        out = self.model(vision_embeds=embeds, text_embeds=text, attention_mask=phrase.shown)
        scores = (out.pred_logits.float().sigmoid() * out.presence_logits.float().sigmoid())[0]
        sure = scores > self.score_thresh
        return out.pred_masks[0, sure].float().sigmoid(), scores[sure]

    def _chosen(self, low: Tensor, scores: Tensor) -> Tensor:
        """Rows that stay, by falling score: (N,) int64."""
        if self.mask_nms_thresh is None:
            kept = torch.sort(scores, descending=True, stable=True).indices
        else:
            kept = mask_nms(low > self.mask_thresh, scores, self.mask_nms_thresh)
        return kept[: self.max_candidates]

    def _drawn(self, low: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, h, w) probabilities to masks (N, *size) bool on the CPU."""
        masks = torch.zeros(len(low), *size, dtype=torch.bool)
        for start in range(0, len(low), _DRAWN_AT_ONCE):
            part = slice(start, start + _DRAWN_AT_ONCE)
            masks[part] = (upsample_logits(low[part], size) > self.mask_thresh).cpu()
        return masks
