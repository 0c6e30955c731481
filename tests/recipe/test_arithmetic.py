from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import ConfigError, ResumeError
from posttrain.recipe.arithmetic import (
    batch_plan,
    describe,
    for_processes,
    generation_batch_size,
    nearest_divisors,
    nearest_multiples,
)
from posttrain.recipe.contradictions import check, contradictions
from posttrain.recipe.recipe import Recipe, load_recipe


def recipe(**sections: Any) -> Recipe:
    return Recipe.model_validate({"model": "m", "task": {"name": "knights_knaves"}, **sections})


def test_batch_plan() -> None:
    plan = batch_plan(
        recipe(
            warmup={"steps": 25, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_length": 100},
            hybrid={
                "per_device_train_batch_size": 8,
                "gradient_accumulation_steps": 3,
                "demonstration_batch_size": 5,
                "grpo": {"num_generations": 6, "max_completion_length": 50},
            },
        ),
        num_processes=2,
        prompts=400,
        demonstrations=600,
    )
    assert plan.generation_batch == plan.completions_per_step == 48
    assert plan.prompts_per_generation == plan.prompts_per_step == 8
    assert plan.completion_tokens_per_step == 2400
    assert plan.demonstrations_per_step == 30
    assert plan.demonstration_tokens_per_step == 3000
    assert plan.warmup_rows_per_step == 16
    assert plan.prompt_steps_per_epoch == 50
    assert plan.demonstration_steps_per_epoch == 20
    assert plan.warmup_steps_per_epoch == 37.5
    assert plan.warmup_epochs == pytest.approx(25 * 16 / 600)


def test_reused_generations_draw_fewer_prompts() -> None:
    grpo = {"num_generations": 4, "num_iterations": 2, "steps_per_generation": 4}
    made = recipe(hybrid={"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "grpo": grpo})
    plan = batch_plan(made, prompts=100, demonstrations=10)
    assert plan.generation_batch == 32
    assert plan.prompts_per_generation == 8
    assert plan.completions_per_step == 16
    assert plan.prompts_per_step == 2  # 8 prompts serve 2 passes x 2 steps


def test_describe_says_the_numbers() -> None:
    made = recipe()
    text = describe(made, batch_plan(made, prompts=4000, demonstrations=500))
    assert "warm-up: 100 SFT steps of 8 demonstrations, 1.6 passes" in text
    assert "200 steps under sasr" in text
    assert "1 new prompts, 8 completions (8 per prompt), at most 4,096 sampled tokens" in text
    only = recipe(hybrid={"controller": {"name": "sft_only"}})
    assert "GRPO step" not in describe(only, batch_plan(only, prompts=1, demonstrations=1))


@pytest.mark.parametrize("value", range(1, 20))
@pytest.mark.parametrize(("others", "divisor"), [(1, 8), (4, 8), (6, 8), (3, 7), (8, 8)])
def test_nearest_multiples_are_legal_and_nearest(value: int, others: int, divisor: int) -> None:
    found = nearest_multiples(value, others, divisor)
    legal = [x for x in range(1, 100) if x * others % divisor == 0]
    below, above = [x for x in legal if x <= value], [x for x in legal if x >= value]
    assert sorted(set(found)) == sorted({*below[-1:], *above[:1]})


def test_nearest_divisors() -> None:
    assert nearest_divisors(8, 12) == [6, 12]
    assert nearest_divisors(6, 12) == [6]
    assert nearest_divisors(8, 7) == [7]
    assert nearest_divisors(2, 1) == []


def test_defaults_contradict_nothing() -> None:
    assert contradictions(recipe()) == []
    assert contradictions(recipe(), num_processes=4) == []


def test_batch_that_does_not_divide_names_legal_sizes() -> None:
    made = recipe(hybrid={"per_device_train_batch_size": 6, "grpo": {"num_generations": 8}})
    with pytest.raises(ConfigError, match="generation batch of 6 ") as caught:
        check(made)
    assert caught.value.fix == (
        "set hybrid.per_device_train_batch_size to 8, or hybrid.gradient_accumulation_steps to 4, "
        "or hybrid.grpo.num_generations to 6"
    )
    check(made, num_processes=4)
    with pytest.raises(ConfigError, match="x 3 processes"):
        check(made, num_processes=3)


@pytest.mark.parametrize("size", [3, 6, 10, 12])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_every_named_size_is_legal(size: int, steps: int) -> None:
    hybrid = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps}
    made = recipe(hybrid={**hybrid, "grpo": {"num_generations": 8}})
    with pytest.raises(ConfigError) as caught:
        check(made)
    named = 0
    for choice in (caught.value.fix or "").removeprefix("set ").split(", or "):
        key, _, values = choice.partition(" to ")
        for value in values.split(" or "):
            name = key.split(".")[-1]
            grpo = {"num_generations": int(value) if name == "num_generations" else 8}
            changed = {**hybrid, **({} if name == "num_generations" else {name: int(value)}), "grpo": grpo}
            check(recipe(hybrid=changed))
            named += 1
    assert named >= 3


def test_windows_and_steps_fit() -> None:
    def made(window: int) -> Recipe:
        grpo = {"steps_per_generation": window, "num_generations": 2}
        return recipe(hybrid={"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "grpo": grpo})

    for window in (1, 2, 4, 8):
        check(made(window))
    with pytest.raises(ConfigError, match="3 micro-batches per generation") as caught:
        check(made(3))
    assert caught.value.fix == "set it to 2 or 4"
    assert generation_batch_size(made(8), 2) == 32


@pytest.mark.parametrize(
    ("sections", "key", "said"),
    [
        (
            {"hybrid": {"controller": {"name": "sasr", "kl_target": 0.1}, "kl": {"sample": 0.0}}},
            "hybrid.controller.kl_target",
            "the KL is never measured",
        ),
        ({"warmup": {"steps": 0}}, "warmup.steps", "the controller sasr weighs gradient norms"),
        ({"warmup": {"steps": 0}, "hybrid": {"steps": 0}}, "hybrid.steps", "nothing to train"),
        ({"warmup": {"steps": 5, "norm_window": 6}}, "warmup.norm_window", "last 6 of 5"),
        ({"warmup": {"steps": 5, "warmup_steps": 5}}, "warmup.warmup_steps", "rises over 5 of 5"),
        ({"hybrid": {"steps": 40, "warmup_steps": 40}}, "hybrid.warmup_steps", "fix: set hybrid.warmup_steps to 4"),
        (
            {"task": {"name": "knights_knaves", "demonstrations": 0}},
            "task.demonstrations",
            "asked for by the warm-up and the controller",
        ),
        (
            {"hybrid": {"steps": 20, "controller": {"name": "switch", "at": 20}}},
            "hybrid.controller.at",
            "no switch before step 20, in a stage of 20 steps",
        ),
        (
            {"hybrid": {"steps": 20, "controller": {"name": "switch", "at": "flat"}}},
            "hybrid.controller.window",
            "no switch before step 20",
        ),
        (
            {"hybrid": {"refill": {"max_batches": 2}, "method": {"name": "hpt"}, "controller": {"name": "grpo_only"}}},
            "hybrid.refill",
            "the method hpt makes something of groups without a spread, too",
        ),
        (
            {"hybrid": {"refill": {"max_batches": 2}, "controller": {"name": "sft_only"}}},
            "hybrid.refill",
            "sft_only takes no GRPO step",
        ),
        (
            {"hybrid": {"tokens": {"top_entropy": 0.2}, "controller": {"name": "sft_only"}}},
            "hybrid.tokens",
            "tokens, and the controller takes no GRPO step",
        ),
        (
            {"hybrid": {"tokens": {"top_entropy": 0.2}, "controller": {"name": "gac"}}},
            "hybrid.tokens",
            "the controller gac, which reads the size of a gradient off the advantages of all tokens",
        ),
        (
            {"hybrid": {"tokens": {"top_entropy": 0.2}, "grpo": {"loss_type": "cispo"}}},
            "hybrid.tokens",
            "tokens, and loss_type cispo",
        ),
        (
            {
                "hybrid": {
                    "tokens": {"top_entropy": 0.2},
                    "method": {"name": "hpt"},
                    "controller": {"name": "grpo_only"},
                }
            },
            "hybrid.tokens",
            "the method hpt, which makes advantages of its own",
        ),
        (
            {"hybrid": {"sft_weight": "unselected", "controller": {"name": "static"}}},
            "hybrid.sft_weight",
            "unselected, but hybrid.tokens selects none",
        ),
        ({"rewards": [{"name": "length_budget"}]}, "hybrid.length_budget", "the reward length_budget, but no budget"),
        ({"hybrid": {"length_budget": {"start": 9}}}, "hybrid.length_budget", "a budget that no reward pays"),
        (
            {
                "hybrid": {"length_budget": {"start": 9}, "controller": {"name": "sft_only"}},
                "rewards": [{"name": "length_budget"}],
            },
            "hybrid.length_budget",
            "a budget, but the controller sft_only samples nothing",
        ),
        ({"rewards": [{"name": "format", "weight": 0.0}]}, "rewards", "every reward has weight 0"),
        ({"evaluate": {"k": [1, 8], "samples": 4}}, "evaluate.k", "pass@8 from 4"),
        (
            {"model": {"init": {"max_position_embeddings": 512}}},
            "hybrid.grpo.max_completion_length",
            "512 tokens, but the model has 512 positions",
        ),
        (
            {"run": {"tracking": {"project": "p"}}},
            "run.tracking.project",
            "nothing in run.report_to heeds: it is empty",
        ),
        (
            {"run": {"report_to": ["trackio", "tensorboard"], "tracking": {"tags": "small"}}},
            "run.tracking.tags",
            "small.*, which nothing in run.report_to heeds: trackio, tensorboard",
        ),
    ],
)
def test_contradictions(sections: dict[str, Any], key: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        check(recipe(**sections))
    assert caught.value.where is not None
    assert key in caught.value.where
    assert caught.value.fix or caught.value.expected


AHEAD = {"engine": "vllm", "mode": "server", "server_base_url": "http://localhost:8000", "ahead": 1}


@pytest.mark.parametrize(
    ("hybrid", "said"),
    [
        ({"refill": {"max_batches": 2}}, "1, with refill"),
        ({"length_budget": {"start": 9}}, "1, with length_budget"),
        ({"curriculum": {"name": "bots"}}, "1, with a curriculum"),
        ({"method": {"name": "prefix_rft"}}, "1, with the method prefix_rft"),
        ({"args": {"vllm_importance_sampling_correction": False}}, "1, without vllm_importance_sampling_correction"),
    ],
)
def test_what_a_window_ahead_does_not_go_with_is_refused_before_the_warm_up(hybrid, said):
    paid = {"rewards": [{"name": "length_budget"}]} if "length_budget" in hybrid else {}
    both = recipe(rollout=AHEAD, hybrid={"controller": {"name": "grpo_only"}, **hybrid}, **paid)
    with pytest.raises(ConfigError, match=said) as caught:
        check(both)
    assert "rollout.ahead" in str(caught.value.where)
    check(recipe(rollout=AHEAD, hybrid={"controller": {"name": "grpo_only"}}))


@pytest.mark.parametrize(
    "sections",
    [
        {"warmup": {"steps": 0}, "hybrid": {"controller": {"name": "sasr", "g_warmup": 2.0}}},
        {"warmup": {"steps": 0}, "hybrid": {"controller": {"name": "static"}}},
        {
            "warmup": {"steps": 0},
            "hybrid": {"controller": {"name": "grpo_only"}},
            "task": {"name": "knights_knaves", "demonstrations": 0},
        },
        {"hybrid": {"controller": {"name": "sft_only"}}, "rewards": [{"name": "format", "weight": 0.0}]},
        {"hybrid": {"controller": {"name": "sft_only"}}, "rewards": [{"name": "length_budget"}]},
        {"rewards": [{"name": "format", "weight": 0.0}, {"name": "knights_knaves"}]},
        {"hybrid": {"steps": 0, "per_device_train_batch_size": 3}},
        {"hybrid": {"steps": 0, "refill": {"max_batches": 2}, "controller": {"name": "sft_only"}}},
        {"hybrid": {"refill": {"max_batches": 2}, "grpo": {"beta": 0.1, "num_iterations": 2}}},
        {"warmup": {"steps": 3}},
        {"hybrid": {"tokens": {"top_entropy": 0.2, "band": {"coef": 0.1}}, "grpo": {"beta": 0.1}}},
        {
            "hybrid": {"length_budget": {"start": 9}},
            "rewards": [{"name": "knights_knaves"}, {"name": "length_budget", "weight": 0.2}],
        },
        {"hybrid": {"length_budget": {"start": 9}}, "rewards": [{"path": "./mine.py"}]},
        {"evaluate": {"k": [1]}},
        {"run": {"report_to": ["tensorboard", "wandb"], "tracking": {"project": "p", "name": "n", "tags": ["t"]}}},
    ],
)
def test_no_contradictions(sections: dict[str, Any]) -> None:
    check(recipe(**sections))


def test_another_number_of_processes_takes_the_same_rows() -> None:
    started = recipe(
        warmup={"gradient_accumulation_steps": 6},
        hybrid={"gradient_accumulation_steps": 2, "grpo": {"steps_per_generation": 4}},
    )
    for now, warmup, hybrid, window in ((2, 9, 3, 6), (1, 18, 6, 12), (6, 3, 1, 2), (3, 6, 2, 4)):
        here = for_processes(started, 3, now)
        assert here.warmup.gradient_accumulation_steps == warmup
        assert here.hybrid.gradient_accumulation_steps == hybrid
        assert here.hybrid.grpo.steps_per_generation == window
        plans = [batch_plan(one, count, prompts=10, demonstrations=10) for one, count in ((started, 3), (here, now))]
        sizes = [
            (plan.generation_batch, plan.completions_per_step, plan.demonstrations_per_step, plan.warmup_rows_per_step)
            for plan in plans
        ]
        assert sizes[0] == sizes[1]
    assert for_processes(started, 3, 3) is started


def test_a_number_of_processes_that_does_not_divide_a_step() -> None:
    started = recipe(warmup={"gradient_accumulation_steps": 2}, hybrid={"gradient_accumulation_steps": 3})
    with pytest.raises(ResumeError) as failed:
        for_processes(started, 4, 3)
    assert "warmup.gradient_accumulation_steps 2, hybrid.gradient_accumulation_steps 3" in str(failed.value)
    assert "expected: 1, 2 or 4 processes\n" in str(failed.value)
    assert "which divide 8 and 12 (4 processes x each of those settings)" in str(failed.value)
    alone = recipe(warmup={"steps": 0}, hybrid={"gradient_accumulation_steps": 3})
    assert for_processes(alone, 4, 3).hybrid.gradient_accumulation_steps == 4


def test_contradictions_say_where_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text("model: m\ntask: knights_knaves\nhybrid:\n  per_device_train_batch_size: 3\n")
    with pytest.raises(ConfigError) as caught:
        check(load_recipe("r.yaml", ["evaluate.k=[1,8]"]))
    assert "the recipe has 2 problems" in str(caught.value)
    assert "r.yaml:3: hybrid.grpo.num_generations (default): a generation batch of 3" in str(caught.value)
    assert "command line: evaluate.k: pass@8 from 1" in str(caught.value)
