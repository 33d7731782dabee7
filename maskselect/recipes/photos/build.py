"""Writes photographs with drawn prompts as a COCO file with prompts, which `--dataset own` reads."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from maskselect.ops.atomic import write_text
from maskselect.recipes.maskgroups_2m.sources import Links
from maskselect.recipes.photos.groups import PhotoGroups

Record = dict[str, Any]


def build_photos(groups: PhotoGroups, output: Path, split: str, count: int, seed: int = 0) -> Counter[str]:
    """Draw prompts once and write them.

    Args:
        groups: the photographs.
        output: folder; gets `{split}.json`, and in `images/` a link to the folder of the pictures.
        split: name of the file.
        count: most prompts of a photograph.
        seed: of the drawing; each photograph has a generator of its own.

    Returns:
        The number of prompts of each kind, and of photographs.

    Raises:
        ValueError: `images/` of the output leads elsewhere.
    """
    links, counts = Links(output), Counter({"photographs": len(groups)})
    images: list[Record] = []
    annotations: list[Record] = []
    prompts: list[Record] = []
    numbers: dict[str, int] = {}
    for item, photo in enumerate(groups.photos):
        size = {"height": photo.size[0], "width": photo.size[1]}
        images.append({"id": item + 1, "file_name": links.name(photo.file), "source": photo.source, **size})
        first = len(annotations) + 1
        for code, name, box, area in zip(
            photo.codes, photo.categories, photo.boxes.tolist(), photo.areas.tolist(), strict=True
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": item + 1,
                    "category_id": numbers.setdefault(name, len(numbers) + 1),
                    "segmentation": code,
                    "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                    "area": area,
                    "iscrowd": 0,
                }
            )
        for number, one in enumerate(groups.prompts(item, count, np.random.default_rng([seed, item]))):
            counts[one.kind] += 1
            places = {"references": [first + n for n in one.references], "targets": [first + n for n in one.targets]}
            row = {"id": f"{groups.ids[item]}/{number}", "image_id": item + 1, "text": one.text, "kind": one.kind}
            prompts.append(row | places)
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    record = {"images": images, "annotations": annotations, "categories": categories, "prompts": prompts}
    write_text(output / f"{split}.json", json.dumps(record))
    return counts
