"""Generated clips as the rest of the house reads them: clip, masks by frame, and prompts that depend on the id only."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from maskselect.scenes.clip_drawing import drawing_of
from maskselect.scenes.clip_facts import ClipFacts
from maskselect.scenes.motion import FPS, FRAMES, clip_ids
from maskselect.scenes.motion_prompts import draw_clip_prompts
from maskselect.scenes.spec import ScenePrompt
from maskselect.scenes.stream import image_size_of
from maskselect.structures.video import VideoReference, VideoSample

PROMPTS_PER_CLIP = 5
"""Number of prompts of a clip in the data set "scenes-clips"."""


class GeneratedClip:
    """The frames of a generated clip, drawn on demand. Cheap to keep and to pickle.

    Args:
        clip_id: `"{split}-clip-{seed}-{index}"`.
        frames: number of frames.
    """

    fps = FPS

    def __init__(self, clip_id: str, frames: int = FRAMES) -> None:
        self.id, self.frames = clip_id, frames
        self.size = image_size_of(clip_id)

    def __len__(self) -> int:
        return self.frames

    def __getitem__(self, frame: int) -> np.ndarray:
        """(H, W, 3) uint8. Raises IndexError beyond the last frame."""
        return drawing_of(self.id, self.frames).image(_checked(frame, self.frames))

    def masks(self, frame: int) -> np.ndarray:
        """Visible masks of all objects, (M, H, W) bool. Raises IndexError beyond the last frame."""
        return drawing_of(self.id, self.frames).masks(_checked(frame, self.frames))


class GeneratedMasks:
    """The masks of all objects of a generated clip: `structures.clip_groups.ObjectMasks`."""

    def __init__(self, clip: GeneratedClip) -> None:
        self.clip = clip

    def __len__(self) -> int:
        return len(self.clip)

    def __getitem__(self, frame: int) -> Tensor:
        """(M, H, W) bool. Raises IndexError beyond the last frame."""
        return torch.from_numpy(self.clip.masks(frame))


@dataclass(frozen=True)
class UnitedMasks:
    """The union of some objects of a generated clip: `structures.video.FrameMasks`.

    Attributes:
        clip: the clip.
        objects: indices; empty for an empty mask.
    """

    clip: GeneratedClip
    objects: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.clip)

    def __getitem__(self, frame: int) -> np.ndarray:
        """(H, W) bool."""
        return np.asarray(self.clip.masks(frame)[list(self.objects)].any(0))


@dataclass(frozen=True)
class AskedClip:
    """A generated clip with prompts.

    Attributes:
        clip: its frames.
        count: number of objects.
        prompts: in a fixed order.
        reference_frames: for each object the frame on which a reference to it is given.
    """

    clip: GeneratedClip
    count: int
    prompts: list[ScenePrompt]
    reference_frames: tuple[int, ...]

    def samples(self) -> Iterator[VideoSample]:
        """One `VideoSample` a prompt; its id is the clip's id with the prompt's number."""
        names = tuple(f"{frame:05d}" for frame in range(len(self.clip)))
        for number, prompt in enumerate(self.prompts):
            at = tuple(self.reference_frames[k] for k in prompt.references)
            yield VideoSample(
                video_id=self.clip.id,
                sample_id=f"{self.clip.id}/{number}",
                prompt=prompt.text,
                frames=(),
                frame_names=names,
                size=self.clip.size,
                kind="none" if not prompt.targets else "reasoning" if prompt.kind == "reasoning" else "referring",
                object_ids=tuple(str(k) for k in prompt.targets),
                masks=UnitedMasks(self.clip, prompt.targets),
                foreground=UnitedMasks(self.clip, tuple(range(self.count))),
                tag=prompt.kind,
                clip=self.clip,
                references=tuple(
                    VideoReference(UnitedMasks(self.clip, (k,)), frame)
                    for k, frame in zip(prompt.references, at, strict=True)
                ),
            )


def ask_clip(clip_id: str, frames: int, prompts_per_clip: int, reference_share: float) -> AskedClip:
    """A clip and its prompts, which depend on these arguments only."""
    drawing = drawing_of(clip_id, frames)
    facts = ClipFacts.measure(drawing)
    rng = np.random.default_rng(zlib.crc32(f"prompts {clip_id}".encode()))
    prompts = draw_clip_prompts(facts, prompts_per_clip, rng, drawing.scene.split, reference_share=reference_share)
    at = tuple(facts.reference_frame(k) for k in range(facts.count))
    return AskedClip(GeneratedClip(clip_id, frames), facts.count, prompts, at)


def ask_clips(
    split: str,
    seed: int,
    count: int,
    frames: int = FRAMES,
    prompts_per_clip: int = PROMPTS_PER_CLIP,
    reference_share: float = 0.28,
) -> Iterator[AskedClip]:
    """The first `count` clips of a split with their prompts, one after another.

    Args:
        split: one of `spec.SPLITS`.
        seed: at least 0.
        count: at least 1.
        frames: 3 to 60.
        prompts_per_clip: at least 1.
        reference_share: share of prompts with `<mask-ref>`.

    Raises:
        ValueError: the split is unknown or a number is out of range; raised by the call itself, except for `frames`.
    """
    for name, value, least in (("count", count, 1), ("prompts_per_clip", prompts_per_clip, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    ids = clip_ids(split, seed, count)
    return (ask_clip(clip_id, frames, prompts_per_clip, reference_share) for clip_id in ids)


def _checked(frame: int, frames: int) -> int:
    if not 0 <= frame < frames:
        raise IndexError(f"frame {frame}; expected 0 to {frames - 1}")
    return frame
