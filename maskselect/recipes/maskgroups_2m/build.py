"""Builds MaskGroups-2M, the training data of RAS' second stage (arXiv 2506.05342, section 4.1, appendix B, Table 2).

No image that RefCOCO, RefCOCO+, RefCOCOg or gRefCOCO validates or tests on is used, under whichever name it comes: COCO
and LVIS number images alike, and Visual Genome says which of its images are COCO's.

What the paper leaves open is settled here: which objects overlap enough to be one (IoU 0.7), when a mask made from a
box is good (the box around it and the proposer's score), when a position is clear (wholly on one side), that categories
of which an image has more than was drawn (LVIS' lists, COCO's crowds) are not asked for, and every template.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from maskselect.data.maskgroups_2m import ImageRows
from maskselect.data.refer import ReferFiles
from maskselect.ops.atomic import write_text
from maskselect.recipes.box_masks import ProposerBoxes
from maskselect.recipes.engine import Built, Engine, Record, run
from maskselect.recipes.maskgroups_2m.coco_lvis import CocoLvis
from maskselect.recipes.maskgroups_2m.genome import Genome
from maskselect.recipes.maskgroups_2m.sentences import Sentences
from maskselect.recipes.maskgroups_2m.sources import COCO, FREE, GENOME, REFER, Links, Rules, Source, composition_key

SETS = ("refcoco", "refcoco+", "refcocog", "grefcoco")
"""Whose training sentences are used, and whose validation and test images are left out."""
COMPOSITION = "composition.json"
SPLIT = "train"

TABLE_2: Mapping[tuple[str, str, bool], int] = {
    (COCO, "category", False): 166,
    (COCO, "category", True): 166,
    (GENOME, "category", False): 224,
    (GENOME, "attribute", False): 149,
    (GENOME, "absolute position", False): 132,
    (GENOME, "category", True): 224,
    (GENOME, "attribute", True): 149,
    (GENOME, "relative position", True): 392,
    (GENOME, "interaction", True): 34,
    (REFER, FREE, False): 474,
}
"""Thousands of prompts by source, kind, and whether there is a reference; the paper calls relationships free-form."""


class CompositionRow(NamedTuple):
    """paper: thousands, of its Table 2."""

    source: str
    kind: str
    with_reference: bool
    built: int
    paper: int


@dataclass(frozen=True)
class Roots:
    """Folders of the sources; None leaves one out. refer is needed: it tells which images must not be used."""

    refer: Path
    coco: Path | None = None
    lvis: Path | None = None
    genome: Path | None = None


class _Build:
    """Any unit, by its source."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self.sources = sources

    def build(self, unit: Record) -> Built:
        return self.sources[unit["source"]].build(unit["image"])


def build_maskgroups_2m(
    roots: Roots,
    output: Path,
    sets: Sequence[str] = SETS,
    rules: Rules | None = None,
    boxes: ProposerBoxes | None = None,
    limit: int | None = None,
    per_shard: int = 256,
    engine: Engine = "local",
    workers: int = 1,
) -> tuple[list[CompositionRow], Counter[str]]:
    """Shards in `output`, read by `maskselect.data.maskgroups_2m`, and `composition.json`.

    sets: of the REFER family, see `SETS`.
    boxes: makes masks of Visual Genome's boxes; needed where its root is given.
    limit: only the first so many images of each source.
    per_shard, engine, workers: see `engine.run`. An interrupted build goes on; equal settings give equal files.

    Gives what was built beside the paper's numbers, and everything that was counted.
    Raises FileNotFoundError or ValueError, before anything is written, for a source that is not there or damaged.
    """
    rules = rules or Rules()
    links = Links(output)
    excluded = evaluation_images(roots.refer, sets)
    sources: dict[str, Source] = {REFER: Sentences(roots.refer, tuple(sets), links, rules)}
    if roots.coco is not None or roots.lvis is not None:
        sources[COCO] = CocoLvis(roots.coco, roots.lvis, links, rules)
    if roots.genome is not None:
        if boxes is None:
            raise ValueError("Visual Genome has boxes only; expected a proposer that makes masks of them, such as SAM")
        sources[GENOME] = Genome(roots.genome, boxes, links, rules)
    units = [
        {"source": name, "image": image}
        for name, source in sources.items()
        for image in allowed(source, excluded)[:limit]
    ]
    settings = {
        "rules": asdict(rules),
        "sets": list(sets),
        "sources": sorted(sources),
        "boxes": boxes.name if boxes is not None and roots.genome is not None else "",
    }
    _, counts = run(_Build(sources), units, output, SPLIT, ImageRows(), settings, per_shard, engine, workers)
    counts["images left out, of validation and test"] = len(excluded)
    rows = composition(counts)
    told = {"composition": [row._asdict() for row in rows], "counts": dict(sorted(counts.items())), **settings}
    write_text(output / COMPOSITION, json.dumps(told, indent=1))
    return rows, counts


def evaluation_images(root: Path, sets: Sequence[str] = SETS) -> frozenset[int]:
    """COCO's numbers of all images that any of the sets has outside its training split.

    Raises FileNotFoundError when one of the sets is not there: without it, nobody knows what must be left out.
    """
    return frozenset(int(image) for name in sets for image in ReferFiles(name, root).evaluation_images())


def allowed(source: Source, excluded: frozenset[int]) -> list[int]:
    """The images of a source without those that are evaluated on."""
    return [image for image in source.images() if source.coco_number(image) not in excluded]


def composition(counts: Mapping[str, int]) -> list[CompositionRow]:
    """Prompts by source and kind, beside the paper's Table 2."""
    return [
        CompositionRow(*key, built=counts.get(composition_key(*key), 0), paper=paper) for key, paper in TABLE_2.items()
    ]
