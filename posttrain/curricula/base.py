"""What a curriculum is: `draw` gives the next prompts from a JSON state, `observe` the state after their rollouts.

The same draws the demonstrations of a warm-up, which have no rollouts: `observe` then takes in what was drawn, and what
a curriculum goes by is measured on demands of its own (`ask`, `take`).

Prompts are rows of a `Table` by number. A state has at least `drawn`, how many prompts were taken since the stage
began, and `seed`. Two things hold for every curriculum, and a test asks each of them:

- `draw(table, state, n)` begins with what `draw(table, state, m)` gives for m < n, so that a window may ask for further
  prompts, one by one or many at once (see `training.refill`);
- what it gives depends on the state alone, so that all processes and a resumed run draw the same.

How well a prompt is solved is taken from its rewards as a share of the best that there is to score, the sum of the
positive weights of the rewards that apply: 0 and 1 where rewards say right or wrong, a mean of what lies between where
they grade.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

from posttrain.errors import DataError
from posttrain.nearest import hint

State = dict[str, Any]
"""JSON: numbers, text, lists and dicts of these."""

SOURCES = ("source", "task")
"""Columns that say where a row is from, if no other is named; the tasks of a mixture are told apart by `task`."""

PROMPT_SOURCE = "prompt_source"
"""What tables of completions call it, which have a column `source` of their own beside a method."""

EPSILON = 1e-4
"""What GRPO adds to a group's standard deviation."""

DIGITS = 6
"""Of a recorded reward; `observe` sees no more, so that the record alone gives the state again."""


class Outcome(NamedTuple):
    """What the rollouts of one prompt gave.

    Attributes:
        row: The prompt's number in the table.
        rewards: Of each rollout, weighted and summed; `None` where no reward applied.
        best: The most that there was to score.
    """

    row: int
    rewards: tuple[float | None, ...]
    best: float = 1.0

    @property
    def shares(self) -> list[float]:
        """What each scored rollout got of the best, within 0 and 1."""
        return [min(max(reward / self.best, 0.0), 1.0) for reward in self.rewards if reward is not None and self.best]

    @property
    def rate(self) -> float | None:
        """The mean of these; `None` where nothing was scored."""
        return statistics.fmean(self.shares) if self.shares else None

    @property
    def advantages(self) -> list[float]:
        """GRPO's advantage of each scored rollout: (r - mean) / (std + 1e-4), std with n - 1 as in TRL."""
        known = [reward for reward in self.rewards if reward is not None]
        if len(known) < 2:
            return [0.0] * len(known)
        mean, spread = statistics.fmean(known), statistics.stdev(known)
        return [(reward - mean) / (spread + EPSILON) for reward in known]


class Asked(NamedTuple):
    """What a curriculum of demonstrations is to be told before it draws on.

    Attributes:
        kind: `losses`: the mean NLL of the label tokens, in nats, by source; other kinds are for those who measure them
            to know.
        rows: Of each source the demonstrations to measure.
        target: Demonstrations that these are compared with, where they are.
    """

    kind: str
    rows: Mapping[str, Sequence[int]]
    target: Sequence[int] = ()


@dataclass(frozen=True)
class Table:
    """What a curriculum may know of each prompt before it is sampled.

    Attributes:
        size: The number of prompts.
        columns: The columns that it asked for, by name.
        rates: How often each was solved before the stage, where that was measured.
        angles: Mean cosines of each one's hidden states before the stage, where these were measured: within the
            question, between it and the template, and of all tokens.
    """

    size: int
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    rates: Sequence[float] | None = None
    angles: Sequence[Sequence[float]] | None = None
    _made: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {"size": self.size, "columns": dict(self.columns), "rates": self.rates, "angles": self.angles}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Table:
        """What `record` gave; one of before there were angles has none."""
        return cls(record["size"], record["columns"], record["rates"], record.get("angles"))

    def rows_of(self, column: str) -> dict[str, list[int]]:
        """The rows of each value of a column, the values as text and in the order in which they first stand there.

        Made once; not to be changed.
        """

        def found() -> dict[str, list[int]]:
            rows: dict[str, list[int]] = {}
            for row, value in enumerate(self.columns[column]):
                rows.setdefault(str(value), []).append(row)
            return rows

        return self.once(("rows of", column), found)

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gives of this table, made once and kept under a key."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def latest(self, name: str, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gives, kept under a name for as long as it is asked for with the same key."""
        kept = self._made.get(name)
        if kept is None or kept[0] != key:
            kept = self._made[name] = (key, make())
        return kept[1]

    @cached_property
    def numbers(self) -> dict[str, list[float]]:
        """The columns whose values are all numbers."""
        whole = {name: list(values) for name, values in self.columns.items()}
        return {name: values for name, values in whole.items() if all(map(_is_number, values))}


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """Base of the curricula: frozen settings and pure functions. What is here draws nothing yet.

    Args:
        source: The column that says which source a prompt is from. `None`: `source`, or the `task` of a mixture, where
            there is one. Curricula that do not draw by sources have it for the record alone.
    """

    name: str = ""
    source: str | None = None
    adaptive: ClassVar[bool] = False
    """Whether what is drawn depends on what rollouts gave."""
    measures: ClassVar[bool] = False
    """Whether pass rates are measured before the stage."""
    by_source: ClassVar[bool] = False
    """Whether it cannot do without sources."""
    prefills: ClassVar[bool] = False
    """Whether each prompt passes through the model once before the stage, for the angles of its hidden states."""
    asks: ClassVar[str | None] = None
    """What it goes by that is measured while demonstrations train (the `kind` of what it asks): it draws no prompts."""

    @property
    def completions(self) -> int:
        """Completions of each prompt that are sampled before the stage, to measure pass rates."""
        return getattr(self, "samples", 0) if self.measures else 0

    def wanted(self) -> tuple[str, ...]:
        """Columns that the rows must have, beside that of the source."""
        return ()

    def source_of(self, columns: Sequence[str]) -> str | None:
        """The column of the sources, if the rows have one."""
        return self.source or next((name for name in SOURCES if name in columns), None)

    def column(self, table: Table) -> str:
        """The column of the sources, of a curriculum that draws by them."""
        return str(self.source_of(list(table.columns)))

    def sources(self, table: Table) -> dict[str, list[int]]:
        """The rows of each source, of a curriculum that draws by them."""
        return table.rows_of(self.column(table))

    def missing(self, columns: Sequence[str]) -> list[str]:
        """Columns that it needs and that the rows lack."""
        source = self.source_of(columns)
        needed = [*self.wanted(), *([source or SOURCES[0]] if self.by_source or self.source else [])]
        return [name for name in dict.fromkeys(needed) if name not in columns]

    def table(
        self,
        rows: Any,
        columns: Sequence[str],
        rates: Sequence[float] | None = None,
        angles: Sequence[Sequence[float]] | None = None,
        of: str = "prompts",
    ) -> Table:
        """What it needs to know of the prompts.

        Args:
            rows: The prompts: a data set, or anything whose `rows[name]` gives a column.
            columns: The columns that they have.
            rates: Measured pass rates.
            angles: Measured angles of hidden states, as in `Table`.
            of: What the rows are called where they are refused.

        Raises:
            DataError: They lack a column that it needs, or one has no value in some row.
        """
        if lacking := self.missing(columns):
            raise self.lack(lacking[0], columns, of)
        source = self.source_of(columns)
        names = dict.fromkeys([*self.wanted(), *([source] if source else [])])
        taken = {name: list(rows[name]) for name in names}
        for name, values in taken.items():
            gone = sum(value is None for value in values)
            if gone and (name in self.wanted() or self.by_source):
                raise DataError(
                    f"{gone} of {len(values)} {of} have no value in the column {name!r}",
                    expected=f"one in each: the curriculum {self.name} draws by it",
                    where="curriculum",
                    fix="fill it in, or leave these rows out",
                )
        measured = rates if rates is not None else angles
        size = len(measured) if measured is not None and not taken else len(next(iter(taken.values()), rows))
        table = Table(size, taken, rates, angles)
        self.check(table)
        return table

    def lack(self, column: str, columns: Sequence[str], of: str = "prompts") -> DataError:
        """The error of rows without a column."""
        key = "source" if column == (self.source or SOURCES[0]) else "by"
        return DataError(
            f"the {of} have no column {column!r}{hint(column, columns)}; they have {', '.join(columns) or 'none'}",
            expected=f"what the curriculum {self.name} draws by",
            where="curriculum",
            fix=f"name another with `{key}:`, such as one of these, or add it to the rows",
        )

    def check(self, table: Table) -> None:
        """Refuse a table that cannot be drawn from."""

    def start(self, table: Table, seed: int) -> State:
        """The state before the first draw."""
        return {"drawn": 0, "seed": seed}

    def draw(self, table: Table, state: State, count: int) -> list[int]:
        """The next prompts; pure."""
        raise NotImplementedError

    def observe(self, table: Table, state: State, outcomes: Sequence[Outcome]) -> State:
        """The state after prompts were taken and their rollouts scored, in the order in which they were drawn; pure."""
        return {**state, "drawn": state["drawn"] + len(outcomes)}

    def ask(self, table: Table, state: State) -> Asked | None:
        """What is to be measured before the next draw, where demonstrations train; pure."""
        return None

    def first_change(self, table: Table) -> int | None:
        """Steps that are done when what was measured first moves the draws; `None` where nothing is."""
        return None

    def passes(self, table: Table, steps: int, rows: int = 0) -> int:
        """Passes of a demonstration through the model that measurements take, in a stage of so many steps of as many
        rows."""
        return 0

    def take(self, table: Table, state: State, measured: Mapping[str, float]) -> State:
        """The state once what was asked for is measured, by source; pure."""
        raise NotImplementedError

    def told(self, table: Table, state: State, rows: Sequence[int]) -> dict[str, Any]:
        """What the record has to say of a draw: enough for `reason`. Lists of as many items as there are rows go by
        row."""
        return {}

    @staticmethod
    def reason(window: Mapping[str, Any], place: int) -> str:
        """Why the prompt at a place of a recorded window was drawn, in words, from what `told` put down."""
        raise NotImplementedError


@dataclass(frozen=True)
class Sampler:
    """A curriculum over a table: the protocol with nothing left to hand in.

    Attributes:
        curriculum: The settings.
        table: What it knows of the prompts.
    """

    curriculum: Curriculum
    table: Table

    @property
    def size(self) -> int:
        """The number of prompts."""
        return self.table.size

    def start(self, seed: int) -> State:
        """The state before the first draw."""
        return self.curriculum.start(self.table, seed)

    def draw(self, state: State, count: int) -> list[int]:
        """The next prompts."""
        return self.curriculum.draw(self.table, state, count)

    def observe(self, state: State, outcomes: Sequence[Outcome]) -> State:
        """The state after their rollouts."""
        return self.curriculum.observe(self.table, state, outcomes)

    def ask(self, state: State) -> Asked | None:
        """What is to be measured before the next draw."""
        return self.curriculum.ask(self.table, state)

    def take(self, state: State, measured: Mapping[str, float]) -> State:
        """The state once it is measured."""
        return self.curriculum.take(self.table, state, measured)

    def window(self, state: State, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """What is put down of a window: what was drawn from which state, what came of it, and what explains it."""
        rows = [outcome.row for outcome in outcomes]
        column = self.curriculum.source_of(list(self.table.columns))
        bests = [outcome.best for outcome in outcomes]
        scored = {
            "rewards": [list(outcome.rewards) for outcome in outcomes],
            "best": bests[0] if len(set(bests)) == 1 else bests,
        }
        return {
            "drawn": state["drawn"],
            "rows": rows,
            **(scored if any(outcome.rewards for outcome in outcomes) else {}),  # demonstrations have none
            **({"sources": [str(self.table.columns[column][row]) for row in rows]} if column else {}),
            **self.curriculum.told(self.table, state, rows),
        }


def outcomes_of(window: Mapping[str, Any]) -> list[Outcome]:
    """The outcomes that a recorded window had."""
    rows, best = window["rows"], window.get("best", 1.0)
    if "rewards" not in window:
        return [Outcome(row, ()) for row in rows]
    bests = best if isinstance(best, list) else [best] * len(rows)
    return [Outcome(row, tuple(rewards), top) for row, rewards, top in zip(rows, window["rewards"], bests, strict=True)]


def summed_up(windows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The windows of a step in numbers.

    Returns:
        `solve_rate`: the mean over its prompts of the rewards' share of the best, `None` where nothing was scored.
        `with_signal`: the share of prompts whose rewards were not all alike. `sources`: of each source the prompts that
        were drawn and their `solve_rate`, where sources are known.
    """
    outcomes = [outcome for window in windows for outcome in outcomes_of(window)]
    sources = [source for window in windows for source in window.get("sources", ())]
    shown: dict[str, list[Outcome]] = {}
    for source, outcome in zip(sources, outcomes, strict=False):
        shown.setdefault(source, []).append(outcome)
    numbers: dict[str, Any] = {
        "solve_rate": _mean_rate(outcomes),
        "with_signal": sum(any(of.advantages) for of in outcomes) / len(outcomes) if outcomes else None,
    }
    if sources:
        by = {name: {"prompts": len(some), "solve_rate": _mean_rate(some)} for name, some in sorted(shown.items())}
        numbers["sources"] = by
    return numbers


def counted(windows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The windows of demonstrations in numbers: `sources`, of each the `demonstrations` that were drawn; nothing where
    sources are not known."""
    sources = [source for window in windows for source in window.get("sources", ())]
    if not sources:
        return {}
    return {"sources": {name: {"demonstrations": sources.count(name)} for name in sorted(set(sources))}}


def _mean_rate(outcomes: Sequence[Outcome]) -> float | None:
    rates = [outcome.rate for outcome in outcomes if outcome.rate is not None]
    return round(statistics.fmean(rates), DIGITS) if rates else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
