"""Problems as rows: recognises GSM8K's and MATH's columns, and writes prompts and worked completions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from posttrain.errors import DataError
from posttrain.rewards.math_extract import last_boxed
from posttrain.tasks.columns import own_columns
from posttrain.tasks.row_files import RawRow

#: GSM8K's calculator marks, such as <<48/2=24>>
_CALCULATOR_MARK = re.compile(r"<<[^<>\n]*>>")
_QUESTIONS = ("question", "problem")
_ANSWERS = ("answer", "final_answer", "expected_answer")
_LEVELS = ("level", "difficulty")
_KINDS = ("type", "subject")
_MANY_STEPS = 8  # from here on one slice of the evaluation: few problems have more
_EXPECTED = (
    "question and answer (worked steps, then #### and the number: GSM8K), "
    "or problem with answer, or with a solution that boxes it (MATH)"
)


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold the problem, the answer and the worked solution; None is recognised by name."""

    question: str | None = None
    answer: str | None = None
    solution: str | None = None


@dataclass(frozen=True, slots=True)
class MathRow:
    """A problem as it leaves the task.

    Args:
        where: Where it stands.
        problem: Its text alone.
        solution: As a completion: the worked steps, ending in the boxed answer; None without such.
        columns: `prompt`, `answer`, `level`, `kind`, and the row's own other columns.
    """

    where: str
    problem: str
    solution: str | None
    columns: dict[str, Any]

    @property
    def key(self) -> str:
        """What makes two problems the same one."""
        return problem_key(self.problem)

    def demonstration(self) -> dict[str, Any]:
        """The row with its solution as `completion`."""
        return {"prompt": self.columns["prompt"], "completion": self.solution, **self.columns}


def read_row(raw: RawRow, columns: Columns, instruction: str) -> MathRow:
    """A raw row as a problem.

    `answer` is None when the row has none, and the text as it stands otherwise; whether the reward can read it is
    not checked here.

    Raises:
        DataError: The row has none of the known columns, or one that is not text.
    """
    question = _column(raw, columns.question, _QUESTIONS)
    answer_column = _column(raw, columns.answer, _ANSWERS, required=False)
    solution_column = _column(raw, columns.solution, ("solution",), required=False)
    if answer_column is None and solution_column is None:
        raise _unknown(raw)
    problem = _text(raw, question)
    if problem is None or not problem.strip():
        raise DataError(f"{problem!r}", expected="the text of the problem", where=f"{raw.where} column {question}")
    given = _text(raw, answer_column)
    worked = _text(raw, solution_column)
    if given is not None and "####" in given:
        steps, _, final = given.rpartition("####")
        answer: str | None = final.strip()
        solution = _gsm8k_solution(steps, answer) if steps.strip() and answer else None
    else:
        answer = given.strip() if given is not None else last_boxed(worked or "")
        solution = _boxed_solution(worked, answer)
    kind = next((str(raw.columns[key]) for key in _KINDS if raw.columns.get(key) is not None), None)
    public = {
        "prompt": f"{problem.strip()}\n\n{instruction}" if instruction else problem.strip(),
        "answer": answer or None,
        "level": _level(raw.columns, given if worked is None else worked),
        "kind": raw.columns.get("kind") if kind is None else kind,
    }
    return MathRow(raw.where, problem.strip(), solution, {**public, **own_columns(raw.columns), **public})


def problem_key(problem: str) -> str:
    """What makes two problems the same one: the text, white space and case apart."""
    return " ".join(problem.lower().split())


def without_calculator_marks(text: str) -> str:
    """The text without GSM8K's `<<48/2=24>>`, which a calculator was meant to fill in."""
    return _CALCULATOR_MARK.sub("", text)


def _gsm8k_solution(steps: str, answer: str | None) -> str:
    return f"{without_calculator_marks(steps).strip()}\nThe final answer is \\boxed{{{answer}}}."


def _boxed_solution(worked: str | None, answer: str | None) -> str | None:
    """The solution as it is; the boxed answer is added where it boxes none."""
    if worked is None or not worked.strip() or not answer:
        return None
    worked = without_calculator_marks(worked).strip()
    return worked if last_boxed(worked) else f"{worked}\nThe final answer is \\boxed{{{answer}}}."


def _level(columns: Mapping[str, Any], worked: str | None) -> str | None:
    """The row's own difficulty as text, such as `5`; else GSM8K's number of worked steps; None without either."""
    for key in _LEVELS:
        value = columns.get(key)
        if value is None or not str(value).strip():
            continue
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return str(value).strip().removeprefix("Level ")
    if worked is None or "####" not in worked:
        return None
    steps = sum(1 for line in worked.rpartition("####")[0].splitlines() if line.strip())
    return None if not steps else str(steps) if steps < _MANY_STEPS else f"{_MANY_STEPS}+"


def _column(raw: RawRow, chosen: str | None, known: tuple[str, ...], *, required: bool = True) -> str | None:
    if chosen is not None:
        if chosen not in raw.columns:
            raise DataError(
                f"no column {chosen!r}", expected=f"one of {', '.join(raw.columns) or 'none'}", where=raw.where
            )
        return chosen
    found = next((name for name in known if name in raw.columns), None)
    if found is None and required:
        raise _unknown(raw)
    return found


def _unknown(raw: RawRow) -> DataError:
    return DataError(
        f"columns {', '.join(map(str, raw.columns)) or 'none'}",
        expected=_EXPECTED,
        where=raw.where,
        fix="name them with question_column, answer_column and solution_column",
    )


def _text(raw: RawRow, column: str | None) -> str | None:
    if column is None:
        return None
    value = raw.columns[column]
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return repr(value)
    raise DataError(f"a {type(value).__name__}", expected="text", where=f"{raw.where} column {column}")
