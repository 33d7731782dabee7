"""Drawings of everyday things. The first drawing of each is a simple one of a few basic shapes."""

import numpy as np

from maskselect.scenes.strokes import Sketch, bar, box, oval, points, round_box, spikes, turned


def _mugs() -> list[Sketch]:
    def handled(handle: tuple[np.ndarray, np.ndarray]) -> Sketch:
        return Sketch().add(handle[0]).cut(handle[1])

    ear = (oval(0.7, 0.05, 0.5, 0.52), oval(0.7, 0.05, 0.28, 0.3))
    return [
        handled(ear).add(box(-0.7, -0.8, 0.65, 0.85)),
        handled(ear)
        .add(round_box(-0.7, -0.9, 0.7, 0.85, 0.2), oval(0, -0.8, 0.7, 0.2))
        .patch("dark", oval(0, -0.8, 0.58, 0.12)),
        handled((box(0.4, -0.5, 1.15, 0.5), box(0.4, -0.27, 0.92, 0.27)))
        .add(box(-0.65, -0.95, 0.6, 0.95))
        .line(0.03, points((-0.65, -0.75), (0.6, -0.75))),
        handled((oval(0.62, -0.1, 0.48, 0.42), oval(0.62, -0.1, 0.25, 0.22))).add(
            points((-0.85, -0.75), (0.8, -0.75), (0.55, 0.75), (-0.6, 0.75))
        ),
    ]


def _bottles() -> list[Sketch]:
    shoulders = points(
        (-0.14, -0.6), (0.14, -0.6), (0.18, -0.35), (0.36, -0.1), (0.36, 1), (-0.36, 1), (-0.36, -0.1), (-0.18, -0.35)
    )
    flask = points(
        (-0.16, -0.8), (0.16, -0.8), (0.16, -0.2), (0.5, 0.7), (0.45, 0.95), (-0.45, 0.95), (-0.5, 0.7), (-0.16, -0.2)
    )
    return [
        Sketch().add(box(-0.36, -0.35, 0.36, 1), box(-0.15, -0.95, 0.15, -0.3)),
        Sketch()
        .add(shoulders, box(-0.13, -1, 0.13, -0.5))
        .patch("dark", box(-0.2, -1.1, 0.2, -0.82))
        .patch("light", box(-0.36, 0.2, 0.36, 0.65)),
        Sketch()
        .add(round_box(-0.4, -0.4, 0.4, 1, 0.25), box(-0.16, -0.8, 0.16, -0.2), box(-0.22, -1, 0.22, -0.75))
        .patch("dark", box(-0.22, -1.1, 0.22, -0.75)),
        Sketch().add(flask, box(-0.22, -1, 0.22, -0.78)).line(0.025, points((-0.2, -0.78), (0.2, -0.78))),
    ]


def _balls() -> list[Sketch]:
    disc = oval(0, 0, 1)
    basket = (
        points((-1, 0), (1, 0)),
        points((0, -1), (0, 1)),
        oval(-1.25, 0, 0.8, 0.9, -90, 90),
        oval(1.25, 0, 0.8, 0.9, 90, 270),
    )
    middle = turned(spikes(5, 0.81) * 0.36, 0)
    spokes = [np.stack([tip, tip * 1.9]) for tip in middle[::2]]
    rim = [turned(points((-0.3, -1.05), (0.3, -1.05), (0.0, -0.62)), 36 + 72 * k) for k in range(5)]
    wedges = [np.concatenate([[[0.0, -0.15]], oval(0, 0, 1.05, None, 60 * k * 2, 60 * (k * 2 + 1))]) for k in range(3)]
    return [
        Sketch().add(disc).line(0.035, *basket),
        Sketch().add(disc).patch("dark", middle, *rim).line(0.025, *spokes),
        Sketch().add(disc).patch("light", *wedges),
        Sketch().add(disc).line(0.05, oval(-1.1, 0, 0.75, 0.9, -90, 90), oval(1.1, 0, 0.75, 0.9, 90, 270)),
    ]


def _books() -> list[Sketch]:
    titles = [points((-0.3, y), (0.55, y)) for y in (-0.6, -0.35)]
    left = points((0, -0.55), (-0.5, -0.72), (-1.1, -0.6), (-1.1, 0.6), (-0.5, 0.5), (0, 0.68))
    pages = [points((s * 0.2, y), (s * 0.92, y - 0.05)) for s in (-1, 1) for y in (-0.3, -0.05, 0.2)]
    return [
        Sketch().add(box(-0.75, -1, 0.75, 1)).patch("dark", box(-0.8, -1, -0.5, 1)).line(0.03, *titles),
        Sketch().add(left, left * [-1, 1]).line(0.035, points((0, -0.6), (0, 0.68))).line(0.022, *pages),
        Sketch()
        .add(points((-0.8, -0.85), (0.6, -0.85), (0.85, -0.65), (0.85, 0.95), (-0.55, 0.95), (-0.8, 0.75)))
        .patch("pale", points((0.6, -0.85), (0.85, -0.65), (0.85, 0.95), (-0.55, 0.95), (-0.8, 0.75), (0.6, 0.75)))
        .line(0.025, points((-0.8, 0.75), (0.6, 0.75), (0.6, -0.85)), points((-0.55, -0.5), (0.35, -0.5))),
        Sketch()
        .add(round_box(-0.8, -1, 0.8, 1, 0.12))
        .line(0.035, points((-0.55, -1), (-0.55, 1)))
        .patch("light", box(-0.25, -0.65, 0.5, -0.2))
        .patch("dark", box(0.3, 0.3, 0.48, 1.1)),
    ]


def _keys() -> list[Sketch]:
    def shaft(y: float = 0.0) -> tuple[np.ndarray, ...]:
        return (box(-0.3, y - 0.12, 1.2, y + 0.12), box(0.62, y, 0.8, y + 0.42), box(0.98, y, 1.2, y + 0.48))

    lobes = [oval(-0.72, -0.28, 0.3), oval(-0.72, 0.28, 0.3), oval(-1.1, 0, 0.3)]
    holes = [oval(-0.72, -0.28, 0.13), oval(-0.72, 0.28, 0.13), oval(-1.1, 0, 0.13)]
    return [
        Sketch().add(oval(-0.7, 0, 0.52)).cut(oval(-0.7, 0, 0.26)).add(*shaft()),
        Sketch().add(round_box(-1.2, -0.45, -0.3, 0.45, 0.15)).cut(box(-1.0, -0.22, -0.55, 0.22)).add(*shaft()),
        Sketch().add(*lobes).cut(*holes).add(*shaft(), oval(-0.72, 0, 0.14)),
        Sketch()
        .add(turned(spikes(6, 0.87), 30) * 0.5 + [-0.75, 0])
        .cut(oval(-0.85, 0, 0.2))
        .add(
            box(-0.4, -0.16, 1.1, 0.16),
            points((0.1, 0.1), (0.25, 0.42), (0.4, 0.1)),
            points((0.45, 0.1), (0.6, 0.45), (0.75, 0.1)),
            points((0.8, 0.1), (0.95, 0.42), (1.1, 0.1)),
        ),
    ]


def _leaves() -> list[Sketch]:
    run = np.linspace(0, 1, 25)
    bulge = 0.48 * np.sin(np.pi * run**0.8)
    blade = np.concatenate([np.stack([bulge, 2 * run - 1], 1), np.stack([-bulge, 2 * run - 1], 1)[::-1]])
    veins = [points((0, y), (s * 0.36, y - 0.3)) for s in (-1, 1) for y in (-0.2, 0.15, 0.5)]
    rib = points((0, -0.85), (0, 1.0))
    half = (
        (0, -1.1), (0.2, -0.7), (0.42, -0.85), (0.38, -0.45), (0.95, -0.5), (0.8, -0.2), (1.0, 0.0), (0.5, 0.3),
        (0.6, 0.5), (0.08, 0.45),
    )  # fmt: skip
    lobed = points(*half, *[(-x, y) for x, y in half[:0:-1]])
    return [
        Sketch().add(blade).line(0.03, rib),
        Sketch().add(blade, bar(0, 0.8, 0.05, 1.35, 0.11)).line(0.025, rib, *veins),
        Sketch()
        .add(lobed, bar(0, 0.3, 0, 1.1, 0.13))
        .line(0.025, points((0, -0.7), (0, 0.9)), points((0, 0.35), (0.6, -0.25)), points((0, 0.35), (-0.6, -0.25))),
        Sketch().add(oval(0, 0, 0.55, 0.95), bar(0, 0.8, 0.12, 1.3, 0.12)).line(0.03, rib, *veins),
    ]


def _fishes() -> list[Sketch]:
    eye = oval(-0.62, -0.12, 0.08)
    tail = points((0.5, 0), (1.2, -0.5), (1.2, 0.5))
    forked = points((0.5, 0), (1.25, -0.55), (1.02, 0), (1.25, 0.55))
    gill = oval(-0.75, 0, 0.42, 0.42, -45, 45)
    return [
        Sketch().add(oval(-0.2, 0, 0.85, 0.48), tail).patch("black", eye),
        Sketch()
        .add(
            oval(-0.2, 0, 0.85, 0.46),
            forked,
            points((-0.45, -0.4), (0.15, -0.85), (0.25, -0.35)),
            points((-0.25, 0.4), (0.15, 0.75), (0.2, 0.35)),
        )
        .patch("black", eye)
        .line(0.025, gill),
        Sketch()
        .add(oval(-0.25, 0, 0.78, 0.66), forked)
        .patch("white", oval(-0.62, -0.15, 0.15))
        .patch("black", oval(-0.64, -0.15, 0.07))
        .line(0.025, oval(-0.6, 0, 0.42, 0.42, -45, 45)),
    ]


def _houses() -> list[Sketch]:
    roof = points((-1.05, -0.15), (0, -1), (1.05, -0.15))
    panes = (box(-0.65, 0.1, -0.3, 0.42), box(0.3, 0.1, 0.65, 0.42))
    tall = [box(x, y, x + 0.3, y + 0.3) for x in (-0.45, 0.15) for y in (-0.4, 0.1)]
    return [
        Sketch().add(box(-0.85, -0.15, 0.85, 0.95), roof).patch("dark", roof, box(-0.18, 0.4, 0.18, 0.95)),
        Sketch()
        .add(box(-0.85, -0.15, 0.85, 0.95), roof, box(0.4, -0.95, 0.65, -0.3))
        .patch("dark", roof)
        .patch("light", *panes)
        .patch("dark", box(-0.18, 0.42, 0.18, 0.95)),
        Sketch()
        .add(points((-0.7, -0.6), (0, -1.15), (0.7, -0.6), (0.7, 1), (-0.7, 1)))
        .patch("light", *tall)
        .patch("dark", box(-0.16, 0.6, 0.16, 1))
        .line(0.03, points((-0.7, -0.6), (0.7, -0.6))),
        Sketch()
        .add(points((-0.9, -0.1), (0, -1), (0.9, -0.1), (0.9, 0.95), (-0.9, 0.95)))
        .patch("dark", box(-0.6, 0.35, -0.2, 0.95))
        .patch("light", box(0.15, 0.2, 0.6, 0.55)),
    ]


def _cars() -> list[Sketch]:
    wheels = (oval(-0.65, 0.4, 0.27), oval(0.65, 0.4, 0.27))
    hubs = (oval(-0.65, 0.4, 0.11), oval(0.65, 0.4, 0.11))
    sedan = points(
        (-1.2, 0.4), (-1.2, -0.02), (-0.8, -0.12), (-0.5, -0.5), (0.35, -0.5), (0.7, -0.12), (1.2, -0.02), (1.2, 0.4)
    )
    glass = (
        points((-0.65, -0.12), (-0.42, -0.4), (-0.1, -0.4), (-0.1, -0.12)),
        points((0.0, -0.12), (0.0, -0.4), (0.3, -0.4), (0.52, -0.12)),
    )
    van = round_box(-1.15, -0.65, 1.15, 0.4, 0.18)
    beetle = np.concatenate([oval(0, 0.35, 1.15, 0.95, 180, 360), points((1.15, 0.4), (-1.15, 0.4))])
    return [
        Sketch().add(box(-1.2, -0.15, 1.2, 0.4), box(-0.6, -0.6, 0.55, -0.1), *wheels).patch("black", *wheels),
        Sketch().add(sedan, *wheels).patch("pale", *glass).patch("black", *wheels).patch("pale", *hubs),
        Sketch()
        .add(van, *wheels)
        .patch("pale", box(-0.95, -0.45, -0.45, -0.08), box(-0.3, -0.45, 0.2, -0.08), box(0.35, -0.45, 0.85, -0.08))
        .patch("black", *wheels),
        Sketch()
        .add(beetle, *wheels)
        .patch(
            "pale",
            points((-0.6, -0.1), (-0.4, -0.4), (-0.06, -0.45), (-0.06, -0.1)),
            points((0.06, -0.1), (0.06, -0.45), (0.4, -0.4), (0.6, -0.1)),
        )
        .patch("black", *wheels)
        .patch("pale", *hubs),
    ]


def _trees() -> list[Sketch]:
    trunk = box(-0.14, 0.5, 0.14, 1.05)
    tiers = [
        points((0, -1 + 0.42 * k), (0.42 + 0.14 * k, -0.25 + 0.44 * k), (-0.42 - 0.14 * k, -0.25 + 0.44 * k))
        for k in range(3)
    ]
    puffs = (oval(-0.4, -0.1, 0.42), oval(0.4, -0.1, 0.42), oval(0, -0.55, 0.48), oval(0, 0.05, 0.45))
    return [
        Sketch().add(box(-0.14, 0.3, 0.14, 1.05), oval(0, -0.35, 0.72)).patch("brown", box(-0.14, 0.36, 0.14, 1.1)),
        Sketch().add(*tiers, trunk).patch("brown", box(-0.14, 0.64, 0.14, 1.1)),
        Sketch().add(points((0, -1), (0.68, 0.55), (-0.68, 0.55)), trunk).patch("brown", box(-0.14, 0.56, 0.14, 1.1)),
        Sketch().add(*puffs, box(-0.13, 0.3, 0.13, 1)).patch("dark", box(-0.13, 0.5, 0.13, 1.1)),
    ]


def _chairs() -> list[Sketch]:
    slats = [box(-0.5, y, 0.5, y + 0.16) for y in (-1.0, -0.68, -0.36)]
    return [
        Sketch().add(box(-0.6, -1, -0.4, 1), box(-0.6, -0.02, 0.6, 0.2), box(0.4, 0, 0.6, 1)),
        Sketch()
        .add(
            *slats,
            box(-0.58, -1, -0.4, 0.1),
            box(0.4, -1, 0.58, 0.1),
            box(-0.66, 0.0, 0.66, 0.24),
            box(-0.58, 0.1, -0.4, 1),
            box(0.4, 0.1, 0.58, 1),
        )
        .line(0.02, points((-0.66, 0.0), (0.66, 0.0))),
        Sketch()
        .add(
            round_box(-0.5, -1, 0.5, 0.05, 0.2),
            round_box(-0.65, 0.0, 0.65, 0.28, 0.1),
            bar(-0.48, 0.2, -0.6, 1, 0.17),
            bar(0.48, 0.2, 0.6, 1, 0.17),
        )
        .line(0.025, points((-0.65, 0.02), (0.65, 0.02))),
        Sketch().add(
            bar(-0.42, 0.1, -0.62, -1, 0.2),
            box(-0.52, -0.02, 0.58, 0.2),
            bar(-0.42, 0.1, -0.55, 1, 0.17),
            bar(0.47, 0.1, 0.58, 1, 0.17),
            box(-0.5, 0.5, 0.5, 0.62),
        ),
    ]


def _lamps() -> list[Sketch]:
    shade = points((-0.35, -1), (0.35, -1), (0.7, -0.15), (-0.7, -0.15))
    dome = oval(0, -0.3, 0.75, 0.7, 180, 360)
    return [
        Sketch().add(shade, box(-0.1, -0.2, 0.1, 0.9), box(-0.45, 0.8, 0.45, 1)),
        Sketch()
        .add(shade, oval(0, 0.4, 0.32, 0.42), box(-0.08, -0.2, 0.08, 0.9), box(-0.4, 0.82, 0.4, 1))
        .patch("light", shade),
        Sketch()
        .add(dome, box(-0.08, -0.3, 0.08, 0.9), oval(0, 0.95, 0.5, 0.16))
        .line(0.025, points((-0.75, -0.3), (0.75, -0.3))),
        Sketch()
        .add(
            points((-0.28, -1.2), (0.28, -1.2), (0.5, -0.55), (-0.5, -0.55)),
            box(-0.07, -0.6, 0.07, 1.1),
            points((-0.38, 1.2), (-0.25, 1.02), (0.25, 1.02), (0.38, 1.2)),
        )
        .patch("dark", box(-0.07, -0.54, 0.07, 1.0)),
    ]


THINGS: dict[str, list[Sketch]] = {
    "mug": _mugs(), "bottle": _bottles(), "ball": _balls(), "book": _books(), "key": _keys(), "leaf": _leaves(),
    "fish": _fishes(), "house": _houses(), "car": _cars(), "tree": _trees(), "chair": _chairs(), "lamp": _lamps(),
}  # fmt: skip
