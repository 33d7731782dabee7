"""Pretraining of the compact LLaVA: captions and short dialogues about generated scenes, from image tokens.

The published LLaVA weights have this behind them; the compact model gets it here, so that RAS starts, as in the paper,
from a model that already reads images and text.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from maskselect.backends.needs import random_language_model
from maskselect.lmm.llava import Llava
from maskselect.recipes.compact.learner import CompactLearner
from maskselect.structures.batches import TextBatch
from maskselect.structures.groups import PrepareSettings
from maskselect.structures.needs import FRAME_TOKENS, PROMPT_TOKENS, Arguments, Need
from maskselect.systems.picture_batches import TextPreparer
from maskselect.tokens import sequence
from maskselect.tokens.sequence import Slot

TEXTS = 4
"""Texts of an image."""


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

    def preparer(self, settings: PrepareSettings, training: bool) -> TextPreparer:
        """Pictures with `TEXTS` texts each."""
        return TextPreparer(256, TEXTS, training)

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """Weights of a language model that would stay random."""
        return random_language_model(arguments)

    def step_tokens(self, images: int, prompts: int, candidates: int) -> int:
        """Tokens that the language model reads in a training step."""
        return images * (FRAME_TOKENS + self.lmm.most_image_tokens + TEXTS * PROMPT_TOKENS)

    def loss(self, batch: TextBatch) -> dict[str, Tensor]:
        """Mean cross entropy of answer tokens.

        All texts of an image stand behind the same image tokens in one row, hidden from each other.
        """
        images = self.lmm.project_image(self.lmm.vision_features(batch.images.float() / 255))
        begin = self.lmm.token_ids("USER:", begin=True)
        prefix = sequence.prefix_segment(begin, images.shape[1], [], False, self.lmm.token_ids("\n"))
        encoded = [[self._encode(q, a) for q, a in texts] for texts in batch.texts]
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
    def validate(self, batch: TextBatch) -> dict[str, Tensor]:
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
