"""The real samples of `../shared/data`, each laid out as its reader wants it, and an oracle that answers them.

Tests and `benchmarks/real_samples.py` walk over these. Pictures that a sample lacks are drawn black, so that all of its
annotations are read; a model is only asked about the real ones.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from maskselect.data.catalog import SampleReader, find_entry
from maskselect.structures.masks import MaskSet
from maskselect.structures.prediction import MaskGroup
from maskselect.structures.sample import Sample


@dataclass(frozen=True)
class RealSample:
    """title: folder in `../shared/data`.  dataset, split, settings: how the catalog opens it.  lay: writes its root."""

    title: str
    dataset: str
    split: str
    lay: Callable[[Path, Path], None]
    settings: dict[str, Any] = field(default_factory=dict)

    def open(self, shared: Path, root: Path) -> SampleReader:
        """Laid out under `root`, and opened."""
        root.mkdir(parents=True, exist_ok=True)
        self.lay(shared, root)
        return find_entry(self.dataset).open(root, self.split, **self.settings)


def _link(source: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(source)


def _linked(places: dict[str, str]) -> Callable[[Path, Path], None]:
    """places: under each name in the root, what of the shared folder lies there."""

    def lay(shared: Path, root: Path) -> None:
        for place, source in places.items():
            _link(shared / source, root / place)

    return lay


def _black(path: Path, width: int, height: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        Image.new("RGB", (width, height)).save(path)


def _pictures(shared: Path, folder: Path, file: Path, available: Path) -> None:
    """For each image of a COCO file a link to the real picture where there is one, or a black one."""
    there = {Path(str(path)).name[-16:]: shared / str(path) for path in json.loads(available.read_text()).values()}
    for image in json.loads(file.read_text())["images"]:
        number = f"{image['id']:012d}.jpg"
        name = Path(str(image.get("coco_url") or image["file_name"])).name
        if number in there and there[number].is_file():
            _link(there[number], folder / name)
        _black(folder / name, image["width"], image["height"])


def _vectors(shared: Path, root: Path) -> None:
    source = shared / "cocoapi_testvectors"
    file = source / "instances_val2014_100.json"
    _link(file, root / "annotations/instances_val2014.json")
    _pictures(shared, root / "val2014", file, source / "images_available.json")


def _lvis(shared: Path, root: Path) -> None:
    source = shared / "lvis_val_100"
    _link(source / "lvis_val_100.json", root / "lvis_v0.5_val.json")
    _pictures(shared, root / "val2017", source / "lvis_val_100.json", source / "images_available.json")


def _genome(shared: Path, root: Path) -> None:
    source = shared / "vg_subset/subset_data"
    for name in ("objects", "relationships"):
        _link(source / f"{name}.json", root / f"{name}.json")
    records = json.loads((source / "objects.json").read_text())
    images = []
    for record in records:
        # The sample has no file of images; every box fits into this size.
        width, height = (max(o[a] + o[b] for o in record["objects"]) for a, b in (("x", "w"), ("y", "h")))
        images.append({"image_id": record["image_id"], "width": width, "height": height, "coco_id": None})
        _black(root / "VG_100K" / f"{record['image_id']}.jpg", width, height)
    (root / "image_data.json").write_text(json.dumps(images))


_PANOPTIC, _EXAMPLES = "coco_panoptic_mini/panoptic_segmentation/annotations", "panopticapi_sample/sample_data"

REAL_SAMPLES = (
    *(
        RealSample(
            "refcoco_mini", "refcoco", split, _linked({name: f"refcoco_mini/{name}" for name in ("refcoco", "images")})
        )
        for split in ("val", "testA", "testB")
    ),
    RealSample("reasonseg_sample", "reasonseg", "val", _linked({"ReasonSeg": "reasonseg_sample/ReasonSeg"})),
    RealSample("coco128", "coco", "train2017", _linked({n: f"coco128/{n}" for n in ("annotations", "train2017")})),
    RealSample("cocoapi_testvectors", "coco", "val2014", _vectors),
    RealSample(
        "coco_panoptic_mini",
        "coco-panoptic",
        "val2017",
        _linked({"annotations": _PANOPTIC, "val2017": "coco_panoptic_mini/images/val2017"}),
    ),
    RealSample(
        "coco_panoptic_mini",
        "coco-panoptic",
        "train2017",
        _linked({"annotations": _PANOPTIC, "train2017": "coco128/train2017"}),
    ),
    RealSample(
        "panopticapi_sample",
        "coco-panoptic",
        "val2017",
        _linked(
            {
                "annotations/panoptic_val2017.json": f"{_EXAMPLES}/panoptic_examples.json",
                "panoptic_val2017": f"{_EXAMPLES}/panoptic_examples",
                "val2017": f"{_EXAMPLES}/input_images",
            }
        ),
    ),
    RealSample("lvis_val_100", "lvis", "val", _lvis, {"version": "v0.5", "no_target": True}),
    RealSample("vg_subset", "visual-genome", "all", _genome),
)


class Oracle:
    """Answers each prompt with its annotated masks. It must be asked in the order of the samples."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._left: Iterator[Sample] = iter(samples)
        self._asked: deque[Sample] = deque()

    def samples(self) -> Iterator[Sample]:
        """What is to be asked."""
        for sample in self._left:
            self._asked.append(sample)
            yield sample

    def select_many(
        self,
        image: np.ndarray,
        prompts: list[str],
        references: list[list[np.ndarray]] | None = None,
        *,
        extra_candidates: np.ndarray | None = None,
        keep_pool: bool = False,
    ) -> list[MaskGroup]:
        """The targets of the samples in turn."""
        answers = []
        for prompt in prompts:
            sample = self._asked.popleft()
            assert sample.prompt.text == prompt
            masks = sample.gt_pool[list(sample.targets)].numpy()
            scores = np.ones(len(masks), np.float32)
            own = sample.prompt.references.numpy()
            pool = MaskSet(sample.gt_pool, torch.ones(len(sample.gt_pool)), "oracle")
            answers.append(MaskGroup(image, prompt, masks, scores, len(pool), 0.5, own, pool=pool))
        return answers


def is_real(sample: Sample, shared: Path) -> bool:
    """Whether the picture is one of the shared folder, not a black one."""
    return isinstance(sample.image, Path) and sample.image.resolve().is_relative_to(shared.resolve())
