"""`data check`: counts the content and the problems of a data set."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from maskselect.backends.progress import track
from maskselect.data.images import image_size
from maskselect.data.llava import Conversation
from maskselect.data.sizes import refuse_other_size
from maskselect.structures.sample import Sample
from maskselect.structures.semantic import LabelledImage
from maskselect.structures.video import VideoSample

EXAMPLES = 5
"""Number of problems of one kind that a report describes."""

MISSING, DAMAGED, NOTHING = "image missing", "annotation or image damaged", "no sample"
EMPTY, OTHER_SIZE = "target mask empty or outside the image", "image of another size than its masks"


@dataclass
class CheckReport:
    """Counts of a data set. `problems` has the number of each kind, `examples` the first few as sentences."""

    samples: int = 0
    images: int = 0
    targets: int = 0
    no_target: int = 0
    with_references: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def note(self, kind: str, sentence: str) -> None:
        """Count a problem, and keep it as an example if there are few."""
        self.problems[kind] += 1
        if len(self.examples.setdefault(kind, [])) < EXAMPLES:
            self.examples[kind].append(sentence)

    def as_json(self) -> dict[str, Any]:
        """Plain containers."""
        return asdict(self) | {"problems": dict(self.problems)}


class _Reader(Protocol):
    """Any reader of the catalog: of samples, videos, label maps or conversations."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Sample | VideoSample | LabelledImage | Conversation: ...


def check(reader: _Reader, limit: int | None = None) -> CheckReport:
    """Decode every item of a reader, or the first `limit`, and count errors.

    `images` is the number of videos for video data, and of records for LLaVA's. `targets` is the number of classes of
    all images for label maps.
    """
    report = CheckReport()
    total = len(reader) if limit is None else min(limit, len(reader))
    report.images = len(set(_image_ids(reader)[:total]))
    if total == 0:
        report.note(NOTHING, "the data set has no sample; expected one or more")
    for number in track(range(total), total, "Checking", "samples"):
        report.samples += 1
        try:
            _count_item(report, reader[number])
        except FileNotFoundError as error:
            report.note(MISSING, str(error))
        except (ValueError, OSError) as error:
            report.note(DAMAGED, str(error))
    return report


def _image_ids(reader: Any) -> list[str]:
    names = [name for name in ("image_ids", "video_ids") if hasattr(reader, name)]
    return getattr(reader, names[0])() if names else []


def _count_item(report: CheckReport, item: Sample | VideoSample | LabelledImage | Conversation) -> None:
    if isinstance(item, VideoSample):
        _count_video(report, item)
    elif isinstance(item, LabelledImage):
        report.targets += int((item.classes.unique() > 0).sum())
    elif isinstance(item, Conversation):
        image_size(item.image)
        report.images += 1
    else:
        size = item.image.shape[:2] if isinstance(item.image, np.ndarray) else image_size(item.image)
        _count_sample(report, item, (int(size[0]), int(size[1])))


def _count_video(report: CheckReport, sample: VideoSample) -> None:
    sizes = {image_size(frame) for frame in sample.frames}
    if sizes != {sample.size}:
        report.note(OTHER_SIZE, f"sample {sample.sample_id}: masks of {list(sample.size)}, frames of {sorted(sizes)}")
    if sample.masks is None:
        return
    report.targets += len(sample.object_ids)
    report.no_target += not sample.object_ids
    visible = [bool(sample.masks[frame].any()) for frame in range(len(sample.masks))]
    if sample.object_ids and not any(visible):
        report.note(EMPTY, f"sample {sample.sample_id}: its objects are visible in none of {len(visible)} frames")


def _count_sample(report: CheckReport, sample: Sample, size: tuple[int, int]) -> None:
    report.targets += len(sample.targets)
    report.no_target += not sample.targets
    report.with_references += len(sample.prompt.references) > 0
    try:
        refuse_other_size(sample, size)
    except ValueError as error:
        report.note(OTHER_SIZE, str(error))
    empty = [target for target in sample.targets if not sample.gt_pool[target].any()]
    if empty:
        report.note(EMPTY, f"sample {sample.sample_id}, image {sample.image_id}: target {empty[0]} has no pixel")
