"""What a method needs and lacks: prompts with a demonstration, rewards that pass its gate, room to go on in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from posttrain.planning.lengths import Lengths
from posttrain.planning.mistakes import Finding
from posttrain.recipe.recipe import Recipe
from posttrain.scoring.score import Reward
from posttrain.tasks import TaskData

FEW = 0.5
"""Share of prompts with a demonstration below which most of a step is GRPO alone."""

LITTLE_ROOM = 0.75
"""Of the completion limit: demonstrations of so much on average leave a rollout that begins with one little room."""


@dataclass(frozen=True)
class Paired:
    """Prompts and demonstrations, joined by content.

    Attributes:
        prompts: Of the rollouts; the demonstrations' own are among them.
        paired: With a demonstration.
        several: With more than one.
    """

    prompts: int
    paired: int
    several: int

    @classmethod
    def of(cls, data: TaskData) -> Paired:
        """Count all: a key of each row, no tokens. A row's own column `demonstration` counts as in a run."""
        from posttrain.inputs.data import prompt_key

        shown = Counter(prompt_key(row["prompt"]) for row in data.demonstrations)
        prompts = [prompt_key(row["prompt"]) for row in data.train]
        for key, row in zip(prompts, data.train, strict=True):
            given = row.get("demonstration")
            several = isinstance(given, list) and bool(given) and isinstance(given[0], str | list)
            shown[key] += len(given) if several and isinstance(given, list) else bool(given)
        known = set(prompts)
        prompts += [key for key in dict.fromkeys(shown) if key not in known]
        return cls(len(prompts), sum(shown[key] > 0 for key in prompts), sum(shown[key] > 1 for key in prompts))


def method_in_words(recipe: Recipe, paired: Paired | None, completions: Lengths | None) -> str:
    """A line: how many prompts have a demonstration, and what becomes of those that are too long."""
    method, limit = recipe.hybrid.method, recipe.hybrid.grpo.max_completion_length
    assert method is not None
    if paired is None:
        who = "the demonstrations' prompts are among the prompts"
    else:
        more = f", {paired.several:,} of them several" if paired.several else ""
        who = f"{paired.paired:,} of {paired.prompts:,} prompts have a demonstration{more}"
    long = f"a demonstration of more than {limit} tokens is "
    long += "refused" if method.too_long == "refuse" else "left out"
    if completions is not None and completions.limit == limit:
        over = round(completions.over * completions.rows)
        counted = "" if completions.rows == completions.of else " counted"
        long += f" ({over:,} of {completions.rows:,}{counted})"
    return f"method {method.name}: {who}, GRPO alone on the rest; {long}"


def method_findings(
    recipe: Recipe, paired: Paired | None, completions: Lengths | None, rewards: Sequence[Reward]
) -> Iterator[Finding]:
    """What is likely a mistake beside a method, or worth knowing.

    Args:
        recipe: With a method and hybrid steps, else there is nothing.
        paired: Prompts and demonstrations; None: not known.
        completions: Of the demonstrations, in tokens; None: not known.
        rewards: Of the rollouts; empty: not known.
    """
    if recipe.hybrid.method is None or not recipe.hybrid.steps:
        return
    if paired is not None and paired.paired < FEW * paired.prompts:
        yield Finding(
            "note", "method_demonstrations", recipe.where("hybrid.method"),
            f"{paired.paired:,} of {paired.prompts:,} prompts have a demonstration: the method has nothing to bring in "
            "on the others",
            "give demonstrations of more of the task's prompts, or fewer prompts",
        )  # fmt: skip
    if completions is not None:
        yield from _too_long(recipe, completions)
        yield from _room(recipe, completions)
    yield from _rewards(recipe, rewards)


def _too_long(recipe: Recipe, completions: Lengths) -> Iterator[Finding]:
    method, limit = recipe.hybrid.method, recipe.hybrid.grpo.max_completion_length
    if method is None or not completions.over:
        return
    refuses = method.too_long == "refuse"
    every = completions.over == 1.0
    level = "problem" if refuses or (every and completions.rows == completions.of) else "warning" if every else "note"
    what = "the run refuses them" if refuses else "they are left out"
    yield Finding(
        level, "method_too_long", recipe.where("hybrid.grpo.max_completion_length"),  # type: ignore[arg-type]
        f"{completions.over:.0%} of the demonstrations have more than the {limit} tokens of a completion: {what}, for "
        "a demonstration is never cut",
        f"set hybrid.grpo.max_completion_length to {completions.longest} (the longest)"
        + ("; or hybrid.method.too_long to leave_out" if refuses else ""),
    )  # fmt: skip


def _room(recipe: Recipe, completions: Lengths) -> Iterator[Finding]:
    """Of methods whose rollouts begin with a part of a demonstration, which counts in the limit."""
    method, limit = recipe.hybrid.method, recipe.hybrid.grpo.max_completion_length
    if method is None or not method.begins_rollouts:
        return
    mean = min(completions.mean, limit)
    tight = mean > LITTLE_ROOM * limit
    yield Finding(
        "warning" if tight else "note", "method_room", recipe.where("hybrid.grpo.max_completion_length"),
        f"what a rollout begins with counts in its {limit} tokens: one that goes on from nearly all of a demonstration "
        f"({mean:.4g} tokens on average) has {max(limit - mean, 1):.4g} left to sample",
        f"set it to {round(2 * completions.mean)} or more" if tight else "",
    )  # fmt: skip


def _routed(reward: Reward) -> bool:
    return reward.tasks is not None or reward.sources is not None


def _rewards(recipe: Recipe, rewards: Sequence[Reward]) -> Iterator[Finding]:
    """Whether a rollout can be solved as the method asks for it, as far as scores are known to be from 0 to 1."""
    passing = getattr(recipe.hybrid.method, "passing", None)
    if passing is None or not rewards or any(_routed(each) for each in rewards):  # which add up by the row
        return
    where, key = recipe.where("hybrid.method"), "hybrid.method.passing"
    own = [each.name for each in rewards if each.style == "trl"]
    if own:
        yield Finding(
            "note", "method_rewards", where,
            f"{', '.join(own)} may score beyond 0 and 1, and a rollout of {passing:g} or more counts as solved",
            f"set {key} to what a right answer scores",
        )  # fmt: skip
        return
    most = sum(max(each.weight, 0.0) for each in rewards)
    least = sum(min(each.weight, 0.0) for each in rewards)
    if passing > most + 1e-6:
        yield Finding(
            "warning", "method_rewards", where,
            f"a rollout scores {most:g} at most (the weights together), and {passing:g} is asked of a solved one: none "
            "ever is",
            f"set {key} to {most:g} or less",
        )  # fmt: skip
    elif passing <= least:
        yield Finding(
            "warning", "method_rewards", where,
            f"a rollout scores {least:g} at least, and one of {passing:g} or more counts as solved: all do",
            f"set {key} above {least:g}",
        )  # fmt: skip
    elif len(rewards) > 1 or most != passing:
        weights = ", ".join(f"{each.name} {each.weight:g}" for each in rewards)
        taken = f"; what scores below 0 takes down to {least:g}" if least < 0 else ""
        yield Finding(
            "note", "method_rewards", where,
            f"a rollout of {passing:g} or more counts as solved, of {most:g} at most ({weights}){taken}",
            f"set {key} to what a right answer scores at least",
        )  # fmt: skip
