"""`ClassGroups`: semantic and panoptic data sets as questions about several classes at once (Text4Seg, COCO-Stuff).

The recipe is the one of the released code: square crops, two rounds of questions, and three kinds of questions. What it
leaves open is stated at the arguments.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskselect.backends.config_tree import Arguments
from maskselect.data.catalog import find_entry
from maskselect.data.images import load_image
from maskselect.recipes.text4seg.names import COCO_STUFF_NAMES
from maskselect.structures.groups import Annotated, Query, QuestionGroup
from maskselect.structures.needs import Need
from maskselect.structures.provenance import TrainingData

CLASSES: Mapping[str, Mapping[str, Any]] = {
    "coco-stuff": {"every_class": True},
    "coco-panoptic": {},
    "ade20k": {},
    "mapillary": {},
}
"""Data sets whose samples are the classes of an image, each with further arguments of its reader."""

GROUPS: tuple[QuestionGroup, ...] = ("all", "partial", "condition")
EVERYTHING = "everything"
"""The prompt of a question that names no class."""
_TRIES = 8


class ClassGroups:
    """A `GroupSource` of questions about the classes of an image, with the classes as labels.

    An item is an image, or a crop of it, in one pass. Its questions are of three kinds:

    - `all`: every class is a target. It is labelled with a random synonym with probability `renamed`, else with its
      first name.
    - `partial`: a random subset of the classes that are present, named in the prompt.
    - `condition`: a list of classes in random order: a random subset of those present, the word "others" with
      probability `with_others`, and classes that are absent with probability `with_absent`.

    After a first question `all` the second one is always `condition`. Subsets have at least one class, and their size,
    like the number of absent classes, is drawn uniformly; the paper does not state this.

    Args:
        dataset: one of `CLASSES`.
        root, split: see its reader.
        crops: sides of square crops in pixels, of which one that fits is drawn for each item; an image that is too
            small for all is cropped to its shorter side. () takes whole images. A crop with a single label is drawn
            again up to 8 times; the released code leaves it out.
        passes: number of passes over the images, each with its own crops.
        rounds: questions of an item.
        shares: probabilities of `all`, `partial` and `condition`.
        renamed, with_others, with_absent: see above.
        seed: of the crops.

    Raises:
        ValueError: for an argument out of range.
    """

    def __init__(
        self,
        dataset: str,
        root: Path,
        split: str = "train2017",
        crops: Sequence[int] = (),
        passes: int = 1,
        rounds: int = 2,
        shares: Sequence[float] = (0.1, 0.3, 0.6),
        renamed: float = 0.8,
        with_others: float = 0.5,
        with_absent: float = 0.9,
        seed: int = 0,
    ) -> None:
        if dataset not in CLASSES:
            raise ValueError(f"data set {dataset!r} has no classes; expected one of {', '.join(CLASSES)}")
        if passes < 1 or rounds < 1 or any(side < 1 for side in crops):
            raise ValueError(f"passes {passes}, rounds {rounds} and crops {list(crops)}; expected numbers from 1")
        if len(shares) != len(GROUPS) or min(shares) < 0 or not 0 < sum(shares) < float("inf"):
            raise ValueError(f"shares are {list(shares)}; expected those of {', '.join(GROUPS)}, such as 0.1, 0.3, 0.6")
        self.dataset, self.crops, self.passes, self.rounds, self.seed = dataset, tuple(crops), passes, rounds, seed
        self.shares = np.array(shares, np.float64) / sum(shares)
        self.renamed, self.with_others, self.with_absent = renamed, with_others, with_absent
        self.samples: Any = find_entry(dataset).open(Path(root), split, **CLASSES[dataset])
        by_image: dict[str, list[int]] = {}
        for number, image in enumerate(self.samples.image_ids()):
            by_image.setdefault(image, []).append(number)
        self.images = list(by_image)
        self._numbers = list(by_image.values())
        self.vocabulary = self._vocabulary()

    def _vocabulary(self) -> list[str]:
        """First name of every class of the data set."""
        if self.dataset == "coco-stuff":
            return [names[0] for names in COCO_STUFF_NAMES.values()]
        void = getattr(self.samples, "void", ())
        return list(dict.fromkeys(name for key, name in self.samples.names.items() if key not in void))

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The split. Raises ValueError for an unknown data set."""
        name, split = str(arguments["dataset"]), str(arguments.get("split", "train2017"))
        return find_entry(name).missing(name, Path(arguments["root"]), split)

    @classmethod
    def training_data(cls, arguments: Arguments) -> list[TrainingData]:
        """The split."""
        root = None if arguments.get("root") is None else str(arguments["root"])
        return [TrainingData(str(arguments["dataset"]), str(arguments.get("split", "train2017")), root=root)]

    def __len__(self) -> int:
        return len(self.images) * self.passes

    def image_id(self, item: int) -> str:
        """Name of the data set and id of the image; of a crop also the pass."""
        crop, place = divmod(item, len(self.images))
        return f"{self.dataset}/{self.images[place]}" + (f"@{crop}" if self.crops else "")

    def version(self, item: int) -> str:
        """A digest of the picture and its masks."""
        annotated = self.load(item)
        digest = hashlib.sha256(annotated.image.tobytes() + bytes(annotated.extra["classes"].numpy()))
        digest.update(np.packbits(annotated.masks.numpy()).tobytes())
        return digest.hexdigest()[:16]

    def prompts_of(self, item: int) -> int:
        """Number of questions."""
        return self.rounds

    def load(self, item: int) -> Annotated:
        """The image or crop, and the masks in it.

        `extra["classes"]` has the classes, each with its name and the places of its masks, as JSON in (K,) uint8.

        Raises:
            ValueError: the annotations are damaged, or no crop with two labels was found.
            FileNotFoundError: the image does not exist.
        """
        samples = [self.samples[number] for number in self._numbers[item % len(self.images)]]
        file, masks = samples[0].image, samples[0].gt_pool
        image = load_image(file)
        if image.shape[:2] != masks.shape[1:]:
            size = list(image.shape[:2])
            raise ValueError(f"masks are of size {list(masks.shape[1:])}, their image {file} of {size}")
        if self.crops:
            rows, columns = self._crop(masks, np.random.default_rng((self.seed, item)))
            image, masks, file = np.ascontiguousarray(image[rows, columns]), masks[:, rows, columns], None
        seen = masks.flatten(1).any(1).tolist()
        kept = {place: number for number, place in enumerate(place for place, one in enumerate(seen) if one)}
        found = [[sample.prompt.text, [kept[place] for place in sample.targets if seen[place]]] for sample in samples]
        if not any(places for _, places in found):
            raise ValueError(f"image {self.image_id(item)} has no class with a mask")
        classes = json.dumps([[name, places] for name, places in found if places]).encode()
        extra = {"classes": torch.frombuffer(bytearray(classes), dtype=torch.uint8)}
        return Annotated(image, masks[list(kept)], extra, file)

    def _crop(self, masks: Tensor, rng: np.random.Generator) -> tuple[slice, slice]:
        """Rows and columns of a random square with two labels, where `others` is a label too."""
        height, width = masks.shape[1:]
        shorter = min(height, width)
        fitting = [side for side in self.crops if side <= shorter] or [shorter]
        for _ in range(_TRIES):
            side = fitting[int(rng.integers(len(fitting)))]
            top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
            rows, columns = slice(top, top + side), slice(left, left + side)
            inside = masks[:, rows, columns]
            labels = int(inside.flatten(1).any(1).sum()) + int(not bool(inside.any(0).all()))
            if labels > 1:
                return rows, columns
        raise ValueError(f"none of {_TRIES} crops has two labels")

    def queries(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[Query]:
        """At most `count` of the item's questions, drawn anew."""
        classes = json.loads(bytes(extra["classes"].numpy()))
        queries: list[Query] = []
        while classes and len(queries) < min(count, self.rounds):
            group = GROUPS[int(rng.choice(len(GROUPS), p=self.shares))]
            if queries and queries[-1].group == "all":
                group = "condition"
            queries.append(self._query(classes, group, rng))
        return queries

    def _query(self, classes: list[tuple[str, list[int]]], group: QuestionGroup, rng: np.random.Generator) -> Query:
        chosen = classes
        if group != "all":
            order = rng.permutation(len(classes))[: int(rng.integers(1, len(classes) + 1))]
            chosen = [classes[place] for place in order]
        names = [self._name(name, rng if group == "all" else None) for name, _ in chosen]
        targets = tuple(place for _, places in chosen for place in places)
        labels = tuple(name for name, (_, places) in zip(names, chosen, strict=True) for _ in places)
        if group == "all":
            return Query(EVERYTHING, (), targets, labels=labels, group=group)
        if group == "condition":
            names = self._listed(names, {self._name(name, None) for name, _ in classes}, rng)
        return Query("|".join(names), (), targets, labels=labels, group=group)

    def _name(self, name: str, rng: np.random.Generator | None) -> str:
        """The first name of a class, or with `rng` at times a synonym."""
        names = COCO_STUFF_NAMES.get(name, (name,)) if self.dataset == "coco-stuff" else (name,)
        if rng is None or rng.random() >= self.renamed:
            return names[0]
        return names[int(rng.integers(len(names)))]

    def _listed(self, names: list[str], present: set[str], rng: np.random.Generator) -> list[str]:
        """The class list of a `condition` question."""
        listed = list(names)
        if rng.random() < self.with_others:
            listed.append("others")
        absent = [name for name in self.vocabulary if name not in present]
        if absent and rng.random() < self.with_absent:
            number = int(rng.integers(1, len(absent) + 1))
            listed += [absent[place] for place in rng.permutation(len(absent))[:number]]
        return [listed[place] for place in rng.permutation(len(listed))]

    def caption(self, item: int, extra: dict[str, Tensor], rng: np.random.Generator) -> str:
        """Raises ValueError: there are no captions."""
        raise ValueError(f"{self.dataset} has no captions; train stage 1 on scenes or LLaVA-Pretrain")
