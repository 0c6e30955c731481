"""The processes of a run: who writes, what all of them agree on, and how the error of one reaches the others.

A collective that one process leaves out hangs all the others. So a process that fails says so before the others wait
for it: what may fail on one process alone runs in `decided` or `together`, which raise everywhere or nowhere.

All that is agreed on here goes over a gloo group beside the one that gradients and shards go over. On GPUs that one is
NCCL's, where a process that is gone is not noticed before the time limit, and where every message waits for the GPU.
And a process that failed in the middle of a forward pass can't take the others' shards for answers.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch.distributed as dist
from accelerate import Accelerator, PartialState

from posttrain.errors import PosttrainError, TrainingError

T = TypeVar("T")

_BESIDE: WeakKeyDictionary[dist.ProcessGroup, dist.ProcessGroup] = WeakKeyDictionary()
"""The group to agree over, by the default group that it has the processes of; it ends with that one."""


@dataclass(frozen=True)
class Ranks:
    """One process among those of a run. `Ranks()` is a process by itself.

    Attributes:
        number: This process's, from 0; the main process is 0.
        count: All of them, over all nodes.
        local_count: Those on this node.
    """

    number: int = 0
    count: int = 1
    local_count: int = 1

    @classmethod
    def join(cls, *, on_cpu: bool, time_limit_s: float) -> Ranks:
        """Join the processes that a launcher started; alone without one.

        Call it before anything else starts `torch.distributed`: vLLM would make a group of this process only.

        Args:
            on_cpu: Whether the run computes on CPUs.
            time_limit_s: Seconds that a process waits for the others, before it gives up with an error.
        """
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            return cls()
        PartialState(cpu=on_cpu, timeout=timedelta(seconds=time_limit_s))
        _beside()
        return cls.joined()

    @classmethod
    def joined(cls) -> Ranks:
        """The processes that this one has joined; alone if none."""
        if not dist.is_initialized():
            return cls()
        local_count = int(os.environ.get("LOCAL_WORLD_SIZE", str(dist.get_world_size())))
        return cls(dist.get_rank(), dist.get_world_size(), local_count)

    @classmethod
    def of(cls, accelerator: Accelerator) -> Ranks:
        """The processes of a trainer; all of them must ask at once."""
        count = accelerator.num_processes
        if count > 1:
            _beside()
        return cls(accelerator.process_index, count, int(os.environ.get("LOCAL_WORLD_SIZE", str(count))))

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.number == 0

    def gathered(self, value: T) -> list[T]:
        """Every process's value, in their order, on every process."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value, group=_beside())
        return values

    def wait(self) -> None:
        """Until every process is here."""
        self.gathered(None)

    def decided(self, decide: Callable[[], T]) -> T:
        """What the main process decides, on every process; an error of its is raised on all of them."""
        if self.count == 1:
            return decide()
        outcome: list[Any] = [None, None]
        error: BaseException | None = None
        if self.is_main:
            try:
                outcome[0] = decide()
            except Exception as raised:
                error, outcome[1] = raised, _shareable(raised, self.number)
        dist.broadcast_object_list(outcome, src=0, group=_beside())
        self._raise(error, outcome[1])
        return outcome[0]

    def on_main(self, work: Callable[[], Any]) -> None:
        """Have the main process do something while the others wait; an error of its is raised on all of them."""

        def act() -> None:
            work()  # what it returns is nobody else's, and may not travel

        self.decided(act)

    def together(self, work: Callable[[], T]) -> T:
        """Each process's own result of `work`; an error on any process is raised on all of them.

        `work` may hold such calls itself: what they raise is known to all already. So where every process makes them
        equally often, a process that fails between two of them meets the others in their next one.
        """
        if self.count == 1:
            return work()
        result: Any = None
        error: BaseException | None = None
        try:
            result = work()
        except Exception as raised:
            if getattr(raised, "shared", False):
                raise
            error = raised
        errors = self.gathered(None if error is None else _shareable(error, self.number))
        first = next((each for each in errors if each is not None), None)
        if first is not None and None in errors:
            first.rank = errors.index(first)
        self._raise(error if self.is_main or errors[0] is None else None, first)
        return result

    def agree(self, facts: Mapping[str, Any], *, at: str) -> None:
        """Make sure that all processes hold the same facts.

        Args:
            facts: Name to plain value.
            at: Where in the run, for the message.

        Raises:
            TrainingError: On every process, with each name whose values differ and what they are.
        """
        if self.count == 1:
            return
        digest = hashlib.blake2b(repr(sorted(facts.items())).encode(), digest_size=8).digest()
        if len(set(self.gathered(digest))) == 1:
            return
        everyone = self.gathered(dict(facts))
        names = list(dict.fromkeys(name for each in everyone for name in each))
        differing = {
            name: [each.get(name) for each in everyone]
            for name in names
            if any(repr(each.get(name)) != repr(everyone[0].get(name)) for each in everyone)
        }
        if not differing:
            return
        shown = "".join(
            f"\n    {name}: " + ", ".join(f"{value!r} (rank {rank})" for rank, value in enumerate(values))
            for name, values in differing.items()
        )
        error = TrainingError(
            f"the processes have drifted apart:{shown}",
            expected="the same on every process",
            where=at,
            fix="look for what differs between the machines (files, versions, environment); the last checkpoint is "
            "from before, and its steps can be trusted as far as the last comparison",
        )
        error.shared = True
        raise error

    def _raise(self, own: BaseException | None, shared: PosttrainError | None) -> None:
        if own is not None:
            own.shared = True  # type: ignore[attr-defined]
            raise own
        if shared is not None:
            raise shared


def leave() -> None:
    """End the group that the processes share: NCCL complains of one that is left to the interpreter's end."""
    dist.destroy_process_group()


def _beside() -> dist.ProcessGroup:
    """The group to agree over, with the time limit of the default group.

    All processes make it at once, the first time that they need it, for each default group.
    """
    default = dist.group.WORLD
    assert default is not None
    if default not in _BESIDE:
        try:
            limit = default._get_backend(default._device_types[0]).options._timeout
        except (AttributeError, RuntimeError):  # a backend that doesn't tell; then gloo's own limit
            limit = None
        _BESIDE[default] = dist.new_group(backend="gloo", timeout=limit)
    return _BESIDE[default]


def _shareable(error: BaseException, rank: int) -> PosttrainError:
    """The error as the other processes raise it."""
    if not isinstance(error, PosttrainError):
        error = TrainingError(f"{type(error).__name__}: {error}", where=f"rank {rank}")
    error.shared = True
    return error
