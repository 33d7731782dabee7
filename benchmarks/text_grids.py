"""Tokens and quality of masks as text, by grid and layout: what a codec alone costs and loses, without any model.

    python benchmarks/text_grids.py --data ../shared/data --write     # table and picture into docs/results/text4seg.md
    python benchmarks/text_grids.py --tokenizer tokenizer.json        # with the tokenizer of a language model, too

Every ground-truth mask is written and read back by each codec. Tokens: mean over masks. IoU: mean IoU of the mask that
was read back with the ground truth: what a model that writes these texts without fault reaches without a refiner.
Masks: the targets of prompts of generated scenes (split val), united by prompt; with --data annotated objects of
`photos` (val.json) and of COCO (`coco128`); at most three of an image. Without --tokenizer only the compact tokenizer
counts.
Refiners are slow, so they run on the first --refined masks of each source, beside their own figure without refiner.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from tokenizers import Tokenizer
from torch import Tensor

from maskselect.backends.progress import track
from maskselect.codecs.boxwise import BoxwiseCodec
from maskselect.codecs.descriptors import DescriptorCodec
from maskselect.data.images import load_image
from maskselect.ops.atomic import write_text
from maskselect.ops.rle import decode, to_compressed
from maskselect.scenes.samples import ask_scenes
from maskselect.structures.codec import Codec
from maskselect.structures.refiner import Refiner
from maskselect.systems.refining import load_refiner

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "results" / "text4seg.md"
MARKS = ("<!-- grids: benchmarks/text_grids.py --write -->", "<!-- end of grids -->")
COMPACT = ROOT / "maskselect" / "lmm" / "compact_tokenizer.json"
GRIDS = (16, 24, 32, 64)
PER_IMAGE = 3
COLOURS = {"full": "#888888", "I-RLE": "#1f77b4", "R-RLE": "#2ca02c", "boxes": "#ff7f0e", "bricks": "#d62728"}
Case = tuple[np.ndarray, np.ndarray, str]
"""Image (H, W, 3) uint8, mask (H, W) bool, label."""


def codecs(grid: int) -> dict[str, Codec]:
    """The layouts of a grid."""
    return {
        "full": DescriptorCodec(grid, "full"),
        "I-RLE": DescriptorCodec(grid, "image"),
        "R-RLE": DescriptorCodec(grid, "row"),
        "boxes": BoxwiseCodec(grid, bricks=False),
        "bricks": BoxwiseCodec(grid),
    }


def scenes() -> Iterator[Case]:
    """Every prompt with a target and without a reference."""
    for scene in ask_scenes("val", 0, 10**4):
        asked = [prompt for prompt in scene.prompts if prompt.targets and not prompt.references]
        for prompt in asked[:PER_IMAGE]:
            yield scene.image, scene.masks[list(prompt.targets)].any(0), prompt.text


def annotated(file: Path, images: Path) -> Iterator[Case]:
    """Objects of a file in COCO format that are no crowds, and their categories."""
    data = json.loads(file.read_text())
    names = {category["id"]: category["name"] for category in data["categories"]}
    objects: dict[int, list[dict[str, object]]] = {}
    for annotation in data["annotations"]:
        if not annotation.get("iscrowd"):
            objects.setdefault(annotation["image_id"], []).append(annotation)
    for image in data["images"]:
        size = (image["height"], image["width"])
        found = [
            (decode(to_compressed(one["segmentation"], size), size), names[one["category_id"]])  # type: ignore[index, arg-type]
            for one in objects.get(image["id"], [])[:PER_IMAGE]
        ]
        pixels = load_image(images / image["file_name"]) if found else None
        for mask, label in found:
            if mask.any() and pixels is not None:
                yield pixels, mask, label


@dataclass
class Figures:
    """Means over the masks of a source, by grid.

    tokens: of each layout and tokenizer; unrefined: IoU of image-wise and box-wise texts; refined: IoU of each refiner.
    """

    masks: int = 0
    refined_masks: int = 0
    tokens: dict[tuple[int, str, str], float] = field(default_factory=dict)
    unrefined: dict[tuple[int, str], float] = field(default_factory=dict)
    refined: dict[tuple[int, str], float] = field(default_factory=dict)


def iou(found: Tensor, truth: np.ndarray) -> float:
    """IoU of the union of masks (M, H, W) bool with a mask (H, W) bool."""
    joined = found.any(0).numpy()
    return float(np.count_nonzero(joined & truth) / np.count_nonzero(joined | truth))


def measure(cases: list[Case], refined: int, tokenizers: dict[str, Path], refiners: dict[str, Refiner]) -> Figures:
    """Figures of one source."""
    out = Figures(len(cases), min(refined, len(cases)))
    layouts = {(grid, name): codec for grid in GRIDS for name, codec in codecs(grid).items()}
    tokens: dict[tuple[int, str, str], list[int]] = {}
    unrefined: dict[tuple[int, str], list[float]] = {}
    better: dict[tuple[int, str], list[float]] = {}
    for number, (image, truth, label) in enumerate(track(cases, len(cases), "masks")):
        size = (image.shape[0], image.shape[1])
        for (grid, name), codec in layouts.items():
            text = codec.encode(torch.from_numpy(truth[None]), [label])
            for title, file in tokenizers.items():
                count = len(counting(file, codec.tokens).encode(text, add_special_tokens=False).ids)
                tokens.setdefault((grid, name, title), []).append(count)
            if name not in ("R-RLE", "bricks"):
                continue  # the others of its kind hold the same cells
            masks = codec.decode(text, size, [label]).masks
            unrefined.setdefault((grid, name), []).append(iou(masks, truth))
            if name == "bricks" and number < refined:
                better.setdefault((grid, "none"), []).append(unrefined[grid, name][-1])
                for title, refiner in refiners.items():
                    found = refiner.refine(image, masks)
                    better.setdefault((grid, title), []).append(iou(found if found.any() else masks, truth))
    out.tokens = {key: float(np.mean(values)) for key, values in tokens.items()}
    out.unrefined = {key: float(np.mean(values)) for key, values in unrefined.items()}
    out.refined = {key: float(np.mean(values)) for key, values in better.items()}
    return out


@cache
def counting(file: Path, tokens: tuple[str, ...]) -> Tokenizer:
    """A tokenizer with further tokens."""
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.add_special_tokens(list(tokens))
    return tokenizer


def table(found: dict[str, Figures], titles: list[str], refiners: list[str]) -> list[str]:
    """Markdown tables: tokens, then IoU in percent."""
    layouts = list(codecs(16))
    lines = [
        f"Mean tokens of a mask, {' / '.join(titles)} tokenizer; mean IoU of the decoded ground truth without refiner, "
        "in percent. `boxes` is box-wise without bricks as tokens, `bricks` with.",
        "",
        f"| masks | grid | {' | '.join(layouts)} | IoU, image-wise | IoU, box-wise |",
        "|" + "---|" * (len(layouts) + 4),
    ]
    for source, figures in found.items():
        for grid in GRIDS:
            counts = [" / ".join(f"{figures.tokens[grid, n, title]:.0f}" for title in titles) for n in layouts]
            values = [f"{100 * figures.unrefined[grid, name]:.1f}" for name in ("R-RLE", "bricks")]
            lines.append(f"| {source}, {figures.masks} | {grid} | {' | '.join(counts + values)} |")
    lines += [
        "",
        "Mean IoU of decoded box-wise texts in percent, on the first masks of each source, without and with refiners "
        "(compact SAM).",
        "",
        f"| masks | grid | none | {' | '.join(f'`{name}`' for name in refiners)} |",
        "|" + "---|" * (len(refiners) + 3),
    ]
    for source, figures in found.items():
        for grid in GRIDS:
            values = [f"{100 * figures.refined[grid, name]:.1f}" for name in ("none", *refiners)]
            lines.append(f"| {source}, {figures.refined_masks} | {grid} | {' | '.join(values)} |")
    return lines


def picture(found: dict[str, Figures], title: str, refiners: list[str]) -> Image.Image:
    """IoU over tokens: a column for each source, a row without refiner and one for each refiner.

    Grids are numbered on the line of `full`; the other lines have the same grids from left to right. The first row is
    of all masks, the others are of those that were refined.
    """
    rows, width, height, left, top = ["none", *refiners], 640, 460, 90, 60
    canvas = Image.new("RGB", (width * len(found), height * len(rows) + 60), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(20)
    counts = [value for f in found.values() for (_, _, name), value in f.tokens.items() if name == title]
    low, high = np.log10(min(counts) * 0.8), np.log10(max(counts) * 1.25)
    quality = [value for f in found.values() for value in (*f.refined.values(), *f.unrefined.values())]
    floor = np.floor(10 * min(quality)) / 10
    for column, (source, figures) in enumerate(found.items()):
        for row, refiner in enumerate(rows):
            x0, y0 = column * width + left, row * height + top
            x1, y1 = (column + 1) * width - 20, (row + 1) * height - 60

            def place(
                count: float, value: float, box: tuple[int, int, int, int] = (x0, y0, x1, y1)
            ) -> tuple[float, float]:
                x = (np.log10(count) - low) / (high - low)
                return box[0] + x * (box[2] - box[0]), box[3] - (value - floor) / (1 - floor) * (box[3] - box[1])

            draw.rectangle((x0, y0, x1, y1), outline="black")
            whole = refiner == "none"
            what = (
                f"{figures.masks} {source}, without refiner"
                if whole
                else f"{figures.refined_masks} {source}, {refiner}"
            )
            draw.text(((x0 + x1) / 2, y0 - 8), f"{source}, {what}", "black", font, anchor="mb")
            for value in np.arange(floor, 1.001, 0.1):
                y = place(1, value)[1]
                draw.line((x0, y, x1, y), "#dddddd")
                draw.text((x0 - 8, y), f"{100 * value:.0f}", "black", font, anchor="rm")
            for count in (10, 100, 1000, 10000):
                if low < np.log10(count) < high:
                    x = place(count, 1)[0]
                    draw.line((x, y0, x, y1), "#dddddd")
                    draw.text((x, y1 + 8), str(count), "black", font, anchor="mt")
            draw.text(((x0 + x1) / 2, y1 + 30), "tokens of a mask", "black", font, anchor="mt")
            for name, colour in COLOURS.items():
                kind = "bricks" if name in ("boxes", "bricks") else "R-RLE"
                values = [figures.unrefined[g, kind] if whole else figures.refined[g, refiner] for g in GRIDS]
                pairs = zip(GRIDS, values, strict=True)
                points = [place(figures.tokens[g, name, title], value) for g, value in pairs]
                draw.line(points, colour, 3)
                for (x, y), grid in zip(points, GRIDS, strict=True):
                    draw.ellipse((x - 5, y - 5, x + 5, y + 5), colour)
                    if name == "full":
                        draw.text((x - 8, y - 6), str(grid), colour, font, anchor="rb")
    x = left
    for name, colour in COLOURS.items():
        y = height * len(rows) + 30
        draw.line((x, y, x + 40, y), colour, 4)
        draw.text((x + 50, y), name, "black", font, anchor="lm")
        x += 180
    draw.text((x, y), f"IoU in percent; {title} tokenizer; numbers: grid", "black", font, anchor="lm")
    return canvas


def main() -> None:
    """Print the tables; with --write put them and the picture into the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=int, default=200, metavar="N", help="masks of each source")
    parser.add_argument("--refined", type=int, default=30, metavar="N", help="masks of each source that are refined")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with `photos` and `coco128`")
    parser.add_argument("--tokenizer", type=Path, metavar="FILE", help="tokenizer.json of a language model")
    parser.add_argument("--tokenizer-name", default="Qwen3", metavar="NAME")
    parser.add_argument("--refiners", nargs="*", default=["snap", "crf"], help="names or configs")
    parser.add_argument("--write", action="store_true", help="into docs/results/text4seg.md")
    options = parser.parse_args()
    sources = {"scenes": scenes()}
    if options.data is not None:
        sources["photos"] = annotated(options.data / "photos/val.json", options.data / "photos/images")
        coco = options.data / "coco128"
        sources["COCO"] = annotated(coco / "annotations/instances_train2017.json", coco / "train2017")
    tokenizers = {"compact": COMPACT}
    if options.tokenizer is not None:
        tokenizers[options.tokenizer_name] = options.tokenizer
    refiners = {Path(name).stem: load_refiner(name) for name in options.refiners}
    found = {}
    for source, cases in sources.items():
        print(source, file=sys.stderr)
        found[source] = measure(list(islice(cases, options.masks)), options.refined, tokenizers, refiners)
    lines = table(found, list(tokenizers), list(refiners))
    print("\n".join(lines))
    if options.write:
        text = DOCUMENT.read_text()
        before, _, rest = text.partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        write_text(DOCUMENT, f"{before}{MARKS[0]}\n\n" + "\n".join(lines) + f"\n\n{MARKS[1]}{after}")
        picture(found, list(tokenizers)[-1], list(refiners)).save(DOCUMENT.with_name("text_grids.png"), optimize=True)


if __name__ == "__main__":
    main()
