"""Generated clips as training groups: every visit draws new prompts."""

import sys

import numpy as np
import torch
from torch import Tensor

from maskselect.backends.config_tree import Arguments
from maskselect.scenes.clip_drawing import drawing_of, motion_hash
from maskselect.scenes.clip_facts import ClipFacts
from maskselect.scenes.clip_samples import GeneratedClip, GeneratedMasks
from maskselect.scenes.motion import FRAMES, LEAST_FRAMES, MOST_FRAMES, clip_ids
from maskselect.scenes.motion_prompts import draw_clip_prompts
from maskselect.structures.clip_groups import AnnotatedClip
from maskselect.structures.groups import Query
from maskselect.structures.provenance import TrainingData


class MotionGroups:
    """Generated clips with new prompts at every visit: `structures.clip_groups.ClipGroupSource`.

    Args:
        split: one of `spec.SPLITS`.
        seed: of the clips.
        count: number of clips.
        frames: of a clip, 3 to 60.
        motion_share: expected share of prompts about motion and order.
        reasoning_share: expected share of reasoning prompts. One frame answers the others.
        reference_share: share of prompts with `<mask-ref>`.
        no_target_share: share of no-target prompts.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        split: str = "train",
        seed: int = 0,
        count: int = 4000,
        frames: int = FRAMES,
        motion_share: float = 0.5,
        reasoning_share: float = 0.1,
        reference_share: float = 0.28,
        no_target_share: float = 0.12,
    ) -> None:
        shares = {"motion_share": motion_share, "reasoning_share": reasoning_share}
        for name, share in (shares | {"reference_share": reference_share, "no_target_share": no_target_share}).items():
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"{name} must be within 0 to 1, got {share}")
        if sum(shares.values()) > 1.0:
            raise ValueError(
                f"motion_share and reasoning_share are above 1 together: {motion_share}, {reasoning_share}"
            )
        if not LEAST_FRAMES <= frames <= MOST_FRAMES:
            raise ValueError(f"frames must be {LEAST_FRAMES} to {MOST_FRAMES}, got {frames}")
        self.split, self.frames = split, frames
        self.shares = shares | {"reference_share": reference_share, "no_target_share": no_target_share}
        self.ids = clip_ids(split, seed, count)

    @classmethod
    def training_data(cls, arguments: Arguments) -> list[TrainingData]:
        """The clips as training data."""
        count, split = arguments.get("count"), arguments.get("split", "train")
        return [TrainingData("scenes-clips", split, seed=arguments.get("seed", 0), count=count)]

    def __len__(self) -> int:
        return len(self.ids)

    def image_id(self, item: int) -> str:
        """The clip's id."""
        return self.ids[item]

    def version(self, item: int) -> str:
        """The hash of the drawing code, and the number of frames."""
        return f"{motion_hash()}-{self.frames}"

    def prompts_of(self, item: int) -> int:
        """Unlimited."""
        return sys.maxsize

    def load_clip(self, item: int) -> AnnotatedClip:
        """A clip whose frames are drawn on demand; the extra tensors hold its facts."""
        clip = GeneratedClip(self.ids[item], self.frames)
        facts = ClipFacts.measure(drawing_of(clip.id, self.frames))
        extra = {name: torch.from_numpy(np.array(value)) for name, value in vars(facts).items()}
        return AnnotatedClip(clip, GeneratedMasks(clip), extra)

    def queries(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[Query]:
        """New prompts from the facts."""
        arrays = {name: value.numpy() for name, value in extra.items()}
        size = arrays.pop("image_size")
        facts = ClipFacts(image_size=(int(size[0]), int(size[1])), **arrays)
        return [
            Query(
                prompt.text,
                prompt.references,
                prompt.targets,
                reference_frames=tuple(facts.reference_frame(k) for k in prompt.references),
            )
            for prompt in draw_clip_prompts(facts, count, rng, self.split, **self.shares)
        ]
