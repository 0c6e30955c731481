"""Values with their intervals, a row each: pass@1 of several runs, or differences from a baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from posttrain.drawing.charts import Drawn
from posttrain.drawing.page import visible
from posttrain.drawing.scale import WIDTH, round_ticks

SIDE, ROW, HEAD, FOOT = 12, 38, 6, 24
HALO = 'style="paint-order:stroke;stroke:var(--card);stroke-width:4px"'  # text over lines
NAME_SHOWN = 44  # characters of a row's name


@dataclass(frozen=True)
class Interval:
    """A row: its name, a value, and the ends of its interval."""

    name: str
    value: float
    lo: float
    hi: float


def draw_intervals(
    title: str, rows: Sequence[Interval], label: Callable[[float], str], *, across: str = "run",
    zero: bool = False,
) -> Drawn:  # fmt: skip
    """A dot and its whiskers for each row, the name above it.

    Args:
        title: What is shown.
        rows: At least one.
        label: How a value is written.
        across: What the rows are, as the heading of the table behind the drawing.
        zero: Draw a line at 0, which an interval excludes or not.
    """
    low = min([row.lo for row in rows] + ([0.0] if zero else []))
    high = max([row.hi for row in rows] + ([0.0] if zero else []))
    margin = 0.06 * (high - low) or 0.05
    low, high = low - margin, high + margin
    height = HEAD + ROW * len(rows) + FOOT

    def x(value: float) -> float:
        return SIDE + (value - low) / (high - low) * (WIDTH - 2 * SIDE)

    parts = []
    for tick in round_ticks(low, high, 4):
        line = f'x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{HEAD}" y2="{height - FOOT}"'
        kind = "edge" if zero and abs(tick) < 1e-9 else "grid"
        parts.append(f'<line class="{kind}" {line}/>')
        place = min(max(x(tick), 22), WIDTH - 22)
        parts.append(f'<text class="tick" x="{place:.1f}" y="{height - 7}" text-anchor="middle">{label(tick)}</text>')
    for place, row in enumerate(rows):
        parts.append(_row(row, HEAD + ROW * place, x, label))
    table = [[row.name, f"{label(row.value)} ({_ends(row, label)})"] for row in rows]
    told = "; ".join(" ".join(cells) for cells in table)
    svg = (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{_safe(title)}"><desc>{_safe(told)}</desc>'
        f"{''.join(parts)}</svg>"
    )
    return Drawn(title, Markup(svg), ["value and 95 % interval"], across, table)  # escaped here, or numbers


def _ends(row: Interval, label: Callable[[float], str]) -> str:
    return f"{label(row.lo)} to {label(row.hi)}" if row.lo != row.hi else "no interval"


def _row(row: Interval, top: float, x: Callable[[float], float], label: Callable[[float], str]) -> str:
    name = row.name if len(row.name) <= NAME_SHOWN else f"{row.name[: NAME_SHOWN - 1]}\N{HORIZONTAL ELLIPSIS}"
    y = top + 27
    ends = "".join(
        f'<line class="s0" x1="{x(e):.1f}" x2="{x(e):.1f}" y1="{y - 4}" y2="{y + 4}"/>' for e in (row.lo, row.hi)
    )
    return (
        f'<text class="tick" x="{SIDE}" y="{top + 14}" {HALO}>{_safe(name)}: {label(row.value)}</text>'
        f'<line class="s0" x1="{x(row.lo):.1f}" x2="{x(row.hi):.1f}" y1="{y}" y2="{y}"/>{ends}'
        f'<circle class="d0" cx="{x(row.value):.1f}" cy="{y}" r="4"/>'
    )


def _safe(text: str) -> str:
    return str(escape(visible(text)))
