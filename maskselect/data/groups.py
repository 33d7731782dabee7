"""Training groups: one image with many prompts, so that what is frozen or shared is computed once.

Two sources give them: generated scenes, whose prompts are drawn anew at every visit, and any folder in MaskGroups-HQ's
format, whose prompts are fixed.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from maskselect.data.images import load_image
from maskselect.data.maskgroups import MaskGroupsDataset
from maskselect.data.scenes.captions import draw_caption
from maskselect.data.scenes.facts import SceneFacts
from maskselect.data.scenes.layout import scene_ids
from maskselect.data.scenes.prompts import KIND_SHARES, draw_prompts
from maskselect.data.scenes.render import render
from maskselect.data.scenes.stream import SceneDataset


@dataclass(frozen=True)
class Annotated:
    """An image and its annotated masks.

    image: (H, W, 3) uint8.  masks: (M, H, W) bool; queries speak of them by number.
    extra: tensors that the source wants to find again when it is asked for queries.
    """

    image: np.ndarray
    masks: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Query:
    """One prompt. references, targets: numbers of annotated masks."""

    text: str
    references: tuple[int, ...]
    targets: tuple[int, ...]


class GroupSource(Protocol):
    """Images with prompts."""

    def __len__(self) -> int: ...

    def image_id(self, item: int) -> str:
        """Identity of an image, unique within the source; frozen features are kept under it."""
        ...

    def load(self, item: int) -> Annotated:
        """Image and annotated masks."""
        ...

    def queries(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[Query]:
        """At most `count` prompts."""
        ...

    def caption(self, item: int, extra: dict[str, Tensor], rng: np.random.Generator) -> str:
        """A caption of the image, for stage 1. Raises ValueError where the source has none."""
        ...


class SceneGroups:
    """Generated scenes with fresh prompts at every visit.

    Args:
        split: of the scenes.
        seed, count: which of them.
        reference_share, no_target_share, kind_shares: which prompts, see `draw_prompts`; the defaults are those of the
            test splits.
    """

    def __init__(
        self,
        split: str = "train",
        seed: int = 0,
        count: int = 8000,
        reference_share: float = 0.28,
        no_target_share: float = 0.12,
        kind_shares: dict[str, float] | None = None,
    ) -> None:
        self.split = split
        self.reference_share, self.no_target_share = reference_share, no_target_share
        self.kind_shares = KIND_SHARES if kind_shares is None else kind_shares
        self.ids = list(scene_ids(split, seed, count))

    def __len__(self) -> int:
        return len(self.ids)

    def image_id(self, item: int) -> str:
        """The scene's id."""
        return self.ids[item]

    def load(self, item: int) -> Annotated:
        """Draw a scene; its facts travel as extra tensors."""
        scene = SceneDataset.scene_of(self.ids[item])
        drawing = render(scene)
        facts = SceneFacts.measure(scene, drawing.index)
        extra = {name: torch.from_numpy(np.array(value)) for name, value in vars(facts).items()}
        return Annotated(drawing.image, torch.from_numpy(drawing.masks(len(scene.objects))), extra)

    def queries(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[Query]:
        """Fresh prompts by the facts."""
        shares = (self.reference_share, self.no_target_share, self.kind_shares)
        drawn = draw_prompts(_facts(extra), count, rng, self.split, *shares)
        return [Query(p.text, p.references, p.targets) for p in drawn]

    def caption(self, item: int, extra: dict[str, Tensor], rng: np.random.Generator) -> str:
        """A fresh caption."""
        return draw_caption(_facts(extra), rng)


def _facts(extra: dict[str, Tensor]) -> SceneFacts:
    arrays = {name: value.numpy() for name, value in extra.items()}
    size = arrays.pop("image_size")
    return SceneFacts(image_size=(int(size[0]), int(size[1])), **arrays)


class MaskGroupsGroups:
    """A folder in MaskGroups-HQ's format.

    Args:
        root, split, reference_column: see `MaskGroupsDataset`.
        limit: at most so many samples.
    """

    def __init__(
        self, root: Path, split: str = "train", reference_column: str = "mask_refs", limit: int | None = None
    ) -> None:
        self.samples = MaskGroupsDataset(root, split, reference_column=reference_column, limit=limit)
        self.by_image: dict[str, list[int]] = {}
        for number, image in enumerate(self.samples.image_ids()):
            self.by_image.setdefault(image, []).append(number)
        self.images = list(self.by_image)

    def __len__(self) -> int:
        return len(self.images)

    def image_id(self, item: int) -> str:
        """The file name."""
        return self.images[item]

    def load(self, item: int) -> Annotated:
        """The image, and the annotated masks and reference masks of all its samples, one after another.

        extra: "spans" (S, 3) int64, for each sample where its masks start, where its references start and end.
        """
        samples = [self.samples[n] for n in self.by_image[self.images[item]]]
        masks, spans, start = [], [], 0
        for sample in samples:
            masks += [sample.gt_pool, sample.prompt.references]
            middle = start + len(sample.gt_pool)
            spans.append((start, middle, middle + len(sample.prompt.references)))
            start = spans[-1][2]
        return Annotated(load_image(samples[0].image), torch.cat(masks), {"spans": torch.tensor(spans)})

    def queries(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[Query]:
        """A random choice of the image's samples."""
        numbers = self.by_image[self.images[item]]
        found = []
        for place in rng.permutation(len(numbers))[:count]:
            text, targets = self.samples.question(numbers[place])
            start, middle, end = (int(v) for v in extra["spans"][place])
            found.append(Query(text, tuple(range(middle, end)), tuple(start + t for t in targets)))
        return found

    def caption(self, item: int, extra: dict[str, Tensor], rng: np.random.Generator) -> str:
        """MaskGroups-HQ has no captions."""
        raise ValueError("MaskGroups-HQ has no captions; train stage 1 on scenes or LLaVA-Pretrain")
