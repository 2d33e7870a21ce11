"""A roofline (Williams et al. 2009, "Roofline: an insightful visual performance model") as one SVG file, both axes logarithmic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from rgjax.report.charts import number

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 420, 70, 150, 34, 48
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#667085}.grid{stroke:#e4e7ec}.roof{fill:none;stroke:#1d2530;stroke-width:2}"
    ".point{fill:#2563c9}.gap{stroke:#2563c9;stroke-dasharray:2 3;opacity:.6}.name{fill:#1d2530}"
)
Point = tuple[str, float, float]  # name, FLOPs a byte, FLOP/s


def svg(title: str, peak: float, bandwidth: float, points: Sequence[Point]) -> str:
    """The roof of a device of `peak` FLOP/s and `bandwidth` bytes/s, and under it each point with what it lacks to the roof."""
    points = [p for p in points if p[1] > 0 and p[2] > 0]
    ridge, roof = peak / bandwidth, lambda x: min(peak, bandwidth * x)
    low, high = _decades([ridge / 10, ridge * 10, *(x for _, x, _ in points)])
    bottom, top = _decades([peak, roof(low), *(y for _, _, y in points)])
    across = lambda x: LEFT + (math.log10(x / low) / math.log10(high / low)) * (WIDTH - LEFT - RIGHT)
    up = lambda y: HEIGHT - BOTTOM - (math.log10(y / bottom) / math.log10(top / bottom)) * (HEIGHT - TOP - BOTTOM)
    parts = [f'<text class="name" x="{LEFT}" y="18">{escape(title)}</text>', *_axes(low, high, bottom, top, across, up)]
    corners = " ".join(f"{across(x):.1f},{up(roof(x)):.1f}" for x in (low, ridge, high))
    parts.append(f'<polyline class="roof" points="{corners}"/>')
    parts.append(f'<text x="{across(high) + 6:.1f}" y="{up(peak) + 4:.1f}">{number(peak / 1e9)} GFLOP/s</text>')
    taken: list[float] = []
    for name, x, y in sorted(points, key=lambda p: -p[2]):
        place = up(y) + 4
        while any(abs(place - other) < 13 for other in taken):
            place += 13
        taken.append(place)
        tip = escape(f"{name}: {x:.3g} FLOP/byte, {y / 1e9:.3g} of {roof(x) / 1e9:.3g} GFLOP/s")
        parts.append(f'<line class="gap" x1="{across(x):.1f}" x2="{across(x):.1f}" y1="{up(y):.1f}" y2="{up(roof(x)):.1f}"/>')
        parts.append(f'<circle class="point" cx="{across(x):.1f}" cy="{up(y):.1f}" r="4.5"><title>{tip}</title></circle>')
        parts.append(f'<text class="name" x="{across(x) + 8:.1f}" y="{place:.1f}">{escape(name)}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">'
    return f'{head}<style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """The powers of ten around positive values."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return 10.0**low, 10.0 ** max(high, low + 1)


def _axes(low, high, bottom, top, across, up) -> list[str]:
    decades = lambda a, b: [10.0**k for k in range(round(math.log10(a)), round(math.log10(b)) + 1)]
    parts = []
    for x in decades(low, high):
        parts.append(f'<line class="grid" x1="{across(x):.1f}" x2="{across(x):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{number(x)}</text>')
    for y in decades(bottom, top):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(y):.1f}" y2="{up(y):.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{up(y) + 4:.1f}" text-anchor="end">{number(y / 1e9)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    return [*parts, f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">FLOP / byte</text>', f'<text x="8" y="{TOP - 8}">GFLOP/s</text>']
