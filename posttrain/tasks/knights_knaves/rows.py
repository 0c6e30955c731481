"""Puzzles as rows: a prompt, a worked completion, and the columns of the published data."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from posttrain.errors import DataError
from posttrain.tasks.knights_knaves.cot import completion_text, thought
from posttrain.tasks.knights_knaves.generate import Puzzle
from posttrain.tasks.knights_knaves.logic import Statements
from posttrain.tasks.knights_knaves.noise import misread
from posttrain.tasks.knights_knaves.text import full_prompt, quiz_text, short_text, solution_text

Prompt: TypeAlias = Literal["full", "short"]
Cot: TypeAlias = Literal["auto", "assume", "copy"]
Row: TypeAlias = dict[str, Any]


def puzzle_row(puzzle: Puzzle, roles: Mapping[str, str], prompt: Prompt, rng: random.Random) -> Row:
    """A generated puzzle as a row without a completion. `rng` picks the words of the quiz."""
    quiz = quiz_text(puzzle.statements, puzzle.names, roles, rng)
    row: Row = {
        "quiz": quiz,
        "names": list(puzzle.names),
        "knight_knave": dict(roles),
        "solution": list(puzzle.solution),
        "solution_text_format": solution_text(puzzle.solution, puzzle.names, roles),
        "statements": repr(puzzle.statements),
        "people": len(puzzle.names),
    }
    return {"prompt": row_prompt(row, puzzle.statements, prompt), **row}


def row_prompt(row: Row, statements: Statements | None, prompt: Prompt) -> str:
    """The prompt of a row: its quiz with the request for an answer format, or its bare claims.

    Raises:
        DataError: A short prompt is asked for and the row has no statements.
    """
    if prompt == "full":
        return full_prompt(row["quiz"], row["knight_knave"])
    if statements is None:
        raise DataError(
            f"no statements for a short prompt in {row['quiz'][:60]!r}",
            expected="a statements column",
            where="task knights_knaves, prompt",
            fix="set prompt: full, or add the column",
        )
    return short_text(statements, row["names"], row["knight_knave"])


def row_thought(row: Row, statements: Statements | None, cot: Cot) -> str:
    """The chain of thought of a row: with `auto` the row's own when it has one, otherwise ours.

    Raises:
        DataError: The row has neither statements nor a chain of thought.
    """
    if cot == "auto" and row.get("cot_repeat_steps"):
        parts = [row.get("cot_head"), *row["cot_repeat_steps"], row.get("cot_foot")]
        return "\n".join(part for part in parts if part)
    if statements is None:
        raise DataError(
            f"no statements to reason about in {row['quiz'][:60]!r}",
            expected="a statements column, or cot_repeat_steps with cot: auto",
            where="task knights_knaves",
            fix="set think_share: 0, or add the column",
        )
    form = "assume" if cot == "auto" else cot
    return thought(form, statements, row["names"], row["knight_knave"])


def with_completion(row: Row, statements: Statements | None, cot: Cot, *, think: bool) -> Row:
    """The row as a demonstration: its prompt, a completion, its columns."""
    reasoning = row_thought(row, statements, cot) if think else None
    return _demonstration(row, reasoning, row["solution_text_format"])


def with_wrong_completion(row: Row, statements: Statements | None, cot: Cot, rng: random.Random, *, think: bool) -> Row:
    """The row as a demonstration that misreads a claim (`noise.misread`): the answer, and a thought, are of that.

    The thought is ours; with `auto` in the form `assume`.
    """
    changed, solution = misread(statements, row["solution"], rng)
    names, roles = row["names"], row["knight_knave"]
    reasoning = thought("assume" if cot == "auto" else cot, changed, names, roles) if think else None
    return _demonstration(row, reasoning, solution_text(solution, names, roles))


def _demonstration(row: Row, reasoning: str | None, answer: str) -> Row:
    completion = completion_text(reasoning, answer)
    return {"prompt": row["prompt"], "completion": completion, **{k: v for k, v in row.items() if k != "prompt"}}
