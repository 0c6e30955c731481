"""The mix of a run as a strip of columns over its steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from posttrain.drawing.charts import Drawn, svg_of
from posttrain.drawing.scale import WIDTH, number
from posttrain.drawing.steps import StepNames

Share = tuple[float, float, float]
HEIGHT = 40
MOST_STEPS = 1200  # that a strip shows one by one
COLUMNS = 120  # of a longer run: each of so many steps that its height is read as a share
ROWS = 20


def mix_strip(title: str, steps: Sequence[Share], *, boundary: float | None = None) -> Drawn | None:
    """The shares (step, sft, grpo) as columns over steps, SFT below and GRPO above; None when there are no steps.

    Up to `MOST_STEPS` a column is one step, all of one colour where the step was of one loss; beyond, `Drawn.note` says
    how many it is. The drawing has no labels and stretches to any shape.

    Args:
        title: What the strip shows.
        steps: By rising step.
        boundary: The place of the warm-up's last step.
    """
    if not steps:
        return None
    first, last, names = steps[0][0], steps[-1][0], StepNames(boundary)
    size = 1 if len(steps) <= MOST_STEPS else math.ceil(len(steps) / COLUMNS)
    bins = [steps[start : start + size] for start in range(0, len(steps), size)]
    rows = _rows(steps, names)
    wide = WIDTH / len(rows)
    parts = _columns([_sft_share(group) for group in bins])
    parts += [
        f'<rect class="tip" x="{index * wide:.1f}" width="{wide:.1f}" y="0" height="{HEIGHT}">'
        f"<title>{'step ' if boundary is None else ''}{row[0]}: {row[1]} SFT</title></rect>"
        for index, row in enumerate(rows)
    ]
    if boundary is not None and first < boundary < last:
        x = WIDTH * sum(group[0][0] <= boundary for group in bins) / len(bins)
        parts.append(f'<line class="edge" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{HEIGHT}"/>')
    mean = _sft_share(steps)
    words = f"Steps {names.several(first, last)}: " + (
        "no update" if mean is None else f"{number(mean, True)} SFT, {number(1 - mean, True)} GRPO"
    )
    note = f"Each column is {size} steps, and its colours are their shares." if size > 1 else ""
    svg = svg_of(title, words, parts, HEIGHT, 'preserveAspectRatio="none"')
    return Drawn(title, svg, ["SFT", "GRPO"], "Steps", rows, note)


def _columns(shares: Sequence[float | None]) -> list[str]:
    """The columns as a path a colour, neighbours that are alike as one. SFT lies whole under GRPO: no seams."""
    column, at = WIDTH / len(shares), 0
    sft = grpo = ""
    for is_there, stretch in groupby(shares, key=lambda share: share is not None):
        cells = list(stretch)
        if is_there:
            known = [share for share in cells if share is not None]
            sft += _box(at * column, len(cells) * column, HEIGHT) if any(known) else ""
            place = at
            for share, same in groupby(known):
                count = len(list(same))
                grpo += _box(place * column, count * column, HEIGHT * (1 - share))
                place += count
        at += len(cells)
    return [f'<path class="{name}" d="{path}"/>' for name, path in (("f0", sft), ("f1", grpo)) if path]


def _sft_share(steps: Sequence[Share]) -> float | None:
    sft, grpo = sum(step[1] for step in steps), sum(step[2] for step in steps)
    return sft / (sft + grpo) if sft + grpo else None


def _box(x: float, wide: float, tall: float) -> str:
    return f"M{x:.2f} 0h{wide:.2f}v{tall:.2f}h-{wide:.2f}z" if tall else ""


def _rows(steps: Sequence[Share], names: StepNames) -> list[list[str]]:
    size = math.ceil(len(steps) / ROWS)
    rows = []
    for start in range(0, len(steps), size):
        group = steps[start : start + size]
        share = _sft_share(group)
        cells = ["none", "none"] if share is None else [number(share, True), number(1 - share, True)]
        rows.append([names.several(group[0][0], group[-1][0]), *cells])
    return rows
