"""Math word problems and competition problems: GSM8K- and MATH-style rows, from files or from the hub.

Reading is in `math_files.py`, the two styles of columns in `math_rows.py`. What a right answer is, the reward
`math_answer` decides; here it is only asked which gold answers it can read.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from posttrain.errors import ConfigError, DataError
from posttrain.tasks import TaskData
from posttrain.tasks.math_files import RawRow, read_files, read_hub
from posttrain.tasks.math_rows import Columns, Row, problem_key, read_row

INSTRUCTION = "Solve the problem step by step and put the final answer in \\boxed{}."
_LISTED = 5  # unreadable answers shown by name

Texts = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class Math:
    """Problems with a checkable answer.

    One of `path` and `dataset` names where the rows are. Evaluation rows come from `eval_path` or `eval_split` when
    that is set, and are otherwise held out of the same rows. Either way no problem is in two of the three sets.

    Args:
        path: Files (.jsonl, .json, .parquet) of problems, relative to the working directory.
        dataset: A data set of the hub instead, such as `openai/gsm8k`.
        config: Its configuration, such as `main`.
        splits: Its splits to train on, one or a list.
        eval_path: Files of problems to evaluate on, such as a published test set.
        eval_split: A split of `dataset` to evaluate on, such as `test`.
        train: How many prompts for the rollouts; null takes all that eval and demonstrations leave.
        eval: How many held-out problems; null takes all of `eval_path` or `eval_split`.
        demonstrations: How many worked solutions.
        instruction: The line after the problem. Demonstrations end in `\\boxed{answer}`.
        question_column: The column of the problem, if it is not `question` or `problem`.
        answer_column: The column of the answer, if it is not `answer`.
        solution_column: The column of the worked solution, if it is not `solution`.
    """

    __pydantic_config__ = {"extra": "forbid"}
    reward: ClassVar[str] = "math_answer"
    slice_by: ClassVar[str] = "level"

    name: Literal["math"] = "math"
    path: Texts | None = None
    dataset: str | None = None
    config: str | None = None
    splits: Texts = field(default_factory=lambda: ["train"])
    eval_path: Texts | None = None
    eval_split: str | None = None
    train: Count | None = 4000
    eval: Count | None = 200
    demonstrations: Count = 500
    instruction: str = INSTRUCTION
    question_column: str | None = None
    answer_column: str | None = None
    solution_column: str | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.dataset is None):
            raise ConfigError(
                "neither path nor dataset" if self.path is None else "both path and dataset",
                expected="one of them: files of problems, or a data set of the hub such as openai/gsm8k",
                where="task",
            )
        for key in ("config", "eval_split"):
            if self.dataset is None and getattr(self, key) is not None:
                raise ConfigError(
                    f"{key} without dataset",
                    expected="dataset, which it belongs to",
                    where=f"task.{key}",
                    fix="for files use path and eval_path",
                )
        if self.eval_path and self.eval_split:
            raise ConfigError("both eval_path and eval_split", expected="one of them", where="task.eval_split")
        if self.eval is None and not (self.eval_path or self.eval_split):
            raise ConfigError(
                "eval: null",
                expected="a number: only of a separate eval_path or eval_split can all be taken",
                where="task.eval",
            )

    def load(self, seed: int) -> TaskData:
        """The rows for one seed, the same in every process.

        Rows whose answer the reward cannot read are left out and listed in `notes`.

        Raises:
            DataError: A file or data set cannot be read, its columns are not known, or there are not as many
                different problems, or worked solutions, as asked for.
        """
        notes: list[str] = []
        main = self._rows(self._read_main(), "", notes)
        separate = self._read_eval()
        rng = random.Random(f"math {seed}")
        rng.shuffle(main)
        if separate is None:
            assert self.eval is not None
            held_out, main = main[: self.eval], main[self.eval :]
        else:
            held_out = self._rows(separate, "evaluation ", notes)
            main = _without(main, held_out, notes)  # all of it: another run may evaluate on more
            rng.shuffle(held_out)
            held_out = held_out if self.eval is None else held_out[: self.eval]
        if self.eval is not None and len(held_out) < self.eval:
            raise _too_few("eval", len(held_out), self.eval, "different problems")
        demonstrations = [row for row in main if row["solution"] is not None][: self.demonstrations]
        if len(demonstrations) < self.demonstrations:
            raise _no_solutions(self.demonstrations, len(demonstrations), len(main))
        shown = {id(row) for row in demonstrations}
        train = [row for row in main if id(row) not in shown]
        if self.train is not None:
            if len(train) < self.train:
                raise _too_few("train", len(train), self.train, "problems besides eval and demonstrations")
            train = train[: self.train]
        return TaskData(
            train=[_public(row) for row in train],
            demonstrations=[_public(row, completion=row["solution"]) for row in demonstrations],
            eval=[_public(row) for row in held_out],
            notes=notes,
        )

    def _read_main(self) -> list[RawRow]:
        if self.path is not None:
            return read_files(self.path)
        assert self.dataset is not None
        return read_hub(self.dataset, self.config, self.splits)

    def _read_eval(self) -> list[RawRow] | None:
        if self.eval == 0:
            return None
        if self.eval_path:
            return read_files(self.eval_path)
        if self.eval_split and self.dataset is not None:
            return read_hub(self.dataset, self.config, [self.eval_split])
        return None

    def _rows(self, raw: Sequence[RawRow], what: str, notes: list[str]) -> list[Row]:
        """Readable rows, one for each problem; what was left out goes to `notes`."""
        from posttrain.rewards.math_answer import why_unreadable  # here: naming a task needs no reward

        columns = Columns(self.question_column, self.answer_column, self.solution_column)
        rows: dict[str, Row] = {}
        unreadable: list[str] = []
        for one in raw:
            row = read_row(one, columns, self.instruction)
            why = why_unreadable(row["answer"])
            if why is not None:
                unreadable.append(f"{one.where}: {why}")
                continue
            rows.setdefault(problem_key(row["problem"]), row)
        if not rows:
            raise DataError(
                f"no row of {len(raw)} has an answer that can be checked, the first: {unreadable[0]}",
                expected="answers such as 72, \\frac{1}{2} or (3, 4)",
                where=f"task math, {what}rows",
            )
        if unreadable:
            more = f"\n  and {len(unreadable) - _LISTED} more" if len(unreadable) > _LISTED else ""
            notes.append(
                f"{len(unreadable)} of {len(raw)} {what}rows are left out: the reward cannot read their answer\n  "
                + "\n  ".join(unreadable[:_LISTED])
                + more
            )
        repeated = len(raw) - len(unreadable) - len(rows)
        if repeated:
            notes.append(f"{repeated} of {len(raw)} {what}rows repeat the problem of an earlier row and are left out")
        return list(rows.values())


def _without(rows: list[Row], held_out: Sequence[Row], notes: list[str]) -> list[Row]:
    keys = {problem_key(row["problem"]) for row in held_out}
    kept = [row for row in rows if problem_key(row["problem"]) not in keys]
    if len(kept) < len(rows):
        notes.append(f"{len(rows) - len(kept)} training rows are left out: their problem is among the evaluation rows")
    return kept


def _public(row: Row, **more: Any) -> dict[str, Any]:
    """The columns that leave the task."""
    return {"prompt": row["prompt"], **more, "answer": row["answer"], "level": row["level"], "kind": row["kind"]}


def _too_few(part: str, there: int, asked: int, what: str) -> DataError:
    return DataError(
        f"{there} {what} for {part}",
        expected=f"{asked}, as task.{part} says",
        where=f"task.{part}",
        fix=f"set {part} to {there} or less, lower another count, or name more data",
    )


def _no_solutions(asked: int, there: int, rows: int) -> DataError:
    return DataError(
        f"{there} of the {rows} training rows have a worked solution",
        expected=f"{asked}, as task.demonstrations says",
        where="task.demonstrations",
        fix=f"set demonstrations to {there}"
        + ("" if there else " (and use a controller without SFT), or")
        + (" or less, or" if there else "")
        + " name data with a solution column or GSM8K's worked answers",
    )
