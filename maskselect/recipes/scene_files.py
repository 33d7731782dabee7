"""Writes generated scenes in the format of MaskGroups-HQ, so that one loader reads both."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from maskselect.backends.progress import track
from maskselect.data.maskgroups_writer import MaskGroupRow, write_maskgroups
from maskselect.ops import rle
from maskselect.ops.atomic import atomic_file
from maskselect.scenes.samples import AskedScene, ask_scenes

Propose = Callable[[np.ndarray], np.ndarray]
"""(H, W, 3) uint8 to (N, H, W) bool."""


def write_scenes(
    output: Path,
    split: str,
    count: int,
    seed: int,
    image_size: tuple[int, int] = (256, 256),
    prompts_per_scene: int = 3,
    propose: Propose | None = None,
    reasoning_per_scene: int = 0,
    unknown_per_scene: int = 0,
) -> Path:
    """Write `output/images/*.png` and `output/{split}.parquet`. The same arguments give the same files.

    For the other arguments see `ask_scenes`.

    Args:
        image_size: (H, W).
        propose: fills `mask_pool`, which is empty without it.

    Returns:
        The path of the parquet file.

    Raises:
        ValueError: see `ask_scenes`.
    """
    scenes = ask_scenes(split, seed, count, image_size, prompts_per_scene, reasoning_per_scene, unknown_per_scene)
    folder = output / "images"
    folder.mkdir(parents=True, exist_ok=True)

    def rows() -> Iterator[MaskGroupRow]:
        for scene in track(scenes, count, f"Drawing {split}", "scenes"):
            with atomic_file(folder / f"{scene.id}.png") as part:  # low compression: noise does not shrink
                Image.fromarray(scene.image).save(part, format="PNG", compress_level=1)
            yield from scene_rows(scene, rle.encode(propose(scene.image)) if propose else [])

    return write_maskgroups(output, split, rows())


def scene_rows(scene: AskedScene, mask_pool: list[rle.Rle]) -> Iterator[MaskGroupRow]:
    """One row a prompt."""
    codes = rle.encode(scene.masks)
    for number, prompt in enumerate(scene.prompts):
        yield MaskGroupRow(
            sample_id=f"{scene.id}/{number}",
            image=f"{scene.id}.png",
            query=prompt.text,
            gt_mask_pool=codes,
            targets=prompt.targets,
            references=[codes[index] for index in prompt.references],
            mask_pool=mask_pool,
            kind=prompt.kind,
            image_size=(scene.image.shape[0], scene.image.shape[1]),
        )
