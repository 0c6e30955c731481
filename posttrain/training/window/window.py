"""The rows of a generation window: which optimizer step trains on which, and how a window moves between processes.

A window is what one generation samples over all processes. Process r of W holds the r-th of W equal shares of its rows
in order. A row with the global number g is trained in optimizer step `g % steps` of the window, so that the rows of a
step depend neither on the number of processes nor on how a step is cut into micro-batches. Pure functions on tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from posttrain.training.window.plan import Row

Rollouts = dict[str, Any]
"""Tensors and lists by name, with one row per completion; a tensor without dimensions, or `None`, belongs to the window
as a whole."""

LEFT_PADDED = ("prompt_ids", "prompt_mask")
"""What is padded on the left; all else is padded on the right."""

ON_COMPLETIONS = (
    "completion_ids", "completion_mask", "tool_mask", "advantages", "old_per_token_logps", "ref_per_token_logps",
    "sampling_per_token_logps", "importance_sampling_ratio", "snapshot_logps", "demonstrated",
    "teacher_per_token_logps",
)  # fmt: skip
"""What has a column per token of a completion, though some of it may have one column, or none, for all of them."""

ABSENT = {"snapshot_logps": math.nan, "importance_sampling_ratio": 1.0, "teacher_per_token_logps": math.nan}
"""What padding holds where it is not 0."""

EMPTY: Rollouts = {}
"""A micro-batch without rows."""


def optimizer_steps(steps_per_generation: int, accumulation: int) -> int:
    """Optimizer steps that share out a window's rows; each is of whole micro-batches.

    Args:
        steps_per_generation: Micro-batches in a window.
        accumulation: Micro-batches in an optimizer step.

    Returns:
        1 if an optimizer step takes whole windows. If neither divides the other, the number of micro-batches: then the
        order depends on the cut.
    """
    if steps_per_generation % accumulation == 0:
        return steps_per_generation // accumulation
    return 1 if accumulation % steps_per_generation == 0 else steps_per_generation


def cut(rollouts: Rollouts, *, micro_batches: int, steps: int) -> list[Rollouts]:
    """One process's share of a window as micro-batches, in the order in which they are trained on.

    Args:
        rollouts: The share, in the order of the rows' global numbers. The first row's number must be divisible by
            `steps`, as it is for equal shares of whole micro-batches.
        micro_batches: How many to make.
        steps: Optimizer steps that the window is for (see `optimizer_steps`).
    """
    count = row_count(rollouts)
    order = [row for step in range(steps) for row in range(step, count, steps)]
    size = count // micro_batches
    return [pick(rollouts, order[start : start + size]) for start in range(0, count, size)]


def join(batches: Sequence[Rollouts], *, steps: int) -> Rollouts:
    """Undo `cut`: the share in the order of the rows' global numbers."""
    together = stack(batches)
    count = row_count(together)
    order = [row for step in range(steps) for row in range(step, count, steps)]
    back = [0] * count
    for place, row in enumerate(order):
        back[row] = place
    return pick(together, back)


def share(shares: Sequence[Rollouts], *, rank: int, world_size: int) -> Rollouts:
    """One process's share of a window that other processes held.

    Args:
        shares: Each former process's share, in the order of ranks. Widths may differ: padding evens them out.
        rank: The process that asks, of `world_size`.
    """
    if len(shares) == world_size:
        return shares[rank]  # as it was, to the last bit: no padding that was not there
    together = stack(shares)
    size = row_count(together) // world_size
    return pick(together, range(rank * size, (rank + 1) * size))


def sequences(rollouts: Rollouts) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Token ids (B, P + C) of prompts and completions together, their mask, and C."""
    ids = torch.cat([rollouts["prompt_ids"], rollouts["completion_ids"]], dim=1)
    mask = torch.cat([rollouts["prompt_mask"], rollouts["completion_mask"]], dim=1)
    return ids, mask, rollouts["completion_ids"].size(1)


def row_count(rollouts: Rollouts) -> int:
    """Completions in a share or micro-batch."""
    return len(rollouts["completion_ids"]) if rollouts else 0


def loss_mask(rollouts: Rollouts) -> torch.Tensor:
    """(B, C) which tokens a loss is made of: the completions', without those that a tool wrote."""
    mask = rollouts["completion_mask"]
    return mask * rollouts["tool_mask"] if "tool_mask" in rollouts else mask


def has_advantage(rollouts: Rollouts) -> torch.Tensor:
    """(B,) rows with an advantage other than 0, at any of their tokens if each has its own."""
    return (rollouts["advantages"] != 0).reshape(row_count(rollouts), -1).any(dim=1)


def needed(rollouts: Rollouts) -> torch.Tensor:
    """(B,) rows that add to the loss, and those on which the KL to the starting policy is measured."""
    adds = has_advantage(rollouts) & loss_mask(rollouts).any(dim=1)
    if "demonstrated" in rollouts:
        credit = (rollouts["credit"] != 0) | (rollouts["nll"] != 0)
        adds = adds | (credit & rollouts["demonstrated"].bool().any(dim=1))
    if "guided" in rollouts:
        adds = adds | (rollouts["guided"] != 0)
    if "snapshot_logps" in rollouts:
        adds = adds | ~rollouts["snapshot_logps"].isnan().all(dim=1)
    return adds


def facts(rollouts: Rollouts, *, first: int, group: int, drop: bool) -> list[Row]:
    """What a plan needs to know of a share's rows.

    Args:
        rollouts: The share.
        first: The global number of its first row.
        group: Rows per prompt, G.
        drop: Whether only some rows are needed (see `needed`); otherwise all are.
    """
    lengths = [rollouts[name].sum(dim=1).tolist() for name in ("prompt_mask", "completion_mask")]
    wanted = needed(rollouts).tolist() if drop else [True] * row_count(rollouts)
    columns = zip(*lengths, wanted, strict=True)
    return [Row(number, number // group, *of) for number, of in enumerate(columns, start=first)]


def trimmed(rollouts: Rollouts, *, prompts: bool = True) -> Rollouts:
    """Without the columns that are padding in every row.

    Args:
        rollouts: Returned as they are if they have a column of another name that is as wide as prompts or completions:
            which of the two it goes with, only who made it knows.
        prompts: Whether prompts are trimmed too. It moves all tokens to earlier columns.
    """
    widths = {rollouts[name].size(1) for name in ("prompt_ids", "completion_ids")}
    others = [value for name, value in rollouts.items() if name not in (*LEFT_PADDED, *ON_COMPLETIONS)]
    if any(isinstance(value, torch.Tensor) and value.dim() > 1 and value.size(1) in widths for value in others):
        return rollouts
    prompt = max(1, int(rollouts["prompt_mask"].sum(dim=1).max()))
    completion = max(1, int(rollouts["completion_mask"].sum(dim=1).max()))
    width = rollouts["completion_ids"].size(1)

    def trim(name: str, value: Any) -> Any:
        if name in LEFT_PADDED:
            return value[:, -prompt:] if prompts else value
        if name in ON_COMPLETIONS and isinstance(value, torch.Tensor) and value.dim() == 2 and value.size(1) == width:
            return value[:, :completion]
        return value

    return {name: trim(name, value) for name, value in rollouts.items()}


def sampled_rows(count: int, *, steps: int, portion: float) -> list[int]:
    """Evenly spaced row numbers of a window, as many of each optimizer step's, at least one.

    Args:
        count: Rows in the window, over all processes.
        steps: Optimizer steps that the window is for.
        portion: Of a step's rows, from 0 to 1.
    """
    of_step = count // steps
    wanted = min(of_step, max(1, round(portion * of_step)))
    places = [round(i * (of_step - 1) / max(1, wanted - 1)) for i in range(wanted)]
    return sorted({place * steps + step for step in range(steps) for place in places})


def pick(rollouts: Rollouts, rows: Sequence[int]) -> Rollouts:
    """Some rows, by their places in `rollouts`."""
    index = torch.tensor(list(rows), dtype=torch.long)
    return {name: _picked(value, index) for name, value in rollouts.items()}


def _picked(value: Any, index: torch.Tensor) -> Any:
    if isinstance(value, torch.Tensor):
        return value[index.to(value.device)] if value.dim() else value
    return value if value is None else [value[row] for row in index]


def stack(parts: Sequence[Rollouts]) -> Rollouts:
    """Rows of all parts, in order; padding evens out widths."""
    first = parts[0]
    return {name: _stacked([part[name] for part in parts], name) for name in first}


def _stacked(values: list[Any], name: str) -> Any:
    if isinstance(values[0], torch.Tensor):
        return torch.cat(_evened(values, name)) if values[0].dim() else values[0]
    return values[0] if values[0] is None else [row for value in values for row in value]


def _evened(tensors: list[torch.Tensor], name: str) -> list[torch.Tensor]:
    """Tensors (rows, width) padded to the widest."""
    width = max(tensor.size(1) if tensor.dim() > 1 else 0 for tensor in tensors)
    fill = ABSENT.get(name, 0)
    evened = []
    for tensor in tensors:
        missing = width - tensor.size(1) if tensor.dim() > 1 else 0
        sides = (missing, 0) if name in LEFT_PADDED else (0, missing)
        evened.append(torch.nn.functional.pad(tensor, sides, value=fill) if missing else tensor)
    return evened
