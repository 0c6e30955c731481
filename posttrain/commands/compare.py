"""`posttrain compare`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from posttrain.reading.compare_weights import Change

EXAMPLES = """examples:
  posttrain compare runs/sft runs/mix
  posttrain compare runs/sft runs/mix runs/grpo --html compare.html
  posttrain compare runs/a runs/b --stage warmup --json
"""
LONGEST = 300  # characters of one cell
LEGEND = (
    "differences are in points over the problems that both runs have, with paired 95 % bootstrap intervals over "
    "problems; a win was wrong in the baseline and is right, a regression or negative flip was right and is wrong, and "
    "the negative flip rate is its share of all problems, and (mc) with those that went from one wrong answer to "
    "another, as MUSCLE counts multiple choice; McNemar p is the exact test of the flips"
)


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "compare",
        help="runs against each other, problem by problem",
        description="Compare runs on the held-out problems they share: pass@1 with the paired interval of the "
        "difference, wins and regressions, by difficulty; time, tokens, weights changed, and settings that differ.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="directories of runs; the first is the baseline")
    parser.add_argument(
        "--stage",
        choices=["start", "warmup", "hybrid", "averaged", "final"],
        help="whose last evaluation is compared (default: the final one, or the last of an unfinished run)",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON, the flips included")
    parser.add_argument("--html", metavar="FILE", help="write a page with the flipped completions side by side")
    parser.add_argument("--no-weights", action="store_true", help="don't read the weights: how much of them changed")
    parser.add_argument(
        "--layers", action="store_true", help="the rank of each layer's change, too: a decomposition of every matrix"
    )
    parser.add_argument(
        "--geometry", type=int, metavar="N", default=0,
        help="RankMe and alpha-ReQ of the last token of so many held-out prompts: loads the models",
    )  # fmt: skip
    parser.set_defaults(command=_compare)
    return parser


def _compare(args: argparse.Namespace) -> int:
    from posttrain.reading.compare import compare
    from posttrain.storage import files

    compared = compare(args.runs, args.stage)
    if not args.no_weights:
        for run, path in zip(compared["runs"], args.runs, strict=True):
            run["weights"] = _weights(path)
    for run, path in zip(compared["runs"], args.runs, strict=True):
        if args.layers:
            run["layers"] = _layers(path)
        if args.geometry:
            run["geometry"] = _geometry(path, args.geometry)
    if args.html:
        from posttrain.report.compare_page import compare_page

        runs = [run | {"weights": probes_in_words(run)} for run in compared["runs"]]
        files.write_text(Path(args.html), compare_page(compared | {"runs": runs}))
    if args.json:
        print(json.dumps(files.plain(compared), ensure_ascii=False, indent=2))
        return 0
    from posttrain.watching.terminal import console

    show(compared, console())
    if args.html:
        print(f"page: {args.html}")
    return 0


def _weights(path: str) -> dict[str, Any]:
    from dataclasses import asdict

    from posttrain.reading.compare_weights import run_changes
    from posttrain.rundir.reading import open_run

    found = run_changes(open_run(path))
    return {since: change if isinstance(change, str) else asdict(change) for since, change in found.items()}


def _layers(path: str) -> dict[str, Any] | str:
    from dataclasses import asdict

    from posttrain.reading.compare_layers import layer_changes
    from posttrain.rundir.reading import open_run

    found = layer_changes(open_run(path))
    return found if isinstance(found, str) else {str(number): asdict(layer) for number, layer in found.items()}


def _geometry(path: str, count: int) -> dict[str, Any]:
    """Of the warmed-up and the final model, on the prompts of the run's last evaluation."""
    from dataclasses import asdict

    from posttrain.evaluation.geometry import geometry
    from posttrain.rundir import reading

    layout = reading.open_run(path)
    prompts = list(dict.fromkeys(prompt for _, prompt in reading.eval_results(layout, columns=[])))[:count]
    trusted = bool((reading.recipe(layout).get("model") or {}).get("trust_remote_code"))
    models = {"the warm-up": layout.warmup_model, "the end": layout.model}
    return {
        at: asdict(geometry(folder, prompts, trust_remote_code=trusted))
        for at, folder in models.items()
        if folder.is_dir() and prompts
    }


def probes_in_words(run: dict[str, Any]) -> dict[str, str]:
    """What became of a run's weights, and of its representations where that was asked for."""
    from posttrain.reading.compare_layers import LayerChange, layers_in_words

    found = weights_in_words(run.get("weights") or {})
    if layers := run.get("layers"):
        told = layers if isinstance(layers, str) else {int(key): LayerChange(**layer) for key, layer in layers.items()}
        found["The change by layer"] = layers_in_words(told)
    for at, measured in (run.get("geometry") or {}).items():
        slope = "-" if measured["alpha_req"] is None else f"{measured['alpha_req']:.3g}"
        found[f"Representations at {at}"] = (
            f"RankMe {measured['rankme']:.4g}, alpha-ReQ {slope} (singular values and covariance eigenvalues of the "
            f"last token of {measured['prompts']} prompts)"
        )
    return found


def weights_in_words(weights: dict[str, Any]) -> dict[str, str]:
    """What became of a run's weights, by since when: {"Weights changed since the start": "100 % ..."}."""
    heading = {"start": "Weights since the start", "warmup": "Weights since the warm-up"}
    return {heading[since]: _change_in_words(change) for since, change in weights.items()}


def _change_in_words(change: Change | dict[str, Any] | str) -> str:
    if isinstance(change, str):
        return change
    found = change if isinstance(change, dict) else change.__dict__
    parts = [f"{100 * found['changed']:.3g} % changed"]
    if found["adapted"] is not None:
        parts = [f"an adapter on {100 * found['adapted']:.3g} % of the weights"]
    if found["changed_bf16"] is not None:
        parts[0] += f" ({100 * found['changed_bf16']:.3g} % in bfloat16)"
    if found.get("beyond") is not None:
        parts.append(f"{100 * found['beyond']:.3g} % by more than 1e-5")
    if found["relative_l2"] is not None:
        parts.append(f"moved by {100 * found['relative_l2']:.3g} % of their norm")
    return ", ".join([*parts, *([found["note"]] if found["note"] else [])])


# -- the tables --------------------------------------------------------------------------------------------------------


def show(compared: dict[str, Any], console: Console) -> None:
    """Print the tables; what comes from files is shown as text, without markup and control codes."""
    from rich.text import Text

    from posttrain.reading.compare import in_words
    from posttrain.reading.compare_spending import spending_in_words

    console.print(_results(compared))
    console.print(_differences(compared))
    spending = [spending_in_words(run["spent"]) | probes_in_words(run) for run in compared["runs"]]
    names = [run["name"] for run in compared["runs"]]
    rows = [(key, *(each.get(key, "") for each in spending)) for key in dict.fromkeys(k for s in spending for k in s)]
    console.print(_plain_table("Spent", ("", *names), rows))
    settings = [(key, *map(in_words, values)) for key, values in compared["settings"].items()]
    if settings:
        console.print(_plain_table("Settings that differ", ("", *names), settings))
    console.print(Text(f"note: {LEGEND}"), soft_wrap=True)
    for text in compared["warnings"]:
        console.print(Text(f"note: {_printable(text)}"), soft_wrap=True)


def _results(compared: dict[str, Any]) -> Any:
    ks = list(dict.fromkeys(k for run in compared["runs"] for k in run["pass@k"]))
    rows = []
    for run in compared["runs"]:
        since = run["since_warmup"]
        own = (
            (_gain(since), f"{since['regressions']} ({_percent(since['negative_flip_rate'])})") if since else ("-", "-")
        )
        sampled = [_percent(run["pass@k"][k]) if k in run["pass@k"] else "-" for k in ks]
        spread = f"{_percent(run['pass@1'])} ({' to '.join(_percent(end) for end in run['ci95'])})"
        rows.append((run["name"], f"{run['stage']} {run['step']}", str(run["n"]), spread, *sampled, *own))
    heads = ("run", "evaluation", "n", "pass@1 (95 %)", *(f"pass@{k}" for k in ks), "since its warm-up", "regressions")
    return _plain_table(f"pass@1, baseline {compared['baseline']}", heads, rows, numbers=True)


def _differences(compared: dict[str, Any]) -> Any:
    from posttrain.drawing.page import p_in_words

    several = len(compared["differences"]) > 1
    rows = []
    for each in compared["differences"]:
        p = [p_in_words(each["p"]), *([p_in_words(each["p_holm"])] if several else [])]
        rows.append((each["run"], *_cells(each), *p))
        for column, parts in each["by"].items():
            if len(parts) > 1:
                rows += [(f"  {column} {value}", *_cells(part), *[""] * len(p)) for value, part in parts.items()]
    heads = ("run", "n", "difference in points (95 %)", "wins", "regressions", "negative flip rate", "McNemar p")
    return _plain_table(
        f"Against {compared['baseline']}", (*heads, *(["p, Holm"] if several else [])), rows, numbers=True
    )


def _cells(each: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(each["n"]),
        _gain(each),
        str(each["wins"]),
        str(each["regressions"]),
        _percent(each["negative_flip_rate"])
        + (f" (mc {_percent(each['negative_flip_rate_mc'])})" if each["negative_flip_rate_mc"] is not None else ""),
    )


def _gain(each: dict[str, Any]) -> str:
    if each["lo"] == each["hi"]:
        flips = each["wins"] + each["regressions"]
        return f"{100 * each['difference']:+.1f} ({'all flipped' if flips else 'no flips'}: no interval)"
    return f"{100 * each['difference']:+.1f} ({100 * each['lo']:+.1f} to {100 * each['hi']:+.1f})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _plain_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = False) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(_printable(title)), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for place, head in enumerate(heads):
        table.add_column(Text(_printable(head)), justify="right" if numbers and place else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_printable(cell)) for cell in row))
    return table


def _printable(text: str) -> str:
    """A text without control codes, which a terminal would obey, and not endless."""
    shown = "".join(letter if letter.isprintable() else " " for letter in str(text)[: LONGEST + 1])
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]} ..."
