"""Settings of a recipe that contradict each other, each with the fix. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from posttrain.curricula.beside import EXPECTED, ON_DEMONSTRATIONS, refused, refused_on_demonstrations
from posttrain.errors import ConfigError
from posttrain.methods.base import LOSSES
from posttrain.recipe.adapter_serving import adapter_of, why_sent_whole
from posttrain.recipe.arithmetic import generation_batch_size, nearest_divisors, nearest_multiples
from posttrain.recipe.mistakes import raise_all
from posttrain.recipe.model_contradictions import OF_THE_MODEL
from posttrain.recipe.recipe import Recipe
from posttrain.recipe.selected_tokens import length_budget, tokens
from posttrain.recipe.sft_losses import muscle, one_loss, token_weights
from posttrain.recipe.tracking import HEEDED
from posttrain.recipe.window_ahead import window_ahead


def check(recipe: Recipe, num_processes: int = 1) -> None:
    """Refuse a recipe whose sections contradict each other.

    Raises:
        ConfigError: With every contradiction, the key and line it is written at, and what to set instead.
    """
    raise_all(contradictions(recipe, num_processes), "the recipe")


def contradictions(recipe: Recipe, num_processes: int = 1) -> list[ConfigError]:
    """All that `check` would refuse."""
    checks = (
        *OF_THE_MODEL,
        _generation_batch,
        _generation_window,
        _stages,
        token_weights,
        one_loss,
        muscle,
        _stage_of_controller,
        _method,
        _refill,
        tokens,
        _curriculum,
        length_budget,
        _kl,
        _data,
        _rewards,
        _rollout,
        _adapter_alone,
        window_ahead,
        _evaluation,
        _lengths,
        _tracking,
    )
    return [problem for one in checks for problem in one(recipe, num_processes)]


TRUNCATED = (
    "completions are drawn from a truncated distribution (top_p, top_k, min_p or repetition_penalty) and corrected for "
    "the difference between sampler and trainer",
    "one of the two: the trainer's log-probabilities are of the whole distribution, and the correction would take the "
    "truncation for a mismatch and scale the gradient down",
)
"""What is seen and what is expected where importance sampling would correct for the wrong thing."""


TRUNCATED_FIX = "set vllm_importance_sampling_correction to false, or sample without truncation"


def truncates(sampling: Any) -> bool:
    """Whether settings of a GRPOConfig or a recipe's `grpo` draw from less than the whole distribution."""
    return bool(sampling.top_p < 1 or sampling.top_k > 0 or sampling.min_p or sampling.repetition_penalty != 1)


def _rollout(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    corrected = recipe.hybrid.args.get("vllm_importance_sampling_correction", True)
    if not (recipe.rollout.uses_vllm() and corrected and truncates(recipe.hybrid.grpo)):
        return []
    key = "hybrid.args.vllm_importance_sampling_correction"
    return [_problem(recipe, key, TRUNCATED[0], expected=TRUNCATED[1], fix=TRUNCATED_FIX)]


def _adapter_alone(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    if recipe.rollout.lora != "adapter":
        return []
    config = adapter_of(recipe)
    seen = "nothing has an adapter" if config is None else why_sent_whole(config)
    seen = seen if recipe.rollout.uses_vllm() else "transformers samples, from the policy itself"
    if seen is None:
        return []
    expected = "vLLM, and an adapter that it adds as it is trained"
    return [_problem(recipe, "rollout.lora", f"adapter, but {seen}", expected=expected, fix="set auto")]


def _problem(
    recipe: Recipe, key: str, seen: str, *, expected: str | None = None, fix: str | None = None
) -> ConfigError:
    return ConfigError(seen, expected=expected, where=recipe.where(key), fix=fix)


def _generation_batch(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    hybrid, group = recipe.hybrid, recipe.hybrid.grpo.num_generations
    total = generation_batch_size(recipe, num_processes)
    if not hybrid.steps or total % group == 0:
        return []
    size = hybrid.per_device_train_batch_size
    knob = "grpo.steps_per_generation" if hybrid.grpo.steps_per_generation else "gradient_accumulation_steps"
    per_generation = total // (size * num_processes)
    choices = {
        "hybrid.per_device_train_batch_size": nearest_multiples(size, total // size, group),
        f"hybrid.{knob}": nearest_multiples(per_generation, total // per_generation, group),
        "hybrid.grpo.num_generations": nearest_divisors(group, total),
    }
    product = f"per_device_train_batch_size {size} x {knob.split('.')[-1]} {per_generation}"
    if num_processes > 1:
        product += f" x {num_processes} processes"
    return [
        _problem(
            recipe,
            "hybrid.grpo.num_generations",
            f"a generation batch of {total} ({product}) does not hold whole groups of {group} completions",
            expected=f"a multiple of {group}",
            fix="set " + ", or ".join(f"{key} to {_either(values)}" for key, values in choices.items() if values),
        )
    ]


def _generation_window(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    hybrid = recipe.hybrid
    window, step = hybrid.grpo.steps_per_generation, hybrid.gradient_accumulation_steps
    if window is None or not hybrid.steps or window % step == 0 or step % window == 0:
        return []
    values = sorted({*nearest_divisors(window, step, 1), *nearest_multiples(window, 1, step)})
    return [
        _problem(
            recipe,
            "hybrid.grpo.steps_per_generation",
            f"{window} micro-batches per generation and {step} per optimizer step (gradient_accumulation_steps)",
            expected="one a multiple of the other: else a step mixes rollouts of two policies",
            fix=f"set it to {_either(values)}",
        )
    ]


def _stages(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    warmup, hybrid = recipe.warmup, recipe.hybrid
    problems = []
    if not warmup.steps and not hybrid.steps:
        fix = "set one of them, or use `posttrain eval` to evaluate a model as it is"
        problems.append(_problem(recipe, "hybrid.steps", "nothing to train: both stages have 0 steps", fix=fix))
    has_norm = warmup.steps > 0 or getattr(hybrid.controller, "g_warmup", None) is not None
    if hybrid.steps and hybrid.controller.needs_g_warmup and not has_norm:
        seen = f"0, but the controller {hybrid.controller.name} weighs gradient norms against the warm-up's"
        fix = "set warmup.steps above 0, or hybrid.controller.g_warmup to a norm you know"
        problems.append(_problem(recipe, "warmup.steps", seen, fix=fix))
    if warmup.steps and warmup.norm_window and warmup.norm_window > warmup.steps:
        problems.append(
            _problem(
                recipe,
                "warmup.norm_window",
                f"the last {warmup.norm_window} of {warmup.steps} warm-up steps",
                expected=f"at most {warmup.steps} (warmup.steps)",
                fix="leave it out, which takes 10 or all there are",
            )
        )
    for name, stage in (("warmup", warmup), ("hybrid", hybrid)):
        if stage.steps and stage.warmup_steps >= stage.steps:
            problems.append(
                _problem(
                    recipe,
                    f"{name}.warmup_steps",
                    f"the learning rate rises over {stage.warmup_steps} of {stage.steps} steps",
                    expected=f"fewer than {stage.steps}",
                    fix=f"set {name}.warmup_steps to {stage.steps // 10}",
                )
            )
    return problems


def _stage_of_controller(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    """What the controller itself refuses of a stage of so many steps."""
    look = getattr(recipe.hybrid.controller, "check_stage", None)
    budget = recipe.hybrid.budget
    if not recipe.hybrid.steps or look is None or (budget and budget.steps is None):
        return []  # how many steps a budget is enough for is not known
    try:
        look(budget.steps if budget and budget.steps else recipe.hybrid.steps)
    except ConfigError as error:
        return [
            _problem(recipe, f"hybrid.controller.{error.where}", error.seen, expected=error.expected, fix=error.fix)
        ]
    return []


def _method(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    """Settings that a method's loss does not go with (see `training.method_side`)."""
    hybrid, method = recipe.hybrid, recipe.hybrid.method
    if method is None or not hybrid.steps:
        return []
    if not hybrid.controller.shares()[1]:
        fix = "take another controller, such as grpo_only, or leave the method out"
        seen = f"the controller {hybrid.controller.name} takes no GRPO step, of which the method {method.name} is"
        return [_problem(recipe, "hybrid.method", seen, fix=fix)]
    if method.buffer and hybrid.controller.shares()[0]:
        fix = "hybrid.controller=grpo_only, or another method"
        seen = f"the controller {hybrid.controller.name} takes SFT steps, and so does the method {method.name}"
        return [_problem(recipe, "hybrid.method", seen, expected="one that decides on them", fix=fix)]
    grpo, step = hybrid.grpo, hybrid.gradient_accumulation_steps
    wrong = {
        "hybrid.controller": getattr(hybrid.controller, "needs_statistics", False),
        "hybrid.grpo.loss_type": grpo.loss_type not in LOSSES,
        "hybrid.grpo.num_iterations": grpo.num_iterations > 1,
        "hybrid.grpo.importance_sampling_level": grpo.importance_sampling_level == "sequence",
        "hybrid.grpo.mask_truncated_completions": grpo.mask_truncated_completions,
        "hybrid.grpo.top_entropy_quantile": grpo.top_entropy_quantile < 1.0,
        "hybrid.grpo.entropy_coef": grpo.entropy_coef != 0.0,
        "hybrid.grpo.steps_per_generation": (grpo.steps_per_generation or step) < step,
        "hybrid.packed": not hybrid.packed
        and not (hybrid.drop_zero_advantage and grpo.beta == 0.0 and hybrid.migu is None),
    }
    problems = []
    if method.own_advantages and grpo.scale_rewards != "group":
        seen = f"{grpo.scale_rewards}, but the method {method.name} makes all advantages itself"
        fix = "leave it out" + (", or set hybrid.method.normalise" if hasattr(method, "normalise") else "")
        problems.append(_problem(recipe, "hybrid.grpo.scale_rewards", seen, fix=fix))
    try:
        method.check_group(grpo.num_generations)
    except ConfigError as error:
        key = f"hybrid.method.{error.where}"
        problems.append(_problem(recipe, key, error.seen, expected=error.expected, fix=error.fix))
    return problems + [
        _problem(
            recipe,
            key,
            f"a setting that the method {method.name} does not go with",
            expected=f"loss_type {', '.join(LOSSES)} by token, one pass over each window, no step of several windows: "
            "only so is a step's loss the same however it is cut",
            fix="leave it at its default, or leave the method out",
        )
        for key, there in wrong.items()
        if there
    ]


def _refill(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    """Where groups without a spread are not dead, or there are none."""
    hybrid = recipe.hybrid
    if hybrid.refill is None or not hybrid.steps:
        return []
    if hybrid.method is not None:
        seen = f"refill, but the method {hybrid.method.name} makes something of groups without a spread, too"
    elif not hybrid.controller.shares()[1]:
        seen = f"refill, but the controller {hybrid.controller.name} takes no GRPO step"
    else:
        return []
    return [_problem(recipe, "hybrid.refill", seen, expected="GRPO steps by themselves", fix="leave it out")]


def _curriculum(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    """Where a curriculum has nothing to draw, or learns of other rollouts than the policy's own, or of none."""
    hybrid, warmup, problems = recipe.hybrid, recipe.warmup, []
    if hybrid.curriculum is not None and hybrid.steps:
        asks = hybrid.curriculum.asks
        fix = "set it as warmup.curriculum" if asks else "leave the curriculum out, or the other"
        if seen := refused(hybrid.curriculum, hybrid.controller, hybrid.method):
            problems.append(_problem(recipe, "hybrid.curriculum", seen, expected=EXPECTED, fix=fix))
    if warmup.curriculum is not None and warmup.steps:
        fix = "set it as hybrid.curriculum, or easy_to_hard with `by` a column"
        if seen := refused_on_demonstrations(warmup.curriculum):
            problems.append(_problem(recipe, "warmup.curriculum", seen, expected=ON_DEMONSTRATIONS, fix=fix))
    return problems


def _kl(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    controller, sample = recipe.hybrid.controller, recipe.hybrid.kl.sample
    if not recipe.hybrid.steps or getattr(controller, "kl_target", None) is None or sample > 0:
        return []
    seen = "a KL target, but hybrid.kl.sample is 0: the KL is never measured"
    fix = "set hybrid.kl.sample above 0 (1.0 measures it on all rollouts), or drop kl_target"
    return [_problem(recipe, "hybrid.controller.kl_target", seen, fix=fix)]


def _data(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    sft, grpo = recipe.hybrid.controller.shares() if recipe.hybrid.steps else (False, False)
    users = [name for name, used in (("the warm-up", recipe.warmup.steps > 0), ("the controller", sft)) if used]
    if recipe.hybrid.steps and recipe.hybrid.method:
        users.append("the method")
    problems = []
    if users and getattr(recipe.task, "demonstrations", None) == 0:
        seen = f"no demonstrations, but they are asked for by {' and '.join(users)}"
        fix = "set it above 0, or warmup.steps=0 and hybrid.controller=grpo_only"
        problems.append(_problem(recipe, "task.demonstrations", seen, fix=fix))
    if grpo and getattr(recipe.task, "train", None) == 0:
        fix = "set it above 0, or use hybrid.controller=sft_only"
        problems.append(_problem(recipe, "task.train", "no prompts, but the controller samples rollouts", fix=fix))
    return problems


def _rewards(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    weights = [reward.weight for reward in recipe.rewards]
    uses_rewards = recipe.hybrid.steps and recipe.hybrid.controller.shares()[1]
    if not weights or any(weights) or not uses_rewards:
        return []
    seen = "every reward has weight 0, so that GRPO has nothing to learn from"
    return [_problem(recipe, "rewards", seen, fix="give one of them a weight other than 0")]


def _evaluation(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    most, samples = max(recipe.evaluate.k), recipe.evaluate.samples
    if most == 1 or most <= samples:
        return []
    seen, fix = f"pass@{most} from {samples} sampled completions", f"set evaluate.samples to {most} or more"
    return [_problem(recipe, "evaluate.k", seen, expected="no k above evaluate.samples", fix=fix)]


def _lengths(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    if recipe.model.init is None:
        return []
    positions = recipe.model.init.max_position_embeddings
    lengths = {"hybrid.grpo.max_completion_length": recipe.hybrid.grpo.max_completion_length}
    if recipe.evaluate.max_completion_length:
        lengths["evaluate.max_completion_length"] = recipe.evaluate.max_completion_length
    return [
        _problem(
            recipe,
            key,
            f"{length} tokens, but the model has {positions} positions for prompt and completion together",
            expected=f"fewer than {positions}",
            fix="set it lower, or model.init.max_position_embeddings higher",
        )
        for key, length in lengths.items()
        if length >= positions
    ]


def _tracking(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    tracking, trackers = recipe.run.tracking, recipe.run.report_to
    return [
        _problem(
            recipe,
            f"run.tracking.{key}",
            f"{getattr(tracking, key)!r}, which nothing in run.report_to heeds: {', '.join(trackers) or 'it is empty'}",
            expected=f"one of {', '.join(HEEDED[key])} in run.report_to",
            fix="name one of them, or leave the key out (run.tracking=null)",
        )
        for key in (tracking.unheeded(trackers) if tracking else ())
    ]


def _either(values: Sequence[Any]) -> str:
    return " or ".join(str(value) for value in dict.fromkeys(values))
