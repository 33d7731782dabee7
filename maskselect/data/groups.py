"""Data sets as training groups: one image with many prompts, so that frozen features are computed once per image."""

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskselect.backends.config_tree import Arguments
from maskselect.data.catalog import find_entry
from maskselect.data.images import image_size, load_image
from maskselect.data.sizes import refuse_other_size
from maskselect.data.subsets import HELD_OUT_SHARE, Part, chosen_samples
from maskselect.structures.groups import Annotated, Query
from maskselect.structures.needs import Need
from maskselect.structures.provenance import TrainingData


class DatasetGroups:
    """A `GroupSource` of any data set with questions about images; its samples are the prompts.

    Args:
        dataset: name in `maskselect.data.catalog`.
        root, split: see its reader.
        limit: number of first samples of these images to use; None for all.
        settings: further arguments of the reader.
        reasoning: all prompts are of the group `reasoning`, whatever their form, see `structures.groups.QuestionGroup`.
        part: "training" leaves out the images of "held_out", which validation takes where every published split is a
            test split; see `data.subsets`.
        held_out_share: share of the images that is held out.
        image_share: share of the images of the part to use.

    Raises:
        FileNotFoundError, ValueError: the reader does, or the part has no image.
    """

    def __init__(
        self,
        dataset: str,
        root: Path,
        split: str = "train",
        limit: int | None = None,
        settings: Mapping[str, Any] | None = None,
        reasoning: bool = False,
        part: Part = "all",
        held_out_share: float = HELD_OUT_SHARE,
        image_share: float = 1.0,
    ) -> None:
        self.dataset, self.reasoning = dataset, reasoning
        entry = find_entry(dataset)
        self.samples = entry.open(root, split, **(settings or {}))
        by_image: dict[str, list[int]] = {}
        images = self.samples.image_ids()
        subset = chosen_samples(images, part, held_out_share, image_share, numbered=bool(entry.pictures))
        for number in subset[:limit]:
            by_image.setdefault(images[number], []).append(number)
        if not by_image:
            raise ValueError(f"{dataset} {split} in {root} has no image in the part {part!r}; expected one or more")
        self.images = list(by_image)
        self._numbers = list(by_image.values())
        self._versions: dict[int, str] = {}

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The split. Raises ValueError for an unknown data set."""
        name, split = str(arguments["dataset"]), str(arguments.get("split", "train"))
        return find_entry(name).missing(name, Path(arguments["root"]), split, **(arguments.get("settings") or {}))

    @classmethod
    def training_data(cls, arguments: Arguments) -> list[TrainingData]:
        """The part of the split, without the pictures that its reader leaves out."""
        names = ("split", "limit", "part", "image_share")
        kept = {name: arguments[name] for name in names if arguments.get(name) is not None}
        if kept.get("part", "all") != "all":
            kept["held_out_share"] = arguments.get("held_out_share", HELD_OUT_SHARE)
        root = None if arguments.get("root") is None else str(arguments["root"])
        without = tuple((arguments.get("settings") or {}).get("without", ()))
        return [TrainingData(str(arguments["dataset"]), root=root, without=without, **kept)]

    def __len__(self) -> int:
        return len(self.images)

    def image_id(self, item: int) -> str:
        """Name of the data set and id of the image."""
        return f"{self.dataset}/{self.images[item]}"

    def prompts_of(self, item: int) -> int:
        """Number of samples on the image."""
        return len(self._numbers[item])

    def version(self, item: int) -> str:
        """A digest of the image's annotations and of the size of its file; computed once."""
        if item not in self._versions:
            image, masks, prompts = self._annotations(item)
            # The size of the file, or a checksum of the pixels, detects a changed image.
            state = image.stat().st_size if isinstance(image, Path) else zlib.crc32(image.tobytes())
            digest = hashlib.sha256(repr((tuple(masks.shape), state)).encode() + prompts)
            digest.update(np.packbits(masks.numpy()).tobytes())
            self._versions[item] = digest.hexdigest()[:16]
        return self._versions[item]

    def load(self, item: int) -> Annotated:
        """The image and all masks of its samples, each pool and each reference once.

        `extra["queries"]` has the prompts, with places of these masks, as JSON in (K,) uint8.
        """
        image, masks, prompts = self._annotations(item)
        extra = {"queries": torch.frombuffer(bytearray(prompts), dtype=torch.uint8)}
        return Annotated(load_image(image), masks, extra, image if isinstance(image, Path) else None)

    def _annotations(self, item: int) -> tuple[Path | np.ndarray, Tensor, bytes]:
        """The image, masks (M, H, W) bool, and the prompts with places of masks, as JSON.

        Raises:
            ValueError: masks have another size than the image.
            FileNotFoundError: the image does not exist.
        """
        samples = [self.samples[number] for number in self._numbers[item]]
        picture = samples[0].image
        size = image_size(picture) if isinstance(picture, Path) else (picture.shape[0], picture.shape[1])
        for sample in samples:
            refuse_other_size(sample, size)
        masks = _Stacks()
        prompts = []
        for sample in samples:
            pool = masks.add(sample.gt_pool)
            known = sample.reference_ids or (-1,) * len(sample.prompt.references)
            references = [
                pool + number if number >= 0 else masks.add(mask[None])
                for number, mask in zip(known, sample.prompt.references, strict=True)
            ]
            prompts.append([sample.prompt.text, references, [pool + target for target in sample.targets]])
        return samples[0].image, masks.joined(), json.dumps(prompts).encode()

    def queries(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[Query]:
        """A random choice of the image's samples."""
        prompts = json.loads(bytes(extra["queries"].numpy()))
        chosen = rng.permutation(len(prompts))[:count]
        return [
            Query(text, tuple(refs), tuple(targets), group="reasoning" if self.reasoning else None)
            for text, refs, targets in (prompts[n] for n in chosen)
        ]

    def caption(self, item: int, extra: dict[str, Tensor], rng: np.random.Generator) -> str:
        """Raises ValueError: samples have no captions."""
        raise ValueError(f"{self.dataset} has no captions; train stage 1 on scenes or LLaVA-Pretrain")


class _Stacks:
    """A list of mask stacks without duplicates."""

    def __init__(self) -> None:
        self._stacks: list[tuple[int, Tensor]] = []
        self._count = 0

    def add(self, stack: Tensor) -> int:
        """Add a stack, unless an equal one exists, and return the place of its first mask."""
        for start, known in self._stacks:
            if known is stack or (known.shape == stack.shape and torch.equal(known, stack)):
                return start
        self._stacks.append((self._count, stack))
        self._count += len(stack)
        return self._stacks[-1][0]

    def joined(self) -> Tensor:
        """(M, H, W) bool."""
        return torch.cat([stack for _, stack in self._stacks])
