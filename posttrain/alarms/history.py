"""What alarms are told of a run: the settings that advice is about, and the GRPO steps so far as plain numbers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any

DRIFT_WINDOW = 10
"""Generations in a window of a `Series`."""

_LIBRARY = {"rollout.probe_every": "vllm_probe_every", "rollout.engine: transformers": "use_vllm=False"}
"""Recipe keys whose names as arguments of `HybridConfig` are not their last part."""


@dataclass(frozen=True)
class Settings:
    """The settings of a run that alarms depend on.

    Args:
        recipe: Whether advice names keys of a recipe; else arguments of `HybridConfig`, the controller and the method.
        method: What the method is called; empty without one.
        gate, passing: The method's, where it has them.
        idle_end: The token that demonstrations end in, in words, where it ends no completion.
    """

    num_generations: int = 8
    max_completion_length: int = 256
    temperature: float = 1.0
    learning_rate: float = 1e-6
    beta: float = 0.0
    loss_type: str = "dapo"
    kl_target: float | None = None
    recipe: bool = True
    idle_end: str = ""
    method: str = ""
    gate: int | None = None
    passing: float | None = None

    @classmethod
    def of(
        cls, args: Any, controller: Any = None, method: Any = None, *, recipe: bool = True, idle_end: str = ""
    ) -> Settings:
        """The settings in a `HybridConfig` (or a `GRPOConfig`), a controller and a method."""
        names = ("num_generations", "max_completion_length", "temperature", "learning_rate", "beta", "loss_type")
        values = {name: getattr(args, name) for name in names}
        kl_target = getattr(controller, "kl_target", None)
        values |= {"method": getattr(method, "name", "")}
        values |= {name: getattr(method, name, None) for name in ("gate", "passing")}
        return cls(**values, kl_target=kl_target, recipe=recipe, idle_end=idle_end)

    def key(self, name: str) -> str:
        """A recipe's key as the user at hand would write it."""
        return name if self.recipe else _LIBRARY.get(name, name.rpartition(".")[2])


@dataclass(frozen=True, slots=True)
class GRPOStep:
    """One GRPO step. What it did not show is `None`: only a step that sampled has rollouts to speak of.

    Attributes:
        values: Numbers of the step's record by name, those of `sampled` and `sampling` among them.
        series: Mean of the weighted sum of rewards (`reward`), of each reward where there are several, and of each
            part.
    """

    step: int
    values: Mapping[str, float | None]
    series: Mapping[str, float]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> GRPOStep | None:
        """A record of `steps.jsonl`; `None` for a step without GRPO."""
        if record.get("stage") != "hybrid" or not (record.get("mix") or {}).get("grpo"):
            return None
        names = (
            "kl", "entropy", "reward", "zero_std_share", "unscored_share", "truncated_share", "completion_length",
        )  # fmt: skip
        sampled, sampling = record.get("sampled") or {}, record.get("sampling") or {}
        values = {name: record.get(name) for name in names}
        values |= {name: value for name, value in sampled.items() if name != "parts"}
        values |= {f"sampling/{name}": value for name, value in sampling.items()}
        values |= {f"method/{name}": value for name, value in of_method(record.get("method") or {}).items()}
        rewards = record.get("rewards") or {}
        named = rewards if len(rewards) > 1 else {}
        series = {"reward": record.get("reward"), **named, **sampled.get("parts", {})}
        finite = {name: value for name, value in series.items() if value is not None and math.isfinite(value)}
        return cls(record["step"], values, finite)


def of_method(seen: Mapping[str, Any]) -> dict[str, float | None]:
    """The numbers of `method` in a line of steps.jsonl; empty of a step that sampled nothing anew.

    Returns:
        `gate_open` and `paired` where there was a gate, `begun_share` (0 where no rollout went on from a beginning),
        `begun_reward`, `alone_reward` and `best`, the highest reward.
    """
    if "rewards" not in seen:
        return {}
    known = [reward for group in seen["rewards"] for reward in group if reward is not None]
    gated = seen.get("gate_open") is not None
    return {
        "gate_open": seen["gate_open"] if gated else None,
        "paired": seen["paired"] if gated else None,
        "begun_share": seen.get("begun_share") or 0.0,
        "begun_reward": seen.get("begun_reward"),
        "alone_reward": seen.get("alone_reward"),
        "best": max(known, default=None),
    }


Window = tuple[float, float]
"""Mean of some steps, and its squared standard error."""


class Series:
    """The values of one number, generation by generation, in windows of `size`."""

    def __init__(self, size: int, missing: int = 0):
        self._size = size
        self._values: list[float | None] = [None] * missing
        self._blocks: list[Window | None] = [None] * (missing // size)

    def add(self, value: float | None) -> None:
        """The next generation's value."""
        self._values.append(value)
        if len(self._values) % self._size == 0:
            self._blocks.append(self._window(len(self._values)))

    def windows(self) -> list[Window | None]:
        """Whole windows from the first generation on, and as the last one the latest generations; `None` for gaps."""
        before = max(len(self._values) - self._size, 0) // self._size
        return [*self._blocks[:before], self._window(len(self._values))]

    def _window(self, end: int) -> Window | None:
        values = [value for value in self._values[max(end - self._size, 0) : end] if value is not None]
        if len(values) < self._size:
            return None
        try:
            return fmean(values), variance(values) / len(values)
        except OverflowError:  # rewards near the largest number there is
            return None


class History:
    """The GRPO steps of a stage, in their order.

    Attributes:
        latest: The last step.
        generations: Those that sampled.
        series: See `GRPOStep.series`.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.latest: GRPOStep | None = None
        self.generations: list[GRPOStep] = []
        self.series: dict[str, Series] = {}
        self._values: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, step: GRPOStep) -> None:
        """One more step."""
        self.latest = step
        for name, value in step.values.items():
            if value is not None and math.isfinite(value):
                self._values[name].append(value)
        if not step.series:
            return
        for name in step.series.keys() - self.series.keys():
            self.series[name] = Series(DRIFT_WINDOW, len(self.generations))
        for name, series in self.series.items():
            series.add(step.series.get(name))
        self.generations.append(step)

    def last(self, name: str, count: int) -> list[float]:
        """The latest `count` values of that name, oldest first; fewer at the beginning."""
        return self._values[name][-count:]

    def every(self, name: str) -> list[float]:
        """All values of that name, oldest first."""
        return self._values[name]

    def first(self, name: str, count: int) -> list[float]:
        """The first `count` values of that name; fewer at the beginning."""
        return self._values[name][:count]


@dataclass(frozen=True)
class Finding:
    """What a detector found.

    Attributes:
        severity: How far the value is, as a multiple of where the alarm begins.
        about: Tells apart two troubles of one kind, such as groups that are all right and all wrong.
    """

    kind: str
    severity: float
    level: str
    evidence: str
    advice: str
    about: str = ""
