"""Data sets that a config names: whether a split can be opened, and where to get the set."""

from pathlib import Path

from maskselect.doctor.needs import Arguments, Need

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
    told = _told(name, entry.page, root, entry.pictures)
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
        return "your own annotations and pictures, in the form that maskselect/data/own.py describes"
    if page.startswith(_HUB):
        return f"hf download {page.removeprefix(_HUB)} --repo-type dataset --local-dir {root}"
    return f"{page}{f' (pictures: {pictures})' if pictures else ''}"
