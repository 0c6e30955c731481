"""What is in a file of rows, as the task `rows` reads it, and in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.errors import DataError
from posttrain.planning.starting.columns import Column, Lengths, columns_of, shown
from posttrain.planning.starting.roles import Roles, roles_of
from posttrain.tasks import TaskData
from posttrain.tasks.row_counts import Tally, listed
from posttrain.tasks.row_files import read_files
from posttrain.tasks.rows import OwnFile, Rows
from posttrain.tasks.rows.forms import Forms, OwnRow
from posttrain.tasks.rows.gather import gather
from posttrain.tasks.rows.templates import Template

OTHER_COLUMNS = "with an earlier row's prompt and other columns"
ANOTHER = "with another demonstration of an earlier row's prompt"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was found in a file.

    Args:
        file: The file.
        total: Its rows.
        columns: Its columns.
        roles: What they are taken for.
        rows: The rows that are used, each prompt once.
        read: What became of the others.
        contradicting: A line for each row that has an earlier row's prompt and other columns.
        eval_file: The file of rows to evaluate on, if one was given.
        eval_rows: Its rows that are used.
        leaks: How many of them are in the file, too.
        data: The rows as the recipe's task hands them on.
    """

    file: Path
    total: int
    columns: dict[str, Column]
    roles: Roles
    rows: list[OwnRow]
    read: Tally
    contradicting: list[str]
    eval_file: Path | None
    eval_rows: list[OwnRow]
    leaks: int
    data: TaskData

    @property
    def demonstrated(self) -> list[OwnRow]:
        """The rows that have a demonstration."""
        return [row for row in self.rows if row.completions]


def look(file: str | Path, eval_file: str | Path | None = None, longest: int | None = None) -> Found:
    """Read a file, and perhaps one to evaluate on.

    Args:
        file: The rows.
        eval_file: Rows to evaluate on.
        longest: Characters of a row above which it is left out.

    Raises:
        DataError: A file cannot be read, or the task `rows` could not use its rows.
    """
    raw = read_files([str(file)])
    columns = columns_of(raw)
    eval_raw = read_files([str(eval_file)]) if eval_file is not None else []
    roles = roles_of(columns, raw, str(file), columns_of(eval_raw) if eval_raw else None)
    read = Tally(len(raw))
    forms = _forms(roles)
    rows, contradicting = gather((forms.read(row) for row in raw), read, longest, forms.demonstrated_by)
    eval_rows, _ = gather((forms.read(row) for row in eval_raw), Tally(len(eval_raw)), longest, forms.demonstrated_by)
    keys = {row.key for row in rows}
    eval_path = [OwnFile(file=str(eval_file))] if eval_file is not None else None
    data = Rows(path=[OwnFile(file=str(file))], eval_path=eval_path, longest=longest, **roles.settings).load(0)
    if not data.train or not data.eval:
        raise DataError(
            f"no rows to {'train' if not data.train else 'evaluate'} on: {data.notes[0]}",
            expected="at least two different prompts, one to train on and one to hold out",
            where=str(file),
            fix="name a file with more rows" + ("" if eval_file is None else ", or another one by --eval"),
        )
    return Found(
        file=Path(file),
        total=len(raw),
        columns=columns,
        roles=roles,
        rows=rows,
        read=read,
        contradicting=contradicting,
        eval_file=None if eval_file is None else Path(eval_file),
        eval_rows=eval_rows,
        leaks=sum(row.key in keys for row in eval_rows),
        data=data,
    )


def _forms(roles: Roles) -> Forms:
    settings = roles.settings
    templates = {"prompt": Template(settings["prompt"], "prompt")} if "prompt" in settings else {}
    return Forms(settings.get("columns", {}), templates)


def in_words(found: Found) -> Iterator[str]:
    """What was found, a line each."""
    yield f"{found.file}: {found.total:,} rows, {len(found.columns)} columns"
    yield from _table([_cells(column, found.roles) for column in found.columns.values()])
    if found.roles.guessed:
        yield (
            f"no column is called like a prompt: {shown(found.roles.prompt)} is the first with text; say otherwise by "
            "task.prompt or task.columns"
        )
    yield found.data.notes[0]
    counted = {
        "duplicates": "duplicate",
        "other demonstrations of a prompt": ANOTHER,
        "contradicting an earlier row": OTHER_COLUMNS,
        "without a prompt": "without a prompt",
    }
    if found.roles.more and found.read.count("without a prompt"):
        yield f"a row without {shown(found.roles.prompt)} has no prompt"
    yield "; ".join(f"{what}: {found.read.count(reason):,}" for what, reason in counted.items())
    if found.contradicting:
        yield shown_lines(
            listed("with an earlier row's prompt and other columns; the first counts", found.contradicting)
        )
    if found.eval_file is not None:
        yield (
            f"{found.leaks:,} of {len(found.eval_rows):,} prompts of {found.eval_file} are in {found.file.name} too"
            + (": they are not trained on" if found.leaks else "")
        )
    yield from _lengths(found)


def shown_lines(text: str) -> str:
    """Several lines of a file's text, each as it may stand on a terminal."""
    return "\n".join(shown(line, 300) for line in text.split("\n"))


def _lengths(found: Found) -> Iterator[str]:
    share = len(found.demonstrated) / len(found.rows)
    yield f"demonstrations: {len(found.demonstrated):,} of {len(found.rows):,} prompts have one ({share:.0%})"
    parts: list[tuple[str, Sequence[Any]]] = [
        ("prompts", [row.prompt for row in found.rows]),
        ("demonstrations", [one for row in found.rows for one in row.completions]),
    ]
    for name, texts in parts:
        lengths = Lengths.of([len(written(text)) for text in texts])
        if lengths:
            yield (
                f"{name}: half have up to {lengths.median:,} characters, nine in ten up to {lengths.most:,}, the "
                f"longest {lengths.longest:,}"
            )


def written(part: Any) -> str:
    """A prompt or completion as one text."""
    return part if isinstance(part, str) else "\n".join(message["content"] for message in part)


def _cells(column: Column, roles: Roles) -> list[str]:
    kind = column.kind + (f" ({', '.join(column.kinds[1:])} too)" if len(column.kinds) > 1 else "")
    empty = f"{column.empty:,} empty" if column.empty else ""
    long = str(column.lengths or "")
    return [shown(column.name, 30), kind, long, empty, roles.of(column.name), column.example]


def _table(rows: list[list[str]]) -> Iterator[str]:
    rows = [["column", "type", "characters", "", "looks like", "such as"], *rows]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        yield ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width)).rstrip()
