"""Recipes, rows and models that the tests of `posttrain.planning` share."""

from __future__ import annotations

from typing import Any

from posttrain.models.cost_counts import ModelShape, StepWork
from posttrain.models.load import train_tokenizer
from posttrain.planning.amounts import amounts
from posttrain.planning.model_facts import ModelFacts
from posttrain.recipe.arithmetic import batch_plan
from posttrain.recipe.recipe import Recipe
from posttrain.tasks import TaskData

GRPO_ONLY = {"controller": {"name": "grpo_only"}}
TINY = {"init": {"hidden_size": 16, "layers": 2, "heads": 2, "max_position_embeddings": 64}}


def recipe(**sections: Any) -> Recipe:
    return Recipe.model_validate({"model": TINY, "task": {"name": "knights_knaves"}, **sections})


def numbers(some: Recipe, processes: int = 1, *, prompts: int = 640, demonstrations: int = 400, held_out: int = 50):
    plan = batch_plan(some, processes, prompts=prompts, demonstrations=demonstrations)
    return plan, amounts(some, plan, prompts=prompts, demonstrations=demonstrations, held_out=held_out)


def rows_of(*lengths: tuple[int, int]) -> TaskData:
    rows = [{"prompt": "1" * prompt, "completion": "2" * completion} for prompt, completion in lengths]
    return TaskData(train=[{"prompt": "3" * 5}, {"prompt": "3" * 20}], demonstrations=rows, eval=[{"prompt": "3"}])


def large() -> tuple[ModelFacts, dict[str, StepWork]]:
    shape = ModelShape(
        layers=28, hidden=1536, intermediate=8960, heads=12, kv_heads=2, head_dim=128, vocab=151936,
        parameters=1_500_000_000,
    )  # fmt: skip
    facts = ModelFacts(
        kind="qwen2", parameters=shape.parameters, trained=shape.parameters, weight_bytes=4, trained_bytes=4,
        positions=32768, shape=shape,
    )  # fmt: skip
    work = StepWork(rows=64, group=8, prompt=300, completion=500, longest=500, micro_batch=4)
    return facts, {"grpo": work, "sampling": work}


def digit_tokenizer():
    """A tokenizer for which every digit is a token."""
    return train_tokenizer(["0123456789 " * 3], 300)
