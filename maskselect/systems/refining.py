"""Loads refiners by name or config, and applies a refiner to the answer of any system."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskselect.backends.building import build, on_device
from maskselect.ops.masks import not_empty, resize_nearest
from maskselect.ops.pooling import cell_weights, mask_pool
from maskselect.proposers.loading import CONFIGS, read_config
from maskselect.proposers.sam import SamProposer
from maskselect.proposers.snapping import SnappingProposer
from maskselect.refiners.crf import CrfRefiner
from maskselect.refiners.sam import IterativeSamRefiner, SamRefiner
from maskselect.refiners.snapping import SnappingRefiner
from maskselect.structures.answer import Answer
from maskselect.structures.clip import Clip, ClipMasks
from maskselect.structures.masks import OF_PROMPT, MaskSet
from maskselect.structures.protocols import Proposer
from maskselect.structures.refiner import CoverageRefiner, Refiner

REFINERS = ("sam", "samrefiner", "crf", "snap")
"""Names that `load_refiner` takes."""


def load_refiner(name_or_config: str | Path, device: str = "cpu", proposer: Proposer | None = None) -> Refiner:
    """Load a refiner by name, with its default settings, or by config.

    A refiner with a config is named by its class, the file and a digest of its settings, such as `crf-wide-1a2b3c`, so
    that reports tell apart refiners of one class.

    Args:
        name_or_config: one of `REFINERS`, or a YAML or JSON file with class_path and init_args.
        device: auto, cpu or cuda; overrides the device of a config.
        proposer: the proposer of "snap" for answers without a pool; None for the compact SAM.

    Raises:
        FileNotFoundError: the config or the weights do not exist.
        ValueError: the refiner is unknown, or its config or weights are invalid.
    """
    check_refiner(name_or_config)
    if Path(name_or_config).suffix in CONFIGS:
        refiner = build(on_device(read_config(Path(name_or_config), "refiner"), device))
        if not isinstance(refiner, Refiner):
            raise ValueError(
                f"refiner config {name_or_config} describes a {type(refiner).__name__}; expected a refiner"
            )
        refiner.name = f"{refiner.name}-{Path(name_or_config).stem}-{refiner.cache_key()[:6]}"
        return refiner
    match str(name_or_config):
        case "sam":
            return SamRefiner(device=device)
        case "samrefiner":
            return IterativeSamRefiner(device=device)
        case "crf":
            return CrfRefiner(device=device)
    return SnappingRefiner(default_proposer(device) if proposer is None else proposer)


def check_refiner(name_or_config: str | Path) -> None:
    """Check the name or config of a refiner; loads no weights.

    Raises:
        FileNotFoundError: the config does not exist.
        ValueError: the refiner is unknown, or its config is invalid.
    """
    if Path(name_or_config).suffix in CONFIGS:
        read_config(Path(name_or_config), "refiner")
    elif str(name_or_config) not in REFINERS:
        known = ", ".join(REFINERS)
        raise ValueError(f"refiner {str(name_or_config)!r} is unknown; expected {known} or a YAML file with class_path")


def default_proposer(device: str) -> Proposer:
    """The proposer of the snapping refiner for systems without one: the compact SAM, with outlines by GrabCut."""
    return SnappingProposer(SamProposer(device=device))


def refine_answer(refiner: Refiner, visual: np.ndarray | Clip, answer: Answer) -> Answer:
    """Refine the masks of an answer.

    Scores and order do not change. A `CoverageRefiner` may add masks to an answer with coverage; their scores are the
    mean coverage, at most that of the answer's last mask. A mask that the refiner would empty is kept, because the
    system selected it.

    Args:
        refiner: the refiner; it gets the pool of the answer as proposals, unless the system drew it for this prompt.
        visual: the image (H, W, 3) uint8 or clip that the system read. Frames with masks are decoded again.
        answer: its masks may have any size.

    Returns:
        The answer with masks at the size of the image, or of the frames of the clip.
    """
    if isinstance(visual, np.ndarray):
        assert isinstance(answer.masks, Tensor)
        masks = answer.masks.cpu()
        proposals = None if answer.pool is None or OF_PROMPT in answer.pool.source else answer.pool
        if answer.coverage is None or answer.labels or not len(masks) or not isinstance(refiner, CoverageRefiner):
            return replace(answer, masks=_refined(refiner, visual, masks, proposals))
        found = refiner.refine_covered(visual, masks, answer.coverage, proposals)
        kept, added = _not_emptied(visual, masks, found[: len(masks)]), found[len(masks) :]
        cells = cell_weights(added, (answer.coverage.shape[0], answer.coverage.shape[1]))
        scores = mask_pool(answer.coverage[None], cells)[:, 0].clamp(max=float(answer.scores[-1]))
        order = scores.argsort(descending=True, stable=True)
        both = torch.cat([kept, added[order]]), torch.cat([answer.scores, scores[order].to(answer.scores)])
        return replace(answer, masks=both[0], scores=both[1])
    assert isinstance(answer.masks, ClipMasks)
    out = ClipMasks(len(visual), visual.size)
    for _ in range(len(answer.masks)):
        out.add()
    for frame in range(len(visual)):
        present = [(n, m) for n in range(len(answer.masks)) if (m := answer.masks.get(n, frame)) is not None]
        if present:
            masks = torch.from_numpy(np.stack([mask for _, mask in present]))
            for (number, _), mask in zip(present, _refined(refiner, visual[frame], masks, None), strict=True):
                out.put(number, frame, mask, answer.masks.score(number, frame))
    return replace(answer, masks=out)


def _refined(refiner: Refiner, image: np.ndarray, masks: Tensor, proposals: MaskSet | None) -> Tensor:
    """Refine masks, (M, h, w) to (M, H, W) bool; a mask that would become empty is resized instead."""
    return _not_emptied(image, masks, refiner.refine(image, masks, proposals))


def _not_emptied(image: np.ndarray, masks: Tensor, refined: Tensor) -> Tensor:
    """Refined masks, or the masks before where refinement leaves nothing."""
    lost = not_empty(masks) & ~not_empty(refined)
    if not lost.any():
        return refined
    return torch.where(lost[:, None, None], resize_nearest(masks, (image.shape[0], image.shape[1])), refined)
