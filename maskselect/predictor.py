"""The Python call: `maskselect.load("ras").select(image, "mugs left of <mask-ref>", references=[mask])`.

A person's types come in (paths, PIL images, arrays, boxes, points) and a `MaskGroup` at the image's own size comes out.
Inside, everything happens on a working image whose longer side is bounded, so memory does not grow with the picture.

Shape letters: H W the image's own pixels, h w the working image's, N candidates, R references.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from maskselect.backends import checkpoints
from maskselect.backends.devices import pick_device
from maskselect.data.images import load_image
from maskselect.lmm.lora import merge_adapters
from maskselect.ops.masks import not_empty, resize_nearest
from maskselect.ops.overlap import mask_nms
from maskselect.proposers.kept import KeptProposer
from maskselect.structures.features import FeatureMap
from maskselect.structures.masks import MaskSet
from maskselect.structures.prediction import MaskGroup
from maskselect.structures.protocols import CandidateSystem, PromptableProposer
from maskselect.structures.references import BoxRef, MaskRef, PointRef
from maskselect.structures.sample import Prompt
from maskselect.systems.fetching import fetch_checkpoint
from maskselect.systems.loading import load_system

ImageLike = str | Path | Image.Image | np.ndarray
Reference = np.ndarray | Tensor | BoxRef | PointRef | MaskRef

Drawer = Callable[[MaskGroup], Image.Image]

WORKING_SIDE = 1024
"""Longer side, in pixels, of the working image; a larger picture is scaled down to it."""


@dataclass(frozen=True)
class _Seen:
    """An image and its candidates, ready for prompts.

    proposed: the proposer's own; candidates: with extra ones.  maps: what the encoders saw of the working image.
    """

    image: np.ndarray
    working: np.ndarray
    proposed: MaskSet
    candidates: MaskSet
    maps: list[FeatureMap]
    read: Any


class Model:
    """A loaded system that answers prompts. It remembers the last image it read, so asking again costs only the prompt.

    Args:
        system: the system.
        threshold: score from which a candidate is in the group; chosen on validation data and stored in the card.
        name: what reports call it.
        drawer: draws a group; what `MaskGroup.overlay` uses.
        fingerprint: digest of the weights and their card, "" where there are none; results are kept under it.
        trained_on: the training source as the card holds it, None where it is not known.
    """

    def __init__(
        self,
        system: CandidateSystem,
        threshold: float = 0.5,
        name: str = "model",
        drawer: Drawer | None = None,
        fingerprint: str = "",
        trained_on: dict[str, Any] | None = None,
    ) -> None:
        cast(nn.Module, system).eval()
        self.system = system
        self.proposer = system.proposer
        self.fingerprint, self.trained_on = fingerprint, trained_on
        self.drawer = drawer
        self.threshold = threshold
        self.name = name
        self._last: tuple[str, _Seen] | None = None

    def select(
        self,
        image: ImageLike,
        prompt: str,
        references: Sequence[Reference] | None = None,
        threshold: float | None = None,
    ) -> MaskGroup:
        """The group of masks that answers one prompt.

        image: file, PIL image, or (H, W, 3) uint8.
        references: for each `<mask-ref>` in the prompt a mask (H, W) bool, a `BoxRef` or a `PointRef`.
        threshold: overrides the checkpoint's, in [0, 1].

        Raises FileNotFoundError or ValueError with one sentence for an image, prompt or reference that cannot be used.
        """
        return self.select_many(image, [prompt], [list(references or [])], threshold)[0]

    def select_many(
        self,
        image: ImageLike,
        prompts: Sequence[str],
        references: Sequence[Sequence[Reference]] | None = None,
        threshold: float | None = None,
        extra_candidates: np.ndarray | None = None,
    ) -> list[MaskGroup]:
        """One group for each prompt; the image is proposed, encoded and read once.

        references: for each prompt its references. extra_candidates: (K, H, W) bool, joined to the proposed ones.
        """
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be between 0 and 1, got {threshold}")
        asked = [list(r) for r in references] if references is not None else [[] for _ in prompts]
        if len(asked) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts need as many lists of references, got {len(asked)}")
        if not prompts:
            return []
        pixels = load_image(image)
        working = _scaled(pixels, WORKING_SIDE)
        masks = [self._reference_masks(r, pixels, working) for r in asked]
        texts = [Prompt(text, own) for text, own in zip(prompts, masks, strict=True)]
        seen = self._see(pixels, working, extra_candidates)
        cut = self.threshold if threshold is None else threshold
        scores, chosen = self._answer(seen, texts, cut)
        rows = zip(texts, scores, chosen, strict=True)
        return [self._group(seen, text, own, group, cut) for text, own, group in rows]

    def keep_candidates(self, folder: str | Path) -> None:
        """From now on, candidates of a picture are kept in a folder, and read from there if its proposer made them."""
        self.proposer = KeptProposer(self.system.proposer, folder)

    def candidates(self, image: ImageLike) -> MaskSet:
        """The proposer's candidates at the working size (the image's own up to 1024 px)."""
        working = _scaled(load_image(image), WORKING_SIDE)
        if self._last is not None and np.array_equal(self._last[1].working, working):
            return self._last[1].proposed
        return self.proposer.propose(working)

    def _see(self, pixels: np.ndarray, working: np.ndarray, extra: np.ndarray | None) -> _Seen:
        """What `_look` gives, remembered for the last image."""
        digest = hashlib.sha256(pixels.tobytes())
        digest.update(repr(pixels.shape).encode())
        if extra is not None:
            digest.update(extra.tobytes())
        key = digest.hexdigest()
        if self._last is None or self._last[0] != key:
            self._last = (key, self._look(pixels, working, extra))
        return self._last[1]

    @torch.inference_mode()
    def _look(self, pixels: np.ndarray, working: np.ndarray, extra: np.ndarray | None) -> _Seen:
        proposed = found = self.proposer.propose(working)
        if extra is not None and len(extra):
            more = resize_nearest(torch.as_tensor(extra, dtype=torch.bool), found.image_size)
            found = found.concat(MaskSet(more, torch.ones(len(more)), "extra"))
        maps = self.system.encode(working) if len(found) else []
        read = self.system.read(working, self.system.pool_features(maps, found)) if len(found) else None
        return _Seen(pixels, working, proposed, found, maps, read)

    @torch.inference_mode()
    def _answer(self, seen: _Seen, prompts: list[Prompt], threshold: float) -> tuple[Tensor, Tensor]:
        """Scores (P, N) and groups (P, N) bool."""
        if seen.read is None:
            return torch.zeros(len(prompts), 0), torch.zeros(len(prompts), 0, dtype=torch.bool)
        pooled = [self.system.pool_features(seen.maps, prompt.references) for prompt in prompts]
        return self.system.answer(seen.read, [p.text for p in prompts], pooled, threshold)

    def _group(self, seen: _Seen, prompt: Prompt, scores: Tensor, group: Tensor, threshold: float) -> MaskGroup:
        held = not_empty(seen.candidates.masks).cpu()
        chosen = (group & held).nonzero()[:, 0]
        chosen = chosen[torch.sort(scores[chosen], descending=True, stable=True).indices]
        if self.system.duplicates_iou is not None and len(chosen):
            chosen = chosen[mask_nms(seen.candidates.masks[chosen], scores[chosen], self.system.duplicates_iou)]
        return MaskGroup(
            image=seen.image,
            prompt=prompt.text,
            masks=_enlarged(seen.candidates.masks[chosen], seen.image.shape[:2]),
            scores=scores[chosen].numpy(),
            candidates=len(seen.candidates),
            threshold=threshold,
            references=_enlarged(prompt.references, seen.image.shape[:2]),
            candidate_scores=scores.numpy(),
            drawer=self.drawer,
        )

    def _reference_masks(self, references: list[Reference], pixels: np.ndarray, working: np.ndarray) -> Tensor:
        size = (working.shape[0], working.shape[1])
        masks = [self._reference_mask(r, (pixels.shape[0], pixels.shape[1]), working) for r in references]
        return resize_nearest(torch.cat(masks), size) if masks else torch.zeros(0, *size, dtype=torch.bool)

    def _reference_mask(self, reference: Reference, size: tuple[int, int], working: np.ndarray) -> Tensor:
        if not isinstance(reference, BoxRef | PointRef | MaskRef):
            reference = MaskRef(np.asarray(reference).astype(bool))
        reference.check(size)
        if isinstance(reference, MaskRef):
            return resize_nearest(torch.from_numpy(reference.mask)[None], (working.shape[0], working.shape[1]))
        proposer = self.proposer
        if not isinstance(proposer, PromptableProposer):
            raise ValueError("this model's proposer cannot turn a box or point into a mask; give a mask instead")
        across, down = working.shape[1] / size[1], working.shape[0] / size[0]
        if isinstance(reference, BoxRef):
            x0, y0, x1, y1 = reference.box_xyxy
            found = proposer.segment_box(working, (x0 * across, y0 * down, x1 * across, y1 * down))
        else:
            x, y = reference.point_xy
            found = proposer.segment_point(working, (x * across, y * down))
        return found.bool().cpu()[None]


def load(name_or_path: str | Path, device: str = "auto", drawer: Drawer | None = None) -> Model:
    """Load a model: the name of a shipped checkpoint, a file, a folder, or `hf://org/name`, perhaps with `@revision`.

    device: "auto", "cpu" or "cuda".  drawer: what `MaskGroup.overlay` uses; `maskselect.load` passes ours.

    Raises FileNotFoundError when there is no such checkpoint or the hub does not give it, ValueError when it is
    damaged, holds another kind of thing, or the device is not there.
    """
    if str(name_or_path).startswith("hf://"):
        name_or_path = fetch_checkpoint(str(name_or_path))
    system, card = load_system(name_or_path, pick_device(device))
    merge_adapters(cast(nn.Module, system))
    if system.stage == 1:
        raise ValueError(f"checkpoint {name_or_path} is of stage 1, which captions; expected one of stage 2, as ras is")
    file = checkpoints.find_checkpoint(name_or_path)
    name = str(card.get("name", Path(name_or_path).stem))
    source = card.get("data", {}).get("init_args", {}).get("train")
    return Model(system, float(card.get("threshold", 0.5)), name, drawer, fingerprint(file), source)


def fingerprint(file: Path) -> str:
    """Digest of a checkpoint, weights and card: with another threshold it answers otherwise."""
    with file.open("rb") as weights:
        digest = hashlib.file_digest(weights, "sha256")
    digest.update(file.with_suffix(".json").read_bytes())
    return digest.hexdigest()


def _scaled(image: np.ndarray, longest: int) -> np.ndarray:
    height, width = image.shape[:2]
    factor = longest / max(height, width)
    if factor >= 1:
        return image
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _enlarged(masks: Tensor, size: tuple[int, ...]) -> np.ndarray:
    """(N, h, w) bool to (N, H, W) bool; edges are interpolated, so a large picture gets no stairs."""
    height, width = size[0], size[1]
    if masks.shape[-2:] == (height, width):
        return masks.cpu().numpy()
    out = np.zeros((len(masks), height, width), bool)
    for number, mask in enumerate(masks.cpu().numpy().astype(np.uint8) * 255):
        out[number] = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR) >= 128
    return out
