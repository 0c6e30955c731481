"""What a hybrid checkpoint holds beyond the model, optimizer, scheduler and random state: JSON and safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from posttrain.errors import ResumeError

STATE = "posttrain.json"


def save_state(checkpoint: Path, state: dict[str, Any]) -> None:
    """Write the controller's state, the stream cursors and the window position (main process)."""
    (checkpoint / STATE).write_text(json.dumps(state, indent=1))


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Read what `save_state` wrote.

    Raises:
        ResumeError: The checkpoint was not written by `HybridTrainer`.
    """
    path = checkpoint / STATE
    if not path.is_file():
        raise ResumeError(
            f"{checkpoint.name} has no {STATE}",
            expected="a checkpoint that HybridTrainer wrote",
            where=str(checkpoint),
            fix="start from the model alone: pass it as `model`, without resume_from_checkpoint",
        )
    return json.loads(path.read_text())


def save_window(checkpoint: Path, rank: int, micro_batches: list[dict[str, Any]]) -> None:
    """Write the rollouts of a generation window that is not used up yet (each process its own)."""
    tensors = {
        f"{number}.{key}": value.detach().cpu().contiguous().clone()
        for number, batch in enumerate(micro_batches)
        for key, value in batch.items()
        if isinstance(value, torch.Tensor)
    }
    save_file(tensors, checkpoint / _window_name(rank))


def has_window(checkpoint: Path) -> bool:
    """Whether any process left rollouts that were not used up."""
    return any(checkpoint.glob(_window_name("*")))


def load_window(checkpoint: Path, rank: int, device: torch.device) -> list[dict[str, torch.Tensor]]:
    """Read what `save_window` wrote.

    Raises:
        ResumeError: There is no such file for this rank, as when the number of processes changed.
    """
    path = checkpoint / _window_name(rank)
    if not path.is_file():
        raise ResumeError(
            f"{checkpoint.name} holds no rollouts for process {rank}",
            expected="as many processes as when it was saved, for it was saved in the middle of a generation window",
            where=str(path),
            fix="resume with the same number of processes, or from a checkpoint at a window's end",
        )
    batches: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(path).items():
        number, key = name.split(".", 1)
        batches.setdefault(int(number), {})[key] = tensor.to(device)
    return [batches[number] for number in sorted(batches)]


def _window_name(rank: int | str) -> str:
    return f"rollouts-rank{rank}.safetensors"
