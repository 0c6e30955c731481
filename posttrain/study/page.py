"""The page of a study: the judgement, learning curves over seconds and tokens, difficulties, and what arms spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from posttrain.drawing import page
from posttrain.drawing.charts import Drawn, Series, draw
from posttrain.reading.compare import in_words
from posttrain.report.intervals import Interval, draw_intervals
from posttrain.study import tables

PLACES = 25
"""Of a curve, at which the seeds are put together."""

ACROSS = {"seconds": "seconds of the hybrid stage", "tokens": "tokens sampled and trained on"}

Curve = Sequence[Mapping[str, float]]


def study_page(judged: Mapping[str, Any]) -> str:
    """The page of what `judge` gives."""
    arms = [arm for arm in judged["arms"] if arm["seeds"]]
    passes = [Interval(arm["name"], arm["pass@1"], *_range(arm)) for arm in arms]
    gains = [Interval(each["arm"], each["difference"], each["lo"], each["hi"]) for each in judged["differences"]]
    charts = [
        draw_intervals("pass@1, mean and range over seeds", passes, page.percent, across="arm") if passes else None,
        draw_intervals(f"Difference from {judged['reference']}, in points", gains, page.points, across="arm", zero=True)
        if gains
        else None,
    ]
    return page.render(
        "posttrain.study",
        "study.html.j2",
        name=judged["name"],
        legend=tables.legend(judged),
        verdicts=tables.verdicts(judged),
        notes=judged["notes"],
        heads=tables.HEADS,
        rows=tables.rows(judged),
        charts=[chart for chart in charts if chart],
        curves={across: _curves(judged, across) for across in ACROSS},
        difficulty=_difficulty(arms),
        spending=tables.spending(judged),
        tried=_tried(judged),
        second=tables.second(judged),
        settings=[(key, [in_words(value) for value in values]) for key, values in judged["settings"].items()],
        arms=[arm["name"] for arm in judged["arms"]],
        failed=[(arm["name"], arm["why"]) for arm in judged["arms"] if arm["why"]],
        tiles=[_tile(each, judged) for each in judged["differences"]],
    )


def _range(arm: Mapping[str, Any]) -> tuple[float, float]:
    values = [each["pass@1"] for each in arm["seeds"]]
    return min(values), max(values)


def _tile(each: Mapping[str, Any], judged: Mapping[str, Any]) -> tuple[str, str, str, str]:
    ends = f"{page.points(each['lo'])} to {page.points(each['hi'])}"
    apart = "" if each["told_apart"] else ", not to be told apart"
    way = ("up" if each["difference"] > 0 else "down") if each["told_apart"] else ""
    return each["arm"], f"{page.points(each['difference'])} points", f"{ends} from {judged['reference']}{apart}", way


def _curves(judged: Mapping[str, Any], across: str) -> list[Drawn]:
    """A chart an arm, with the reference beside it, all on the same axes."""
    found = [mean_curve(arm["name"], arm["curve"], across) for arm in judged["arms"]]
    lines = {line.name: line for line in found if line is not None}
    if not lines:
        return []
    every = [value for line in lines.values() for pair in line.band or [] for value in pair]
    limits = (min(every), max(max(every), min(every) + 0.01))
    span = (0.0, max(line.points[-1][0] for line in lines.values()))
    reference = lines.get(judged["reference"])
    drawn = []
    for name, line in lines.items():
        if len(lines) > 1 and name == judged["reference"]:
            continue
        some = [line] if reference is None or line is reference else [reference, line]
        drawn.append(draw(name, some, across=ACROSS[across], limits=limits, span=span, percent=True))
    return [each for each in drawn if each]


def mean_curve(name: str, seeds: Sequence[Curve], across: str) -> Series | None:
    """The mean over seeds with the lowest and the highest, over as much as all seeds have spent.

    Between its evaluations a seed's line is straight.
    """
    known = [curve for curve in seeds if len(curve) > 1 and curve[-1][across] > 0]
    if not known:
        return None
    end = min(float(curve[-1][across]) for curve in known)
    places = np.linspace(0.0, end, PLACES)
    values = np.array([np.interp(places, [p[across] for p in of], [p["pass@1"] for p in of]) for of in known])
    points = [(float(x), float(y)) for x, y in zip(places, values.mean(axis=0), strict=True)]
    return Series(name, points, [(float(lo), float(hi)) for lo, hi in zip(values.min(0), values.max(0), strict=True)])


def _difficulty(arms: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str], list[tuple[str, list[str]]]]]:
    """By column that problems differ in: its values, and each arm's pass@1 on them."""
    found = []
    for column in dict.fromkeys(column for arm in arms for column in arm["by"]):
        values = list(dict.fromkeys(value for arm in arms for value in arm["by"].get(column, {})))
        if len(values) < 2:
            continue
        rows = [(arm["name"], [page.percent(arm["by"].get(column, {}).get(value)) for value in values]) for arm in arms]
        found.append((column, values, rows))
    return found


def _tried(judged: Mapping[str, Any]) -> list[tuple[str, str, str, str, bool]]:
    """Every point of every grid: arm, setting, pass@1, mean score, whether it was chosen."""
    found = []
    for arm in judged["arms"]:
        for each in arm["tuned"]["tried"]:
            said = ", ".join(f"{key} {in_words(value)}" for key, value in each["point"].items())
            reward = "-" if each["reward"] is None else f"{each['reward']:.3f}"
            chosen = each["point"] == arm["tuned"]["point"]
            found.append((arm["name"], said, page.percent(each["score"]), reward, chosen))
    return found
