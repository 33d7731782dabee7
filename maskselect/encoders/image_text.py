"""`ImageText`: pictures and texts in one embedding space, by SigLIP, SigLIP 2 or CLIP of transformers.

CLIP: arXiv 2103.00020; SigLIP: 2303.15343; SigLIP 2: 2502.14786. The checkpoints of SigLIP 2 at a fixed resolution have
the `model_type` of SigLIP, those of any aspect ratio (NaFlex) their own.

Shape letters: N pictures, P texts, D width of the space.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, AutoProcessor

from maskselect.backends import hub_cache
from maskselect.backends.pretrained import load_pretrained, model_type
from maskselect.structures.needs import Arguments, Need

EXAMPLE = "google/siglip2-base-patch16-224"
WHAT = "SigLIP or CLIP"
MODEL_TYPES = ("siglip", "siglip2", "clip")


class ImageText(nn.Module):
    """A frozen model of pictures and texts.

    Texts are lower-cased, as all three were trained: the published files of SigLIP 2 name a tokenizer that keeps upper
    case (see https://huggingface.co/google/siglip2-base-patch16-224/discussions/22).

    Args:
        model: hub id or folder.
        dtype: dtype of the weights; None for that of the files.
        batch: number of pictures in a forward pass; it bounds memory.

    Raises:
        FileNotFoundError: if files are missing.
        ValueError: for another kind of model, or missing tensors.
    """

    def __init__(
        self, model: str, dtype: Literal["float32", "bfloat16", "float16"] | None = None, batch: int = 32
    ) -> None:
        super().__init__()
        model_type(model, WHAT, EXAMPLE, MODEL_TYPES)
        self.processor, self.model = load_pretrained(
            model, WHAT, EXAMPLE, AutoModel, AutoProcessor, attn_implementation="sdpa", dtype=dtype or "auto"
        )
        self.batch = batch

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The weights, with image processor and tokenizer."""
        files = (hub_cache.PROCESSOR, hub_cache.TOKENIZER)
        return hub_cache.transformers_model(str(arguments.get("model")), WHAT, EXAMPLE, *files)

    @property
    def channels(self) -> int:
        """D."""
        config = self.model.config
        return int(config.projection_dim if config.model_type == "clip" else config.vision_config.hidden_size)

    @torch.no_grad()
    def images(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """Embeddings of length 1: N pictures (H, W, 3) uint8 of any sizes to (N, D) float32 on the CPU."""
        rows = [torch.zeros(0, self.channels, dtype=torch.float32)]
        weight = self.model.logit_scale
        for start in range(0, len(pictures), self.batch):
            some = list(pictures[start : start + self.batch])
            given: Any = self.processor.image_processor(some, input_data_format="channels_last", return_tensors="pt")
            inputs = {
                name: value.to(weight.device, weight.dtype if value.is_floating_point() else None)
                for name, value in given.items()
            }
            rows.append(F.normalize(self.model.get_image_features(**inputs).pooler_output.float().cpu(), dim=-1))
        return torch.cat(rows)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of length 1: P texts to (P, D) float32 on the CPU. Long texts are cut."""
        config = self.model.config
        # SigLIP reads the padding, too; CLIP masks it.
        padding: dict[str, Any] = {"padding": True if config.model_type == "clip" else "max_length"}
        given = self.processor.tokenizer(
            [text.lower() for text in texts],
            max_length=config.text_config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
            **padding,
        )
        names = ("input_ids", "attention_mask") if config.model_type == "clip" else ("input_ids",)
        inputs = {name: given[name].to(self.model.logit_scale.device) for name in names}
        return F.normalize(self.model.get_text_features(**inputs).pooler_output.float().cpu(), dim=-1)

    def logits(self, images: Tensor, texts: Tensor) -> Tensor:
        """The model's own logits of pairs: (N, D) and (P, D) to (P, N) float32 on the CPU."""
        scaled = texts @ images.T * self.model.logit_scale.exp().float().cpu()
        bias = getattr(self.model, "logit_bias", None)
        return scaled if bias is None else scaled + bias.float().cpu()
