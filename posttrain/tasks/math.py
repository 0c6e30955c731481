"""Math word problems and competition problems: GSM8K- and MATH-style rows, from files or from the hub.

Reading is in `row_files.py` and `hub_rows.py`, the two styles of columns in `math_rows.py`, who gets which rows in
`row_parts.py`. What a right answer is, the reward `math_answer` decides; here it is only asked which gold answers it
can read.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from posttrain.errors import DataError
from posttrain.tasks import TaskData
from posttrain.tasks.arguments import check_source
from posttrain.tasks.columns import left_out, rectangular
from posttrain.tasks.hub_rows import read_hub
from posttrain.tasks.math_rows import Columns, MathRow, read_row
from posttrain.tasks.row_counts import Tally
from posttrain.tasks.row_files import RawRow, read_files
from posttrain.tasks.row_parts import Wanted, split

INSTRUCTION = "Solve the problem step by step and put the final answer in \\boxed{}."
_LISTED = 5  # unreadable answers shown by name

Texts = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class Math:
    """Problems with a checkable answer.

    One of `path` and `dataset` names where the rows are. Evaluation rows come from `eval_path` or `eval_split` when
    that is set, and are otherwise held out of the same rows. Either way no problem of theirs is trained on. Rewards
    get every column of the rows.

    Args:
        label: What rewards and reports call the task, if not `math`: a mixture may have several.
        path: Files (.jsonl, .json, .parquet, .csv) of problems, relative to the working directory.
        dataset: A data set of the hub instead, such as `openai/gsm8k`.
        config: Its configuration, such as `main`.
        splits: Its splits to train on, one or a list.
        eval_path: Files of problems to evaluate on, such as a published test set.
        eval_split: A split of `dataset` to evaluate on, such as `test`.
        train: How many prompts for the rollouts; null takes all that eval and demonstrations leave.
        eval: How many held-out problems; null takes all of `eval_path` or `eval_split`, and without these 200, or a
            fifth of the rows where that is fewer.
        demonstrations: How many worked solutions; null takes all that `train` leaves, and at most half of the rows
            where `train` is null too.
        shared: Whether a problem may be both a prompt and a demonstration.
        instruction: The line after the problem. Demonstrations end in `\\boxed{answer}`.
        question_column: The column of the problem, if it is not `question` or `problem`.
        answer_column: The column of the answer, if it is not `answer`.
        solution_column: The column of the worked solution, if it is not `solution`.
    """

    __pydantic_config__ = {"extra": "forbid"}
    reward: ClassVar[str] = "math_answer"
    slice_by: ClassVar[str] = "level"

    name: Literal["math"] = "math"
    label: str | None = None
    path: Texts | None = None
    dataset: str | None = None
    config: str | None = None
    splits: Texts = field(default_factory=lambda: ["train"])
    eval_path: Texts | None = None
    eval_split: str | None = None
    train: Count | None = None
    eval: Count | None = None
    demonstrations: Count | None = None
    shared: bool = False
    instruction: str = INSTRUCTION
    question_column: str | None = None
    answer_column: str | None = None
    solution_column: str | None = None

    def __post_init__(self) -> None:
        check_source(self, "one of them: files of problems, or a data set of the hub such as openai/gsm8k")

    def load(self, seed: int) -> TaskData:
        """The rows for one seed, the same in every process.

        What became of each row is counted in the first of the `notes`; answers that the reward cannot read, and
        problems that stand there with two answers, are listed in others.

        Raises:
            DataError: A file or data set cannot be read, its columns are not known, or there are not as many
                different problems, or worked solutions, as asked for.
        """
        notes: list[str] = []
        tally, main = self._rows(self._read_main(), "", notes)
        lines, held_out = [tally], None
        separate = self._read_eval()
        if separate is not None:
            eval_tally, held_out = self._rows(separate, "evaluation ", notes)
            lines.append(eval_tally)
        parts = split(
            main,
            held_out,
            self._wanted(),
            tally,
            random.Random(f"math {seed}"),
            key=lambda row: row.key,
            worked=lambda row: int(row.solution is not None),
        )
        if held_out is not None:
            eval_tally.add("held out", len(parts.eval))
            eval_tally.add("not asked for", len(held_out) - len(parts.eval))
        return TaskData(
            train=rectangular(row.columns for row in parts.train),
            demonstrations=rectangular(row.demonstration() for row in parts.demonstrations),
            eval=rectangular(row.columns for row in parts.eval),
            notes=["; ".join(tally.line() for tally in lines), *notes],
        )

    def _wanted(self) -> Wanted:
        return Wanted(
            train=self.train,
            demonstrations=self.demonstrations,
            eval=self.eval,
            shared=self.shared,
            rows="problems",
            worked="a worked solution",
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

    def _rows(self, raw: Sequence[RawRow], what: str, notes: list[str]) -> tuple[Tally, list[MathRow]]:
        """Readable rows, one for each problem, and the count of the others; what is to be listed goes to `notes`."""
        from posttrain.rewards.math_answer import why_unreadable  # here: naming a task needs no reward

        columns = Columns(self.question_column, self.answer_column, self.solution_column)
        tally = Tally(len(raw), f"{what}rows")
        rows: dict[str, MathRow] = {}
        unreadable: list[str] = []
        contradicting: list[str] = []
        for one in raw:
            row = read_row(one, columns, self.instruction)
            answer = row.columns["answer"]
            why = why_unreadable(answer)
            if why is not None:
                tally.add("without an answer" if not answer else "with an answer that the reward cannot read")
                unreadable.append(f"{one.where}: {why}")
                continue
            first = rows.setdefault(row.key, row)
            if first is row:
                continue
            if first.columns["answer"] == answer:
                tally.add("duplicate")
            else:
                tally.add("with another answer to an earlier problem")
                contradicting.append(f"{one.where}: {answer!r}, and {first.where} says {first.columns['answer']!r}")
        if not rows:
            raise DataError(
                f"no row of {len(raw)} has an answer that can be checked, the first: {unreadable[0]}",
                expected="answers such as 72, \\frac{1}{2} or (3, 4)",
                where=f"task math, {what}rows",
            )
        _tell(f"{what}rows are left out: the reward cannot read their answer", unreadable, len(raw), notes)
        _tell(f"{what}rows answer an earlier problem differently; the first counts", contradicting, len(raw), notes)
        left_out({name for one in raw for name in one.columns}, notes)
        return tally, list(rows.values())


def _tell(what: str, which: Sequence[str], of: int, notes: list[str]) -> None:
    if which:
        more = f"\n  and {len(which) - _LISTED} more" if len(which) > _LISTED else ""
        notes.append(f"{len(which)} of {of} {what}\n  " + "\n  ".join(which[:_LISTED]) + more)
