"""The three row sets of a file: what is held out, what is prompted, what is demonstrated; and what is wrong if a set
cannot be had."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from posttrain.errors import DataError
from posttrain.tasks.row_counts import Tally
from posttrain.tasks.unreadable import Placed, Unreadable

T = TypeVar("T", bound=Placed)

HELD_OUT = 200
"""Rows that are held out where nothing says how many; a fifth of a file that has fewer than five times as many."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How many rows a recipe asks for; None leaves it to what there is.

    Args:
        train: Prompts. None: all that are left.
        demonstrations: None: all that are left; where rows are not shared and `train` is None too, at most half.
        eval: Held-out rows. None: all of a separate source, else a share of the rows (`held_out_share`).
        shared: Whether a row may be both a prompt and a demonstration.
        rows: What a row is called, in the plural.
        worked: What a row needs to be demonstrated.
    """

    train: int | None
    demonstrations: int | None
    eval: int | None
    shared: bool
    rows: str = "rows"
    worked: str = "a demonstration"


@dataclass(frozen=True)
class Parts(Generic[T]):
    """Rows of the three sets; a row stands in `train` and `demonstrations` only where they are shared."""

    train: list[T]
    demonstrations: list[T]
    eval: list[T]


def held_out_share(rows: int) -> int:
    """How many of so many rows are held out where a recipe does not say."""
    return min(HELD_OUT, max(rows // 5, min(rows, 1)))


@dataclass(frozen=True)
class Source(Generic[T]):
    """Rows of a file, each content once, with what became of the others.

    Args:
        rows: In the file's order.
        tally: Counts the others, and takes what becomes of these.
        unreadable: Knows which of `rows` are not to be trained or evaluated on.
    """

    rows: Sequence[T]
    tally: Tally
    unreadable: Unreadable


def split(
    main: Source[T],
    separate: Source[T] | None,
    want: Wanted,
    rng: random.Random,
    *,
    key: Callable[[T], Hashable],
    worked: Callable[[T], int],
) -> Parts[T]:
    """The rows in random order, in three sets.

    Args:
        main: Rows to train on.
        separate: Rows to evaluate on; None holds some of `main` out. Those that are among them are not trained on.
        want: How many of each.
        rng: Of the order.
        key: What makes two rows the same one.
        worked: How many demonstrations a row has.

    Raises:
        DataError: There are not as many rows as a number asks for; it says what took the others.
    """
    left, tally = list(main.rows), main.tally
    rng.shuffle(left)
    if separate is None:
        able = [row for row in left if main.unreadable.may_evaluate(row)]
        held_out = able[: held_out_share(len(able)) if want.eval is None else want.eval]
        taken = set(map(id, held_out))
        left = [row for row in left if id(row) not in taken]
        tally.add("held out", len(held_out))
    else:
        keys = {key(row) for row in separate.rows}  # all of it: another run may evaluate on more
        known = len(left)
        left = [row for row in left if key(row) not in keys]
        tally.add("among the evaluation rows", known - len(left))
        held_out = list(separate.rows)
        rng.shuffle(held_out)
        held_out = held_out if want.eval is None else held_out[: want.eval]
        separate.tally.add("held out", len(held_out))
        separate.tally.add("not asked for", len(separate.rows) - len(held_out))
    if want.eval is not None and len(held_out) < want.eval:
        raise _too_few_held_out(len(held_out), want, (separate or main).tally)
    for row in left:
        if not main.unreadable.may_train(row):
            main.unreadable.count(row, tally)
    left = [row for row in left if main.unreadable.may_train(row)]
    spare = sum(map(worked, held_out)) if separate is None else 0
    demonstrations = _demonstrations(left, spare, len(held_out), want, tally, worked)
    train = _train(left, demonstrations, want, tally)
    _count(left, train, demonstrations, tally)
    return Parts(train, demonstrations, held_out)


def _demonstrations(
    left: list[T], spare: int, held_out: int, want: Wanted, tally: Tally, worked: Callable[[T], int]
) -> list[T]:
    """Rows whose demonstrations are at least as many as asked for: the last may have more than are missing."""
    able = [row for row in left if worked(row)]
    if want.demonstrations is None:
        room = len(left) if want.shared else len(left) // 2 if want.train is None else max(len(left) - want.train, 0)
        return able[:room]
    taken, there = [], 0
    for row in able:
        if there >= want.demonstrations:
            break
        taken.append(row)
        there += worked(row)
    if there < want.demonstrations:
        raise _too_few_demonstrations(there, spare, held_out, len(left), want, tally)
    return taken


def _train(left: list[T], demonstrations: list[T], want: Wanted, tally: Tally) -> list[T]:
    shown = set() if want.shared else {id(row) for row in demonstrations}
    train = [row for row in left if id(row) not in shown]
    if want.train is None:
        return train
    if len(train) < want.train:
        raise _too_few_prompts(len(train), len(left), want, tally)
    return train[: want.train]


def _count(left: list[T], train: list[T], demonstrations: list[T], tally: Tally) -> None:
    prompts, shown = {id(row) for row in train}, {id(row) for row in demonstrations}
    tally.add("left for both", len(prompts & shown))
    tally.add("prompt", len(prompts - shown))
    tally.add("demonstration", len(shown - prompts))
    tally.add("not asked for", len(left) - len(prompts | shown))


def _too_few_held_out(there: int, want: Wanted, tally: Tally) -> DataError:
    return DataError(
        f"{there} different {want.rows} for eval ({tally.line()})",
        expected=f"{want.eval}, as task.eval says",
        where="task.eval",
        fix=f"set eval to {held_out_share(there)}, leave it out, or name more data",
    )


def _too_few_demonstrations(there: int, spare: int, held_out: int, left: int, want: Wanted, tally: Tally) -> DataError:
    asked = want.demonstrations or 0
    if left:
        seen = f"{there} of the {left} training rows have {want.worked}"
    else:
        seen = f"no row is left to train on, for eval takes {held_out}" if held_out else "no row is left to train on"
    fixes = [f"set demonstrations to {there}" + (" or less" if there else "")] if left else []
    if not there and left and not spare:
        fixes[0] += " (and use a controller without SFT)"
    enough = min(held_out - (asked - there), held_out_share(held_out + left))
    if spare >= asked - there and enough > 0:
        fixes.append(f"set eval to {enough} or less")
    fixes.append(f"name data with {want.worked}" if left else "name more data")
    return DataError(
        f"{seen} ({tally.line()})",
        expected=f"{asked}, as task.demonstrations says",
        where="task.demonstrations",
        fix=", or ".join(fixes),
    )


def _too_few_prompts(there: int, left: int, want: Wanted, tally: Tally) -> DataError:
    others = "eval" if want.shared else "eval and demonstrations"
    fixes = [f"set train to {there} or less"] if there else []
    fixes.append(f"lower {others.replace(' and ', ' or ')}")
    if not want.shared and left >= (want.train or 0):
        fixes.append("set shared: true")
    fixes.append("name more data")
    return DataError(
        f"{there} {want.rows} besides {others} for train ({tally.line()})",
        expected=f"{want.train}, as task.train says",
        where="task.train",
        fix=", or ".join(fixes),
    )
