"""Small charts as SVG text, for pages without other files."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from maskselect.reports.rendering import render

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 420, 190, 44, 34, 22
_BASE = _HEIGHT - _BOTTOM
_LEAST = 5  # samples of a bin that is drawn


def histogram(values: Sequence[float], title: str, bins: int = 20, unit: str = "IoU") -> Markup:
    """A histogram of values in [0, 1]; 1 is in the last bin."""
    counts = [0] * bins
    for value in values:
        counts[_bin(value, bins)] += 1
    width, most = (_WIDTH - _LEFT - 8) / bins, max([*counts, 1])
    bars = []
    for place, count in enumerate(counts):
        height = (_BASE - _TOP) * count / most
        label = f"{place / bins:.2f} to {(place + 1) / bins:.2f}: {count}"
        bars.append((_LEFT + place * width, _BASE - height, width - 1, height, label))
    return _chart(title, f"0 to {most} samples", unit, bars=bars)


def reliability(scores: Sequence[float], right: Sequence[bool], title: str, bins: int = 10) -> Markup:
    """A reliability diagram: the share of right candidates by score in [0, 1], with the diagonal.

    Bins of fewer than five candidates are left out; the area of a dot grows with the number in its bin.
    """
    dots = []
    for number in range(bins):
        inside = [(score, ok) for score, ok in zip(scores, right, strict=True) if _bin(score, bins) == number]
        if len(inside) < _LEAST:
            continue
        mean, share = (sum(column) / len(inside) for column in zip(*inside, strict=True))
        radius = 3 + 7 * (len(inside) / max(1, len(scores))) ** 0.5
        dots.append((*_at(mean, share), radius, f"score {mean:.2f}, right {share:.2f}, {len(inside)} candidates"))
    diagonal = ("diagonal", *_at(0, 0), *_at(1, 1))
    return _chart(title, "share that is right, 0 to 1", "score", lines=[diagonal], dots=dots)


def _bin(value: float, bins: int) -> int:
    return min(bins - 1, max(0, int(value * bins)))


def _at(x: float, y: float) -> tuple[float, float]:
    return _LEFT + x * (_WIDTH - _LEFT - 8), _BASE - y * (_BASE - _TOP)


def _chart(
    title: str,
    vertical: str,
    horizontal: str,
    bars: Sequence[Any] = (),
    lines: Sequence[Any] = (),
    dots: Sequence[Any] = (),
) -> Markup:
    axes = [("axis", *_at(0, 0), *_at(*end)) for end in ((1, 0), (0, 1))]
    return render(
        "chart.svg.jinja",
        title=title,
        vertical=vertical,
        horizontal=horizontal,
        bars=bars,
        lines=[*axes, *lines],
        dots=dots,
        ticks=[(_at(x, 0)[0], f"{x:g}") for x in (0, 0.25, 0.5, 0.75, 1)],
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        top=_TOP,
        base=_BASE,
    )
