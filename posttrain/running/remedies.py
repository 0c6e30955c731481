"""Settings that need less memory than a recipe's, for each part of a run that may lack it.

The first choice takes the same steps in smaller parts, so that the run goes on where it was; what changes the run comes
after that. Pure arithmetic on the recipe; importing this loads no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from posttrain.recipe.arithmetic import demonstration_batch_size, generation_batch_size
from posttrain.recipe.contradictions import contradictions
from posttrain.recipe.recipe import Recipe

Part = Literal[
    "warmup", "sft", "grpo", "sampling", "kl", "snapshot", "optimizer", "evaluation", "vllm", "loading", "unknown"
]
"""Where memory can run out."""


@dataclass(frozen=True)
class Shortage:
    """What an exception says of the memory: sizes as it words them, `None` where it does not say."""

    text: str
    asked: str | None = None
    free: str | None = None
    total: str | None = None

    def in_words(self) -> str:
        """Such as `2.00 GiB asked for, 1.32 GiB free of 79.11 GiB`."""
        said = [f"{self.asked} asked for"] if self.asked else []
        if self.free:
            said.append(f"{self.free} free" + (f" of {self.total}" if self.total else ""))
        return ", ".join(said) or self.text.strip().splitlines()[0][:200]


@dataclass(frozen=True)
class Remedy:
    """Settings that need less memory.

    Args:
        settings: Dotted key -> value.
        why: What they do, in words.
        flag: What a run needs to go on under them: nothing, `--accept-changes` or `--restart`.
    """

    settings: Mapping[str, Any]
    why: str
    flag: Literal["", "--accept-changes", "--restart"] = ""

    def in_words(self) -> str:
        """The settings as they are typed, and what they do."""
        return f"{self.typed()} ({self.why})"

    def typed(self) -> str:
        """The settings as arguments of `posttrain run`."""
        values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in self.settings.items()}
        return " ".join(f"{key}={value}" for key, value in values.items())


def remedies(
    recipe: Recipe, part: Part, processes: int = 1, *, on_gpu: bool = True, said: Shortage | None = None
) -> list[Remedy]:
    """What to set instead, the best first; each alone is meant to be enough to try.

    Args:
        recipe: The run's.
        part: Where the memory ran out.
        processes: Data-parallel processes that the recipe's sizes are for.
        on_gpu: Where gradient checkpointing is on unless the recipe says otherwise.
        said: What the exception said; vLLM's says how much it could have.
    """
    choices: dict[Part, tuple[Callable[[], Remedy | None], ...]] = {
        "warmup": (
            lambda: smaller_parts(recipe, "warmup", processes),
            lambda: _checkpointing(recipe, "warmup", on_gpu),
            lambda: _shorter_demonstrations(recipe),
        ),
        "sft": (
            lambda: smaller_parts(recipe, "hybrid", processes),
            lambda: _checkpointing(recipe, "hybrid", on_gpu),
            lambda: _engine_gives_way(recipe),
            lambda: _shorter_demonstrations(recipe),
        ),
        "grpo": (
            lambda: smaller_parts(recipe, "hybrid", processes),
            lambda: _checkpointing(recipe, "hybrid", on_gpu),
            lambda: _engine_gives_way(recipe),
            lambda: _offload(recipe),
            lambda: _shorter_completions(recipe),
        ),
        "kl": (
            lambda: smaller_parts(recipe, "hybrid", processes),
            lambda: _offload(recipe),
            lambda: _engine_gives_way(recipe),
            lambda: _no_kl(recipe),
            lambda: _shorter_completions(recipe),
        ),
        "snapshot": (lambda: _offload(recipe), lambda: _engine_gives_way(recipe), lambda: _no_kl(recipe)),
        "sampling": (lambda: fewer_at_once(recipe, processes), lambda: _shorter_completions(recipe)),
        "evaluation": (lambda: _smaller_evaluation(recipe), lambda: _shorter_evaluation(recipe)),
        "vllm": (
            lambda: _engine_fits(recipe, said),
            lambda: _sleep(recipe),
            lambda: _shorter_completions(recipe),
        ),
        "optimizer": (lambda: _offload(recipe), lambda: _engine_gives_way(recipe)),
        "loading": (lambda: _engine_gives_way(recipe), lambda: _offload(recipe)),
        "unknown": (
            lambda: smaller_parts(recipe, "hybrid", processes),
            lambda: _smaller_evaluation(recipe),
        ),
    }
    found = [remedy for choice in choices[part] if (remedy := choice())]
    return found + ([adapter] if part != "evaluation" and part != "vllm" and (adapter := _adapter(recipe)) else [])


def smaller_parts(recipe: Recipe, stage: str, processes: int = 1) -> Remedy | None:
    """The same steps with fewer rows at a time; `None` where a micro-batch has one row or cannot be cut evenly."""
    section = getattr(recipe, stage)
    size, count = section.per_device_train_batch_size, section.gradient_accumulation_steps
    for factor in range(2, size + 1):
        if size % factor:
            continue
        settings = {
            f"{stage}.per_device_train_batch_size": size // factor,
            f"{stage}.gradient_accumulation_steps": count * factor,
        }
        if stage == "hybrid":
            more = _cut_with_it(recipe, settings, factor)
            if more is None:
                continue
            settings |= more
        changed = with_settings(recipe, settings)
        if not contradictions(changed, processes) and _rows(changed, processes) == _rows(recipe, processes):
            parts = "half" if factor == 2 else f"1/{factor}"
            return Remedy(settings, f"the same steps, {parts} of the rows at a time")
    return None


def _cut_with_it(recipe: Recipe, settings: Mapping[str, Any], factor: int) -> dict[str, Any] | None:
    """What must change with the hybrid stage's micro-batches; `None` where the demonstrations don't divide."""
    hybrid, more = recipe.hybrid, {}
    if hybrid.grpo.steps_per_generation:
        more["hybrid.grpo.steps_per_generation"] = hybrid.grpo.steps_per_generation * factor
    demonstrations, rest = divmod(demonstration_batch_size(recipe), factor)
    if hybrid.controller.shares()[0]:
        if rest:
            return None
        if demonstration_batch_size(with_settings(recipe, settings)) != demonstrations:
            more["hybrid.demonstration_batch_size"] = demonstrations
    return more


def _rows(recipe: Recipe, processes: int) -> tuple[int, ...]:
    """What a step of each stage and a generation take."""
    warmup, hybrid = recipe.warmup, recipe.hybrid
    taken = [
        warmup.per_device_train_batch_size * warmup.gradient_accumulation_steps,
        hybrid.per_device_train_batch_size * hybrid.gradient_accumulation_steps,
        generation_batch_size(recipe, processes),
    ]
    if hybrid.controller.shares()[0]:
        taken.append(demonstration_batch_size(recipe) * hybrid.gradient_accumulation_steps)
    return tuple(taken)


def fewer_at_once(recipe: Recipe, processes: int = 1) -> Remedy | None:
    """Fewer completions sampled at once for the same steps; `None` where one group is all that is sampled already."""
    hybrid = recipe.hybrid
    if hybrid.grpo.num_iterations > 1:
        return None  # a generation is trained on by several steps
    now = hybrid.per_device_train_batch_size * (hybrid.grpo.steps_per_generation or hybrid.gradient_accumulation_steps)
    bases: list[dict[str, Any]] = [{}]
    if parts := smaller_parts(recipe, "hybrid", processes):
        bases.append({key: value for key, value in parts.settings.items() if "steps_per_generation" not in key})
    for base in bases:
        changed = with_settings(recipe, base).hybrid
        for window in range(changed.gradient_accumulation_steps, 0, -1):
            if changed.per_device_train_batch_size * window > now // 2:
                continue
            settings = {**base, "hybrid.grpo.steps_per_generation": window}
            if not contradictions(with_settings(recipe, settings), processes):
                sampled = generation_batch_size(with_settings(recipe, settings), processes)
                why = f"{sampled} completions sampled at once instead of {generation_batch_size(recipe, processes)}"
                return Remedy(settings, why, flag="--accept-changes")
    return None


def _checkpointing(recipe: Recipe, stage: str, on_gpu: bool) -> Remedy | None:
    if getattr(recipe, stage).args.get("gradient_checkpointing", on_gpu):
        return None
    return Remedy({f"{stage}.args.gradient_checkpointing": True}, "activations computed again instead of kept")


def _engine_gives_way(recipe: Recipe) -> Remedy | None:
    """A colocated vLLM that leaves more memory to training."""
    section = recipe.rollout
    if not section.uses_vllm() or section.mode != "colocate":
        return None
    return _sleep(recipe) or _less_for_the_engine(section.gpu_memory_utilization * 0.7)


def _sleep(recipe: Recipe) -> Remedy | None:
    if recipe.rollout.enable_sleep_mode or recipe.rollout.mode != "colocate":
        return None
    return Remedy({"rollout.enable_sleep_mode": True}, "vLLM frees its memory while the policy trains")


def _less_for_the_engine(share: float) -> Remedy:
    return Remedy({"rollout.gpu_memory_utilization": max(0.05, int(share * 100) / 100)}, "less of the GPU for vLLM")


def _engine_fits(recipe: Recipe, said: Shortage | None) -> Remedy | None:
    text, share = said.text if said else "", recipe.rollout.gpu_memory_utilization
    if said and said.free and said.total and "less than desired" in text:
        return _less_for_the_engine(0.95 * float(said.free.split()[0]) / float(said.total.split()[0]))
    if "KV cache" in text or "cache blocks" in text:
        if share >= 0.9:
            return None
        return Remedy({"rollout.gpu_memory_utilization": min(0.9, round(share * 1.5, 2))}, "more of the GPU for vLLM")
    return _less_for_the_engine(share * 0.7)


def _offload(recipe: Recipe) -> Remedy | None:
    kl = recipe.hybrid.kl
    if kl.offload or not kl.sample or recipe.lora or not recipe.hybrid.steps:
        return None
    return Remedy({"hybrid.kl.offload": True}, "the copy of the starting policy waits in host memory")


def _no_kl(recipe: Recipe) -> Remedy | None:
    if not recipe.hybrid.kl.sample or getattr(recipe.hybrid.controller, "kl_target", None) is not None:
        return None
    return Remedy({"hybrid.kl.sample": 0}, "the KL is not measured", flag="--accept-changes")


def _shorter_completions(recipe: Recipe) -> Remedy | None:
    length = recipe.hybrid.grpo.max_completion_length // 2
    if not length:
        return None
    return Remedy({"hybrid.grpo.max_completion_length": length}, "shorter completions", flag="--accept-changes")


def _shorter_demonstrations(recipe: Recipe) -> Remedy | None:
    if recipe.warmup.max_length == 1:
        return None
    length = (recipe.warmup.max_length or 2048) // 2
    return Remedy({"warmup.max_length": length}, "longer demonstrations are cut off", flag="--accept-changes")


def _smaller_evaluation(recipe: Recipe) -> Remedy | None:
    size = recipe.evaluate.batch_size // 2
    return Remedy({"evaluate.batch_size": size}, "the same evaluation, half of the rows at a time") if size else None


def _shorter_evaluation(recipe: Recipe) -> Remedy | None:
    length = (recipe.evaluate.max_completion_length or recipe.hybrid.grpo.max_completion_length) // 2
    if not length:
        return None
    return Remedy({"evaluate.max_completion_length": length}, "shorter completions", flag="--accept-changes")


def _adapter(recipe: Recipe) -> Remedy | None:
    return None if recipe.lora else Remedy({"lora.r": 16}, "an adapter trains instead of all weights", flag="--restart")


def with_settings(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with other values under dotted keys."""
    for key, value in settings.items():
        recipe = _with(recipe, key.split("."), value)
    return recipe


def _with(section: Any, parts: list[str], value: Any) -> Any:
    if not parts:
        return value
    name, *rest = parts
    if isinstance(section, dict):
        return {**section, name: _with(section.get(name), rest, value)}
    return section.model_copy(update={name: _with(getattr(section, name), rest, value)})
