"""Refiners by a Segment Anything model: `SamRefiner` as in Text4Seg, `IterativeSamRefiner` as in SAMRefiner.

Both turn a coarse mask into prompts of SAM: points, a mask prompt, and for SAMRefiner a box. Text4Seg (arXiv
2410.09855) draws points at random and feeds the logits back; SAMRefiner (arXiv 2502.06756), which Text4Seg++ uses,
derives new prompts from each result.

Shape letters: h w the size of a coarse mask, H W pixels of the image, l side of SAM's logits.
"""

import hashlib
import math
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import torch
from torch import Tensor

from maskselect.backends.cache_keys import cache_key, weights_digest
from maskselect.backends.devices import pick_device
from maskselect.backends.sam import load_sam, sam_needs
from maskselect.ops.masks import resize_nearest, upsample_logits
from maskselect.refiners.last_image import LastImage, refine_each
from maskselect.refiners.sam_image import SamImage
from maskselect.structures.masks import MaskSet
from maskselect.structures.needs import Arguments, Need

MaskPrompt = Literal["padded", "stretched"]
_LOGIT = math.log(999)
"""Logit of the probability 0.999, which Text4Seg gives to the foreground of its mask prompt."""


class _SamBased:
    """Base class: the model, the cached embedding of the last image, and the loop over masks."""

    name: str

    def __init__(self, checkpoint: str | Path, model_type: str, device: str, **settings: Any) -> None:
        self.sam = load_sam(model_type, checkpoint).to(pick_device(device))
        self._settings = settings
        self._images: LastImage[SamImage] = LastImage()

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The weights of SAM."""
        return sam_needs(arguments)

    def cache_key(self) -> str:
        """Depends on the weights and all settings."""
        return cache_key(type(self).__name__, weights=weights_digest(self.sam), **self._settings)

    @torch.no_grad()
    def refine(self, image: np.ndarray, masks: Tensor, proposals: MaskSet | None = None) -> Tensor:
        """See `structures.refiner.Refiner`. The image is encoded once."""

        def refined(coarse: Tensor) -> Tensor:
            encoded = self._images(image, lambda pixels: SamImage(self.sam, pixels))
            return torch.stack([self._refined(encoded, mask) for mask in coarse])

        return refine_each(image, masks, refined)

    def _refined(self, image: SamImage, coarse: Tensor) -> Tensor:
        """Refine one mask that is not empty: (h, w) bool to (H, W) bool."""
        raise NotImplementedError


class SamRefiner(_SamBased):
    """Text4Seg's refiner: SAM with random points and a mask prompt, in several calls that feed the logits back.

    The points depend on the seed and the mask only, so the result does not depend on other masks or earlier calls.

    Args:
        checkpoint: checkpoint of SAM, see `backends.sam.load_sam`.
        model_type: kind of SAM, see `backends.sam.load_sam`; "vit_h" in the paper.
        points: number of positive points, and of negative points, drawn without replacement; 10 in the paper, 20 in
            the code that was released later. A mask with fewer pixels gives fewer points.
        calls: number of decoder runs. Each run after the first gets the logits of the previous run as mask prompt.
        mask_prompt: how the coarse mask becomes a mask prompt. "padded" keeps the aspect ratio of the image and pads
            with 0; "stretched" resizes the mask to the whole square, as the released code for RES does. They are equal
            for square images.
        seed: seed of the points.
        device: auto, cpu or cuda.

    Raises:
        ValueError: a setting is out of range.
    """

    name = "sam"

    def __init__(
        self,
        checkpoint: str | Path = "sam",
        model_type: str = "compact",
        points: int = 10,
        calls: int = 3,
        mask_prompt: MaskPrompt = "padded",
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        if points < 0 or calls < 1:
            raise ValueError(f"points must be at least 0 and calls at least 1, got {points} and {calls}")
        if mask_prompt not in get_args(MaskPrompt):
            raise ValueError(
                f"mask_prompt {mask_prompt!r} is unknown; expected one of {', '.join(get_args(MaskPrompt))}"
            )
        self.points, self.calls, self.mask_prompt, self.seed = points, calls, mask_prompt, seed
        super().__init__(checkpoint, model_type, device, points=points, calls=calls, mask_prompt=mask_prompt, seed=seed)

    def _refined(self, image: SamImage, coarse: Tensor) -> Tensor:
        logits = (2 * coarse.float() - 1) * _LOGIT
        if self.mask_prompt == "padded":
            low = image.padded(logits, fill=0.0)
        else:
            low = upsample_logits(logits[None], (image.low, image.low))[0]
        xy, labels = self._draw_points(resize_nearest(coarse[None], image.size)[0].numpy())
        for _ in range(self.calls):
            low = image.predict(xy, labels, mask=low)[0][0]
        return image.draw(low)

    def _draw_points(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points (T, 2) in pixels and labels (T,) of a mask (H, W) bool."""
        digest = hashlib.sha256(f"{self.seed};{mask.shape};".encode() + np.packbits(mask).tobytes()).digest()
        rng = np.random.default_rng(np.frombuffer(digest, np.uint32))
        drawn = []
        for inside in (True, False):
            pixels = np.flatnonzero(mask == inside)
            drawn.append(rng.choice(pixels, min(self.points, len(pixels)), replace=False))
        rows, columns = np.divmod(np.concatenate(drawn), mask.shape[1])
        return np.stack([columns, rows], 1), np.repeat([1, 0], [len(pixels) for pixels in drawn])


class IterativeSamRefiner(_SamBased):
    """SAMRefiner: SAM in several iterations, each with prompts from the mask of the previous one.

    The prompts are the innermost pixel of the mask as a positive point, the pixel of its box that is farthest from the
    mask as a negative point, its box, and a mask prompt that is a Gaussian around the innermost pixel. Of SAM's three
    masks, the one with the highest predicted IoU is used. The defaults are those of the released SAMRefiner.

    Args:
        checkpoint: checkpoint of SAM, see `backends.sam.load_sam`.
        model_type: kind of SAM, see `backends.sam.load_sam`; "vit_h" in the paper.
        iterations: at least 1. An empty mask from SAM is dropped and ends the iterations.
        strength: largest absolute logit of the mask prompt.
        gamma: steepness of the Gaussian, whose variance is proportional to area / gamma.
        device: auto, cpu or cuda.

    Raises:
        ValueError: a setting is out of range.
    """

    name = "samrefiner"

    def __init__(
        self,
        checkpoint: str | Path = "sam",
        model_type: str = "compact",
        iterations: int = 5,
        strength: float = 30.0,
        gamma: float = 4.0,
        device: str = "cpu",
    ) -> None:
        if iterations < 1 or strength <= 0 or gamma <= 0:
            raise ValueError(
                f"iterations must be at least 1, strength and gamma above 0, got {iterations}, {strength} and {gamma}"
            )
        self.iterations, self.strength, self.gamma = iterations, strength, gamma
        super().__init__(checkpoint, model_type, device, iterations=iterations, strength=strength, gamma=gamma)

    def _refined(self, image: SamImage, coarse: Tensor) -> Tensor:
        mask = resize_nearest(coarse[None], image.size)[0]
        for _ in range(self.iterations):
            points, labels, box = distance_prompts(mask.numpy())
            low, iou = image.predict(points, labels, box, self._gaussian(image, mask))
            drawn = image.draw(low[1 + int(iou[1:].argmax())])
            if not drawn.any():
                break
            mask = drawn
        return mask

    def _gaussian(self, image: SamImage, mask: Tensor) -> Tensor:
        """The mask prompt of a mask (H, W) bool: (l, l) logits."""
        low = image.padded(2 * mask.float() - 1, fill=-1.0)
        inside = (low > 0).numpy()
        distance = torch.from_numpy(_inner_distance(inside))
        weight = torch.exp(-((distance - distance.max()) ** 2) * self.gamma / max(int(inside.sum()), 1))
        return self.strength * torch.where(low > 0, low * weight, low)


def distance_prompts(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int, int]]:
    """SAMRefiner's points and box of a mask.

    Args:
        mask: (H, W) bool, not empty.

    Returns:
        Points (T, 2) x and y in pixels, labels (T,), and the box x0, y0, x1, y1 by its first and last pixels. T is 2,
        or 1 for a mask that fills its box.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x0, y0, x1, y1 = int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])
    y, x = np.unravel_index(_inner_distance(mask).argmax(), mask.shape)
    points = [(int(x), int(y))]
    window = mask[y0 : y1 + 1, x0 : x1 + 1]
    if not window.all():
        outer = _inner_distance(~mask)[y0 : y1 + 1, x0 : x1 + 1]
        y, x = np.unravel_index(outer.argmax(), outer.shape)
        points.append((x0 + int(x), y0 + int(y)))
    return np.array(points), np.array([1, 0][: len(points)]), (x0, y0, x1, y1)


def _inner_distance(mask: np.ndarray) -> np.ndarray:
    """Euclidean distance of each pixel of (H, W) bool to the nearest pixel outside of the mask, (H, W) float32.

    For a mask that covers the image, the surroundings of the image count as outside.
    """
    if mask.all():
        return cv2.distanceTransform(np.pad(mask, 1).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    return cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
