"""The last lines of a run: what came of it, how long it took, and what to do next."""

from __future__ import annotations

import shlex

from posttrain.report.tables import before_after, headline
from posttrain.rundir.layout import Layout
from posttrain.storage.files import read_lines
from posttrain.watching.progress import duration


def outcome(layout: Layout, seconds: float) -> list[str]:
    """Lines to end a run with.

    Args:
        layout: The run's directory.
        seconds: That this start of it took.
    """
    where = shlex.quote(str(layout.path))
    return [
        *_scores(layout),
        f"done: model in {layout.model}, report in {layout.report_file}, after {duration(seconds)}",
        f"go on: posttrain explain {where} | posttrain view {where} --worst | posttrain export {where} --to FOLDER",
    ]


def _scores(layout: Layout) -> list[str]:
    """pass@1 of each stage, and by how much the last one is better than what it began from."""
    table = before_after(layout, read_lines(layout.eval_file))
    found = headline(table)
    if found is None:
        return []
    way = " -> ".join(f"{row['pass@1']:.1%} {row['name'].lower()}" for row in table if row["stage"] != "hybrid")
    change = found["change"]
    return [
        f"pass@1: {way}; {100 * change['difference']:+.1f} points since the {found['before']['name'].lower()} "
        f"(95 % interval {100 * change['lo']:+.1f} to {100 * change['hi']:+.1f}, the same {change['n']} problems)"
    ]
