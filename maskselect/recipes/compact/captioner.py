"""Pretraining of the compact LLaVA: captions and short dialogues about generated scenes, from image tokens.

The published LLaVA weights have this behind them; the compact model gets it here, so that RAS starts, as in the paper,
from a model that already reads images and text.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from maskselect.backends.needs import random_language_model
from maskselect.lmm.llava import Llava
from maskselect.recipes.compact.learner import CompactLearner
from maskselect.scenes.captions import draw_caption, draw_dialogue
from maskselect.scenes.facts import SceneFacts
from maskselect.scenes.stream import SceneDataset
from maskselect.structures.needs import FRAME_TOKENS, PROMPT_TOKENS, Arguments, Need
from maskselect.tokens import sequence
from maskselect.tokens.sequence import Slot

TEXTS = 4
"""Texts of an image."""

DIALOGUE_SHARE = 0.35
"""Share of texts that are a question and its answer instead of a caption."""


class SceneTexts(Dataset[dict[str, Any]]):
    """Scenes with a few texts each, drawn anew at every reading.

    An item is {"image": (3, S, S) uint8, "texts": list of (question, answer)}; the question of a caption is "".
    """

    def __init__(self, scenes: SceneDataset, texts_per_scene: int = TEXTS) -> None:
        self.scenes = scenes
        self.texts_per_scene = texts_per_scene

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, item: int) -> dict[str, Any]:
        scene = self.scenes[item]
        height, width = (int(v) for v in scene["size"])
        top, left = (scene["index"].shape[0] - height) // 2, (scene["index"].shape[1] - width) // 2
        index = scene["index"][top : top + height, left : left + width].numpy()
        facts = SceneFacts.measure(SceneDataset.scene_of(scene["scene_id"]), index)
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        texts: list[tuple[str, str]] = []
        for _ in range(self.texts_per_scene):
            turns = draw_dialogue(facts, rng, 1) if rng.random() < DIALOGUE_SHARE else []
            texts.append(turns[0] if turns else ("", draw_caption(facts, rng)))
        return {"image": scene["image"], "texts": texts}


def collate_texts(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack images, keep texts as lists."""
    return {"image": torch.stack([i["image"] for i in items]), "texts": [i["texts"] for i in items]}


class CaptionTask(CompactLearner):
    """Next-token loss on answers behind image tokens, tower and language model trained together.

    Args:
        lmm: the model to train.
    """

    name = "llava"

    def __init__(self, lmm: Llava) -> None:
        super().__init__()
        self.lmm = lmm
        lmm.vision_tower.requires_grad_(True)

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """Weights of a language model that would stay random."""
        return random_language_model(arguments)

    def step_tokens(self, images: int, prompts: int, candidates: int) -> int:
        """Tokens that the language model reads in a training step."""
        return images * (FRAME_TOKENS + self.lmm.most_image_tokens + TEXTS * PROMPT_TOKENS)

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Mean cross entropy of answer tokens for {"image": (B, 3, S, S) uint8, "texts": B lists of pairs}.

        All texts of an image stand behind the same image tokens in one row, hidden from each other.
        """
        images = self.lmm.project_image(self.lmm.vision_features(batch["image"].float() / 255))
        begin = self.lmm.token_ids("USER:", begin=True)
        prefix = sequence.prefix_segment(begin, images.shape[1], [], False, self.lmm.token_ids("\n"))
        encoded = [[self._encode(q, a) for q, a in texts] for texts in batch["texts"]]
        rows = [(prefix, [[self._segment(ids, len(prefix))] for ids, _ in texts]) for texts in encoded]
        packed = sequence.pack(rows).to(images.device)
        embeddings = self.lmm.embed(torch.where(packed.kinds == Slot.TEXT, packed.values, 0))
        embeddings = sequence.scatter(
            embeddings, packed, Slot.IMAGE, images, torch.arange(len(images), device=images.device)
        )
        hidden = self.lmm.hidden(embeddings, sequence.visibility(packed, "causal"), packed.positions)
        answered = torch.zeros_like(packed.kinds, dtype=torch.bool)
        for row, texts in enumerate(encoded):
            start = len(prefix)
            for ids, asked in texts:
                answered[row, start + asked : start + len(ids)] = True
                start += len(ids)
        logits = self.lmm.token_logits(hidden[:, :-1][answered[:, 1:]]).float()
        wanted = packed.values[answered]
        hit = (logits.argmax(-1) == wanted).float().mean()
        return {"loss": F.cross_entropy(logits, wanted), "accuracy": hit.detach()}

    @torch.no_grad()
    def validate(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The same numbers without gradients."""
        return self.loss(batch)

    def learned_state(self) -> dict[str, Tensor]:
        """Every tensor of the model but the output layer, which is tied to the embeddings."""
        return {k: v for k, v in self.lmm.model.state_dict().items() if k != "lm_head.weight"}

    def _encode(self, question: str, answer: str) -> tuple[list[int], int]:
        """Token ids of question and answer, and how many of them are the question.

        A question is never empty, because the token before an answer has to predict its first token.
        """
        asked = self.lmm.token_ids(f"{question} ASSISTANT:" if question else "ASSISTANT:")
        return asked + self.lmm.token_ids(answer) + [self.lmm.tokenizer.eos_token_id], len(asked)

    @staticmethod
    def _segment(ids: list[int], start: int) -> sequence.Segment:
        return sequence.Segment([int(Slot.TEXT)] * len(ids), ids, list(range(start, start + len(ids))))
