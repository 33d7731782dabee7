"""LLaVA's data: captions for stage 1, and conversations about images for instruction tuning. It has no masks.

Source: https://github.com/haotian-liu/LLaVA (docs/Data.md); the texts are made by language models whose terms apply.

- `pretrain`: https://huggingface.co/datasets/liuhaotian/LLaVA-Pretrain, 558,128 captions,
  `blip_laion_cc_sbu_558k.json`; `images.zip` unpacked in the same folder or its `images/`, as `00453/004539375.jpg`.
  The older CC3M set of 595,375 is `pretrain-cc3m`, `chat.json`.
- `instruct-150k`: https://huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K, `llava_instruct_150k.json`; images of
  COCO train2017, named without a folder.
- `mix-665k`: the same page, `llava_v1_5_mix665k.json`; images under `coco/train2017`, `gqa/images`, `ocr_vqa/images`,
  `textvqa/train_images`, `vg/VG_100K` and `vg/VG_100K_2`, named with the folder.

A record is `{id, image, conversations: [{from: "human" | "gpt", value}]}`. Quirks: `<image>` is once in the first human
turn, before or after the text, on its own line; in mix-665k some records have no image; a conversation may begin with a
turn of the model, which is left out; ids are not unique (mix-665k), so messages also have a record's place; all images
of OCR-VQA must be saved as `.jpg`.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
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
from maskselect.data.reader import Reader
from maskselect.structures.groups import Annotated, Query
from maskselect.structures.needs import Need
from maskselect.structures.provenance import TrainingData

_PAGE = "see https://github.com/haotian-liu/LLaVA/blob/main/docs/Data.md"
_PRETRAIN = "hf download liuhaotian/LLaVA-Pretrain --repo-type dataset --local-dir {root}; unzip images.zip there"
_IMAGE = "<image>"


class _Set(NamedTuple):
    """File of the records, folders of their images under the root, and whether some records have no image."""

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
    """A question and its answer, without `<image>`."""

    question: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    """One record.

    Attributes:
        conversation_id: as published.
        image: its file.
        turns: at least one.
    """

    conversation_id: str
    image: Path
    turns: tuple[Turn, ...]


class LlavaDataset(Reader[Conversation]):
    """Conversations of one of `SETS`. Records without an image are left out.

    Args:
        root: folder of the file (or its `llava/`, `LLaVA-Pretrain/`, `llava_dataset/`) and of the images.
        split: key of `SETS`.
    """

    def __init__(self, root: str | Path, split: str = "pretrain") -> None:
        if split not in SETS:
            raise ValueError(f"LLaVA's data has no set {split!r}; expected one of {', '.join(SETS)}")
        root, chosen = Path(root), SETS[split]
        homes = ("", "llava/", "LLaVA-Pretrain/", "llava_dataset/", "playground/data/")
        self.file = find_one(root, [home + chosen.file for home in homes], f"LLaVA file of {split}", _PAGE)
        bases = dict.fromkeys((root, self.file.parent))
        self.images = Images([base / folder for base in bases for folder in chosen.folders], _PAGE)
        self.index = open_index(self.file, {"record": Section("", key=None)})
        self._rows = _places_with_image(self.index) if chosen.texts else range(self.index.count("record"))

    def __getitem__(self, number: int) -> Conversation:
        """Decode one conversation, see `Reader`."""
        place = self._rows[number]
        record = self.index.get("record", place)
        try:
            turns = _turns(record.get("conversations"))
            if record.get("image") is None:
                raise ValueError("it has no image")
            image = self.images.find(str(record["image"]))
        except ValueError as error:
            raise ValueError(f"record {place} ({record.get('id')!r}) in {self.file}: {error}") from error
        return Conversation(str(record.get("id", place)), image, turns)

    def caption(self, number: int) -> str:
        """The answer to the only question of a record: in the pretraining sets the caption of the image.

        Raises:
            ValueError: the conversation has several turns.
        """
        record = self[number]
        if len(record.turns) != 1:
            raise ValueError(
                f"record {record.conversation_id!r} in {self.file} has {len(record.turns)} turns; expected 1"
            )
        return record.turns[0].answer


class CaptionGroups:
    """A `GroupSource` of images with captions and without prompts, for stage 1.

    Args:
        root, split: see `LlavaDataset`.
        limit: number of first images to use; None for all.
    """

    def __init__(self, root: Path, split: str = "pretrain", limit: int | None = None) -> None:
        self.captions, self.limit = LlavaDataset(root, split), limit

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The records of the split."""
        entry, split = find_any("llava"), str(arguments.get("split", "pretrain"))
        if split == "pretrain":
            entry = replace(entry, obtain=_PRETRAIN)
        return entry.missing("llava", Path(arguments["root"]), split)

    @classmethod
    def training_data(cls, arguments: Arguments) -> list[TrainingData]:
        """The captions."""
        return [TrainingData("llava", arguments.get("split", "pretrain"), limit=arguments.get("limit"))]

    def __len__(self) -> int:
        return len(self.captions) if self.limit is None else min(self.limit, len(self.captions))

    def image_id(self, item: int) -> str:
        """The file's name with its folder; several records may share it."""
        image = self.captions[item].image
        return f"llava/{image.parent.name}/{image.name}"

    def version(self, item: int) -> str:
        """The size of the file in bytes."""
        return str(self.captions[item].image.stat().st_size)

    def prompts_of(self, item: int) -> int:
        """0."""
        return 0

    def load(self, item: int) -> Annotated:
        """The image, without masks."""
        file = self.captions[item].image
        image = load_image(file)
        return Annotated(image, torch.zeros(0, *image.shape[:2], dtype=torch.bool), file=file)

    def queries(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[Query]:
        """An empty list."""
        return []

    def caption(self, item: int, extra: dict[str, Tensor], rng: np.random.Generator) -> str:
        """The caption."""
        return self.captions.caption(item)

    def texts(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """The caption."""
        return [("", self.captions.caption(item))][:count]


class DialogueGroups(CaptionGroups):
    """A `GroupSource` of images with conversations and without prompts, for text among the masks of Text4Seg.

    Args:
        root, split: see `LlavaDataset`.
        limit: number of first records to use; None for all.
    """

    def __init__(self, root: Path, split: str = "mix-665k", limit: int | None = None) -> None:
        super().__init__(root, split, limit)

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The records of the split."""
        return super().needs({"split": "mix-665k", **arguments})

    @classmethod
    def training_data(cls, arguments: Arguments) -> list[TrainingData]:
        """The conversations."""
        return super().training_data({"split": "mix-665k", **arguments})

    def prompts_of(self, item: int) -> int:
        """Number of questions of the conversation."""
        return len(self.captions[item].turns)

    def texts(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Questions of the conversation, in order, each after all earlier ones with their answers."""
        turns = self.captions[item].turns
        chosen = sorted(rng.permutation(len(turns))[:count].tolist())
        before = ["".join(f"{turn.question}\n{turn.answer}\n" for turn in turns[:number]) for number in chosen]
        return [
            (text + turns[number].question, turns[number].answer) for number, text in zip(chosen, before, strict=True)
        ]


def _places_with_image(index: Index) -> Sequence[int]:
    """Places of the records with an image, kept in a small index beside `index`."""

    def rows(_: Path) -> dict[str, Iterable[Record]]:
        every = enumerate(index.all("record"))
        return {"place": ({"place": place} for place, record in every if record.get("image") is not None)}

    section = Section("places of records with an image", key="place")
    return array("i", (record["place"] for record in open_index(index.file, {"place": section}, rows).all("place")))


def _turns(records: Any) -> tuple[Turn, ...]:
    """Questions with their answers."""
    if not isinstance(records, list) or not all(isinstance(turn, dict) for turn in records):
        raise ValueError(f"conversations is {str(records)[:40]!r}; expected a list of turns")
    turns = [(turn.get("from"), turn.get("value")) for turn in records]
    if turns and turns[0][0] == "gpt":
        turns = turns[1:]
    for place, (speaker, value) in enumerate(turns):
        expected = "gpt" if place % 2 else "human"
        if speaker != expected or not isinstance(value, str):
            raise ValueError(f"turn {place} is {speaker!r}: {str(value)[:40]!r}; expected {expected!r} and a text")
    if len(turns) < 2 or len(turns) % 2:
        raise ValueError(f"it has {len(turns)} turns; expected questions with their answers")
    texts = [str(value).replace(_IMAGE, "").strip() for _, value in turns]
    return tuple(Turn(*pair) for pair in zip(texts[::2], texts[1::2], strict=True))
