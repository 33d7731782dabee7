"""`VideoMetrics`: J, F and J&F of referring video segmentation, and A and R if the protocol measures them.

Shape letters: K answers, G objects, T frames, H W pixels.
"""

import math
import warnings

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from maskselect.metrics.boundary import boundary_f, outline, outline_f
from maskselect.metrics.davis import MOST_OBJECTS, match
from maskselect.metrics.video_protocols import VideoProtocol, video_protocol_named

PNG_WHITE = 255


def region_j(prediction: np.ndarray, target: np.ndarray, void: np.ndarray | None = None) -> np.ndarray:
    """IoU of each frame, 1 if neither mask has a pixel: (T, H, W) bool, void likewise, to (T,) float64."""
    counted = np.True_ if void is None else ~void
    inter = (prediction & target & counted).sum((1, 2))
    union = ((prediction | target) & counted).sum((1, 2))
    return np.where(union > 0, inter / np.maximum(union, 1), 1.0)


def boundary_fs(prediction: np.ndarray, target: np.ndarray, void: np.ndarray | None = None) -> np.ndarray:
    """`boundary_f` of each frame: (T, H, W) bool, void likewise, to (T,) float64."""
    frames = range(len(target))
    return np.array([boundary_f(prediction[t], target[t], None if void is None else void[t]) for t in frames])


def accuracy(prediction: np.ndarray, target: np.ndarray, visa_compat: bool = False) -> np.ndarray:
    """Share of right pixels in each frame: (T, H, W) bool to (T,) float64 in [0, 1].

    Args:
        prediction, target: masks.
        visa_compat: VISA compares PNGs of 0 and 255 with masks of 0 and 1, so that only background can agree.
    """
    right = ~(prediction | target) if visa_compat else prediction == target
    return right.mean((1, 2))


def robustness(
    prediction: np.ndarray, target: np.ndarray, foreground: np.ndarray, visa_compat: bool = False
) -> np.ndarray:
    """1 minus wrong pixels over foreground pixels, at least 0, for each frame: (T, H, W) bool to (T,) float64.

    Args:
        prediction, target: masks.
        foreground: every annotated object of the frame. Without any, R is 1 for an empty answer, else 0.
        visa_compat: count each wrong pixel 255 times, as VISA and InstructSeg do by reading PNGs of 0 and 255.

    >>> target, answer = np.zeros((1, 2, 4), bool), np.zeros((1, 2, 4), bool)
    >>> target[:, 0], answer[:, :, 0] = True, True  # 4 pixels of foreground, 1 wrong
    >>> robustness(answer, target, target).round(3), robustness(answer, target, target, visa_compat=True)
    (array([0.75]), array([0.]))
    """
    wrong = (prediction & ~target).sum((1, 2)) * (PNG_WHITE if visa_compat else 1)
    return np.maximum(1 - wrong / (foreground.sum((1, 2)) + 1e-6), 0.0)


class VideoMetrics(Metric):
    """Measures over expressions of videos. The state is sums of each group, so subsets and processes add up exactly.

    `compute` returns fractions in [0, 1], NaN if there was nothing to measure: J, F, J&F and, if the protocol measures
    them, A and R; overall and, with several groups, for each group ("J referring").

    Args:
        protocol: a name of `video_protocols.VIDEO_PROTOCOLS`, or a `VideoProtocol`.
        visa_compat: A and R as VISA and InstructSeg publish them, off by the 255 of their PNGs.

    Raises:
        ValueError: no protocol has this name.

    >>> metrics = VideoMetrics(protocol="mevis")
    >>> clip = torch.eye(8, dtype=torch.bool)[None]
    >>> metrics.update(clip, clip)
    >>> metrics.report()
    {'samples': 1, 'J': 100.0, 'F': 100.0, 'J&F': 100.0}
    """

    full_state_update = False
    higher_is_better = True

    sums: Tensor
    counts: Tensor

    def __init__(self, protocol: str | VideoProtocol = "davis-expression", visa_compat: bool = False) -> None:
        super().__init__(compute_with_cache=False)  # merge_state would not clear the cache
        self.protocol = video_protocol_named(protocol) if isinstance(protocol, str) else protocol
        self.visa_compat = visa_compat
        self.names = ("J", "F", "A", "R") if self.protocol.robustness else ("J", "F")
        groups = len(self.protocol.groups)
        sums = torch.zeros(groups, len(self.names), dtype=torch.float64)
        self.add_state("sums", sums, dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(groups, dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self,
        prediction: Tensor,
        target: Tensor,
        *,
        group: int = 0,
        void: Tensor | None = None,
        foreground: Tensor | None = None,
    ) -> None:
        """Add one expression, or for a matched protocol one video with all its objects.

        Args:
            prediction: (T, H, W) bool; matched: (K, T, H, W) bool, disjoint, at most 20 answers.
            target: (T, H, W) bool; matched: (G, T, H, W) bool.
            group: number of the protocol's group: the type_id of ReVOS, the run of Ref-DAVIS17 from 0.
            void: (T, H, W) bool, pixels that are not counted.
            foreground: (T, H, W) bool, every annotated object, for R.

        Raises:
            ValueError: sizes, types or the group are wrong, or foreground is missing and R is measured.
        """
        _check(prediction, target, void, foreground, self.protocol)
        if self._is_left_out(group):
            return
        answer, truth = prediction.cpu().numpy(), target.cpu().numpy()
        left_out = None if void is None else void.cpu().numpy()
        if self.protocol.matched:
            scores = _matched(answer, truth, left_out)
        else:
            j, f = region_j(answer, truth, left_out), boundary_fs(answer, truth, left_out)
            scores = np.array([[j.mean()], [f.mean()]])
        if self.protocol.robustness and foreground is not None:
            r = robustness(answer, truth, foreground.cpu().numpy(), self.visa_compat).mean()
            scores = np.concatenate([scores, [[accuracy(answer, truth, self.visa_compat).mean()], [r]]])
        if self.protocol.rounded:
            scores = (100 * scores).round(2) / 100
        self.sums[group] += torch.from_numpy(scores.sum(1)).to(self.device)
        self.counts[group] += scores.shape[1]

    def compute(self) -> dict[str, Tensor]:
        """Fractions by name, as the class describes them."""
        means = self.sums / self.counts[:, None]
        overall = means[self.counts > 0].mean(0) if bool((self.counts > 0).any()) else means[0]
        result = self._named(overall, "")
        if len(self.protocol.groups) > 1:
            for name, values in zip(self.protocol.groups, means, strict=True):
                result |= self._named(values, f" {name}")
        return result

    def report(self) -> dict[str, float | None]:
        """`compute` in percent, two decimals, None if there was nothing to measure; and the number of samples."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about compute before update: None reports it
            percent = {name: 100 * float(value) for name, value in self.compute().items()}
        rounded = {name: None if math.isnan(value) else round(value, 2) for name, value in percent.items()}
        return {"samples": int(self.counts.sum()), **rounded}

    def _named(self, values: Tensor, suffix: str) -> dict[str, Tensor]:
        result = {f"{name}{suffix}": value for name, value in zip(self.names, values, strict=True)}
        return result | {f"J&F{suffix}": (values[0] + values[1]) / 2}

    def _is_left_out(self, group: int) -> bool:
        if group in self.protocol.left_out:
            return True
        if not 0 <= group < len(self.protocol.groups):
            names = ", ".join(f"{number} ({name})" for number, name in enumerate(self.protocol.groups))
            raise ValueError(f"protocol {self.protocol.name} has no group {group}; its groups are {names}")
        return False


def _matched(answers: np.ndarray, objects: np.ndarray, void: np.ndarray | None) -> np.ndarray:
    """J and F of every object with the answer assigned to it: (K, T, H, W) and (G, T, H, W) bool to (2, G) float64."""
    missing = max(len(objects) - len(answers), 0)
    answers = np.concatenate([answers, np.zeros((missing, *answers.shape[1:]), bool)])
    j, f = np.zeros((2, len(answers), len(objects)))
    for row, answer in enumerate(answers):
        for column, target in enumerate(objects):
            j[row, column] = region_j(answer, target, void).mean()
    for frame in range(answers.shape[1]):
        left_out = None if void is None else void[frame]
        predicted, true = ([outline(mask, left_out) for mask in masks[:, frame]] for masks in (answers, objects))
        f += [[outline_f(one, other) for other in true] for one in predicted] if true else 0.0
    return np.stack(match(j, f / answers.shape[1]))


def _check(
    prediction: Tensor, target: Tensor, void: Tensor | None, foreground: Tensor | None, rule: VideoProtocol
) -> None:
    dims = "(K, T, H, W)" if rule.matched else "(T, H, W)"
    for name, masks in {"prediction": prediction, "target": target}.items():
        if masks.ndim != (4 if rule.matched else 3) or masks.dtype != torch.bool:
            raise ValueError(f"{name} must be {dims} bool, got {tuple(masks.shape)} {masks.dtype}")
    size = tuple(target.shape[-3:])
    if size[0] == 0:
        raise ValueError("a video needs a frame to be scored, got none")
    for name, optional in {"prediction": prediction, "void": void, "foreground": foreground}.items():
        if optional is not None and (optional.dtype != torch.bool or tuple(optional.shape[-3:]) != size):
            raise ValueError(f"{name} must be bool with frames {size}, got {tuple(optional.shape)} {optional.dtype}")
    if rule.matched and len(prediction) > MOST_OBJECTS:
        raise ValueError(f"DAVIS takes at most {MOST_OBJECTS} answers a video, got {len(prediction)}")
    if rule.robustness and foreground is None:
        raise ValueError(f"protocol {rule.name} measures R and needs foreground: every annotated object of each frame")
