"""The builder `llm-seg40k`: questions that take reasoning, each with the mask that answers it.

The recipe is LLM-Seg's (arXiv 2404.08767, section 4.2): images of LVIS and EgoObjects, a LLaVA that describes them, a
language model that writes questions, rules that check them.

Written are `{train,validation,test}.json`, which `maskselect/data/llm_seg40k.py` reads and describes, and
`report.json`: what was sampled, kept and refused. Beside them lie `shards/` (the engine's) and `kept/` (captions and
replies as they came, so that an interrupted build asks nothing twice; it may be deleted when all is done).
"""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from maskselect.data.coco import CocoQuestions
from maskselect.data.lvis import EgoObjectsDataset, LvisDataset
from maskselect.ops.atomic import atomic_files
from maskselect.recipes.box_masks import ProposerBoxes
from maskselect.recipes.engine import Engine, JsonLines, Record, Shards, run
from maskselect.recipes.llm_seg40k.answers import REASONS, Rules, words
from maskselect.recipes.llm_seg40k.captioners import Captioner
from maskselect.recipes.llm_seg40k.images import SPLITS, Chosen, Tally, choose, groups, order
from maskselect.recipes.llm_seg40k.kept import Kept
from maskselect.recipes.llm_seg40k.language_models import LanguageModel
from maskselect.recipes.llm_seg40k.worker import EMPTY_MASK, REQUEST, QuestionMaker

PUBLISHED = {
    "images": {"LVIS simple": 6000, "LVIS complex": 4000, "EgoObjects": 3000},
    "splits": {"train": 11000, "validation": 1000, "test": 2000},
    "questions an image": 3.95,
    "words a question": 15.2,
}
"""The paper's figures (the last two of train); its splits are about 14,000 images, its sorts 13,000."""

_VERSION = 1  # of the rules and the sampling: a folder that was begun with others is not gone on with
_PICTURES = {"coco": "coco/train2017", "ego_objects": "egoobjects/images"}


@dataclass(frozen=True)
class Settings:
    """What is built. The defaults are the paper's, as far as it tells.

    simple, complex, ego_objects: images of each sort.  shares: of train, validation and test, as ratios.
    rules: how many questions are wanted of an image, and how long they may be.
    attempts: how often the model is asked while its replies cannot be read, each time with another seed.
    exhaustive: without the categories of an LVIS image of which not every instance was drawn.
    write_png: masks as PNG files too, in `masks/`.
    Raises ValueError for numbers that cannot be.
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
            raise ValueError(f"numbers of images are {counts}; expected none below 0 and one above")
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
    """Builds the data set in a folder, going on where an earlier call stopped, and gives what `report.json` holds.

    lvis_root, ego_root: see `data.lvis`; without one its images are left out.
    boxes: makes masks of EgoObjects' boxes, as SAM did for the paper.
    engine, workers, per_shard: see `engine.run`. The result does not depend on them.

    The pictures' folders are linked into `output`, where it has none, so that it can be read at once.
    Raises FileNotFoundError or ValueError for a data set, setting or model that cannot be used, or when nothing passed.
    """
    output, settings = Path(output), settings or Settings()
    if per_shard < 1 or workers < 1:
        raise ValueError(f"per_shard and workers must be at least 1, got {per_shard} and {workers}")
    if settings.ego_objects and ego_root is not None and boxes is None:
        raise ValueError("EgoObjects has boxes only; expected a proposer that makes masks of them, such as SAM")
    readers = _readers(settings, lvis_root, ego_root)
    chosen, tallies = _chosen(settings, readers)
    if not chosen:
        told = ", ".join(f"{name}: {tally.found} of {tally.wanted} wanted" for name, tally in tallies.items())
        raise ValueError(f"no image to ask about was found ({told}); expected images of two or more categories")
    kept = Kept(output.absolute() / "kept")
    masks = output.absolute() / "masks" if settings.write_png else None
    worker = QuestionMaker(
        readers, captioner, model, boxes, settings.rules, settings.seed, settings.attempts, kept, masks
    )
    names = {
        "captioner": captioner.name,
        "language model": model.name,
        "boxes": boxes.name if boxes is not None and "ego_objects" in readers else "",
    }
    depends = {"version": _VERSION, "request": _digest(REQUEST)} | names | asdict(settings)
    units = [asdict(image) for image in chosen]
    shards = output.absolute() / "shards"
    _try_skipped_again(Shards(shards, "images", JsonLines(), -(-len(units) // per_shard)))
    files, counts = run(worker, units, shards, "images", JsonLines(), depends, per_shard, engine, workers)
    return _publish(output, readers, files, counts, {"models": names, "settings": asdict(settings)}, tallies)


def _readers(settings: Settings, lvis_root: str | Path | None, ego_root: str | Path | None) -> dict[str, CocoQuestions]:
    """The data sets of which images are wanted, by source."""
    readers: dict[str, CocoQuestions] = {}
    if lvis_root is not None and settings.simple + settings.complex:
        # Of the training images alone: all of them are in train2017, where the published form has its pictures.
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
        found, tallies[group.name] = choose(group, readers[group.source], settings.shares, settings.seed)
        chosen += found
    # Mixed, so that every shard takes about as long, and sorts, splits and files do not follow each other.
    return sorted(chosen, key=lambda one: order(settings.seed, "turn", one.source, one.image_id)), tallies


def _try_skipped_again(shards: Shards) -> None:
    """Opens the shards again in which an image could not be used: it may have been mended. The others' replies are
    kept, so that this costs nothing."""
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
    """The published files and the report, out of the shards."""
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
    told = head | {
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
        refused = [f"{reason}: {number}" for reason, number in told["questions"]["rejected"].items() if number]
        raise ValueError(
            f"no question passed of {counts['images']} images, and nothing was written "
            f"({'; '.join([*refused, *skipped[:1]]) or 'none was offered'})"
        )
    contents = {f"{split}.json": images for split, images in splits.items()} | {"report.json": told}
    _write_all(output, contents)
    for source, reader in readers.items():
        _link_pictures(output / _PICTURES[source], reader.images.roots)
    return told


def _questions(counts: Mapping[str, int]) -> Record:
    refused = {reason: counts.get(f"rejected: {reason}", 0) for reason in (*REASONS, EMPTY_MASK)}
    told = {name: counts.get(name, 0) for name in ("replies", "offered", "kept")}
    return told | {"rejected": refused}


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


def _write_all(folder: Path, contents: Mapping[str, Record]) -> None:
    """JSON files, all of them written before the first gets its name."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_files(*(folder / name for name in contents), durable=True) as parts:
        for part, (name, content) in zip(parts, contents.items(), strict=True):
            part.write_text(json.dumps(content, indent=1 if name == "report.json" else None))


def _link_pictures(place: Path, roots: list[Path]) -> None:
    """A link to the folder of pictures where the reader looks for it; none where something is already there."""
    folder = next((root for root in roots if root.name == place.name), roots[0])
    place.parent.mkdir(parents=True, exist_ok=True)
    # Not every file system has links; the data set is whole without them, and its pictures can be put there by hand.
    with contextlib.suppress(OSError):
        place.symlink_to(folder.absolute(), target_is_directory=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
