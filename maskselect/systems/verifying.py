"""Asks a vision-language model about single regions of a picture, and reads its answer as a probability of "yes".

    [picture] [view: the picture with the region outlined] [crop: the region up close] question -> yes or no

Nothing is generated: the score is the probability of "yes" against "no" at the first position of the answer. The
picture is read once; keys and values of its positions are the prefix of all regions and prompts. Regions run in passes
of a fixed number of rows, which bounds memory. A row may ask several questions about its region: each attends to
pictures and to itself, not to the others.

Shape letters: R rows, L positions, K cached positions, Q questions, T image tokens, D width of the language model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from maskselect.ops.marking import Colour, Mark, crop, outlined, scaled, scaled_down, window_of
from maskselect.structures.protocols import LanguageModel
from maskselect.structures.sample import MASK_REF

CANDIDATE: tuple[str, Colour] = ("red", (255, 0, 0))
"""Name and colour of the outline of a candidate."""
REFERENCES: tuple[tuple[str, Colour], ...] = (
    ("blue", (0, 90, 255)),
    ("green", (0, 200, 0)),
    ("yellow", (255, 225, 0)),
    ("magenta", (255, 0, 255)),
    ("cyan", (0, 225, 225)),
    ("white", (255, 255, 255)),
)
"""Names and colours of the outlines of references, in their order in the prompt."""
QUESTION = (
    "The first picture shows a scene. The second picture shows the same scene with one region outlined in red. The "
    'third picture shows this region up close.{references} Request: "{prompt}". Is the region outlined in red part '
    "of what is requested? Answer yes or no."
)
YES, NO = ("Yes", "yes"), ("No", "no")
"""Answers whose first tokens count."""
Phrasing = Literal["full", "plain"]
"""`full`: `QUESTION`, for public models. `plain`: the prompt alone, for a language model that is trained for it."""
_MARGIN = 0.15
"""Margin around a region up close, as a share of its longer side."""


def question_of(text: str, phrasing: Phrasing = "full") -> str:
    """The question about a region for a prompt; the n-th `<mask-ref>` becomes "the region outlined in COLOUR".

    Raises:
        ValueError: for more references than there are colours.
    """
    pieces = text.split(MASK_REF)
    names = [name for name, _ in REFERENCES[: len(pieces) - 1]]
    if len(names) < len(pieces) - 1:
        raise ValueError(
            f"prompt has {len(pieces) - 1} {MASK_REF}; this system outlines each in a colour of its own, and expects "
            f"at most {len(REFERENCES)}"
        )
    prompt = pieces[0] + "".join(
        f"the region outlined in {name}{piece}" for name, piece in zip(names, pieces[1:], strict=True)
    )
    if phrasing == "plain":
        return prompt
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    many = ("s", "are references") if len(names) > 1 else ("", "is a reference")
    references = f" The region{many[0]} outlined in {listed} {many[1]}." if names else ""
    return QUESTION.format(references=references, prompt=prompt)


@dataclass(frozen=True)
class ReadPicture:
    """A picture that was read.

    Attributes:
        cache: keys and values of its K positions.
        length: K.
        end: the first position id after it.
        kept: image tokens of crops ("crop", n) and of views without references ("view", n), n being `Region.number`.
    """

    cache: Any
    length: int
    end: int
    kept: dict[tuple[str, int], Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Region:
    """What is shown of a region.

    Attributes:
        view: the picture with the outlined region, (H, W, 3) uint8.
        crop: the region up close, (H, W, 3) uint8.
        number: of the candidate, whose image tokens are then kept for further prompts; None keeps nothing.
        pointed: the view shows references, too, and is not kept.
    """

    view: np.ndarray
    crop: np.ndarray
    number: int | None = None
    pointed: bool = False


@dataclass(frozen=True)
class Piece:
    """A part of a row: embeddings (L, D), their position ids (L, 3), and the first position id after it.

    question: number of the question, from 1 on; 0 for pictures.
    """

    embeddings: Tensor
    positions: Tensor
    end: int
    question: int = 0


@dataclass(frozen=True)
class Shown:
    """Image tokens (T, D) of a picture, and their grid; None for a line."""

    tokens: Tensor
    grid: tuple[int, int] | None


class Verifier(nn.Module):
    """Asks a language model about regions.

    Args:
        lmm: the language model.
        picture_side, view_side: maximum length of the longer side of the whole picture, and of the view with the
            outlined region, in pixels.
        crop_side: length of the longer side of the crop, in pixels.
        rows: R, number of regions in a forward pass.
        phrasing: of questions.

    Raises:
        ValueError: if "yes" and "no" begin with the same token.
    """

    def __init__(
        self,
        lmm: LanguageModel,
        picture_side: int = 1024,
        view_side: int = 448,
        crop_side: int = 224,
        rows: int = 8,
        phrasing: Phrasing = "full",
    ) -> None:
        super().__init__()
        self.lmm = lmm
        self.picture_side, self.view_side, self.crop_side, self.rows = picture_side, view_side, crop_side, rows
        self.phrasing: Phrasing = phrasing
        chat, bare = lmm.chat(True), lmm.chat(False)
        self._begin, self._closing = chat.begin, chat.closing
        self._image_begin = chat.begin[len(bare.begin) :]
        self._image_end = [*chat.image_end, *chat.after]
        self._yes, self._no = ({lmm.token_ids(word)[0] for word in words if lmm.token_ids(word)} for words in (YES, NO))
        if self._yes & self._no:
            raise ValueError('"yes" and "no" begin with the same token of this language model; expected another one')

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    def question(self, text: str) -> str:
        """See `question_of`."""
        return question_of(text, self.phrasing)

    @torch.no_grad()
    def read(self, image: np.ndarray) -> ReadPicture:
        """Read a picture (H, W, 3) uint8, which all questions share."""
        small = scaled_down(image, self.picture_side)
        return self.read_tokens(Shown(self.image_tokens([small])[0], self._grid(small)))

    def read_tokens(self, picture: Shown) -> ReadPicture:
        """Read the image tokens of a picture; gradients are recorded."""
        begin = self._text(self._begin, 0)
        shown = self._shown(picture, begin.end)
        end = self._text(self._image_end, shown.end)
        cache = self.lmm.new_cache()
        embeddings, positions, _ = _joined([[begin, shown, end]])
        self.lmm.hidden(embeddings, None, self._ids(positions), cache)
        return ReadPicture(cache, embeddings.shape[1], end.end)

    def view(self, image: np.ndarray, mask: np.ndarray, references: Sequence[np.ndarray]) -> np.ndarray:
        """The picture with outlined masks (H, W) bool: the candidate in red, each reference in its own colour."""
        colours = [colour for _, colour in REFERENCES[: len(references)]]
        # Outlines of references are wider, so that they stay visible where a candidate is a reference.
        marks: list[Mark] = [(one, colour, 2) for one, colour in zip(references, colours, strict=True)]
        return outlined(scaled_down(image, self.view_side), [*marks, (mask, CANDIDATE[1], 1)])

    def crop(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The candidate up close: (H, W, 3) uint8 and (H, W) bool."""
        return scaled(crop(image, window_of(mask, _MARGIN)), self.crop_side)

    def image_tokens(self, images: Sequence[np.ndarray]) -> list[Tensor]:
        """Image tokens (T, D) of each picture (H, W, 3) uint8; pictures of one size run together, R at most."""
        return self._seen(images, self.lmm.project_image)

    def image_features(self, images: Sequence[np.ndarray]) -> list[Tensor]:
        """Output (T, E) of the vision tower for each picture; as `image_tokens`."""
        return self._seen(images, lambda features: features)

    @torch.no_grad()
    def _seen(self, images: Sequence[np.ndarray], finish: Callable[[Tensor], Tensor]) -> list[Tensor]:
        out: dict[int, Tensor] = {}
        for shape in dict.fromkeys(image.shape for image in images):
            numbers = [number for number, image in enumerate(images) if image.shape == shape]
            for some in (numbers[start : start + self.rows] for start in range(0, len(numbers), self.rows)):
                pixels = torch.from_numpy(np.stack([images[number] for number in some])).permute(0, 3, 1, 2)
                features = self.lmm.vision_features(pixels.to(self._device).float() / 255)
                out.update(zip(some, finish(features), strict=True))
        return [out[number] for number in range(len(images))]

    def probabilities(self, read: ReadPicture, regions: Sequence[Region], questions: Sequence[str]) -> Tensor:
        """The probability of "yes" for each region and its question, (N,) float32 on the CPU; see `answers`."""
        return self.answers(read, regions, [[text] for text in questions])

    @torch.no_grad()
    def answers(self, read: ReadPicture, regions: Sequence[Region], questions: Sequence[Sequence[str]]) -> Tensor:
        """The probability of "yes" against "no" for each question, (Q,) float32 on the CPU.

        Args:
            read: the picture.
            regions: N regions of it.
            questions: for each region the texts, of `question`; Q in total.

        Raises:
            ValueError: if a question does not fit into the language model's context.
        """
        scores = [torch.zeros(0, dtype=torch.float32)]
        for start in range(0, len(regions), self.rows):
            some = regions[start : start + self.rows]
            shown = [
                [Shown(one, self._grid(image)) for one, image in zip(tokens, (region.view, region.crop), strict=True)]
                for region, tokens in zip(some, self._tokens(read, some), strict=True)
            ]
            logits = self.logits(read, shown, questions[start : start + self.rows])
            scores.append(logits.sigmoid().cpu())
        return torch.cat(scores)

    def logits(self, read: ReadPicture, shown: Sequence[Sequence[Shown]], questions: Sequence[Sequence[str]]) -> Tensor:
        """Log odds of "yes" against "no" of each question, in one pass: (Q,) float32; gradients are recorded.

        Args:
            read: the picture.
            shown: for each of R regions its view and its crop.
            questions: for each region the texts, of `question`; Q in total.

        Raises:
            ValueError: if a question does not fit into the language model's context.
        """
        rows = [self._row(read, *one) for one in zip(shown, questions, strict=True)]
        embeddings, positions, asked = _joined(rows)
        count, length = embeddings.shape[:2]
        before = torch.ones(count, length, read.length, dtype=torch.bool, device=embeddings.device)
        causal = torch.ones(length, length, dtype=torch.bool, device=embeddings.device).tril()
        # Padding is on the right, where with causal attention no real position looks.
        same = (asked[:, None] == 0) | (asked[:, None] == asked[:, :, None])
        visible = torch.cat([before, causal & same.to(causal.device)], 2)[:, None]
        cache = self.lmm.new_cache()
        for number, layer in enumerate(read.cache.layers):
            cache.update(layer.keys.expand(count, -1, -1, -1), layer.values.expand(count, -1, -1, -1), number)
        hidden = self.lmm.hidden(embeddings, visible, self._ids(positions), cache)
        ends = [(row, end) for row, pieces in enumerate(rows) for end in _question_ends(pieces)]
        chosen, last = torch.tensor(ends, dtype=torch.int64, device=hidden.device).reshape(-1, 2).T
        logits = self.lmm.token_logits(hidden[chosen, last]).float()
        yes, no = (logits[:, sorted(ids)].logsumexp(1) for ids in (self._yes, self._no))
        return yes - no

    def _tokens(self, read: ReadPicture, regions: Sequence[Region]) -> list[tuple[Tensor, Tensor]]:
        """Image tokens of view and crop of each region."""
        keys: list[tuple[str, int]] = []
        for place, region in enumerate(regions):
            keeps = region.number is not None
            keys.append(("view", region.number or 0) if keeps and not region.pointed else ("view once", place))
            keys.append(("crop", region.number or 0) if keeps else ("crop once", place))
        images = [image for region in regions for image in (region.view, region.crop)]
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in read.kept}
        made = dict(zip(new, self.image_tokens(list(new.values())), strict=True))
        read.kept.update({key: tokens for key, tokens in made.items() if not key[0].endswith("once")})
        found = [(read.kept | made)[key] for key in keys]
        return list(zip(found[::2], found[1::2], strict=True))

    def _row(self, read: ReadPicture, shown: Sequence[Shown], questions: Sequence[str]) -> list[Piece]:
        pieces, end = [], read.end
        for image in shown:
            pieces.append(self._text(self._image_begin, end))
            pieces.append(self._shown(image, pieces[-1].end))
            pieces.append(self._text(self._image_end, pieces[-1].end))
            end = pieces[-1].end
        pictures = read.length + sum(len(piece.positions) for piece in pieces)
        for number, question in enumerate(questions, 1):
            piece = self._text([*self.lmm.token_ids(question), *self._closing], end)
            pieces.append(replace(piece, question=number))
            length = pictures + len(piece.positions)
            if length > self.lmm.max_positions:
                raise ValueError(
                    f"pictures and question have {length} tokens, but the context of the language model has "
                    f"{self.lmm.max_positions}; expected a shorter prompt, or smaller pictures (picture_side, "
                    "view_side)"
                )
        return pieces

    def _text(self, ids: Sequence[int], start: int) -> Piece:
        tokens = torch.tensor(list(ids), dtype=torch.int64, device=self._device)
        return Piece(self.lmm.embed(tokens), _line(len(ids), start), start + len(ids))

    def _grid(self, image: np.ndarray) -> tuple[int, int] | None:
        return self.lmm.image_grid(image.shape[0], image.shape[1])

    def _shown(self, image: Shown, start: int) -> Piece:
        """Image tokens, on a grid or in a line (M-RoPE, arXiv 2409.12191, section 2.1)."""
        tokens, grid = image.tokens, image.grid
        if grid is None:
            return Piece(tokens, _line(len(tokens), start), start + len(tokens))
        rows, columns = torch.meshgrid(*(torch.arange(count, dtype=torch.int64) for count in grid), indexing="ij")
        places = torch.stack([torch.zeros_like(rows), rows, columns], -1).flatten(0, 1)
        return Piece(tokens, start + places, start + max(grid))

    def _ids(self, positions: Tensor) -> Tensor:
        """Position ids as the language model takes them: (R, L, 3) on grids, (R, L) in a line."""
        positions = positions.to(self._device)
        return positions if self.lmm.images_on_grids else positions[..., 0]


def _line(count: int, start: int) -> Tensor:
    """Position ids one after another, the same in all three dimensions: (count, 3) int64."""
    return torch.arange(start, start + count, dtype=torch.int64)[:, None].expand(-1, 3)


def _question_ends(pieces: Sequence[Piece]) -> list[int]:
    """The number of the last position of each question within its row."""
    ends = accumulate(len(piece.positions) for piece in pieces)
    return [end - 1 for piece, end in zip(pieces, ends, strict=True) if piece.question]


def _joined(rows: list[list[Piece]]) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings (R, L, D), position ids (R, L, 3) and question numbers (R, L) of rows, padded on the right with 0."""
    pad = nn.utils.rnn.pad_sequence
    embeddings = [torch.cat([piece.embeddings for piece in row]) for row in rows]
    positions = [torch.cat([piece.positions for piece in row]) for row in rows]
    asked = [torch.cat([torch.full((len(p.positions),), p.question, dtype=torch.int64) for p in row]) for row in rows]
    return pad(embeddings, batch_first=True), pad(positions, batch_first=True), pad(asked, batch_first=True)
