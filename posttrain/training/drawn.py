"""Prompts as a curriculum draws them: a stream like any other, whose state is the curriculum's.

Row i of the stream is what the curriculum draws as its (i - drawn)th from its state, `drawn` being how many prompts
that state has seen. So the stream may be asked for further rows of a window, and every process has the same; once a
window's rollouts are scored, `observe` moves the state on.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from posttrain.controllers import Controller
from posttrain.curricula import CURRICULA, Curriculum, Sampler
from posttrain.curricula.base import DIGITS, Outcome, State
from posttrain.curricula.beside import EXPECTED, refused
from posttrain.errors import ConfigError
from posttrain.methods import Method
from posttrain.nearest import hint
from posttrain.training.streams import Stream


class Drawn(Stream):
    """Row numbers of one data set as a curriculum draws them.

    Args:
        sampler: The curriculum over these rows.
        seed: Run seed.
        name: What the rows are.

    Attributes:
        state: The curriculum's, after all windows that were scored.
    """

    def __init__(self, sampler: Sampler, *, seed: int, name: str = "prompts"):
        super().__init__(sampler.size, seed=seed, name=name)
        self.sampler = sampler
        self.state: State = sampler.start(seed)
        self._next: list[int] = []  # drawn from the state so far

    def row(self, index: int) -> int:
        """The row number at position `index`, one of those that are drawn from the present state."""
        place = index - self.state["drawn"]
        if place < 0:
            raise ValueError(f"row {index} was drawn from an earlier state: {self.state['drawn']} prompts were scored")
        if place >= len(self._next):
            self._next = self.sampler.draw(self.state, max(place + 1, 2 * len(self._next), 8))
        return self._next[place]

    def drawn_rows(self) -> list[int]:
        """The rows up to the cursor that were taken from the present state."""
        return [self.row(place) for place in range(self.state["drawn"], self.cursor)]

    def observe(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """Take in what the prompts up to the cursor gave, in the order in which they were drawn.

        Returns:
            The window's record.
        """
        window = self.sampler.window(self.state, outcomes)
        self.state, self._next = self.sampler.observe(self.state, outcomes), []
        if self.state["drawn"] != self.cursor:
            raise ValueError(f"{self.cursor} {self.name} were taken, and {self.state['drawn']} were scored")
        return window

    def take_in(self, measured: Mapping[str, float]) -> None:
        """Take in what the curriculum had asked for, before anything is drawn by it."""
        self.state, self._next = self.sampler.take(self.state, measured), []

    @property
    def fingerprint(self) -> str:
        """Of the state: what all processes have alike."""
        return hashlib.blake2b(json.dumps(self.state).encode(), digest_size=8).hexdigest()

    def saved(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"name": self.sampler.curriculum.name, "state": self.state}

    def go_on(self, saved: dict[str, Any] | None, cursor: int) -> None:
        """Take up what a checkpoint kept, which may be of another curriculum, or of none.

        Args:
            saved: From `saved`.
            cursor: Prompts that were taken until then.
        """
        fresh = self.sampler.start(self.seed)
        state = (saved or {}).get("state") or {}
        name, before = self.sampler.curriculum.name, (saved or {}).get("name")
        same = before == name and state.keys() == fresh.keys() and _alike(state, fresh)
        if not same and (self.sampler.curriculum.adaptive or self.sampler.curriculum.asks):
            rows = self.name
            other = f"was of the curriculum {before}" if before and before != name else f"knows other {rows} or none"
            warnings.warn(f"the checkpoint {other}: {name} begins anew at {rows[:-1]} {cursor:,}", stacklevel=2)
        self.state, self._next = {**(state if same else fresh), "drawn": cursor, "seed": self.seed}, []
        self.cursor = cursor


def _alike(state: State, fresh: State) -> bool:
    """Whether a state is over as many prompts and the same sources."""
    sources = [[set(each.get(name, ())) for name in ("sources", "taken")] for each in (state, fresh)]
    return state.get("size") == fresh.get("size") and sources[0] == sources[1]


def curriculum_of(given: Any) -> Curriculum | Sampler | None:
    """A curriculum, by its name with its own defaults, or as it is.

    Raises:
        ConfigError: It is no curriculum.
    """
    if given is None or isinstance(given, Curriculum | Sampler):
        return given
    if isinstance(given, str) and given in CURRICULA:
        return CURRICULA[given]()
    named = isinstance(given, str)
    seen = f"no curriculum named {given!r}{hint(given, CURRICULA)}" if named else f"curriculum is {given!r}"
    expected = f"one such as DUMP(source='people'), or its name: {', '.join(CURRICULA)}"
    raise ConfigError(seen, expected=expected, where="curriculum", fix="curriculum=BOTS()")


def check_curriculum(
    given: Curriculum | Sampler | None, controller: Controller, method: Method | None, environment_factory: Any = None
) -> None:
    """Refuse a curriculum beside what it has no say over, or cannot learn from.

    Raises:
        ConfigError: With what to change.
    """
    if given is None:
        return
    curriculum = given.curriculum if isinstance(given, Sampler) else given
    if environment_factory is not None:
        raise ConfigError(
            f"the curriculum {curriculum.name}, and an environment that makes its prompts",
            expected="rows of train_dataset to draw from",
            where="curriculum",
            fix="leave the curriculum out",
        )
    if seen := refused(curriculum, controller, method):
        raise ConfigError(seen, expected=EXPECTED, where="curriculum", fix="leave the curriculum out, or the other")


def stream_of(given: Curriculum | Sampler | None, rows: Any, *, seed: int, shuffle: bool) -> Stream:
    """The stream of a data set's rows, as a curriculum draws them where there is one.

    Raises:
        DataError: Rows lack what the curriculum needs.
        ConfigError: The curriculum is over another number of rows.
    """
    if given is None:
        return Stream(len(rows), seed=seed, name="prompts", shuffle=shuffle)
    sampler = given if isinstance(given, Sampler) else Sampler(given, given.table(rows, rows.column_names))
    if sampler.size != len(rows):
        raise ConfigError(
            f"a curriculum over {sampler.size} rows",
            expected=f"one over the {len(rows)} rows of train_dataset",
            where="curriculum",
            fix="make its table from train_dataset",
        )
    return Drawn(sampler, seed=seed)


def outcomes_of_window(rows: Sequence[int], rewards: Any, weights: Any, summed: Callable[[Any], Any]) -> list[Outcome]:
    """What a window's rollouts gave, by prompt.

    Args:
        rows: The prompts' numbers, N.
        rewards: (N * G, F), NaN where a reward does not apply; a prompt's rows after each other.
        weights: (F,) of the rewards.
        summed: Gives (N * G,) the weighted sums, NaN where none applies.
    """
    group = len(rewards) // len(rows)
    totals = summed(rewards).tolist()
    applies = ~rewards.isnan()
    bests = (applies * weights.clamp(min=0.0)).sum(dim=1).tolist()
    found = []
    for number, row in enumerate(rows):
        part = slice(number * group, (number + 1) * group)
        # A function of one's own may give what no mean or spread can be taken of
        known = tuple(round(total, DIGITS) if math.isfinite(total) else None for total in totals[part])
        found.append(Outcome(row, known, round(max(bests[part]), DIGITS)))
    return found
