"""Data sets that a config names: whether a split can be opened, and where to get the set."""

from pathlib import Path
from typing import TYPE_CHECKING

from maskselect.doctor.needs import Arguments, Need

if TYPE_CHECKING:
    from maskselect.data.catalog import CatalogEntry

_HUB = "https://huggingface.co/datasets/"
_BUILT = {
    "maskgroups-2m": "maskselect data build maskgroups-2m --refer DIR --coco DIR --lvis DIR --vg DIR --output {root}",
    "llm-seg40k": "{page}, or maskselect data build llm-seg40k --output {root} (docs/data.md)",
}
"""Sets that are made here, and how."""


def dataset(arguments: Arguments) -> list[Need]:
    """What `DatasetGroups` lacks of one split.

    A split is opened as training opens it, so that no layout which a reader takes is refused; pictures are not read.
    Raises ValueError for a data set that the catalog does not have.
    """
    from maskselect.data.catalog import find_entry  # noqa: PLC0415  whoever names a data set has imported it

    name, root, split = str(arguments["dataset"]), Path(arguments["root"]), str(arguments.get("split", "train"))
    entry = find_entry(name)
    return _lacking(name, entry, root, split, _told(name, entry.page, root, entry.pictures))


def captions(arguments: Arguments) -> list[Need]:
    """The same of `CaptionGroups`, whose texts are no data set with masks."""
    from maskselect.data.catalog_others import find_any  # noqa: PLC0415

    root, split, entry = Path(arguments["root"]), str(arguments.get("split", "pretrain")), find_any("llava")
    command = f"hf download liuhaotian/LLaVA-Pretrain --repo-type dataset --local-dir {root}; unzip images.zip there"
    return _lacking("llava", entry, root, split, command if split == "pretrain" else entry.page)


def _lacking(name: str, entry: "CatalogEntry", root: Path, split: str, told: str) -> list[Need]:
    if not root.is_dir():
        return [Need("data", f"{name} in {root}", told, part=split)]
    try:
        entry.open(root, split)
    except (FileNotFoundError, ValueError) as error:
        return [Need("data", f"{name}, {split}: {' '.join(str(error).split())}", told)]
    return []


def _told(name: str, page: str, root: Path, pictures: str) -> str:
    if name in _BUILT:
        return _BUILT[name].format(root=root, page=page)
    if name == "own":
        return "your own labels and pictures, in a form that maskselect/data/own.py describes"
    if page.startswith(_HUB):
        return f"hf download {page.removeprefix(_HUB)} --repo-type dataset --local-dir {root}"
    return f"{page}{f' (pictures: {pictures})' if pictures else ''}"
