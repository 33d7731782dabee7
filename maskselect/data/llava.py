"""LLaVA's data: captions for stage 1, and conversations about images for instruction tuning. It has no masks.

Source: https://github.com/haotian-liu/LLaVA (docs/Data.md); the texts are made by language models whose terms apply.

- `pretrain`: https://huggingface.co/datasets/liuhaotian/LLaVA-Pretrain, 558,128 captions,
  `blip_laion_cc_sbu_558k.json`; `images.zip` unpacked in the same folder or its `images/`, as `00453/004539375.jpg`.
  The older CC3M set of 595,375 is `pretrain-cc3m`, `chat.json`.
- `instruct-150k`: https://huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K, `llava_instruct_150k.json`; images of
  COCO train2017, named without a folder.
- `mix-665k`: the same page, `llava_v1_5_mix665k.json`; images under `coco/train2017`, `gqa/images`, `ocr_vqa/images`,
  `textvqa/train_images`, `vg/VG_100K` and `vg/VG_100K_2`, named with the folder.

A record is `{id, image, conversations: [{from: "human" | "gpt", value}]}`. Quirks: `<image>` stands once in the first
human turn, before or behind the text, on a line of its own; in mix-665k some records have no image; a conversation may
begin with a turn of the model, which answers nothing and is left out; ids are not unique (mix-665k), so a record is
named by its place too; OCR-VQA's images must all have been saved as `.jpg`.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from maskselect.backends.config_tree import Arguments
from maskselect.data.catalog import find_any
from maskselect.data.files import Images, find_one
from maskselect.data.images import load_image
from maskselect.data.index import Index, Record, Section, open_index
from maskselect.structures.groups import Annotated, Query
from maskselect.structures.needs import Need
from maskselect.structures.provenance import TrainingData

_PAGE = "see https://github.com/haotian-liu/LLaVA/blob/main/docs/Data.md"
_PRETRAIN = "hf download liuhaotian/LLaVA-Pretrain --repo-type dataset --local-dir {root}; unzip images.zip there"
_IMAGE = "<image>"


class _Set(NamedTuple):
    """file: of the records.  folders: of their images, under the root.  texts: some records have no image."""

    file: str
    folders: tuple[str, ...]
    texts: bool = False


SETS: Mapping[str, _Set] = {
    "pretrain": _Set("blip_laion_cc_sbu_558k.json", ("images", "")),
    "pretrain-cc3m": _Set("chat.json", ("images", "")),
    "instruct-150k": _Set("llava_instruct_150k.json", ("coco/train2017", "train2017", "images/train2017")),
    "mix-665k": _Set("llava_v1_5_mix665k.json", ("",), texts=True),
}


class Turn(NamedTuple):
    """A question and its answer, without the image's placeholder."""

    question: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    """One record.

    conversation_id: as published.  image: its file, or None for a text alone.
    turns: at least one.  image_first: whether the image stands before the first question's text.
    """

    conversation_id: str
    image: Path | None
    turns: tuple[Turn, ...]
    image_first: bool = True


class LlavaDataset:
    """Conversations of one of `SETS`, one at a time on access.

    root: folder of the file (or its `llava/`, `LLaVA-Pretrain/`, `llava_dataset/`) and of the images.
    split: which set.
    with_image: leave out the records that have no image.

    Raises FileNotFoundError when the layout is not there, ValueError for a damaged file or an unknown set.
    """

    def __init__(self, root: str | Path, split: str = "pretrain", with_image: bool = True) -> None:
        if split not in SETS:
            raise ValueError(f"LLaVA's data has no set {split!r}; expected one of {', '.join(SETS)}")
        root, chosen = Path(root), SETS[split]
        homes = ("", "llava/", "LLaVA-Pretrain/", "llava_dataset/", "playground/data/")
        self.file = find_one(root, [home + chosen.file for home in homes], f"LLaVA file of {split}", _PAGE)
        bases = dict.fromkeys((root, self.file.parent))
        self.images = Images([base / folder for base in bases for folder in chosen.folders], _PAGE)
        self.index = open_index(self.file, {"record": Section("", key=None)})
        places: Sequence[int] = range(self.index.count("record"))
        self._places = _pictured(self.index) if chosen.texts and with_image else places

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Conversation]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Conversation:
        """One conversation. Raises ValueError, naming the record, FileNotFoundError without its image."""
        place = self._places[number]
        record = self.index.get("record", place)
        try:
            turns, first = _turns(record.get("conversations"))
            name = record.get("image")
            image = None if name is None else self.images.find(str(name))
        except ValueError as error:
            raise ValueError(f"record {place} ({record.get('id')!r}) in {self.file}: {error}") from error
        return Conversation(str(record.get("id", place)), image, turns, first)

    def caption(self, number: int) -> str:
        """The answer to the only question of a record: in the pretraining sets, the caption of the image.

        Raises ValueError for a conversation of several turns.
        """
        found = self[number]
        if len(found.turns) != 1:
            raise ValueError(
                f"record {found.conversation_id!r} in {self.file} has {len(found.turns)} turns; expected 1"
            )
        return found.turns[0].answer


class CaptionGroups:
    """Captioned images as a source of groups, for stage 1; nothing is asked of them.

    Args:
        root, split: see `LlavaDataset`.
        limit: only the first so many.
    """

    def __init__(self, root: Path, split: str = "pretrain", limit: int | None = None) -> None:
        self.captions, self.limit = LlavaDataset(root, split), limit

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The texts."""
        entry, split = find_any("llava"), str(arguments.get("split", "pretrain"))
        if split == "pretrain":
            entry = replace(entry, obtain=_PRETRAIN)
        return entry.missing("llava", Path(arguments["root"]), split)

    @classmethod
    def training_data(cls, arguments: Arguments) -> list[TrainingData]:
        """The captions that it opens."""
        return [TrainingData("llava", arguments.get("split", "pretrain"), limit=arguments.get("limit"))]

    def __len__(self) -> int:
        return len(self.captions) if self.limit is None else min(self.limit, len(self.captions))

    def image_id(self, item: int) -> str:
        """The file's name with its folder, which several records may share."""
        image = self._image(item)
        return f"llava/{image.parent.name}/{image.name}"

    def version(self, item: int) -> str:
        """The size of the file, in bytes; nothing else is kept."""
        return str(self._image(item).stat().st_size)

    def prompts_of(self, item: int) -> int:
        """None."""
        return 0

    def load(self, item: int) -> Annotated:
        """The image; it has no annotated masks."""
        image = load_image(self._image(item))
        return Annotated(image, torch.zeros(0, *image.shape[:2], dtype=torch.bool))

    def queries(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[Query]:
        """None."""
        return []

    def caption(self, item: int, extra: dict[str, Tensor], rng: np.random.Generator) -> str:
        """The caption."""
        return self.captions.caption(item)

    def texts(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """The caption."""
        return [("", self.captions.caption(item))][:count]

    def _image(self, item: int) -> Path:
        image = self.captions[item].image
        if image is None:  # cannot be: records without one were left out
            raise ValueError(f"record {item} of {self.captions.file} has no image")
        return image


def _pictured(index: Index) -> Sequence[int]:
    """Places of the records with an image, kept in a small index beside the large one."""

    def rows(_: Path) -> dict[str, Iterable[Record]]:
        every = enumerate(index.all("record"))
        return {"place": ({"place": place} for place, record in every if record.get("image") is not None)}

    section = Section("places of records with an image", key="place")
    return array("i", (record["place"] for record in open_index(index.file, {"place": section}, rows).all("place")))


def _turns(told: Any) -> tuple[tuple[Turn, ...], bool]:
    """Questions with their answers, and whether the image stands before the text."""
    if not isinstance(told, list) or not all(isinstance(turn, dict) for turn in told):
        raise ValueError(f"conversations is {str(told)[:40]!r}; expected a list of turns")
    spoken = [(turn.get("from"), turn.get("value")) for turn in told]
    if spoken and spoken[0][0] == "gpt":
        spoken = spoken[1:]
    for place, (who, value) in enumerate(spoken):
        expected = "gpt" if place % 2 else "human"
        if who != expected or not isinstance(value, str):
            raise ValueError(f"turn {place} is {who!r}: {str(value)[:40]!r}; expected {expected!r} and a text")
    if len(spoken) < 2 or len(spoken) % 2:
        raise ValueError(f"it has {len(spoken)} turns; expected questions with their answers")
    texts = [str(value) for _, value in spoken]
    first = not texts[0].strip().endswith(_IMAGE) or texts[0].strip() == _IMAGE
    clean = [text.replace(_IMAGE, "").strip() for text in texts]
    return tuple(Turn(*pair) for pair in zip(clean[::2], clean[1::2], strict=True)), first
