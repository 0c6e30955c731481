"""The page of `posttrain compare`: runs side by side, and the problems that one solves and the other does not."""

from __future__ import annotations

from typing import Any

from posttrain.drawing import page
from posttrain.reading.compare import CLEAR, in_words
from posttrain.reading.compare_spending import spending_in_words
from posttrain.report.intervals import Interval, draw_intervals

FLIPS_SHOWN = 50
"""Of each kind and run; the page says how many there are in all."""


def compare_page(compared: dict[str, Any]) -> str:
    """The page of what `compare.compare` gives, each of its runs with the sentences of its weights as `weights`."""
    runs, differences = compared["runs"], compared["differences"]
    passes = [Interval(run["name"], run["pass@1"], *run["ci95"]) for run in runs]
    gains = [Interval(each["run"], each["difference"], each["lo"], each["hi"]) for each in differences]
    charts = [
        draw_intervals("pass@1, held out, with 95 % intervals", passes, lambda share: f"{100 * share:.1f} %"),
        draw_intervals(f"Difference from {compared['baseline']}, in points", gains, page.points, zero=True),
    ]
    ks = list(dict.fromkeys(k for run in runs for k in run["pass@k"]))
    return page.render(
        "posttrain.report",
        "compare.html.j2",
        baseline=compared["baseline"],
        runs=runs,
        differences=[
            each | {"shown": _shown(each["flips"]), "is_clear": each["p_holm"] < CLEAR} for each in differences
        ],
        charts=charts,
        ks=ks,
        several=len(differences) > 1,
        spending=[spending_in_words(run["spent"]) for run in runs],
        settings=[(key, [in_words(value) for value in values]) for key, values in compared["settings"].items()],
        warnings=compared["warnings"],
    )


def _shown(flips: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kinds = (("regression", "Regressions"), ("win", "Wins"))
    found = [(heading, kind, [flip for flip in flips if flip["kind"] == kind]) for kind, heading in kinds]
    return [{"heading": h, "kind": k, "all": len(of), "flips": of[:FLIPS_SHOWN]} for h, k, of in found]
