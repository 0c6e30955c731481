"""Reward `table_structure`: a table in the form that was asked for, its structure and its content scored apart.

After Struc-Bench (arXiv 2309.08963), which asks for tables as text, HTML and LaTeX, and judges form and content apart,
by a language model or by heuristics; of the latter no code was found, and these are ours:

| part | weight | earns |
|---|---|---|
| `parses` | 0.1 | there is one table of the form asked for; without it every part is 0 |
| `structure` | 0.3 | the mean of: names of columns, number of rows, rows with a cell a column (`table_grade.py`) |
| `content` | 0.5 | half the F1 over cells, half all rows being right, in order |
| `only_table` | 0.1 | nothing but the table was given |

Cells are told by the names of their columns, so that columns in another order cost structure alone, and rows in another
order content alone. Only 1 is a pass. What knows nothing of the text still earns the parts that don't ask about it: the
right names over as many rows of nothing 0.5. Several tables are no answer: which one would be meant?

What is forgiven: white space; numbers written otherwise (`7.0` for 7); of text the `|` at the ends of a line and a line
of dashes below the names; of HTML attributes, `th` for `td` and the other way, groups of rows, end tags of rows and
cells, a caption, tags in a cell and around the table, entities; of LaTeX rules, fonts, escapes that are missing (`_`)
or that need not be there, comments, the columns' specification, a `table` with caption and label around it. What is
not: merged cells, tables in tables, another form, letters in another case, anything beyond 20,000 characters.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from typing import Any

from posttrain.errors import RewardError
from posttrain.rewards.table_grade import content, structure, value_of
from posttrain.rewards.table_reading import FORMS, Cells, NotATable, Table, read_table, squeeze
from posttrain.rewards.thinking import answer_section
from posttrain.rewards.weighing import chosen_weights, weighted_mean
from posttrain.scoring.score import Score

WEIGHTS = {"parses": 0.1, "structure": 0.3, "content": 0.5, "only_table": 0.1}
MOST_CELLS = 500
"""Of a gold table; a completion's may have four times as many as its gold one, and 50."""


def score(
    completion: str, *, table: Any, form: str | None, weights: Mapping[str, float] | None = None, **row: Any
) -> Score | None:
    """The weighted mean of the parts above; 1 exactly when each of them is 1.

    The answer is the last `<answer>` section, else what follows the thinking.

    Args:
        completion: The completion as text.
        table: The right table: `{"columns": [name, ...], "rows": [[cell, ...], ...]}`, or that as JSON text. Cells are
            text; every row has one for each column. None: the row is of another task.
        form: `text`, `html` or `latex`. None: the row is of another task.
        weights: Other weights for some parts; 0 leaves a part out.
        row: Ignored.

    Returns:
        Score with the parts, as `parsed` the columns and rows, as `note` what is wrong. None without a table or a form.

    Raises:
        RewardError: The row's table or form can't be used, or a setting makes no sense.
    """
    if table is None or form is None:
        return None
    columns, rows = read_gold(table)
    weighed = chosen_weights(weights, WEIGHTS)
    nothing = dict.fromkeys(weighed, 0.0)
    try:
        found = _answer(completion, form)
        cells = sum((max(len(each), 1) for each in found.rows), len(found.columns))
        most = 4 * len(columns) * (1 + len(rows)) + 50
        if cells > most:
            raise NotATable(f"a table of {cells} cells, more than {most}")
    except NotATable as wrong:
        return Score(0.0, parts=nothing, note=str(wrong))
    shape = structure(found.columns, found.rows, columns, len(rows))
    f1, same = content(found.columns, found.rows, columns, rows)
    parts = {
        "parses": 1.0,
        "structure": shape,
        "content": 1.0 if same else f1 / 2,
        "only_table": float(found.alone),
    }
    notes = [
        "" if shape == 1 else f"structure: {len(found.rows)} rows below {', '.join(found.columns)[:200]}",
        "" if same else f"content: F1 {f1:.2f}",
        "" if found.alone else "other text around the table",
    ]
    parts = {name: parts[name] for name in weighed}
    parsed = {"columns": found.columns, "rows": found.rows}
    return Score(weighted_mean(parts, weighed), parts=parts, parsed=parsed, note="; ".join(filter(None, notes)))


def read_gold(table: Any) -> tuple[Cells, list[Cells]]:
    """The names of the columns and the rows of a gold table.

    Raises:
        RewardError: It is no such table, its names are not different, or it is too large.
    """
    try:
        given = json.loads(table) if isinstance(table, str) else table
        columns, rows = list(given["columns"]), [list(each) for each in given["rows"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _unfit(f"{type(error).__name__}: {error}") from None
    if not columns or not all(isinstance(cell, str) for each in [columns, *rows] for cell in each):
        raise _unfit("a cell that is no text, or no columns")
    if any(len(each) != len(columns) for each in rows) or len(set(columns)) != len(columns):
        raise _unfit("a row without a cell for each column, or two columns of one name")
    if len(columns) * (1 + len(rows)) > MOST_CELLS:
        raise _unfit(f"more than {MOST_CELLS} cells")
    return [squeeze(name) for name in columns], [[squeeze(cell) for cell in each] for each in rows]


def _unfit(seen: str) -> RewardError:
    return RewardError(seen, expected='{"columns": [name, ...], "rows": [[text, ...], ...]}', where="table")


def _answer(completion: str, form: str) -> Table:
    if form not in FORMS:
        raise RewardError(f"form {form!r}", expected="one of " + ", ".join(FORMS), where="form")
    section, _ = answer_section(completion)
    return read_table(section, form)


def read_answer(completion: str, *, form: str, **row: Any) -> Any:
    """A stand-in for the table that is given, for votes (`majority`); None without exactly one."""
    try:
        found = _answer(completion, form)
    except NotATable:
        return None
    return tuple(found.columns), tuple(tuple(map(value_of, each)) for each in found.rows)


score.read_answer, score.same_answer = read_answer, operator.eq  # type: ignore[attr-defined]
