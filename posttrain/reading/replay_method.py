"""The groups that a run recorded through its method under other settings, or through another method.

A line of steps.jsonl has the rewards and the demonstration's length of every group, and what draws were seeded by: all
that a method decides from, but for TRL's advantages, which are made again of the summed rewards. What it cannot know is
what the model would have sampled after other steps, or behind other beginnings: the rewards are those of the rollouts
that the run sampled. Under the run's own settings every decision is the run's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from posttrain.errors import ConfigError
from posttrain.methods import METHODS, Method
from posttrain.methods.base import Arranged, Group, beginning
from posttrain.reading.replay import overrides_of, settings
from posttrain.rundir import reading as run_reading

Lines = Sequence[dict[str, Any]]
COUNTED = ("demonstrations", "demonstration_tokens", "begun_rows", "begun_tokens")
"""What a line of steps.jsonl says of its groups in numbers."""


@dataclass(frozen=True)
class Taken:
    """A method's decisions on the groups of a step.

    Attributes:
        step: Its number.
        arranged: What it makes of each group.
        begun: Tokens that each rollout of each group begins with.
        lengths: Of each group's demonstration; 0 without one.
    """

    step: int
    arranged: tuple[Arranged, ...]
    begun: tuple[tuple[int, ...], ...]
    lengths: tuple[int, ...]

    @property
    def groups(self) -> dict[str, int]:
        """How many were treated alike, by the reason."""
        return dict(Counter(each.reason for each in self.arranged))

    @property
    def counts(self) -> dict[str, int]:
        """Those of `COUNTED`; `rollouts`: how many have an advantage; `waits`: demonstrations for a later SFT step."""
        whole = [length for length, each in zip(self.lengths, self.arranged, strict=True) if each.credit or each.nll]
        begun = [tokens for of in self.begun for tokens in of if tokens]
        rollouts = sum(advantage != 0.0 for each in self.arranged for advantage in each.advantages)
        return dict(zip(COUNTED, (len(whole), sum(whole), len(begun), sum(begun)), strict=True)) | {
            "rollouts": rollouts,
            "waits": sum(each.waits for each in self.arranged),
        }

    @property
    def gates(self) -> list[bool]:
        """Of each group with a gate, whether that let the demonstration in."""
        return [each.opened for each in self.arranged if each.opened is not None]

    def others(self, other: Taken) -> int:
        """Groups that another method treats otherwise, whatever it calls it."""
        mine, theirs = (
            [
                (each.credit, each.nll, each.waits, each.advantages, of)
                for each, of in zip(taken.arranged, taken.begun, strict=True)
            ]
            for taken in (self, other)
        )
        return sum(one != two for one, two in zip(mine, theirs, strict=True))


@dataclass(frozen=True)
class MethodResult:
    """A replay of a run's method.

    Attributes:
        run: The run's name.
        own: The run's method.
        method: The one that was replayed.
        taken: What the run's own settings give, by step.
        replayed: What the others give.
        other_than_run: Steps whose record is not what the run's own settings give: the run changed its settings on the
            way, or its files are not of one piece. Empty as it should be.
    """

    run: str
    own: Method
    method: Method
    taken: Sequence[Taken]
    replayed: Sequence[Taken]
    other_than_run: list[int]

    def summary(self) -> dict[str, Any]:
        """Both sides in numbers: `steps`, `groups`, `paired`, `run` and `replay` (see `side`), `other_groups` and
        `other_steps` (treated otherwise), `first_other`.
        """
        other = [one.others(two) for one, two in zip(self.taken, self.replayed, strict=True)]
        changed = [taken.step for taken, count in zip(self.taken, other, strict=True) if count]
        return {
            "steps": len(self.taken),
            "groups": sum(len(taken.lengths) for taken in self.taken),
            "paired": sum(length > 0 for taken in self.taken for length in taken.lengths),
            "run": side(self.taken),
            "replay": side(self.replayed),
            "other_groups": sum(other),
            "other_steps": len(changed),
            "first_other": changed[0] if changed else None,
        }


def side(taken: Sequence[Taken]) -> dict[str, Any]:
    """The counts of all steps together, `gate_open` (share of the gates, `None` without any) and groups by `reason`."""
    counts: Counter[str] = Counter(dict.fromkeys((*COUNTED, "rollouts", "waits"), 0))
    reasons: Counter[str] = Counter()
    for each in taken:
        counts.update(each.counts)
        reasons.update(each.groups)
    gates = [opened for each in taken for opened in each.gates]
    return {**counts, "gate_open": fmean(gates) if gates else None, "reasons": dict(reasons)}


def replay_method(path: str | Path, overrides: Iterable[str] = ()) -> MethodResult:
    """Replay the groups of a run's hybrid stage under `method.key=value` settings.

    Raises:
        ConfigError: The folder is no run, its stage had no method or recorded no group, or the settings are wrong.
    """
    layout = run_reading.open_run(path)
    recipe = run_reading.recipe(layout)
    own, other = method_of(recipe, str(path)), with_overrides(recipe, overrides)
    every = run_reading.steps(layout, "hybrid")
    clocks = [0.0, *(_clock(line) for line in every)]  # where schedules stood before each step
    some = [
        (line, clock) for line, clock in zip(every, clocks, strict=False) if (line.get("method") or {}).get("groups")
    ]
    lines = [line for line, _ in some]
    _check(lines, own, other, str(path))
    taken = [take(own, line, own=own, clock=clock) for line, clock in some]
    replayed = taken if other == own else [take(other, line, own=own, clock=clock) for line, clock in some]
    name = layout.path.resolve().name
    return MethodResult(name, own, other, taken, replayed, reproduces(lines, taken))


def has_method(path: str | Path) -> bool:
    """Whether a run's recipe has a method and its record groups, so that there is something to replay."""
    layout = run_reading.open_run(path)
    if not layout.recipe_file.exists() or not (run_reading.recipe(layout).get("hybrid") or {}).get("method"):
        return False
    return any("rewards" in (line.get("method") or {}) for line in run_reading.steps(layout, "hybrid"))


def method_of(recipe: Mapping[str, Any], where: str) -> Method:
    """The method that a resolved recipe describes.

    Raises:
        ConfigError: It has none, or none that is known.
    """
    given = (recipe.get("hybrid") or {}).get("method")
    if not given:
        raise ConfigError(
            "the run had no method, so that no group's demonstration is on record",
            expected=f"a run with hybrid.method: {', '.join(METHODS)}",
            where=where,
            fix="controller.key=value replays its controller",
        )
    return with_overrides(recipe, ())


def with_overrides(recipe: Mapping[str, Any], overrides: Iterable[str]) -> Method:
    """The recipe's method under `method.key=value` settings; another name takes that one's defaults.

    Raises:
        ConfigError: A value is wrong.
    """
    from posttrain.recipe.section import Section
    from posttrain.recipe.stage_sections import AnyMethod

    class Holder(Section):
        method: AnyMethod

    method: Method = settings(recipe, overrides_of(overrides), "method", Holder, METHODS)
    return method


def _check(lines: Lines, own: Method, other: Method, where: str) -> None:
    if not lines:
        raise ConfigError("no group is recorded yet", expected="a hybrid step that sampled", where=where)
    bare = next((line["step"] for line in lines if "rewards" not in line["method"]), None)
    if bare is not None:
        raise ConfigError(
            f"the line of step {bare} has no rewards by group",
            expected="steps.jsonl of a version that records them",
            where=where,
            fix="the groups by reason are in `posttrain explain`",
        )
    if other.scores_demonstrations and not own.scores_demonstrations:
        raise ConfigError(
            f"the method {other.name} decides by the rewards of demonstrations, which {own.name} had nobody score",
            expected="a run whose method scores demonstrations",
            where=where,
            fix="only `posttrain run` can try it",
        )


def _clock(line: Mapping[str, Any]) -> float:
    """Where schedules stand behind a step: its number, or the share of a budget that was spent in steps."""
    return float((line.get("controller") or {}).get("clock", line["step"]))


def take(method: Method, line: Mapping[str, Any], *, own: Method, clock: float) -> Taken:
    """A method's decisions on the groups of one line of steps.jsonl.

    Args:
        method: Which one's.
        line: With what the run's method was given.
        own: The run's.
        clock: Where schedules stood before the step, in steps of the stage.
    """
    seen, state = line["method"], line.get("controller") or {}
    lengths = tuple(seen["demonstration_lengths"])
    levels = seen.get("levels") if _samples_again(own, len(seen["rewards"][0])) else None
    levels = levels or [0] * len(lengths)
    groups = [
        _group(rewards, worth, length, level)
        for rewards, worth, length, level in zip(
            seen["rewards"], seen["demonstration_rewards"], lengths, levels, strict=True
        )
    ]
    done = clock / max(state.get("total_steps", 1) - 1, 1)
    window = f"{state.get('seed')}:{seen['window']}"
    begun: list[tuple[int, ...]] = []
    for number, (group, length) in enumerate(zip(groups, lengths, strict=True)):
        rows = len(group.rewards)
        if method.escalates:
            of, level = _escalated(method, group, length)
            groups[number] = group._replace(level=level)
        elif method.begins_rollouts:
            schedule = {"rows": rows, "tokens": length, "done": done, "window": window}
            of = tuple(beginning(method, number, row, **schedule) for row in range(rows))
        else:
            of = (0,) * rows
        begun.append(of)
    return Taken(line["step"], tuple(method.arrange(group) for group in groups), tuple(begun), lengths)


def _escalated(method: Method, group: Group, tokens: int) -> tuple[tuple[int, ...], int]:
    """What the rows of a group begin with, and the highest level, from its rewards block by block.

    Rewards of rows that were sampled once more are not on record: up to the recorded level they were too low.
    """
    rows = len(group.rewards)
    begun, known = [0] * rows, [math.nan] * rows
    level = number = 0
    again = _samples_again(method, rows)
    while tokens > 1:
        lost = again and number <= group.level
        block = method.next_block(number, (0.0,) * rows if lost else tuple(known))
        if block is None:
            break
        for row in block.rows:
            begun[row], known[row] = block.beginning(tokens), group.rewards[row]
        level, number = max(level, block.level), number + 1
    return tuple(begun), level


def _samples_again(method: Method, rows: int) -> bool:
    """Whether a method throws rollouts away, and samples whole groups anew."""
    first = method.next_block(0, (math.nan,) * rows) if method.escalates else None
    return first is not None and len(first.rows) == rows


def _group(rewards: Sequence[float | None], worth: float | None, length: int, level: int) -> Group:
    known = tuple(math.nan if reward is None else float(reward) for reward in rewards)
    demonstration = None if not length else math.nan if worth is None else float(worth)
    return Group(known, _advantages(known), demonstration, level)


def _advantages(rewards: Sequence[float]) -> tuple[float, ...]:
    """TRL's, of a group by itself; 0 where no reward applies."""
    known = [reward for reward in rewards if not math.isnan(reward)]
    if len(known) < 2:
        return (0.0,) * len(rewards)
    mean, spread = fmean(known), stdev(known) + 1e-4
    return tuple(0.0 if math.isnan(reward) else (reward - mean) / spread for reward in rewards)


def reproduces(lines: Lines, taken: Sequence[Taken]) -> list[int]:
    """The steps whose groups and counts are not those that the run recorded; none under the run's own settings."""
    return [
        each.step
        for line, each in zip(lines, taken, strict=True)
        if each.groups != line["method"]["groups"]
        or any(each.counts[name] != line["method"].get(name) for name in COUNTED)
    ]
