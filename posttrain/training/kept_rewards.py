"""Reward functions of a batch that is sampled, and scored, bit by bit: each row is scored once, when it is due.

`GRPOTrainer` asks its reward functions for whole batches, whose rows it gathers from all processes. A `KeptReward`
stands in a function's place: it hands on the rows that are due, and answers for the others what it was told of them
before. So the trainer may ask for the whole batch as often as it likes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import isawaitable
from typing import Any, NamedTuple

from trl.trainer.utils import is_async_callable

from posttrain.scoring.score import TRL_EXTRAS

NOT_YET = 0.0
"""Reward of a row that has not been due: nothing that looks like an error, and nothing that anybody trains on."""


class Known(NamedTuple):
    """What a function has said of a row: its reward, its outcome where it has them, what it logged by column."""

    value: float | None
    outcome: Any
    logged: dict[str, Any]


class KeptRewards:
    """The reward functions of a trainer.

    Args:
        functions: As `GRPOTrainer.reward_funcs` holds them; no models.

    Attributes:
        functions: What stands in their places.
        due: This process's rows that are scored in the next call. `None`, outside of a batch, hands everything on.
        ended: Whether all rows have been scored, so that nothing is handed on.
    """

    def __init__(self, functions: Sequence[Callable[..., Any]]):
        self.due: list[int] | None = None
        self.ended = False
        self.functions = [
            (_AsyncKeptReward if is_async_callable(function) else KeptReward)(function, self) for function in functions
        ]

    def begin(self, rows: int) -> None:
        """Forget all, and expect a batch of so many rows."""
        self.due, self.ended = [], False
        for function in self.functions:
            function.begin(rows)

    def known(self) -> list[list[Known]]:
        """What is known of each row of the batch, by function."""
        return [list(of) for of in zip(*(function.known() for function in self.functions), strict=True)]

    def begin_known(self, rows: Sequence[Sequence[Known]]) -> None:
        """Expect a batch of rows of which all is known, from this process or another."""
        self.begin(len(rows))
        self.ended = True
        for function, of_rows in zip(self.functions, zip(*rows, strict=True), strict=True):
            function.know(of_rows)

    def end(self) -> None:
        """The batch is done with."""
        self.due, self.ended = None, False


class KeptReward:
    """One of them, called as TRL calls reward functions; its other attributes are the function's.

    Attributes:
        last_outcomes: Of all rows of the batch, where the function has them.
    """

    def __init__(self, function: Any, batch: KeptRewards):
        self.function, self.batch = function, batch
        self.begin(0)

    def begin(self, rows: int) -> None:
        """Forget all, and expect so many rows."""
        self.values: list[float | None] = [NOT_YET] * rows
        self._outcomes: list[Any] = [None] * rows
        self._logged: dict[str, list[Any]] = {}

    def known(self) -> list[Known]:
        """Of each row of the batch."""
        return [
            Known(value, outcome, {column: kept[row] for column, kept in self._logged.items()})
            for row, (value, outcome) in enumerate(zip(self.values, self._outcomes, strict=True))
        ]

    def know(self, rows: Sequence[Known]) -> None:
        """All of a batch that has begun."""
        self.values, self._outcomes = [of.value for of in rows], [of.outcome for of in rows]
        columns = dict.fromkeys(column for of in rows for column in of.logged)
        self._logged = {column: [of.logged.get(column) for of in rows] for column in columns}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__.get("function"), name)

    @property
    def last_outcomes(self) -> list[Any]:
        """Of all rows of the batch; of the function's last call outside of one."""
        inside = self.batch.due is not None
        return self._outcomes if inside and None not in self._outcomes else getattr(self.function, "last_outcomes", [])

    def __call__(self, **given: Any) -> Any:
        """A reward of each row of the whole batch; `given` are lists of these rows, and TRL's extras."""
        due = self.batch.due
        if due is None:
            return self.function(**given)
        if not self._has_work():
            return self._all(given)
        return self._keep(self.function(**self._of_due(given)))

    def _has_work(self) -> bool:
        """Whether the function is called. One that several processes score in together is, also without rows here."""
        return not self.batch.ended and bool(self.batch.due or hasattr(self.function, "scorer"))

    def _of_due(self, given: dict[str, Any]) -> dict[str, Any]:
        due = self.batch.due or []
        part = {key: value if key in TRL_EXTRAS else [value[row] for row in due] for key, value in given.items()}
        if "log_extra" in part:
            part["log_extra"] = self._log
        return part

    def _log(self, column: str, values: Sequence[Any]) -> None:
        kept = self._logged.setdefault(column, [None] * len(self.values))
        for row, value in zip(self.batch.due or [], values, strict=True):
            kept[row] = value

    def _keep(self, values: Sequence[float | None]) -> list[float | None]:
        due = self.batch.due or []
        outcomes = getattr(self.function, "last_outcomes", None) or [None] * len(due)
        for row, value, outcome in zip(due, values, outcomes, strict=True):
            self.values[row], self._outcomes[row] = value, outcome
        return self.values

    def _all(self, given: dict[str, Any]) -> list[float | None]:
        if self.batch.ended and "log_extra" in given:
            for column, kept in self._logged.items():
                given["log_extra"](column, kept)
        return self.values


class _AsyncKeptReward(KeptReward):
    async def __call__(self, **given: Any) -> Any:
        asked = super().__call__(**given) if self.batch.due is None or not self._has_work() else None
        if asked is not None:
            return await asked if isawaitable(asked) else asked
        return self._keep(await self.function(**self._of_due(given)))
