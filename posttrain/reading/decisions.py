"""What a run's controller decided, step by step, taken again from what the record says it knew.

A line of steps.jsonl holds the controller's state after its step, so the line before it holds all that the decision
came from. Taking it again shows that the record, the recipe and the formula belong together, or where they do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.controllers import Controller, Mix, Signals, State
from posttrain.controllers.base import at_clock
from posttrain.errors import ConfigError

SETTLED = ("seed", "total_steps", "g_warmup")
"""What a session settles when it begins; a resumed one may have begun with others (see `HybridCheckpoints`)."""


@dataclass(frozen=True)
class Decision:
    """One step of the hybrid stage.

    Attributes:
        record: Its line of steps.jsonl.
        before: What the controller knew; `None` where the record does not tell.
        mix: What the recipe's controller decides from that.
        differs: Where the record is not what follows from it, in words; empty where it is.
    """

    record: dict[str, Any]
    before: State | None
    mix: Mix | None
    differs: tuple[str, ...] = ()

    @property
    def step(self) -> int:
        """The step's number, from 1."""
        return int(self.record["step"])


def controller_of(recipe: Mapping[str, Any]) -> Controller:
    """The controller that a resolved recipe describes.

    Raises:
        ConfigError: It describes none that is known.
    """
    from pydantic import TypeAdapter, ValidationError

    from posttrain.recipe.sections import AnyController

    settings = (recipe.get("hybrid") or {}).get("controller")
    try:
        return TypeAdapter(AnyController).validate_python(settings)
    except ValidationError as error:
        raise ConfigError(
            f"{settings!r} is no controller of this version: {error.errors()[0]['msg']}",
            where="recipe.yaml: hybrid.controller",
        ) from error


def signals_of(record: Mapping[str, Any]) -> Signals:
    """What a step showed its controller."""
    return Signals(**{name: record.get(name) for name in Signals.__dataclass_fields__})


def of_method(record: Mapping[str, Any]) -> Mix | None:
    """The SFT step that a method took of what waited, whatever the controller would have; `None` where it took none."""
    used = (record.get("method") or {}).get("used")
    return Mix(1.0, 0.0, reason=str(record.get("reason") or "")) if used else None


def decisions(controller: Controller | None, lines: Sequence[dict[str, Any]]) -> list[Decision]:
    """Every step of the hybrid stage, decided again.

    Args:
        controller: The run's; `None` where it is not known, and then nothing is decided again.
        lines: The hybrid stage's lines of steps.jsonl.
    """
    taken: list[Decision] = []
    for place, record in enumerate(lines):
        last = lines[place - 1] if place else None
        before = None if controller is None else state_before(controller, last, record)
        if controller is None or before is None:
            why = "" if controller is None else _why_unknown(last, record)
            taken.append(Decision(record, None, None, (why,) if why else ()))
            continue
        mix = of_method(record) or controller.decide(before)
        after = controller.observe(at_clock(before, record), signals_of(record))
        taken.append(Decision(record, before, mix, tuple(_differences(record, mix, after))))
    return taken


def state_before(controller: Controller, last: Mapping[str, Any] | None, record: Mapping[str, Any]) -> State | None:
    """What the controller knew before a step, from the step's line and the one before; `None` if they don't say."""
    after, known = record.get("controller"), (last or {}).get("controller")
    if not isinstance(after, Mapping) or not {"seed", "total_steps", "step"} <= set(after):
        return None
    settled = {name: after[name] for name in SETTLED if name in after}
    try:
        fresh = controller.start(**settled)
    except ConfigError:  # of another controller, whose state has no norm
        return None
    if "clock" in after:  # of a stage with a budget
        fresh["clock"] = 0.0
    if set(fresh) != set(after):
        return None
    if after["step"] == 1:
        return fresh | settled
    if not isinstance(known, Mapping) or known.get("step") != after["step"] - 1:
        return None
    return fresh | {name: value for name, value in known.items() if name in fresh} | settled


def _why_unknown(last: Mapping[str, Any] | None, record: Mapping[str, Any]) -> str:
    after = record.get("controller")
    if not isinstance(after, Mapping):
        return "the line has no state of the controller"
    if after.get("step") != 1 and (last or {}).get("step") != record["step"] - 1:
        return f"the line of step {record['step'] - 1} is not there"
    return "the recorded state is not of the controller that recipe.yaml names"


def _differences(record: Mapping[str, Any], mix: Mix, after: State) -> list[str]:
    """Where a line is not what the controller decides and then keeps."""
    found, recorded = [], record.get("mix") or {}
    if not same(record.get("p"), mix.p):
        found.append(f"p is recorded as {_shown(record.get('p'))}, and the recorded numbers give {_shown(mix.p)}")
    for name in ("sft", "grpo"):
        if not same(recorded.get(name), getattr(mix, name)):
            found.append(
                f"the weight of {name.upper()} is recorded as {_shown(recorded.get(name))}, and the recorded numbers "
                f"give {_shown(getattr(mix, name))}"
            )
    for name, value in after.items():
        kept = record["controller"].get(name)
        if not same(kept, value):
            found.append(f"afterwards the controller held {name} = {_shown(kept)}, and should hold {_shown(value)}")
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two recorded values are equal, numbers up to the last digits."""
    numbers = all(isinstance(value, int | float) for value in (one, other))
    # Another machine's exp and cos may differ in the last digit
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12) if numbers else one == other


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "nothing" if value is None else str(value)
