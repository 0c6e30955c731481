"""What a recipe says of its model, its adapter and its optimizers that contradicts something else. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from posttrain.errors import ConfigError
from posttrain.recipe.adapter_kinds import one_bias
from posttrain.recipe.optimizers import OWN, PROJECTED, name_of
from posttrain.recipe.recipe import Recipe


def _problem(
    recipe: Recipe, key: str, seen: str, *, expected: str | None = None, fix: str | None = None
) -> ConfigError:
    return ConfigError(seen, expected=expected, where=recipe.where(key), fix=fix)


def _four_bit(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    adapter = recipe.lora or (Path(recipe.model.name or "").expanduser() / "adapter_config.json").is_file()
    if not recipe.model.load_in_4bit or adapter:
        return []
    seen, fix = "true, but no adapter: weights in 4 bits cannot train", "add lora: {r: 16}, or set it to false"
    return [_problem(recipe, "model.load_in_4bit", seen, expected="lora, which trains on top of them", fix=fix)]


def _average(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    if not (recipe.hybrid.average and recipe.model.load_in_4bit):
        return []
    seen = "average, and a base in 4 bits: the average would be of adapters on another base than the one that trained"
    return [_problem(recipe, "hybrid.average", seen, expected="a base as it is", fix="leave one of them out")]


def _splits_base(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    if not (recipe.lora and recipe.lora.splits_base and recipe.model.load_in_4bit):
        return []
    seen = f"{recipe.lora.kind}, and a base in 4 bits: what is left of the base would be rounded once more"
    return [_problem(recipe, "lora.kind", seen, expected="a base as it is", fix="set kind: lora")]


def _adalora(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    lora, hybrid = recipe.lora, recipe.hybrid
    if lora is None or lora.kind != "adalora":
        return []
    problems = []
    if recipe.model.load_in_4bit:
        problems.append(_problem(recipe, "lora.kind", "adalora, and a base in 4 bits", fix="set kind: lora"))
    if hybrid.steps and hybrid.grpo.beta:
        seen = f"adalora, and hybrid.grpo.beta {hybrid.grpo.beta:g}: its reference would be a second AdaLoRA adapter"
        fix = "set hybrid.grpo.beta to 0 (hybrid.controller.kl_target holds on to the start, too)"
        problems.append(_problem(recipe, "lora.kind", seen, expected="PEFT allows one at a time", fix=fix))
    stage = "warmup" if recipe.warmup.steps else "hybrid"
    steps, aside = getattr(recipe, stage).steps, lora.args.get("tinit", 0) + lora.args.get("tfinal", 0)
    if steps and aside >= steps:
        problems.append(
            _problem(
                recipe, "lora.args", f"tinit and tfinal together {aside}, and {steps} steps of the {stage} stage",
                expected="fewer: the budget falls in the first stage that trains", fix=f"set tinit: {steps // 10}",
            )
        )  # fmt: skip
    return problems


def _optimizer(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    problems = []
    for stage in ("warmup", "hybrid"):
        section = getattr(recipe, stage)
        name = name_of(section.args)
        if section.steps and recipe.lora and name.startswith((*PROJECTED, *OWN)):
            seen = f"{name}, and an adapter, whose factors are of low rank already: there is nothing to project"
            fix = "set optim: adamw_torch, or leave lora out"
            problems.append(_problem(recipe, f"{stage}.args.optim", seen, expected="whole weights", fix=fix))
    return problems


def _adapter(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    args, beta = recipe.lora.args if recipe.lora else {}, recipe.hybrid.grpo.beta if recipe.hybrid.steps else 0.0
    problems = []
    if beta and args.get("bias", "none") != "none":
        seen, expected = one_bias(args["bias"], beta)
        fix = "set hybrid.grpo.beta to 0 (hybrid.controller.kl_target holds on to the start, too), or leave bias out"
        problems.append(_problem(recipe, "lora.args.bias", seen, expected=expected, fix=fix))
    stages = [stage for stage in ("warmup", "hybrid") if getattr(recipe, stage).steps]
    checkpointed = [each for each in stages if getattr(recipe, each).args.get("gradient_checkpointing") is not False]
    if args.get("alora_invocation_tokens") and checkpointed:
        seen = "an adapter that is on from these tokens on (aLoRA), which PEFT cannot train with gradient checkpointing"
        fix = " and ".join(f"set {each}.args.gradient_checkpointing to false" for each in checkpointed)
        problems.append(_problem(recipe, "lora.args.alora_invocation_tokens", seen, fix=fix))
    return problems


OF_THE_MODEL = (_four_bit, _average, _splits_base, _adalora, _optimizer, _adapter)
"""The checks, each of a recipe and a number of processes."""
