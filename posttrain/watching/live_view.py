"""The frame that a terminal shows of a run: a pure function of a `LiveState`, a width and a height.

What has no room is left out, the completions first and the bars never. Text is given to rich as `Text`, which has no
markup; `live.safe` has taken from it what a terminal would obey.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from posttrain.watching.live import CURVES, Bar, LiveState, Shown, figure
from posttrain.watching.sparkline import sparkline

NAMES = {"sft_norm": "SFT norm", "grpo_norm": "GRPO norm", "kl": "KL"}
"""How the keys of curves are shown, where not as they are."""

NARROW = 48
"""Columns below which there are bars only."""

RANGE, LEAST_SPARK = 16, 20
"""Columns of a curve's least and greatest value, and those that its course keeps beside them."""

TWO_COLUMNS = 96
"""Columns from which curves stand in two columns, and completions side by side."""

LOWEST_PANEL, HIGHEST_PANEL = 5, 10
"""Lines of a completion's panel, its border included."""


def frame(state: LiveState, width: int, height: int, *, final: bool = False) -> RenderableType:
    """Draw a run.

    Args:
        state: What is known of it.
        width, height: Of the terminal, in columns and lines; what is drawn takes one line less, for the cursor.
        final: The frame that stays when the run has ended, which has no completions.
    """
    room = height - 1 - len(state.bars)
    parts: list[RenderableType] = []
    curves = _curves(state, width) if state.stage and width >= NARROW else None
    if curves is not None and room >= curves.row_count + 2:
        parts += [Text(), curves, _why(state)]
        room -= curves.row_count + 2
        if len(state.by_source) > 1 and room > 0:
            parts.append(_line("reward: " + ", ".join(f"{n} {figure(v)}" for n, v in state.by_source.items()), "dim"))
            room -= 1
        for alarm in state.alarms[-min(3, max(room, 0)) :] if room > 0 else []:
            parts.append(_line(f"! {alarm}", "yellow"))
            room -= 1
        if not final:
            parts += _completions(state, width, room)
    bars = [replace(bar, left="") if final and bar.step < bar.total else bar for bar in state.bars]
    return Group(_bars(bars, state.stage if parts else "", width), *parts)


def _bars(bars: Sequence[Bar], in_curves: str, width: int) -> Table:
    """The stages; the figures of the one that the curves show are left to them."""
    if not bars:
        return Table.grid()
    names, counts = max(cell_len(bar.name) for bar in bars), max(len(_count(bar)) for bar in bars)
    left = width - names - counts - 3  # for bars and details, and the gaps between columns
    bar_width = min(24, left // 2)
    table = Table.grid(padding=(0, 1))
    table.add_column(width=names, no_wrap=True)
    table.add_column(width=bar_width)
    table.add_column(width=counts, no_wrap=True, justify="right")
    table.add_column(width=max(left - bar_width, 1), no_wrap=True, overflow="ellipsis")
    for bar in bars:
        done = ProgressBar(total=max(bar.total, 1), completed=bar.step if bar.total else 1)
        figures = "" if bar.name == in_curves else bar.figures
        detail = " · ".join(part for part in (figures, bar.left) if part)
        table.add_row(Text(bar.name, "bold"), done if bar_width > 3 else "", Text(_count(bar)), Text(detail))
    return table


def _count(bar: Bar) -> str:
    return f"{bar.step}/{bar.total}"


def _curves(state: LiveState, width: int) -> Table:
    """A line for each curve: its name, its course from 0 up, its latest value, and where it fits, the range."""
    columns = 2 if width >= TWO_COLUMNS else 1
    name_width, value_width = 9, 8
    spark_width = width // columns - name_width - value_width - 4
    range_width = RANGE if spark_width - RANGE - 1 >= LEAST_SPARK else 0
    spark_width -= range_width and range_width + 1
    table = Table.grid(padding=(0, 1))
    for _ in range(columns):
        table.add_column(width=name_width, no_wrap=True)
        table.add_column(width=spark_width, no_wrap=True)
        table.add_column(width=value_width + 1, no_wrap=True)
        if range_width:
            table.add_column(width=range_width, no_wrap=True)
    cells: list[Text] = []
    for name in CURVES:
        curve = state.curves[name]
        latest = "-" if curve.latest is None else figure(float(curve.latest))
        seen = [value for value in curve.points if value is not None and math.isfinite(value)]
        # On a scale of its own noise would look like a collapse
        low, high = min([0.0, *seen]), 1.0 if name == "p" else max(seen, default=0.0)
        course = sparkline(curve.points, spark_width, low=low, high=high)
        cells += [Text(NAMES.get(name, name)), Text(course, "cyan"), Text(latest, "bold")]
        if range_width:
            cells.append(Text(f"{figure(min(seen))}..{figure(max(seen))}" if seen else "", "dim"))
    across = len(table.columns)
    for start in range(0, len(cells), across):
        table.add_row(*cells[start : start + across])
    return table


def _why(state: LiveState) -> Text:
    mix = figure(state.mix) if state.mix else "?"
    return _line(f"step {state.step}: mix {mix}" + (f", {state.reason}" if state.reason else ""), "dim")


def _completions(state: LiveState, width: int, room: int) -> list[RenderableType]:
    """The panels of the latest completions under a line that says whose they are, as many as there is room for."""
    if room < 1:
        return []
    if not state.completions:
        why = (
            "no completions: the warm-up trains on demonstrations" if state.stage == "warmup" else "no completions yet"
        )
        return [_line(why, "dim")]
    heading = f"completions of step {state.completions_step}"
    if not state.mix.get("grpo"):
        heading += "; an SFT step samples none"
    beside = width >= TWO_COLUMNS
    count = min(len(state.completions), width // (TWO_COLUMNS // 2) if beside else (room - 1) // LOWEST_PANEL)
    height = min(HIGHEST_PANEL, (room - 1) if beside else (room - 1) // max(count, 1))
    if count < 1 or height < LOWEST_PANEL:
        return [_line(heading, "dim")]
    # The best and the worst say more than what is between them
    chosen = state.completions[: count - 1] + state.completions[-1:] if count > 1 else state.completions[:1]
    panels = [_panel(each, height) for each in chosen]
    if not beside:
        return [_line(heading, "dim"), *panels]
    row = Table.grid(expand=True)
    for _ in panels:
        row.add_column(ratio=1)
    row.add_row(*panels)
    return [_line(heading, "dim"), row]


def _panel(shown: Shown, height: int) -> Panel:
    scores = ", ".join(f"{name} {figure(value)}" for name, value in shown.scores.items()) or "not scored"
    body: list[RenderableType] = [_line(shown.note, "italic")] if shown.note else []
    if shown.prompt:
        body.append(_line(shown.prompt, "dim"))
    text = shown.text + (" [cut off]" if shown.truncated else "")
    body.append(_Clipped(Text(text, overflow="fold"), height - 2 - len(body)))
    good = shown.total > 0
    return Panel(
        Group(*body), title=Text(scores), title_align="left", height=height, border_style="green" if good else "red"
    )


def _line(text: str, style: str = "") -> Text:
    """Text of one line, cut off where the width ends."""
    return Text(text, style, no_wrap=True, overflow="ellipsis", end="\n")


class _Clipped:
    """A text's first lines, and a sign where there are more."""

    def __init__(self, text: Text, height: int):
        self._text, self._height = text, max(height, 1)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        lines = console.render_lines(self._text, options.update(height=None), pad=False)
        clipped = len(lines) > self._height
        for place, line in enumerate(lines[: self._height]):
            last = clipped and place == self._height - 1
            yield from Segment.adjust_line_length(line, options.max_width - 2, pad=False) if last else line
            if last:
                yield Segment(" …")
            yield Segment.line()
