"""Walks a data set and says what is in it and what is wrong with it, before anybody trains or measures on it."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from maskselect.backends.progress import track
from maskselect.data.catalog import SampleReader
from maskselect.data.images import image_size
from maskselect.structures.sample import Sample

EXAMPLES = 5
"""Problems of one kind that are told one by one."""

MISSING, DAMAGED = "image missing", "annotation or image damaged"
EMPTY, OTHER_SIZE = "target mask empty or outside the image", "image of another size than its masks"


@dataclass
class CheckReport:
    """What was found. problems: how often each kind occurred; examples: the first few of each, in a sentence."""

    samples: int = 0
    images: int = 0
    targets: int = 0
    no_target: int = 0
    with_references: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def note(self, kind: str, sentence: str) -> None:
        """Counts a problem, and keeps it as an example while there are few."""
        self.problems[kind] += 1
        if len(self.examples.setdefault(kind, [])) < EXAMPLES:
            self.examples[kind].append(sentence)

    def as_json(self) -> dict[str, Any]:
        """Plain containers."""
        return asdict(self) | {"problems": dict(self.problems)}


def check(reader: SampleReader, limit: int | None = None) -> CheckReport:
    """Every sample of a reader (the first `limit`) decoded once; what raises is counted, and the walk goes on."""
    report = CheckReport()
    images = reader.image_ids()
    total = len(reader) if limit is None else min(limit, len(reader))
    report.images = len(set(images[:total]))
    for number in track(range(total), total, "Checking", "samples"):
        report.samples += 1
        try:
            sample = reader[number]
            size = image_size(sample.image) if not hasattr(sample.image, "shape") else sample.image.shape[:2]
        except FileNotFoundError as error:
            report.note(MISSING, str(error))
        except (ValueError, OSError) as error:
            report.note(DAMAGED, str(error))
        else:
            _count(report, sample, (int(size[0]), int(size[1])))
    return report


def _count(report: CheckReport, sample: Sample, size: tuple[int, int]) -> None:
    report.targets += len(sample.targets)
    report.no_target += not sample.targets
    report.with_references += len(sample.prompt.references) > 0
    shape = (int(sample.gt_pool.shape[1]), int(sample.gt_pool.shape[2]))
    if shape != size:
        report.note(
            OTHER_SIZE, f"sample {sample.sample_id}: masks of {list(shape)}, image {sample.image} of {list(size)}"
        )
    empty = [target for target in sample.targets if not sample.gt_pool[target].any()]
    if empty:
        report.note(EMPTY, f"sample {sample.sample_id}, image {sample.image_id}: target {empty[0]} has no pixel")
