"""What is likely a mistake in a recipe, each with its evidence and what to set. Few, and only what can be told.

`plan.contradictions` has what a run refuses; here is what it would carry out and probably nobody wants.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from posttrain.controllers.sasr import GUARD_CEILING
from posttrain.curricula import GAINRL
from posttrain.curricula.gain_rl import weight
from posttrain.errors import ConfigError
from posttrain.extras import install
from posttrain.inputs.four_bit import check_four_bit
from posttrain.inputs.misfits import HALF_PRECISION_FIX, half_precision
from posttrain.planning.amounts import Amounts
from posttrain.planning.lengths import Texts, room_for_prompts
from posttrain.planning.odds import MOST_DEAD, dead_share, group_for, kl_at_ceiling
from posttrain.planning.past import Past
from posttrain.recipe.adapter_serving import SLOW_ON_A_CPU, adapter_of, why_sent_whole
from posttrain.recipe.arithmetic import BatchPlan
from posttrain.recipe.optimizers import OWN, TWO_POINTS, name_of, package_of
from posttrain.recipe.recipe import Recipe

Level = Literal["problem", "warning", "note"]

MOST_CUT = 0.05
"""Share of rows that may be cut off. Of GSM8K answers 50 to 80 % were under a default of TRL's (its issue 6263)."""
FEW_ROWS = 100
"""Held-out rows below which a 95 % interval around one half is wider than 10 points to each side."""
FEW_IN_SAMPLE = 8
"""Completions that a step's KL should at least be of."""
LARGE_KL, SMALL_KL = 1.0, 0.01
"""Nats per token. A policy at 1 gives what it samples e times the probability that its start did, token by token.
A run of recipes/quickstart.yaml has 0.03 in the median and 0.4 at most."""
USUAL_KL = "a run of recipes/quickstart.yaml has 0.03 in the median and 0.4 at most"
FLAT = 0.5
"""Of the weights of a window over all prompts the least, above which it hardly chooses."""
OF_GSM8K = 1000 / 7473
"""GAIN-RL's window as a share of the prompts that its authors set it for."""
MODULES = {"tensorboard": ("tensorboard", "tensorboardX"), "comet_ml": ("comet_ml",), "wandb": ("wandb",),
           "trackio": ("trackio",), "mlflow": ("mlflow",), "swanlab": ("swanlab",), "clearml": ("clearml",),
           "codecarbon": ("codecarbon",), "dvclive": ("dvclive",), "neptune": ("neptune",)}  # fmt: skip
"""Trackers, and the modules of which one must be there."""


@dataclass(frozen=True)
class Finding:
    """One thing to know before the run.

    Attributes:
        level: `problem`: the run would refuse. `warning`: likely a mistake. `note`: worth knowing.
        kind: What it is about, a name that does not change.
        where: The key and where it was written.
        evidence: What was seen.
        advice: What to set or do.
    """

    level: Level
    kind: str
    where: str
    evidence: str
    advice: str = ""


@dataclass(frozen=True)
class Seen:
    """What mistakes are looked for in."""

    recipe: Recipe
    plan: BatchPlan
    much: Amounts
    texts: Texts | None
    past: Past | None
    positions: int | None
    prompts: int | None
    held_out: int | None
    on_gpu: bool = False


def likely_mistakes(seen: Seen) -> list[Finding]:
    """Everything that is to be said, warnings first."""
    looks: tuple[Callable[[Seen], Iterator[Finding]], ...] = (
        _cut_off, _kl_target, _groups, _evaluations, _norms, _schedule_of_mu, _curriculum, _window_of_ranks,
        _engine, _sent_whole, _four_bit, _optimizers, _trackers, _dropout, _precision,
    )  # fmt: skip
    found = [finding for look in looks for finding in look(seen)]
    return sorted(found, key=lambda finding: finding.level == "note")


def _cut_off(seen: Seen) -> Iterator[Finding]:
    recipe, texts = seen.recipe, seen.texts
    if seen.past and (seen.past.truncated or 0.0) > MOST_CUT:
        yield _warning(
            recipe, "truncated_completions", "hybrid.grpo.max_completion_length",
            f"{seen.past.truncated:.0%} of the completions in {seen.past.path} were cut off",
            "raise it, unless these answers ramble on",
        )  # fmt: skip
    if texts is None:
        return
    if (some := texts.demonstrations) and some.over > MOST_CUT:
        lost = f"; {texts.dropped:.0%} lose their whole completion and are left out" if texts.dropped else ""
        yield _warning(
            recipe, "truncated_demonstrations", "warmup.max_length",
            f"{some.over:.0%} of the demonstrations have more than {some.limit} tokens, prompt included: their ends "
            f"are cut off{lost}",
            f"set warmup.max_length to {some.longest} (the longest), or use shorter demonstrations",
        )  # fmt: skip
    if (some := texts.completions) and some.over > MOST_CUT:
        yield _warning(
            recipe, "truncated_completions", "hybrid.grpo.max_completion_length",
            f"{some.over:.0%} of the demonstrations' completions have more than {some.limit} tokens: a policy that "
            "answers as they do is cut off before it has answered",
            f"set hybrid.grpo.max_completion_length to {some.longest} (the longest) or more",
        )  # fmt: skip
    if (some := texts.prompts) and some.over > MOST_CUT:
        what = room_for_prompts(recipe, seen.positions)[1]
        yield _warning(
            recipe, "long_prompts", "rollout.max_model_length" if "rollout" in what else "model",
            f"{some.over:.0%} of the prompts have more than the {some.limit} tokens that are left of {what} beside a "
            "whole completion",
            "shorten the prompts or hybrid.grpo.max_completion_length",
        )  # fmt: skip


def _kl_target(seen: Seen) -> Iterator[Finding]:
    controller, recipe = seen.recipe.hybrid.controller, seen.recipe
    target = getattr(controller, "kl_target", None)
    if not recipe.hybrid.steps or target is None or recipe.hybrid.kl.sample == 0:
        return
    key = "hybrid.controller.kl_target"
    measured = recipe.hybrid.kl.sample * seen.much.completions_per_step
    if measured < FEW_IN_SAMPLE:
        yield _warning(
            recipe, "kl_sample", "hybrid.kl.sample",
            f"the KL that the guard acts on is of {measured:.3g} of the {seen.much.completions_per_step} completions "
            "of a step",
            f"set it to {min(1.0, FEW_IN_SAMPLE / seen.much.completions_per_step):.2g} or more",
        )  # fmt: skip
    typical = seen.past.typical_kl if seen.past else None
    if typical is not None and seen.past and not target / 10 <= typical <= 3 * target:
        acts = "the guard never acts" if typical < target else "the guard decides every step"
        yield _warning(
            recipe, "kl_target", key,
            f"{target:g} nats per token, and the KL in {seen.past.path} is {typical:.3g} in the median: {acts}",
            "set it to the KL at which you would want to be pulled back, about 1 to 3 times what such runs show",
        )  # fmt: skip
        return
    if target > LARGE_KL:
        yield _warning(
            recipe, "kl_target", key,
            f"{target:g} nats per token: there the policy gives what it samples {math.exp(min(target, 20)):.3g} times "
            "the probability that its start did, at every token; the guard acts too late to guard anything",
            USUAL_KL,
        )  # fmt: skip
        return
    kappa = getattr(controller, "kappa", 1.0)
    full = kl_at_ceiling(target, kappa, seen.much.p_at_start or 0.5)
    if full < SMALL_KL:
        yield _warning(
            recipe, "kl_target", key,
            f"{target:g} nats per token with kappa {kappa:g}: at a KL of {full:.2g} already "
            f"{GUARD_CEILING:.0%} of the steps are SFT, and any learning moves the policy that far",
            USUAL_KL,
        )  # fmt: skip


def _groups(seen: Seen) -> Iterator[Finding]:
    recipe, past, group = seen.recipe, seen.past, seen.recipe.hybrid.grpo.num_generations
    key = "hybrid.grpo.num_generations"
    if not seen.much.grpo_steps.most:
        return
    rates: tuple[float, ...] = ()
    if past and past.rates:
        chosen = recipe.hybrid.curriculum is not None and recipe.hybrid.curriculum.name in ("easy_to_hard", "rif")
        rates = tuple(rate for rate in past.rates if rate > 0) if chosen else past.rates
        source = f"by the pass rates of {len(rates)} prompts in {past.path}"
    elif past and past.solve_rate is not None:
        rates, source = (
            (past.solve_rate,),
            f"at the solve rate {past.solve_rate:.1%} in {past.path}, or more: prompts differ",
        )
    if rates:
        dead = fmean(dead_share(rate, group) for rate in rates)
        if dead > MOST_DEAD:
            more = group_for(rates)
            advice = f"groups of {more} would leave half" if more else "no group of up to 64 would leave half"
            yield _warning(
                recipe, "group_size", key,
                f"{dead:.0%} of groups of {group} have no difference in reward to learn from, {source}",
                f"{advice}; or easier prompts, a curriculum (hybrid.curriculum), a longer warm-up",
            )  # fmt: skip
        else:
            said = f"{dead:.0%} of groups of {group} will have no difference in reward to learn from, {source}"
            yield Finding("note", "group_size", recipe.where(key), said)
        return
    if past and (past.dead_share or 0.0) > MOST_DEAD:
        yield _warning(
            recipe, "group_size", key,
            f"{past.dead_share:.0%} of the groups in {past.path} had no difference in reward to learn from",
            "larger groups, easier prompts, or a curriculum (hybrid.curriculum)",
        )  # fmt: skip
        return
    at_best = dead_share(0.5, group)
    if group < 4:
        yield _warning(
            recipe, "group_size", key,
            f"of groups of {group} at least {at_best:.0%} have no difference in reward to learn from, at best",
            "set it to 4 or more; 8 is usual",
        )  # fmt: skip


def _evaluations(seen: Seen) -> Iterator[Finding]:
    recipe, every = seen.recipe, seen.recipe.evaluate.every
    if recipe.hybrid.steps >= 100 and not 0 < every < recipe.hybrid.steps:
        yield _warning(
            recipe, "no_evaluation", "evaluate.every",
            f"{every}: none in the {recipe.hybrid.steps} hybrid steps, so that a policy that gets worse is seen at the "
            "end only",
            f"set it to {max(1, recipe.hybrid.steps // 10)}",
        )  # fmt: skip
    if seen.held_out and seen.held_out < FEW_ROWS:
        width = 1.96 * math.sqrt(0.25 / seen.held_out)
        yield _warning(
            recipe, "few_held_out", "task.eval",
            f"{seen.held_out} held-out rows: around 50 % the 95 % interval reaches {width:.0%} to each side",
            f"{FEW_ROWS} rows or more, or no conclusions from small differences",
        )  # fmt: skip


def _norms(seen: Seen) -> Iterator[Finding]:
    recipe, plan = seen.recipe, seen.plan
    controller = recipe.hybrid.controller
    if not (recipe.hybrid.steps and recipe.warmup.steps and controller.needs_g_warmup):
        return
    if getattr(controller, "g_warmup", None) is None and plan.demonstrations_per_step != plan.warmup_rows_per_step:
        yield _warning(
            recipe, "norms_of_other_batches", "hybrid.demonstration_batch_size",
            f"an SFT step takes {plan.demonstrations_per_step} demonstrations, one of the warm-up took "
            f"{plan.warmup_rows_per_step}: a gradient's norm grows with its noise, and the controller compares the two",
            "set it so that both take as many, or leave it out",
        )  # fmt: skip


def _schedule_of_mu(seen: Seen) -> Iterator[Finding]:
    recipe, controller = seen.recipe, seen.recipe.hybrid.controller
    decay, tau = getattr(controller, "mu_decay_steps", None), getattr(controller, "tau", None)
    if decay is None or tau is not None or controller.mu_peak == controller.mu_valley:  # type: ignore[attr-defined]
        return
    rise, steps = controller.mu_warmup_steps, recipe.hybrid.steps  # type: ignore[attr-defined]
    if steps and rise + decay > steps:
        yield _warning(
            recipe, "schedule_beyond_stage", "hybrid.controller.mu_decay_steps",
            f"the schedule of mu takes {rise + decay} steps and the stage has {steps}: it ends on the way to mu_valley",
            f"set it to {steps - rise}" if rise < steps else "set mu_warmup_steps lower, too",
        )  # fmt: skip


def _curriculum(seen: Seen) -> Iterator[Finding]:
    recipe, passes = seen.recipe, seen.much.prompt_passes
    curriculum = recipe.hybrid.curriculum
    if not recipe.hybrid.steps or curriculum is None or curriculum.name != "easy_to_hard" or passes is None:
        return
    rates = seen.past.rates if seen.past else ()
    solved = sum(rate > 0 for rate in rates) / len(rates) if rates else None
    if passes[1] >= (1.0 if solved is None else solved):
        return
    steps = math.ceil(recipe.hybrid.steps * (solved or 1.0) / passes[1])
    if solved is None:
        evidence = f"the {recipe.hybrid.steps} steps draw at most {passes[1]:.0%} of the prompts, easiest first"
        advice = f"right if the model solves no more than these; {steps} steps would reach every prompt"
    else:
        evidence = f"{solved:.0%} of the prompts are ever solved, and at most {passes[1]:.0%} are drawn, easiest first"
        advice = f"set hybrid.steps to {steps} to reach the hard ones, or task.train lower"
    level: Level = "note" if solved is None else "warning"
    yield Finding(level, "curriculum_not_reached", recipe.where("hybrid.steps"), evidence, advice)


def _window_of_ranks(seen: Seen) -> Iterator[Finding]:
    """A window over the prompts that is as good as all of them, or that never moves."""
    recipe, curriculum = seen.recipe, seen.recipe.hybrid.curriculum
    if not recipe.hybrid.steps or not isinstance(curriculum, GAINRL) or not seen.prompts:
        return
    least = weight(seen.prompts - 1, 0.0, curriculum.std)
    if curriculum.round >= seen.prompts:
        yield _warning(
            recipe, "window_of_all_prompts", "hybrid.curriculum.round",
            f"a round of {curriculum.round} takes each of the {seen.prompts:,} prompts, wherever the window is",
            f"set it lower, such as {max(1, seen.prompts // 10)}",
        )  # fmt: skip
    elif least > FLAT:
        std = max(1, round(seen.prompts * OF_GSM8K))
        yield _warning(
            recipe, "window_of_all_prompts", "hybrid.curriculum.std",
            f"the {seen.prompts:,} prompts have weights of {least:.2f} to 1 in a window of {curriculum.std:g} ranks, "
            "which takes them nearly all alike",
            f"the paper's numbers are for some thousand prompts: set std to {std}, n to {max(1, std // 2)} and adj_max "
            f"to {std}",
        )  # fmt: skip
    drawn = seen.much.grpo_steps.most * seen.much.prompts_per_step
    if drawn <= curriculum.round:
        yield _warning(
            recipe, "window_never_moves", "hybrid.curriculum.round",
            f"the stage draws at most {drawn:,.0f} prompts, and the window moves after {curriculum.round} of them",
            f"set it lower, such as {max(1, round(drawn / 10))}",
        )  # fmt: skip


def _engine(seen: Seen) -> Iterator[Finding]:
    rollout = seen.recipe.rollout
    if rollout.engine == "vllm" and rollout.mode == "colocate" and not importlib.util.find_spec("vllm"):
        yield _warning(
            seen.recipe, "vllm_missing", "rollout.engine", "vLLM is not installed here",
            f"{install('vllm')}, or rollout.engine=transformers, which samples more slowly",
        )  # fmt: skip


def _sent_whole(seen: Seen) -> Iterator[Finding]:
    recipe, config = seen.recipe, adapter_of(seen.recipe)
    if config is None or recipe.rollout.lora != "auto" or not recipe.rollout.uses_vllm() or not recipe.hybrid.steps:
        return
    reason, advice = why_sent_whole(config), "right; an adapter that vLLM adds itself would travel alone"
    if reason is None and not seen.on_gpu and recipe.rollout.mode == "colocate":
        reason, advice = SLOW_ON_A_CPU, "right; rollout.lora=adapter sends it alone"
    if reason:
        evidence = f"vLLM gets whole weights with the adapter added, at each change: {reason}"
        yield Finding("note", "adapter_sent_whole", recipe.where("rollout.lora"), evidence, advice)


def _four_bit(seen: Seen) -> Iterator[Finding]:
    try:
        check_four_bit(seen.recipe)
    except ConfigError as error:
        yield _warning(seen.recipe, "no_four_bits", "model.load_in_4bit", error.seen, error.fix or "")


def _optimizers(seen: Seen) -> Iterator[Finding]:
    for stage in ("warmup", "hybrid"):
        section = getattr(seen.recipe, stage)
        name, key = name_of(section.args), f"{stage}.args.optim"
        needs = package_of(name) if section.steps else None
        if needs and not importlib.util.find_spec(needs[0]):
            said = f"{name} needs {needs[1]}, which is not installed here: the stage would not begin"
            yield _warning(seen.recipe, "optimizer_missing", key, said, f"pip install {needs[1]}")
        if section.steps and name.startswith("apollo"):
            yield _warning(
                seen.recipe, "optimizer_license", key, "apollo-torch is CC BY-NC 4.0: not for commercial use",
                "galore_adamw, or frugal",
            )  # fmt: skip
        if section.steps and name in OWN:
            said = f"{name}: whole weights in one process or under DDP; not with lora, FSDP or DeepSpeed"
            yield Finding("note", "optimizer", seen.recipe.where(key), said)
        if section.steps and name.startswith(TWO_POINTS):
            said = (
                f"{name}: gradients and their norms are of the weights that train, and the average of them is handed on"
            )
            yield Finding("note", "optimizer", seen.recipe.where(key), said)


def _trackers(seen: Seen) -> Iterator[Finding]:
    for tracker in seen.recipe.run.report_to:
        modules = MODULES.get(tracker, ())
        if modules and not any(importlib.util.find_spec(module) for module in modules):
            yield _warning(
                seen.recipe, "tracker_missing", "run.report_to",
                f"{tracker} is not installed here: the run would fail when its first trainer is made",
                f"pip install {modules[0]}, or leave it out",
            )  # fmt: skip


def _dropout(seen: Seen) -> Iterator[Finding]:
    lora, controller = seen.recipe.lora, seen.recipe.hybrid.controller
    if lora and lora.lora_dropout and getattr(controller, "kl_target", None) is not None and seen.much.grpo_steps.most:
        yield _warning(
            seen.recipe, "dropout_in_kl", "lora.lora_dropout",
            f"{lora.lora_dropout:g}, and a KL target: the snapshot is scored without dropout, so that dropout shows up "
            "as KL",
            "set it to 0",
        )  # fmt: skip


def _precision(seen: Seen) -> Iterator[Finding]:
    if said := half_precision(seen.recipe, on_gpu=seen.on_gpu):
        yield _warning(seen.recipe, "half_precision", "model.dtype", said, HALF_PRECISION_FIX)


def _warning(recipe: Recipe, kind: str, key: str, evidence: str, advice: str) -> Finding:
    return Finding("warning", kind, recipe.where(key), evidence, advice)
