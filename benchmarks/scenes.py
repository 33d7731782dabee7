"""Generated scenes, and frames of clips, per second on one core: `python benchmarks/scenes.py`."""

import statistics
import time

import cv2

from maskselect.scenes.clip_drawing import ClipDrawing
from maskselect.scenes.layout import build_scene, scene_ids
from maskselect.scenes.motion import build_clip, clip_ids
from maskselect.scenes.render import render


def scenes_per_second(ids: list[str], size: int) -> float:
    start = time.perf_counter()
    for scene_id in ids:
        render(build_scene(scene_id, (size, size)))
    return len(ids) / (time.perf_counter() - start)


def frames_per_second(ids: list[str]) -> float:
    """Pictures and index maps of all frames, with the layout of the clips."""
    start, frames = time.perf_counter(), 0
    for clip_id in ids:
        drawing = ClipDrawing(build_clip(clip_id))
        for frame in range(drawing.scene.frames):
            drawing.image(frame)
            drawing.index(frame)
            frames += 1
    return frames / (time.perf_counter() - start)


def main() -> None:
    cv2.setNumThreads(1)
    for size in (256, 384):
        runs = [scenes_per_second(scene_ids("train", seed, 60), size) for seed in range(7)]
        middle, low, high = statistics.median(runs), min(runs), max(runs)
        print(f"{size} px: median {middle:.0f} scenes/s (lowest {low:.0f}, highest {high:.0f}, 7 runs of 60 scenes)")
    runs = [frames_per_second(clip_ids("train", seed, 20)) for seed in range(7)]
    middle, low, high = statistics.median(runs), min(runs), max(runs)
    print(f"clips: median {middle:.0f} frames/s (lowest {low:.0f}, highest {high:.0f}, 7 runs of 20 clips)")


if __name__ == "__main__":
    main()
