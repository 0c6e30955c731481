"""Rows of the user's own, from files or the hub, judged by the rewards of the recipe.

`forms.py` says in which forms a row may have its prompt and its demonstration, `templates.py` how a recipe writes them
from columns; who gets which rows is `row_parts.py`'s.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from posttrain.errors import ConfigError, DataError
from posttrain.nearest import hint
from posttrain.tasks import Judges, TaskData
from posttrain.tasks.arguments import check_source
from posttrain.tasks.columns import rectangular
from posttrain.tasks.hub_rows import read_hub
from posttrain.tasks.row_counts import Tally, listed
from posttrain.tasks.row_files import RawRow, read_files
from posttrain.tasks.row_parts import Source, Wanted, split
from posttrain.tasks.rows.forms import Forms, OwnRow
from posttrain.tasks.rows.gather import gather
from posttrain.tasks.rows.templates import Template
from posttrain.tasks.unreadable import READER, Unreadable, reading

__all__ = ["OwnFile", "Rows"]

Texts = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class OwnFile:
    """A file of rows, and how often each of its rows stands among those to train on.

    Args:
        file: Its path.
        weight: 2: each row twice; 0.5: every other row, drawn by the seed.
    """

    __pydantic_config__ = {"extra": "forbid"}

    file: str
    weight: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = 1.0


def _files(value: Any) -> Any:
    value = [value] if isinstance(value, str | Mapping) else value
    return [{"file": one} if isinstance(one, str) else one for one in value] if isinstance(value, list) else value


def _own_file(value: Any) -> OwnFile:
    return OwnFile(**value) if isinstance(value, Mapping) else value


Files = Annotated[list[OwnFile], BeforeValidator(_files)]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows with a prompt, perhaps a demonstration, and any columns that the recipe's rewards take.

    One of `path` and `dataset` names where they are. A row has its prompt and its demonstration in columns `prompt` and
    `completion` (text or messages), or in `messages`, or where `columns`, `prompt`, `completion` and `system` say.
    Every column reaches the rewards.

    Args:
        label: What rewards and reports call the task, if not `rows`: a mixture may have several.
        path: Files (.jsonl, .json, .parquet, .csv, .tsv), each as a path or as `{file: ..., weight: ...}`, where a
            weight says how often each row of the file stands among the rows to train on.
        dataset: A data set of the hub instead, or a folder that `datasets.load_dataset` takes.
        config: Its configuration.
        splits: Its splits to train on, one or a list.
        eval_path: Files of rows to evaluate on.
        eval_split: A split of `dataset` to evaluate on.
        train: How many prompts for the rollouts; null takes all that are left.
        eval: How many held-out rows; null takes all of `eval_path` or `eval_split`, and without these 200, or a fifth
            of the rows where that is fewer.
        demonstrations: How many; null takes all rows that have one.
        shared: Whether a row may be both a prompt and a demonstration.
        columns: What a row's columns are called here: `{prompt: question, completion: solution}`. Names other than
            prompt, completion, messages and system give a column another name for the rewards.
        prompt: The prompt as a text with `{column}` in it, instead of a column.
        completion: The demonstration, the same way; a row in which one of its columns is empty has none.
        system: A system prompt, the same way, for rows that have none of their own.
        longest: Characters that a prompt and its demonstration may have together; longer rows are left out.
        slice_by: A column by which evaluations are told apart, such as a difficulty.
    """

    __pydantic_config__ = {"extra": "forbid"}
    reward: ClassVar[None] = None

    name: Literal["rows"] = "rows"
    label: str | None = None
    path: Files | None = None
    dataset: str | None = None
    config: str | None = None
    splits: Texts = field(default_factory=lambda: ["train"])
    eval_path: Files | None = None
    eval_split: str | None = None
    train: Count | None = None
    eval: Count | None = None
    demonstrations: Count | None = None
    shared: bool = True
    columns: dict[str, str] = field(default_factory=dict)
    prompt: str | None = None
    completion: str | None = None
    system: str | None = None
    longest: Annotated[int, Field(ge=1)] | None = None
    slice_by: str | None = None

    def __post_init__(self) -> None:
        for key in ("path", "eval_path"):  # in Python a path alone will do
            if getattr(self, key) is not None:
                object.__setattr__(self, key, [_own_file(one) for one in _files(getattr(self, key))])
        check_source(self, "one of them: files of rows, or a data set of the hub")
        for name in ("prompt", "completion", "system"):
            if getattr(self, name) is not None and name in self.columns:
                raise ConfigError(
                    f"{name} is both a template and a column ({self.columns[name]})",
                    expected="one of them",
                    where=f"task.{name}",
                    fix=f"leave out columns.{name}, or write {{{self.columns[name]}}} into the template",
                )
        self._forms()

    def load(self, seed: int, judges: Judges | None = None) -> TaskData:
        """The rows for one seed, the same in every process.

        What became of each row is counted in the first of the `notes`; the others list rows that contradict,
        and those with an `answer` that the reward `math_answer` cannot read, where the recipe names it; where it names
        no other, these are left out.

        Raises:
            DataError: A file or data set cannot be read, a row's prompt or demonstration is in no known form, or there
                are not as many rows as asked for.
        """
        notes: list[str] = []
        named = reading(self, judges)
        training, evaluation = (names == {READER} for names in named)
        asked = any(READER in names for names in named)
        separate = self._read_eval()
        only_trained = Unreadable(training=training, evaluation=None if separate is not None else evaluation)
        sources = [self._source(self._read_main(), only_trained, "", notes, asked=asked)]
        if separate is not None:
            only_held = Unreadable(training=None, evaluation=evaluation)
            sources.append(self._source(separate, only_held, "evaluation ", notes, asked=asked))
        rng = random.Random(f"rows {seed}")
        want = Wanted(train=self.train, demonstrations=self.demonstrations, eval=self.eval, shared=self.shared)
        held = sources[1] if separate is not None else None
        parts = split(sources[0], held, want, rng, key=lambda row: row.key, worked=lambda row: len(row.completions))
        shown = [(row.weight, one) for row in parts.demonstrations for one in row.demonstrations()]
        demonstrations = _weighted(shown[: self.demonstrations], rng)
        train = _weighted([(row.weight, row.public()) for row in parts.train], rng)
        if any(row.weight != 1 for row in sources[0].rows):
            notes.append(f"by the files' weights {len(train):,} prompts and {len(demonstrations):,} demonstrations")
        return TaskData(
            train=rectangular(train),
            demonstrations=rectangular(demonstrations),
            eval=rectangular(row.public() for row in parts.eval),
            notes=["; ".join(source.tally.line() for source in sources), *notes],
        )

    def _forms(self) -> Forms:
        templates = {
            name: Template(text, f"task.{name}")
            for name in ("prompt", "completion", "system")
            if (text := getattr(self, name)) is not None
        }
        return Forms(self.columns, templates)

    def _read_main(self) -> list[tuple[RawRow, float]]:
        if self.path is not None:
            return [(row, one.weight) for one in self.path for row in read_files([one.file])]
        assert self.dataset is not None
        return [(row, 1.0) for row in read_hub(self.dataset, self.config, self.splits)]

    def _read_eval(self) -> list[tuple[RawRow, float]] | None:
        if self.eval == 0:
            return None
        if self.eval_path:
            return [(row, 1.0) for one in self.eval_path for row in read_files([one.file])]
        if self.eval_split and self.dataset is not None:
            return [(row, 1.0) for row in read_hub(self.dataset, self.config, [self.eval_split])]
        return None

    def _source(
        self, raw: Sequence[tuple[RawRow, float]], unreadable: Unreadable, what: str, notes: list[str], *, asked: bool
    ) -> Source[OwnRow]:
        """The rows that are of use, one for each prompt; `asked`: whether their answers are for `math_answer`."""
        tally = Tally(len(raw), f"{what}rows")
        names = dict.fromkeys(name for row, _ in raw for name in row.columns)
        forms = self._forms()
        forms.check(list(names), raw[0][0].where)
        if self.slice_by is not None and self.slice_by not in {*names, *self.columns}:
            raise DataError(
                f"no column {self.slice_by!r}{hint(self.slice_by, names)}",
                expected="one of " + ", ".join(names),
                where="task.slice_by",
            )
        rows, contradicting = gather(
            (forms.read(row, weight) for row, weight in raw), tally, self.longest, forms.demonstrated_by
        )
        if asked:
            rows = [row for row in rows if not self._left_out(row, unreadable, tally)]
        told = unreadable.notes(len(raw), f"{what}rows")
        if not rows:
            raise DataError(
                "\n".join([f"no row of {len(raw)} can be used ({tally.line()})", *told]),
                expected="rows with a prompt",
                where=f"task rows, {raw[0][0].where}",
            )
        if contradicting:
            notes.append(listed(f"{what}rows repeat a prompt with other columns; the first counts", contradicting))
        notes += told
        return Source(rows, tally, unreadable)

    def _left_out(self, row: OwnRow, unreadable: Unreadable, tally: Tally) -> bool:
        """Whether a row is of no use to its only reward, `math_answer`; it is counted, then."""
        answer = row.columns.get("answer", 0)  # without the column the answer is the recipe's to give
        if not (answer is None or isinstance(answer, str)) or not unreadable.see(row, answer):
            return False
        if unreadable.of_no_use:
            unreadable.count(row, tally)
        return unreadable.of_no_use


def _weighted(rows: Iterable[tuple[float, dict[str, Any]]], rng: random.Random) -> list[dict[str, Any]]:
    """Each row as often as its weight says, a fraction of one by chance."""
    return [row for weight, row in rows for _ in range(int(weight) + (rng.random() < weight % 1))]
