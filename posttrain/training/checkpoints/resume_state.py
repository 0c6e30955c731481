"""What a hybrid checkpoint holds beyond the model, optimizer, scheduler and random state: JSON and safetensors.

Nothing in it depends on the number of processes: cursors count rows of the whole run, and the rollouts of a window that
is not used up can be shared out anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from posttrain.errors import ResumeError
from posttrain.storage.checkpoints import step_of
from posttrain.training.budget import Budget
from posttrain.training.saved import saved_tensors
from posttrain.training.window import window
from posttrain.training.window.cut import Cut

STATE = "posttrain.json"
FORMAT = 3
"""Of `STATE` and the rollouts beside it; 1 counted micro-batches and had no number."""

READABLE = (2, 3)
"""Formats that are read: 2 has the same rows, with log-probabilities of all of them."""


def save_state(checkpoint: Path, state: dict[str, Any]) -> None:
    """Write the controller's state, the stream cursors and the window position (main process)."""
    (checkpoint / STATE).write_text(json.dumps({"format": FORMAT, **state}, indent=1))


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Read what `save_state` wrote.

    Raises:
        ResumeError: The checkpoint was not written by `HybridTrainer`, or by one of another time.
    """
    path = checkpoint / STATE
    fix = "start from the model alone: pass it as `model`, without resume_from_checkpoint"
    if not path.is_file():
        raise ResumeError(
            f"{checkpoint.name} has no {STATE}",
            expected="a checkpoint that HybridTrainer wrote",
            where=str(checkpoint),
            fix=fix,
        )
    state = json.loads(path.read_text())
    if state.get("format") not in READABLE:
        raise ResumeError(
            f"{checkpoint.name} has the format {state.get('format', 1)}",
            expected=f"format {' or '.join(map(str, READABLE))}: the order of a window's rows is another one now",
            where=str(path),
            fix=f"go on with the version of posttrain that wrote it, or {fix}",
        )
    return state


def budget_was_over(budget: Mapping[str, Any] | None, checkpoint: Path) -> bool:
    """Whether a budget is given and nothing of it was left at a checkpoint, so that no step is to come."""
    limit = Budget.of(budget)
    if limit is None:
        return False
    spent = load_state(checkpoint).get("spent")  # not of one of another time
    return spent is not None and limit.is_over(spent, step_of(checkpoint))


def describe_window(cut: Cut, processes: int) -> dict[str, int]:
    """What the state says of rollouts that are saved beside it."""
    return {"rows": cut.rows, "steps": cut.steps, "iterations": cut.iterations, "processes": processes}


def save_window(checkpoint: Path, rank: int, share: dict[str, Any]) -> None:
    """Write this process's share of a window that is not used up: all rows, in the order of their global numbers."""
    kept = {name: value for name, value in share.items() if isinstance(value, torch.Tensor)}
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in kept.items()}
    save_file(tensors, checkpoint / _window_name(rank))


def load_window(
    checkpoint: Path, saved: dict[str, int], cut: Cut, *, rank: int, world_size: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """This process's share of a saved window, which any number of processes may have shared.

    Args:
        checkpoint: Where `save_window` wrote.
        saved: What `describe_window` said of it.
        cut: How windows are cut now.
        rank, world_size: This process among those that share the window now.
        device: Where the tensors are to lie.

    Raises:
        ResumeError: Windows are of other sizes now, or a file is missing or torn.
    """
    if (cut.rows, cut.steps, cut.iterations) != (saved["rows"], saved["steps"], saved["iterations"]):
        raise ResumeError(
            f"{checkpoint.name} lies inside a window of {saved['rows']} completions for {saved['steps']} optimizer "
            f"steps, {saved['iterations']} times; now a window has {cut.rows} for {cut.steps}, {cut.iterations} times",
            expected="the same in all: the batch size times accumulation times processes, steps_per_generation in "
            "optimizer steps, num_iterations",
            where=str(checkpoint),
            fix="set them as they were, or resume from a checkpoint at a window's end",
        )
    files = [checkpoint / _window_name(former) for former in range(saved["processes"])]
    if len(files) == world_size:
        shares: list[dict[str, Any]] = [{}] * world_size
        shares[rank] = _read(files[rank])
    else:
        shares = [_read(file) for file in files]
    own = window.share(shares, rank=rank, world_size=world_size)
    return {name: value.to(device) for name, value in own.items()}


def check_start(saved: str | None, present: str | None) -> None:
    """The policy that KL is measured from is the same as before.

    Args:
        saved, present: Fingerprints; `None` where no KL is measured.

    Raises:
        ResumeError: It is another one.
    """
    if saved and present and saved != present:
        raise ResumeError(
            "the model handed to the trainer is not the one that this run began with",
            expected="the warmed-up policy: KL is measured from it",
            where="model",
            fix="pass the same model as before; the checkpoint's weights are loaded on top of it",
        )


def _read(file: Path) -> dict[str, torch.Tensor]:
    return saved_tensors(file, f"rollouts of the window that {file.parent.name} lies inside")


def _window_name(rank: int) -> str:
    return f"rollouts-rank{rank}.safetensors"
