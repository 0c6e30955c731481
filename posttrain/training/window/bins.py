"""A window's micro-batches as `plan.py` has them, on every process: rows move to where they are trained on."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from posttrain.processes.ranks import Ranks
from posttrain.training.window import window
from posttrain.training.window.cut import Cut
from posttrain.training.window.plan import Limits, Plan, Row, plan_step, positions
from posttrain.training.window.window import Rollouts


class Planned(NamedTuple):
    """One process's micro-batches of a window.

    Attributes:
        batches: In the order in which they are trained on; `window.EMPTY` where there is nothing to do.
        numbers: Of each micro-batch's rows, among all rows of the window.
        positions: Token positions that each micro-batch's forward pass computes.
        padded: Those of TRL's micro-batch.
        tokens: Of each micro-batch's optimizer step, those that its loss would be made of if no row were dropped, on
            this process and per micro-batch.
    """

    batches: list[Rollouts]
    numbers: list[list[int]]
    positions: list[int]
    padded: int
    tokens: list[float]


class More(NamedTuple):
    """Rows of a window that were not sampled, such as demonstrations of its prompts, on one process.

    Attributes:
        rows: With the columns of the rollouts.
        numbers: Theirs, above those of all rollouts.
        groups: The prompts that they belong to, by number.
        needed: Whether each must be trained on.
    """

    rows: Rollouts
    numbers: list[int]
    groups: list[int]
    needed: list[bool]

    def facts(self) -> list[Row]:
        """What a plan needs to know of them."""
        if not self.numbers:
            return []
        lengths = [self.rows[name].sum(dim=1).tolist() for name in ("prompt_mask", "completion_mask")]
        columns = zip(self.numbers, self.groups, *lengths, self.needed, strict=True)
        return [Row._make(of) for of in columns]


class WindowBins:
    """Plans windows and has their rows moved between processes. All processes call its methods at once.

    Args:
        cut: How the trainer cuts its windows.
        ranks: The processes of the run.
        group: Rows per prompt, G.
        drop: Leave out rows that no loss and no KL needs.
        packed: Whether a forward pass packs its rows.
        fill: No micro-batch may be empty.
        by_column: Whether the model tells positions by columns, so that prompts' padding must stay. For one process
            alone: others pad prompts to other widths.
    """

    def __init__(
        self, cut: Cut, ranks: Ranks, *, group: int, drop: bool, packed: bool, fill: bool, by_column: bool = False
    ):
        assert not by_column or ranks.count == 1
        self._cut, self._ranks, self._group = cut, ranks, group
        self._drop, self._packed, self._fill, self._by_column = drop, packed, fill, by_column

    def plan(self, share: Rollouts, more: More | None = None) -> Planned:
        """This process's micro-batches of a window.

        Args:
            share: The rows that it sampled, in the order of their global numbers, as TRL makes them.
            more: Further rows of its groups, which were not sampled; all processes give some, or none does.
        """
        cut, count = self._cut, window.row_count(share)
        own = window.facts(share, first=count * self._ranks.number, group=self._group, drop=self._drop)
        if self._by_column and not self._packed:
            own = [row._replace(prompt=share["prompt_ids"].size(1)) for row in own]
        others = more.facts() if more else []
        held = self._ranks.gathered([tuple(row) for row in [*own, *others]])
        rows = {row.number: row for part in held for row in map(Row._make, part)}
        owner = {of[0]: rank for rank, part in enumerate(held) for of in part}
        per_step, total = cut.micro_batches // cut.steps, count * self._ranks.count
        of_step: list[list[Row]] = [[] for _ in range(cut.steps)]
        for row in sorted(rows.values()):
            of_step[(row.number if row.number < total else row.group) % cut.steps].append(row)
        # What was not sampled makes more rows than micro-batches were meant for
        batch = max(count // cut.micro_batches, *(-(-len(of) // (per_step * self._ranks.count)) for of in of_step))
        budget = batch * (max(row.prompt for row in rows.values()) + max(row.completion for row in rows.values()))
        limits = Limits(self._ranks.count, per_step, batch, budget, self._packed, self._fill)
        plans = [plan_step(of, limits) for of in of_step]
        numbers = [places for plan in plans for places in plan[self._ranks.number]]
        whole = window.stack([share, more.rows]) if more and others else share
        pool, place = self._brought(whole, [row.number for row in [*own, *others]], owner, plans)
        tokens = window.loss_mask(share).sum(dim=1)
        return Planned(
            [self._batch(pool, [place[n] for n in of]) if of else window.EMPTY for of in numbers],
            numbers,
            [positions([rows[n] for n in of], packed=self._packed) for of in numbers],
            count // cut.micro_batches * (share["prompt_ids"].size(1) + share["completion_ids"].size(1)),
            [float(tokens[step :: cut.steps].sum()) / per_step for step in range(cut.steps) for _ in range(per_step)],
        )

    def _batch(self, pool: Rollouts, rows: list[int]) -> Rollouts:
        return window.trimmed(window.pick(pool, rows), prompts=not self._by_column)

    def brought_home(self, planned: Planned, name: str, share: Rollouts) -> torch.Tensor:
        """A column (rows, C) of the micro-batches as one of the share; NaN in rows that are in no micro-batch.

        Where a micro-batch is narrower than the share, its rows have 0.
        """
        count = window.row_count(share)
        first = count * self._ranks.number
        batches = [(of, batch[name]) for of, batch in zip(planned.numbers, planned.batches, strict=True) if of]
        column = torch.full(share["completion_ids"].shape, math.nan, dtype=batches[0][1].dtype)
        for part in self._ranks.gathered([(of, values.cpu()) for of, values in batches]):
            for numbers, values in part:
                mine = [place for place, number in enumerate(numbers) if first <= number < first + count]
                rows = torch.tensor([numbers[place] - first for place in mine], dtype=torch.long)
                missing = column.size(1) - values.size(1)
                column[rows] = torch.nn.functional.pad(values[mine], (0, missing))
        return column.to(share["completion_ids"].device)

    def _brought(
        self, held: Rollouts, numbers: list[int], owner: dict[int, int], plans: list[Plan]
    ) -> tuple[Rollouts, dict[int, int]]:
        """All rows that this process trains on among others, and where each is, by number.

        Args:
            held: What is here, and `numbers` of its rows.
            owner: The process that holds each row, by number.
            plans: Of the window's optimizer steps.
        """
        me = self._ranks.number
        place = {number: row for row, number in enumerate(numbers)}
        wanted = [
            sorted({number for plan in plans for of in plan[rank] for number in of})
            for rank in range(self._ranks.count)
        ]
        moves = [[number for number in of if owner[number] != rank] for rank, of in enumerate(wanted)]
        if not any(moves):
            return held, place
        given = {rank: [number for number in of if owner[number] == me] for rank, of in enumerate(moves)}
        parcels = {rank: self._parcel(held, [place[n] for n in of]) for rank, of in given.items() if of}
        device = held["completion_ids"].device
        arrived = [
            {
                name: value.to(device) if isinstance(value, torch.Tensor) else value
                for name, value in parcels[me].items()
            }
            for parcels in self._ranks.gathered(parcels)
            if me in parcels
        ]
        # Each process sends in the order of numbers, and parcels are in the order of ranks
        come = sorted(moves[me], key=lambda number: (owner[number], number))
        place |= {number: len(numbers) + row for row, number in enumerate(come)}
        return window.stack([held, *arrived]), place

    def _parcel(self, share: Rollouts, rows: list[int]) -> Rollouts:
        part = window.trimmed(window.pick(share, rows))
        return {
            name: value.detach().cpu().contiguous() if isinstance(value, torch.Tensor) else value
            for name, value in part.items()
        }
