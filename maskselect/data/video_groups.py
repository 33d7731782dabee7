"""Data sets of videos as training groups of clips: one video with its expressions."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from maskselect.backends.config_tree import Arguments
from maskselect.data.catalog import find_any
from maskselect.data.clips import FramesClip
from maskselect.data.video import VideoDataset
from maskselect.structures.clip_groups import AnnotatedClip
from maskselect.structures.groups import Query
from maskselect.structures.needs import Need
from maskselect.structures.provenance import TrainingData
from maskselect.structures.video import FrameMasks, VideoSample

Expressions = Literal["each", "joined"]
"""One prompt for each expression; or one for all expressions of the same objects, each with a full stop, as InstructSeg
trains on Ref-YouTube-VOS (arXiv 2412.14006, published code)."""


class VideoGroups:
    """A `ClipGroupSource` of a data set of videos with public masks.

    Args:
        dataset: ref-youtube-vos, ref-davis17, revos or mevis.
        root, split: see its reader.
        expressions: see `Expressions`.
        limit: number of first expressions to use; None for all.
        settings: further arguments of the reader.

    Raises:
        ValueError: the split has no public masks.
    """

    def __init__(
        self,
        dataset: str,
        root: Path,
        split: str = "train",
        expressions: Expressions = "each",
        limit: int | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.dataset, self.expressions = dataset, expressions
        reader: Any = find_any(dataset).open(root, split, **(settings or {}))
        self.samples: VideoDataset = reader
        by_video: dict[str, list[int]] = {}
        videos: list[str] = self.samples.video_ids()
        for number, video in enumerate(videos[:limit]):
            by_video.setdefault(video, []).append(number)
        self.videos, self._numbers = list(by_video), list(by_video.values())
        if self.samples[0].masks is None:
            raise ValueError(f"the masks of {dataset} {split} are not public; expected a split such as train")

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The split. Raises ValueError for an unknown data set."""
        name, split = str(arguments["dataset"]), str(arguments.get("split", "train"))
        return find_any(name).missing(name, Path(arguments["root"]), split)

    @classmethod
    def training_data(cls, arguments: Arguments) -> list[TrainingData]:
        """The split."""
        kept = {name: arguments[name] for name in ("split", "limit") if arguments.get(name) is not None}
        return [TrainingData(str(arguments["dataset"]), root=str(arguments["root"]), **kept)]

    def __len__(self) -> int:
        return len(self.videos)

    def image_id(self, item: int) -> str:
        """Name of the data set and id of the video."""
        return f"{self.dataset}/{self.videos[item]}"

    def version(self, item: int) -> str:
        """A digest of the video's expressions and the names of its frames."""
        samples = self._samples(item)
        text = repr([(sample.prompt, sample.object_ids, sample.frame_names) for sample in samples])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def prompts_of(self, item: int) -> int:
        """Number of prompts of a video."""
        return len(self._queries(self._samples(item)))

    def load_clip(self, item: int) -> AnnotatedClip:
        """A video; its objects are the different targets of its expressions."""
        samples = self._samples(item)
        own = {sample.object_ids: sample.masks for sample in samples if sample.masks is not None}
        masks = [own[objects] for objects in _objects(samples)]
        return AnnotatedClip(FramesClip(samples[0].frames), ReadMasks(masks, len(samples[0].frames), samples[0].size))

    def queries(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[Query]:
        """A random choice of the video's prompts."""
        queries = self._queries(self._samples(item))
        return [queries[number] for number in rng.permutation(len(queries))[:count].tolist()]

    def _samples(self, item: int) -> list[VideoSample]:
        return [self.samples[number] for number in self._numbers[item]]

    def _queries(self, samples: Sequence[VideoSample]) -> list[Query]:
        objects = _objects(samples)
        targets: list[tuple[int, ...]] = [
            (objects.index(sample.object_ids),) if sample.object_ids else () for sample in samples
        ]
        texts = [_text(sample.prompt) for sample in samples]
        if self.expressions == "joined":
            joined: dict[tuple[int, ...], list[str]] = {}
            for text, target in zip(texts, targets, strict=True):
                joined.setdefault(target, []).append(f"{text}.")
            texts, targets = [" ".join(own) for own in joined.values()], list(joined)
        kinds = [sample.kind for sample in samples] if self.expressions == "each" else [""] * len(texts)
        rows = zip(texts, targets, kinds, strict=True)
        return [Query(text, (), t, group="reasoning" if kind == "reasoning" else None) for text, t, kind in rows]


class ReadMasks:
    """The masks of all objects, read frame by frame: `structures.clip_groups.ObjectMasks`.

    Args:
        masks: of each object.
        frames: number of frames.
        size: (H, W).
    """

    def __init__(self, masks: Sequence[FrameMasks], frames: int, size: tuple[int, int]) -> None:
        self.masks, self.frames, self.size = masks, frames, size

    def __len__(self) -> int:
        return self.frames

    def __getitem__(self, frame: int) -> Tensor:
        """(M, H, W) bool."""
        if not 0 <= frame < self.frames:
            raise IndexError(f"frame {frame}; expected 0 to {self.frames - 1}")
        if not self.masks:
            return torch.zeros(0, *self.size, dtype=torch.bool)
        return torch.from_numpy(np.stack([masks[frame] for masks in self.masks]))


def _objects(samples: Sequence[VideoSample]) -> list[tuple[str, ...]]:
    """The different targets, without that of no-target prompts."""
    return [objects for objects in dict.fromkeys(sample.object_ids for sample in samples) if objects]


def _text(prompt: str) -> str:
    """An expression without the mark "(s)" of ReVOS, which InstructSeg removes too."""
    return " ".join(prompt.replace("(s)", "").split())
