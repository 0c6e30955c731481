"""Small drawings for the report, as SVG text: lines over steps, and the mix as a strip.

A drawing is 360 units wide, about what a phone shows and a third of a desktop page, so that its labels keep their size.
Colours are CSS classes (s0, s1 for the series), so that light and dark are the page's business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 360, 170
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 10, 22
MOST_POINTS = 360  # more than one a unit can't be seen
SMOOTH_FROM = 60  # points from which on a running mean is drawn over the faint single values

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """A line: its name, its (step, value) points by rising step, and for each point a (lo, hi) if it has one."""

    name: str
    points: list[Point]
    band: list[tuple[float, float]] | None = None


def line_chart(
    title: str, series: Sequence[Series], *, boundary: float | None = None, log: bool = False,
    limits: tuple[float, float] | None = None, percent: bool = False, dots: bool = False,
) -> Markup:  # fmt: skip
    """Lines over steps on common axes, or nothing when no series has a finite point.

    `boundary` is the step at which the warm-up ends; `limits` fixes the value axis; `log` needs positive values and
    drops the others; `dots` marks each point.
    """
    series = [Series(one.name, *_finite(one, log)) for one in series]
    if not any(one.points for one in series):
        return Markup("")
    places = [x for one in series for x, _ in one.points] + ([boundary] if boundary is not None else [])
    values = [y for one in series for _, y in one.points]
    values += [edge for one in series for pair in one.band or [] for edge in pair]
    frame = _Frame((min(places), max(places)), limits or (min(values), max(values)), log)
    parts = [_axes(frame, percent), _boundary(frame, boundary)]
    for index, one in enumerate(series):
        if one.points:
            parts.append(_line(frame, one, index, dots))
    parts.append(_tips(frame, series, percent))
    return _svg(title, parts, HEIGHT)


def mix_strip(title: str, steps: Sequence[tuple[float, float, float]], *, boundary: float | None = None) -> Markup:
    """The shares (step, sft, grpo) as columns over steps, SFT below and GRPO above; nothing when there are no steps.

    The drawing has no labels and stretches to any shape.
    """
    if not steps:
        return Markup("")
    height, first, last = 40, steps[0][0], steps[-1][0]
    size = math.ceil(len(steps) / MOST_POINTS)
    bins = [steps[start : start + size] for start in range(0, len(steps), size)]
    column = WIDTH / len(bins)
    parts = []
    for index, group in enumerate(bins):
        sft = sum(step[1] for step in group)
        grpo = sum(step[2] for step in group)
        share = sft / (sft + grpo) if sft + grpo else 0.0
        tip = f"step {group[0][0]:g}" + (f" to {group[-1][0]:g}" if len(group) > 1 else "") + f": {share:.0%} SFT"
        place = f'x="{index * column:.2f}" width="{column:.2f}"'
        bars = [("f1", 0.0, height * (1 - share)), ("f0", height * (1 - share), height * share)]
        drawn = [
            f'<rect class="{name}" {place} y="{top:.2f}" height="{tall:.2f}"/>'
            for name, top, tall in bars
            if tall and sft + grpo
        ]
        parts.append(f"<g><title>{tip}</title>{''.join(drawn)}</g>")
    if boundary is not None and first < boundary < last:
        x = WIDTH * (boundary - first) / max(last - first, 1)
        parts.append(f'<line class="edge" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}"/>')
    return _svg(title, parts, height, 'preserveAspectRatio="none" shape-rendering="crispEdges"')


class _Frame:
    """Where a step and a value are in the drawing."""

    def __init__(self, xs: tuple[float, float], ys: tuple[float, float], log: bool):
        self.log = log
        self.x0, self.x1 = xs if xs[0] < xs[1] else (xs[0] - 1, xs[1] + 1)
        low, high = (math.log10(ys[0]), math.log10(ys[1])) if log else ys
        if high - low < 1e-9 * max(1.0, abs(high)):
            low, high = low - max(abs(low) * 0.1, 0.05), high + max(abs(high) * 0.1, 0.05)
        self.y0, self.y1 = low, high

    def x(self, step: float) -> float:
        return LEFT + (step - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        at = math.log10(value) if self.log else value
        at = min(max(at, self.y0), self.y1)
        return HEIGHT - BOTTOM - (at - self.y0) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM)

    def ticks(self) -> list[float]:
        if not self.log:
            return _round_ticks(self.y0, self.y1, 4)
        powers = [10.0**power for power in range(math.ceil(self.y0 - 1e-9), math.floor(self.y1 + 1e-9) + 1)]
        return powers if len(powers) >= 2 else [10**self.y0, 10**self.y1]


def _round_ticks(low: float, high: float, wanted: int) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten between two values, about as many as wanted."""
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    return [index * step for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _finite(series: Series, log: bool) -> tuple[list[Point], list[tuple[float, float]] | None]:
    kept = [index for index, (_, y) in enumerate(series.points) if math.isfinite(y) and (y > 0 or not log)]
    points = [series.points[index] for index in kept]
    return points, None if series.band is None else [series.band[index] for index in kept]


def _axes(frame: _Frame, percent: bool) -> str:
    parts = []
    for tick in frame.ticks():
        y = frame.y(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{number(tick, percent)}</text>'
        )
    for tick in _round_ticks(frame.x0, frame.x1, 4):
        x = min(max(frame.x(tick), LEFT + 4), WIDTH - RIGHT - 10)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{tick:g}</text>')
    return "".join(parts)


def _boundary(frame: _Frame, boundary: float | None) -> str:
    if boundary is None or not frame.x0 < boundary < frame.x1:
        return ""
    x = frame.x(boundary)
    return f'<line class="edge" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'


def _line(frame: _Frame, series: Series, index: int, dots: bool) -> str:
    points = _thin(series.points)
    parts = []
    if series.band:
        upper = [(x, hi) for (x, _), (_, hi) in zip(series.points, series.band, strict=True)]
        lower = [(x, lo) for (x, _), (lo, _) in zip(series.points, series.band, strict=True)]
        parts.append(f'<polygon class="b{index}" points="{_path(frame, [*upper, *reversed(lower)])}"/>')
    if len(series.points) >= SMOOTH_FROM:
        parts.append(f'<polyline class="s{index} faint" points="{_path(frame, points)}"/>')
        points = _thin(_running_mean(series.points))
    parts.append(f'<polyline class="s{index}" points="{_path(frame, points)}"/>')
    if dots or len(points) == 1:
        parts += [f'<circle class="d{index}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3"/>' for x, y in points]
    return "".join(parts)


def _path(frame: _Frame, points: Sequence[Point]) -> str:
    return " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in points)


def _thin(points: list[Point]) -> list[Point]:
    """At most MOST_POINTS points, each the mean of its neighbours."""
    size = math.ceil(len(points) / MOST_POINTS)
    if size <= 1:
        return points
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def _running_mean(points: list[Point]) -> list[Point]:
    """Each value's mean with its neighbours, over about a twentieth of the line."""
    reach = max(1, len(points) // 40)
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    smooth = []
    for index, (x, _) in enumerate(points):
        low, high = max(0, index - reach), min(len(points), index + reach + 1)
        smooth.append((x, (sums[high] - sums[low]) / (high - low)))
    return smooth


def _tips(frame: _Frame, series: Sequence[Series], percent: bool) -> str:
    """What the pointer shows: up to 60 columns, each with the last value of every series in it."""
    steps = sorted({x for one in series for x, _ in one.points})
    chosen = steps[:: max(1, math.ceil(len(steps) / 60))]
    at = [dict(one.points) for one in series]
    half = (WIDTH - LEFT - RIGHT) / max(len(chosen), 1) / 2
    parts = []
    for step in chosen:
        said = [
            f"{escape(one.name)} {number(values[step], percent)}"
            for one, values in zip(series, at, strict=True)
            if step in values
        ]
        parts.append(
            f'<rect class="tip" x="{frame.x(step) - half:.1f}" y="{TOP}" width="{2 * half:.1f}" '
            f'height="{HEIGHT - TOP - BOTTOM}"><title>step {step:g}: {", ".join(said)}</title></rect>'
        )
    return "".join(parts)


def number(value: float, percent: bool = False) -> str:
    """A value as a label: three digits at most, or a whole percentage."""
    if percent:
        return f"{100 * value:.0f} %"
    if value and not 0.001 <= abs(value) < 10_000:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _svg(title: str, parts: list[str], height: int, attributes: str = "") -> Markup:
    head = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}" {attributes}>'
    return Markup(f"{head}{''.join(parts)}</svg>")  # everything in it is a number or escaped here
