"""The tables of `posttrain rewards check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDTH = 110  # where the console is no terminal
_TEXT = 100  # characters of a completion or a note shown


def show(records: Sequence[dict[str, Any]], console: Console | None = None) -> None:
    """Print each reward's table, what went wrong in it, and one line in the end; `records` as of `verdict.record`."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=_WIDTH)
    for record in records:
        console.print(_table(record))
        for line in record["tries"]:
            _print_examples(line, console)
        console.print()
    for record in records:
        console.print(Text(_in_one_line(record), style="red" if record["gold"] == "failed" else ""), soft_wrap=True)


def _table(record: dict[str, Any]) -> Table:
    table = Table(title=Text(record["reward"]), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("completions", no_wrap=True)
    for heading in ("n", "mean", "1.0", "None", "failed", "ms", "max ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for line in record["tries"]:
        table.add_row(
            line["name"],
            str(line["n"]),
            "-" if line["mean"] is None else f"{line['mean']:.3f}",
            "-" if line["ones"] is None else f"{100 * line['ones']:.0f} %",
            str(line["none"] or "-"),
            str(line["failures"] or "-"),
            *("-" if line[key] is None else f"{line[key]:.3g}" for key in ("ms_median", "ms_max")),
            _verdict(line, record["gold"]),
        )
    return table


def _verdict(line: dict[str, Any], gold: str) -> Text:
    kind, amiss = line["kind"], line["amiss"]
    if gold == "not judged" or not line["n"]:
        return Text("")
    if kind == "gold" and amiss:
        return Text(count(amiss, "false negative"), style="yellow" if gold == "allowed" else "bold red")
    if kind == "wrong" and amiss:
        return Text(count(amiss, "false positive"), style="bold yellow")
    if kind in ("equal", "near") and amiss:
        return Text(f"{amiss} {'not ' if kind == 'equal' else ''}paid", style="bold yellow")
    if kind == "kept":
        return Text(f"lower than gold in {amiss}" if amiss else "as gold", style="yellow" if amiss else "")
    if line["failures"]:
        return Text("fails", style="yellow")
    return Text("" if kind == "open" else "ok", style="green")


def _print_examples(line: dict[str, Any], console: Console) -> None:
    if not line["examples"]:
        return
    console.print(Text(f"{line['name']}:"))
    # A reward that judges the form is lower than gold in every row, for one reason
    for example in line["examples"][:1] if line["kind"] == "kept" else line["examples"]:
        said = example["error"] or f"score {example['score']:g}" + (f": {example['note']}" if example["note"] else "")
        # Notes may quote the completion, and what that holds must not reach the terminal as it is
        said = "".join(letter if letter.isprintable() else " " for letter in said)
        console.print(Text(f"  {example['row']}: {said[: 2 * _TEXT]}"), soft_wrap=True)
        console.print(Text(f"    on {example['completion'][:_TEXT]!r:.{2 * _TEXT}}"), soft_wrap=True)


def count(number: int, what: str) -> str:
    """A number and a noun."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _in_one_line(record: dict[str, Any]) -> str:
    slowest = max((line["ms_max"] or 0.0, line["name"]) for line in record["tries"])
    judged = {
        "ok": "every gold completion gets 1.0" + (f" ({none} None)" if (none := record["tries"][0]["none"]) else ""),
        "failed": f"FAILED, {record['why']}",
        "allowed": f"{record['why']} (allowed)",
        "not judged": "TRL-style, not judged",
    }[record["gold"]]
    rates = [
        f"{what} paid {rate['paid']} of {rate['n']} ({100 * rate['paid'] / rate['n']:.0f} %)"
        for what, rate in (("equal forms", record["equal_forms"]), ("near misses", record["near_misses"]))
        if rate["n"]
    ]
    return (
        f"{record['reward']}: {judged}; {count(record['false_positives'], 'false positive')}, "
        f"{count(record['failures'], 'failure')}; {''.join(rate + ', ' for rate in rates)[:-2]}"
        f"{'; ' if rates else ''}slowest {slowest[0]:.3g} ms ({slowest[1]})"
    )
