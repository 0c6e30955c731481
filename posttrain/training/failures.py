"""Prompts that no rollout solved wait with their demonstrations until these make one SFT step (see `methods.relift`).

What waits is the same on every process, for all of them enter it from the same gathered rewards, and is part of a
checkpoint's state: numbers of prompts and demonstrations, oldest first. The SFT step trains on as many as the method's
`buffer`, cut into the step's micro-batches and, within these, into passes of no more rows than one of the SFT half has.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate.utils import DistributedType, send_to_device
from torch import nn

from posttrain.controllers import Mix
from posttrain.errors import ConfigError
from posttrain.inputs.data import IGNORED
from posttrain.training.ledger import Ledger
from posttrain.training.losses import count_labels
from posttrain.training.sft_side import SFTSide

Item = tuple[int, int]
"""A prompt's row number and the number of its demonstration in `Pairs.ids`."""


class Buffer:
    """Prompts and their demonstrations that wait, oldest first, each prompt once.

    Args:
        room: Demonstrations that one SFT step takes.

    Attributes:
        waiting: In the order in which they came.
    """

    def __init__(self, room: int):
        self.room = room
        self.waiting: list[Item] = []
        self._new_window = False
        self._entered = self._used = 0

    def begin_step(self) -> None:
        """Count what enters and leaves anew."""
        self._entered = self._used = 0

    def enter(self, failed: Sequence[Item]) -> None:
        """Put a window's failures behind what waits; a prompt that waits already keeps its place and demonstration."""
        there = {prompt for prompt, _ in self.waiting}
        for prompt, demonstration in failed:
            if prompt not in there:
                there.add(prompt)
                self.waiting.append((prompt, demonstration))
                self._entered += 1
        self._new_window = True

    def mix(self) -> Mix | None:
        """An SFT step, where enough wait and none was taken since the last window; to be asked between windows."""
        if not self._new_window or len(self.waiting) < self.room:
            return None
        return Mix(1.0, 0.0, reason=f"SFT on {self.room} of {len(self.waiting)} prompts that no rollout solved")

    def take(self) -> list[Item]:
        """The oldest, which no longer wait."""
        taken, self.waiting = self.waiting[: self.room], self.waiting[self.room :]
        self._new_window, self._used = False, len(taken)
        return taken

    def facts(self) -> dict[str, int]:
        """Of the step in progress, for the log: how many wait behind it, entered in it, and were trained on in it."""
        return {"waiting": len(self.waiting), "entered": self._entered, "used": self._used}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps; JSON."""
        return {"waiting": self.waiting, "new_window": self._new_window}

    def load(self, state: Mapping[str, Any], pairs: Mapping[int, Sequence[int]]) -> None:
        """Take up what `state` gave.

        Args:
            state: Of a checkpoint.
            pairs: The demonstrations of each prompt now: data that was changed since may have others.
        """
        saved = [(int(prompt), int(demonstration)) for prompt, demonstration in state["waiting"]]
        self.waiting = [item for item in saved if item[1] in pairs.get(item[0], ())]
        self._new_window = bool(state["new_window"])
        if gone := len(saved) - len(self.waiting):
            warnings.warn(
                f"{gone} of {len(saved)} demonstrations that waited for an SFT step are no longer of their prompts: "
                "the data was changed. They wait no more",
                stacklevel=2,
            )


def cut(rows: int, *, ticks: int, processes: int, most: int) -> list[list[list[int]]]:
    """Rows of an optimizer step as passes: for each process, in the order in which it makes them.

    Args:
        rows: How many; those of a pass differ by one row at most, so that some have none where there are few.
        ticks: Micro-batches of the step.
        processes: Each makes as many passes.
        most: Rows of a pass.

    Returns:
        Row numbers by process and pass; the number of passes is a multiple of `ticks`.
    """
    passes = ticks * max(1, -(-rows // (ticks * processes * most)))
    pieces = passes * processes
    return [
        [list(range(place * processes + process, rows, pieces)) for place in range(passes)]
        for process in range(processes)
    ]


class SFTOnFailures(SFTSide):
    """An SFT half that trains on what waits instead of on a stream.

    Args:
        completions: Token ids of the demonstrations.
        buffer: What waits.
        rows_of: Makes rows of items, with `input_ids` and `labels`.
        **more: As for `SFTSide`.

    Raises:
        ConfigError: More demonstrations than DeepSpeed can take, which makes one pass in a micro-batch.
    """

    def __init__(
        self,
        completions: Sequence[list[int]],
        buffer: Buffer,
        rows_of: Callable[[Sequence[Item]], list[dict[str, list[int]]]],
        **more: Any,
    ):
        super().__init__([{"input_ids": ids, "labels": ids} for ids in completions], **more)
        self._buffer, self._rows_of = buffer, rows_of
        self._passes = len(self._cut(buffer.room)[0]) // self._args.gradient_accumulation_steps
        if self._passes > 1 and self._accelerator.distributed_type == DistributedType.DEEPSPEED:
            raise ConfigError(
                f"an SFT step of {buffer.room} demonstrations takes {self._passes} passes in each micro-batch, and "
                "DeepSpeed counts one",
                expected="as many micro-batches, processes and rows in each as hold the method's buffer",
                where="method.buffer",
                fix="lower it, raise demonstration_batch_size or gradient_accumulation_steps, or launch with DDP or "
                "FSDP2",
            )

    def _cut(self, rows: int) -> list[list[list[int]]]:
        args = self._args
        return cut(
            rows,
            ticks=args.gradient_accumulation_steps,
            processes=self._accelerator.num_processes,
            most=args.demonstration_batch_size or 1,
        )

    def draw(self, *, advance: bool = True) -> None:
        """Take what waits, cut it into this process's passes, and count its label tokens."""
        rows = self._rows_of(self._buffer.take())
        nothing = {**rows[0], "labels": [IGNORED] * len(rows[0]["labels"])}  # every process makes every pass
        own = self._cut(len(rows))[self._accelerator.process_index]
        batches = [self._collate([rows[row] for row in piece] or [nothing]) for piece in own]
        self.tokens = sum(count_labels(torch.tensor([row["labels"]])) for row in rows)
        self._batches = send_to_device(batches, self._args.device)

    def backward(self, model: nn.Module, number: int, ledger: Ledger) -> torch.Tensor:
        """Add the gradient of one micro-batch; only its last pass reduces it over processes, and only if it is to."""
        accelerator, first = self._accelerator, number * self._passes
        loss = torch.zeros((), device=self._args.device)
        for place in range(first, first + self._passes):
            waits = accelerator.sync_gradients and place < first + self._passes - 1
            with accelerator.no_sync(model) if waits else nullcontext():
                loss = loss + super().backward(model, place, ledger)
        return loss
