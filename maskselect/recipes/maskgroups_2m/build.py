"""Builds MaskGroups-2M, the training data of RAS' second stage (arXiv 2506.05342, section 4.1, appendix B, Table 2).

Images of the validation and test splits of RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO are left out, in every source:
COCO and LVIS use the same image ids, and Visual Genome lists the COCO ids of its images.

These rules are ours, because the paper does not state them: the IoU of masks that are merged (0.7), the checks of a
mask made from a box (its bounding box and the proposer's score), the definition of a clear position (wholly on one
side), superlatives, no prompt for categories with instances without a mask (LVIS' lists, COCO's crowds), and all
templates.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from maskselect.data import refer
from maskselect.data.maskgroups_2m import ImageRows
from maskselect.ops.atomic import write_text
from maskselect.recipes.box_masks import ProposerBoxes
from maskselect.recipes.engine import Built, Engine, Record, run
from maskselect.recipes.maskgroups_2m.coco_lvis import CocoLvis
from maskselect.recipes.maskgroups_2m.genome import Genome
from maskselect.recipes.maskgroups_2m.sentences import Sentences
from maskselect.recipes.maskgroups_2m.sources import COCO, FREE, GENOME, REFER, Links, Rules, Source, composition_key

SETS = ("refcoco", "refcoco+", "refcocog", "grefcoco")
"""The default REFER sets: their training sentences are used, their validation and test images left out."""
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
"""Thousands of prompts by source, kind, and presence of a reference. The paper calls relationships free-form."""


class CompositionRow(NamedTuple):
    """Number of prompts built, and the paper's in thousands (its Table 2)."""

    source: str
    kind: str
    with_reference: bool
    built: int
    paper: int


@dataclass(frozen=True)
class Roots:
    """Folders of the sources; None leaves a source out. `refer` is required: it lists the images to leave out."""

    refer: Path
    coco: Path | None = None
    lvis: Path | None = None
    genome: Path | None = None


class _Build:
    """The builder's worker, see `engine.Worker`: builds a unit by its source."""

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
    """Write shards, which `maskselect.data.maskgroups_2m` reads, and `composition.json`, or resume a build.

    Equal settings give equal files. For per_shard, engine and workers see `engine.run`.

    Args:
        sets: of the REFER family, see `SETS`.
        boxes: makes masks of Visual Genome's boxes; required with its root.
        limit: number of images of each source; None for all.

    Returns:
        The composition beside the paper's, and all counts.

    Raises:
        FileNotFoundError: a source is missing; nothing is written.
        ValueError: a source is damaged or `boxes` is missing; nothing is written.
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
        for image in [one for one in source.images() if source.coco_id(one) not in excluded][:limit]
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
    content = {"composition": [row._asdict() for row in rows], "counts": dict(sorted(counts.items())), **settings}
    write_text(output / COMPOSITION, json.dumps(content, indent=1))
    return rows, counts


def evaluation_images(root: Path, sets: Sequence[str] = SETS) -> frozenset[int]:
    """The COCO ids of all images in the validation and test splits of the sets.

    Raises:
        FileNotFoundError: a set is missing, so that its images cannot be left out.
    """
    return frozenset(int(image) for image in refer.evaluation_images(root, sets))


def composition(counts: Mapping[str, int]) -> list[CompositionRow]:
    """The number of prompts by source and kind, beside the paper's Table 2."""
    return [
        CompositionRow(*key, built=counts.get(composition_key(*key), 0), paper=paper) for key, paper in TABLE_2.items()
    ]
