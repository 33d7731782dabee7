"""The builder `text4seg`: a recipe as chat records for other training programs, in the form of ms-swift.

For each part it writes `{part}-00000-of-00012.jsonl` with a record a line, `{query, response, images}`, and `history`
(pairs of question and answer) where a conversation has earlier turns. Images are the original files; a crop is written
to `images/{part}/`. `composition.json` has the counts. Records of one image follow each other, so training has to
shuffle them.
"""

import hashlib
import json
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from maskselect.codecs.boxwise import BoxwiseCodec
from maskselect.codecs.descriptors import DescriptorCodec
from maskselect.data.llava import DialogueGroups
from maskselect.ops.atomic import atomic_file, write_text
from maskselect.recipes.engine import Built, Engine, JsonLines, Record, Shards, run, shard_count
from maskselect.recipes.text4seg.classes import ClassGroups
from maskselect.recipes.text4seg.mixture import FAMILIES, RECIPES, Part, parts_of
from maskselect.structures.groups import Annotated, GroupSource, UnusableImageError, using
from maskselect.structures.left_out import LeftOut, one_line
from maskselect.systems import text_questions

COMPOSITION = "composition.json"
GRIDS: Mapping[str, int] = {"text4seg-ovs": 32, "text4segpp": 64}
"""Side of the grid of a recipe; of the others 16."""
_LEFT_OUT = "left out: "
_QUALITY = 95  # of crops, as JPEG


class RecipeRow(NamedTuple):
    """Images and samples of a part, or of the parts of one root, with the paper's numbers; None if it states none."""

    part: str
    passes: int
    images: int
    samples: int
    paper_images: int | None
    paper_samples: int | None


def codec_of(recipe: str, grid: int | None = None) -> DescriptorCodec | BoxwiseCodec:
    """The codec of a recipe: row-wise run lengths, or boxes with bricks for Text4Seg++.

    Args:
        recipe: one of `RECIPES`.
        grid: cells of a side; None for the paper's.

    Raises:
        ValueError: the codec has no such grid.
    """
    side = GRIDS.get(recipe, 16) if grid is None else grid
    codec = BoxwiseCodec(bins=side) if recipe == "text4segpp" else DescriptorCodec(grid=side)
    if isinstance(codec, DescriptorCodec):
        assert codec.shape  # raises for a grid that is too large
    return codec


def count_recipe(recipe: str, roots: Mapping[str, Path], parts: Sequence[str] | None = None) -> list[RecipeRow]:
    """Images and samples of each part, from the annotations alone.

    Raises:
        ValueError, FileNotFoundError: as `build_records`.
    """
    found = []
    for part in parts_of(recipe, roots, parts):
        source = part.open(Path(roots[part.root]))
        if part.kind == "prompts":
            samples = part.passes * sum(map(source.prompts_of, range(len(source))))
        elif part.kind == "dialogues":
            samples = part.passes * len(source)
        else:
            samples = len(source) * (1 if part.together else source.prompts_of(0))
        found.append(_row(part, source, samples))
    return _with_families(recipe, roots, found)


def build_records(
    recipe: str,
    roots: Mapping[str, Path],
    output: Path,
    parts: Sequence[str] | None = None,
    grid: int | None = None,
    seed: int = 0,
    limit: int | None = None,
    per_shard: int = 1024,
    engine: Engine = "local",
    workers: int = 1,
) -> tuple[list[RecipeRow], Counter[str], LeftOut]:
    """Write the records of a recipe, or resume a build. Equal settings give equal files.

    For per_shard, engine and workers see `engine.run`.

    Args:
        recipe, roots, parts: see `mixture.parts_of`.
        grid: see `codec_of`.
        seed: of crops, classes and sentences.
        limit: number of first images of each pass over a part; None for all.

    Returns:
        The rows of the table, the counts of all parts, and the images and prompts that were left out. The next call
        tries those again.

    Raises:
        ValueError: an argument is wrong or data are damaged as a whole; nothing is written.
        FileNotFoundError: data are missing; nothing is written.
    """
    codec, output = codec_of(recipe, grid), output.absolute()
    opened = [(part, part.open(Path(roots[part.root]), seed)) for part in parts_of(recipe, roots, parts)]
    rows: list[RecipeRow] = []
    all_counts, left_out = Counter[str](), LeftOut()
    for part, source in opened:
        units = [{"pass": n, "item": item} for n in range(part.repeats) for item in range(len(source))[:limit]]
        worker = RecordWriter(part, Path(roots[part.root]).absolute(), codec, output / "images" / part.name, seed)
        settings = {
            "recipe": recipe,
            "part": asdict(part),
            "root": str(worker.root),
            "codec": type(codec).__name__,
            **asdict(codec),
            "seed": seed,
            "sentences": _digest_of_sentences(),
        }
        _try_again(Shards(output, part.name, JsonLines(), shard_count(len(units), per_shard)))
        _, counts = run(
            worker,
            units,
            output,
            part.name,
            JsonLines(),
            settings,
            per_shard,
            engine,
            workers,
            message=lambda counts, name=part.name: f"{name}, {counts['records']} records",  # type: ignore[misc]
        )
        rows.append(_row(part, source, counts["records"], limit))
        for key, number in counts.items():
            if key.startswith(_LEFT_OUT):
                left_out.add(*json.loads(key.removeprefix(_LEFT_OUT)))
            else:
                all_counts[key] += number
    rows = _with_families(recipe, roots, rows)
    content = {"recipe": recipe, "seed": seed, "limit": limit, "parts": [row._asdict() for row in rows]}
    content |= {"counts": dict(sorted(all_counts.items())), "left out": left_out.as_json()}
    write_text(output / COMPOSITION, json.dumps(content, indent=1))
    return rows, all_counts, left_out


class RecordWriter:
    """Writes the records of one part; the worker of `engine.run`.

    Args:
        part, root: the data.
        codec: writes the masks.
        pictures: folder for images that are in no file of their own.
        seed: of every choice.
    """

    def __init__(
        self, part: Part, root: Path, codec: DescriptorCodec | BoxwiseCodec, pictures: Path, seed: int
    ) -> None:
        self.part, self.root, self.codec, self.pictures, self.seed = part, root, codec, pictures, seed

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "source"}

    @cached_property
    def source(self) -> GroupSource:
        """The data, opened at first use."""
        return self.part.open(self.root, self.seed)

    def build(self, unit: Record) -> Built:
        """The records of an image; one that cannot be used is counted as left out, by its name."""
        rng = np.random.default_rng((self.seed, zlib.crc32(self.part.name.encode()), unit["pass"], unit["item"]))
        built = Built()
        try:
            with using(self.source, unit["item"]):
                records = self._records(unit["item"], rng, built.counts)
        except UnusableImageError as error:
            built.counts[_left_out(error.image, str(error).removeprefix(f"image {error.image}: "))] = 1
            return built
        built.records += records
        built.counts.update({"images": 1, "records": len(records)})
        return built

    def _records(self, item: int, rng: np.random.Generator, counts: Counter[str]) -> list[Record]:
        if isinstance(self.source, DialogueGroups):
            conversation = self.source.captions[item]
            return [_record(conversation.turns, conversation.image)]
        annotated = self.source.load(item)
        texts: list[tuple[str, str]] = []
        for query in self.source.queries(item, annotated.extra, self.source.prompts_of(item), rng):
            masks = annotated.masks[list(query.targets)]
            try:
                texts.append(text_questions.written(query, masks, self.codec, "prompt", "sentences", rng))
            except ValueError as error:
                name = f"{self.source.image_id(item)}, prompt {query.text[:60]!r}"
                counts[_left_out(name, one_line(error))] += 1
                continue
            counts["prompts without a target"] += not query.targets
            counts["targets without a pixel"] += int((~masks.flatten(1).any(1)).sum())
        if not texts:
            return []
        picture = self._picture(annotated, item)
        return [_record(texts, picture)] if self.part.together else [_record([text], picture) for text in texts]

    def _picture(self, annotated: Annotated, item: int) -> Path:
        """The file of the image, which is written if there is none."""
        if annotated.file is not None:
            return annotated.file.absolute()
        name = re.sub(r"[^\w.@-]", "_", self.source.image_id(item).partition("/")[2])
        path = self.pictures / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            Image.fromarray(annotated.image).save(file, format="JPEG", quality=_QUALITY)
        return path


def _left_out(name: str, reason: str) -> str:
    """The name of the count of something left out."""
    return _LEFT_OUT + json.dumps([name, reason])


def _record(turns: Sequence[tuple[str, str]], image: Path) -> Record:
    *earlier, (query, response) = turns
    record: Record = {"query": query, "response": response, "images": [str(image.absolute())]}
    return record | ({"history": [list(turn) for turn in earlier]} if earlier else {})


def _row(part: Part, source: GroupSource, samples: int, limit: int | None = None) -> RecipeRow:
    images = len(source.images) if isinstance(source, ClassGroups) else len(source)
    images = images if limit is None else min(images, limit)
    return RecipeRow(part.name, part.passes, images, samples, part.images, part.samples)


def _with_families(recipe: str, roots: Mapping[str, Path], rows: list[RecipeRow]) -> list[RecipeRow]:
    """The rows, and a row with the sum of the parts that the paper counts together, if all of them are there."""
    rows = list(rows)
    for (name, root), (images, samples) in FAMILIES.items():
        own = [part.name for part in RECIPES[recipe] if part.root == root and part.samples is None]
        counted = [row for row in rows if row.part in own]
        if name == recipe and len(counted) == len(own):
            total = sum(row.images for row in counted), sum(row.samples for row in counted)
            place = rows.index(counted[-1]) + 1
            rows.insert(place, RecipeRow(f"= {', '.join(own)}", counted[0].passes, *total, images, samples))
    return rows


def _try_again(shards: Shards) -> None:
    """Reopen the shards with something left out, because it may be repaired now."""
    for number in range(shards.total):
        if shards.is_done(number):
            counts = json.loads(shards.counts_path(number).read_text())
            if any(key.startswith(_LEFT_OUT) for key in counts):
                shards.counts_path(number).unlink()


def _digest_of_sentences() -> str:
    texts = text_questions.QUESTIONS, text_questions.ANSWERS, text_questions.NO_TARGET_ANSWERS
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:12]
