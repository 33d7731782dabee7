"""From one image to its questions with masks: caption, question to a language model, checks, masks."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from maskselect.data.coco import CocoQuestions
from maskselect.data.images import load_image
from maskselect.data.sizes import refuse_other_size
from maskselect.ops import rle
from maskselect.ops.atomic import atomic_file
from maskselect.ops.boxes import masks_to_boxes_xyxy
from maskselect.recipes.box_masks import ProposerBoxes
from maskselect.recipes.engine import Built, Record
from maskselect.recipes.llm_seg40k.answers import UNREADABLE, Asked, Rules, Thing, check, read_reply
from maskselect.recipes.llm_seg40k.captioners import Captioner
from maskselect.recipes.llm_seg40k.images import order
from maskselect.recipes.llm_seg40k.kept import Kept
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
- One sentence of about 10 to 25 words that ends with a question mark.
Reply with JSON and nothing else: a list of {most} objects, each with a text "question" and a text "answer", the answer
copied letter by letter from the list."""


@dataclass(frozen=True)
class _Seen:
    """An image with its objects. samples: of each name the reader's samples that have it, nearly always one."""

    file: Path
    image: np.ndarray
    samples: dict[str, list[Sample]]


@dataclass
class QuestionMaker:
    """The builder's worker, see `engine.Worker`. A unit is a `llm_seg40k_images.Chosen` as a plain record.

    readers: by source.  boxes: for EgoObjects, whose objects have boxes only.
    attempts: how often the model is asked while its replies cannot be read at all, each time with another seed.
    masks: folder for masks as PNG too, or None.
    """

    readers: dict[str, CocoQuestions]
    captioner: Captioner
    model: LanguageModel
    boxes: ProposerBoxes | None
    rules: Rules
    seed: int
    attempts: int
    kept: Kept
    masks: Path | None = None
    _synonyms: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)

    def build(self, unit: Record) -> Built:
        """One record: the image with its questions; or, of an image that cannot be used, what is wrong with it.

        Raises what the models raise: without them no other image could be done either.
        """
        counts: Counter[str] = Counter({"images": 1})
        try:
            seen = self._see(unit)
        except (ValueError, FileNotFoundError) as error:
            problem = {"image_id": unit["image_id"], "problem": " ".join(str(error).split())}
            return Built([problem], counts + Counter({"images skipped": 1}))
        caption = self._caption(unit, seen)
        asked = self._ask(unit, seen, caption, counts)
        pairs = self._with_masks(unit, seen, asked, counts)
        counts["kept"] += len(pairs)
        record = {
            "image": seen.file.name,
            "from_dataset": unit["source"],
            "group": unit["group"],
            "split": unit["split"],
            "caption": caption,
            "qa_pairs": pairs,
        }
        return Built([record], counts)

    def _see(self, unit: Record) -> _Seen:
        reader = self.readers[unit["source"]]
        samples = [reader[unit["first"] + number] for number in range(unit["count"])]
        file = Path(str(samples[0].image))
        image = load_image(file)
        refuse_other_size(samples[0], (image.shape[0], image.shape[1]))
        named: dict[str, list[Sample]] = {}
        for sample in sorted(samples, key=lambda sample: sample.prompt.text):
            named.setdefault(sample.prompt.text, []).append(sample)
        return _Seen(file, image, named)

    def _caption(self, unit: Record, seen: _Seen) -> str:
        key = {"captioner": self.captioner.name, "source": unit["source"], "image": seen.file.name}
        return " ".join(self.kept.text(key, lambda: self.captioner.caption(seen.image)).split())

    def _ask(self, unit: Record, seen: _Seen, caption: str, counts: Counter[str]) -> list[Asked]:
        """The questions that pass. Replies and refusals go into `counts`."""
        messages = request(caption, list(seen.samples), self.rules.most)
        things = [Thing(name, self._names_of(unit["source"], name)) for name in seen.samples]
        for attempt in range(self.attempts):
            seed = int(order(self.seed, "ask", unit["source"], unit["image_id"], str(attempt))[:7], 16)
            entries = read_reply(self._reply(messages, seed))
            counts["replies"] += 1
            if entries is None:
                counts[f"rejected: {UNREADABLE}"] += 1
                continue
            asked, refused = check(entries, things, self.rules)
            counts["offered"] += len(entries)
            counts.update({f"rejected: {reason}": number for reason, number in refused.items()})
            return asked
        return []

    def _reply(self, messages: list[Message], seed: int) -> str:
        key = {"model": self.model.name, "messages": messages, "seed": seed}
        return self.kept.text(key, lambda: self.model.complete(messages, seed))

    def _with_masks(self, unit: Record, seen: _Seen, asked: list[Asked], counts: Counter[str]) -> list[Record]:
        """The published form of questions; those whose object has an empty mask are refused."""
        found: dict[str, np.ndarray] = {}
        pairs: list[Record] = []
        for question, answer in asked:
            if answer not in found:
                found[answer] = self._mask(unit["source"], seen, answer)
            mask = found[answer]
            if not mask.any():
                counts[f"rejected: {EMPTY_MASK}"] += 1
                continue
            path = self._write_png(mask, unit["split"], f"{seen.file.stem}_{len(pairs)}.png")
            code = rle.encode(mask[None])[0]
            pairs.append({"question": question, "answer": answer, "rle_seg": code, "segmentation_path": path})
        return pairs

    def _mask(self, source: str, seen: _Seen, answer: str) -> np.ndarray:
        """(H, W) bool: all instances of an object together."""
        samples = seen.samples[answer]
        if source == "coco":
            return torch.stack([sample.target_mask for sample in samples]).any(0).numpy()
        if self.boxes is None:
            raise ValueError("EgoObjects has boxes only; expected a proposer that makes masks of them")
        filled = torch.cat([sample.gt_pool[list(sample.targets)] for sample in samples])
        found = self.boxes.segment_boxes(seen.image, masks_to_boxes_xyxy(filled).float())
        return found.masks.any(0).numpy()

    def _write_png(self, mask: np.ndarray, split: str, name: str) -> str:
        """The path of a mask's PNG in the data set; "" where none is wanted."""
        if self.masks is None:
            return ""
        file = self.masks / split / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as part:
            Image.fromarray(mask.astype(np.uint8) * 255).save(part, format="PNG")
        return file.relative_to(self.masks.parent).as_posix()

    def _names_of(self, source: str, name: str) -> tuple[str, ...]:
        """Other names of a category, where its file has any."""
        if source not in self._synonyms:
            reader = self.readers[source]
            also: dict[str, tuple[str, ...]] = {}
            for category in reader.coco.index.all("category"):
                listed = category.get("synonyms")
                if isinstance(listed, list):
                    own = reader.names.get(category["id"], "")
                    also[own] = (*also.get(own, ()), *(str(synonym).replace("_", " ") for synonym in listed))
            self._synonyms[source] = also
        return self._synonyms[source].get(name, ())


def request(caption: str, things: list[str], most: int) -> list[Message]:
    """What the language model is asked about an image.

    things: names of its objects.  most: questions that are wanted.
    """
    text = REQUEST.format(caption=caption or "(none)", things="; ".join(things), most=most)
    # One message of the user: the chat templates of several models know no system.
    return [{"role": "user", "content": text}]
