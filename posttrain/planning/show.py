"""A plan on a terminal. What comes from rows or files is shown as text, whatever is in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from posttrain.planning.in_words import (
    amounts_in_words,
    lengths_in_words,
    memory_in_words,
    planned_for_in_words,
    time_in_words,
)
from posttrain.planning.launching import Launch
from posttrain.planning.plan import Plan
from posttrain.planning.rates import rates_in_words
from posttrain.planning.settings import Setting
from posttrain.watching.live import safe
from posttrain.watching.terminal import console as made_console

STYLES = {"problem": "bold red", "warning": "yellow", "note": "cyan"}
LONGEST_VALUE, LONGEST_TEXT = 60, 1200
"""Characters of a value and of a rendered text that are shown; --json has them whole."""
LEAST_VALUE = 10
"""Columns of a value, however narrow the terminal."""


def show(plan: Plan, path: str, settings: Sequence[Setting], launch: Launch, *, everything: bool) -> None:
    """Print a plan.

    Args:
        plan: The plan.
        path: The recipe's file.
        settings: All values with their origin.
        launch: The commands.
        everything: Show defaults, too.
    """
    console = made_console()
    _heading(console, f"{path}: {plan.status}")
    _lines(console, planned_for_in_words(plan))
    _findings(console, plan)
    _heading(console, "Settings")
    _settings(console, settings, everything=everything)
    for heading, lines in (
        ("What it takes", amounts_in_words(plan)),
        ("Learning rate", rates_in_words(plan.rates, budget=plan.recipe.hybrid.budget is not None)),
        ("Memory of a process", memory_in_words(plan)),
        ("Time", time_in_words(plan)),
        ("Lengths", lengths_in_words(plan)),
    ):
        _heading(console, heading)
        _lines(console, lines)
    _samples(console, plan)
    if plan.status == "problem":
        _heading(console, "It would be refused: see the problems above")
        return
    _heading(console, "To start it")
    which = "which runs: " + launch.accelerate if launch.accelerate else ""
    for command in filter(None, (launch.server, launch.command, which)):
        # One line, whatever the terminal's width, to be copied
        console.print(Text("  " + safe(command)), soft_wrap=True)


def _heading(console: Console, text: str) -> None:
    console.print()
    console.print(Text(safe(text, lines=False), style="bold"))


def _lines(console: Console, lines: Iterator[str]) -> None:
    for line in lines:
        text = safe(line)
        indent = 2 + len(text) - len(text.lstrip())
        console.print(Padding(Text(text.lstrip()), (0, 0, 0, indent), expand=False))


def _findings(console: Console, plan: Plan) -> None:
    for finding in plan.findings:
        head = Text(f"  {finding.level}: ", style=STYLES[finding.level])
        where = f"{finding.where}: " if finding.where else ""
        console.print(head + Text(safe(where + finding.evidence, lines=False), style=""))
        if finding.advice:
            console.print(Padding(Text(safe(finding.advice, lines=False), style="dim"), (0, 0, 0, 6), expand=False))
    for missing in plan.missing:
        said = f"{missing.what}: {missing.why}; without it: no {missing.without}"
        said += " (a run here would stop at this)" if missing.stops else ""
        console.print(Text("  missing: ", style="yellow") + Text(safe(said, lines=False)))


def _settings(console: Console, settings: Sequence[Setting], *, everything: bool) -> None:
    listed = [setting for setting in settings if everything or setting.source != "default"]
    keys = ["    " + (setting.key.partition(".")[2] or setting.key) for setting in listed]
    origins = [safe(setting.at or setting.source) for setting in listed]
    key_width, origin_width = (max(map(cell_len, texts), default=0) for texts in (keys, origins))
    table = Table.grid(padding=(0, 2))
    # Keys and file:line are to be copied: on a narrow terminal these rows are longer than its lines
    table.add_column(no_wrap=True, min_width=key_width)
    table.add_column(overflow="fold", min_width=LEAST_VALUE)
    table.add_column(no_wrap=True, min_width=origin_width)
    section = ""
    for setting, key, origin in zip(listed, keys, origins, strict=True):
        head = setting.key.partition(".")[0]
        if head != section:
            table.add_row(Text(f"  {head}", style="bold"), "", "")
            section = head
        value = safe(_value(setting.value), lines=False)
        value = value if len(value) <= LONGEST_VALUE else value[: LONGEST_VALUE - 1] + "…"
        table.add_row(Text(key), Text(value), Text(origin, style="dim"))
    console.print(table, crop=False)
    hidden = sum(setting.source == "default" for setting in settings)
    if hidden and not everything:
        console.print(Text(f"  and {hidden} defaults: --all shows them", style="dim"))


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _samples(console: Console, plan: Plan) -> None:
    for number, sample in enumerate(plan.texts.samples if plan.texts else (), 1):
        cut = f", {sample.kept_tokens} of them kept" if sample.kept_tokens < sample.demonstration_tokens else ""
        counts = f"{sample.prompt_tokens} tokens" + (
            f" and {sample.demonstration_tokens} of the demonstration{cut}" if sample.demonstration else ""
        )
        _heading(console, f"Row {number}: {counts}")
        for text, style in ((sample.prompt, ""), (sample.demonstration, "green")):
            if text:
                shown = text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "\n(shown up to here)"
                console.print(Padding(Text(safe(shown), style=style), (0, 0, 0, 2), expand=False))
