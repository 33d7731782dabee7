"""The files of an answer about a video: JSON, one mask per frame, and a video with the masks drawn in."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskselect.backends.progress import track
from maskselect.data.clips import write_video
from maskselect.ops.atomic import atomic_files, atomic_folder
from maskselect.ops.drawing import draw_overlay
from maskselect.reports.files import answer_stems
from maskselect.structures.prediction import ClipGroup


def write_clip_answers(groups: Sequence[ClipGroup], folder: Path, video: Path, model: str) -> None:
    """Write for each prompt `NAME.json`, `NAME/00000.png …` (the union, 8-bit, 0 or 255) and `NAME.overlay.mp4`.

    The JSON holds video, frames, fps, size, prompt, model, threshold, no_target, objects, and text, failure, repairs,
    cut, refiner and parts if any. An existing folder of masks is replaced. The files of a prompt appear when all are
    complete.
    """
    for stem, group in zip(answer_stems(video, len(groups)), groups, strict=True):
        files = folder / f"{stem}.overlay.mp4", folder / f"{stem}.json"
        with atomic_folder(folder / stem, replace=True) as masks, atomic_files(*files) as (overlay, json_part):
            shown = track(drawn_frames(group), len(group.clip), f"Writing {stem}", "frames")
            write_video(overlay, _with_masks(group, shown, masks), group.clip.fps)
            json_part.write_text(json.dumps(_record(group, video, model)))


def _with_masks(group: ClipGroup, drawn: Iterable[np.ndarray], folder: Path) -> Iterator[np.ndarray]:
    """Pass the drawn frames on, and write the union of each frame to `folder`."""
    for number, frame in enumerate(drawn):
        Image.fromarray(group.mask(number).view(np.uint8) * 255).save(folder / f"{number:05d}.png")
        yield frame


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
