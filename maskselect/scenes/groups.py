"""Generated scenes as training groups: every visit draws new prompts."""

import sys
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from maskselect.backends.config_tree import Arguments
from maskselect.scenes.captions import draw_caption, draw_dialogue
from maskselect.scenes.classes import draw_class_prompt
from maskselect.scenes.facts import SceneFacts
from maskselect.scenes.layout import scene_ids
from maskselect.scenes.prompts import KIND_SHARES, draw_prompts
from maskselect.scenes.reasoning import draw_reasoning
from maskselect.scenes.render import render
from maskselect.scenes.stream import drawing_hash, scene_of
from maskselect.scenes.twins import draw_twins
from maskselect.scenes.unknown import draw_unknown
from maskselect.structures.groups import Annotated, Query
from maskselect.structures.provenance import TrainingData

CAPTION_QUESTION = "Describe the image."
"""The question of captions, in prompts that words answer."""


class SceneGroups:
    """Generated scenes with new prompts at every visit.

    Args:
        reference_share: see `draw_prompts`. The defaults of this and the next two are those of the test splits.
        no_target_share: see `draw_prompts`.
        kind_shares: see `draw_prompts`.
        reasoning_share: expected share of reasoning prompts, see `draw_reasoning`.
        unknown_share: expected share of no-target prompts with an unknown word, see `draw_unknown`.
        twin_share: expected share of prompts that refer to an object, see `draw_twins`.
        twin_form: "visual" with `<mask-ref>`, or "verbal" with a description in its place (RAS, Table B). With the same
            seeds both have the same prompts otherwise.
        dialogue_share: expected share of questions with answers among the texts; the others are captions.
        classes_share: expected share of prompts that list classes, for Text4Seg; see `draw_class_prompt`.
        texts_share: expected share of prompts that words answer, for Text4Seg: `texts` in quotation marks.

    Raises:
        ValueError: a share is outside 0 to 1, or those of prompts are above 1 together.
    """

    def __init__(
        self,
        split: str = "train",
        seed: int = 0,
        count: int = 8000,
        reference_share: float = 0.28,
        no_target_share: float = 0.12,
        kind_shares: dict[str, float] | None = None,
        reasoning_share: float = 0.0,
        unknown_share: float = 0.0,
        dialogue_share: float = 0.35,
        classes_share: float = 0.0,
        texts_share: float = 0.0,
        twin_share: float = 0.0,
        twin_form: Literal["visual", "verbal"] = "visual",
    ) -> None:
        for name, share in (
            ("reasoning_share", reasoning_share),
            ("unknown_share", unknown_share),
            ("dialogue_share", dialogue_share),
            ("classes_share", classes_share),
            ("texts_share", texts_share),
            ("twin_share", twin_share),
        ):
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"{name} must be within 0 to 1, got {share}")
        shares = (reasoning_share, unknown_share, classes_share, texts_share, twin_share)
        if sum(shares) > 1.0:
            raise ValueError(
                "reasoning_share, unknown_share, classes_share, texts_share and twin_share are above 1 together: "
                f"{', '.join(map(str, shares))}"
            )
        self.split = split
        self.reasoning_share, self.unknown_share = reasoning_share, unknown_share
        self.dialogue_share, self.classes_share, self.texts_share = dialogue_share, classes_share, texts_share
        self.twin_share, self.twin_form = twin_share, twin_form
        self.reference_share, self.no_target_share = reference_share, no_target_share
        self.kind_shares = KIND_SHARES if kind_shares is None else kind_shares
        self.ids = list(scene_ids(split, seed, count))
        self._drawing = drawing_hash()

    @classmethod
    def training_data(cls, arguments: Arguments) -> list[TrainingData]:
        """The scenes as training data."""
        count, split = arguments.get("count"), arguments.get("split", "train")
        return [TrainingData("scenes", split, seed=arguments.get("seed", 0), count=count)]

    def __len__(self) -> int:
        return len(self.ids)

    def image_id(self, item: int) -> str:
        """The scene's id."""
        return self.ids[item]

    def version(self, item: int) -> str:
        """The hash of the drawing code."""
        return self._drawing

    def prompts_of(self, item: int) -> int:
        """Unlimited."""
        return sys.maxsize

    def load(self, item: int) -> Annotated:
        """Draw a scene; the extra tensors hold its facts."""
        scene = scene_of(self.ids[item])
        drawing = render(scene)
        facts = SceneFacts.measure(scene, drawing.index)
        extra = {name: torch.from_numpy(np.array(value)) for name, value in vars(facts).items()}
        return Annotated(drawing.image, torch.from_numpy(drawing.masks(len(scene.objects))), extra)

    def queries(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[Query]:
        """New prompts from the facts."""
        facts, shares = _facts(extra), (self.reference_share, self.no_target_share)
        # A share of 0 draws nothing from `rng`, so that older seeds reproduce their prompts.
        number = int(rng.binomial(count, self.reasoning_share)) if self.reasoning_share else 0
        drawn = [p.reasoning for p in draw_reasoning(facts, number, rng, self.split, *shares)] if number else []
        number = int(rng.binomial(count, self.unknown_share)) if self.unknown_share else 0
        number = min(number, count - len(drawn))
        drawn += draw_unknown(facts, number, rng, self.split, self.reference_share) if number else []
        number = int(rng.binomial(count, self.twin_share)) if self.twin_share else 0
        twins = (
            draw_twins(facts, min(number, count - len(drawn)), rng, self.split, self.no_target_share) if number else []
        )
        drawn += [getattr(pair, self.twin_form) for pair in twins]
        number = int(rng.binomial(count, self.classes_share)) if self.classes_share else 0
        listing = [draw_class_prompt(facts, rng) for _ in range(min(number, count - len(drawn)))]
        number = int(rng.binomial(count, self.texts_share)) if self.texts_share else 0
        number = min(number, count - len(drawn) - len(listing))
        texts = self.texts(item, extra, number, rng) if number else []
        rest = draw_prompts(
            facts, count - len(drawn) - len(listing) - len(texts), rng, self.split, *shares, self.kind_shares
        )
        return [
            *(Query(p.text, p.references, p.targets) for p in (*rest, *drawn)),
            *(Query(text, (), targets, labels=labels) for text, targets, labels in listing),
            *(Query(f'"{question or CAPTION_QUESTION}"', (), (), answer=answer) for question, answer in texts),
        ]

    def caption(self, item: int, extra: dict[str, Tensor], rng: np.random.Generator) -> str:
        """A new caption."""
        return draw_caption(_facts(extra), rng)

    def texts(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Fresh captions, and questions with their answers."""
        facts = _facts(extra)
        texts: list[tuple[str, str]] = []
        for _ in range(count):
            turns = draw_dialogue(facts, rng, 1) if rng.random() < self.dialogue_share else []
            texts.append(turns[0] if turns else ("", draw_caption(facts, rng)))
        return texts


def _facts(extra: dict[str, Tensor]) -> SceneFacts:
    arrays = {name: value.numpy() for name, value in extra.items()}
    size = arrays.pop("image_size")
    return SceneFacts(image_size=(int(size[0]), int(size[1])), **arrays)
