"""Batches of InstructSeg: key frames with prompts and the frames around them, from pictures and clips.

Shape letters: M objects, s S sides of squares, H W pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskselect.ops.images import Interpolation, cornered_image, resized_image
from maskselect.ops.masks import resize_nearest
from maskselect.structures.batches import InstructBatch
from maskselect.structures.clip_groups import ClipGroupSource
from maskselect.structures.groups import GroupMixture, GroupSource, Query, TextSource, using

NEAREST, FARTHEST = 2, 9
"""Largest distance between drawn frames: a random number from NEAREST to FARTHEST."""

REVERSED = 0.3
"""Share of drawn clips that run backwards."""

_TRIES = 20


def frames_around(key: int, length: int, count: int) -> list[int]:
    """The frames around a key frame at inference, in order: as many before it as after it, where there are any.

    As published for 4 frames, but frames beyond the end of a short clip are replaced by its last frame. A picture is a
    clip of one frame, and its own only frame.

    Args:
        key: the key frame.
        length: number of frames of the clip.
        count: number of frames around; 0 gives the key frame itself.

    >>> frames_around(5, 10, 4), frames_around(1, 10, 4), frames_around(9, 10, 4), frames_around(1, 3, 4)
    ([3, 4, 6, 7], [0, 2, 3, 4], [5, 6, 7, 8], [0, 2, 2, 2])
    """
    if count == 0 or length == 1:
        return [key]
    first = max(min(key - count // 2, length - 1 - count), 0)
    return [min(frame, length - 1) for frame in range(first, first + count + 1) if frame != key]


def draw_frames(length: int, count: int, rng: np.random.Generator) -> tuple[int, list[int]]:
    """A key frame and the frames around it for training.

    As published: frames are added one by one, each near one that was drawn; they are sorted, some run backwards; the
    middle one is the key frame. A clip with too few frames gives some of them more than once (ours).
    """
    distance = int(rng.integers(NEAREST, FARTHEST + 1))
    chosen = [int(rng.integers(length))]
    while len(chosen) < min(count + 1, length):
        near = {frame + step for frame in chosen for step in range(-distance, distance + 1)}
        free = sorted(frame for frame in near if 0 <= frame < length and frame not in chosen)
        chosen.append(int(rng.choice(free)))
    chosen += [int(frame) for frame in rng.choice(chosen, count + 1 - len(chosen))]
    chosen.sort(reverse=bool(rng.random() < REVERSED))
    key = chosen.pop(count // 2)
    return key, chosen or [key]


@dataclass(frozen=True)
class InstructItem:
    """One item of an `InstructBatch`; frames are numbered within the item.

    Attributes:
        frames: (F, 3, s, s) uint8; the key frame is the first.
        around: see there.
        picture, size, objects: see there.
        queries: prompts with masks; their targets are numbers among `objects`.
        references, reference_frames: see there.
        words: see there.
    """

    frames: Tensor
    around: list[int]
    picture: Tensor
    size: tuple[int, int]
    objects: Tensor
    queries: list[Query]
    references: list[Tensor]
    reference_frames: list[list[int]]
    words: list[tuple[str, str]]


class InstructPreparer:
    """Pictures and clips with prompts.

    Args:
        side: s.
        interpolation: of frames.
        picture_side: S.
        count: frames around the key frame of a clip.
        training: draw frames at random; else the key frame is in the middle.
    """

    def __init__(self, side: int, interpolation: Interpolation, picture_side: int, count: int, training: bool) -> None:
        self.side, self.interpolation, self.picture_side = side, interpolation, picture_side
        self.frames_around, self.training = count, training

    def prepare(
        self, source: GroupSource | ClipGroupSource, number: int, rng: np.random.Generator, prompts: int
    ) -> InstructItem:
        """See `structures.protocols.Preparer`."""
        while isinstance(source, GroupMixture):
            source, number = source.find(number)
        with using(source, number):
            if isinstance(source, ClipGroupSource):
                return self._of_clip(source, number, rng, prompts)
            annotated = source.load(number)
            queries = source.queries(number, annotated.extra, prompts, rng)
            words = [(query.text[1:-1], query.answer or "") for query in queries if _in_words(query)]
            if not queries and isinstance(source, TextSource):  # a picture with a dialogue, without masks
                words = source.texts(number, annotated.extra, prompts, rng)
            queries = [query for query in queries if not _in_words(query)]
            references = [annotated.masks[list(query.references)] for query in queries]
            places = [[0] * len(query.references) for query in queries]
            return self._item([annotated.image], [0], annotated.masks, queries, references, places, words)

    def _of_clip(self, source: ClipGroupSource, number: int, rng: np.random.Generator, prompts: int) -> InstructItem:
        annotated = source.load_clip(number)
        length, queries = len(annotated.clip), source.queries(number, annotated.extra, prompts, rng)
        wanted = {target for query in queries for target in query.targets}
        key, around = length // 2, frames_around(length // 2, length, self.frames_around)
        for _ in range(_TRIES if self.training else 0):
            key, around = (
                draw_frames(length, self.frames_around, rng) if self.frames_around else (int(rng.integers(length)), [])
            )
            if not wanted or annotated.masks[key][sorted(wanted)].any():
                break
        used = list(dict.fromkeys([key, *around, *(frame for query in queries for frame in query.reference_frames)]))
        place = {frame: n for n, frame in enumerate(used)}
        references = [
            torch.stack([annotated.masks[frame][one] for one, frame in pairs])
            if (pairs := list(zip(query.references, query.reference_frames, strict=True)))
            else annotated.masks[key][:0]
            for query in queries
        ]
        places = [[place[frame] for frame in query.reference_frames] for query in queries]
        frames = [annotated.clip[frame] for frame in used]
        return self._item(
            frames, [place[f] for f in around] or [0], annotated.masks[key], queries, references, places, []
        )

    def _item(
        self,
        frames: list[np.ndarray],
        around: list[int],
        masks: Tensor,
        queries: list[Query],
        references: list[Tensor],
        places: list[list[int]],
        words: list[tuple[str, str]],
    ) -> InstructItem:
        side = (self.side, self.side)
        picture, inner = cornered_image(frames[0], self.picture_side)
        squares = torch.stack([resized_image(frame, side, self.interpolation) for frame in frames])
        visible = masks.flatten(1).any(1)
        numbers = (visible.cumsum(0) - 1).tolist()
        shown = [tuple(numbers[target] for target in query.targets if visible[target]) for query in queries]
        objects = F.pad(
            resize_nearest(masks[visible], inner),
            (0, self.picture_side - inner[1], 0, self.picture_side - inner[0]),
        )
        asked = [
            Query(query.text, query.references, own, answer=query.answer)
            for query, own in zip(queries, shown, strict=True)
        ]
        return InstructItem(squares, around, picture, inner, objects, asked, references, places, words)

    def collate(self, items: list[InstructItem]) -> InstructBatch:
        """Join items; frames get numbers among all frames."""
        starts = np.cumsum([0, *(len(item.frames) for item in items)]).tolist()
        pairs = list(zip(items, starts, strict=False))
        return InstructBatch(
            torch.cat([item.frames for item in items]),
            starts[:-1],
            [[start + frame for frame in item.around] for item, start in pairs],
            torch.stack([item.picture for item in items]),
            [item.size for item in items],
            [item.objects for item in items],
            [[query.text for query in item.queries] for item in items],
            [[query.targets for query in item.queries] for item in items],
            [item.references for item in items],
            [[[start + frame for frame in row] for row in item.reference_frames] for item, start in pairs],
            [[query.answer or "" for query in item.queries] for item in items],
            [item.words for item in items],
        )


def _in_words(query: Query) -> bool:
    """Whether words alone answer a query."""
    return query.answer is not None and not query.targets
