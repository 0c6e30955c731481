"""The completions of a run, by step, reward, part or text, and one prompt's across the run.

A long run has thousands of files of completions. They are taken newest first until enough rows are found, and of each
the columns that a filter needs come first: texts are read of rows that are left. The best and the worst need every
file, but only its rewards.
"""

from __future__ import annotations

import heapq
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from posttrain.curricula.base import PROMPT_SOURCE, SOURCES
from posttrain.errors import CheckpointError, ConfigError
from posttrain.nearest import did_you_mean
from posttrain.reading.view_query import Query, Row, Table
from posttrain.reading.view_refusals import check_query, not_recorded
from posttrain.rundir import reading as run_reading
from posttrain.rundir.layout import STAGES, Layout

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "=": operator.eq,
}  # fmt: skip


OF_A_METHOD = ("source", "grpo_advantage", "begun_tokens", "begun_characters", "credit")
"""What rollouts' rows have beside a method."""


@dataclass
class Found:
    """What a search gave.

    Attributes:
        rows: The completions, as `as_row` makes them.
        files: How many files there are to look at, and how many of them were looked at.
        more: Whether the limit ended the search.
        prompt: The one prompt that was asked for.
        note: What is to be said of it, such as that nothing was recorded.
    """

    rows: list[Row] = field(default_factory=list)
    files: int = 0
    looked_at: int = 0
    more: bool = False
    prompt: str | None = None
    note: str = ""


def tables(layout: Layout, query: Query, *, strict: bool = True) -> list[Table]:
    """The files that a query is about, newest first.

    Args:
        layout: The run.
        query: The steps and the stage of it.
        strict: Whether steps of which nothing is recorded are an error, where there are others.

    Raises:
        ConfigError: A step or a range of which nothing is recorded, or a stage that there is not.
    """
    check_query(query)
    if query.stage is not None:
        found = [Table(*each) for each in run_reading.eval_files(layout) if each[0] == query.stage]
        if query.step is None and query.first is None and query.last is None:
            found = found[-1:]
    else:
        found = [Table("rollout", *each) for each in run_reading.rollout_files(layout)]
    chosen = [each for each in found if _in_range(each.step, query)]
    if strict and found and not chosen:
        raise not_recorded(found, query)
    return sorted(chosen, key=lambda each: each.place, reverse=True)


def _in_range(step: int, query: Query) -> bool:
    if query.step is not None:
        return step == query.step
    return (query.first is None or step >= query.first) and (query.last is None or step <= query.last)


def search(layout: Layout, query: Query) -> Found:
    """The completions that a query asks for.

    Raises:
        ConfigError: A part that no file has, or steps that are not recorded.
        CheckpointError: A file cannot be read.
    """
    files, weights = tables(layout, query), reward_weights(layout)
    found = Found(files=len(files), note="" if files else nothing_recorded(layout, query.stage))
    known: set[str] = set()
    hits = _newest(files, query, weights, found, known) if query.order == "newest" else _extreme(
        files, query, weights, found, known
    )  # fmt: skip
    found.rows = list(hits)
    if query.source is not None and not found.rows:
        check_source(query.source, files, weights)
    missing = [part.name for part in query.parts if not any(_names(part.name, column) for column in known)]
    if missing and found.looked_at:
        names = sorted(column.partition("/")[2] for column in known)
        raise ConfigError(
            f"no completion has a part {missing[0]!r}",
            expected=f"one of: {', '.join(names)}" if names else "rollouts with rewards and parts: these have none",
            where="--part",
            fix=did_you_mean(missing[0], [*names, *(name.rpartition(".")[2] for name in names)])
            or "take a name from that list",
        )
    return found


def check_source(source: str, files: Sequence[Table], weights: list[float]) -> None:
    """Refuse a source that no completion is from.

    Raises:
        ConfigError: With those that there are.
    """
    known = sorted({str(each) for file in files for each in Reader(file, weights).sources() if each is not None})
    if files and source not in known:
        raise ConfigError(
            f"no completion is from the source {source!r}",
            expected=f"one of: {', '.join(known)}" if known else "completions whose prompts say where they are from",
            where="--source",
            fix=did_you_mean(source, known) or ("take a name from that list" if known else "leave it out"),
        )


def _newest(files: Sequence[Table], query: Query, weights: list[float], found: Found, known: set[str]) -> Iterator[Row]:
    count = 0
    for file in files:
        found.looked_at += 1
        reader = Reader(file, weights)
        known |= reader.scored
        for row in reader.rows(reader.matching(query)):
            if count == query.limit:
                found.more = True
                return
            count += 1
            yield row


def _extreme(
    files: Sequence[Table], query: Query, weights: list[float], found: Found, known: set[str]
) -> Iterator[Row]:
    """The rows of the highest or lowest reward; of equal ones the newest."""
    sign = 1.0 if query.order == "best" else -1.0
    heap: list[tuple[float, int, int, Table]] = []  # the least worthy first
    for age, file in enumerate(files):
        found.looked_at += 1
        reader = Reader(file, weights)
        known |= reader.scored
        bar = heap[0][0] if len(heap) == query.limit else -np.inf
        worth = sign * reader.rewards
        # Those at the bar are older than what is there, and no better
        rows = reader.matching(query, among=np.flatnonzero(worth > bar), count=query.limit, by=worth)
        for row in rows:
            entry = (float(worth[row]), -age, -int(row), file)
            if len(heap) < query.limit:
                heapq.heappush(heap, entry)
            else:
                heapq.heappushpop(heap, entry)
    chosen = sorted(heap, reverse=True)
    by_file: dict[Table, list[int]] = {}
    for _, _, row, file in chosen:
        by_file.setdefault(file, []).append(-row)
    read = {
        (file, row["index"]): row
        for file, rows in by_file.items()
        for row in Reader(file, weights).rows(np.array(sorted(rows)))
    }
    for _, _, row, file in chosen:
        yield read[file, -row]


def nothing_recorded(layout: Layout, stage: str | None) -> str:
    """Why there is nothing to look at."""
    others = sorted({name for name, _, _ in run_reading.eval_files(layout)}, key=STAGES.index)
    ask = f"; there are evaluations to look at by --eval {' or '.join(others)}" if others else ""
    if stage is not None:
        return f"no completions of an evaluation of the stage {stage} are recorded{ask}"
    hybrid = run_reading.steps(layout, "hybrid")
    if any((line.get("mix") or {}).get("grpo") for line in hybrid):
        return f"no rollouts are recorded (run.save_completions_every says how often they are){ask}"
    return f"no rollouts are recorded, for no GRPO step is{ask}"


def reward_weights(layout: Layout) -> list[float]:
    """The weights of the recipe's rewards, in order; empty where they are the task's own or not known."""
    if not layout.recipe_file.exists():
        return []
    return [float(each.get("weight", 1.0)) for each in run_reading.recipe(layout).get("rewards") or []]


# -- one file ----------------------------------------------------------------------------------------------------------


class Reader:
    """A parquet file of which columns are read when they are asked for."""

    def __init__(self, table: Table, weights: Sequence[float]):
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.table = table
        try:
            self.file = pq.ParquetFile(table.path)
        except (OSError, pa.ArrowException) as error:
            raise CheckpointError(f"cannot be read: {error}", where=str(table.path)) from error
        self.names: list[str] = self.file.schema_arrow.names
        self.count: int = self.file.metadata.num_rows
        self.scored = {name for name in self.names if name.startswith(("reward/", "part/"))}
        self._weights = weights

    def column(self, name: str) -> Any:
        """One column as numbers; NaN where there is none."""
        values = self.file.read([name]).column(0).to_numpy(zero_copy_only=False)
        return np.array([np.nan if value is None else float(value) for value in values]) if values.dtype == object \
            else values.astype(np.float64)  # fmt: skip

    @property
    def rewards(self) -> Any:
        """Each row's reward: an evaluation's score, or the weighted sum of the rewards that apply."""
        if "score" in self.names:
            return self.column("score")
        rewards = [name for name in self.names if name.startswith("reward/")]
        if not rewards:
            return np.full(self.count, np.nan)
        weights = self._weights if len(self._weights) == len(rewards) else [1.0] * len(rewards)
        values = np.stack([weight * self.column(name) for weight, name in zip(weights, rewards, strict=True)])
        return np.where(np.isnan(values).all(axis=0), np.nan, np.nansum(values, axis=0))

    def sources(self, rows: Any = None) -> list[str | None]:
        """Where the prompts of rows are from, of all rows if `None`: the source, or the task of a mixture."""
        name = next((name for name in (PROMPT_SOURCE, *SOURCES[1:]) if name in self.names), None)
        if name is None:
            return [None] * (self.count if rows is None else len(rows))
        column = self.file.read([name]).column(0)
        return (column if rows is None else column.take(rows)).to_pylist()

    def matching(self, query: Query, among: Any = None, count: int | None = None, by: Any = None) -> Any:
        """The numbers of the rows that a query asks for, of `among`; `count` of them, the first `by` worth."""
        rows = np.arange(self.count) if among is None else among
        if query.order != "newest" and "source" in self.names and len(rows):  # the best is not what was given
            sources = self.file.read(["source"]).column(0).take(rows).to_pylist()
            rows = rows[[source != "demonstration" for source in sources]]
        if query.source is not None:
            rows = rows[[each == query.source for each in self.sources(rows)]] if len(rows) else rows
        if len(rows) and (query.min_reward is not None or query.max_reward is not None):
            rewards = self.rewards[rows]
            low = -np.inf if query.min_reward is None else query.min_reward
            high = np.inf if query.max_reward is None else query.max_reward
            rows = rows[(rewards >= low) & (rewards <= high)]
        for part in query.parts:
            columns = [name for name in sorted(self.scored) if _names(part.name, name)]
            if not columns or not len(rows):
                return rows[:0]
            holds = [_OPERATORS[part.sign](self.column(name)[rows], part.value) for name in columns]
            rows = rows[np.any(holds, axis=0)]
        if by is not None:
            rows = rows[np.argsort(-by[rows], kind="stable")]
        if query.text is None or not len(rows):
            return rows[:count]
        texts = self.file.read(["completion"]).column(0).take(rows).to_pylist()
        return rows[[bool(query.text.search(text or "")) for text in texts]][:count]

    def rows(self, numbers: Any) -> Iterator[Row]:
        """Rows in full, by their numbers."""
        if not len(numbers):
            return
        rewards, lines = self.rewards, self.file.read().take(numbers).to_pylist()
        for number, line in zip(numbers, lines, strict=True):
            yield as_row(self.table, int(number), line, float(rewards[number]))


def _names(part: str, column: str) -> bool:
    """Whether `part` means a column: REWARD.PART, PART alone, or a reward by its name."""
    name = column.partition("/")[2]
    return part in (name, name.rpartition(".")[2]) if column.startswith("part/") else part == name


def as_row(table: Table, index: int, line: dict[str, Any], reward: float) -> Row:
    """A completion in one shape, whether it is a rollout or of an evaluation."""
    scores = {name: value for name, value in line.items() if value is not None and value == value}
    return {
        "stage": table.stage,
        "step": table.step,
        "index": index,
        "row": line.get("row", index),
        "sample": line.get("sample"),
        "prompt": line.get("prompt") or "",
        "prompt_source": line.get(PROMPT_SOURCE) or line.get(SOURCES[1]),
        "completion": line.get("completion") or "",
        "reward": None if np.isnan(reward) else reward,
        "rewards": {name[7:]: value for name, value in scores.items() if name.startswith("reward/")},
        "parts": {name[5:]: value for name, value in scores.items() if name.startswith("part/")},
        **{key: line.get(key) for key in ("advantage", "passed", "length", "truncated", "error")},
        **({key: line.get(key) for key in OF_A_METHOD} if "source" in line else {}),
        "note": line.get("note") or "",
    }
