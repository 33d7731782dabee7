"""Candidates selected one after another: the baseline of RAS, Table 7.

Shape letters: B images, P prompts, N candidates, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from maskselect.heads.autoregressive import NextMaskHead
from maskselect.structures.sample import Batch
from maskselect.systems.reading import Reader
from maskselect.systems.scoring import (
    ReadImages,
    Scorer,
    in_passes,
    lay_out_prompts,
    prompt_hidden,
    read_images,
    repeated_cache,
)
from maskselect.tokens import sequence
from maskselect.tokens.sequence import Segment, Slot


class AutoregressiveScorer(Scorer):
    """Predicts an embedding and selects the nearest candidate, until it predicts the end (RAS, Table 7).

    In training the targets follow each other in the order of the candidates in the prefix (teacher forcing).

    Args:
        width: D of the language model.
        max_masks: maximum number of masks per prompt.
    """

    def __init__(self, width: int, max_masks: int = 16) -> None:
        super().__init__()
        self.head = NextMaskHead(width)
        self.max_masks = max_masks

    def loss(self, reader: Reader, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy of the next candidate or the end, mean over prompts. Raises ValueError without labels."""
        if batch.labels is None:
            raise ValueError("a training batch needs labels")
        images = read_images(reader, batch, shuffle=self.training)
        parts: list[list[list[Segment]]] = []
        steps: list[tuple[int, int, list[int]]] = []
        for number, (prefix, order) in enumerate(zip(images.prefixes, images.orders, strict=True)):
            parts.append([])
            for block, prompt in enumerate(lay_out_prompts(reader, batch.prompts[number], prefix.end)):
                targets = [n for n in order if batch.labels[number, block, n] > 0][: self.max_masks]
                answer = sequence.answer_segment(targets, prompt.end, "causal")
                parts[-1].append([prompt, answer])
                steps.append((number, block, targets))
        packed, hidden = prompt_hidden(reader, images, parts, "causal")
        end = images.tokens.candidates.shape[1]
        losses = []
        for row, (number, block, targets) in enumerate(steps):
            at, inside = (row, packed.blocks[row] == 0) if images.cache else (number, packed.blocks[number] == block)
            last = int((inside & (packed.kinds[at] != Slot.PAD)).nonzero()[-1])
            logits = self.head(hidden[at, last - len(targets) : last + 1], images.tokens.candidates[number])
            logits = logits.masked_fill(F.pad(~images.tokens.valid[number], (0, 1)), -1e4)
            losses.append(
                F.cross_entropy(logits.float(), torch.tensor([*targets, end], dtype=torch.int64, device=logits.device))
            )
        return {"loss": torch.stack(losses).mean()}

    def logits(self, reader: Reader, batch: Batch) -> Tensor:
        """(B, P, N) logits by decoding every prompt: +10 for selected candidates, -10 for others, -1e4 on padding."""
        shape = (len(batch.prompts), max(len(p) for p in batch.prompts), batch.candidate_valid.shape[1])
        out = torch.full(shape, -1e4, dtype=torch.float32, device=batch.candidate_features.device)
        for number in range(len(batch.prompts)):
            image = read_images(reader, batch.row(number))
            scores = self.score(reader, image, batch.prompts[number], image.tokens.references[0]).to(out.device)
            order = image.orders[0]
            out[number, : len(scores), order] = torch.where(scores[:, order] > 0, 10.0, -10.0)
        return out

    def answer(
        self, reader: Reader, image: ReadImages, prompts: list[str], references: Tensor, threshold: float
    ) -> tuple[Tensor, Tensor]:
        """The result of `score`, (P, N), and which scores reach the threshold."""
        scores = self.score(reader, image, prompts, references)
        return scores, scores >= threshold

    def score(self, reader: Reader, image: ReadImages, prompts: list[str], references: Tensor) -> Tensor:
        """(P, N): the probability of each selected candidate, raised to at least 0.5; 0 for other candidates."""
        passes = in_passes(image, prompts, references, most=1)
        return torch.stack([self._decode(reader, held, text) for (text,), held in passes])

    @torch.no_grad()
    def _decode(self, reader: Reader, image: ReadImages, text: str) -> Tensor:
        if image.cache is None:
            raise ValueError("decoding needs an image that was read without gradients")
        tokens = image.tokens
        device = tokens.candidates.device
        # Decoding extends a copy of the cache, because other prompts use the image's cache, too.
        cache = repeated_cache(reader, image.cache, torch.zeros(1, dtype=torch.long, device=device))
        selected = torch.zeros(tokens.candidates.shape[1] + 1, dtype=torch.float32, device=device)
        blocked = F.pad(~tokens.valid[0], (0, 1))
        prompt = reader.prompt(text, image.prefixes[0].end)
        rows = sequence.pack([(None, [[prompt]])]).to(device)
        step, positions = reader.embed(rows, tokens), rows.positions
        while True:
            hidden = reader.lmm.hidden(step, None, positions, cache)[:, -1:]
            probabilities = self.head(hidden, tokens.candidates)[0, 0].masked_fill(blocked, -1e4).float().softmax(-1)
            best = int(probabilities.argmax())
            if best == len(selected) - 1 or int((selected > 0).sum()) >= self.max_masks:
                return selected[:-1].cpu()
            selected[best] = probabilities[best].clamp(min=0.5)
            blocked[best] = True
            step, positions = tokens.candidates[:, best : best + 1], positions[:, -1:] + 1
