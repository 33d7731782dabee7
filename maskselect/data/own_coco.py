"""Your own data as one COCO file, with prompts or without; `maskselect.data.own` describes the form."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from maskselect.data.coco_file import CocoFile, decode_masks, file_name_of, polygons_of, size_of
from maskselect.data.files import Images
from maskselect.data.index import Key, Record, Section
from maskselect.data.json_text import kind_at
from maskselect.data.reader import Reader
from maskselect.data.values import key_of, same_key
from maskselect.structures.sample import Prompt, Sample


class CocoPrompts(Reader[Sample]):
    """Samples of one file: one per prompt or, without prompts, per image and category. Crowds are objects, too.

    Args:
        file: the annotations.
        folders: possible folders of the images.
        help_text: end of the message if there is no folder of images.
    """

    def __init__(self, file: Path, folders: Sequence[Path], help_text: str = "") -> None:
        self.coco = CocoFile(file, {"prompt": Section("prompts", key=None, group="image_id")})
        self.images = Images(folders, help_text)
        prompts, annotations = self._count("prompt"), self._count("annotation")
        if not prompts and not annotations:
            self.coco.need("annotation")
        self._rows: list[tuple[str, Record]] = list(self._of_prompts() if prompts else self._of_categories())

    def __getitem__(self, number: int) -> Sample:
        """Decode one sample, see `Reader`."""
        name, row = self._rows[number]
        image = self.coco.image(row["image_id"])
        try:
            return self._sample(name, row, image)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{name} in {self.coco.path}: {error}") from error

    def image_ids(self) -> list[str]:
        """The image of each sample."""
        return [str(row["image_id"]) for _, row in self._rows]

    def _count(self, section: str) -> int:
        """Number of records in a section. Raises ValueError if it is something else than a list."""
        name, count = f"{section}s", self.coco.index.count(section)
        if count == 0 and (kind := kind_at(self.coco.path, name)) not in ("absent", "a list", "null"):
            raise ValueError(f"{self.coco.path} has {kind} as {name}; expected a list")
        return count

    def _of_prompts(self) -> Iterator[tuple[str, Record]]:
        self._refuse_same_ids()
        for image in self.coco.index.groups("prompt"):
            for number, row in enumerate(self.coco.index.of_group("prompt", image)):
                yield f"prompt {row.get('id', f'{number} of image {image}')}", row | {"image_id": image}

    def _refuse_same_ids(self) -> None:
        """Raise ValueError if two prompts have one id."""
        first: dict[str, int] = {}
        for place, row in enumerate(self.coco.index.all("prompt")):
            if "id" in row and first.setdefault(str(row["id"]), place) != place:
                raise same_key(self.coco.path, "prompt", first[str(row["id"])], place, "id", row["id"])

    def _of_categories(self) -> Iterator[tuple[str, Record]]:
        names, outlines = self.coco.category_names(), 0
        for image in self.coco.index.groups("annotation"):
            groups: dict[Key, list[Key]] = {}
            for annotation in self.coco.annotations(image):
                category = annotation.get("category_id")
                if not isinstance(category, int | str) or category not in names:
                    raise ValueError(
                        f"annotation {annotation['id']!r} in {self.coco.path} has the category_id "
                        f"{str(category)[:40]!r}; expected one of the {len(names)} categories that the file lists, "
                        "or prompts beside the annotations"
                    )
                groups.setdefault(category, []).append(annotation["id"])
                outlines += bool(annotation.get("segmentation"))
            for category, targets in groups.items():
                row = {"image_id": image, "text": names[category], "targets": targets, "kind": "category"}
                yield f"category {category} of image {image}", row
        if not outlines:
            raise ValueError(
                f"{self.coco.path} has boxes only, no annotation has a segmentation; export polygons or masks instead"
            )

    def _sample(self, name: str, row: Record, image: Record) -> Sample:
        picture = self.images.find(file_name_of(image))
        size = size_of(image, picture)
        annotations = self.coco.annotations(row["image_id"])
        for annotation in annotations:
            check_outline(annotation, size)
        places = {annotation["id"]: place for place, annotation in enumerate(annotations)}
        pool = decode_masks(annotations, size)
        references, targets = (_places(row, field, places) for field in ("references", "targets"))
        return Sample(
            image=picture,
            image_id=str(row["image_id"]),
            sample_id=str(row.get("id", name)),
            prompt=Prompt(str(row.get("text") or "").strip(), pool[list(references)]),
            gt_pool=pool,
            targets=targets,
            reference_ids=references,
            kind=str(row.get("kind") or ""),
        )


def check_outline(annotation: Record, size: tuple[int, int]) -> None:
    """Raise ValueError for an annotation without outline, or with an outline in fractions of the image.

    Args:
        annotation: the annotation.
        size: (H, W) of the image.
    """
    name, outline = f"annotation {annotation.get('id')!r}", annotation.get("segmentation")
    if not outline:
        content = "a box but no segmentation" if annotation.get("bbox") else "no segmentation"
        raise ValueError(f"{name} has {content}; expected polygons or run lengths: export them instead of boxes")
    if isinstance(outline, dict):
        return
    lists = [part for part in polygons_of(outline) if isinstance(part, list)]
    if odd := [part for part in lists if len(part) % 2]:
        raise ValueError(f"{name} has a polygon of {len(odd[0])} numbers; expected pairs x, y")
    numbers = [value for part in lists for value in part]
    if numbers and max(size) > 1 and all(isinstance(one, int | float) and 0 <= one <= 1 for one in numbers):
        raise ValueError(
            f"{name} has coordinates within 0 to 1, fractions of the image; expected pixels: multiply x by the width "
            "and y by the height"
        )


def _places(row: Record, field: str, places: dict[Any, int]) -> tuple[int, ...]:
    ids = row.get(field) or []
    if not isinstance(ids, list):
        raise ValueError(f"{field} are {str(ids)[:40]!r}; expected a list of annotation ids")
    indices = []
    for one in ids:
        try:
            indices.append(places[key_of(one)])
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{field} name annotation {str(one)[:40]}, which image {row['image_id']!r} does not have"
            ) from error
    return tuple(indices)
