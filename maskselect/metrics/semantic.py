"""`SemanticMetrics`: IoU of classes, by the open-vocabulary protocol of Text4Seg (arXiv 2410.09855).

Shape letters: K classes, H W pixels.
"""

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import multiclass_confusion_matrix


class SemanticMetrics(Metric):
    """IoU of K classes over the pixels of all images, where class 0 is `others`.

    Predictions on pixels whose true class is 0 become 0 first, so that a class found in an unlabelled area is no error.
    The IoU of class 0 is then high for every model. `compute` returns fractions in [0, 1], NaN before an image:

    - mIoU: mean over all K classes, as published.
    - mIoU w/o others: mean over the classes 1 to K - 1.

    A class that neither occurs nor is predicted has no IoU, and is left out of the means.

    Args:
        names: of the K classes; the first one is that of class 0.

    Raises:
        ValueError: for less than two classes.

    >>> metrics = SemanticMetrics(["others", "cat", "dog"])
    >>> metrics.update(torch.tensor([[1, 1, 2]]), torch.tensor([[0, 1, 1]]))
    >>> metrics.report()
    {'samples': 1, 'mIoU': 50.0, 'mIoU w/o others': 25.0}
    """

    full_state_update = False
    higher_is_better = True

    confusion: Tensor
    samples: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(compute_with_cache=False)
        if len(names) < 2:
            raise ValueError(f"{len(names)} classes; expected at least two, the first of them for pixels without class")
        self.names = tuple(names)
        zeros = torch.zeros(len(names), len(names), dtype=torch.int64)
        self.add_state("confusion", zeros, dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, truth: Tensor) -> None:
        """Add one image.

        Args:
            prediction: (H, W) of any integer type, predicted classes.
            truth: (H, W) of any integer type, true classes.

        Raises:
            ValueError: the sizes differ, or a number is no class.
        """
        if prediction.shape != truth.shape:
            raise ValueError(f"prediction is of shape {tuple(prediction.shape)}; expected {tuple(truth.shape)}")
        prediction, truth = prediction.long(), truth.long()
        for what, classes in (("prediction", prediction), ("truth", truth)):
            low, high = (int(edge) for edge in classes.aminmax()) if classes.numel() else (0, 0)
            if low < 0 or high >= len(self.names):
                raise ValueError(f"{what} has classes {low} to {high}; expected 0 to {len(self.names) - 1}")
        counted = torch.where(truth == 0, 0, prediction)
        self.confusion += multiclass_confusion_matrix(counted, truth, len(self.names), validate_args=False)
        self.samples += 1

    def overlaps(self) -> Tensor:
        """IoU of each class, (K,) float64, NaN for a class that neither occurs nor is predicted."""
        counts = self.confusion.double()
        shared = counts.diagonal()
        return shared / (counts.sum(0) + counts.sum(1) - shared)

    def compute(self) -> dict[str, Tensor]:
        """Fractions by name, over all processes."""
        overlaps = self.overlaps()
        return {"mIoU": overlaps.nanmean(), "mIoU w/o others": overlaps[1:].nanmean()}

    def report(self) -> dict[str, float | None]:
        """`compute` in percent, two decimals, None where nothing was measured; and the number of images."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about compute before update: None reports it
            fractions = self.compute()
        return {"samples": int(self.samples), **{name: _percent(value) for name, value in fractions.items()}}

    def by_class(self) -> dict[str, float | None]:
        """IoU by class in percent, two decimals, None for a class that neither occurs nor is predicted."""
        return dict(zip(self.names, map(_percent, self.overlaps()), strict=True))


def _percent(value: Tensor) -> float | None:
    return None if math.isnan(value) else round(100 * float(value), 2)
