"""Reads Knights & Knaves puzzles in the published form, and checks them.

The form is that of `K-and-K/knights-and-knaves` and its perturbations (arXiv 2410.23123). Needed: `quiz`, `names`,
`solution` (True = knight). Used when there: `knight_knave` (the role words), `solution_text_format`, `statements`,
`cot_head`, `cot_repeat_steps`, `cot_foot`. Other columns are kept for rewards of one's own. Every puzzle that has its
`statements` is solved, and must have its `solution` as the only one.
"""

from __future__ import annotations

import json
import random
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain.errors import DataError
from posttrain.tasks.columns import own_columns
from posttrain.tasks.knights_knaves.generate import Split
from posttrain.tasks.knights_knaves.logic import Statements, parse_statements, solve, structure
from posttrain.tasks.knights_knaves.rows import Row
from posttrain.tasks.knights_knaves.text import DEFAULT_ROLES, complete_roles, solution_text

_READ = ("cot_head", "cot_repeat_steps", "cot_foot")  # together or not at all
_READERS = (".jsonl", ".json", ".parquet")


def read_published(paths: Sequence[str], people: Sequence[int] | None = None) -> list[Row]:
    """The checked rows of published files, with all columns that any of the rows has.

    Args:
        paths: Files that end in .jsonl, .json (one list) or .parquet.
        people: Keep only puzzles of these numbers of people; None keeps all.

    Raises:
        DataError: A file is absent or empty, a column is missing or wrong, or a puzzle does not have the published
            solution as its only one. The message names the file, the line and the column.
    """
    rows: list[Row] = []
    for path in paths:
        before = len(rows)
        rows += [checked_row(row, where) for where, row in _raw_rows(Path(path))]
        if len(rows) == before:
            raise DataError("no rows", expected="at least one puzzle", where=str(path))
    kept = [row for row in rows if people is None or row["people"] in people]
    if not kept:
        found = sorted({row["people"] for row in rows})
        raise DataError(f"puzzles of {found} people only", expected=f"some of {list(people or ())}", where="people")
    columns = dict.fromkeys(column for row in kept for column in row)
    return [{column: row.get(column) for column in columns} for row in kept]


def _raw_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Each row with the place it stands at, as `file:line` or `file row n`."""
    if path.suffix not in _READERS:
        raise DataError(f"file type {path.suffix!r}", expected=f"one of {', '.join(_READERS)}", where=str(path))
    if not path.is_file():
        raise DataError("no such file", expected="a file of published puzzles", where=str(path))
    if path.suffix == ".parquet":
        # Imported here: only this kind of file needs it.
        from pyarrow import ArrowException, parquet

        try:
            table = parquet.read_table(path)
        except (ArrowException, OSError) as error:
            raise DataError(f"unreadable: {error}", expected="a parquet file", where=str(path)) from error
        yield from ((f"{path} row {i}", row) for i, row in enumerate(table.to_pylist(), 1))
        return
    text = _text(path)
    if path.suffix == ".json":
        rows = _parsed(text, str(path))
        if not isinstance(rows, list):
            raise DataError(f"a {type(rows).__name__}", expected="a list of puzzles", where=str(path))
        yield from ((f"{path} row {i}", row) for i, row in enumerate(rows, 1))
        return
    # Not splitlines(): it also splits at separators that JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{path}:{number}", _parsed(line, f"{path}:{number}")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8: {error}", expected="UTF-8 text", where=str(path)) from error


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"not JSON: {error}", expected="one puzzle as a JSON object", where=where) from error


def checked_row(row: Any, where: str) -> Row:
    """One published row with the columns the rest of the task relies on.

    Missing role words become knight and knave, a missing `solution_text_format` is written from the solution.

    Args:
        row: The row as read.
        where: The place it stands at, for the message.

    Raises:
        DataError: See `read_published`.
    """
    if not isinstance(row, Mapping):
        raise DataError(f"a {type(row).__name__}", expected="one puzzle as an object", where=where)
    for column in ("quiz", "names", "solution"):
        if row.get(column) is None:
            raise DataError(f"no column {column}", expected="quiz, names and solution", where=where)
    quiz, names = row["quiz"], row["names"]
    if not isinstance(quiz, str) or not quiz.strip():
        raise DataError(f"{quiz!r}", expected="the text of the puzzle", where=f"{where} column quiz")
    if not _is_list(names, str) or len(names) < 2 or len(set(names)) != len(names):
        raise DataError(f"{names!r}", expected="a list of two or more different names", where=f"{where} column names")
    if not _is_list(row["solution"], bool, people=len(names)):
        raise DataError(
            f"{row['solution']!r}",
            expected=f"{len(names)} values true (knight) or false (knave)",
            where=f"{where} column solution",
        )
    solution = list(row["solution"])
    roles = _roles(row.get("knight_knave"), f"{where} column knight_knave")
    statements = _statements(row.get("statements"), solution, where)
    checked: Row = {
        "quiz": quiz,
        "names": list(names),
        "knight_knave": roles,
        "solution": solution,
        "solution_text_format": _solution_text(row, names, solution, roles, where),
        "statements": None if statements is None else repr(statements),
        "people": len(names),
    }
    steps = row.get("cot_repeat_steps")
    if steps is not None:
        if not _is_list(steps, str):
            raise DataError(f"{steps!r}", expected="a list of texts", where=f"{where} column cot_repeat_steps")
        checked |= {"cot_head": row.get("cot_head"), "cot_repeat_steps": steps, "cot_foot": row.get("cot_foot")}
    return {**{name: value for name, value in own_columns(row).items() if name not in _READ}, **checked}


def _is_list(value: Any, kind: type, people: int | None = None) -> bool:
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        return False
    return people is None or len(value) == people


def _roles(given: Any, where: str) -> dict[str, str]:
    if given is None:
        return dict(DEFAULT_ROLES)
    if not isinstance(given, Mapping):
        raise DataError(f"{given!r}", expected="the words for knight and knave", where=where)
    return complete_roles({key: given[key] for key in DEFAULT_ROLES if given.get(key) is not None}, where=where)


def _statements(given: Any, solution: list[bool], where: str) -> Statements | None:
    if given is None:
        return None
    column = f"{where} column statements"
    statements = parse_statements(given, len(solution), where=column)
    solutions = solve(statements)
    if solutions != [tuple(solution)]:
        raise DataError(
            f"the statements have {len(solutions)} solutions: {[list(found) for found in solutions[:3]]}",
            expected=f"exactly the published {solution}",
            where=column,
        )
    return statements


def _solution_text(
    row: Mapping[str, Any], names: list[str], solution: list[bool], roles: Mapping[str, str], where: str
) -> str:
    ours, given = solution_text(solution, names, roles), row.get("solution_text_format")
    if given is not None and (not isinstance(given, str) or given.split() != ours.split()):
        raise DataError(f"{given!r}", expected=f"{ours!r}", where=f"{where} column solution_text_format")
    return ours if given is None else given


def row_statements(row: Row) -> Statements | None:
    """The claims of a checked row, when it has them."""
    return None if row.get("statements") is None else parse_statements(row["statements"])


def split_rows(rows: Iterable[Row], seed: int, counts: Mapping[str, int], split: Split) -> dict[str, list[Row]]:
    """Disjoint `eval`, `demonstrations` and `train` rows in random order; see `generate.split_puzzles`.

    Rows without `statements` are told apart by their quiz.

    Raises:
        DataError: There are not as many different rows as asked for.
    """
    pool = list({_content(row): row for row in rows}.values())
    random.Random(f"knights_knaves files {seed}").shuffle(pool)
    held_out: set[Hashable] = set()
    evaluation: list[Row] = []
    rest: list[tuple[Hashable, Row]] = []
    for row in pool:
        key = _split_key(row, split)
        if len(evaluation) < counts["eval"] and key not in held_out:
            held_out.add(key)
            evaluation.append(row)
        else:
            rest.append((key, row))
    others = [row for key, row in rest if key not in held_out]
    demonstrations, train = others[: counts["demonstrations"]], others[counts["demonstrations"] :]
    parts = {"eval": evaluation, "demonstrations": demonstrations, "train": train[: counts["train"]]}
    for part, some in parts.items():
        if len(some) < counts[part]:
            raise DataError(
                f"{len(pool)} different puzzles in the files leave {len(some)} for {part}",
                expected=f"{counts[part]}, after {counts['eval']} for eval and then the demonstrations",
                where=f"task knights_knaves, {part}",
                fix=f"set {part} to {len(some)} or less, or name more files",
            )
    return parts


def _content(row: Row) -> Hashable:
    return row["quiz"] if row["statements"] is None else (tuple(row["names"]), row["statements"])


def _split_key(row: Row, split: Split) -> Hashable:
    if split == "content" or row["statements"] is None:
        return _content(row)
    return structure(parse_statements(row["statements"])) if split == "structure" else row["statements"]
