"""The builder `llm-seg40k`: reasoning questions, each with the mask that answers it.

The recipe is LLM-Seg's (arXiv 2404.08767, section 4.2): images of LVIS and EgoObjects, a LLaVA that describes them, a
language model that writes questions, rules that check them.

It writes `{train,validation,test}.json`, which `maskselect/data/llm_seg40k.py` reads and describes, and `report.json`:
counts of sampled images and of kept and refused questions. Beside them are `shards/` (of the engine) and `kept/`
(captions and replies, so that a resumed build does not pay twice; it may be deleted after the build).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from maskselect.data.coco import CocoQuestions
from maskselect.data.lvis import EgoObjectsDataset, LvisDataset
from maskselect.ops.atomic import atomic_files
from maskselect.recipes.box_masks import ProposerBoxes
from maskselect.recipes.engine import Engine, JsonLines, Record, Shards, run, shard_count
from maskselect.recipes.llm_seg40k.answers import REASONS, Rules, words
from maskselect.recipes.llm_seg40k.captioners import Captioner
from maskselect.recipes.llm_seg40k.images import SPLITS, Chosen, Tally, choose, groups, order
from maskselect.recipes.llm_seg40k.language_models import LanguageModel
from maskselect.recipes.llm_seg40k.worker import EMPTY_MASK, EXAMPLE, REQUEST, QuestionMaker

PUBLISHED = {
    "images": {"LVIS simple": 6000, "LVIS complex": 4000, "EgoObjects": 3000},
    "splits": {"train": 11000, "validation": 1000, "test": 2000},
    "questions an image": 3.95,
    "words a question": 15.2,
}
"""The paper's figures (the last two of train). Its splits add up to 14,000 images, its sorts to 13,000."""

_VERSION = 2  # of the rules and the sampling: the engine refuses to resume a build of another version
_PICTURES = {"coco": "coco/train2017", "ego_objects": "egoobjects/images"}


@dataclass(frozen=True)
class Settings:
    """Settings of a build. The defaults are the paper's, where it states them.

    Attributes:
        shares: ratios of train, validation and test.
        attempts: requests an image, each with another seed, until a reply is readable.
        seed: of the sample and the requests.
        exhaustive: leave out the categories of which an LVIS image has instances without a mask.
        write_png: also write the masks as PNG files, in `masks/`.

    Raises:
        ValueError: a number is out of range.
    """

    simple: int = 6000
    complex: int = 4000
    ego_objects: int = 3000
    shares: tuple[float, float, float] = (11, 1, 2)
    rules: Rules = field(default_factory=Rules)
    attempts: int = 2
    seed: int = 0
    lvis_version: Literal["v1", "v0.5"] = "v1"
    ego_split: Literal["train", "val", "test"] = "train"
    exhaustive: bool = False
    write_png: bool = False

    def __post_init__(self) -> None:
        counts = self.simple, self.complex, self.ego_objects
        if min(counts) < 0 or sum(counts) == 0:
            raise ValueError(f"numbers of images are {counts}; expected at least 0 each, and a sum above 0")
        if len(self.shares) != 3 or min(self.shares) < 0 or not 0 < sum(self.shares) < float("inf"):
            raise ValueError(
                f"shares are {self.shares}; expected those of train, validation and test, such as 11, 1, 2"
            )
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, got {self.attempts}")


def build_llm_seg40k(
    output: str | Path,
    captioner: Captioner,
    model: LanguageModel,
    lvis_root: str | Path | None = None,
    ego_root: str | Path | None = None,
    boxes: ProposerBoxes | None = None,
    settings: Settings | None = None,
    engine: Engine = "local",
    workers: int = 1,
    per_shard: int = 16,
) -> Record:
    """Build the data set in a folder, or resume an interrupted build.

    The folders of the pictures are linked into `output`. For engine, workers and
    per_shard see `engine.run`; the result does not depend on them.

    Args:
        lvis_root: see `data.lvis`; None leaves LVIS out.
        ego_root: see `data.lvis`; None leaves EgoObjects out.
        boxes: makes masks of EgoObjects' boxes, as SAM did for the paper.

    Returns:
        The content of `report.json`.

    Raises:
        FileNotFoundError: a file of a data set or model is missing.
        ValueError: a data set, setting or model cannot be used, or no question passed.
    """
    output, settings = Path(output), settings or Settings()
    if per_shard < 1 or workers < 1:
        raise ValueError(f"per_shard and workers must be at least 1, got {per_shard} and {workers}")
    if settings.ego_objects and ego_root is not None and boxes is None:
        raise ValueError("EgoObjects has boxes only; expected a proposer that makes masks of them, such as SAM")
    readers = _readers(settings, lvis_root, ego_root)
    chosen, tallies = _chosen(settings, readers)
    if not chosen:
        sizes = ", ".join(f"{name}: {tally.found} of {tally.wanted} wanted" for name, tally in tallies.items())
        raise ValueError(f"no image to ask about was found ({sizes}); expected images of two or more categories")
    kept = output.absolute() / "kept"
    masks = output.absolute() / "masks" if settings.write_png else None
    worker = QuestionMaker(
        readers, captioner, model, boxes, settings.rules, settings.seed, settings.attempts, kept, masks
    )
    names = {
        "captioner": captioner.name,
        "language model": model.name,
        "boxes": boxes.name if boxes is not None and "ego_objects" in readers else "",
    }
    request = hashlib.sha256((REQUEST + EXAMPLE).encode()).hexdigest()[:12]
    depends = {"version": _VERSION, "request": request} | names | asdict(settings)
    units = [asdict(image) for image in chosen]
    shards = output.absolute() / "shards"
    _try_skipped_again(Shards(shards, "images", JsonLines(), shard_count(len(units), per_shard)))
    files, counts = run(worker, units, shards, "images", JsonLines(), depends, per_shard, engine, workers)
    return _publish(output, readers, files, counts, {"models": names, "settings": asdict(settings)}, tallies)


def _readers(settings: Settings, lvis_root: str | Path | None, ego_root: str | Path | None) -> dict[str, CocoQuestions]:
    """The data sets with images to sample, by source."""
    readers: dict[str, CocoQuestions] = {}
    if lvis_root is not None and settings.simple + settings.complex:
        # Its training images are all in train2017, where the published form expects them.
        readers["coco"] = LvisDataset(lvis_root, "train", version=settings.lvis_version, exhaustive=settings.exhaustive)
    if ego_root is not None and settings.ego_objects:
        readers["ego_objects"] = EgoObjectsDataset(ego_root, settings.ego_split)
    if not readers:
        raise ValueError("there is nothing to build from; expected the root of LVIS or of EgoObjects, or both")
    return readers


def _chosen(settings: Settings, readers: Mapping[str, CocoQuestions]) -> tuple[list[Chosen], dict[str, Tally]]:
    chosen: list[Chosen] = []
    tallies: dict[str, Tally] = {}
    for group in groups(settings.simple, settings.complex, settings.ego_objects):
        if group.source not in readers:
            tallies[group.name] = Tally(group.wanted, 0, 0)
            continue
        images, tallies[group.name] = choose(group, readers[group.source], settings.shares, settings.seed)
        chosen += images
    # Shuffled, so that all shards take about as long, and mix sorts, splits and files.
    return sorted(chosen, key=lambda one: order(settings.seed, "turn", one.source, one.image_id)), tallies


def _try_skipped_again(shards: Shards) -> None:
    """Reopen the shards with an unusable image: it may be repaired now. The replies for the others are kept."""
    for number in range(shards.total):
        if shards.is_done(number) and any("problem" in record for record in JsonLines.read(shards.path(number))):
            shards.counts_path(number).unlink()


def _publish(
    output: Path,
    readers: Mapping[str, CocoQuestions],
    files: list[Path],
    counts: Counter[str],
    head: Record,
    tallies: Mapping[str, Tally],
) -> Record:
    """Write the published files and the report from the shards."""
    splits: dict[str, Record] = {split: {} for split in SPLITS}
    skipped: list[str] = []
    without = 0
    for record in (record for file in files for record in JsonLines.read(file)):
        if "problem" in record:
            skipped.append(f"image {record['image_id']}: {record['problem']}")
        elif not record["qa_pairs"]:
            without += 1
        elif any(record["image"] in split for split in splits.values()):
            skipped.append(f"image {record['image']}: another one has the same file name")
        else:
            published = {"from_dataset": record["from_dataset"], "qa_pairs": record["qa_pairs"]}
            splits[record["split"]][record["image"]] = published
    report = head | {
        "sampled": {name: tally._asdict() for name, tally in tallies.items()},
        "images": {
            "asked": counts["images"] - counts["images skipped"],
            "without a question": without,
            "skipped": skipped,
        },
        "questions": _questions(counts),
        "splits": {split: _summary(images) for split, images in splits.items()},
        "published": PUBLISHED,
    }
    if not any(splits.values()):
        refused = [f"{reason}: {number}" for reason, number in report["questions"]["rejected"].items() if number]
        raise ValueError(
            f"no question passed of {counts['images']} images, and nothing was written "
            f"({'; '.join([*refused, *skipped[:1]]) or 'none was offered'})"
        )
    contents = {f"{split}.json": images for split, images in splits.items()} | {"report.json": report}
    output.mkdir(parents=True, exist_ok=True)
    with atomic_files(*(output / name for name in contents), durable=True) as parts:
        for part, (name, content) in zip(parts, contents.items(), strict=True):
            part.write_text(json.dumps(content, indent=1 if name == "report.json" else None))
    for source, reader in readers.items():
        _link_pictures(output / _PICTURES[source], reader.images.roots)
    return report


def _questions(counts: Mapping[str, int]) -> Record:
    refused = {reason: counts.get(f"rejected: {reason}", 0) for reason in (*REASONS, EMPTY_MASK)}
    return {name: counts.get(name, 0) for name in ("replies", "offered", "kept")} | {"rejected": refused}


def _summary(images: Mapping[str, Any]) -> Record:
    pairs = [pair for image in images.values() for pair in image["qa_pairs"]]
    lengths = [len(words(pair["question"])) for pair in pairs]
    return {
        "images": len(images),
        "questions": len(pairs),
        "questions an image": round(len(pairs) / max(1, len(images)), 2),
        "words a question": round(sum(lengths) / max(1, len(pairs)), 1),
        "categories": len({pair["answer"] for pair in pairs}),
    }


def _link_pictures(place: Path, roots: list[Path]) -> None:
    """Link the folder of pictures to where the reader expects it, unless something is there."""
    folder = next((root for root in roots if root.name == place.name), roots[0])
    place.parent.mkdir(parents=True, exist_ok=True)
    # A file system without links: the user can put the pictures there by hand.
    with suppress(OSError):
        place.symlink_to(folder.absolute(), target_is_directory=True)
