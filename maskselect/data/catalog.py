"""All data sets by name: reader, splits, source, licence and published counts.

Counts come from the papers and pages of the data sets. Those under `about` are second-hand, and only good to see
whether a copy is roughly complete.
"""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from maskselect.structures.needs import Need
from maskselect.structures.sample import Sample


class SampleReader(Protocol):
    """A reader of questions about images. Samples of one image follow each other.

    Readers raise FileNotFoundError if the layout, the split or an image does not exist, and ValueError, with file and
    record, for damage.
    """

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sample]: ...

    def __getitem__(self, number: int) -> Sample: ...

    def image_ids(self) -> list[str]:
        """The image of each sample."""
        ...


@dataclass(frozen=True)
class CatalogEntry:
    """One data set.

    Attributes:
        title: its name in prose.
        reader: import path of the class or function; called with `arguments`, root and split.
        splits: the published splits.
        page: where to get the data.
        protocol: how its metrics are defined, see docs/guide/metrics.md.
        pictures: the origin of images that several data sets share. RefCOCO's validation and test images, for example,
            are all in COCO's train2014, and so in train2017.
        arguments: fixed arguments of the reader.
        obtain: how to get it into the folder `{root}`, unless by a download from its page.
        samples, about: published number of samples of a split, and numbers from other sources.
    """

    title: str
    reader: str
    splits: tuple[str, ...]
    page: str
    licence: str
    protocol: str = "lisa"
    pictures: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    obtain: str = ""
    samples: Mapping[str, int] = field(default_factory=dict)
    about: Mapping[str, int] = field(default_factory=dict)

    def missing(self, name: str, root: Path, split: str, **settings: Any) -> list[Need]:
        """What is missing of a split of this data set, whose key is `name`.

        The split is opened as for training, so every layout of its reader is accepted. Images are not read. `settings`
        are further arguments of the reader.
        """
        hub = "https://huggingface.co/datasets/"
        command = f"{self.page}{f' (pictures: {self.pictures})' if self.pictures else ''}"
        if self.obtain:
            command = self.obtain.format(root=root)
        elif self.page.startswith(hub):
            command = f"hf download {self.page.removeprefix(hub)} --repo-type dataset --local-dir {root}"
        if not root.is_dir():
            return [Need("data", f"{name} in {root}", command, part=split)]
        try:
            self.open(root, split, **settings)
        except (FileNotFoundError, ValueError) as error:
            return [Need("data", f"{name}, {split}: {' '.join(str(error).split())}", command)]
        return []

    def open(self, root: Path, split: str, **settings: Any) -> SampleReader:
        """The reader of one split. `settings` are further arguments of the class.

        Raises:
            FileNotFoundError: the class does.
            ValueError: the class does, or the split has no sample.
        """
        module, _, name = self.reader.rpartition(".")
        make = getattr(importlib.import_module(module), name)
        reader: SampleReader = make(**self.arguments, root=root, split=split, **settings)
        if len(reader) == 0:
            raise ValueError(f"{self.title} in {root} has no sample of split {split!r}; expected one or more")
        return reader

    def open_splits(self, root: Path, split: str | None = None) -> dict[str, SampleReader]:
        """The readers of one split, or of every published split that exists.

        Raises:
            FileNotFoundError, ValueError: the class does, for `split` or for every published split.
        """
        if split is not None:
            return {split: self.open(root, split)}
        readers: dict[str, SampleReader] = {}
        errors: list[FileNotFoundError] = []
        for name in self.splits:
            try:
                readers[name] = self.open(root, name)
            except FileNotFoundError as error:
                errors.append(error)
        if not readers and errors:
            raise errors[0]
        return readers


_REFER = "https://github.com/lichengunc/refer"
_REFER_LICENCE = "texts: Apache-2.0; pictures: COCO's"
_REFER_READER = "maskselect.data.refer.ReferDataset"


def _refer(name: str, title: str, splits: tuple[str, ...], **more: Any) -> CatalogEntry:
    facts = {"page": _REFER, "licence": _REFER_LICENCE, "pictures": "COCO"} | more
    return CatalogEntry(title, _REFER_READER, splits, arguments={"name": name}, **facts)


_AB, _ABC = ("train", "val", "testA", "testB"), ("train", "val", "testA", "testB", "testC")
_SAIAPR = {"licence": "texts: Apache-2.0; pictures: SAIAPR TC-12's", "pictures": "SAIAPR TC-12"}

CATALOG: Mapping[str, CatalogEntry] = {
    "own": CatalogEntry(
        "your own: COCO, labelme or YOLO labels, and prompts",
        "maskselect.data.own.open_own",
        ("train", "val", "test", "all"),
        "https://cocodataset.org/#format-data",
        "your own",
        protocol="maskselect",
        obtain="your own labels and pictures, in a form that maskselect/data/own.py describes",
    ),
    "maskgroups": CatalogEntry(
        "MaskGroups-HQ and files in its format",
        "maskselect.data.maskgroups.MaskGroupsDataset",
        ("train", "validation"),
        "https://huggingface.co/datasets/Shengcao1006/MaskGroups-HQ",
        "see its page",
        protocol="maskselect",
        samples={"train": 96_697, "validation": 3_599},
    ),
    "maskgroups-2m": CatalogEntry(
        "MaskGroups-2M as `data build` makes it",
        "maskselect.data.maskgroups_2m.MaskGroups2MDataset",
        ("train",),
        "https://github.com/Shengcao-Cao/RAS",
        "its sources'",
        protocol="maskselect",
        obtain="maskselect data build maskgroups-2m --refer DIR --coco DIR --lvis DIR --vg DIR --output {root}",
        pictures="COCO",
    ),
    "refclef": _refer("refclef", "RefCLEF (unc)", _ABC, **_SAIAPR),
    "refclef-berkeley": _refer("refclef-berkeley", "RefCLEF (berkeley)", ("train", "val", "test"), **_SAIAPR),
    "refcoco": _refer(
        "refcoco",
        "RefCOCO (unc)",
        _AB,
        samples={"val": 10_834, "testA": 5_657, "testB": 5_095},
        about={"train": 120_624},
    ),
    "refcoco-google": _refer("refcoco-google", "RefCOCO (google)", ("train", "val", "test")),
    "refcoco+": _refer(
        "refcoco+", "RefCOCO+ (unc)", _AB, about={"train": 120_191, "val": 10_758, "testA": 5_726, "testB": 4_889}
    ),
    "refcocog": _refer(
        "refcocog", "RefCOCOg (umd)", ("train", "val", "test"), about={"train": 80_512, "val": 4_896, "test": 9_602}
    ),
    "refcocog-google": _refer("refcocog-google", "RefCOCOg (google)", ("train", "val")),
    "grefcoco": _refer(
        "grefcoco",
        "gRefCOCO (many targets, or none)",
        _AB,
        page="https://github.com/henghuiding/gRefCOCO",
        licence="see its page; pictures: COCO's",
        protocol="grefcoco",
        about={"train": 209_000},
    ),
    "refzom": _refer(
        "refzom",
        "Ref-ZOM (zero, one, many targets)",
        ("train", "test"),
        page="https://github.com/toggle1995/RIS-DMMI",
        licence="see its page; pictures: COCO's",
        protocol="gsva-refzom",
    ),
    "rrsisd": _refer(
        "rrsisd",
        "RRSIS-D (remote sensing)",
        ("train", "val", "test"),
        page="https://github.com/Lsan2401/RMSIN",
        licence="see its page",
        pictures="",
        protocol="rmsin",
        about={"train": 12_181, "val": 1_740, "test": 3_481},
    ),
    "reasonseg": CatalogEntry(
        "ReasonSeg",
        "maskselect.data.reasonseg.ReasonSegDataset",
        ("train", "val", "test"),
        "https://github.com/dvlab-research/LISA",
        "annotations: Apache-2.0; pictures: OpenImages' and ScanNet's",
        protocol="reasonseg",
        samples={"val": 200, "test": 779},
    ),
    "llm-seg40k": CatalogEntry(
        "LLM-Seg40K",
        "maskselect.data.llm_seg40k.LlmSeg40kDataset",
        ("train", "validation", "test"),
        "https://github.com/wangjunchi/LLMSeg",
        "see its page; pictures: COCO's and EgoObjects'",
        protocol="llmseg",
        pictures="COCO",
        obtain=(
            "https://github.com/wangjunchi/LLMSeg, or maskselect data build llm-seg40k --output {root} "
            "(docs/guide/datasets.md)"
        ),
    ),
    "muse": CatalogEntry(
        "MUSE",
        "maskselect.data.muse.MuseDataset",
        ("train", "val", "test_less", "test_many"),
        "https://github.com/MaverickRen/PixelLM",
        "see its page; pictures: COCO's",
        about={"train": 239_000, "val": 2_800},
        protocol="muse",
        pictures="COCO",
    ),
    "earthreason": CatalogEntry(
        "EarthReason",
        "maskselect.data.earthreason.EarthReasonDataset",
        ("train", "val", "test"),
        "https://huggingface.co/datasets/earth-insights/EarthReason",
        "see its page",
        protocol="segearth",
        about={"train": 2_371, "val": 1_135, "test": 1_928},
    ),
    "coco": CatalogEntry(
        "COCO instances",
        "maskselect.data.coco.CocoDataset",
        ("train2017", "val2017"),
        "https://cocodataset.org/#download",
        "annotations: CC BY 4.0; pictures: Flickr terms",
        pictures="COCO",
    ),
    "coco-panoptic": CatalogEntry(
        "COCO panoptic",
        "maskselect.data.panoptic.PanopticDataset",
        ("train2017", "val2017"),
        "https://cocodataset.org/#download",
        "annotations: CC BY 4.0; pictures: Flickr terms",
        pictures="COCO",
    ),
    "pix2cap": CatalogEntry(
        "Pix2Cap-COCO (a description for each segment)",
        "maskselect.data.panoptic.Pix2CapDataset",
        ("train", "val"),
        "https://huggingface.co/datasets/geshang/Pix2Cap-COCO",
        "see its page; pictures: COCO's",
        pictures="COCO",
    ),
    "coco-stuff": CatalogEntry(
        "COCO-Stuff",
        "maskselect.data.semantic.CocoStuffDataset",
        ("train2017", "val2017"),
        "https://github.com/nightrome/cocostuff",
        "annotations: CC BY 4.0; pictures: Flickr terms",
        pictures="COCO",
    ),
    "lvis": CatalogEntry(
        "LVIS v1",
        "maskselect.data.lvis.LvisDataset",
        ("train", "val"),
        "https://www.lvisdataset.org/dataset",
        "annotations: CC BY 4.0; pictures: COCO's",
        pictures="COCO",
    ),
    "paco": CatalogEntry(
        "PACO-LVIS (objects, parts, attributes)",
        "maskselect.data.parts.PacoDataset",
        ("train", "val", "test"),
        "https://github.com/facebookresearch/paco",
        "see its page; pictures: COCO's",
        pictures="COCO",
    ),
    "pascal-part": CatalogEntry(
        "PASCAL-Part as VLPart makes it",
        "maskselect.data.parts.PascalPartDataset",
        ("train",),
        "https://github.com/facebookresearch/VLPart",
        "see its page; pictures: PASCAL VOC's",
    ),
    "entityseg": CatalogEntry(
        "EntitySeg",
        "maskselect.data.coco.EntitySegDataset",
        ("train", "val"),
        "https://github.com/adobe-research/EntitySeg-Dataset",
        "Adobe research licence, non-commercial",
    ),
    "visual-genome": CatalogEntry(
        "Visual Genome (boxes)",
        "maskselect.data.visual_genome.VisualGenomeDataset",
        ("all",),
        "https://homes.cs.washington.edu/~ranjay/visualgenome/api.html",
        "CC BY 4.0",
    ),
    "egoobjects": CatalogEntry(
        "EgoObjects v1.0 (boxes)",
        "maskselect.data.lvis.EgoObjectsDataset",
        ("train", "val", "test"),
        "https://ai.meta.com/datasets/egoobjects-downloads",
        "see its page",
    ),
    "ade20k": CatalogEntry(
        "ADE20K (150 classes)",
        "maskselect.data.semantic.Ade20kDataset",
        ("training", "validation"),
        "https://groups.csail.mit.edu/vision/datasets/ADE20K/",
        "see its page",
    ),
    "mapillary": CatalogEntry(
        "Mapillary Vistas v2.0",
        "maskselect.data.semantic.VistasDataset",
        ("training", "validation"),
        "https://www.mapillary.com/dataset/vistas",
        "research licence",
    ),
}


OTHERS: Mapping[str, CatalogEntry] = {
    "ref-youtube-vos": CatalogEntry(
        "Ref-YouTube-VOS (videos)",
        "maskselect.data.video.RefYoutubeVosDataset",
        ("train", "valid", "test"),
        "https://youtube-vos.org/dataset/rvos/",
        "CC BY 4.0",
        protocol="ref-youtube-vos",
    ),
    "ref-davis17": CatalogEntry(
        "Ref-DAVIS17 (videos)",
        "maskselect.data.video.RefDavis17Dataset",
        ("train", "valid"),
        "https://github.com/wjn922/ReferFormer",
        "see its page",
        protocol="davis",
        about={"valid": 244},
    ),
    "revos": CatalogEntry(
        "ReVOS (videos, reasoning)",
        "maskselect.data.video.RevosDataset",
        ("train", "valid"),
        "https://github.com/cilinyan/ReVOS-api",
        "CC BY-NC-SA 4.0",
        protocol="revos",
    ),
    "mevis": CatalogEntry(
        "MeViS (videos, by motion)",
        "maskselect.data.video.MevisDataset",
        ("train", "valid_u", "valid"),
        "https://github.com/henghuiding/MeViS",
        "CC BY-NC-SA 4.0",
        protocol="mevis",
    ),
    "llava": CatalogEntry(
        "LLaVA's captions and conversations (no masks)",
        "maskselect.data.llava.LlavaDataset",
        ("pretrain", "pretrain-cc3m", "instruct-150k", "mix-665k"),
        "https://github.com/haotian-liu/LLaVA/blob/main/docs/Data.md",
        "see its page",
        protocol="",
        about={"pretrain": 558_128, "pretrain-cc3m": 595_375, "instruct-150k": 157_712},
    ),
    "pas-20": CatalogEntry(
        "PAS-20: PASCAL VOC 2012, all classes asked together",
        "maskselect.data.label_maps.LabelMapDataset",
        ("train", "val"),
        "https://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        "see its page",
        protocol="semantic",
        arguments={"name": "pas-20"},
        samples={"train": 1_464, "val": 1_449},
    ),
    "pc-59": CatalogEntry(
        "PC-59: PASCAL Context, all classes asked together",
        "maskselect.data.label_maps.LabelMapDataset",
        ("train", "val"),
        "https://cs.stanford.edu/~roozbeh/pascal-context/",
        "see its page",
        protocol="semantic",
        arguments={"name": "pc-59"},
        about={"train": 4_998, "val": 5_105},
    ),
    "ade-150": CatalogEntry(
        "ADE-150: ADE20K, all classes asked together",
        "maskselect.data.label_maps.LabelMapDataset",
        ("training", "validation"),
        "https://groups.csail.mit.edu/vision/datasets/ADE20K/",
        "see its page",
        protocol="semantic",
        arguments={"name": "ade-150"},
        samples={"training": 20_210, "validation": 2_000},
    ),
    "label-maps": CatalogEntry(
        "your own images with a class for each pixel",
        "maskselect.data.label_maps.LabelMapDataset",
        ("train", "val", "test"),
        "https://github.com/mc-lan/Text4Seg",
        "your own",
        protocol="semantic",
        obtain="your own label images, in the form that maskselect/data/label_maps.py describes",
    ),
}
"""Data sets without questions about single images: videos, label maps, and LLaVA's texts."""

EVERYTHING: Mapping[str, CatalogEntry] = {**CATALOG, **OTHERS}


def find_entry(name: str) -> CatalogEntry:
    """The entry of a data set with questions about images.

    Raises:
        ValueError: there is none; the message lists the names.
    """
    if name not in CATALOG:
        raise ValueError(f"unknown dataset {name!r}; expected one of {', '.join(CATALOG)}, scenes")
    return CATALOG[name]


def find_any(name: str) -> CatalogEntry:
    """The entry of any data set.

    Raises:
        ValueError: there is none; the message lists the names.
    """
    if name not in EVERYTHING:
        raise ValueError(f"unknown dataset {name!r}; expected one of {', '.join(EVERYTHING)}")
    return EVERYTHING[name]
