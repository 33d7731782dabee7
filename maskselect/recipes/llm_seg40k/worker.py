"""Makes the questions of one image: a caption, a request to a language model, checks, masks."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from maskselect.data.coco import CocoQuestions
from maskselect.data.images import load_image
from maskselect.data.sizes import refuse_other_size
from maskselect.ops import rle
from maskselect.ops.atomic import atomic_file, write_text
from maskselect.ops.boxes import masks_to_boxes_xyxy
from maskselect.recipes.box_masks import ProposerBoxes
from maskselect.recipes.engine import Built, Record
from maskselect.recipes.llm_seg40k.answers import UNREADABLE, Asked, Rules, Thing, check, read_reply
from maskselect.recipes.llm_seg40k.captioners import Captioner
from maskselect.recipes.llm_seg40k.images import order
from maskselect.recipes.llm_seg40k.language_models import LanguageModel, Message
from maskselect.structures.sample import Sample

EMPTY_MASK = "empty mask"

REQUEST = """You write questions for machines that learn to find things in pictures by thinking. You cannot see the
picture. You get a description of it, in which details may be wrong, and a list of things that are certainly in it.

Description: {caption}
Things: {things}

Write {most} questions, each of which one of these things answers.
- To answer takes a thought: what a thing is good for, what somebody there would need, what follows from the scene.
- No other thing of the list would be as good an answer.
- The question must not contain the answer's name, its plural, or another word for it.
- It must not tell where the answer is: no left or right, top, bottom, middle, corner, foreground, next to, behind.
- The same thing answers at most {most_an_answer} of the questions.
- One sentence of about 10 to 25 words that ends with a question mark.
Reply with JSON and nothing else: a list of {most} objects, each with a text "question" and a text "answer", the answer
copied letter by letter from the list.

{example}"""

EXAMPLE_THINGS = ("bicycle", "dog", "raincoat", "umbrella")
EXAMPLE_REPLY = """[{"question": "What could keep him dry if a gust blew the hood off his head?", "answer": "umbrella"},
{"question": "Who will be gladdest about a long walk once the weather clears up?", "answer": "dog"},
{"question": "What would bring him home without waiting for the bus any longer?", "answer": "bicycle"},
{"question": "Which companion has to shake itself after an hour in this weather?", "answer": "dog"}]"""
EXAMPLE = (
    "For example: where a man with a hood and his pet wait for the bus in the rain, and the list is "
    f"{'; '.join(EXAMPLE_THINGS)}, four good questions are\n{EXAMPLE_REPLY}"
)
"""The in-context example of the request. The paper has one, too; this one is ours."""


@dataclass(frozen=True)
class _Objects:
    """An image with its objects: the reader's samples by name, nearly always one."""

    file: Path
    image: np.ndarray
    samples: dict[str, list[Sample]]


@dataclass
class QuestionMaker:
    """The builder's worker, see `engine.Worker`. A unit is an `images.Chosen` as a record.

    Attributes:
        readers: data sets by source.
        boxes: makes masks of EgoObjects' boxes.
        seed: of the requests.
        attempts: requests an image, each with another seed, until a reply is readable.
        kept: folder of the texts that the models wrote.
        masks: folder for PNG masks, or None.
    """

    readers: dict[str, CocoQuestions]
    captioner: Captioner
    model: LanguageModel
    boxes: ProposerBoxes | None
    rules: Rules
    seed: int
    attempts: int
    kept: Path
    masks: Path | None = None
    _synonyms: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)

    def build(self, unit: Record) -> Built:
        """One record: the image with its questions, or the fault of an image that cannot be used.

        Raises:
            ValueError, OSError: a model fails, which ends the build.
        """
        counts: Counter[str] = Counter({"images": 1})
        try:
            objects = self._objects(unit)
        except (ValueError, FileNotFoundError) as error:
            problem = {"image_id": unit["image_id"], "problem": " ".join(str(error).split())}
            return Built([problem], counts + Counter({"images skipped": 1}))
        key = {"captioner": self.captioner.name, "source": unit["source"], "image": objects.file.name}
        caption = " ".join(kept_text(self.kept, key, lambda: self.captioner.caption(objects.image)).split())
        questions = self._ask(unit, objects, caption, counts)
        pairs = self._with_masks(unit, objects, questions, counts)
        counts["kept"] += len(pairs)
        record = {
            "image": objects.file.name,
            "from_dataset": unit["source"],
            "group": unit["group"],
            "split": unit["split"],
            "caption": caption,
            "qa_pairs": pairs,
        }
        return Built([record], counts)

    def _objects(self, unit: Record) -> _Objects:
        reader = self.readers[unit["source"]]
        samples = [reader[unit["first"] + number] for number in range(unit["count"])]
        file = Path(str(samples[0].image))
        image = load_image(file)
        refuse_other_size(samples[0], (image.shape[0], image.shape[1]))
        named: dict[str, list[Sample]] = {}
        for sample in sorted(samples, key=lambda sample: sample.prompt.text):
            named.setdefault(sample.prompt.text, []).append(sample)
        return _Objects(file, image, named)

    def _ask(self, unit: Record, objects: _Objects, caption: str, counts: Counter[str]) -> list[Asked]:
        """The questions that pass. Replies and refusals go into `counts`."""
        things = [Thing(name, self._names_of(unit["source"], name)) for name in objects.samples]
        text = REQUEST.format(
            caption=caption or "(none)",
            things="; ".join(objects.samples),
            most=self.rules.most,
            most_an_answer=self.rules.most_an_answer,
            example=EXAMPLE,
        )
        # One user message: the chat templates of several models have no system role.
        messages: list[Message] = [{"role": "user", "content": text}]
        for attempt in range(self.attempts):
            seed = int(order(self.seed, "ask", unit["source"], unit["image_id"], str(attempt))[:7], 16)
            key = {"model": self.model.name, "messages": messages, "seed": seed}
            entries = read_reply(kept_text(self.kept, key, partial(self.model.complete, messages, seed)))
            counts["replies"] += 1
            if entries is None:
                counts[f"rejected: {UNREADABLE}"] += 1
                continue
            questions, refused = check(entries, things, self.rules)
            counts["offered"] += len(entries)
            counts.update({f"rejected: {reason}": number for reason, number in refused.items()})
            return questions
        return []

    def _with_masks(
        self, unit: Record, objects: _Objects, questions: list[Asked], counts: Counter[str]
    ) -> list[Record]:
        """The questions in the published form, without those whose object has an empty mask."""
        masks: dict[str, np.ndarray] = {}
        pairs: list[Record] = []
        for question, answer in questions:
            if answer not in masks:
                masks[answer] = self._mask(unit["source"], objects, answer)
            mask = masks[answer]
            if not mask.any():
                counts[f"rejected: {EMPTY_MASK}"] += 1
                continue
            path = self._write_png(mask, unit["split"], f"{objects.file.stem}_{len(pairs)}.png")
            code = rle.encode(mask[None])[0]
            pairs.append({"question": question, "answer": answer, "rle_seg": code, "segmentation_path": path})
        return pairs

    def _mask(self, source: str, objects: _Objects, answer: str) -> np.ndarray:
        """The union of all instances of an object, (H, W) bool."""
        samples = objects.samples[answer]
        if source == "coco":
            return torch.stack([sample.target_mask for sample in samples]).any(0).numpy()
        if self.boxes is None:
            raise ValueError("EgoObjects has boxes only; expected a proposer that makes masks of them")
        filled = torch.cat([sample.gt_pool[list(sample.targets)] for sample in samples])
        return self.boxes.segment_boxes(objects.image, masks_to_boxes_xyxy(filled).float()).masks.any(0).numpy()

    def _write_png(self, mask: np.ndarray, split: str, name: str) -> str:
        """Write a mask as PNG; return its path in the data set, or "" without `masks`."""
        if self.masks is None:
            return ""
        file = self.masks / split / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as part:
            Image.fromarray(mask.astype(np.uint8) * 255).save(part, format="PNG")
        return file.relative_to(self.masks.parent).as_posix()

    def _names_of(self, source: str, name: str) -> tuple[str, ...]:
        """Synonyms of a category."""
        if source not in self._synonyms:
            reader = self.readers[source]
            also: dict[str, tuple[str, ...]] = {}
            for category in reader.coco.index.all("category"):
                listed = category.get("synonyms")
                if isinstance(listed, list):
                    key = reader.names.get(category["id"], "")
                    also[key] = (*also.get(key, ()), *(str(synonym).replace("_", " ") for synonym in listed))
            self._synonyms[source] = also
        return self._synonyms[source].get(name, ())


def kept_text(folder: Path, key: dict[str, Any], make: Callable[[], str]) -> str:
    """A text that is costly to make, from its file; without a readable file it is made and stored.

    Args:
        folder: for the files.
        key: everything that the text depends on, as JSON values.
        make: makes the text.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    file = folder / f"{digest[:32]}.json"
    try:
        return str(json.loads(file.read_bytes())["text"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        text = make()
    folder.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(key | {"text": text}, indent=1), durable=True)
    return text
