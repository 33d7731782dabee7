"""A RAS small enough for tests, and batches for it."""

from typing import Any

import numpy as np
import torch

from maskselect.encoders.ensemble import EncoderEnsemble
from maskselect.encoders.position import SinusoidEncoder
from maskselect.lmm.llava import Llava, LlavaSizes
from maskselect.lmm.qwen_vl import QwenSizes
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import LanguageModel
from maskselect.structures.sample import Batch, Overlaps
from maskselect.systems.llmseg import LLMSeg
from maskselect.systems.ras import RAS

SIZES = LlavaSizes(
    width=32, layers=2, heads=2, ffn=48, vision_width=16, vision_layers=2, vision_heads=2, vision_ffn=16, image_size=32
)
QWEN = QwenSizes(
    width=32, layers=2, heads=2, key_heads=1, ffn=48, vision_width=16, vision_layers=2, vision_heads=2, vision_ffn=16,
    full_layers=(1,), window_size=56,
)  # fmt: skip
TEXTS = ["the red mugs", "left of <mask-ref>", "between <mask-ref> and <mask-ref>", "stars"]


class Quarters:
    """Proposes the four quarters of an image."""

    def cache_key(self) -> str:
        return "quarters"

    def propose(self, image: np.ndarray) -> MaskSet:
        height, width = image.shape[:2]
        masks = torch.zeros(4, height, width, dtype=torch.bool)
        for number in range(4):
            y, x = divmod(number, 2)
            masks[number, y * height // 2 : (y + 1) * height // 2, x * width // 2 : (x + 1) * width // 2] = True
        return MaskSet(masks, torch.linspace(1, 0.7, 4), "quarters")


class Nothing:
    """Proposes nothing."""

    def cache_key(self) -> str:
        return "nothing"

    def propose(self, image: np.ndarray) -> MaskSet:
        return MaskSet.empty((image.shape[0], image.shape[1]))


def tiny_ras(proposer: Any = None, lmm: LanguageModel | None = None, **arguments: Any) -> RAS:
    torch.manual_seed(0)
    encoders = EncoderEnsemble([SinusoidEncoder(grid=8, frequencies=3)])
    return RAS(proposer or Quarters(), encoders, lmm or Llava(sizes=SIZES), **arguments)


def tiny_llmseg(proposer: Any = None, lmm: LanguageModel | None = None, **arguments: Any) -> LLMSeg:
    torch.manual_seed(0)
    encoders = EncoderEnsemble([SinusoidEncoder(grid=8, frequencies=3)])
    sizes = {"width": 16, "heads": 2, "mlp_dim": 32} | arguments
    return LLMSeg(proposer or Quarters(), encoders, lmm or Llava(sizes=SIZES), **sizes)


def tiny_batch(system: RAS | LLMSeg, images: int = 2, candidates: int = 5, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    channels = system.channels
    features = torch.randn(images, candidates, channels, generator=generator)
    valid = torch.ones(images, candidates, dtype=torch.bool)
    valid[0, -1] = False
    references = [
        [torch.randn(t.count("<mask-ref>"), channels, generator=generator) for t in TEXTS] for _ in range(images)
    ]
    labels = (torch.rand(images, len(TEXTS), candidates, generator=generator) < 0.3).float()
    labels[~valid[:, None].expand_as(labels)] = -1
    pixels = torch.randn(images, 4, system.lmm.vision_width, generator=generator)
    grids = torch.tensor([[2, 2], [1, 3]])[:images] if system.lmm.images_on_grids else None
    iop = torch.rand(labels.shape, generator=generator) * valid[:, None]
    overlaps = Overlaps(iop * 0.8, iop, torch.tensor([[True, True, True, False]] * images))
    captions = ["a red mug", "two stars"][:images]
    return Batch(
        features, valid, pixels, [TEXTS] * images, references, labels, captions, overlaps=overlaps, image_grids=grids
    )
