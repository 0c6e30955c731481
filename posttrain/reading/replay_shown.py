"""A replay on a terminal, as JSON, and drawn over what happened as a page or a drawing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from posttrain.controllers import Controller
from posttrain.errors import ConfigError
from posttrain.methods import Method
from posttrain.reading.replay import Result
from posttrain.storage import files
from posttrain.watching import terminal
from posttrain.watching.progress import duration
from posttrain.watching.sparkline import sparkline

if TYPE_CHECKING:
    from posttrain.drawing.charts import Drawn

WARNING = (
    "The signals are those of the model that the run trained. Under another mix that model would have moved "
    "differently, and its norms and KL with it: this is the controller's answer to this run's signals, not another run."
)
_STYLE = """<style>
svg { background: #fff; font: 12px system-ui, sans-serif; } text { font-size: 10.5px; fill: #59616b; }
polyline { fill: none; stroke-width: 1.8; } .s0 { stroke: #1a62c6; } .s1 { stroke: #c2570c; stroke-dasharray: 7 2; }
.faint { opacity: .3; stroke-width: 1; } .k0 { fill: #1a62c6; } .k1 { fill: #c2570c; }
.grid { stroke: #dddfe3; } .tip { fill: transparent; }
</style>"""


def check_out(out: str | None) -> None:
    """Refuse a file name that says neither page nor drawing, before any work.

    Raises:
        ConfigError: The name ends in neither .html nor .svg, or its folder is not there.
    """
    if out is None:
        return
    if Path(out).suffix not in (".html", ".svg"):
        raise ConfigError(f"{out!r}", expected="a name that ends in .html or .svg", where="--out")
    if not Path(out).absolute().parent.is_dir():
        raise ConfigError(f"the folder of {out!r} does not exist", where="--out", fix="make it first")


def settings_in_words(controller: Controller | Method, beside: Controller | Method | None = None) -> str:
    """As a recipe would write it; a default is left out, if one `beside` it has not another value."""
    fields = asdict(controller)  # type: ignore[call-overload]
    plain = asdict(type(controller)())  # type: ignore[call-overload]
    other = asdict(beside) if isinstance(beside, type(controller)) else plain  # type: ignore[call-overload]
    differ = [key for key, value in fields.items() if value != plain[key] or value != other[key]]
    named = [f"{key}={fields[key]}" for key in differ]
    return " ".join([controller.name, *named])


def sentences(result: Result) -> list[str]:
    """What the replay shows and what it cannot, one thought each."""
    found, count = [], result.summary["steps"]
    if result.other_than_run:
        at = result.other_than_run
        found.append(
            f"Under the settings of recipe.yaml the replay is NOT the run at {len(at)} of {count} steps, first at step "
            f"{at[0]}: the run went on under changed settings (--accept-changes), or its files are not of one piece."
        )
    else:
        found.append(f"Under the run's own settings the replay gives all {count} decisions as the run took them.")
    if result.controller == result.own:
        return found
    changed, resting, held, unseen = (result.summary[key] for key in ("other_mix", "resting", "held", "unseen"))
    if not changed:
        found.append("Under these settings every step has the mix that it had.")
        return found
    first = result.summary["first_other"]
    found.append(f"{changed} of {count} steps would have another mix, the first of them step {first}.")
    if held:
        found.append(
            f"{held} steps would have measured a signal that the run did not, for its step had not that half: the "
            f"run's last value is held there, and {resting} decisions rest on such a value."
        )
    if unseen:
        found.append(
            f"{unseen} steps would not have measured a signal that the run did: there the replay goes on with the "
            "value that it had."
        )
    found.append(WARNING)
    return found


def show(result: Result, console: Console | None = None) -> None:
    """Print the table, p and the mix of both over the steps, and what to make of it."""
    console = console or terminal.console()
    table = Table(box=box.SIMPLE_HEAD, title=Text(f"{result.run}: {result.summary['steps']} hybrid steps"))
    table.title_justify, table.title_style = "left", "bold"
    for name in ("", "SFT", "GRPO", "both", "mean p", "p by quarter", "time in steps"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=bool(name))
    for name, side, controller in _sides(result):
        time = "?" if side["seconds"] is None else ("" if side is result.summary["run"] else "about ")
        time += "" if side["seconds"] is None else duration(side["seconds"])
        quarters = "-" if side["mean_p"] is None else " ".join(_number(p) for p in side["quarters"])
        counts = [str(side[kind]) for kind in ("sft", "grpo", "both")]
        label = Text(f"{name}: {settings_in_words(controller, result.own)}")
        table.add_row(label, *counts, _number(side["mean_p"]), quarters, time)
    console.print(table)
    kinds = {"sft": "SFT", "grpo": "GRPO", "both": "both"}
    never = [said for kind, said in kinds.items() if result.summary["replay"][kind] and not result.summary["run"][kind]]
    if result.summary["replay"]["seconds"] is None:
        kind = f"the run had no step of the kind {' or '.join(never)}" if never else "the run recorded no seconds"
        console.print(Text(f"time in steps ?: {kind}, so what such a step takes is not known"))
    width = min(console.width - 22, len(result.lines), 120)
    for name, p, share in _curves(result):
        console.print(Text(f"{name:<8}p         {sparkline(p, width, low=0.0, high=1.0)}"), no_wrap=True)
        console.print(Text(f"{'':<8}SFT share {sparkline(share, width, low=0.0, high=1.0)}"), no_wrap=True)
    console.print()
    for sentence in sentences(result):
        console.print(Text(sentence), soft_wrap=not console.is_terminal)


def _sides(result: Result) -> list[tuple[str, dict[str, Any], Controller]]:
    return [("run", result.summary["run"], result.own), ("replay", result.summary["replay"], result.controller)]


def _curves(result: Result) -> list[tuple[str, list[float | None], list[float | None]]]:
    """(name, p, SFT share) over the steps, of the run and of the replay."""
    run = [line.get("mix") or {} for line in result.lines]
    return [
        ("run", [line.get("p") for line in result.lines], [mix.get("sft") for mix in run]),
        ("replay", [each.mix.p for each in result.replayed], [each.mix.sft for each in result.replayed]),
    ]


def as_record(result: Result) -> dict[str, Any]:
    """All of a replay in JSON's types: the summary, the sentences, and every step of both."""
    return {
        "run": result.run,
        "controller": {"run": asdict(result.own), "replay": asdict(result.controller)},  # type: ignore[call-overload]
        "reproduces_run": not result.other_than_run,
        "other_than_run": result.other_than_run,
        **{"summary": result.summary, "sentences": sentences(result)},
        "steps": [
            {
                "step": each.step,
                "run": {"p": line.get("p"), "mix": line.get("mix")},
                "replay": {"p": each.mix.p, "mix": {"sft": each.mix.sft, "grpo": each.mix.grpo}},
                "held": list(each.held),
                "rests_on_held": each.rests_on_held,
                "unseen": list(each.unseen),
                "reason": each.mix.reason,
            }
            for line, each in zip(result.lines, result.replayed, strict=True)
        ],
    }


def write(out: str, result: Result) -> None:
    """Draw the replay over what happened, as a self-contained page or as one drawing, by the name's ending.

    Raises:
        ConfigError: There is no p to draw: neither controller has one.
        CheckpointError: The file could not be written.
    """
    from posttrain.drawing.charts import Series, draw
    from posttrain.drawing.page import render
    from posttrain.drawing.strip import mix_strip

    steps = [float(line["step"]) for line in result.lines]
    curves = [
        Series(name, [(step, value) for step, value in zip(steps, p, strict=True) if value is not None])
        for name, p, _ in _curves(result)
    ]
    chart = draw("p, the chance or share of SFT", curves, across="hybrid step", limits=(0, 1))
    if out.endswith(".svg"):
        files.write_text(Path(out), as_svg(chart, "neither controller has a p"))
        return
    strips = []
    for name, pairs in (
        ("The mix of the run", [(line.get("mix") or {}) for line in result.lines]),
        ("The mix of the replay", [asdict(each.mix) for each in result.replayed]),
    ):
        shares = [
            (step, float(mix.get("sft") or 0), float(mix.get("grpo") or 0))
            for step, mix in zip(steps, pairs, strict=True)
        ]
        strips.append(mix_strip(name, shares))
    sides = [
        (
            name,
            settings_in_words(controller, result.own),
            {**side, "time": side["seconds"] and duration(side["seconds"])},
        )
        for name, side, controller in _sides(result)
    ]
    page = render(
        "posttrain.reading",
        "replay.html.j2", name=result.run, sides=sides, chart=chart, strips=strips, sentences=sentences(result),
        steps=len(steps),
    )  # fmt: skip
    files.write_text(Path(out), page)


def as_svg(chart: Drawn | None, without: str) -> str:
    """A chart as a drawing of its own, with its legend.

    Raises:
        ConfigError: There is none, for what `without` says.
    """
    if chart is None:
        raise ConfigError(without, expected="one to draw", where="--out", fix="name FILE.html")
    head, rest = str(chart.svg).split(">", 1)
    legend = "".join(f'<text class="k{i}" x="{60 + 40 * i}" y="8">{name}</text>' for i, name in enumerate(chart.names))
    drawing = rest.removesuffix("</svg>") + legend + "</svg>"
    return f'{head} xmlns="http://www.w3.org/2000/svg">{_STYLE}{drawing}\n'


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
