"""What the SFT of both stages is a loss of: token weights that cannot be had, and norms of two losses. No torch."""

from __future__ import annotations

from typing import Any

from posttrain.errors import ConfigError
from posttrain.methods.base import weight_refused
from posttrain.recipe.model_sections import GGUF_SUFFIX
from posttrain.recipe.recipe import Recipe
from posttrain.recipe.section import AGAINST_START, OF_WHOLE, TRIES

CLIPPED_LATER = "warm up by another weight; the hybrid stage has clipped, also alone: hybrid.controller=sft_only"
"""What to do instead of `clipped` in the warm-up."""

PLAIN_LOSS: dict[str, Any] = {"loss_type": "nll", "label_smoothing_factor": 0.0}
"""Arguments of the warm-up that make its loss another than the SFT half's, and what leaves it the same."""


def token_weights(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    """Token weights that a stage cannot give, or that would have no effect."""
    warmup, hybrid, problems = recipe.warmup, recipe.hybrid, []
    if warmup.steps and warmup.sft_weight == "clipped":
        seen = "clipped, which compares with the policy of some steps before: trl.SFTTrainer, the warm-up, keeps none"
        problems.append(_problem(recipe, "warmup.sft_weight", seen, fix=CLIPPED_LATER))
    others = [name for name, plain in PLAIN_LOSS.items() if warmup.args.get(name) not in (None, plain)]
    if warmup.steps and warmup.sft_weight != "nll" and others:
        seen = f"{warmup.sft_weight}, and warmup.args.{others[0]}: {warmup.args[others[0]]!r}, which is another loss"
        problems.append(_problem(recipe, "warmup.sft_weight", seen, expected="one loss", fix="leave one of them out"))
    method, sft = hybrid.method, hybrid.controller.shares()[0]
    if hybrid.steps and hybrid.sft_weight != "nll" and method is not None:
        if why := weight_refused(method, hybrid.sft_weight, sft_steps=sft, by_row=hybrid.sft_weight in OF_WHOLE):
            seen = f"{hybrid.sft_weight}: {why}"
            problems.append(_problem(recipe, "hybrid.sft_weight", seen, fix="leave it out, or set it to nll"))
    elif hybrid.steps and hybrid.sft_weight != "nll" and not sft:
        seen = f"{hybrid.sft_weight}, but the controller {hybrid.controller.name} takes no SFT steps"
        problems.append(_problem(recipe, "hybrid.sft_weight", seen, fix="leave it out, or set it to nll"))
    if warmup.steps and warmup.sft_weight == "unselected":
        seen = "unselected, which is what hybrid.tokens leaves out: the warm-up has no such selection"
        problems.append(_problem(recipe, "warmup.sft_weight", seen, fix="set it in the hybrid stage"))
    if hybrid.steps and hybrid.sft_weight == "unselected" and hybrid.tokens is None:
        seen = "unselected, but hybrid.tokens selects none"
        fix = "add hybrid.tokens: {top_entropy: 0.2}"
        problems.append(_problem(recipe, "hybrid.sft_weight", seen, fix=fix))
    if hybrid.steps and hybrid.sft_weight in OF_WHOLE and getattr(hybrid.controller, "needs_statistics", False):
        seen = f"{hybrid.sft_weight}, and the controller {hybrid.controller.name}: {BY_TOKEN}"
        problems.append(_problem(recipe, "hybrid.sft_weight", seen, fix="take a weight by token, or chord"))
    return problems


def muscle(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    """A second loss beside `warmup.muscle`, or a new model that is none yet."""
    warmup, hybrid = recipe.warmup, recipe.hybrid
    if warmup.muscle is None:
        return []
    if not warmup.steps:
        seen = "muscle, but warmup.steps is 0: nothing trains by it"
        return [_problem(recipe, "warmup.muscle", seen, fix="set warmup.steps above 0, or leave muscle out")]
    others = {f"args.{name}": warmup.args.get(name) not in (None, plain) for name, plain in PLAIN_LOSS.items()}
    others["sft_weight"] = warmup.sft_weight != "nll"
    problems = [
        _problem(
            recipe, f"warmup.{name}", "another loss, and warmup.muscle", expected="one loss",
            fix="leave one of them out",
        )
        for name, there in others.items()
        if there
    ]  # fmt: skip
    if recipe.model.name is None or recipe.model.name.lower().endswith(GGUF_SUFFIX):
        seen = "muscle, which begins with a model that is trained already"
        expected = "model.name: the new model's folder (such as RUN/model) or hub id"
        problems.append(_problem(recipe, "warmup.muscle", seen, expected=expected, fix="name it, or leave muscle out"))
    if hybrid.steps and hybrid.controller.needs_g_warmup and getattr(hybrid.controller, "g_warmup", None) is None:
        seen = f"muscle, and the controller {hybrid.controller.name} compares the two stages' gradient norms"
        fix = "set hybrid.steps to 0, take a controller such as static, or set hybrid.controller.g_warmup"
        problems.append(_problem(recipe, "warmup.muscle", seen, expected="one loss in both stages", fix=fix))
    return problems


BY_TOKEN = "it reads the size of a gradient off each token's own probability"
"""Why weights of whole demonstrations don't go with a controller that needs statistics."""


def one_loss(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    """SASR weighs the norm of a hybrid step's SFT gradient against the warm-up's: both must be of one loss."""
    warmup, hybrid = recipe.warmup, recipe.hybrid
    measured = getattr(hybrid.controller, "g_warmup", None) is None
    if not (warmup.steps and hybrid.steps and hybrid.controller.needs_g_warmup and measured):
        return []
    compares = f"the controller {hybrid.controller.name} compares the two stages' gradient norms"
    problems = [
        _problem(
            recipe,
            f"warmup.args.{name}",
            f"{warmup.args[name]!r}: the warm-up's loss is another than that of the hybrid stage's SFT half",
            expected=f"{plain!r}: {compares}, which must be of one loss",
            fix="leave it out, or take a controller that compares no norms, such as hybrid.controller=static",
        )
        for name, plain in PLAIN_LOSS.items()
        if warmup.args.get(name) not in (None, plain)
        and not (name == "loss_type" and warmup.args[name] == hybrid.sft_weight)
    ]
    weight: str
    later: str
    weight, later = "dft" if warmup.args.get("loss_type") == "dft" else warmup.sft_weight, hybrid.sft_weight
    if weight == later == "dco":
        weight, later = (f"dco of {stage.sft_tries or TRIES} tries" for stage in (warmup, hybrid))
    if not problems and weight == later and weight in AGAINST_START:
        problems.append(
            _problem(
                recipe,
                "hybrid.sft_weight",
                f"{weight}, which compares with the policy that a stage began with: another one in each",
                expected=f"one loss in both stages: {compares}",
                fix="take a controller that compares no norms, such as hybrid.controller=static, or set "
                "hybrid.controller.g_warmup",
            )
        )
    if not problems and weight != later:
        here = hybrid.sft_weight != "nll"
        problems.append(
            _problem(
                recipe,
                "hybrid.sft_weight" if here else "warmup.sft_weight",
                f"{later}, and {weight} in the warm-up" if here else f"{weight}, and {later} in the hybrid stage",
                expected=f"the same in both: {compares}, which must be of one loss",
                fix="set both alike, or take a controller that compares no norms, such as hybrid.controller=static",
            )
        )
    noise = [stage.args.get("neftune_noise_alpha") for stage in (warmup, hybrid)]
    if (noise[0] or None) != (noise[1] or None):
        stage = "warmup" if noise[0] else "hybrid"
        problems.append(
            _problem(
                recipe,
                f"{stage}.args.neftune_noise_alpha",
                f"{noise[0]} in the warm-up, {noise[1]} in the hybrid stage: noise makes gradients larger",
                expected=f"the same in both: {compares}",
                fix="leave it out, or set it in both stages' args",
            )
        )
    return problems


def _problem(
    recipe: Recipe, key: str, seen: str, *, expected: str | None = None, fix: str | None = None
) -> ConfigError:
    return ConfigError(seen, expected=expected, where=recipe.where(key), fix=fix)
