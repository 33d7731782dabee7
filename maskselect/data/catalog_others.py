"""Data sets that do not ask about one image: videos, and LLaVA's texts. `data list` and `data check` know them too."""

from collections.abc import Mapping

from maskselect.data.catalog import CATALOG, CatalogEntry

_LLAVA = "https://github.com/haotian-liu/LLaVA/blob/main/docs/Data.md"

OTHERS: Mapping[str, CatalogEntry] = {
    "ref-youtube-vos": CatalogEntry(
        "Ref-YouTube-VOS (videos)",
        "maskselect.data.video.RefYoutubeVosDataset",
        ("train", "valid", "test"),
        "https://youtube-vos.org/dataset/rvos/",
        "CC BY 4.0",
        protocol="ref-youtube-vos",
    ),
    "ref-davis17": CatalogEntry(
        "Ref-DAVIS17 (videos)",
        "maskselect.data.video.RefDavis17Dataset",
        ("train", "valid"),
        "https://github.com/wjn922/ReferFormer",
        "see its page",
        protocol="davis",
        about={"valid": 244},
    ),
    "revos": CatalogEntry(
        "ReVOS (videos, reasoning)",
        "maskselect.data.video.RevosDataset",
        ("train", "valid"),
        "https://github.com/cilinyan/ReVOS-api",
        "CC BY-NC-SA 4.0",
        protocol="revos",
    ),
    "mevis": CatalogEntry(
        "MeViS (videos, by motion)",
        "maskselect.data.video.MevisDataset",
        ("train", "valid_u", "valid"),
        "https://github.com/henghuiding/MeViS",
        "CC BY-NC-SA 4.0",
        protocol="mevis",
    ),
    "llava": CatalogEntry(
        "LLaVA's captions and conversations (no masks)",
        "maskselect.data.llava.LlavaDataset",
        ("pretrain", "pretrain-cc3m", "instruct-150k", "mix-665k"),
        _LLAVA,
        "see its page",
        protocol="",
        about={"pretrain": 558_128, "pretrain-cc3m": 595_375, "instruct-150k": 157_712},
    ),
}

EVERYTHING: Mapping[str, CatalogEntry] = {**CATALOG, **OTHERS}


def find_any(name: str) -> CatalogEntry:
    """The entry of a name, whatever it holds. Raises ValueError, listing those that there are."""
    if name not in EVERYTHING:
        raise ValueError(f"unknown dataset {name!r}; expected one of {', '.join(EVERYTHING)}")
    return EVERYTHING[name]
