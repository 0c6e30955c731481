"""Drawings for the pages, as SVG text with the numbers behind them: lines over steps, the mix, an interval.

A drawing is 360 units wide, about what a phone shows and a third of a desktop page, so that its labels keep their size.
Colours are CSS classes (s0, s1 for the series), so that light and dark are the page's business. Each drawing is one
image with a name and a description in words; `Drawn.rows` is the same as a table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from posttrain.drawing.page import visible
from posttrain.drawing.scale import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Frame, number
from posttrain.drawing.thinning import MOST_POINTS, Point, extremes, means, running_mean, stretches

SMOOTH_FROM = 60  # points from which on a running mean is drawn over the faint single values
MOST_MARKS = 40
TIPS = 60


@dataclass(frozen=True)
class Series:
    """A line: its name, its (step, value) points by rising step, and for each point a (lo, hi) if it has one."""

    name: str
    points: list[Point]
    band: list[tuple[float, float]] | None = None


@dataclass(frozen=True)
class Drawn:
    """A chart as a page shows it (`parts.chart` in parts.html.j2).

    Attributes:
        title: What it shows.
        svg: The drawing.
        names: Its series, in the order of their colours.
        across: What the steps are called.
        rows: The table behind it: the steps as text, and a text for each series.
    """

    title: str
    svg: Markup
    names: list[str]
    across: str
    rows: list[list[str]] = field(default_factory=list)


def draw(
    title: str, series: Sequence[Series], *, unit: str = "", across: str = "optimizer step",
    boundary: float | None = None, log: bool = False, limits: tuple[float, float] | None = None, percent: bool = False,
    dots: bool = False, first: int = 0, marks: Sequence[tuple[float, str]] = (),
) -> Drawn | None:  # fmt: skip
    """Lines over steps on common axes, or None when no series has a value that can be drawn.

    Args:
        title: What the chart shows.
        series: Up to four lines.
        unit: What the values are counted in; shown above their axis.
        across: What the steps are; shown below their axis.
        boundary: The step at which the warm-up ends.
        log: A logarithmic axis, which drops what is not positive.
        limits: The ends of the value axis, else those of the values.
        percent: The values are shares.
        dots: Each point is marked.
        first: The colour of the first line, 0 to 3; the others follow.
        marks: (step, what happened) to point at from above.
    """
    series = [Series(one.name, *_finite(one, log)) for one in series]
    if not any(one.points for one in series):
        return None
    places = [x for one in series for x, _ in one.points] + ([boundary] if boundary is not None else [])
    values = [y for one in series for _, y in one.points]
    values += [edge for one in series for pair in one.band or [] for edge in pair]
    frame = Frame((min(places), max(places)), limits or (min(values), max(values)), log)
    parts = [_axes(frame, percent, unit + (", logarithmic" if log else ""), across), _boundary(frame, boundary)]
    parts += [_line(frame, one, index, dots) for index, one in enumerate(series, first) if one.points]
    parts += [_tips(frame, series, percent), _marks(frame, marks)]
    svg = _svg(title, _in_words(series, across, percent), parts, HEIGHT)
    return Drawn(title, svg, [one.name for one in series], across.capitalize(), _rows(series, percent))


def mix_strip(
    title: str, steps: Sequence[tuple[float, float, float]], *, boundary: float | None = None
) -> Drawn | None:
    """The shares (step, sft, grpo) as columns over steps, SFT below and GRPO above; None when there are no steps.

    The drawing has no labels and stretches to any shape.
    """
    if not steps:
        return None
    height, first, last = 40, steps[0][0], steps[-1][0]
    size = math.ceil(len(steps) / MOST_POINTS)
    bins = [steps[start : start + size] for start in range(0, len(steps), size)]
    column = WIDTH / len(bins)
    shares = [_sft_share(group) for group in bins]
    paths = {"f0": "", "f1": ""}
    for index, share in enumerate(shares):
        if share is not None:
            edge = height * (1 - share)
            paths["f1"] += _box(index * column, column, 0, edge)
            paths["f0"] += _box(index * column, column, edge, height - edge)
    parts = [f'<path class="{name}" d="{path}"/>' for name, path in paths.items() if path]
    rows = _mix_rows(steps)
    wide = WIDTH / len(rows)
    parts += [
        f'<rect class="tip" x="{index * wide:.1f}" width="{wide:.1f}" y="0" height="{height}">'
        f"<title>step {row[0]}: {row[1]} SFT</title></rect>"
        for index, row in enumerate(rows)
    ]
    if boundary is not None and first < boundary < last:
        x = WIDTH * sum(group[0][0] <= boundary for group in bins) / len(bins)
        parts.append(f'<line class="edge" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}"/>')
    mean = _sft_share(steps)
    words = f"Steps {first:.12g} to {last:.12g}: " + (
        "no update" if mean is None else f"{number(mean, True)} SFT, {number(1 - mean, True)} GRPO"
    )
    svg = _svg(title, words, parts, height, 'preserveAspectRatio="none" shape-rendering="crispEdges"')
    return Drawn(title, svg, ["SFT", "GRPO"], "Steps", rows)


def whisker(value: float, lo: float, hi: float) -> Markup:
    """A share in [0, 1] with its interval on a short line; decoration beside the numbers."""
    at = [4 + 124 * min(max(each, 0.0), 1.0) for each in (value, lo, hi)]
    return Markup(
        '<svg class="whisker" viewBox="0 0 132 14" aria-hidden="true"><rect x="4" y="6" width="124" height="2"/>'
        f'<line x1="{at[1]:.1f}" x2="{at[2]:.1f}" y1="7" y2="7"/><circle cx="{at[0]:.1f}" cy="7" r="4"/></svg>'
    )  # numbers only


# -- the mix -----------------------------------------------------------------------------------------------------------


def _sft_share(steps: Sequence[tuple[float, float, float]]) -> float | None:
    sft, grpo = sum(step[1] for step in steps), sum(step[2] for step in steps)
    return sft / (sft + grpo) if sft + grpo else None


def _box(x: float, wide: float, y: float, tall: float) -> str:
    return f"M{x:.2f} {y:.2f}h{wide:.2f}v{tall:.2f}h-{wide:.2f}z" if tall else ""


def _mix_rows(steps: Sequence[tuple[float, float, float]]) -> list[list[str]]:
    size = math.ceil(len(steps) / 20)
    rows = []
    for start in range(0, len(steps), size):
        group = steps[start : start + size]
        share = _sft_share(group)
        cells = ["none", "none"] if share is None else [number(share, True), number(1 - share, True)]
        rows.append([_steps(group[0][0], group[-1][0]), *cells])
    return rows


# -- lines -------------------------------------------------------------------------------------------------------------


def _finite(series: Series, log: bool) -> tuple[list[Point], list[tuple[float, float]] | None]:
    kept = [index for index, (_, y) in enumerate(series.points) if math.isfinite(y) and (y > 0 or not log)]
    points = [series.points[index] for index in kept]
    return points, None if series.band is None else [series.band[index] for index in kept]


def _axes(frame: Frame, percent: bool, unit: str, across: str) -> str:
    parts = [f'<text class="unit" x="4" y="11">{_safe(unit)}</text>'] if unit else []
    for tick in frame.values():
        y = frame.y(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{number(tick, percent)}</text>'
        )
    for tick in frame.steps():
        x = min(max(frame.x(tick), LEFT + 4), WIDTH - RIGHT - 10)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 21}" text-anchor="middle">{tick:.12g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="unit" x="{middle:.0f}" y="{HEIGHT - 5}" text-anchor="middle">{_safe(across)}</text>')
    return "".join(parts)


def _boundary(frame: Frame, boundary: float | None) -> str:
    if boundary is None or not frame.x0 < boundary < frame.x1:
        return ""
    x = frame.x(boundary)
    return f'<line class="edge" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'


def _line(frame: Frame, series: Series, index: int, dots: bool) -> str:
    parts = []
    if series.band:
        upper = means([(x, hi) for (x, _), (_, hi) in zip(series.points, series.band, strict=True)])
        lower = means([(x, lo) for (x, _), (lo, _) in zip(series.points, series.band, strict=True)])
        parts.append(f'<polygon class="b{index}" points="{_path(frame, [*upper, *reversed(lower)])}"/>')
    points = extremes(series.points)
    if len(series.points) >= SMOOTH_FROM:
        parts.append(f'<polyline class="s{index} faint" points="{_path(frame, points)}"/>')
        points = means(running_mean(series.points))
    parts.append(f'<polyline class="s{index}" points="{_path(frame, points)}"/>')
    if (dots and len(points) < SMOOTH_FROM) or len(points) == 1:
        parts += [f'<circle class="d{index}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3"/>' for x, y in points]
    return "".join(parts)


def _path(frame: Frame, points: Sequence[Point]) -> str:
    return " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in points)


def _tips(frame: Frame, series: Sequence[Series], percent: bool) -> str:
    """What the pointer shows: up to TIPS columns, each with the last value of every series in it."""
    columns = stretches([one.points for one in series], TIPS)
    half = (WIDTH - LEFT - RIGHT) / max(len(columns), 1) / 2
    parts = []
    for (first, last), cells in columns:
        said = [f"{_safe(one.name)} {_cell(cell, percent)}" for one, cell in zip(series, cells, strict=True) if cell]
        parts.append(
            f'<rect class="tip" x="{frame.x((first + last) / 2) - half:.1f}" y="{TOP}" width="{2 * half:.1f}" '
            f'height="{HEIGHT - TOP - BOTTOM}"><title>step {_steps(first, last)}: {", ".join(said)}</title></rect>'
        )
    return "".join(parts)


def _marks(frame: Frame, marks: Sequence[tuple[float, str]]) -> str:
    inside = [(step, said) for step, said in marks if frame.x0 <= step <= frame.x1]
    return "".join(
        f'<path class="mark" d="M{frame.x(step):.1f} {TOP}l-4.5 -8h9z">'
        f"<title>step {step:.12g}: {_safe(said)}</title></path>"
        for step, said in inside[:: math.ceil(len(inside) / MOST_MARKS) or 1]
    )


# -- in words and numbers ----------------------------------------------------------------------------------------------


def _in_words(series: Sequence[Series], across: str, percent: bool) -> str:
    said = []
    for one in series:
        if not one.points:
            continue
        (first, begin), (last, end) = one.points[0], one.points[-1]
        values = [y for _, y in one.points]
        text = f"{one.name}: {number(begin, percent)} at {across} {first:.12g}"
        if len(values) > 1:
            text += f", {number(end, percent)} at {last:.12g}, between {number(min(values), percent)} and "
            text += number(max(values), percent)
        said.append(text)
    return "; ".join(said) + "."


def _rows(series: Sequence[Series], percent: bool) -> list[list[str]]:
    """The table behind a chart; with intervals where the series have them and no steps are put together."""
    table = stretches([one.points for one in series])
    bands = [dict(zip(one.points, one.band or [], strict=False)) for one in series]
    rows = []
    for (first, last), cells in table:
        row = [_steps(first, last)]
        for cell, band in zip(cells, bands, strict=True):
            text = _cell(cell, percent, digits=4)
            if len(cell) == 1 and (first, cell[0]) in band:
                lo, hi = band[first, cell[0]]
                text += f" ({number(lo, percent, 4)} to {number(hi, percent, 4)})"
            row.append(text)
        rows.append(row)
    return rows


def _cell(values: list[float], percent: bool, digits: int = 3) -> str:
    """One value, or the mean of several with the lowest and the highest."""
    if not values:
        return "\N{EN DASH}"
    mean = number(sum(values) / len(values), percent, digits)
    if len(values) == 1:
        return mean
    return f"{mean} ({number(min(values), percent, digits)} to {number(max(values), percent, digits)})"


def _steps(first: float, last: float) -> str:
    return f"{first:.12g}" if first == last else f"{first:.12g} to {last:.12g}"


def _safe(text: str) -> Markup:
    return escape(visible(text))


def _svg(title: str, words: str, parts: list[str], height: int, attributes: str = "") -> Markup:
    head = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{_safe(title)}" {attributes}>'
    return Markup(f"{head}<desc>{_safe(words)}</desc>{''.join(parts)}</svg>")  # its texts are numbers or escaped here
