"""`PhotoGroups`: annotated photographs in COCO's format with new prompts at every visit.

The file is that of `shared/data/photos` (its README): one vocabulary of categories, a source for each image, and for
each source `annotated_categories`, the only ones of which the absence of a mask means absence of the object. A plain
COCO file without sources is read as one whose categories are all annotated.

Kinds of prompts: `category`, `broader`, `position`, `size`, `pair`, `relation`, `same kind` and `no target`. The
groups by position and side are those of MaskGroups-2M.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_masks
from torch import Tensor

from maskselect.backends.config_tree import Arguments
from maskselect.data.images import load_image
from maskselect.recipes.maskgroups_2m.groups import SIDES, GroupPrompt, beside_reference, by_position
from maskselect.recipes.maskgroups_2m.templates import BESIDE
from maskselect.recipes.photos.words import BROADER, plural, with_article, words_of
from maskselect.structures.groups import Annotated, Query
from maskselect.structures.needs import Need
from maskselect.structures.provenance import TrainingData

KIND_SHARES: Mapping[str, float] = {
    "category": 0.34,
    "broader": 0.06,
    "position": 0.1,
    "size": 0.06,
    "pair": 0.06,
    "relation": 0.14,
    "same kind": 0.12,
    "no target": 0.12,
}
"""Expected shares of the kinds. A kind that an image has no prompt of gives its share to `category`."""

_LEAD = 1.5  # least ratio of areas between the largest object, or the smallest, and the next one
_MOST_TRIES = 4

_SINGLE = ("{name}", "the {name}", "find the {name}", "{one}", "{name} in the picture")
_ALL = ("{plural}", "all {plural}", "the {plural}", "every {name}", "each {name} in the picture", "{name}")
_OTHERS = (
    "the other {plural} like <mask-ref>",
    "everything of the same kind as <mask-ref>, without it",
    "all other {plural} than <mask-ref>",
)
_WITH_ITSELF = ("<mask-ref> and everything of its kind", "all objects of the same kind as <mask-ref>, itself included")


@dataclass(frozen=True)
class Photo:
    """What is annotated on a photograph.

    Attributes:
        file: the picture.
        size: (H, W).
        source: name of its source; "" without sources.
        codes: RLE of each object, largest first.
        categories: name of the category of each object.
        absent: categories that the picture certainly does not show.
        complete: categories of which every object has a mask.
    """

    file: Path
    size: tuple[int, int]
    source: str
    codes: tuple[dict[str, Any], ...]
    categories: tuple[str, ...]
    absent: tuple[str, ...]
    complete: frozenset[str]

    @cached_property
    def boxes(self) -> np.ndarray:
        """Boxes (N, 4) of the masks, x0, y0, x1, y1."""
        found = coco_masks.toBbox(list(self.codes)).reshape(-1, 4)
        return np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], 1)

    @cached_property
    def areas(self) -> np.ndarray:
        """Areas (N,) of the masks in pixels."""
        return np.asarray(coco_masks.area(list(self.codes)), np.float64).reshape(-1)

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """The objects of each category that is complete."""
        out: dict[str, list[int]] = {}
        for place, name in enumerate(self.categories):
            if name in self.complete:
                out.setdefault(name, []).append(place)
        return out


class PhotoGroups:
    """A `GroupSource` of photographs.

    Args:
        root: folder with `{split}.json` and `images/`.
        split: name of the file.
        sources: only pictures of these sources; None for all.
        limit: number of first pictures; None for all.
        kind_shares: see `KIND_SHARES`.
        unseen_words: call categories only by words that training never uses (`words.UNSEEN`); others are not asked
            for.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not of this form, or a kind is unknown.
    """

    def __init__(
        self,
        root: Path,
        split: str = "train",
        sources: Sequence[str] | None = None,
        limit: int | None = None,
        kind_shares: Mapping[str, float] | None = None,
        unseen_words: bool = False,
    ) -> None:
        self.file = Path(root) / f"{split}.json"
        self.shares = dict(KIND_SHARES if kind_shares is None else kind_shares)
        unknown = self.shares.keys() - KIND_SHARES.keys()
        if unknown:
            raise ValueError(f"kind {min(unknown)!r} is unknown; expected one of {', '.join(KIND_SHARES)}")
        self.unseen = unseen_words
        self.photos, self.ids = _read(self.file, sources, limit)

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The annotations."""
        file = Path(arguments["root"]) / f"{arguments.get('split', 'train')}.json"
        return [] if file.is_file() else [Need("data", f"{file}, annotated photographs", "docs/guide/photographs.md")]

    @classmethod
    def training_data(cls, arguments: Arguments) -> list[TrainingData]:
        """The split."""
        return [TrainingData("photos", str(arguments.get("split", "train")), root=str(arguments["root"]))]

    def __len__(self) -> int:
        return len(self.photos)

    def image_id(self, item: int) -> str:
        """Name of the file."""
        return self.ids[item]

    def version(self, item: int) -> str:
        """A digest of the annotations and of the size of the picture's file."""
        photo = self.photos[item]
        state = [photo.file.stat().st_size, photo.categories, [str(code["counts"]) for code in photo.codes]]
        return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]

    def prompts_of(self, item: int) -> int:
        """Unlimited."""
        return sys.maxsize

    def load(self, item: int) -> Annotated:
        """The picture and its objects, largest first."""
        photo = self.photos[item]
        image = load_image(photo.file)
        if image.shape[:2] != photo.size:
            raise ValueError(f"{photo.file} has the size {image.shape[:2]}; expected {photo.size} as {self.file} says")
        masks = np.zeros((len(photo.codes), *photo.size), bool)
        for number, code in enumerate(photo.codes):
            masks[number] = coco_masks.decode(code)
        return Annotated(image, torch.from_numpy(masks), file=photo.file)

    def queries(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[Query]:
        """New prompts."""
        return [Query(p.text, p.references, p.targets) for p in self.prompts(item, count, rng)]

    def prompts(self, item: int, count: int, rng: np.random.Generator) -> list[GroupPrompt]:
        """At most `count` different prompts with their kinds."""
        photo, names = self.photos[item], list(self.shares)
        weights = np.array([self.shares[name] for name in names])
        found: dict[tuple[str, tuple[int, ...]], GroupPrompt] = {}
        for kind in rng.choice(names, count * _MOST_TRIES, p=weights / weights.sum()) if weights.sum() else ():
            one = self._draw(photo, str(kind), rng) or self._draw(photo, "category", rng)
            if one is not None:
                found.setdefault((one.text, one.references), one)
            if len(found) == count:
                break
        return list(found.values())

    def caption(self, item: int, extra: dict[str, Tensor], rng: np.random.Generator) -> str:
        """Raises ValueError: photographs have no captions here."""
        raise ValueError("photos have no captions; train stage 1 on scenes or LLaVA-Pretrain")

    # --- drawing --------------------------------------------------------------------------------------------------

    def _draw(self, photo: Photo, kind: str, rng: np.random.Generator) -> GroupPrompt | None:
        draw: Callable[[Photo, np.random.Generator], GroupPrompt | None]
        draw = getattr(self, f"_{kind.replace(' ', '_')}")
        return draw(photo, rng)

    def _word(self, category: str, rng: np.random.Generator) -> str | None:
        """A word for a category; half of the time its own name."""
        words = words_of(category, self.unseen)
        if not words:
            return None
        return words[0] if rng.random() < 0.5 else words[int(rng.integers(len(words)))]

    def _named(self, photo: Photo, rng: np.random.Generator, least: int = 1) -> tuple[str, str, list[int]] | None:
        """A category with at least so many objects: its name, a word for it, and its objects."""
        names = [n for n, places in photo.places.items() if len(places) >= least and words_of(n, self.unseen)]
        if not names:
            return None
        name = names[int(rng.integers(len(names)))]
        word = self._word(name, rng)
        return None if word is None else (name, word, photo.places[name])

    def _category(self, photo: Photo, rng: np.random.Generator) -> GroupPrompt | None:
        found = self._named(photo, rng)
        if found is None:
            return None
        _, word, places = found
        return GroupPrompt(_worded(_ALL if len(places) > 1 else _SINGLE, rng, word), "category", (), tuple(places))

    def _broader(self, photo: Photo, rng: np.random.Generator) -> GroupPrompt | None:
        options = []
        for word, names in BROADER.items():
            places = sorted(place for name in names for place in photo.places.get(name, ()))
            if places and all(name in photo.complete or name in photo.absent for name in names):
                options.append((word, places))
        if self.unseen or not options:
            return None
        word, places = options[int(rng.integers(len(options)))]
        return GroupPrompt(_worded(_ALL if len(places) > 1 else _SINGLE, rng, word), "broader", (), tuple(places))

    def _position(self, photo: Photo, rng: np.random.Generator) -> GroupPrompt | None:
        found = self._named(photo, rng, least=2)
        if found is None:
            return None
        drawn = by_position({found[1]: found[2]}, photo.boxes, photo.size, 1, rng)
        return GroupPrompt(drawn[0].text, "position", (), drawn[0].targets) if drawn else None

    def _size(self, photo: Photo, rng: np.random.Generator) -> GroupPrompt | None:
        found = self._named(photo, rng, least=2)
        if found is None:
            return None
        _, word, places = found
        order = sorted(places, key=lambda place: photo.areas[place])
        options = []
        if photo.areas[order[-1]] >= _LEAD * photo.areas[order[-2]]:
            options += [(adjective, order[-1]) for adjective in ("largest", "biggest")]
        if photo.areas[order[1]] >= _LEAD * photo.areas[order[0]]:
            options.append(("smallest", order[0]))
        if not options:
            return None
        adjective, place = options[int(rng.integers(len(options)))]
        return GroupPrompt(f"the {adjective} {word}", "size", (), (place,))

    def _pair(self, photo: Photo, rng: np.random.Generator) -> GroupPrompt | None:
        names = [name for name in photo.places if words_of(name, self.unseen)]
        if len(names) < 2:
            return None
        chosen = [names[number] for number in rng.permutation(len(names))[:2]]
        words = [self._word(name, rng) for name in chosen]
        texts = [
            f"the {plural(str(word)) if len(photo.places[name]) > 1 else word}"
            for name, word in zip(chosen, words, strict=True)
        ]
        places = sorted(place for name in chosen for place in photo.places[name])
        return GroupPrompt(" and ".join(texts), "pair", (), tuple(places))

    def _relation(self, photo: Photo, rng: np.random.Generator) -> GroupPrompt | None:
        found = self._named(photo, rng)
        if found is None:
            return None
        _, word, places = found
        drawn = beside_reference({"{name}": places}, photo.boxes, 1, rng, distinct=False)
        if not drawn:
            return None
        one = drawn[0]
        name = plural(word) if len(one.targets) > 1 or rng.random() < 0.3 else word
        return GroupPrompt(
            one.text.replace("each {name}", f"each {word}").replace("{name}", name),
            "relation",
            one.references,
            one.targets,
        )

    def _same_kind(self, photo: Photo, rng: np.random.Generator) -> GroupPrompt | None:
        found = self._named(photo, rng, least=2)
        if found is None:
            return None
        _, word, places = found
        chosen = places[int(rng.integers(len(places)))]
        alone = bool(rng.random() < 0.6)
        targets = tuple(place for place in places if place != chosen or not alone)
        return GroupPrompt(_worded(_OTHERS if alone else _WITH_ITSELF, rng, word), "same kind", (chosen,), targets)

    def _no_target(self, photo: Photo, rng: np.random.Generator) -> GroupPrompt | None:
        names = [name for name in photo.absent if words_of(name, self.unseen)]
        if not names:
            return None
        word = self._word(names[int(rng.integers(len(names)))], rng)
        text = _worded(_SINGLE if rng.random() < 0.5 else _ALL, rng, str(word))
        if len(photo.codes) and rng.random() < 0.25:
            templates = BESIDE[list(SIDES)[int(rng.integers(len(SIDES)))]]  # as those of relations that hold
            text = templates[int(rng.integers(len(templates)))].format(name=word)
            return GroupPrompt(text, "no target", (int(rng.integers(len(photo.codes))),), ())
        return GroupPrompt(text, "no target", (), ())


def _worded(texts: Sequence[str], rng: np.random.Generator, word: str) -> str:
    return texts[int(rng.integers(len(texts)))].format(name=word, plural=plural(word), one=with_article(word))


def _read(file: Path, sources: Sequence[str] | None, limit: int | None) -> tuple[list[Photo], list[str]]:
    """The photographs of a file, and their ids."""
    if not file.is_file():
        raise FileNotFoundError(f"annotations {file} do not exist; expected a COCO file with a split of photographs")
    try:
        record = json.loads(file.read_text())
        names = {row["id"]: row["name"] for row in record["categories"]}
        annotated = {row["name"]: frozenset(row["annotated_categories"]) for row in record.get("sources", ())}
        of_image: dict[Any, list[dict[str, Any]]] = {row["id"]: [] for row in record["images"]}
        for row in record["annotations"]:
            of_image[row["image_id"]].append(row)
        photos, ids = [], []
        for row in record["images"]:
            source = str(row.get("source", ""))
            if sources is not None and source not in sources:
                continue
            known = annotated.get(source, frozenset(names.values()) if not annotated else frozenset())
            photos.append(_photo(file, row, of_image[row["id"]], names, known))
            ids.append(str(row["file_name"]))
            if len(photos) == limit:
                break
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"annotations {file} are not a COCO file of photographs: {error!r}") from error
    return photos, ids


def _photo(
    file: Path,
    row: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    names: dict[Any, str],
    known: frozenset[str],
) -> Photo:
    crowds = {names[one["category_id"]] for one in annotations if one.get("iscrowd")}
    own = sorted((one for one in annotations if not one.get("iscrowd")), key=lambda one: -float(one["area"]))
    own = [one for one in own if float(one["area"]) > 0]
    present = {names[one["category_id"]] for one in annotations}
    return Photo(
        file.parent / "images" / str(row["file_name"]),
        (int(row["height"]), int(row["width"])),
        str(row.get("source", "")),
        tuple(dict(one["segmentation"]) for one in own),
        tuple(names[one["category_id"]] for one in own),
        tuple(sorted(known - present)),
        frozenset((known & present) - crowds),
    )
