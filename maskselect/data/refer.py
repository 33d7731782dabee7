"""The REFER family: RefCLEF, RefCOCO, RefCOCO+, RefCOCOg, gRefCOCO, Ref-ZOM and RRSIS-D.

Sources: https://github.com/lichengunc/refer (RefCLEF, RefCOCO, RefCOCO+, RefCOCOg), https://github.com/henghuiding/gRefCOCO,
https://github.com/toggle1995/RIS-DMMI (Ref-ZOM), https://github.com/Lsan2401/RMSIN (RRSIS-D).

On disk, under the root (or its `refer_seg/`, as LISA lays it out):

- `{folder}/refs({by}).p` or `.json`: a list of references, each with `ref_id`, `image_id`, `ann_id`, `split` and
  `sentences` of `{sent_id, sent, raw, tokens}`.
- `{folder}/instances.json`: a COCO file.
- images in one of several folders, see `IMAGE_FOLDERS`.

Quirks: `file_name` of a reference has an annotation's suffix and is not used; polygons of one object overlap; some
annotations have no outline (an empty mask); gRefCOCO's `ann_id` is a list, [-1] (in Ref-ZOM []) without a target.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskselect.data.coco_file import CocoFile, decode_masks, file_name_of, size_of
from maskselect.data.files import Images, find_one, read_json, read_plain_pickle
from maskselect.data.index import Key, Record, Section, open_index
from maskselect.data.reader import Reader
from maskselect.data.values import by_key, key_of
from maskselect.structures.sample import Prompt, Sample

_COCO_FOLDERS = (
    "images/mscoco/images/train2014",
    "images/train2014",
    "refer_seg/images/mscoco/images/train2014",
    "coco/train2014",
    "coco_2014/train2014",
    "images/coco_2014/train2014",
    "train2014",
)
IMAGE_FOLDERS: Mapping[str, Sequence[str]] = {
    "coco": _COCO_FOLDERS,
    "saiapr": ("images/saiapr_tc-12", "refer_seg/images/saiapr_tc-12", "saiapr_tc-12"),
    "rrsisd": ("images/rrsisd/JPEGImages", "rrsisd/images/rrsisd/JPEGImages", "rrsisd/JPEGImages", "JPEGImages"),
}
"""Possible image folders, under the root and the folder above it."""


@dataclass(frozen=True)
class Variant:
    """One data set of the family.

    Attributes:
        folder: folder of the annotations.
        by: author of the split.
        images: key into `IMAGE_FOLDERS`.
        many: a reference may have many objects or none.
    """

    folder: str
    by: str
    images: str = "coco"
    many: bool = False


VARIANTS: Mapping[str, Variant] = {
    "refclef": Variant("refclef", "unc", "saiapr"),
    "refclef-berkeley": Variant("refclef", "berkeley", "saiapr"),
    "refcoco": Variant("refcoco", "unc"),
    "refcoco-google": Variant("refcoco", "google"),
    "refcoco+": Variant("refcoco+", "unc"),
    "refcocog": Variant("refcocog", "umd"),
    "refcocog-google": Variant("refcocog", "google"),
    "grefcoco": Variant("grefcoco", "unc", many=True),
    "refzom": Variant("refzom", "", many=True),
    "rrsisd": Variant("rrsisd", "unc", "rrsisd"),
}


class ReferFiles:
    """The annotations of one data set of the family, with all splits.

    Args:
        name: one of `VARIANTS`.
        root: see the top of the file.

    Raises:
        FileNotFoundError: the layout does not exist.
        ValueError: the name is unknown, or a file is damaged.
    """

    def __init__(self, name: str, root: str | Path) -> None:
        if name not in VARIANTS:
            raise ValueError(f"unknown data set {name!r} of the REFER family; expected one of {', '.join(VARIANTS)}")
        self.name, self.root, self.variant = name, Path(root), VARIANTS[name]
        home = find_one(
            self.root,
            [self.variant.folder, f"refer_seg/{self.variant.folder}", f"refseg/{self.variant.folder}"],
            f"annotations of {name}",
            f"expected refs({self.variant.by}).p and instances.json there; links: https://github.com/lichengunc/refer",
        )
        self._refs_file = find_one(home, _refs_names(self.variant), f"references of {name}", "see maskselect data list")
        self.coco = CocoFile(find_one(home, ["instances.json"], f"instances.json of {name}", "it comes with the refs"))
        self.refs = open_index(self._refs_file, {"ref": Section("", key="ref_id", group="image_id")}, _parse_refs)

    def evaluation_images(self) -> set[Key]:
        """Keys of images with a reference outside the training split."""
        return {ref["image_id"] for ref in self.refs.all("ref") if ref.get("split") != "train"}


class ReferDataset(ReferFiles, Reader[Sample]):
    """Samples of one split, one per sentence. The pool is every annotation of the image that is not a crowd.

    Args:
        name: one of `VARIANTS`.
        root: see the top of the file.
        split: train, val, test, testA, testB or testC.
        without: data sets of the family, under the same root, whose validation and test images are left out. The
            training images of RefCOCO, for example, hold some of RefCOCOg's test images.
    """

    def __init__(self, name: str, root: str | Path, split: str, without: Sequence[str] = ()) -> None:
        super().__init__(name, root)
        self.split = split
        self._left_out = evaluation_images(root, without)
        folders = IMAGE_FOLDERS[self.variant.images]
        self.images = Images([base / f for base in (self.root, self.root.parent) for f in folders])
        self._rows = self._of_split()
        self._latest: tuple[Key, tuple[int, int], Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_latest": None}

    def __getitem__(self, number: int) -> Sample:
        """Decode one sentence, see `Reader`."""
        key, which = self._rows[number]
        ref = self.refs.get("ref", key)
        image = self.coco.image(ref["image_id"])
        picture = self.images.find(file_name_of(image))
        size = size_of(image, picture)
        annotations = [a for a in self.coco.annotations(ref["image_id"]) if not a["iscrowd"]]
        with self._naming(key):
            targets = self._targets(ref, annotations)
            sentence = ref["sentences"][which]
            by_key([one for one in ref["sentences"] if "sent_id" in one], _sent_id, "sentences", "sentence", "sent_id")
            prompt = Prompt(_text(sentence), torch.zeros(0, *size).bool())
        return Sample(
            image=picture,
            image_id=str(ref["image_id"]),
            sample_id=f"{key}:{sentence.get('sent_id', which)}",
            prompt=prompt,
            gt_pool=self._pool(ref["image_id"], annotations, size),
            targets=targets,
        )

    def _pool(self, image: Key, annotations: list[Record], size: tuple[int, int]) -> Tensor:
        # The sentences about an image follow each other and share its decoded masks.
        if self._latest is None or self._latest[:2] != (image, size):
            self._latest = image, size, decode_masks(annotations, size)
        return self._latest[2]

    def image_ids(self) -> list[str]:
        """The image of each sample."""
        images = {key: str(self.refs.get("ref", key)["image_id"]) for key in dict.fromkeys(k for k, _ in self._rows)}
        return [images[key] for key, _ in self._rows]

    def sentences_of(self, image: Key) -> list[tuple[str, list[Key]]]:
        """The sentences of this split about an image, each with the ids of its target annotations.

        Raises:
            ValueError: a reference contradicts itself or the annotations.
        """
        annotations = [a for a in self.coco.annotations(image) if not a["iscrowd"]]
        sentences: list[tuple[str, list[Key]]] = []
        for ref in self.refs.of_group("ref", image):
            if in_split(str(ref.get("split")), self.split):
                with self._naming(ref["ref_id"]):
                    ids = [annotations[place]["id"] for place in self._targets(ref, annotations)]
                    sentences += [(_text(sentence), ids) for sentence in ref["sentences"]]
        return sentences

    @contextmanager
    def _naming(self, key: Key) -> Iterator[None]:
        try:
            yield
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"reference {key} in {self._refs_file}: {error}") from error

    def _of_split(self) -> list[tuple[Any, int]]:
        """(reference, number of the sentence) of each sample, by image."""
        by_image: dict[str, list[tuple[Any, int]]] = {}
        splits = set()
        for ref in self.refs.all("ref"):
            splits.add(split := str(ref.get("split")))
            sentences = ref.get("sentences")
            if str(ref["image_id"]) in self._left_out:
                continue
            if in_split(split, self.split) and isinstance(sentences, list) and sentences:
                rows = by_image.setdefault(str(ref["image_id"]), [])
                rows += [(ref["ref_id"], number) for number in range(len(sentences))]
        if not by_image:
            known = ", ".join(sorted(splits)) or "none"
            raise FileNotFoundError(f"{self._refs_file} has no reference in split {self.split!r}; it has {known}")
        return [row for rows in by_image.values() for row in rows]

    def _targets(self, ref: Record, annotations: list[Record]) -> tuple[int, ...]:
        value = ref.get("ann_id")
        listed = value if isinstance(value, list) else [value]
        ids = [key for key in (key_of(one) for one in listed if one is not None) if key != -1]
        places = {annotation["id"]: place for place, annotation in enumerate(annotations)}
        # Crowds are left out, as in loaders of gRefCOCO; an unknown id is an error in the file.
        known = {annotation["id"] for annotation in self.coco.annotations(ref["image_id"])}
        if missing := [one for one in ids if one not in known]:
            raise ValueError(f"annotation {missing[0]!r} is not among those of image {ref['image_id']!r}")
        if not ids and not self.variant.many:
            raise ValueError("it has no annotation; expected one")
        return tuple(places[one] for one in ids if one in places)


def evaluation_images(root: str | Path, names: Sequence[str]) -> frozenset[str]:
    """The ids of all images in the validation and test splits of data sets of the family.

    Raises:
        FileNotFoundError: a data set is missing, so that its images are not known.
        ValueError: a name is unknown, or a file is damaged.
    """
    return frozenset(str(image) for name in names for image in ReferFiles(name, root).evaluation_images())


def _sent_id(sentence: Record) -> Any:
    return sentence["sent_id"]


def _text(sentence: Record) -> str:
    return str(sentence.get("sent") or sentence.get("raw")).strip()


def in_split(name: str, split: str) -> bool:
    """Whether the split `name` of a reference belongs to `split`, by REFER's rule.

    train and val match by name; testA, testB and testC by their letter, so "testAB" is both; "test" matches every name
    that contains it.
    """
    if split in ("testA", "testB", "testC"):
        return split[-1] in name
    return "test" in name if split == "test" else name == split


def _refs_names(variant: Variant) -> list[str]:
    if variant.folder == "refzom":
        return ["Ref_ZOM.p", "Ref_ZOM.json"]
    stem = "grefs" if variant.folder == "grefcoco" else "refs"
    return [f"{stem}({variant.by}).{suffix}" for suffix in (("json", "p") if stem == "grefs" else ("p", "json"))]


def _parse_refs(path: Path) -> Mapping[str, list[Record]]:
    refs = read_json(path) if path.suffix == ".json" else read_plain_pickle(path)
    if not isinstance(refs, list):
        raise ValueError(f"{path} holds a {type(refs).__name__}; expected a list of references")
    return {"ref": refs}
