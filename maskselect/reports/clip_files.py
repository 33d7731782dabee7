"""The files of an answer about a video: JSON, one mask per frame, and a video with the masks drawn in."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskselect.backends.progress import track
from maskselect.data.clips import write_video
from maskselect.ops.atomic import atomic_file, atomic_folder
from maskselect.ops.drawing import draw_overlay
from maskselect.reports.files import answer_stems
from maskselect.structures.prediction import ClipGroup

SUFFIXES = {"json": ".json", "overlay": ".overlay.mp4", "mask": ""}
"""Suffix of an answer's file in each format; the masks are a folder."""


def clip_answer_paths(folder: Path, stem: str, formats: Iterable[str] = SUFFIXES) -> list[Path]:
    """The files and the folder of an answer."""
    return [folder / f"{stem}{suffix}" for name, suffix in SUFFIXES.items() if name in formats]


def write_clip_answers(
    groups: Sequence[ClipGroup], folder: Path, video: Path, model: str, formats: Iterable[str] = SUFFIXES
) -> None:
    """Write for each prompt `NAME.json`, `NAME/00000.png …` (the union, 8-bit, 0 or 255) and `NAME.overlay.mp4`.

    The JSON holds video, frames, fps, size, prompt, model, threshold, no_target, objects, and text, failure, repairs,
    cut, refiner and parts if any. An existing folder of masks is replaced. The files of a prompt appear when all are
    complete.

    Args:
        groups: one for each prompt.
        folder: of the files.
        video: the video, after which the files are named.
        model: its name.
        formats: keys of `SUFFIXES`; only these are written.
    """
    for stem, group in zip(answer_stems(video, len(groups)), groups, strict=True):
        with ExitStack() as stack:
            if "mask" in formats:
                masks = stack.enter_context(atomic_folder(folder / f"{stem}{SUFFIXES['mask']}", replace=True))
                _write_masks(group, masks)
            if "overlay" in formats:
                overlay = stack.enter_context(atomic_file(folder / f"{stem}{SUFFIXES['overlay']}"))
                shown = track(drawn_frames(group), len(group.clip), f"Writing {stem}", "frames")
                write_video(overlay, shown, group.clip.fps)
            if "json" in formats:
                part = stack.enter_context(atomic_file(folder / f"{stem}{SUFFIXES['json']}"))
                part.write_text(json.dumps(_record(group, video, model)))


def _write_masks(group: ClipGroup, folder: Path) -> None:
    for number in range(len(group.clip)):
        Image.fromarray(group.mask(number).view(np.uint8) * 255).save(folder / f"{number:05d}.png")


def _record(group: ClipGroup, video: Path, model: str) -> dict[str, Any]:
    """The JSON of an answer."""
    record = {"video": str(video), "model": model, "threshold": group.threshold, "no_target": group.no_target}
    optional: dict[str, Any] = {"text": group.text, "failure": group.failure, "refiner": group.refiner}
    optional |= {"repairs": group.repairs or None, "cut": group.cut or None, "parts": list(group.parts) or None}
    record |= {name: value for name, value in optional.items() if value is not None}
    return record | group.to_dict()


def drawn_frames(group: ClipGroup) -> Iterator[np.ndarray]:
    """Every frame with the objects tinted and numbered and a caption below, (H', W, 3) uint8."""
    count = f"{len(group)} object(s)" if len(group) else "nothing in the clip answers this"
    for number in range(len(group.clip)):
        visible = [(n, mask) for n, mask in enumerate(group.frame(number)) if mask.any()]
        labels = [f"{n + 1}: {group.scores[n]:.2f}" for n, _ in visible]
        masks = [mask for _, mask in visible]
        references = [
            mask for mask, frame in zip(group.references, group.reference_frames, strict=True) if frame == number
        ]
        picture = draw_overlay(group.clip[number], masks, labels, references, group.prompt, count)
        yield np.asarray(picture.convert("RGB"))
