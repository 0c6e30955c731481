"""Whether an engine gets a policy's adapter alone, and what it is sent then.

vLLM adds a LoRA adapter to its layers while it samples (its punica kernels). So the base has to travel once, and after
that only the adapter: for rank 16 on all linear layers a few percent of the bytes. An adapter that was loaded keeps its
weights by name and number, and its prompts' cached states by name: each transfer has a name and a number of its own.
"""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from posttrain.errors import ConfigError
from posttrain.models.adapter_weights import BaseMark, has_adapter, rank_of, why_together
from posttrain.recipe.adapter_serving import LARGEST_RANK, SLOW_ON_A_CPU, vllm_rank

KEY = "rollout.lora"

WAYS = ("auto", "adapter", "merged")
"""What can be asked for: see `AdapterPart`."""


class AdapterPart:
    """What an engine keeps of policies that it gets as a base and an adapter.

    Args:
        asked: `adapter`; `merged`, added to the weights before they are sent; `auto`, adapter where that is exact and
            saves time.
        room: Rank up to which the engine takes adapters; 0 is none.
        why_none: Why it takes none, to be said where one would be due.

    Raises:
        ConfigError: `asked` is none of `WAYS`.

    Attributes:
        said: Why the policy's weights are sent whole although it has an adapter; `None` where they are not.
    """

    def __init__(self, asked: str, room: int, why_none: str | None = None):
        if asked not in WAYS:
            raise ConfigError(repr(asked), expected=" or ".join(WAYS), where=KEY)
        self.asked, self.room, self.why_none = asked, room, why_none
        self.said: str | None = None
        self._mark, self._own = BaseMark(), uuid.uuid4().hex[:8]
        self._numbers = count(1)

    def apart(self, model: Any) -> bool:
        """Whether the policy is to be sent as base and adapter.

        Raises:
            ConfigError: The adapter alone was asked for, and the engine cannot add it.
        """
        self.said = None
        if not has_adapter(model):
            return False
        reason = why_together(model) or (self._too_large(model) if self.room else self.why_none)
        if reason is None:
            return True
        if self.asked == "adapter":
            raise cannot_add(reason)
        self.said = None if self.asked == "merged" else reason
        return False

    def _too_large(self, model: nn.Module) -> str | None:
        rank = rank_of(model)
        return f"its rank is {rank}, and the engine takes {self.room} at most" if rank > self.room else None

    def in_words(self, model: Any) -> str | None:
        """How the policy's adapter gets to the engine; `None` without one, or where the user has said it."""
        if self.apart(model):
            return f"vLLM gets the adapter alone (rank {rank_of(model)}), and its base once"
        return f"vLLM gets whole weights with the adapter added: {self.said}" if self.said else None

    def mark(self, model: nn.Module) -> str:
        """What the engine knows the policy's base by: the same for as long as the base is."""
        return f"{self._own}-{self._mark.of(model)}"

    def forget(self) -> None:
        """The engine has lost the base."""
        self._mark.forget()

    def next_name(self) -> str:
        """Of the next adapter: no other has it, of this engine or another."""
        return f"posttrain-{self._own}-{next(self._numbers)}"


def cannot_add(reason: str) -> ConfigError:
    """The error where the adapter alone was asked for."""
    return ConfigError(
        f"adapter, but {reason}",
        expected="plain LoRA on linear layers, and an engine that adds it",
        where=KEY,
        fix="set auto, which adds the adapter to the weights before they are sent; or do what it names",
    )


def room_in_process(asked: str, model: Any, rank: int | None, *, on_cpu: bool) -> tuple[int, str | None]:
    """For adapters of which rank an engine in this process is built, 0 for none, and why for none.

    Args:
        asked: As for `AdapterPart`.
        model: The first policy, or its configuration.
        rank: Of the adapter that later policies have; `None`: they have what the first has.
        on_cpu: Where vLLM computes.
    """
    if asked == "merged":
        return 0, "rollout.lora is merged"
    if asked == "auto" and on_cpu:
        return 0, SLOW_ON_A_CPU
    with_one = has_adapter(model)
    if with_one and rank is None and (reason := why_together(model)):
        return 0, reason
    wanted = max(rank or 0, rank_of(model) if with_one else 0)
    if wanted > LARGEST_RANK:
        return 0, f"its rank is {wanted}, and vLLM takes {LARGEST_RANK} at most"
    return (vllm_rank(wanted) if wanted else 0), "it was built for a model without an adapter"


def room_on_server(asked: str, info: Mapping[str, Any]) -> tuple[int, str | None]:
    """For adapters of which rank a server was started, 0 for none or where they are not to be used, and why.

    Args:
        asked: As for `AdapterPart`.
        info: What the server's `/server_info` says.
    """
    if asked == "merged":
        return 0, "rollout.lora is merged"
    lora = info["vllm_config"].get("lora_config")
    fix = "start it with `posttrain serve MODEL --lora-rank N`"
    if not lora:
        return 0, f"the server was started without room for an adapter: {fix}"
    if str((info.get("vllm_env") or {}).get("VLLM_ALLOW_RUNTIME_LORA_UPDATING")) not in ("1", "True"):
        return 0, f"the server takes no adapter while it runs: {fix}"
    if asked == "auto" and "cpu" in map(str, (info["vllm_config"].get("device_config") or {}).values()):
        return 0, SLOW_ON_A_CPU
    return int(lora["max_lora_rank"]), None


def memory_folder() -> Path:
    """Where files of this machine lie in memory, if there is such a place."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() else Path(tempfile.gettempdir())


@contextmanager
def adapter_folder(weights: Iterable[tuple[str, torch.Tensor]], rank: int, within: Path) -> Iterator[Path]:
    """An adapter as PEFT saves one, for as long as the block runs.

    Args:
        weights: As `adapter_weights` gives them, with the scaling in them.
        rank: The largest of any layer.
        within: Where.
    """
    with tempfile.TemporaryDirectory(prefix="posttrain-adapter-", dir=within) as name:
        folder, tensors = Path(name), dict(weights)
        save_file(tensors, folder / "adapter_model.safetensors")
        layers = sorted({each.rsplit(".", 3)[1] for each in tensors})
        config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": layers, "bias": "none"}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        yield folder


class Counted:
    """A stream of weights, and the bytes that have come through it."""

    def __init__(self, weights: Iterable[tuple[str, torch.Tensor]]):
        self._weights, self.bytes = iter(weights), 0

    def __iter__(self) -> Counted:
        return self

    def __next__(self) -> tuple[str, torch.Tensor]:
        name, tensor = next(self._weights)
        self.bytes += tensor.nbytes
        return name, tensor
