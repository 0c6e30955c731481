"""What `scaling.py` measured, as markdown tables and a drawing, and how well the cost model predicts what it was not
fitted to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from posttrain.planning.cost import leave_one_out, read_measured

MIB = 2**20
AXES = {"length": "longest", "group": "group", "size": "size"}
"""Axes that are tables, and the field of a point that varies."""


def tables(raw: dict[str, Any], path: Path) -> str:
    """All tables as markdown.

    Args:
        raw: What the file of points holds.
        path: That file.
    """
    axes = [_axis(raw, axis) for axis in AXES]
    return "\n\n".join([raw["machine"], *axes, _predictions(path)])


def _axis(raw: dict[str, Any], axis: str) -> str:
    columns = _columns(raw, axis)
    head = [
        {"length": "longest completion", "group": "G", "size": "parameters"}[axis], "completions",
        "training: tokens/s", "MiB", "TRL's: tokens/s", "MiB", "generation: tokens/s", "MiB",
    ]  # fmt: skip
    rows = []
    for at, found in columns.items():
        ours = found["training", "ours"]
        label = f"{ours['shape']['parameters'] / 1e6:.1f} M" if axis == "size" else f"{at:,}"
        cells = [label, str(ours["point"]["rows"])]
        for key in (("training", "ours"), ("training", "TRL"), ("generation", "ours")):
            entry = found.get(key)
            cells += [f"{rate(entry):,.0f}", f"{entry['peak'] / MIB:,.0f}"] if entry else ["", ""]
        rows.append(cells)
    return _table(head, rows)


def _columns(raw: dict[str, Any], axis: str) -> dict[Any, dict[tuple[str, str], dict[str, Any]]]:
    """Measurements of an axis: by the value that varies, then by part and trainer."""
    columns: dict[Any, dict[tuple[str, str], dict[str, Any]]] = {}
    for entry in raw["points"]:
        point = entry["point"]
        if point["axis"] == axis:
            columns.setdefault(point[AXES[axis]], {})[point["part"], point["trainer"]] = entry
    return {at: found for at, found in columns.items() if ("training", "ours") in found}


def rate(entry: dict[str, Any]) -> float:
    """Completion tokens per computing second."""
    return float(entry["tokens"] / entry["seconds"])


def _predictions(path: Path) -> str:
    _, points = read_measured(path)
    rows, off = [], {}
    for point, (seconds, peak) in zip(points, leave_one_out(points), strict=True):
        error = seconds / point.seconds - 1
        off.setdefault((point.part, "s"), []).append(error)
        cells = [point.part, point.name, f"{point.seconds:.3g}", f"{seconds:.3g}", f"{error:+.0%}"]
        if peak is not None and point.peak:
            error = peak / point.peak - 1
            off.setdefault((point.part, "MiB"), []).append(error)
            cells += [f"{point.peak / MIB:,.0f}", f"{peak / MIB:,.0f}", f"{error:+.0%}"]
        rows.append([*cells, *[""] * (8 - len(cells))])
    head = ["part", "left out", "s", "predicted", "off", "MiB", "predicted", "off"]
    summary = [
        [part, unit, str(len(errors)), f"{median(map(abs, errors)):.0%}", f"{max(map(abs, errors)):.0%}"]
        for (part, unit), errors in off.items()
    ]
    return _table(["part", "of", "points", "off, median", "off, worst"], summary) + "\n\n" + _table(head, rows)


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


STYLE = """
text { font: 12px system-ui, sans-serif; fill: #444 } .title { font-weight: 600; fill: #222 } .back { fill: #fff }
.grid { stroke: #8884; stroke-width: 1 } polyline { fill: none; stroke-width: 2 }
.s0 { stroke: #2563eb } .s1 { stroke: #d97706 } .s2 { stroke: #059669 }
.d0 { fill: #2563eb } .d1 { fill: #d97706 } .d2 { fill: #059669 }
@media (prefers-color-scheme: dark) {
text { fill: #bbb } .title { fill: #eee } .back { fill: #16181d }
.s0 { stroke: #7aa7ff } .s1 { stroke: #f6b44b } .s2 { stroke: #43d39e }
.d0 { fill: #7aa7ff } .d1 { fill: #f6b44b } .d2 { fill: #43d39e } }
"""
SERIES = {
    ("training", "ours"): "training",
    ("training", "TRL"): "training, TRL's own",
    ("generation", "ours"): "generation",
}
TITLES = {"length": "longest completion, tokens", "group": "completions per prompt (G)", "size": "parameters"}
WIDTH, HEIGHT, TOP = 960, 560, 40
LEFT, RIGHT, ABOVE, BELOW = 52, 24, 26, 42


@dataclass(frozen=True)
class Panel:
    """A plot with logarithmic axes in a corner of the drawing."""

    x: float
    y: float
    width: float
    height: float
    xs: tuple[float, float]
    ys: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point is in the drawing."""
        across = _part(x, *self.xs) * (self.width - LEFT - RIGHT)
        up = _part(y, *self.ys) * (self.height - ABOVE - BELOW)
        return self.x + LEFT + across, self.y + self.height - BELOW - up


def drawing(raw: dict[str, Any]) -> str:
    """Three axes beside each other, rates above and memory below, as SVG text for light and dark pages."""
    parts = [f'<rect class="back" width="{WIDTH}" height="{HEIGHT}" rx="6"/>', _legend()]
    width, height = WIDTH / 3, (HEIGHT - TOP) / 2
    for row, (title, value) in enumerate(
        (("tokens per second", rate), ("peak memory, MiB", lambda entry: entry["peak"] / MIB))
    ):
        lines = {axis: _lines(raw, axis, value) for axis in AXES}
        every = [y for found in lines.values() for line in found.values() for _, y in line]
        for column, (axis, found) in enumerate(lines.items()):
            places = [x for line in found.values() for x, _ in line]
            if not places:
                continue
            limits = (min(every) / 1.2, max(every) * 1.2)
            panel = Panel(
                column * width, TOP + row * height, width, height, (min(places) / 1.1, max(places) * 1.1), limits
            )
            parts.append(_panel(panel, title, TITLES[axis], found, sorted(set(places))))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
    label = "Tokens per second and peak memory against completion length, group size and model size"
    return f'{head} aria-label="{label}">\n<style>{STYLE}</style>\n' + "\n".join(parts) + "\n</svg>\n"


def _lines(raw: dict[str, Any], axis: str, value: Any) -> dict[int, list[tuple[float, float]]]:
    """Points of each series by its number."""
    lines: dict[int, list[tuple[float, float]]] = {}
    for at, found in _columns(raw, axis).items():
        x = float(found["training", "ours"]["shape"]["parameters"] if axis == "size" else at)
        for number, key in enumerate(SERIES):
            if key in found:
                lines.setdefault(number, []).append((x, value(found[key])))
    return lines


def _panel(panel: Panel, title: str, below: str, lines: dict[int, Any], places: list[float]) -> str:
    left, right = panel.x + LEFT, panel.x + panel.width - RIGHT
    parts = [f'<text class="title" x="{left}" y="{panel.y + 14}">{title}</text>']
    for tick in _ticks(*panel.ys):
        y = panel.at(panel.xs[0], tick)[1]
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{_short(tick)}</text>')
    bottom = panel.y + panel.height - BELOW
    for place in places:
        x = panel.at(place, panel.ys[0])[0]
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{_short(place)}</text>')
    parts.append(f'<text x="{(left + right) / 2}" y="{bottom + 33:.1f}" text-anchor="middle">{below}</text>')
    for number, line in lines.items():
        dots = [panel.at(*point) for point in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
        parts.append(f'<polyline class="s{number}" points="{path}"/>')
        parts += [
            f'<circle class="d{number}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{_short(at)}: {value:,.0f}</title>'
            "</circle>"
            for (x, y), (at, value) in zip(dots, line, strict=True)
        ]
    return "\n".join(parts)


def _legend() -> str:
    parts = []
    for number, name in enumerate(SERIES.values()):
        x = LEFT + number * 190
        parts.append(f'<line class="s{number}" stroke-width="2" x1="{x}" x2="{x + 22}" y1="20" y2="20"/>')
        parts.append(f'<circle class="d{number}" cx="{x + 11}" cy="20" r="3.5"/>')
        parts.append(f'<text x="{x + 29}" y="24">{name}</text>')
    return "\n".join(parts)


def _part(value: float, low: float, high: float) -> float:
    return math.log(value / low) / math.log(high / low)


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, or the powers alone where those are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if math.log10(high / low) < 2.2 else (1,)
    return [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]


def _short(value: float) -> str:
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if value >= unit:
            return f"{value / (1e3 if name == 'k' else unit):.3g}{name}"
    return f"{value:g}"
