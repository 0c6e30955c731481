"""What the hybrid stage has spent: seconds, tokens sampled and trained on, floating-point operations.

Seconds are those of its steps, from where a step's mix is decided to where its record is made: neither evaluations, nor
checkpoints, nor what comes before the first step. On CPUs they are CPU time: of this process with all its threads and
of its reward workers, added up over the processes of the run; so that what else runs on the machine does not count. On
GPUs they are wall time of the main process.

Operations are those of the cost model (`models.cost_counts`): matrix products and attention of the layers and the head,
counted from the positions that passed through the model. An adapter is counted as if all weights were trained.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import psutil
import torch

from posttrain.errors import ConfigError
from posttrain.models.cost_counts import ModelShape, Passes, pass_counts
from posttrain.processes.ranks import Ranks
from posttrain.training.ledger import Ledger

BACKWARD = {"sampled": False, "scored": False, "trained": True, "sft": True}
"""Kinds of passes, and whether they have gradients."""

Spent = dict[str, Any]
"""`seconds`, `sampled_tokens`, `trained_tokens` and `flops`; these are `None` for a model that the cost model lacks."""


def note_passes(
    ledger: Ledger,
    kind: str,
    prompts: torch.Tensor,
    completions: torch.Tensor,
    *,
    group: int = 1,
    positions: float | None = None,
) -> None:
    """Put down what passes through the model.

    Args:
        ledger: Of the step.
        kind: One of `BACKWARD`.
        prompts, completions: (B,) tokens of each row's prompt and of what is scored behind it.
        group: Rows that share one pass over their prompt.
        positions: That the passes compute, where it is known; else each prompt once a group, and the completions.
    """
    prompts, completions = prompts.float(), completions.float()
    pairs = (prompts**2 / 2 / group + prompts * completions + completions**2 / 2).sum()
    tokens = completions.sum()
    ledger.add(f"{kind} pairs", pairs)
    ledger.add(f"{kind} tokens", tokens)
    ledger.add(f"{kind} positions", prompts.sum() / group + tokens if positions is None else positions)


class Spending:
    """Sums of a stage, step by step.

    Args:
        config: Of the model.
        ranks: The processes of the run.
        on_cpu: Whether CPU time counts.
        workers: Gives the process ids of the reward workers.
        checkpointing: Activations are computed again.
    """

    def __init__(
        self,
        config: Any,
        ranks: Ranks,
        *,
        on_cpu: bool,
        workers: Callable[[], Iterable[int]] = tuple,
        checkpointing: bool = False,
    ):
        self._ranks, self._on_cpu, self._workers, self._checkpointing = ranks, on_cpu, workers, checkpointing
        self.shape: ModelShape | None = None
        with suppress(ConfigError, AttributeError):
            self.shape = ModelShape.of(config)
        self.so_far: Spent = {"seconds": 0.0, "sampled_tokens": 0, "trained_tokens": 0}
        self.so_far["flops"] = None if self.shape is None else 0.0
        self._began: dict[int, float] = {}

    def begin(self) -> None:
        """A step begins."""
        self._began = self._clocks()

    def finish(self, ledger: Ledger) -> Spent:
        """A step has ended; its sums are those of all processes (`Ledger.reduce`).

        Returns:
            What the stage has spent up to here.
        """
        now = self._clocks()
        own = sum(max(0.0, value - self._began.get(clock, 0.0)) for clock, value in now.items())
        each = self._ranks.gathered(own)
        self.so_far = self.so_far | {
            "seconds": round(self.so_far["seconds"] + (sum(each) if self._on_cpu else each[0]), 4),
            "sampled_tokens": self.so_far["sampled_tokens"] + _total(ledger, "sampled tokens"),
            "trained_tokens": self.so_far["trained_tokens"]
            + _total(ledger, "trained tokens")
            + _total(ledger, "sft tokens"),
        }
        if self.shape is not None and self.so_far["flops"] is not None:
            self.so_far["flops"] += self._flops(ledger, self.shape)
        return self.so_far

    def go_on(self, spent: Mapping[str, Any] | None) -> None:
        """Go on from what a checkpoint says; one of another time says nothing."""
        if spent:
            self.so_far = {name: spent.get(name, value) for name, value in self.so_far.items()}

    def _flops(self, ledger: Ledger, shape: ModelShape) -> float:
        found = 0.0
        for kind, backward in BACKWARD.items():
            positions, tokens, pairs = (ledger.sums[f"{kind} {what}"][0] for what in ("positions", "tokens", "pairs"))
            passes = Passes(positions=positions, scored=tokens, pairs=pairs, calls=0.0, rows=0.0)
            counts = pass_counts(shape, passes, backward=backward, checkpointing=backward and self._checkpointing)
            found += counts["matrix"] + counts["attention"]
        return found

    def _clocks(self) -> dict[int, float]:
        """Seconds by process, this one as 0."""
        if not self._on_cpu:
            return {0: time.perf_counter()}
        found = {0: time.process_time()}
        for pid in self._workers():
            with suppress(psutil.Error):  # it has just ended
                times = psutil.Process(pid).cpu_times()
                found[pid] = times.user + times.system
        return found


def _total(ledger: Ledger, name: str) -> int:
    return round(ledger.sums[name][0])
