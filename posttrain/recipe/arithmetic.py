"""The arithmetic of a run before it starts, and the contradictions that it shows. Pure functions; loads no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from posttrain.errors import ResumeError
from posttrain.recipe.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """What one optimizer step consumes, over all processes.

    Attributes:
        num_processes: Data-parallel processes.
        generation_batch: Completions sampled at once; whole groups of `num_generations`.
        prompts_per_generation: Different prompts among them.
        completions_per_step: Completions that one GRPO step trains on.
        prompts_per_step: Different prompts that one GRPO step draws, on average where a generation serves several.
        demonstrations_per_step: Demonstrations that one SFT step of the mix draws.
        warmup_rows_per_step: Demonstrations that one warm-up step draws.
        completion_tokens_per_step: Upper bound of the sampled tokens that one GRPO step trains on.
        demonstration_tokens_per_step: Upper bound of the tokens of one SFT step, prompts included; None: no bound.
        prompt_steps_per_epoch: GRPO steps that go through all prompts once.
        demonstration_steps_per_epoch: SFT steps of the mix that go through all demonstrations once.
        warmup_steps_per_epoch: Warm-up steps that go through all demonstrations once.
        warmup_epochs: Passes over the demonstrations in the warm-up.
    """

    num_processes: int
    generation_batch: int
    prompts_per_generation: int
    completions_per_step: int
    prompts_per_step: float
    demonstrations_per_step: int
    warmup_rows_per_step: int
    completion_tokens_per_step: int
    demonstration_tokens_per_step: int | None
    prompt_steps_per_epoch: float
    demonstration_steps_per_epoch: float
    warmup_steps_per_epoch: float
    warmup_epochs: float


def batch_plan(recipe: Recipe, num_processes: int = 1, *, prompts: int, demonstrations: int) -> BatchPlan:
    """The arithmetic of a recipe.

    Args:
        recipe: A recipe that `check` accepts.
        num_processes: Data-parallel processes.
        prompts: Rows of the prompt stream.
        demonstrations: Rows of the demonstration stream.
    """
    hybrid, warmup, grpo = recipe.hybrid, recipe.warmup, recipe.hybrid.grpo
    generation_batch = generation_batch_size(recipe, num_processes)
    micro_batches = num_processes * hybrid.gradient_accumulation_steps
    completions = hybrid.per_device_train_batch_size * micro_batches
    # Each generation is trained on num_iterations times, so that fewer new prompts are drawn per step
    drawn = completions / grpo.num_generations / grpo.num_iterations
    rows = demonstration_batch_size(recipe) * micro_batches
    warmup_rows = warmup.per_device_train_batch_size * num_processes * warmup.gradient_accumulation_steps
    return BatchPlan(
        num_processes=num_processes,
        generation_batch=generation_batch,
        prompts_per_generation=generation_batch // grpo.num_generations,
        completions_per_step=completions,
        prompts_per_step=drawn,
        demonstrations_per_step=rows,
        warmup_rows_per_step=warmup_rows,
        completion_tokens_per_step=completions * grpo.max_completion_length,
        demonstration_tokens_per_step=None if warmup.max_length is None else rows * warmup.max_length,
        prompt_steps_per_epoch=prompts / drawn,
        demonstration_steps_per_epoch=demonstrations / rows,
        warmup_steps_per_epoch=demonstrations / warmup_rows,
        warmup_epochs=warmup.steps * warmup_rows / demonstrations if demonstrations else 0.0,
    )


def describe(recipe: Recipe, plan: BatchPlan) -> str:
    """The plan in words, a line each for the warm-up, an SFT step and a GRPO step."""
    lines = []
    if recipe.warmup.steps:
        lines.append(
            f"warm-up: {recipe.warmup.steps} SFT steps of {plan.warmup_rows_per_step} demonstrations, "
            f"{plan.warmup_epochs:.3g} passes over them"
        )
    if not recipe.hybrid.steps:
        return "\n".join(lines)
    sft, grpo = recipe.hybrid.controller.shares()
    lines.append(f"hybrid: {recipe.hybrid.steps} steps under {recipe.hybrid.controller.name}")
    if sft:
        bound = plan.demonstration_tokens_per_step
        most = "" if bound is None else f", at most {bound:,} tokens"
        epoch = f"; {plan.demonstration_steps_per_epoch:.3g} such steps see all of them"
        lines.append(f"  an SFT step: {plan.demonstrations_per_step} demonstrations{most}{epoch}")
    if grpo:
        prompts = f"{plan.prompts_per_step:.3g} new prompts"
        lines.append(
            f"  a GRPO step: {prompts}, {plan.completions_per_step} completions "
            f"({recipe.hybrid.grpo.num_generations} per prompt), at most {plan.completion_tokens_per_step:,} sampled "
            f"tokens; {plan.prompt_steps_per_epoch:.3g} such steps see all prompts"
        )
    return "\n".join(lines)


def generation_batch_size(recipe: Recipe, num_processes: int = 1) -> int:
    """Completions sampled at once, over all processes (`trl.GRPOConfig.generation_batch_size`)."""
    hybrid = recipe.hybrid
    per_generation = hybrid.grpo.steps_per_generation or hybrid.gradient_accumulation_steps
    return hybrid.per_device_train_batch_size * num_processes * per_generation


def demonstration_batch_size(recipe: Recipe) -> int:
    """Demonstrations per device and micro-batch of the hybrid stage.

    Left out, an SFT step takes as many as a step of the warm-up did: the norm of a gradient grows with its noise, so
    that norms over other batch sizes are not the ones that SASR compares.
    """
    hybrid, warmup = recipe.hybrid, recipe.warmup
    if hybrid.demonstration_batch_size:
        return hybrid.demonstration_batch_size
    per_step = warmup.per_device_train_batch_size * warmup.gradient_accumulation_steps
    if warmup.steps and per_step % hybrid.gradient_accumulation_steps == 0:
        return per_step // hybrid.gradient_accumulation_steps
    return hybrid.per_device_train_batch_size


def for_processes(recipe: Recipe, before: int, now: int) -> Recipe:
    """The recipe of a run that was started on `before` processes, for going on with it on `now`.

    Every step takes as many rows as before: what more processes do at once, fewer do one after the other.

    Raises:
        ResumeError: The rows of a step do not divide by that number of processes.
    """
    if before == now:
        return recipe
    per_step = {
        (name, key): value * before
        for name in ("warmup", "hybrid")
        for key, value in _micro_batches(recipe, name).items()
    }
    if any(count % now for count in per_step.values()):
        most = math.gcd(*per_step.values())
        fitting = [str(count) for count in range(1, most + 1) if most % count == 0]
        counts = sorted(set(per_step.values()))
        sizes = ", ".join(f"{'.'.join(place)} {count // before}" for place, count in per_step.items())
        raise ResumeError(
            f"the run was started on {before} processes, with {sizes}, which {now} processes cannot make up for",
            expected=f"{', '.join(fitting[:-1])} or {fitting[-1]} processes" if len(fitting) > 1 else "1 process",
            where="the number of processes",
            fix=f"start one of these numbers of processes, which divide {' and '.join(map(str, counts))} ({before} "
            "processes x each of those settings), so that more than before are possible only where these settings are "
            "above 1; or begin a new run by --restart or run.dir=...",
        )
    changed: dict[str, Any] = {}
    for (name, key), count in per_step.items():
        stage = changed.get(name, getattr(recipe, name))
        if key == "grpo.steps_per_generation":
            grpo = stage.grpo.model_copy(update={"steps_per_generation": count // now})
            changed[name] = stage.model_copy(update={"grpo": grpo})
        else:
            changed[name] = stage.model_copy(update={key: count // now})
    return recipe.model_copy(update=changed)


def _micro_batches(recipe: Recipe, stage: str) -> dict[str, int]:
    """The keys of a stage that count micro-batches of one process, and their values; none of a stage without steps."""
    section = getattr(recipe, stage)
    if not section.steps:
        return {}
    counts = {"gradient_accumulation_steps": section.gradient_accumulation_steps}
    if stage == "hybrid" and section.grpo.steps_per_generation:
        counts["grpo.steps_per_generation"] = section.grpo.steps_per_generation
    return counts


def nearest_multiples(value: int, others: int, divisor: int) -> list[int]:
    """The nearest x below and above `value` (at least 1) for which `divisor` divides x * others."""
    step = divisor // math.gcd(others, divisor)
    return [x for x in (value // step * step, -(-value // step) * step) if x >= 1]


def nearest_divisors(value: int, total: int, least: int = 2) -> list[int]:
    """The nearest divisors of `total` below and above `value`, none below `least`."""
    divisors = [x for x in range(least, total + 1) if total % x == 0]
    below, above = [x for x in divisors if x <= value], [x for x in divisors if x >= value]
    return sorted({*below[-1:], *above[:1]})
