"""How much a run takes of each stream: steps, demonstrations, prompts, completions, passes. Pure arithmetic.

How many steps of a mix are SFT and how many GRPO a fixed schedule says in advance, for it looks at nothing but the
step's number and the seed: its decisions are taken here as the run will take them. Of a controller that looks at
gradients only the bounds are known, and where it begins.
"""

from __future__ import annotations

from dataclasses import dataclass

from posttrain.controllers.base import Signals, adapts
from posttrain.recipe.arithmetic import BatchPlan
from posttrain.recipe.recipe import Recipe


@dataclass(frozen=True)
class Range:
    """A number of steps.

    Attributes:
        least: At the least.
        most: At the most.
        begun: What it would be if the mix stayed as it begins; the number itself where it is known.
    """

    least: int
    most: int
    begun: float

    @property
    def known(self) -> bool:
        """Whether there is but one."""
        return self.least == self.most

    def in_words(self) -> str:
        """Such as `40`, or `0 to 460`."""
        return f"{self.most:,}" if self.known else f"{self.least:,} to {self.most:,}"


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """What a whole run takes, over all processes.

    Attributes:
        warmup_steps: Of stage 1.
        warmup_demonstrations: Rows that it draws.
        warmup_passes: Over all demonstrations; None: their number is not known.
        hybrid_steps: Of stage 2.
        adaptive: Whether the mix depends on what training shows.
        p_at_start: The share of SFT that the controller begins with; None where it has no share.
        sft_steps: Hybrid steps with an SFT half.
        grpo_steps: Hybrid steps with a GRPO half.
        demonstrations_per_step: Of an SFT half.
        demonstration_passes: Over all demonstrations, at the least, the most and as the mix begins; None: not known.
        prompts_per_step: New prompts of a GRPO half, on average; without those that replace others.
        completions_per_step: That a GRPO half trains on.
        sampled_per_step: Completions sampled for a GRPO half, on average; without those that were replaced.
        prompt_passes: Over all prompts, as `demonstration_passes`; without those that replace others.
        sampled_tokens: Upper bound over the run; with all that may be replaced.
        evaluations: Of the held-out rows.
        evaluation_completions: Of one evaluation.
        curriculum_completions: Sampled to measure pass rates, before stage 2.
        curriculum_passes: Of prompts through the model, to measure their hidden states, before stage 2.
    """

    warmup_steps: int
    warmup_demonstrations: int
    warmup_passes: float | None
    hybrid_steps: int
    adaptive: bool
    p_at_start: float | None
    sft_steps: Range
    grpo_steps: Range
    demonstrations_per_step: int
    demonstration_passes: tuple[float, float, float] | None
    prompts_per_step: float
    completions_per_step: int
    sampled_per_step: float
    prompt_passes: tuple[float, float, float] | None
    sampled_tokens: int
    evaluations: int
    evaluation_completions: int
    curriculum_completions: int
    curriculum_passes: int


def amounts(
    recipe: Recipe, plan: BatchPlan, *, prompts: int | None, demonstrations: int | None, held_out: int | None
) -> Amounts:
    """What a run of a recipe takes.

    Args:
        recipe: The recipe.
        plan: Its batch arithmetic.
        prompts: Rows of the prompt stream; None: not known.
        demonstrations: Rows of the demonstration stream; None: not known.
        held_out: Rows of an evaluation; None: not known.
    """
    hybrid, warmup = recipe.hybrid, recipe.warmup
    adaptive, p, sft, grpo = mix_of(recipe)
    warmup_rows = warmup.steps * plan.warmup_rows_per_step
    sampled = plan.completions_per_step / hybrid.grpo.num_iterations
    batches = hybrid.refill.max_batches if hybrid.refill else 1
    sampling = recipe.evaluate.samples if max(recipe.evaluate.k) > 1 else 0
    curriculum = hybrid.curriculum if hybrid.steps else None
    return Amounts(
        warmup_steps=warmup.steps,
        warmup_demonstrations=warmup_rows,
        warmup_passes=warmup_rows / demonstrations if demonstrations else None,
        hybrid_steps=hybrid.steps,
        adaptive=adaptive,
        p_at_start=p,
        sft_steps=sft,
        grpo_steps=grpo,
        demonstrations_per_step=plan.demonstrations_per_step,
        demonstration_passes=_passes(sft, plan.demonstrations_per_step, demonstrations),
        prompts_per_step=plan.prompts_per_step,
        completions_per_step=plan.completions_per_step,
        sampled_per_step=sampled,
        prompt_passes=_passes(grpo, plan.prompts_per_step, prompts),
        sampled_tokens=round(grpo.most * sampled) * batches * hybrid.grpo.max_completion_length,
        evaluations=evaluations(recipe),
        evaluation_completions=(held_out or 0) * (1 + sampling),
        curriculum_completions=curriculum.completions * (prompts or 0) if curriculum else 0,
        curriculum_passes=(prompts or 0) if curriculum and curriculum.prefills else 0,
    )


def mix_of(recipe: Recipe) -> tuple[bool, float | None, Range, Range]:
    """Whether the controller adapts, the SFT share it begins with, and the steps with an SFT and with a GRPO half."""
    steps, controller = recipe.hybrid.steps, recipe.hybrid.controller
    state = controller.start(total_steps=steps, seed=recipe.run.seed, g_warmup=1.0)
    first = controller.decide(state)
    if not adapts(controller):
        mixes = []
        for _ in range(steps):
            mixes.append(controller.decide(state))
            state = controller.observe(state, Signals())
        counts = [sum(getattr(mix, half) > 0 for mix in mixes) for half in ("sft", "grpo")]
        sft, grpo = (Range(count, count, count) for count in counts)
        return False, first.p, sft, grpo
    least = controller.least(steps) if hasattr(controller, "least") else None
    if first.sft and first.grpo:  # a blend has both halves in every step, unless it says otherwise
        some = least or (steps, steps)
        return True, first.p, Range(some[0], steps, steps), Range(some[1], steps, steps)
    p, (sft_least, grpo_least) = first.sft if first.p is None else first.p, least or (0, 0)
    sft = Range(sft_least, steps - grpo_least, p * steps)
    return True, p, sft, Range(grpo_least, steps - sft_least, (1 - p) * steps)


def evaluations(recipe: Recipe) -> int:
    """How often the held-out rows are evaluated: at the start, after the warm-up, in the mix, at the end."""
    every, steps = recipe.evaluate.every, recipe.hybrid.steps
    between = (steps - 1) // every if every and steps else 0
    between += max(recipe.evaluate.times - 1, 0) if steps else 0
    return int(recipe.evaluate.at_start) + int(recipe.warmup.steps > 0) + between + 1


def _passes(steps: Range, rows_per_step: float, rows: int | None) -> tuple[float, float, float] | None:
    if not rows:
        return None
    return (steps.least * rows_per_step / rows, steps.most * rows_per_step / rows, steps.begun * rows_per_step / rows)
