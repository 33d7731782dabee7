"""The input of the language model for an image and its prompts: from features to embedded token rows.

`tokens/sequence.py` defines the order of the tokens.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskselect.structures.protocols import LanguageModel
from maskselect.structures.sample import Batch
from maskselect.tokens import sequence
from maskselect.tokens.mask_tokenizer import MaskTokenizer, NoMaskTokens
from maskselect.tokens.sequence import PackedRows, Segment, Slot


@dataclass(frozen=True)
class Tokens:
    """All embeddings except those of text.

    Attributes:
        candidates: mask tokens of candidates, (B, N, D).
        valid: False for padding of `candidates`, (B, N) bool.
        images: image tokens, (B, T, D); T may be 0.
        references: mask tokens of the references of all prompts of an image, padded with zeros, (B, R, D).
        grids: for each image rows and columns of its tokens, which are the first of the T; None without grids.
        temporal: tokens of the video perceiver for all prompts of an image, (B, V, D); None without a perceiver.
        mask_queries: learned mask tokens, (Q, D), the same for all images; None if the language model reads none.
    """

    candidates: Tensor
    valid: Tensor
    images: Tensor
    references: Tensor
    grids: list[tuple[int, int]] | None = None
    temporal: Tensor | None = None
    mask_queries: Tensor | None = None


class Reader(nn.Module):
    """Embeds candidates, references, images and text, and lays them out.

    Args:
        lmm: the language model.
        mask_tokenizer: projector and pre-tokens.
        image_after_prompt: image tokens follow each prompt, instead of being in the prefix that all prompts share. Each
            then depends on the prompt and on all other image tokens.
        position_grid: rows and columns of the image tokens, to each of which learned embeddings of its row and its
            column are added, from zero on; so are those of `Segment.cells`. None adds none.
        look_ahead: W of `Segment.ahead`, of which a learned projection is added to the embedding, from zero on.

    Raises:
        ValueError: if image tokens shall follow the prompt and the language model puts them on grids.
    """

    row_positions: nn.Parameter | None
    column_positions: nn.Parameter | None

    def __init__(
        self,
        lmm: LanguageModel,
        mask_tokenizer: MaskTokenizer | NoMaskTokens,
        image_after_prompt: bool = False,
        position_grid: tuple[int, int] | None = None,
        look_ahead: int = 0,
    ) -> None:
        super().__init__()
        if image_after_prompt and lmm.images_on_grids:
            raise ValueError(
                "a language model that puts image tokens on grids reads them before the prompt; expected "
                "image_after_prompt false"
            )
        self.lmm = lmm
        self.mask_tokenizer = mask_tokenizer
        self.image_after_prompt = image_after_prompt
        rows, columns = (
            None if position_grid is None else nn.Parameter(torch.zeros(count, lmm.width, dtype=torch.float32))
            for count in position_grid or (0, 0)
        )
        self.register_parameter("row_positions", rows)
        self.register_parameter("column_positions", columns)
        self.look_ahead = nn.Linear(look_ahead, lmm.width, bias=False) if look_ahead else None
        if self.look_ahead is not None:
            nn.init.zeros_(self.look_ahead.weight)
        self.chat = {with_image: lmm.chat(with_image) for with_image in (False, True)}

    def blocks(self) -> list[nn.Module]:
        """Layers of the language model, which may be sharded one by one.

        Raises:
            ValueError: without gradient checkpointing. The prefix is then a separate forward pass, and gradients of its
                keys and values bypass the outputs on which sharding waits for them.
        """
        if not self.lmm.gradient_checkpointing:
            raise ValueError("lmm.gradient_checkpointing must be true where the language model is sharded")
        layers: Any = self.lmm.language_model.layers
        return list(layers)

    def tokens(self, batch: Batch) -> Tokens:
        """Embed the masks and images of a batch.

        Raises:
            ValueError: if the language model needs image grids and the batch has none.
        """
        rows = [torch.cat(references) if references else None for references in batch.reference_features]
        most = max([len(r) for r in rows if r is not None], default=0)
        count, candidates, channels = batch.candidate_features.shape
        padded = batch.candidate_features.new_zeros(count, most, channels)
        for row, references in enumerate(rows):
            if references is not None and len(references):
                padded[row, : len(references)] = references
        # One call: under ZeRO-3 a process without references would miss the gradients of a second call.
        masks = self.mask_tokenizer(torch.cat([batch.candidate_features, padded], 1))
        if batch.image_features is None:
            images = masks.new_zeros(count, 0, masks.shape[-1])
        else:
            images = self.lmm.project_image(batch.image_features)
            if self.row_positions is not None and self.column_positions is not None:
                images = images + (self.row_positions[:, None] + self.column_positions).flatten(0, 1)
        grids = self._grids(batch)
        return Tokens(masks[:, :candidates], batch.candidate_valid, images, masks[:, candidates:], grids)

    def _grids(self, batch: Batch) -> list[tuple[int, int]] | None:
        if batch.image_features is None or not self.lmm.images_on_grids:
            return None
        if batch.image_grids is None:
            raise ValueError("this language model puts image tokens on grids, and the batch has image features without")
        return [(rows, columns) for rows, columns in batch.image_grids.tolist()]

    def prefixes(self, tokens: Tokens, orders: list[list[int]]) -> list[Segment]:
        """The prefix of each image, which its prompts share. orders: for each image its candidate numbers in order."""
        if tokens.grids is None:
            count = 0 if self.image_after_prompt else tokens.images.shape[1]
            return [self.prefix(order, count) for order in orders]
        return [self.prefix(order, g[0] * g[1], g) for order, g in zip(orders, tokens.grids, strict=True)]

    def prefix(self, order: list[int], image_tokens: int, grid: tuple[int, int] | None = None) -> Segment:
        """The prefix of one image, see `tokens.sequence.prefix_segment`."""
        chat, has_pre = self.chat[image_tokens > 0], self.mask_tokenizer.pool_pre is not None
        return sequence.prefix_segment(chat.begin, image_tokens, order, has_pre, chat.after, chat.image_end, grid)

    def caption_prefix(self, order: list[int]) -> Segment:
        """The prefix of a caption, with mask tokens and without image tokens."""
        chat, has_pre = self.chat[False], self.mask_tokenizer.pool_pre is not None
        return sequence.prefix_segment(chat.begin, 0, order, has_pre, chat.before_caption)

    def prompt(self, text: str, start: int, first_reference: int = 0) -> Segment:
        """One prompt with its references, up to the answer.

        Args:
            text: the prompt.
            start: first position after the prefix, `Segment.end`.
            first_reference: number of its first reference among those of all prompts.

        Raises:
            ValueError: if it does not fit into the language model's context after the prefix.
        """
        pieces = [self.lmm.token_ids(piece) if piece else [] for piece in sequence.split_prompt(text)]
        has_pre = self.mask_tokenizer.ref_pre is not None
        segment = sequence.prompt_segment(pieces, has_pre, self.chat[False].closing, start, first_reference)
        room = self.lmm.max_positions - start - 1
        if len(segment) > room:
            raise ValueError(f"prompt has {len(segment)} tokens, but only {room} fit into the context behind the image")
        return segment

    def question(self, prompt: Segment, order: list[int]) -> list[Segment]:
        """The segments from a prompt up to its answer: the prompt, and the image tokens `order` if they follow it."""
        if not self.image_after_prompt:
            return [prompt]
        image = sequence.image_segment(order, prompt.end)
        line = self.chat[True].after
        after = Segment([int(Slot.TEXT)] * len(line), line, list(range(image.end, image.end + len(line))))
        return [prompt, image, after]

    def embed(self, rows: PackedRows, tokens: Tokens, owners: Tensor | None = None) -> Tensor:
        """Embed every position.

        Args:
            rows: rows of length L.
            tokens: embeddings of images and masks.
            owners: (rows,) int64, the row of `tokens` for each row; None if they are the same rows.

        Returns:
            Embeddings (rows, L, D).
        """
        if owners is None:
            owners = torch.arange(len(rows.kinds), device=rows.kinds.device)
        text_ids = torch.where(sequence.is_text(rows.kinds), rows.values, 0)
        out = self.lmm.embed(text_ids)
        for slot, source in (
            (Slot.IMAGE, tokens.images),
            (Slot.CANDIDATE, tokens.candidates),
            (Slot.ANSWER, tokens.candidates),
            (Slot.REFERENCE, tokens.references),
            (Slot.TEMPORAL, tokens.candidates[:, :0] if tokens.temporal is None else tokens.temporal),
        ):
            out = sequence.scatter(out, rows, slot, source, owners)
        queries = tokens.candidates.new_zeros(0, out.shape[-1]) if tokens.mask_queries is None else tokens.mask_queries
        for slot, learned in (
            (Slot.POOL_PRE, self.mask_tokenizer.pool_pre),
            (Slot.REF_PRE, self.mask_tokenizer.ref_pre),
            (Slot.MASK_QUERY, queries),
        ):
            if learned is not None:
                shared = learned.reshape(1, -1, out.shape[-1])
                out = sequence.scatter(out, rows, slot, shared, torch.zeros_like(owners))
        row, column = torch.nonzero(rows.cells, as_tuple=True)
        if not len(row):
            return out
        places = self.places(rows.cells[row, column], rows.ahead[row, column] if rows.ahead.shape[-1] else None)
        return out.index_put((row, column), places, accumulate=True)

    def places(self, numbers: Tensor, ahead: Tensor | None = None) -> Tensor:
        """The learned positions of places, and the projections of what follows them: (n, D).

        Args:
            numbers: (n,) int64 of `sequence.place_number`; 0 has no position.
            ahead: (n, W) float32, see `Segment.ahead`.

        Raises:
            ValueError: without `position_grid`, or with `ahead` and without `look_ahead`.
        """
        if (ahead is None) != (self.look_ahead is None):
            raise ValueError("what follows a place is read where look_ahead is set; expected both or neither")
        if self.row_positions is None or self.column_positions is None:
            raise ValueError("places on the image grid need learned positions; expected a position_grid")
        columns = F.pad(self.column_positions, (0, 0, 0, 1))
        places = F.pad((self.row_positions[:, None] + columns).flatten(0, 1), (0, 0, 1, 0))[numbers]
        return places if self.look_ahead is None else places + self.look_ahead(ahead)


def batch_without_candidates(
    image_features: Tensor,
    image_grids: Tensor | None,
    channels: int,
    prompts: list[list[str]],
    references: list[list[Tensor]],
) -> Batch:
    """A batch for a language model that reads images and prompts, but no candidates."""
    none = image_features.new_zeros(len(image_features), 0, channels)
    return Batch(none, none[..., 0].bool(), image_features, prompts, references, image_grids=image_grids)
