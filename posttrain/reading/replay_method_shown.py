"""A method's replay on a terminal, as JSON, and drawn over what happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from posttrain.drawing.page import visible
from posttrain.reading.replay_method import COUNTED, MethodResult, Taken
from posttrain.reading.replay_shown import as_svg, settings_in_words
from posttrain.storage import files
from posttrain.watching import terminal
from posttrain.watching.sparkline import sparkline

WARNING = (
    "The rewards are those of the rollouts that the run sampled. Trained on otherwise, the model would have sampled "
    "others: this is the method's answer to this run's groups, not another run."
)
NAMES = {
    "demonstrations": "demonstrations", "demonstration_tokens": "their tokens", "waits": "begin to wait",
    "gate_open": "gate open",
    "rollouts": "rollouts with an advantage", "begun_rows": "begun rollouts", "begun_tokens": "begun tokens",
}  # fmt: skip


def sentences(result: MethodResult) -> list[str]:
    """What the replay shows and what it cannot, one thought each."""
    told = result.summary()
    count, groups = told["steps"], told["groups"]
    if result.other_than_run:
        found = [
            f"Under the settings of recipe.yaml the method does NOT decide as recorded at {len(result.other_than_run)} "
            f"of {count} steps that sampled, first at step {result.other_than_run[0]}: the run went on under changed "
            "settings (--accept-changes), or its files are not of one piece."
        ]
    else:
        found = [
            f"Under the run's own settings the method decides on all {groups} groups of {count} steps as it did in the "
            "run."
        ]
    if result.method == result.own:
        return found
    if not told["other_groups"]:
        return [*found, "Under these settings every group would have been treated as it was."]
    found.append(
        f"{told['other_groups']} of {groups} groups would be treated otherwise, at {told['other_steps']} of {count} "
        f"steps, the first of them step {told['first_other']}."
    )
    run, replay = told["run"], told["replay"]
    if run["demonstrations"] != replay["demonstrations"]:
        found.append(
            f"{replay['demonstrations']} demonstrations of {replay['demonstration_tokens']:,} tokens would be trained "
            f"on whole, instead of {run['demonstrations']} of {run['demonstration_tokens']:,}."
        )
    if run["begun_tokens"] != replay["begun_tokens"]:
        found.append(
            f"{replay['begun_rows']} rollouts would begin with {replay['begun_tokens']:,} tokens of demonstrations in "
            f"all, instead of {run['begun_rows']} with {run['begun_tokens']:,}; their rewards would be others."
        )
    return [*found, WARNING]


def _sides(result: MethodResult) -> list[tuple[str, str, dict[str, Any]]]:
    told = result.summary()
    return [
        ("run", settings_in_words(result.own, result.own), told["run"]),
        ("replay", settings_in_words(result.method, result.own), told["replay"]),
    ]


def _cell(name: str, value: Any) -> str:
    return "-" if value is None else f"{value:.0%}" if name == "gate_open" else f"{value:,}"


def show(result: MethodResult, console: Console | None = None) -> None:
    """Print both sides in numbers, what became of groups, the curves, and what to make of it."""
    console, told = console or terminal.console(), result.summary()
    sides = _sides(result)
    shown = [name for name in NAMES if any(numbers[name] for _, _, numbers in sides)]
    title = f"{result.run}: {told['groups']} groups of {told['steps']} steps, {told['paired']} with a demonstration"
    table = Table(box=box.SIMPLE_HEAD, title=Text(visible(title)))
    table.title_justify, table.title_style = "left", "bold"
    table.add_column("", no_wrap=True)
    for name in shown:
        table.add_column(NAMES[name], justify="right")
    for side, settings, numbers in sides:
        table.add_row(Text(f"{side}: {settings}"), *(_cell(name, numbers[name]) for name in shown))
    console.print(table)
    for side, _, numbers in sides[: 1 if result.method == result.own else 2]:
        for reason, count in sorted(numbers["reasons"].items()):
            if reason:
                console.print(Text(visible(f"{side:<8}{count:>6,} groups: {reason}")), soft_wrap=True)
    width = min(console.width - 30, len(result.taken), 120)
    for name, series in _curves(result).items():
        for side, values in series:
            console.print(Text(f"{side:<8}{name:<21} {sparkline(values, width, low=0.0, high=1.0)}"), no_wrap=True)
    console.print()
    for sentence in sentences(result):
        console.print(Text(visible(sentence)), soft_wrap=not console.is_terminal)


def _curves(result: MethodResult) -> dict[str, list[tuple[str, list[float | None]]]]:
    """By what is drawn: the run's and the replay's shares by step."""
    found: dict[str, list[tuple[str, list[float | None]]]] = {}
    sides = [("run", result.taken), ("replay", result.replayed)]
    for name, share in (("demonstrations", _trained_share), ("begun tokens", _begun_share)):
        values = [(side, [share(each) for each in taken]) for side, taken in sides]
        if any(value for _, of in values for value in of):
            found[name] = values
    return found


def _trained_share(taken: Taken) -> float | None:
    """Of the groups with a demonstration, those that train on it whole."""
    paired = sum(length > 0 for length in taken.lengths)
    return taken.counts["demonstrations"] / paired if paired else None


def _begun_share(taken: Taken) -> float | None:
    """Of the demonstrations' tokens, those that rollouts begin with, on average over the rollouts."""
    pairs = [(sum(of), length * len(of)) for of, length in zip(taken.begun, taken.lengths, strict=True) if length]
    return sum(tokens for tokens, _ in pairs) / sum(most for _, most in pairs) if pairs else None


def as_record(result: MethodResult) -> dict[str, Any]:
    """All of a replay in JSON's types: the summary, the sentences, and every step of both."""
    return {
        "run": result.run,
        "method": {"run": asdict(result.own), "replay": asdict(result.method)},  # type: ignore[call-overload]
        "reproduces_run": not result.other_than_run,
        "other_than_run": result.other_than_run,
        "summary": result.summary(),
        "sentences": sentences(result),
        "steps": [
            {"step": one.step, "run": _step(one), "replay": _step(two), "other_groups": one.others(two)}
            for one, two in zip(result.taken, result.replayed, strict=True)
        ],
    }


def _step(taken: Taken) -> dict[str, Any]:
    return {"groups": taken.groups, **{name: taken.counts[name] for name in (*COUNTED, "rollouts", "waits")}}


def write(out: str, result: MethodResult) -> None:
    """Draw the replay over what happened, as a self-contained page or as one drawing, by the name's ending.

    Raises:
        ConfigError: There is nothing to draw.
        CheckpointError: The file could not be written.
    """
    from posttrain.drawing.page import render

    charts = _charts(result)
    if out.endswith(".svg"):
        files.write_text(Path(out), as_svg(charts[0] if charts else None, "no demonstration in either"))
        return
    told = result.summary()
    sides = _sides(result)
    shown = [name for name in NAMES if any(numbers[name] for _, _, numbers in sides)]
    rows = [
        (side, settings, [_cell(name, numbers[name]) for name in shown], sorted(numbers["reasons"].items()))
        for side, settings, numbers in sides
    ]
    page = render(
        "posttrain.reading", "replay_method.html.j2", name=result.run, told=told, rows=rows, charts=charts,
        columns=[NAMES[name] for name in shown], sentences=sentences(result),
    )  # fmt: skip
    files.write_text(Path(out), page)


def _charts(result: MethodResult) -> Sequence[Any]:
    from posttrain.drawing.charts import Series, draw

    titles = {
        "demonstrations": ("Groups whose demonstration is trained on whole", "of those with one"),
        "begun tokens": ("What rollouts begin with", "of their demonstrations' tokens"),
    }
    steps = [float(each.step) for each in result.taken]
    charts = []
    for name, series in _curves(result).items():
        title, unit = titles[name]
        lines = [
            Series(side, [(at, value) for at, value in zip(steps, values, strict=True) if value is not None])
            for side, values in series
        ]
        charts.append(draw(title, lines, across="hybrid step", limits=(0, 1), percent=True, unit=unit))
    return [chart for chart in charts if chart]
