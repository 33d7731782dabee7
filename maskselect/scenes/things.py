"""Drawings of everyday things. The first drawing of each is a simple one of a few basic shapes."""

import numpy as np

from maskselect.scenes.strokes import Drawing, Sketch, bar, box, oval, points, round_box, spikes, turned


def _mugs() -> list[Drawing]:
    def handled(handle: tuple[np.ndarray, np.ndarray]) -> Sketch:
        return Sketch().add(handle[0]).cut(handle[1])

    ear = (oval(0.7, 0.05, 0.5, 0.52), oval(0.7, 0.05, 0.28, 0.3))
    return [
        handled(ear).add(box(-0.7, -0.8, 0.65, 0.85)).finish(),
        handled(ear)
        .add(round_box(-0.7, -0.9, 0.7, 0.85, 0.2), oval(0, -0.8, 0.7, 0.2))
        .patch("dark", oval(0, -0.8, 0.58, 0.12))
        .finish(),
        handled((box(0.4, -0.5, 1.15, 0.5), box(0.4, -0.27, 0.92, 0.27)))
        .add(box(-0.65, -0.95, 0.6, 0.95))
        .line(0.03, points((-0.65, -0.75), (0.6, -0.75)))
        .finish(),
        handled((oval(0.62, -0.1, 0.48, 0.42), oval(0.62, -0.1, 0.25, 0.22)))
        .add(points((-0.85, -0.75), (0.8, -0.75), (0.55, 0.75), (-0.6, 0.75)))
        .finish(),
    ]


def _bottles() -> list[Drawing]:
    shoulders = points(
        (-0.14, -0.6), (0.14, -0.6), (0.18, -0.35), (0.36, -0.1), (0.36, 1), (-0.36, 1), (-0.36, -0.1), (-0.18, -0.35)
    )
    flask = points(
        (-0.16, -0.8), (0.16, -0.8), (0.16, -0.2), (0.5, 0.7), (0.45, 0.95), (-0.45, 0.95), (-0.5, 0.7), (-0.16, -0.2)
    )
    return [
        Sketch().add(box(-0.36, -0.35, 0.36, 1), box(-0.15, -0.95, 0.15, -0.3)).finish(),
        Sketch()
        .add(shoulders, box(-0.13, -1, 0.13, -0.5))
        .patch("dark", box(-0.2, -1.1, 0.2, -0.82))
        .patch("light", box(-0.36, 0.2, 0.36, 0.65))
        .finish(),
        Sketch()
        .add(round_box(-0.4, -0.4, 0.4, 1, 0.25), box(-0.16, -0.8, 0.16, -0.2), box(-0.22, -1, 0.22, -0.75))
        .patch("dark", box(-0.22, -1.1, 0.22, -0.75))
        .finish(),
        Sketch().add(flask, box(-0.22, -1, 0.22, -0.78)).line(0.025, points((-0.2, -0.78), (0.2, -0.78))).finish(),
    ]


def _balls() -> list[Drawing]:
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
        Sketch().add(disc).line(0.035, *basket).finish(round=True),
        Sketch().add(disc).patch("dark", middle, *rim).line(0.025, *spokes).finish(round=True),
        Sketch().add(disc).patch("light", *wedges).finish(round=True),
        Sketch()
        .add(disc)
        .line(0.05, oval(-1.1, 0, 0.75, 0.9, -90, 90), oval(1.1, 0, 0.75, 0.9, 90, 270))
        .finish(round=True),
    ]


def _books() -> list[Drawing]:
    titles = [points((-0.3, y), (0.55, y)) for y in (-0.6, -0.35)]
    left = points((0, -0.55), (-0.5, -0.72), (-1.1, -0.6), (-1.1, 0.6), (-0.5, 0.5), (0, 0.68))
    pages = [points((s * 0.2, y), (s * 0.92, y - 0.05)) for s in (-1, 1) for y in (-0.3, -0.05, 0.2)]
    return [
        Sketch().add(box(-0.75, -1, 0.75, 1)).patch("dark", box(-0.8, -1, -0.5, 1)).line(0.03, *titles).finish(),
        Sketch().add(left, left * [-1, 1]).line(0.035, points((0, -0.6), (0, 0.68))).line(0.022, *pages).finish(),
        Sketch()
        .add(points((-0.8, -0.85), (0.6, -0.85), (0.85, -0.65), (0.85, 0.95), (-0.55, 0.95), (-0.8, 0.75)))
        .patch("pale", points((0.6, -0.85), (0.85, -0.65), (0.85, 0.95), (-0.55, 0.95), (-0.8, 0.75), (0.6, 0.75)))
        .line(0.025, points((-0.8, 0.75), (0.6, 0.75), (0.6, -0.85)), points((-0.55, -0.5), (0.35, -0.5)))
        .finish(),
        Sketch()
        .add(round_box(-0.8, -1, 0.8, 1, 0.12))
        .line(0.035, points((-0.55, -1), (-0.55, 1)))
        .patch("light", box(-0.25, -0.65, 0.5, -0.2))
        .patch("dark", box(0.3, 0.3, 0.48, 1.1))
        .finish(),
    ]


def _keys() -> list[Drawing]:
    def shaft(y: float = 0.0) -> tuple[np.ndarray, ...]:
        return (box(-0.3, y - 0.12, 1.2, y + 0.12), box(0.62, y, 0.8, y + 0.42), box(0.98, y, 1.2, y + 0.48))

    lobes = [oval(-0.72, -0.28, 0.3), oval(-0.72, 0.28, 0.3), oval(-1.1, 0, 0.3)]
    holes = [oval(-0.72, -0.28, 0.13), oval(-0.72, 0.28, 0.13), oval(-1.1, 0, 0.13)]
    return [
        Sketch().add(oval(-0.7, 0, 0.52)).cut(oval(-0.7, 0, 0.26)).add(*shaft()).finish(),
        Sketch()
        .add(round_box(-1.2, -0.45, -0.3, 0.45, 0.15))
        .cut(box(-1.0, -0.22, -0.55, 0.22))
        .add(*shaft())
        .finish(),
        Sketch().add(*lobes).cut(*holes).add(*shaft(), oval(-0.72, 0, 0.14)).finish(),
        Sketch()
        .add(turned(spikes(6, 0.87), 30) * 0.5 + [-0.75, 0])
        .cut(oval(-0.85, 0, 0.2))
        .add(
            box(-0.4, -0.16, 1.1, 0.16),
            points((0.1, 0.1), (0.25, 0.42), (0.4, 0.1)),
            points((0.45, 0.1), (0.6, 0.45), (0.75, 0.1)),
            points((0.8, 0.1), (0.95, 0.42), (1.1, 0.1)),
        )
        .finish(),
    ]


def _leaves() -> list[Drawing]:
    run = np.linspace(0, 1, 25)
    bulge = 0.48 * np.sin(np.pi * run**0.8)
    blade = np.concatenate([np.stack([bulge, 2 * run - 1], 1), np.stack([-bulge, 2 * run - 1], 1)[::-1]])
    veins = [points((0, y), (s * 0.36, y - 0.3)) for s in (-1, 1) for y in (-0.2, 0.15, 0.5)]
    rib = points((0, -0.85), (0, 1.0))
    half = [
        (0, -1.1),
        (0.2, -0.7),
        (0.42, -0.85),
        (0.38, -0.45),
        (0.95, -0.5),
        (0.8, -0.2),
        (1.0, 0.0),
        (0.5, 0.3),
        (0.6, 0.5),
        (0.08, 0.45),
    ]
    lobed = points(*half, *[(-x, y) for x, y in half[:0:-1]])
    return [
        Sketch().add(blade).line(0.03, rib).finish(),
        Sketch().add(blade, bar(0, 0.8, 0.05, 1.35, 0.11)).line(0.025, rib, *veins).finish(),
        Sketch()
        .add(lobed, bar(0, 0.3, 0, 1.1, 0.13))
        .line(0.025, points((0, -0.7), (0, 0.9)), points((0, 0.35), (0.6, -0.25)), points((0, 0.35), (-0.6, -0.25)))
        .finish(),
        Sketch().add(oval(0, 0, 0.55, 0.95), bar(0, 0.8, 0.12, 1.3, 0.12)).line(0.03, rib, *veins).finish(),
    ]


def _fishes() -> list[Drawing]:
    eye = oval(-0.62, -0.12, 0.08)
    tail = points((0.5, 0), (1.2, -0.5), (1.2, 0.5))
    forked = points((0.5, 0), (1.25, -0.55), (1.02, 0), (1.25, 0.55))
    gill = oval(-0.75, 0, 0.42, 0.42, -45, 45)
    return [
        Sketch().add(oval(-0.2, 0, 0.85, 0.48), tail).patch("black", eye).finish(),
        Sketch()
        .add(
            oval(-0.2, 0, 0.85, 0.46),
            forked,
            points((-0.45, -0.4), (0.15, -0.85), (0.25, -0.35)),
            points((-0.25, 0.4), (0.15, 0.75), (0.2, 0.35)),
        )
        .patch("black", eye)
        .line(0.025, gill)
        .finish(),
        Sketch()
        .add(oval(-0.25, 0, 0.78, 0.66), forked)
        .patch("white", oval(-0.62, -0.15, 0.15))
        .patch("black", oval(-0.64, -0.15, 0.07))
        .line(0.025, oval(-0.6, 0, 0.42, 0.42, -45, 45))
        .finish(),
    ]


def _houses() -> list[Drawing]:
    roof = points((-1.05, -0.15), (0, -1), (1.05, -0.15))
    panes = (box(-0.65, 0.1, -0.3, 0.42), box(0.3, 0.1, 0.65, 0.42))
    tall = [box(x, y, x + 0.3, y + 0.3) for x in (-0.45, 0.15) for y in (-0.4, 0.1)]
    return [
        Sketch().add(box(-0.85, -0.15, 0.85, 0.95), roof).patch("dark", roof, box(-0.18, 0.4, 0.18, 0.95)).finish(),
        Sketch()
        .add(box(-0.85, -0.15, 0.85, 0.95), roof, box(0.4, -0.95, 0.65, -0.3))
        .patch("dark", roof)
        .patch("light", *panes)
        .patch("dark", box(-0.18, 0.42, 0.18, 0.95))
        .finish(),
        Sketch()
        .add(points((-0.7, -0.6), (0, -1.15), (0.7, -0.6), (0.7, 1), (-0.7, 1)))
        .patch("light", *tall)
        .patch("dark", box(-0.16, 0.6, 0.16, 1))
        .line(0.03, points((-0.7, -0.6), (0.7, -0.6)))
        .finish(),
        Sketch()
        .add(points((-0.9, -0.1), (0, -1), (0.9, -0.1), (0.9, 0.95), (-0.9, 0.95)))
        .patch("dark", box(-0.6, 0.35, -0.2, 0.95))
        .patch("light", box(0.15, 0.2, 0.6, 0.55))
        .finish(),
    ]


def _cars() -> list[Drawing]:
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
        Sketch().add(box(-1.2, -0.15, 1.2, 0.4), box(-0.6, -0.6, 0.55, -0.1), *wheels).patch("black", *wheels).finish(),
        Sketch().add(sedan, *wheels).patch("pale", *glass).patch("black", *wheels).patch("pale", *hubs).finish(),
        Sketch()
        .add(van, *wheels)
        .patch("pale", box(-0.95, -0.45, -0.45, -0.08), box(-0.3, -0.45, 0.2, -0.08), box(0.35, -0.45, 0.85, -0.08))
        .patch("black", *wheels)
        .finish(),
        Sketch()
        .add(beetle, *wheels)
        .patch(
            "pale",
            points((-0.6, -0.1), (-0.4, -0.4), (-0.06, -0.45), (-0.06, -0.1)),
            points((0.06, -0.1), (0.06, -0.45), (0.4, -0.4), (0.6, -0.1)),
        )
        .patch("black", *wheels)
        .patch("pale", *hubs)
        .finish(),
    ]


def _trees() -> list[Drawing]:
    trunk = box(-0.14, 0.5, 0.14, 1.05)
    tiers = [
        points((0, -1 + 0.42 * k), (0.42 + 0.14 * k, -0.25 + 0.44 * k), (-0.42 - 0.14 * k, -0.25 + 0.44 * k))
        for k in range(3)
    ]
    puffs = (oval(-0.4, -0.1, 0.42), oval(0.4, -0.1, 0.42), oval(0, -0.55, 0.48), oval(0, 0.05, 0.45))
    return [
        Sketch()
        .add(box(-0.14, 0.3, 0.14, 1.05), oval(0, -0.35, 0.72))
        .patch("brown", box(-0.14, 0.36, 0.14, 1.1))
        .finish(),
        Sketch().add(*tiers, trunk).patch("brown", box(-0.14, 0.64, 0.14, 1.1)).finish(),
        Sketch()
        .add(points((0, -1), (0.68, 0.55), (-0.68, 0.55)), trunk)
        .patch("brown", box(-0.14, 0.56, 0.14, 1.1))
        .finish(),
        Sketch().add(*puffs, box(-0.13, 0.3, 0.13, 1)).patch("dark", box(-0.13, 0.5, 0.13, 1.1)).finish(),
    ]


def _chairs() -> list[Drawing]:
    slats = [box(-0.5, y, 0.5, y + 0.16) for y in (-1.0, -0.68, -0.36)]
    return [
        Sketch().add(box(-0.6, -1, -0.4, 1), box(-0.6, -0.02, 0.6, 0.2), box(0.4, 0, 0.6, 1)).finish(),
        Sketch()
        .add(
            *slats,
            box(-0.58, -1, -0.4, 0.1),
            box(0.4, -1, 0.58, 0.1),
            box(-0.66, 0.0, 0.66, 0.24),
            box(-0.58, 0.1, -0.4, 1),
            box(0.4, 0.1, 0.58, 1),
        )
        .line(0.02, points((-0.66, 0.0), (0.66, 0.0)))
        .finish(),
        Sketch()
        .add(
            round_box(-0.5, -1, 0.5, 0.05, 0.2),
            round_box(-0.65, 0.0, 0.65, 0.28, 0.1),
            bar(-0.48, 0.2, -0.6, 1, 0.17),
            bar(0.48, 0.2, 0.6, 1, 0.17),
        )
        .line(0.025, points((-0.65, 0.02), (0.65, 0.02)))
        .finish(),
        Sketch()
        .add(
            bar(-0.42, 0.1, -0.62, -1, 0.2),
            box(-0.52, -0.02, 0.58, 0.2),
            bar(-0.42, 0.1, -0.55, 1, 0.17),
            bar(0.47, 0.1, 0.58, 1, 0.17),
            box(-0.5, 0.5, 0.5, 0.62),
        )
        .finish(),
    ]


def _lamps() -> list[Drawing]:
    shade = points((-0.35, -1), (0.35, -1), (0.7, -0.15), (-0.7, -0.15))
    dome = oval(0, -0.3, 0.75, 0.7, 180, 360)
    return [
        Sketch().add(shade, box(-0.1, -0.2, 0.1, 0.9), box(-0.45, 0.8, 0.45, 1)).finish(),
        Sketch()
        .add(shade, oval(0, 0.4, 0.32, 0.42), box(-0.08, -0.2, 0.08, 0.9), box(-0.4, 0.82, 0.4, 1))
        .patch("light", shade)
        .finish(),
        Sketch()
        .add(dome, box(-0.08, -0.3, 0.08, 0.9), oval(0, 0.95, 0.5, 0.16))
        .line(0.025, points((-0.75, -0.3), (0.75, -0.3)))
        .finish(),
        Sketch()
        .add(
            points((-0.28, -1.2), (0.28, -1.2), (0.5, -0.55), (-0.5, -0.55)),
            box(-0.07, -0.6, 0.07, 1.1),
            points((-0.38, 1.2), (-0.25, 1.02), (0.25, 1.02), (0.38, 1.2)),
        )
        .patch("dark", box(-0.07, -0.54, 0.07, 1.0))
        .finish(),
    ]


THINGS: dict[str, list[Drawing]] = {
    "mug": _mugs(),
    "bottle": _bottles(),
    "ball": _balls(),
    "book": _books(),
    "key": _keys(),
    "leaf": _leaves(),
    "fish": _fishes(),
    "house": _houses(),
    "car": _cars(),
    "tree": _trees(),
    "chair": _chairs(),
    "lamp": _lamps(),
}
