"""A run's recorded signals through its controller under other settings, or through another controller.

The replayed controller is shown at each step what its own mix would have measured: the SFT norm on a step with SFT, the
KL on a step with GRPO. Where the run's step had that half, the value is the run's. Where it had not, nobody measured
it, and the run's last value is held; such steps are counted. What neither can know is how the model itself would have
moved under other steps: the signals are those of the model that was trained. Under the run's own settings nothing is
held and every decision is the run's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from posttrain.controllers import CONTROLLERS, Controller, Mix, Signals, State
from posttrain.controllers.base import at_clock, used
from posttrain.controllers.gac import STATISTICS
from posttrain.curricula import CURRICULA
from posttrain.errors import ConfigError
from posttrain.methods import METHODS
from posttrain.reading.decisions import controller_of, of_method, same
from posttrain.rundir import reading as run_reading

Lines = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Replayed:
    """One step of a replay.

    Attributes:
        step: Its number.
        mix: What the replayed controller decided.
        held: The controller's signals that this step would have measured and the run's had not.
        rests_on_held: Whether the decision comes from a held value.
        unseen: The controller's signals that the run's step measured and this one would not have.
    """

    step: int
    mix: Mix
    held: tuple[str, ...]
    rests_on_held: bool
    unseen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """A replay of a run.

    Attributes:
        run: The run's name.
        lines: The hybrid stage's lines of steps.jsonl.
        own: The run's controller.
        controller: The one that was replayed.
        replayed: Its steps.
        summary: Both side by side (see `summary`).
        other_than_run: Steps that the run's own settings do not give as they are recorded: the run changed its
            settings on the way, or its files are not of one piece. Empty as it should be.
    """

    run: str
    lines: Lines
    own: Controller
    controller: Controller
    replayed: Sequence[Replayed]
    summary: dict[str, Any]
    other_than_run: list[int]


def replay(path: str | Path, overrides: Iterable[str] = ()) -> Result:
    """Replay a run's hybrid stage under `controller.key=value` settings.

    Raises:
        ConfigError: The folder is no run, has no hybrid step yet, or the settings are wrong.
    """
    layout = run_reading.open_run(path)
    recipe, lines = run_reading.recipe(layout), run_reading.steps(layout, "hybrid")
    own, other = controller_of(recipe), with_overrides(recipe, overrides)
    g_warmup = run_reading.g_warmup(layout)
    try:
        own_steps = replay_run(own, start_state(own, lines, g_warmup), lines)
        steps = own_steps if other == own else replay_run(other, start_state(other, lines, g_warmup), lines)
    except ConfigError as error:
        raise error if error.where else ConfigError(error.seen, expected=error.expected, where=str(path)) from error
    name = layout.path.resolve().name
    return Result(name, lines, own, other, steps, summary(lines, steps), reproduces(lines, own_steps))


def with_overrides(recipe: Mapping[str, Any], overrides: Iterable[str]) -> Controller:
    """The recipe's controller under `controller.key=value` settings; another name takes that one's defaults.

    Raises:
        ConfigError: An override is not of the controller, or a value is wrong.
    """
    from posttrain.recipe.section import Section
    from posttrain.recipe.sections import AnyController

    class Holder(Section):
        controller: AnyController

    overrides = list(overrides)
    typed = overrides_of(overrides)
    stray = sorted(set(typed.data) - {"controller"})
    if stray:
        raise ConfigError(
            f"{stray[0]!r} cannot be replayed: it changes what the model learns, not only the mix",
            expected="controller.key=value, such as controller.gamma=2, method.key=value or curriculum.key=value",
            where="command line",
            fix=_meant(stray[0], overrides),
        )
    if not overrides:
        return controller_of(recipe)
    controller: Controller = settings(recipe, typed, "controller", Holder, CONTROLLERS)
    return controller


def overrides_of(overrides: Iterable[str]) -> Any:
    """What was typed, as a layer of a recipe's hybrid section."""
    from posttrain.recipe.yamlfile import overrides_layer

    return overrides_layer(text.removeprefix("hybrid.") for text in overrides)


def settings(recipe: Mapping[str, Any], typed: Any, key: str, holder: Any, kinds: Mapping[str, type]) -> Any:
    """The recipe's controller or method with what was typed laid over it.

    Args:
        recipe: As resolved.
        typed: What `overrides_of` gives.
        key: Of the hybrid section.
        holder: A section with that key alone.
        kinds: What the key can name.

    Raises:
        ConfigError: A value is wrong.
    """
    from pydantic import ValidationError

    from posttrain.recipe.mistakes import explain, raise_all
    from posttrain.recipe.yamlfile import Layer, merge

    if isinstance(typed.data.get(key), str):
        typed.data[key] = {"name": typed.data[key]}
    own = Layer({key: dict((recipe.get("hybrid") or {}).get(key) or {})})
    layer = merge(own, typed, {(key,): ("name",)})
    try:
        return getattr(holder.model_validate(layer.data), key)
    except ValidationError as error:
        problems = explain(error, holder, layer, layer.data)
        other = _of_another_kind(own.data[key].get("name"), typed.data.get(key), key, kinds)
        if other and len(problems) == 1:
            raise ConfigError(
                problems[0].seen, expected=problems[0].expected, where=problems[0].where, fix=other
            ) from error
        raise_all(problems, f"the {key} to replay")
        raise AssertionError("a validation error without a problem") from error


def _meant(stray: str, overrides: Iterable[str]) -> str:
    """What to write instead of an override that is not of the controller."""
    text = next(text for text in overrides if text.removeprefix("hybrid.").partition("=")[0].split(".")[0] == stray)
    every: dict[str, Mapping[str, type]] = {"controller": CONTROLLERS, "method": METHODS, "curriculum": CURRICULA}
    for section, kinds in every.items():
        if text.partition("=")[0] in {"name"} | {key for kind in kinds.values() for key in _keys(kind)}:
            return f"did you mean {section}.{text}?"
    return "leave it out; only `posttrain run` can try it"


def _of_another_kind(name: Any, typed: Any, key: str, every: Mapping[str, type]) -> str | None:
    """The override that replays another controller or method, if the keys typed are only that one's."""
    if not isinstance(typed, Mapping) or "name" in typed or name not in every:
        return None
    kinds = [kind for kind, each in every.items() if set(typed) <= _keys(each)]
    if name in kinds or not kinds:
        return None
    values = ", ".join(f"{name}: {value}" for name, value in typed.items())
    return f'another {key} takes its place by "{key}={{name: {kinds[0]}, {values}}}"'


def _keys(kind: type) -> set[str]:
    return {each.name for each in fields(kind)} - {"name"}


def start_state(controller: Controller, lines: Lines, g_warmup: float | None) -> State:
    """The replayed controller's state before the first step, of the run's seed, length and warm-up norm.

    Args:
        controller: The one to replay.
        lines: The hybrid stage's lines of steps.jsonl.
        g_warmup: The warm-up's norm, for a run whose own controller kept none.

    Raises:
        ConfigError: There is no step to replay, or the controller needs a norm that the run never measured.
    """
    known = [line["controller"] for line in lines if isinstance(line.get("controller"), Mapping)]
    if not lines or lines[0]["step"] != 1 or not known:
        raise ConfigError(
            "steps.jsonl has no hybrid step to replay" if not lines else "the first hybrid steps are not recorded",
            expected="the lines of the hybrid stage from its first step on",
        )
    last = known[-1]
    norm = last.get("g_warmup", g_warmup)
    clock = {"clock": 0.0} if "clock" in last else {}
    return controller.start(total_steps=last["total_steps"], seed=last["seed"], g_warmup=norm) | clock


def replay_run(controller: Controller, state: State, lines: Lines) -> list[Replayed]:
    """The decisions of `controller` over the recorded steps, each from what its own steps would have measured.

    Args:
        controller: The one to replay.
        state: Its state before the first of the lines.
        lines: The hybrid stage's lines of steps.jsonl.
    """
    used = _used(controller, state)
    last: dict[str, float | None] = dict.fromkeys(Signals.__dataclass_fields__)
    resting: set[str] = set()
    replayed = []
    for line in lines:
        mix = of_method(line) or controller.decide(state)
        last |= {name: line[name] for name in last if line.get(name) is not None}
        shown, held = _shown(mix, line, last)
        held &= used
        unseen = tuple(sorted(n for n in used if line.get(n) is not None and getattr(shown, n) is None))
        replayed.append(Replayed(line["step"], mix, tuple(sorted(held)), bool(resting), unseen))
        # A value that this step measured takes the place of an earlier one that was held
        resting = held | {name for name in resting if getattr(shown, name) is None}
        state = controller.observe(at_clock(state, line), shown)
    return replayed


def _used(controller: Controller, state: State) -> set[str]:
    """The signals that a controller's decisions come from."""
    guarded = getattr(controller, "kl_target", None) is not None
    return ({"sft_norm"} if "g_last" in state else set()) | ({"kl"} if guarded else set()) | used(controller)


def _shown(mix: Mix, line: Mapping[str, Any], last: Mapping[str, float | None]) -> tuple[Signals, set[str]]:
    """What a step of `mix` would have shown, and what of it is held because the run's step did not measure it."""
    had = line.get("mix") or {}
    sft, grpo = mix.sft > 0.0 or mix.measure_sft, mix.grpo > 0.0
    had_sft, had_grpo = bool(had.get("sft")) or line.get("sft_norm") is not None, bool(had.get("grpo"))
    skipped = bool(line.get("skipped"))  # such a step shows no norm, whatever it was made of
    halves = {
        "sft_norm": (sft, had_sft or skipped),
        "grpo_norm": (grpo, had_grpo or skipped),
        "kl": (grpo, had_grpo),
        "reward": (grpo, had_grpo),
        "sft_loss": (sft, line.get("sft_loss") is not None),
        **{name: (sft and grpo, line.get(name) is not None) for name in STATISTICS},
    }
    held = {name for name, (wanted, measured) in halves.items() if wanted and not measured}
    values = {
        name: last[name] if name in held else line.get(name) if wanted else None for name, (wanted, _) in halves.items()
    }
    return Signals(**values), held


def summary(lines: Lines, replayed: Sequence[Replayed]) -> dict[str, Any]:
    """What happened and what the replay gives, side by side.

    Returns:
        `run` and `replay`: `sft`, `grpo`, `both` (numbers of steps), `mean_p`, `quarters` (mean p of each quarter),
        `seconds` (of the run, and what its own mean seconds by kind of step make of the replay; `None` if a kind was
        never run). Also `steps`, `other_mix` (steps made of something else), `resting` (steps whose decision rests on
        a held value), `held` (steps that held one), `unseen` (steps that would not have measured what the run did) and
        `first_other` (the first step made of something else).
    """
    real = [(_kind(line.get("mix") or {}), line.get("p")) for line in lines]
    other = [(_kind(asdict(each.mix)), each.mix.p) for each in replayed]
    means = _mean_seconds(lines)
    counted = _side(real), _side(other)
    by_kind = {kind: counted[1][kind] for kind in ("sft", "grpo", "both")}
    unknown = [kind for kind, count in by_kind.items() if count and kind not in means]
    estimate = None if unknown else sum(count * means[kind] for kind, count in by_kind.items() if count)
    changed = [each.step for line, each in zip(lines, replayed, strict=True) if _other_mix(line, each)]
    return {
        "steps": len(lines),
        "run": {**counted[0], "seconds": sum((line.get("seconds") or {}).get("total") or 0.0 for line in lines)},
        "replay": {**counted[1], "seconds": estimate},
        "other_mix": len(changed),
        "first_other": changed[0] if changed else None,
        "held": sum(bool(each.held) for each in replayed),
        "resting": sum(each.rests_on_held for each in replayed),
        "unseen": sum(bool(each.unseen) for each in replayed),
    }


def reproduces(lines: Lines, replayed: Sequence[Replayed]) -> list[int]:
    """The steps whose mix or p the replay does not give as the run recorded it; none under the run's own settings."""
    return [
        each.step
        for line, each in zip(lines, replayed, strict=True)
        if _other_mix(line, each) or not same(line.get("p"), each.mix.p)
    ]


def _other_mix(line: Mapping[str, Any], each: Replayed) -> bool:
    had = line.get("mix") or {}
    return (had.get("sft"), had.get("grpo")) != (each.mix.sft, each.mix.grpo)


def _kind(mix: Mapping[str, Any]) -> str:
    return "both" if mix.get("sft") and mix.get("grpo") else "sft" if mix.get("sft") else "grpo"


def _side(steps: Sequence[tuple[str, float | None]]) -> dict[str, Any]:
    kinds, known = [kind for kind, _ in steps], [p for _, p in steps if p is not None]
    quarter = max(1, -(-len(steps) // 4))
    parts = [[p for _, p in steps[at : at + quarter] if p is not None] for at in range(0, len(steps), quarter)]
    return {
        **{kind: kinds.count(kind) for kind in ("sft", "grpo", "both")},
        "mean_p": sum(known) / len(known) if known else None,
        "quarters": [sum(part) / len(part) if part else None for part in parts],
    }


def _mean_seconds(lines: Lines) -> dict[str, float]:
    seconds: dict[str, list[float]] = {}
    for line in lines:
        total = (line.get("seconds") or {}).get("total")
        if total is not None:
            seconds.setdefault(_kind(line.get("mix") or {}), []).append(total)
    return {kind: sum(values) / len(values) for kind, values in seconds.items()}
