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

    def plan(self, share: Rollouts) -> Planned:
        """This process's micro-batches of a window.

        Args:
            share: The rows that it sampled, in the order of their global numbers, as TRL makes them.
        """
        cut, count = self._cut, window.row_count(share)
        own = window.facts(share, first=count * self._ranks.number, group=self._group, drop=self._drop)
        if self._by_column and not self._packed:
            own = [row._replace(prompt=share["prompt_ids"].size(1)) for row in own]
        rows = [Row._make(row) for part in self._ranks.gathered([tuple(row) for row in own]) for row in part]
        per_step = cut.micro_batches // cut.steps
        batch = count // cut.micro_batches
        budget = batch * (max(row.prompt for row in rows) + max(row.completion for row in rows))
        limits = Limits(self._ranks.count, per_step, batch, budget, self._packed, self._fill)
        plans = [plan_step(rows[step :: cut.steps], limits) for step in range(cut.steps)]
        numbers = [places for plan in plans for places in plan[self._ranks.number]]
        pool, place = self._brought(share, plans)
        tokens = window.loss_mask(share).sum(dim=1)
        return Planned(
            [self._batch(pool, [place[n] for n in of]) if of else window.EMPTY for of in numbers],
            numbers,
            [positions([rows[n] for n in of], packed=self._packed) for of in numbers],
            batch * (share["prompt_ids"].size(1) + share["completion_ids"].size(1)),
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

    def _brought(self, share: Rollouts, plans: list[Plan]) -> tuple[Rollouts, dict[int, int]]:
        """All rows that this process trains on among others, and where each is, by number."""
        count, me = window.row_count(share), self._ranks.number
        first = count * me
        place = {first + row: row for row in range(count)}
        wanted = [
            sorted({number for plan in plans for of in plan[rank] for number in of})
            for rank in range(self._ranks.count)
        ]
        moves = [[number for number in of if number // count != rank] for rank, of in enumerate(wanted)]
        if not any(moves):
            return share, place
        given = {rank: [number for number in of if number // count == me] for rank, of in enumerate(moves)}
        parcels = {rank: self._parcel(share, [n - first for n in of]) for rank, of in given.items() if of}
        device = share["completion_ids"].device
        arrived = [
            {
                name: value.to(device) if isinstance(value, torch.Tensor) else value
                for name, value in parcels[me].items()
            }
            for parcels in self._ranks.gathered(parcels)
            if me in parcels
        ]
        # Each process sends in the order of numbers, and processes hold numbers in the order of ranks
        place |= {number: count + row for row, number in enumerate(moves[me])}
        return window.stack([share, *arrived]), place

    def _parcel(self, share: Rollouts, rows: list[int]) -> Rollouts:
        part = window.trimmed(window.pick(share, rows))
        return {
            name: value.detach().cpu().contiguous() if isinstance(value, torch.Tensor) else value
            for name, value in part.items()
        }
