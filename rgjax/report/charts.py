"""Charts as inline SVG, written by hand: lines over steps, and one bar of a score with its interval and floors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 560, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 34
MOST_POINTS = 600  # more than the chart has pixels would only make the page heavy
Series = tuple[str, str, Sequence[tuple[float, float]]]  # name, colour, (x, y) points


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2, 2.5 or 5 times a power of ten apart) that span [low, high]."""
    if not high > low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def number(value: float) -> str:
    """A number short enough for an axis: 12.3k, 0.0005, 1e-05."""
    if value == 0:
        return "0"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.4g}{unit}"
    return f"{value:.4g}"


def thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Finite points, at most `MOST_POINTS`: means over equal runs of points, in which no trend is lost."""
    points = [p for p in points if all(map(math.isfinite, p))]
    if len(points) <= MOST_POINTS:
        return points
    size = math.ceil(len(points) / MOST_POINTS)
    runs = [points[i : i + size] for i in range(0, len(points), size)]
    return [(run[-1][0], sum(y for _, y in run) / len(run)) for run in runs]


def lines(title: str, series: Sequence[Series], from_zero: bool = False) -> str:
    """A line chart over training steps; series without finite points are left out, and a chart without series is empty."""
    series = [(name, colour, thin(points)) for name, colour, points in series]
    series = [one for one in series if one[2]]
    if not series:
        return ""
    xs = [x for _, _, points in series for x, _ in points]
    ys = [y for _, _, points in series for _, y in points]
    x_ticks, y_ticks = ticks(min(xs), max(xs)), ticks(min(0, *ys) if from_zero else min(ys), max(ys))
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1)

    def at(x: float, y: float) -> tuple[float, float]:
        share = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        across = (x - x_low) / (x_high - x_low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = [_grid([(at(x_low, y)[1], number(y)) for y in y_ticks], [(at(x, 0)[0], x) for x in x_ticks if x_low <= x <= x_high])]
    for name, colour, points in series:
        parts.append(_line(name, colour, [(at(x, y), x, y) for x, y in points]))
    legend = "".join(f'<span><i style="background:{colour}"></i>{escape(name)}</span>' for name, colour, _ in series)
    head = f'<figcaption>{escape(title)}<span class="legend">{legend if len(series) > 1 else ""}</span></figcaption>'
    label = escape(f"{title} over training steps")
    return f'<figure>{head}<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg></figure>'


def _grid(rows: Sequence[tuple[float, str]], columns: Sequence[tuple[float, float]]) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>' for y, _ in rows]
    parts += [f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>' for y, label in rows]
    parts += [f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{number(step)}</text>' for x, step in columns]
    return "".join(parts) + f'<text x="{right}" y="{HEIGHT - 2}" text-anchor="end">step</text>'


def _line(name: str, colour: str, points: Sequence[tuple[tuple[float, float], float, float]]) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for (x, y), _, _ in points)
    drawn = f'<polyline fill="none" stroke="{colour}" stroke-width="1.8" stroke-linejoin="round" points="{path}"/>'
    if len(points) > 60:
        return drawn
    for (x, y), step, value in points:  # few enough to be read one by one
        tip = escape(f"{name}, step {step:g}: {value:.4g}")
        drawn += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colour}"><title>{tip}</title></circle>'
    return drawn


def bar(score: dict, marks: Sequence[tuple[str, str, float | None]], width: int = 220, height: int = 22, most: float | None = None) -> str:
    """A bar of score["value"] with a whisker from "low" to "high" and one coloured tick per floor (name, colour, value) that is known.

    The scale runs from 0 to `most`, without it to the largest number shown; a score without a value has no bar.
    """
    if score.get("value") is None:
        return ""
    marks = [mark for mark in marks if mark[2] is not None]
    known = [v for v in (score["value"], score.get("low"), score.get("high"), *(value for _, _, value in marks)) if v is not None]
    top = 1.04 * (max(known) if most is None else most) or 1.0
    at = lambda value: max(0.0, value) / top * (width - 2) + 1
    parts = [f'<rect class="bar" x="1" y="6" height="{height - 12}" width="{max(at(score["value"]) - 1, 0.5):.1f}"/>']
    for name, colour, value in marks:
        x, tip = at(value), escape(f"{name}: {value:.4g}")
        line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="1" y2="{height - 1}" stroke="{colour}" stroke-width="2.4">'
        parts.append(f"{line}<title>{tip}</title></line>")
    if score.get("low") is not None:
        low, high, middle = at(score["low"]), at(score["high"]), height / 2
        path = f"M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} {middle - 4}v8"
        parts.append(f'<path class="whisker" d="{path}"/>')
    return f'<svg class="score" width="{width}" height="{height}" viewBox="0 0 {width} {height}">{"".join(parts)}</svg>'
