"""Math word problems and competition problems: GSM8K- and MATH-style rows, from files or from the hub.

Reading is in `row_files.py` and `hub_rows.py`, the two styles of columns in `math_rows.py`, who gets which rows in
`row_parts.py`. What a right answer is, the reward `math_answer` decides; here it is only asked which gold answers it
can read (`unreadable.py`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from posttrain.errors import DataError
from posttrain.tasks import Judges, TaskData
from posttrain.tasks.arguments import check_source
from posttrain.tasks.columns import left_out, rectangular
from posttrain.tasks.hub_rows import read_hub
from posttrain.tasks.math_rows import Columns, MathRow, read_row
from posttrain.tasks.row_counts import Tally, listed
from posttrain.tasks.row_files import RawRow, read_files
from posttrain.tasks.row_parts import Source, Wanted, split
from posttrain.tasks.unreadable import READER, Unreadable, reading

INSTRUCTION = "Solve the problem step by step and put the final answer in \\boxed{}."

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

    def load(self, seed: int, judges: Judges | None = None) -> TaskData:
        """The rows for one seed, the same in every process.

        What became of each row is counted in the first of the `notes`; answers that the reward cannot read, and
        problems that stand there with two answers, are listed in others. Such answers are left out where the reward
        judges, in training and in evaluation.

        Raises:
            DataError: A file or data set cannot be read, its columns are not known, or there are not as many
                different problems, or worked solutions, as asked for.
        """
        notes: list[str] = []
        training, evaluation = (READER in names for names in reading(self, judges))
        separate = self._read_eval()
        only_trained = Unreadable(training=training, evaluation=None if separate is not None else evaluation)
        sources = [self._source(self._read_main(), only_trained, "", notes)]
        if separate is not None:
            only_held = Unreadable(training=None, evaluation=evaluation)
            sources.append(self._source(separate, only_held, "evaluation ", notes))
        parts = split(
            sources[0],
            sources[1] if separate is not None else None,
            self._wanted(),
            random.Random(f"math {seed}"),
            key=lambda row: row.key,
            worked=lambda row: int(row.solution is not None),
        )
        return TaskData(
            train=rectangular(row.columns for row in parts.train),
            demonstrations=rectangular(row.demonstration() for row in parts.demonstrations),
            eval=rectangular(row.columns for row in parts.eval),
            notes=["; ".join(source.tally.line() for source in sources), *notes],
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

    def _source(self, raw: Sequence[RawRow], unreadable: Unreadable, what: str, notes: list[str]) -> Source[MathRow]:
        """The rows that are of use, one for each problem; what is to be told of the others goes to `notes`."""
        columns = Columns(self.question_column, self.answer_column, self.solution_column)
        tally = Tally(len(raw), f"{what}rows")
        rows: dict[str, MathRow] = {}
        contradicting: list[str] = []
        for one in raw:
            row = read_row(one, columns, self.instruction)
            answer = row.columns["answer"]
            if unreadable.see(row, answer) and unreadable.of_no_use:
                unreadable.count(row, tally)
                continue
            first = rows.setdefault(row.key, row)
            if first is row:
                continue
            if first.columns["answer"] == answer:
                tally.add("duplicate")
            else:
                tally.add("with another answer to an earlier problem")
                contradicting.append(f"{one.where}: {answer!r}, and {first.where} says {first.columns['answer']!r}")
        told = unreadable.notes(len(raw), f"{what}rows")
        if not rows:
            raise DataError(
                f"no row has an answer that can be checked ({tally.line()}): {told[0]}",
                expected="answers such as 72, \\frac{1}{2} or (3, 4)",
                where=f"task math, {what}rows",
                fix="correct the answers, or name a reward that reads them",
            )
        notes += told
        if contradicting:
            notes.append(
                listed(f"{what}rows answer an earlier problem differently; the first counts", contradicting, len(raw))
            )
        left_out({name for one in raw for name in one.columns}, notes)
        return Source(list(rows.values()), tally, unreadable)
