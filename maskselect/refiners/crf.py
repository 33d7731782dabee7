"""`CrfRefiner`: a fully connected CRF by mean-field inference (Krähenbühl and Koltun 2011, arXiv 1210.5644).

The defaults are those of Text4Seg's released code, which calls pydensecrf; this implementation uses torch alone.
Messages between all pairs of pixels are exact, which costs O(N^2) for N pixels. Therefore inference runs on an image
whose longer side is at most `side`, and the logits of the result are enlarged to the image's size.

Shape letters: M masks, h w their size, H W pixels of the image, N pixels of the working image.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from maskselect.backends.cache_keys import cache_key
from maskselect.backends.devices import pick_device
from maskselect.ops.masks import resize_nearest, upsample_logits
from maskselect.refiners.last_image import LastImage, refine_each
from maskselect.structures.masks import MaskSet

_CHUNK = 2**23  # maximum entries of the kernel matrix in one chunk, 32 MiB
_KEPT = 2**27  # maximum entries of a matrix that is kept for all iterations, 512 MiB


class CrfRefiner:
    """Dense CRF with two labels, a Gaussian and a bilateral kernel, and Potts compatibility.

    Args:
        gt_prob: probability that a label of the coarse mask is correct, in (0.5, 1).
        gaussian_sxy: standard deviation of the Gaussian kernel, in pixels of the image.
        gaussian_compat: weight of the Gaussian kernel.
        bilateral_sxy: spatial standard deviation of the bilateral kernel, in pixels of the image.
        bilateral_srgb: colour standard deviation of the bilateral kernel, in levels from 0 to 255.
        bilateral_compat: weight of the bilateral kernel.
        iterations: number of mean-field iterations.
        side: maximum longer side of the working image, in pixels. Spatial deviations shrink with the image.
        device: auto, cpu or cuda.

    Raises:
        ValueError: a setting is out of range.
    """

    name = "crf"

    def __init__(
        self,
        gt_prob: float = 0.9,
        gaussian_sxy: float = 3.0,
        gaussian_compat: float = 3.0,
        bilateral_sxy: float = 50.0,
        bilateral_srgb: float = 13.0,
        bilateral_compat: float = 10.0,
        iterations: int = 5,
        side: int = 96,
        device: str = "cpu",
    ) -> None:
        if not 0.5 < gt_prob < 1:
            raise ValueError(f"gt_prob must be above 0.5 and below 1, got {gt_prob}")
        if min(gaussian_sxy, bilateral_sxy, bilateral_srgb) <= 0:
            raise ValueError("gaussian_sxy, bilateral_sxy and bilateral_srgb must be above 0")
        if iterations < 0 or side < 1:
            raise ValueError(f"iterations must be at least 0 and side at least 1, got {iterations} and {side}")
        self.gt_prob, self.iterations, self.side = gt_prob, iterations, side
        self.gaussian = {"sxy": gaussian_sxy, "compat": gaussian_compat}
        self.bilateral = {"sxy": bilateral_sxy, "srgb": bilateral_srgb, "compat": bilateral_compat}
        self.device = pick_device(device)
        self._images: LastImage[_Working] = LastImage()

    def cache_key(self) -> str:
        """Depends on all settings."""
        names = ("gt_prob", "iterations", "side", "gaussian", "bilateral")
        return cache_key("CrfRefiner", **{name: getattr(self, name) for name in names})

    @torch.no_grad()
    def refine(self, image: np.ndarray, masks: Tensor, proposals: MaskSet | None = None) -> Tensor:
        """See `structures.refiner.Refiner`. The kernels of an image are computed once."""

        def refined(coarse: Tensor) -> Tensor:
            working = self._images(image, self._working)
            logits = self._infer(working, resize_nearest(coarse, working.size))
            return torch.cat([upsample_logits(one[None], (image.shape[0], image.shape[1])) > 0 for one in logits])

        return refine_each(image, masks, refined)

    def _working(self, image: np.ndarray) -> "_Working":
        """The working image (H, W, 3) of an image."""
        height, width = image.shape[:2]
        scale = min(1.0, self.side / max(height, width))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        small = image if scale == 1 else cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
        y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in size), indexing="ij")
        place = torch.stack([x, y], -1).reshape(-1, 2).to(self.device)
        colour = torch.from_numpy(small.reshape(-1, 3)).to(self.device, torch.float32)
        features = torch.cat([place / (self.bilateral["sxy"] * scale), colour / self.bilateral["srgb"]], 1)
        return _Working(size, _Gaussian(size, self.gaussian["sxy"] * scale, self.device), _Bilateral(features))

    def _infer(self, working: "_Working", masks: Tensor) -> Tensor:
        """Logits of the foreground after mean-field inference: (M, H, W) float32, at the working size.

        With two labels and Potts compatibility, an update is one logit: the unary logit plus, for each kernel, its
        weight times the filtered values of 2 Q - 1. As in pydensecrf, a pixel also gets its own message, and kernels
        are normalised symmetrically: k_ij / sqrt(sum_j k_ij * sum_i k_ij).
        """
        certainty = math.log(self.gt_prob / (1 - self.gt_prob))
        unary = (2 * masks.flatten(1).to(self.device, torch.float32) - 1).T * certainty
        kernels = (working.gaussian, self.gaussian["compat"]), (working.bilateral, self.bilateral["compat"])
        logits = unary
        for _ in range(self.iterations):
            belief = torch.tanh(logits / 2)  # 2 Q - 1
            logits = unary + sum(weight * kernel.filtered(belief) for kernel, weight in kernels)
        return logits.T.reshape(-1, *working.size)


@dataclass(frozen=True)
class _Working:
    """Size (H, W) and kernels of a working image."""

    size: tuple[int, int]
    gaussian: "_Gaussian"
    bilateral: "_Bilateral"


class _Gaussian:
    """exp(-|p_i - p_j|^2 / 2 sxy^2) for all pairs of pixels, symmetrically normalised: one matrix per axis.

    Args:
        size: (H, W), N = H * W.
        sxy: standard deviation in pixels.
        device: device of the matrices.
    """

    def __init__(self, size: tuple[int, int], sxy: float, device: torch.device) -> None:
        self.size, self.axes = size, []
        for length in size:
            place = torch.arange(length, dtype=torch.float32, device=device) / sxy
            weights = torch.exp(-((place[:, None] - place) ** 2) / 2)
            root = weights.sum(1).rsqrt()
            self.axes.append(root[:, None] * weights * root)

    def filtered(self, values: Tensor) -> Tensor:
        """Multiply the matrix by values, (N, M) float32 to (N, M)."""
        maps = values.T.reshape(-1, *self.size)
        return (self.axes[0] @ maps @ self.axes[1]).flatten(1).T


class _Bilateral:
    """exp(-|f_i - f_j|^2 / 2) for all pairs of N pixels, symmetrically normalised, in chunks of rows.

    Args:
        features: (N, F) float32.
    """

    def __init__(self, features: Tensor) -> None:
        self.features = features - features.mean(0)  # centred, for precise squares
        self._kept = list(self._rows()) if len(features) ** 2 <= _KEPT else None
        ones = features.new_ones(len(features), 1)
        self.norm = self._product(ones).rsqrt()

    def filtered(self, values: Tensor) -> Tensor:
        """Multiply the matrix by values, (N, M) float32 to (N, M)."""
        return self.norm * self._product(self.norm * values)

    def _product(self, values: Tensor) -> Tensor:
        rows: Iterable[Tensor] = self._rows() if self._kept is None else self._kept
        return torch.cat([part @ values for part in rows])

    def _rows(self) -> Iterator[Tensor]:
        """The rows of the matrix, not normalised, in chunks (n, N)."""
        features = self.features
        half = features.square().sum(1) / 2
        step = max(1, _CHUNK // len(features))
        for rows, square in zip(features.split(step), half.split(step), strict=True):
            yield (rows @ features.T - square[:, None] - half).clamp_(max=0).exp_()
