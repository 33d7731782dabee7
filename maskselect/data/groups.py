"""Training groups: one image with many prompts, so that what is frozen or shared is computed once.

Two sources give them: generated scenes, whose prompts are drawn anew at every visit, and data sets, whose prompts are
fixed.
"""

import hashlib
import json
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from maskselect.data.catalog import find_entry
from maskselect.data.images import image_size, load_image
from maskselect.data.scenes.captions import draw_caption
from maskselect.data.scenes.facts import SceneFacts
from maskselect.data.scenes.layout import scene_ids
from maskselect.data.scenes.prompts import KIND_SHARES, draw_prompts
from maskselect.data.scenes.reasoning import draw_reasoning
from maskselect.data.scenes.render import render
from maskselect.data.scenes.stream import SceneDataset, drawing_hash
from maskselect.data.scenes.unknown import draw_unknown
from maskselect.data.sizes import refuse_other_size


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
        """Identity of an image, unique within the source; frozen features are kept under it and its version."""
        ...

    def version(self, item: int) -> str:
        """What `load` gives beside the identity: another string whenever masks, prompts or picture are others."""
        ...

    def prompts_of(self, item: int) -> int:
        """How many prompts an image has."""
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
        reasoning_share: about this share of an image's prompts are reasoning prompts, see `draw_reasoning`.
        unknown_share: about this share of an image's prompts say a word that the scenes never show, so that nothing
            answers them, see `draw_unknown`.

    Raises ValueError when a share of prompts is not within 0 to 1, or both together are above 1.
    """

    def __init__(
        self,
        split: str = "train",
        seed: int = 0,
        count: int = 8000,
        reference_share: float = 0.28,
        no_target_share: float = 0.12,
        kind_shares: dict[str, float] | None = None,
        reasoning_share: float = 0.0,
        unknown_share: float = 0.0,
    ) -> None:
        for name, share in (("reasoning_share", reasoning_share), ("unknown_share", unknown_share)):
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"{name} must be within 0 to 1, got {share}")
        if reasoning_share + unknown_share > 1.0:
            raise ValueError(
                f"reasoning_share and unknown_share are above 1 together: {reasoning_share}, {unknown_share}"
            )
        self.split = split
        self.reasoning_share, self.unknown_share = reasoning_share, unknown_share
        self.reference_share, self.no_target_share = reference_share, no_target_share
        self.kind_shares = KIND_SHARES if kind_shares is None else kind_shares
        self.ids = list(scene_ids(split, seed, count))
        self._drawing = drawing_hash()

    def __len__(self) -> int:
        return len(self.ids)

    def image_id(self, item: int) -> str:
        """The scene's id."""
        return self.ids[item]

    def version(self, item: int) -> str:
        """That of the drawing."""
        return self._drawing

    def prompts_of(self, item: int) -> int:
        """As many as are asked for."""
        return sys.maxsize

    def load(self, item: int) -> Annotated:
        """Draw a scene; its facts travel as extra tensors."""
        scene = SceneDataset.scene_of(self.ids[item])
        drawing = render(scene)
        facts = SceneFacts.measure(scene, drawing.index)
        extra = {name: torch.from_numpy(np.array(value)) for name, value in vars(facts).items()}
        return Annotated(drawing.image, torch.from_numpy(drawing.masks(len(scene.objects))), extra)

    def queries(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[Query]:
        """Fresh prompts by the facts."""
        facts, shares = _facts(extra), (self.reference_share, self.no_target_share)
        # A share of 0 draws nothing from `rng`: the same seed gives what it gave before there were such prompts.
        wanted = int(rng.binomial(count, self.reasoning_share)) if self.reasoning_share else 0
        drawn = [p.reasoning for p in draw_reasoning(facts, wanted, rng, self.split, *shares)] if wanted else []
        wanted = int(rng.binomial(count, self.unknown_share)) if self.unknown_share else 0
        wanted = min(wanted, count - len(drawn))
        drawn += draw_unknown(facts, wanted, rng, self.split, self.reference_share) if wanted else []
        rest = draw_prompts(facts, count - len(drawn), rng, self.split, *shares, self.kind_shares)
        return [Query(p.text, p.references, p.targets) for p in (*rest, *drawn)]

    def caption(self, item: int, extra: dict[str, Tensor], rng: np.random.Generator) -> str:
        """A fresh caption."""
        return draw_caption(_facts(extra), rng)


def _facts(extra: dict[str, Tensor]) -> SceneFacts:
    arrays = {name: value.numpy() for name, value in extra.items()}
    size = arrays.pop("image_size")
    return SceneFacts(image_size=(int(size[0]), int(size[1])), **arrays)


class DatasetGroups:
    """Any data set of the catalog: the prompts are its samples.

    Args:
        dataset: name in `maskselect.data.catalog`.
        root, split: see its reader.
        limit: only the first so many samples.
    """

    def __init__(self, dataset: str, root: Path, split: str = "train", limit: int | None = None) -> None:
        self.dataset = dataset
        self.samples = find_entry(dataset).open(root, split)
        by_image: dict[str, list[int]] = {}
        for number, image in enumerate(self.samples.image_ids()[:limit]):
            by_image.setdefault(image, []).append(number)
        self.images = list(by_image)
        self._numbers = list(by_image.values())
        self._versions: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.images)

    def image_id(self, item: int) -> str:
        """The data set's name and the image's."""
        return f"{self.dataset}/{self.images[item]}"

    def prompts_of(self, item: int) -> int:
        """Samples on the image."""
        return len(self._numbers[item])

    def version(self, item: int) -> str:
        """A digest of the annotations that are used of the image, and of the size of its file; read once."""
        if item not in self._versions:
            image, masks, asked = self._annotations(item)
            digest = hashlib.sha256(repr((tuple(masks.shape), _bytes_of(image))).encode() + asked)
            digest.update(np.packbits(masks.numpy()).tobytes())
            self._versions[item] = digest.hexdigest()[:16]
        return self._versions[item]

    def load(self, item: int) -> Annotated:
        """The image and all masks of its samples, each pool and each reference once.

        extra: "queries", the prompts as JSON in (K,) uint8, with numbers of these masks.
        """
        image, masks, asked = self._annotations(item)
        extra = {"queries": torch.frombuffer(bytearray(asked), dtype=torch.uint8)}
        return Annotated(load_image(image), masks, extra)

    def _annotations(self, item: int) -> tuple[Path | np.ndarray, Tensor, bytes]:
        """The picture, masks (M, H, W) bool, and the prompts with numbers of masks, as JSON.

        Raises ValueError, naming the picture, when masks are of another size; FileNotFoundError without the picture.
        """
        samples = [self.samples[number] for number in self._numbers[item]]
        picture = samples[0].image
        size = image_size(picture) if isinstance(picture, Path) else (picture.shape[0], picture.shape[1])
        for sample in samples:
            refuse_other_size(sample, size)
        masks = _Numbered()
        asked = []
        for sample in samples:
            pool = masks.add(sample.gt_pool)
            known = sample.reference_ids or (-1,) * len(sample.prompt.references)
            references = [
                pool + number if number >= 0 else masks.add(mask[None])
                for number, mask in zip(known, sample.prompt.references, strict=True)
            ]
            asked.append([sample.prompt.text, references, [pool + target for target in sample.targets]])
        return samples[0].image, masks.joined(), json.dumps(asked).encode()

    def queries(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[Query]:
        """A random choice of the image's samples."""
        asked = json.loads(bytes(extra["queries"].numpy()))
        chosen = rng.permutation(len(asked))[:count]
        return [Query(text, tuple(refs), tuple(targets)) for text, refs, targets in (asked[n] for n in chosen)]

    def caption(self, item: int, extra: dict[str, Tensor], rng: np.random.Generator) -> str:
        """Samples have no captions."""
        raise ValueError(f"{self.dataset} has no captions; train stage 1 on scenes or LLaVA-Pretrain")


def _bytes_of(image: Path | np.ndarray) -> int:
    """What tells a changed picture from the one before: the size of its file, or a checksum of its pixels."""
    return image.stat().st_size if isinstance(image, Path) else zlib.crc32(image.tobytes())


class _Numbered:
    """Stacks of masks behind each other; a stack that is there already is not added again."""

    def __init__(self) -> None:
        self._stacks: list[tuple[int, Tensor]] = []
        self._count = 0

    def add(self, stack: Tensor) -> int:
        """The number of the stack's first mask."""
        for start, known in self._stacks:
            if known.shape == stack.shape and torch.equal(known, stack):
                return start
        self._stacks.append((self._count, stack))
        self._count += len(stack)
        return self._stacks[-1][0]

    def joined(self) -> Tensor:
        """(M, H, W) bool."""
        return torch.cat([stack for _, stack in self._stacks])
