"""Completions on a terminal, as a table or in full, and as JSON lines. What a model wrote is shown, never obeyed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from posttrain.drawing.page import visible
from posttrain.reading.given import given_and_sampled, source_in_words
from posttrain.reading.view import Found
from posttrain.reading.view_query import Row
from posttrain.storage.files import plain
from posttrain.watching import terminal

_SOURCE = 24  # characters of a source in a table
_CELL = 400  # characters of a text in a table; more than a line of a wide terminal


def show(found: Found, *, full: bool = False, console: Console | None = None) -> None:
    """Print what a search gave: a line a completion, or all of each."""
    console = console or terminal.console()
    if found.note:
        console.print(Text(visible(found.note)))
        return
    if found.prompt is not None:
        console.print(Text("prompt", style="bold"))
        _print_text(found.prompt, console)
        console.print()
    if full:
        for row in found.rows:
            _print_full(row, console, with_prompt=found.prompt is None)
    elif found.rows:
        console.print(_table(found.rows, console.width))
    console.print(Text(counted(found), style="dim"))


def counted(found: Found) -> str:
    """How much of what there is was shown."""
    shown = "no completion matches" if not found.rows else f"{_count(len(found.rows), 'completion')}"
    more = "; there are more (--limit)" if found.more else ""
    return f"{shown}, from {found.looked_at} of {_count(found.files, 'file')} of completions{more}"


def json_lines(rows: Iterable[Row]) -> Iterable[str]:
    """The rows, one JSON object a line."""
    for row in rows:
        yield json.dumps(plain(row), ensure_ascii=False)


def _table(rows: list[Row], width: int) -> Table:
    figures: dict[str, list[str]] = {
        "step": [where(row) for row in rows],
        "source": [visible(str(row.get("prompt_source") or ""))[:_SOURCE] for row in rows],
        "reward": [_reward(row) for row in rows],
        "adv": ["" if row["advantage"] is None else f"{row['advantage']:+.2f}" for row in rows],
        "credit": [_credit(row) for row in rows],
        "tokens": [_tokens(row) for row in rows],
        "given": [_given(row) for row in rows],
    }
    kept = {name: cells for name, cells in figures.items() if any(cells)}
    texts = {"completion": [_line(row["completion"]) for row in rows], "why": [_line(_why(row)) for row in rows]}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    room = width
    for name, cells in kept.items():
        wide = _widest(name, cells)
        room -= wide + 3  # with the blanks beside it and the line between
        table.add_column(name, justify="left" if name == "step" else "right", no_wrap=True, min_width=wide)
    # What both texts have not room for, they share
    room = max(room - 4, 20)
    longest = {name: _widest(name, cells) for name, cells in texts.items()}
    completion = min(longest["completion"], max(room - longest["why"], 2 * room // 3))
    for name, most in (("completion", completion), ("why", room - completion)):
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=most)
    for place, row in enumerate(rows):
        shown = {name: Text(column[place]) for name, column in {**kept, **texts}.items()}
        if "reward" in shown:
            shown["reward"].stylize(_style(row))
        if row.get("begun_tokens"):
            shown["completion"].stylize("dim", 0, len(_line(given_and_sampled(row)[0])))
        table.add_row(*shown.values())
    return table


def _widest(name: str, cells: list[str]) -> int:
    return max(cell_len(cell) for cell in [name, *cells])


def _print_full(row: Row, console: Console, *, with_prompt: bool) -> None:
    numbers = [f"reward {_reward(row)}"]
    numbers += [f"advantage {row['advantage']:+.3f}"] if row["advantage"] is not None else []
    other = row.get("grpo_advantage")
    numbers += [f"{other:+.3f} in GRPO"] if other is not None and other != row["advantage"] else []
    numbers += [f"from {row['prompt_source']}"] if row.get("prompt_source") else []
    numbers += [source_in_words(row)] if source_in_words(row) else []
    numbers += [f"{_tokens(row)} tokens"] if _tokens(row) else []
    several = row["rewards"] if len(row["rewards"]) > 1 else {}
    numbers += [f"{name} {value:.3g}" for name, value in {**several, **row["parts"]}.items()]
    step = "step " if row["stage"] == "rollout" else ""
    console.print(Rule(Text(visible(f"{step}{where(row)}, {', '.join(numbers)}")), align="left"))
    if with_prompt:
        console.print(Text("prompt", style="bold"))
        _print_text(row["prompt"], console)
    _print_completion(row, console)
    if _why(row):
        console.print(Text("why", style="bold"))
        _print_text(_why(row), console)
    console.print()


def _print_completion(row: Row, console: Console) -> None:
    """The completion; one that went on from a beginning in its two parts."""
    if row.get("source") != "begun":
        named = "the demonstration, trained on whole" if row.get("source") == "demonstration" else "completion"
        console.print(Text(named, style="bold"))
        _print_text(row["completion"], console)
        return
    for name, text in zip(("the demonstration's beginning", "went on with"), given_and_sampled(row), strict=True):
        console.print(Text(name, style="bold"))
        _print_text(text, console)


def _print_text(text: str, console: Console) -> None:
    # Not wrapped here: where a line ends is the model's or the terminal's business
    console.print(Text(visible(as_said(text))), soft_wrap=True)


def as_said(text: str) -> str:
    """A text; of a conversation, which is JSON in the file, its messages with who says them."""
    if not text.startswith("[{"):
        return text
    try:
        messages = json.loads(text)
        return "\n".join(f"{each['role']}: {each['content']}" for each in messages)
    except (ValueError, KeyError, TypeError, RecursionError):  # a text of that look
        return text


def where(row: Row) -> str:
    """Where in the run a completion is from: a step, or an evaluation's stage and step, the row and the sample."""
    if row["stage"] == "rollout":
        return f"{row['step']}"
    return f"eval {row['stage']} {row['step']}, row {row['row']}" + (
        "" if row["sample"] is None else f".{row['sample']}"
    )


def _reward(row: Row) -> str:
    return "-" if row["reward"] is None else f"{row['reward']:.3g}"


def _style(row: Row) -> str:
    return "" if row["reward"] is None else "green" if row["reward"] >= 1.0 else "red" if row["reward"] <= 0 else ""


def _tokens(row: Row) -> str:
    return ("" if row["length"] is None else str(row["length"])) + ("+" if row["truncated"] else "")


def _credit(row: Row) -> str:
    return "" if row.get("credit") is None else f"{row['credit']:+.2f}"


def _given(row: Row) -> str:
    """How many of a completion's tokens were a demonstration's."""
    if row.get("source") == "demonstration":
        return "all"
    return str(row["begun_tokens"]) if row.get("begun_tokens") else ""


def _why(row: Row) -> str:
    return str(row["error"] or row["note"] or "")


def _line(text: str) -> str:
    """A text in one line, ends of lines as a sign."""
    return visible(" ⏎ ".join(text[:_CELL].splitlines()).replace("\t", " "))


def _count(number: int, what: Any) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
