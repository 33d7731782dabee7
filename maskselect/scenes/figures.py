"""Drawings of the flat figures: circle, square, triangle, star, ring, cross, diamond, heart.

The first drawing of each has no inner lines.
"""

import numpy as np

from maskselect.scenes.strokes import Sketch, bar, box, oval, points, round_box, spikes


def _circles() -> list[Sketch]:
    wobble = oval(0, 0, 1)
    angles = np.linspace(0, 2 * np.pi, len(wobble), endpoint=False)
    hand_drawn = wobble * (1 + 0.012 * np.sin(3 * angles) + 0.01 * np.cos(5 * angles))[:, None]
    rim = oval(0, 0, 0.86)
    return [
        Sketch().add(oval(0, 0, 1)),
        Sketch().add(hand_drawn),
        Sketch().add(oval(0, 0, 1)).line(0.02, np.concatenate([rim, rim[:1]])),
    ]


def _squares() -> list[Sketch]:
    frame = points((-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8), (-0.8, -0.8))
    return [
        Sketch().add(box(-1, -1, 1, 1)),
        Sketch().add(round_box(-1, -1, 1, 1, 0.22)),
        Sketch().add(box(-1, -1, 1, 1)).line(0.02, frame),
    ]


def _triangles() -> list[Sketch]:
    return [
        Sketch().add(points((0, -1), (1, 0.73), (-1, 0.73))),
        Sketch().add(points((0, -1), (0.75, 1), (-0.75, 1))),
        Sketch().add(points((-1, -0.9), (1, 0.9), (-1, 0.9))),
        Sketch().add(points((0.2, -0.7), (1.1, 0.7), (-1.1, 0.7))),
    ]


def _stars() -> list[Sketch]:
    return [
        Sketch().add(spikes(5, 0.4)),
        Sketch().add(spikes(6, 0.56)),
        Sketch().add(spikes(5, 0.52)),
        Sketch().add(spikes(8, 0.6)),
    ]


def _rings() -> list[Sketch]:
    return [Sketch().add(oval(0, 0, 1)).cut(oval(0, 0, inner)) for inner in (0.6, 0.74, 0.5)]


def _crosses() -> list[Sketch]:
    return [
        Sketch().add(box(-0.33, -1, 0.33, 1), box(-1, -0.33, 1, 0.33)),
        Sketch().add(box(-0.24, -1, 0.24, 1), box(-1, -0.24, 1, 0.24)),
        Sketch().add(round_box(-0.32, -1, 0.32, 1, 0.2), round_box(-1, -0.32, 1, 0.32, 0.2)),
        Sketch().add(box(-0.2, -1, 0.2, 1), box(-0.7, -0.52, 0.7, -0.12)),
        Sketch().add(bar(-0.8, -0.8, 0.8, 0.8, 0.5), bar(-0.8, 0.8, 0.8, -0.8, 0.5)),
    ]


def _diamonds() -> list[Sketch]:
    gem = points((-0.55, -0.8), (0.55, -0.8), (1, -0.25), (0, 1), (-1, -0.25))
    facets = (
        points((-1, -0.25), (1, -0.25)), points((-0.4, -0.25), (0, 1), (0.4, -0.25)),
        points((-0.55, -0.8), (-0.4, -0.25), (0, -0.8), (0.4, -0.25), (0.55, -0.8)),
    )  # fmt: skip
    return [
        Sketch().add(points((0, -1), (0.68, 0), (0, 1), (-0.68, 0))),
        Sketch().add(points((0, -1), (0.85, 0), (0, 1), (-0.85, 0))),
        Sketch().add(points((0, -1), (1, 0), (0, 1), (-1, 0))),
        Sketch().add(gem).line(0.025, *facets),
    ]


def _hearts() -> list[Sketch]:
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    curve = np.stack(
        [
            16 * np.sin(angle) ** 3,
            -13 * np.cos(angle) + 5 * np.cos(2 * angle) + 2 * np.cos(3 * angle) + np.cos(4 * angle),
        ],
        axis=1,
    )
    return [
        Sketch().add(curve),
        Sketch().add(oval(-0.5, -0.4, 0.5), oval(0.5, -0.4, 0.5), points((-0.96, -0.2), (0.96, -0.2), (0, 1))),
        Sketch().add(curve * [1.0, 1.12]).line(0.03, curve[40:54] * 0.75),
    ]


FIGURES: dict[str, list[Sketch]] = {
    "circle": _circles(), "square": _squares(), "triangle": _triangles(), "star": _stars(),
    "ring": _rings(), "cross": _crosses(), "diamond": _diamonds(), "heart": _hearts(),
}  # fmt: skip
