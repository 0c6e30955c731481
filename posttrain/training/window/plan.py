"""Which rows of a generation window are trained on, and in which micro-batch of which process.

A row whose advantage is 0 adds nothing to most losses and is left out. The others of an optimizer step are put into as
few bins as their positions need, the same number on every process and, bin by bin, with the same number of rows: TRL's
metrics gather a value per row. A bin is a micro-batch; where there are fewer bins than micro-batches, the first
micro-batches are empty, for the last one is where gradients are reduced. The plan is a pure function of the lengths and
of which rows are needed, so that every process makes the same one and a resumed run makes it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple


class Row(NamedTuple):
    """What a plan needs to know of a completion.

    Attributes:
        number: Among all rows of the window, over all processes.
        group: Of its prompt.
        prompt, completion: Tokens.
        needed: Whether it must be trained on; the others are there to even out numbers.
    """

    number: int
    group: int
    prompt: int
    completion: int
    needed: bool


class Limits(NamedTuple):
    """What the bins of an optimizer step must keep to.

    Attributes:
        ranks: Processes that share the rows.
        bins: Micro-batches of each process.
        batch: Rows in a micro-batch that is not planned; `bins * batch * ranks` are all rows of the step.
        budget: Positions that a bin may have; at least those of any `batch` rows.
        packed: Rows of a group share their prompt's positions and none are padding; else rows are padded to the longest
            of their bin.
        fill: No bin may be empty.
    """

    ranks: int
    bins: int
    batch: int
    budget: int
    packed: bool
    fill: bool = False


Together = tuple[Row, ...]
"""One row for each process, in the order of ranks; they get the same place in the same bin."""

Unit = list[Together]
"""Rows that are better left together: with one process, a group."""

Plan = list[list[list[int]]]
"""By rank and micro-batch, the numbers of the rows; those of a group follow each other."""


def plan_step(rows: Sequence[Row], limits: Limits) -> Plan:
    """Share out the rows of an optimizer step.

    Args:
        rows: All rows of the step, over all processes, in the order of their numbers.
        limits: What to keep to.

    Returns:
        Every row that is needed once, each process's bins in the order in which they are trained on: empty ones first,
        then by falling size, so that what does not fit into memory shows at once.
    """
    chosen = _chosen(rows, limits)
    units = _groups(chosen, limits.ranks) if limits.packed else _by_length(chosen, limits)
    if limits.fill:
        bins = _evenly(units, limits)
    elif limits.packed:
        bins = _whole(units, limits) or _filled(units, limits)
    else:
        bins = units
    bins.sort(key=lambda unit: -max(_costs(unit, limits)))
    empty: list[list[int]] = [[] for _ in range(limits.bins - len(bins))]
    return [empty + [sorted(row.number for row in _of(unit, rank)) for unit in bins] for rank in range(limits.ranks)]


def positions(rows: Iterable[Row], *, packed: bool) -> int:
    """Token positions that a forward pass over rows of one bin computes."""
    rows = list(rows)
    if not packed:
        return len(rows) * (max(row.prompt for row in rows) + max(row.completion for row in rows)) if rows else 0
    return sum({row.group: row.prompt for row in rows}.values()) + sum(row.completion for row in rows)


def _chosen(rows: Sequence[Row], limits: Limits) -> list[Row]:
    """The rows that are needed, and the cheapest others that make their number one that can be shared out."""
    needed = [row for row in rows if row.needed]
    least = limits.ranks * (limits.bins if limits.fill else 1)
    missing = max(least - len(needed), -len(needed) % limits.ranks)
    groups = {row.group for row in needed} if limits.packed else set()

    def price(row: Row) -> tuple[bool, int, int]:
        shared = row.group in groups
        return (not row.completion, row.completion + (0 if shared else row.prompt), row.number)

    spare = sorted((row for row in rows if not row.needed), key=price)
    return sorted(needed + spare[:missing])


def _groups(rows: list[Row], ranks: int) -> list[Unit]:
    """Whole groups side by side on the processes, and in pieces those that don't come out even."""
    groups = [list(group) for _, group in groupby(rows, key=lambda row: row.group)]
    groups.sort(key=lambda group: (-len(group), -positions(group, packed=True)))
    lots: list[list[list[Row]]] = []
    rest: list[Row] = []
    for _, alike in groupby(groups, key=len):
        same = list(alike)
        even = len(same) // ranks * ranks
        lots += [same[start : start + ranks] for start in range(0, even, ranks)]
        rest += [row for group in same[even:] for row in group]
    units = [list(zip(*lot, strict=True)) for lot in _dealt(lots)]
    share = len(rest) // ranks
    parts = [rest[rank * share : (rank + 1) * share] for rank in range(ranks)]
    return units + _pieces(list(zip(*parts, strict=True)), max(map(len, groups)))


def _by_length(rows: list[Row], limits: Limits) -> list[Unit]:
    """Rows of similar length together, as many as a micro-batch has."""
    rows = sorted(rows, key=lambda row: (-(row.prompt + row.completion), row.number))
    ranks = limits.ranks
    lots = [[[row] for row in rows[start : start + ranks]] for start in range(0, len(rows), ranks)]
    return _pieces([tuple(row for (row,) in lot) for lot in _dealt(lots)], limits.batch)


def _dealt(lots: list[list[list[Row]]]) -> list[list[list[Row]]]:
    """Lots of a hand for each process, in the order of ranks: the largest hand goes to who has least so far."""
    loads = [0] * (len(lots[0]) if lots else 0)
    dealt = []
    for lot in lots:
        hands: list[list[Row]] = [[] for _ in loads]
        for rank, hand in zip(
            sorted(range(len(loads)), key=lambda rank: loads[rank]),
            sorted(lot, key=lambda hand: -positions(hand, packed=True)),
            strict=True,
        ):
            hands[rank] = hand
        loads = [load + positions(hand, packed=True) for load, hand in zip(loads, hands, strict=True)]
        dealt.append(hands)
    return dealt


def _whole(units: list[Unit], limits: Limits) -> list[Unit] | None:
    """Bins of whole units, as few as keep to the budget and of similar sizes; `None` if that takes too many."""
    costs = [(unit, _costs(unit, limits)) for unit in units]
    costs.sort(key=lambda pair: -max(pair[1]))
    if max(costs[0][1]) > limits.budget:
        return None
    fewest = -(-max(sum(of) for of in zip(*(cost for _, cost in costs), strict=True)) // limits.budget)
    for count in range(max(1, fewest), limits.bins + 1):
        bins: list[Unit] = [[] for _ in range(count)]
        loads = [[0] * limits.ranks for _ in range(count)]
        for unit, cost in costs:
            lightest = min(range(count), key=lambda place: max(loads[place]))
            bins[lightest] += unit
            loads[lightest] = [load + more for load, more in zip(loads[lightest], cost, strict=True)]
        if max(map(max, loads)) <= limits.budget:
            return [unit for unit in bins if unit]
    return None


def _filled(units: list[Unit], limits: Limits) -> list[Unit]:
    """Bins filled one after the other up to the budget, so that groups may be split.

    Any `batch` rows keep to the budget, so these are no more bins than there are micro-batches.
    """
    bins: list[Unit] = [[]]
    for together in (together for unit in units for together in unit):
        if bins[-1] and max(_costs([*bins[-1], together], limits)) > limits.budget:
            bins.append([])
        bins[-1].append(together)
    return bins


def _evenly(units: list[Unit], limits: Limits) -> list[Unit]:
    """As many bins as there are micro-batches, with numbers of rows that differ by at most 1."""
    flat = [together for unit in units for together in unit]
    edges = [place * len(flat) // limits.bins for place in range(limits.bins + 1)]
    return [flat[start:end] for start, end in pairwise(edges)]


def _pieces(unit: Unit, size: int) -> list[Unit]:
    return [unit[start : start + size] for start in range(0, len(unit), size)]


def _of(unit: Unit, rank: int) -> list[Row]:
    return [together[rank] for together in unit]


def _costs(unit: Unit, limits: Limits) -> list[int]:
    """Positions on each process."""
    return [positions(_of(unit, rank), packed=limits.packed) for rank in range(limits.ranks)]


def passes(prompts: Sequence[int], completions: Sequence[int], follows: Sequence[bool], budget: int) -> list[int]:
    """How many rows, in their order, each of several packed forward passes takes.

    Args:
        prompts, completions: Tokens of each row.
        follows: Whether a row has the prompt of the row before it.
        budget: Positions that a pass may have; a row that alone has more is a pass by itself.
    """
    counts: list[int] = []
    used = budget + 1
    for prompt, completion, same in zip(prompts, completions, follows, strict=True):
        more = completion + (0 if same else prompt)
        if used + more > budget or not counts:
            counts.append(0)
            used, more = 0, completion + prompt
        counts[-1] += 1
        used += more
    return counts
