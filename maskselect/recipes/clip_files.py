"""Writes generated clips in the format of ReVOS, which `data.video.RevosDataset` reads."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskselect.backends.progress import track
from maskselect.ops import rle
from maskselect.ops.atomic import atomic_folder, write_text
from maskselect.scenes.clip_samples import PROMPTS_PER_CLIP, AskedClip, ask_clips
from maskselect.scenes.motion import FRAMES

TYPES = {"reasoning": 1, "none": 2}
"""`type_id` by kind of prompt; 0 for all others."""

_QUALITY = 92  # of the JPEG files


def write_clips(
    output: Path,
    split: str,
    count: int,
    seed: int,
    frames: int = FRAMES,
    prompts_per_clip: int = PROMPTS_PER_CLIP,
) -> Path:
    """Write clips into a new folder, whole or not at all. The same arguments give the same files.

    The files are `meta_expressions_{split}_.json`, `mask_dict.json`, `mask_dict_foreground.json` and
    `JPEGImages/{clip id}/00000.jpg`. Beside ReVOS' keys an expression has `kind`, the kind of prompt. ReVOS has no
    references, so no prompt has any.

    Args:
        output: a new or empty folder.
        split: one of `scenes.spec.SPLITS`.
        count: number of clips.
        seed: of the clips.
        frames: of a clip, 3 to 60.
        prompts_per_clip: number of prompts.

    Returns:
        The path of the expressions.

    Raises:
        ValueError: the folder has files, or see `ask_clips`.
    """
    clips = ask_clips(split, seed, count, frames, prompts_per_clip, reference_share=0.0)
    videos: dict[str, Any] = {}
    masks: dict[str, list[rle.Rle | None]] = {}
    foreground: dict[str, Any] = {}
    name = f"meta_expressions_{split}_.json"
    with atomic_folder(output) as part:
        for number, asked in enumerate(track(clips, count, f"Drawing {split}", "clips")):
            folder = part / "JPEGImages" / asked.clip.id
            folder.mkdir(parents=True)
            first = len(masks)
            videos[asked.clip.id] = _record(asked, number, first)
            masks |= {str(first + k): [] for k in range(asked.count)}
            united = []
            for frame in range(frames):
                Image.fromarray(asked.clip[frame]).save(folder / f"{frame:05d}.jpg", quality=_QUALITY)
                shown: np.ndarray = asked.clip.masks(frame)
                codes = rle.encode(shown)
                for k, code in enumerate(codes):
                    masks[str(first + k)].append(code if shown[k].any() else None)
                united.append(rle.encode(np.asarray(shown.any(0))[None])[0] if shown.any() else None)
            foreground[asked.clip.id] = {"masks_rle": united}
        for file, content in (
            (name, {"videos": videos}), ("mask_dict.json", masks), ("mask_dict_foreground.json", foreground)
        ):  # fmt: skip
            write_text(part / file, json.dumps(content))
    return output / name


def _record(asked: AskedClip, number: int, first: int) -> dict[str, Any]:
    """A clip of `meta_expressions`; its objects are the annotations from `first` on."""
    height, width = asked.clip.size
    expressions = {
        str(key): {
            "exp": prompt.text,
            "obj_id": list(prompt.targets),
            "anno_id": [first + k for k in prompt.targets],
            "type_id": TYPES.get(prompt.kind, 0),
            "kind": prompt.kind,
        }
        for key, prompt in enumerate(asked.prompts)
    }
    names = [f"{frame:05d}" for frame in range(len(asked.clip))]
    return {"vid_id": number, "height": height, "width": width, "frames": names, "expressions": expressions}
