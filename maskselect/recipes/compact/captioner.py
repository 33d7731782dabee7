"""Pretraining of the compact LLaVA on captions and short dialogues about generated scenes.

It corresponds to the training of the published LLaVA weights: RAS starts, as in the paper, from a model that already
reads images and text.
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
"""Texts per image."""


class CaptionTask(CompactLearner):
    """Trains vision tower and language model together, with a next-token loss on answers that follow image tokens.

    Args:
        lmm: the model to train.
    """

    name = "llava"

    def __init__(self, lmm: Llava) -> None:
        super().__init__()
        self.lmm = lmm
        lmm.vision_tower.requires_grad_(True)

    def preparer(self, settings: PrepareSettings, training: bool) -> TextPreparer:
        """Prepares pictures with `TEXTS` texts each."""
        return TextPreparer(256, TEXTS, training)

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """A `Need` for a language model whose weights would be random."""
        return random_language_model(arguments)

    def step_tokens(self, images: int, prompts: int, candidates: int) -> int:
        """Number of tokens that the language model reads in a training step."""
        return images * (FRAME_TOKENS + self.lmm.most_image_tokens + TEXTS * PROMPT_TOKENS)

    def loss(self, batch: TextBatch) -> dict[str, Tensor]:
        """Mean cross entropy and accuracy of the answer tokens.

        All texts of an image follow the same image tokens in one row, and do not attend to each other.
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
        in_answer = torch.zeros_like(packed.kinds, dtype=torch.bool)
        for row, texts in enumerate(encoded):
            start = len(prefix)
            for ids, question_length in texts:
                in_answer[row, start + question_length : start + len(ids)] = True
                start += len(ids)
        logits = self.lmm.token_logits(hidden[:, :-1][in_answer[:, 1:]]).float()
        targets = packed.values[in_answer]
        accuracy = (logits.argmax(-1) == targets).float().mean()
        return {"loss": F.cross_entropy(logits, targets), "accuracy": accuracy.detach()}

    @torch.no_grad()
    def validate(self, batch: TextBatch) -> dict[str, Tensor]:
        """The scalars of `loss`, without gradients."""
        return self.loss(batch)

    def learned_state(self) -> dict[str, Tensor]:
        """All tensors of the model except the LM head, which is tied to the embeddings."""
        return {k: v for k, v in self.lmm.model.state_dict().items() if k != "lm_head.weight"}

    def _encode(self, question: str, answer: str) -> tuple[list[int], int]:
        """Token ids of question and answer, and the length of the question.

        The question is never empty, because its last token predicts the first token of the answer.
        """
        start = self.lmm.token_ids(f"{question} ASSISTANT:" if question else "ASSISTANT:")
        return start + self.lmm.token_ids(answer) + [self.lmm.tokenizer.eos_token_id], len(start)

    @staticmethod
    def _segment(ids: list[int], start: int) -> sequence.Segment:
        return sequence.Segment([int(Slot.TEXT)] * len(ids), ids, list(range(start, start + len(ids))))
