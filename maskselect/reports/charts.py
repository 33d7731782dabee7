"""Small charts as SVG text, for pages that need no file beside them."""

from collections.abc import Sequence
from html import escape

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 420, 190, 44, 34, 22


def histogram(values: Sequence[float], title: str, bins: int = 20, unit: str = "IoU") -> str:
    """Counts of values in [0, 1]; a value of 1 is in the last bin."""
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, max(0, int(value * bins)))] += 1
    width = (_WIDTH - _LEFT - 8) / bins
    most = max([*counts, 1])
    bars = []
    for place, count in enumerate(counts):
        height = (_HEIGHT - _BOTTOM - _TOP) * count / most
        x, y = _LEFT + place * width, _HEIGHT - _BOTTOM - height
        told = f"{place / bins:.2f} to {(place + 1) / bins:.2f}: {count}"
        bars.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width - 1:.1f}" height="{height:.1f}" class="bar">'
                    f"<title>{told}</title></rect>")  # fmt: skip
    return _frame(title, "".join(bars), f"0 to {most} samples", unit)


def reliability(scores: Sequence[float], right: Sequence[bool], title: str, bins: int = 10) -> str:
    """Share of right ones among things of a score in [0, 1], beside the diagonal of a calibrated model.

    Bins of fewer than five are left out; a dot's area follows the number in its bin.
    """
    place = [min(bins - 1, max(0, int(score * bins))) for score in scores]
    dots = [_line(0, 0, 1, 1, "diagonal")]
    for number in range(bins):
        inside = [ok for at, ok in zip(place, right, strict=True) if at == number]
        if len(inside) < 5:
            continue
        mean = sum(score for score, at in zip(scores, place, strict=True) if at == number) / len(inside)
        share = sum(inside) / len(inside)
        x, y = _at(mean, share)
        radius = 3 + 7 * (len(inside) / max(1, len(scores))) ** 0.5
        dots.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" class="dot"><title>score {mean:.2f}, right '
                    f"{share:.2f}, {len(inside)} candidates</title></circle>")  # fmt: skip
    return _frame(title, "".join(dots), "share that is right, 0 to 1", "score")


def curve(values: Sequence[float], at: Sequence[float], title: str, unit: str) -> str:
    """Values in [0, 1] over positions in [0, 1]."""
    points = [_at(x, y) for x, y in zip(at, values, strict=True)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="dot"><title>{a:.2f}: {v:.3f}</title></circle>'
        for (x, y), a, v in zip(points, at, values, strict=True)
    )
    return _frame(title, f'<polyline points="{path}" class="curve"/>{dots}', "0 to 1", unit)


def _at(x: float, y: float) -> tuple[float, float]:
    return _LEFT + x * (_WIDTH - _LEFT - 8), _HEIGHT - _BOTTOM - y * (_HEIGHT - _BOTTOM - _TOP)


def _line(x0: float, y0: float, x1: float, y1: float, kind: str) -> str:
    (a, b), (c, d) = _at(x0, y0), _at(x1, y1)
    return f'<line x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}" class="{kind}"/>'


def _frame(title: str, inside: str, vertical: str, horizontal: str) -> str:
    base = _HEIGHT - _BOTTOM
    ticks = "".join(
        f'<text x="{_at(x, 0)[0]:.1f}" y="{base + 14}" class="tick">{x:g}</text>' for x in (0, 0.25, 0.5, 0.75, 1)
    )
    axes = _line(0, 0, 1, 0, "axis") + _line(0, 0, 0, 1, "axis")
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">'
        f'<text x="{_LEFT}" y="14" class="title">{escape(title)}</text>{axes}{inside}{ticks}'
        f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 4}" class="tick">{escape(horizontal)}</text>'
        f'<text x="{-(base + _TOP) / 2}" y="14" transform="rotate(-90)" class="tick">{escape(vertical)}</text></svg>'
    )
