"""What one process does in each moment of a run, in the terms that the cost model counts. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from posttrain.models.cost_counts import StepWork
from posttrain.planning.lengths import Texts
from posttrain.recipe.arithmetic import BatchPlan, demonstration_batch_size
from posttrain.recipe.recipe import Recipe


@dataclass(frozen=True)
class Assumed:
    """Tokens that rows are taken to have.

    Attributes:
        prompt: A prompt.
        demonstration: A demonstration, its prompt included.
        labels: Share of its tokens that are trained on.
        completion: A sampled completion.
        longest: The longest completion of a generation.
        demonstrations: Tokens of each counted demonstration as it is kept; empty: all are as long as `demonstration`.
    """

    prompt: float
    demonstration: float
    labels: float
    completion: float
    longest: float
    demonstrations: tuple[int, ...] = ()

    def widest(self, rows: int) -> float:
        """Expected tokens of the longest of that many demonstrations."""
        lengths, most = sorted(self.demonstrations), len(self.demonstrations)
        if not lengths:
            return self.demonstration
        shares = (((place + 1) / most) ** rows - (place / most) ** rows for place in range(most))
        return sum(share * length for share, length in zip(shares, lengths, strict=True))

    @classmethod
    def of(cls, recipe: Recipe, texts: Texts | None, completion: float | None) -> Assumed:
        """Rows of mean length.

        Args:
            recipe: Its limits stand in for what is not known.
            texts: Lengths of its rows.
            completion: Mean tokens of a completion, where anything is known of it.
        """
        limit = float(recipe.hybrid.grpo.max_completion_length)
        mean = limit if completion is None else min(completion, limit)
        at_most = cls.at_most(recipe, texts)
        return cls(
            prompt=texts.prompts.mean if texts and texts.prompts else at_most.prompt,
            demonstration=texts.kept if texts and texts.kept else at_most.demonstration,
            labels=texts.labels if texts else 1.0,
            demonstrations=texts.kept_lengths if texts else (),
            completion=mean,
            longest=min(limit, max(mean, texts.completions.longest) if texts and texts.completions else limit),
        )

    @classmethod
    def at_most(cls, recipe: Recipe, texts: Texts | None) -> Assumed:
        """Rows as long as they can be: what memory must be there for."""
        limit = float(recipe.hybrid.grpo.max_completion_length)
        longest = texts.demonstrations.longest if texts and texts.demonstrations else None
        bounds = [bound for bound in (recipe.warmup.max_length, longest) if bound]
        return cls(
            prompt=float(texts.prompts.longest) if texts and texts.prompts else limit,
            demonstration=float(min(bounds)) if bounds else 1024.0,
            labels=1.0,
            completion=limit,
            longest=limit,
        )


def works_of(
    recipe: Recipe,
    plan: BatchPlan,
    assumed: Assumed,
    *,
    held_out: int | None,
    trained: int | None,
    padded: Mapping[str, str] | None = None,
) -> dict[str, StepWork]:
    """What one process does at once in each moment that a recipe has: warmup, sft, grpo, sampling, evaluation.

    Args:
        recipe: The recipe.
        plan: Its batch arithmetic.
        assumed: Lengths.
        held_out: Rows of an evaluation; None: not known.
        trained: Parameters that train; None: all.
        padded: Why rows are padded, by moment (`ModelFacts.padded`); None: where the recipe says so.
    """
    if padded is None:
        asked = {"warmup": recipe.warmup.packed, "sft": recipe.hybrid.packed, "grpo": recipe.hybrid.packed}
        padded = {moment: "packed: false" for moment, packed in asked.items() if not packed}
    hybrid, grpo, count = recipe.hybrid, recipe.hybrid.grpo, plan.num_processes
    sft_half, grpo_half = hybrid.controller.shares() if hybrid.steps else (False, False)
    works: dict[str, StepWork] = {}

    def sft(moment: str, rows: int, batch: int) -> StepWork:
        packed = moment not in padded
        return StepWork(
            demonstrations=rows // count, demonstration=assumed.demonstration, labels=assumed.labels,
            demonstration_batch=batch, trainable=trained, packed=packed,
            demonstration_width=0.0 if packed else assumed.widest(batch),
        )  # fmt: skip

    if recipe.warmup.steps:
        works["warmup"] = sft("warmup", plan.warmup_rows_per_step, recipe.warmup.per_device_train_batch_size)
    if sft_half:
        works["sft"] = sft("sft", plan.demonstrations_per_step, demonstration_batch_size(recipe))
    sampled = StepWork(
        group=grpo.num_generations, prompt=assumed.prompt, completion=assumed.completion, longest=assumed.longest
    )
    if grpo_half:
        rows = plan.completions_per_step // count
        # Passes without gradients: the KL's sample, old log-probabilities where a generation serves several steps, and
        # those of the reference
        several = plan.generation_batch > plan.completions_per_step or grpo.num_iterations > 1
        scored = hybrid.kl.sample + several + (grpo.beta > 0)
        works["grpo"] = replace(
            sampled, rows=rows, micro_batch=hybrid.per_device_train_batch_size, packed="grpo" not in padded,
            logprob_rows=rows * scored, trainable=trained,
        )  # fmt: skip
        works["sampling"] = replace(sampled, rows=plan.generation_batch // count)
    limit = float(recipe.evaluate.max_completion_length or grpo.max_completion_length)
    batch = min(recipe.evaluate.batch_size, held_out or recipe.evaluate.batch_size)
    works["evaluation"] = replace(
        sampled, rows=batch, group=1, completion=min(assumed.completion, limit), longest=min(assumed.longest, limit)
    )
    return works
