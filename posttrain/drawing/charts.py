"""Drawings for the pages, as SVG text with the numbers behind them: lines over steps, an interval.

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
from posttrain.drawing.thinning import Point, extremes, means, running_mean, stretches

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
        note: What the drawing cannot show, in words.
    """

    title: str
    svg: Markup
    names: list[str]
    across: str
    rows: list[list[str]] = field(default_factory=list)
    note: str = ""


def draw(
    title: str, series: Sequence[Series], *, unit: str = "", across: str = "optimizer step",
    boundary: float | None = None, log: bool = False, limits: tuple[float, float] | None = None, percent: bool = False,
    dots: bool = False, first: int = 0, marks: Sequence[tuple[float, str]] = (),
    span: tuple[float, float] | None = None,
) -> Drawn | None:  # fmt: skip
    """Lines over steps on common axes, or None when no series has a value that can be drawn.

    Args:
        title: What the chart shows.
        series: Up to four lines.
        unit: What the values are counted in; shown above their axis.
        across: What the steps are; shown below their axis.
        boundary: The warm-up's last step; those after it are called by their number in the hybrid stage.
        log: A logarithmic axis where a value is positive; what is not lies at its foot, and the note counts it.
        limits: The ends of the value axis, else those of the values.
        percent: The values are shares.
        dots: Each point is marked.
        first: The colour of the first line, 0 to 3; the others follow.
        marks: (step, what happened) to point at from above.
        span: The first and the last step of the axis, for charts that share one; else those of the lines.
    """
    series = [Series(one.name, *_finite(one)) for one in series]
    if not any(one.points for one in series):
        return None
    places = [x for one in series for x, _ in one.points] + [*(span or ()), *([] if boundary is None else [boundary])]
    values = [y for one in series for _, y in one.points]
    values += [edge for one in series for pair in one.band or [] for edge in pair]
    if log:
        values = [value for value in values if value > 0] or values
        log = values[0] > 0
    frame = Frame((min(places), max(places)), limits or (min(values), max(values)), log, boundary)
    parts = [_axes(frame, percent, unit + (", logarithmic" if log else ""), across), _boundary(frame, boundary)]
    parts += [_line(frame, one, index, dots) for index, one in enumerate(series, first) if one.points]
    parts += [_tips(frame, series, percent), _marks(frame, marks)]
    words = _in_words(frame, series, across, percent)
    note = " ".join(filter(None, (_at_the_foot(one) for one in series))) if log else ""
    names = [one.name for one in series]
    return Drawn(
        title, svg_of(title, words, parts, HEIGHT), names, frame.across(across), _rows(frame, series, percent), note
    )


def whisker(value: float, lo: float, hi: float) -> Markup:
    """A share in [0, 1] with its interval on a short line; decoration beside the numbers."""
    at = [4 + 124 * min(max(each, 0.0), 1.0) for each in (value, lo, hi)]
    return Markup(
        '<svg class="whisker" viewBox="0 0 132 14" aria-hidden="true"><rect x="4" y="6" width="124" height="2"/>'
        f'<line x1="{at[1]:.1f}" x2="{at[2]:.1f}" y1="7" y2="7"/><circle cx="{at[0]:.1f}" cy="7" r="4"/></svg>'
    )  # numbers only


# -- lines -------------------------------------------------------------------------------------------------------------


def _finite(series: Series) -> tuple[list[Point], list[tuple[float, float]] | None]:
    kept = [index for index, (_, y) in enumerate(series.points) if math.isfinite(y)]
    points = [series.points[index] for index in kept]
    return points, None if series.band is None else [series.band[index] for index in kept]


def _positive(series: Series) -> tuple[list[Point], list[tuple[float, float]] | None]:
    kept = [index for index, (_, y) in enumerate(series.points) if y > 0]
    band = series.band and [series.band[index] for index in kept]
    return [series.points[index] for index in kept], band


def _axes(frame: Frame, percent: bool, unit: str, across: str) -> str:
    parts = [f'<text class="unit" x="4" y="11">{_safe(unit)}</text>'] if unit else []
    for tick in frame.values():
        y = frame.y(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{number(tick, percent)}</text>'
        )
    for tick, said in frame.steps():
        x = min(max(frame.x(tick), LEFT + 4), WIDTH - RIGHT - 10)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 21}" text-anchor="middle">{said}</text>')
    for middle, said in frame.stages(across):
        parts.append(f'<text class="unit" x="{middle:.0f}" y="{HEIGHT - 5}" text-anchor="middle">{_safe(said)}</text>')
    return "".join(parts)


def _boundary(frame: Frame, boundary: float | None) -> str:
    if boundary is None or not frame.x0 < boundary < frame.x1:
        return ""
    x = frame.x(boundary)
    return f'<line class="edge" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'


def _at_the_foot(series: Series) -> str:
    below, count = sum(y <= 0 for _, y in series.points), len(series.points)
    if not below:
        return ""
    which = f"All {count} values" if below == count else f"{below} of the {count} values"
    return f"{which} of {series.name} are 0: at the foot of the chart."


def _line(frame: Frame, series: Series, index: int, dots: bool) -> str:
    parts = []
    if frame.log:
        below = [x for x, y in series.points if y <= 0]
        series = Series(series.name, *_positive(series))
        y = HEIGHT - BOTTOM
        parts += [
            f'<rect class="d{index}" x="{frame.x(x) - 1:.1f}" y="{y - 4}" width="2" height="4"/>'
            for x in below[:: math.ceil(len(below) / MOST_MARKS) or 1]
        ]
        if not series.points:
            return "".join(parts)
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
            f'height="{HEIGHT - TOP - BOTTOM}"><title>{frame.names.told(first, last)}: {", ".join(said)}</title></rect>'
        )
    return "".join(parts)


def _marks(frame: Frame, marks: Sequence[tuple[float, str]]) -> str:
    inside = [(step, said) for step, said in marks if frame.x0 <= step <= frame.x1]
    return "".join(
        f'<path class="mark" d="M{frame.x(step):.1f} {TOP}l-4.5 -8h9z">'
        f"<title>{frame.names.told(step, step)}: {_safe(said)}</title></path>"
        for step, said in inside[:: math.ceil(len(inside) / MOST_MARKS) or 1]
    )


# -- in words and numbers ----------------------------------------------------------------------------------------------


def _in_words(frame: Frame, series: Sequence[Series], across: str, percent: bool) -> str:
    said = []
    for one in series:
        if not one.points:
            continue
        (first, begin), (last, end) = one.points[0], one.points[-1]
        values = [y for _, y in one.points]
        text = f"{one.name}: {number(begin, percent)} at {frame.names.told(first, first, across)}"
        if len(values) > 1:
            text += f", {number(end, percent)} at {frame.names.one(last)}, between {number(min(values), percent)} and "
            text += number(max(values), percent)
        said.append(text)
    return "; ".join(said) + "."


def _rows(frame: Frame, series: Sequence[Series], percent: bool) -> list[list[str]]:
    """The table behind a chart; with intervals where the series have them and no steps are put together."""
    table = stretches([one.points for one in series])
    bands = [dict(zip(one.points, one.band or [], strict=False)) for one in series]
    rows = []
    for (first, last), cells in table:
        row = [frame.names.several(first, last)]
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


def _safe(text: str) -> Markup:
    return escape(visible(text))


def svg_of(title: str, words: str, parts: Sequence[str], height: int, attributes: str = "") -> Markup:
    """One image with its name and its description in words; the parts are SVG already."""
    head = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{_safe(title)}" {attributes}>'
    return Markup(f"{head}<desc>{_safe(words)}</desc>{''.join(parts)}</svg>")  # its texts are numbers or escaped here
