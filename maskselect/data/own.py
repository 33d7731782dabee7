"""Your own data: COCO annotations, as labelling tools export them, with prompts beside them.

On disk: `{split}.json` and the pictures in `images/` (or beside the file):

    {
      "images":      [{"id": 1, "file_name": "kitchen.jpg", "height": 480, "width": 640}],
      "annotations": [{"id": 10, "image_id": 1, "segmentation": [[x, y, x, y, …]], "category_id": 3}],
      "categories":  [{"id": 3, "name": "mug"}],
      "prompts":     [{"image_id": 1, "text": "mugs left of <mask-ref>", "references": [12], "targets": [10, 11]}]
    }

`segmentation` is anything that COCO knows: polygons, or run lengths as list or text. A prompt names annotations by id:
one reference for each `<mask-ref>` in its text, and the targets, none of them where nothing in the picture answers.
`id` and `kind` of a prompt are optional. Without `prompts`, each category of a picture is asked for by its name.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maskselect.data.coco_file import CocoFile, decode_masks, file_name_of, size_of
from maskselect.data.files import Images, find_one
from maskselect.data.index import Key, Record, Section
from maskselect.structures.sample import Prompt, Sample

_HELP = "the form is described at the top of maskselect/data/own.py and in the README"


class OwnDataset:
    """Samples of one split: one a prompt, those of an image behind each other.

    Raises FileNotFoundError when the file or its pictures are not there, ValueError for a damaged file.
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        root = Path(root)
        file = find_one(root, [f"{split}.json", f"annotations/{split}.json"], f"file of split {split!r}", _HELP)
        self.coco = CocoFile(file, {"prompt": Section("prompts", key=None, group="image_id")})
        self.images = Images([root / "images" / split, root / "images", root], _HELP)
        self._rows = list(self._of_prompts() if self.coco.index.count("prompt") else self._of_categories())

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Sample]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Sample:
        """Raises ValueError, naming the prompt, when it contradicts itself; FileNotFoundError without its picture."""
        name, row = self._rows[number]
        image = self.coco.image(row["image_id"])
        try:
            return self._sample(name, row, image)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{name} in {self.coco.path}: {error}") from error

    def image_ids(self) -> list[str]:
        """The picture of each sample."""
        return [str(row["image_id"]) for _, row in self._rows]

    def _of_prompts(self) -> Iterator[tuple[str, Record]]:
        for image in self.coco.index.groups("prompt"):
            for number, row in enumerate(self.coco.index.of_group("prompt", image)):
                yield f"prompt {row.get('id', f'{number} of image {image}')}", row

    def _of_categories(self) -> Iterator[tuple[str, Record]]:
        names = self.coco.category_names()
        for image in self.coco.index.groups("annotation"):
            groups: dict[Key, list[Key]] = {}
            for annotation in self.coco.annotations(image):
                category = annotation.get("category_id")
                if not isinstance(category, int | str):
                    raise ValueError(
                        f"annotation {annotation['id']!r} in {self.coco.path} has the category_id "
                        f"{str(category)[:40]!r}; expected a number, or prompts beside the annotations"
                    )
                groups.setdefault(category, []).append(annotation["id"])
            for category, targets in groups.items():
                row = {"image_id": image, "text": names.get(category, ""), "targets": targets, "kind": "category"}
                yield f"category {category} of image {image}", row

    def _sample(self, name: str, row: Record, image: Record) -> Sample:
        size = size_of(image)
        annotations = self.coco.annotations(row["image_id"])
        places = {annotation["id"]: place for place, annotation in enumerate(annotations)}
        pool = decode_masks(annotations, size)
        references, targets = (_places(row, field, places) for field in ("references", "targets"))
        return Sample(
            image=self.images.find(file_name_of(image)),
            image_id=str(row["image_id"]),
            sample_id=str(row.get("id", name)),
            prompt=Prompt(str(row.get("text", "")).strip(), pool[list(references)]),
            gt_pool=pool,
            targets=targets,
            reference_ids=references,
            kind=str(row.get("kind", "")),
        )


def _places(row: Record, field: str, places: dict[Any, int]) -> tuple[int, ...]:
    ids = row.get(field) or []
    if not isinstance(ids, list):
        raise ValueError(f"{field} are {str(ids)[:40]!r}; expected a list of annotation ids")
    if unknown := [one for one in ids if not isinstance(one, int | str) or one not in places]:
        raise ValueError(f"{field} name annotation {unknown[0]!r}, which image {row['image_id']!r} does not have")
    return tuple(places[one] for one in ids)
