"""What `posttrain plan` takes for a mistake, and what not."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from posttrain.controllers.sasr import GUARD_CEILING, SASR
from posttrain.models import bitsandbytes_package
from posttrain.planning.lengths import texts_of
from posttrain.planning.mistakes import Seen, likely_mistakes
from posttrain.planning.odds import dead_share, group_for, kl_at_ceiling, least_rate
from posttrain.planning.past import Past
from posttrain.recipe.recipe import Recipe
from tests.planning.plans import digit_tokenizer, numbers, recipe, rows_of


@pytest.fixture(scope="module")
def digits():
    return digit_tokenizer()


def kinds(some: Recipe, level: str = "warning", **more: Any) -> list[str]:
    plan, much = numbers(some)
    facts = {"texts": None, "past": None, "positions": None, "prompts": 640, "held_out": 200, **more}
    return [each.kind for each in likely_mistakes(Seen(some, plan, much, **facts)) if each.level == level]


def test_a_sound_recipe_has_none() -> None:
    assert kinds(recipe(hybrid={"controller": {"name": "sasr", "kl_target": 0.1}, "per_device_train_batch_size": 32},
                        evaluate={"every": 20}, warmup={"per_device_train_batch_size": 32})) == []  # fmt: skip


def test_groups_without_signal_by_counting() -> None:
    for group, rate in ((2, 0.5), (4, 0.25), (5, 0.9)):
        dead = sum(
            rate ** sum(passed) * (1 - rate) ** (group - sum(passed))
            for passed in itertools.product((0, 1), repeat=group)
            if len(set(passed)) == 1
        )
        assert dead_share(rate, group) == pytest.approx(dead)
    least = least_rate(8)
    assert least
    assert dead_share(least, 8) == pytest.approx(0.5)
    assert least_rate(2, dead=0.4) is None
    assert group_for([0.05]) == 14
    assert dead_share(0.05, 13) > 0.5 >= dead_share(0.05, 14)
    assert group_for([0.0]) is None


def test_a_group_too_small_for_the_solve_rate() -> None:
    some = recipe(evaluate={"every": 20})
    assert kinds(some) == []
    assert kinds(some, "note") == []  # what asks for nothing stands with the amounts
    assert kinds(some, past=Past(path="r", solve_rate=0.02)) == ["group_size"]
    assert kinds(some, past=Past(path="r", solve_rate=0.3)) == []
    # The same mean, but every prompt is always or never solved
    assert kinds(some, past=Past(path="r", rates=(1.0, 0.0, 0.0))) == ["group_size"]
    assert kinds(some, past=Past(path="r", rates=(0.3, 0.3, 0.3))) == []
    assert kinds(some, past=Past(path="r", dead_share=0.8)) == ["group_size"]
    grpo = {"num_generations": 2}
    assert kinds(recipe(hybrid={"grpo": grpo}, evaluate={"every": 20})) == ["group_size"]
    sft = {"grpo": grpo, "controller": {"name": "sft_only"}}
    assert kinds(recipe(hybrid=sft, evaluate={"every": 20})) == []


def test_the_kl_at_which_the_guard_decides_every_step() -> None:
    for gamma, target, kappa in ((1.0, 0.1, 1.0), (3.0, 0.02, 0.5)):
        controller = SASR(gamma=gamma, kl_target=target, kappa=kappa)
        full = kl_at_ceiling(target, kappa, 1 / (1 + gamma))
        start = controller.start(total_steps=9, seed=0, g_warmup=1.0)
        below, above = (controller.decide({**start, "kl": full * by}).p for by in (0.95, 1.05))
        assert below is not None
        assert below < above == GUARD_CEILING


def test_a_kl_target_far_off() -> None:
    def guarded(**more: Any) -> Recipe:
        controller = {"name": "sasr", **more}
        return recipe(hybrid={"controller": controller, "kl": {"sample": 1.0}}, evaluate={"every": 20})

    assert kinds(guarded()) == []
    assert kinds(guarded(kl_target=0.1)) == []
    assert kinds(guarded(kl_target=2.0)) == ["kl_target"]
    assert kinds(guarded(kl_target=0.001)) == ["kl_target"]
    assert kinds(guarded(kl_target=0.001, kappa=0.01)) == []  # so weak that it takes 300 times the target
    low, high = (Past(path="r", kl=(kl,), solve_rate=0.3) for kl in (0.001, 0.5))
    assert kinds(guarded(kl_target=0.1), past=low) == kinds(guarded(kl_target=0.1), past=high) == ["kl_target"]
    assert kinds(guarded(kl_target=0.2), past=high) == []
    few = recipe(hybrid={"controller": {"name": "sasr", "kl_target": 0.1}}, evaluate={"every": 20})
    assert kinds(few) == ["kl_sample"]  # a quarter of 8 completions


def test_other_mistakes() -> None:
    assert kinds(recipe(hybrid={"steps": 200})) == ["no_evaluation"]
    assert kinds(recipe(hybrid={"steps": 50})) == []
    assert kinds(recipe(hybrid={"steps": 50}), held_out=30) == ["few_held_out"]
    batch = {"demonstration_batch_size": 3, "steps": 50}
    assert kinds(recipe(hybrid=batch)) == ["norms_of_other_batches"]
    assert kinds(recipe(hybrid={**batch, "controller": {"name": "static"}})) == []
    hard = recipe(hybrid={"steps": 50, "curriculum": {}})
    assert kinds(hard) == []
    assert "curriculum_not_reached" in kinds(hard, "note")
    rates = Past(path="r", rates=(0.4,) * 9 + (0.0,))
    assert kinds(hard, past=rates) == ["curriculum_not_reached"]
    assert kinds(hard, past=replace(rates, rates=(0.4,) + (0.0,) * 99)) == []
    window = {"name": "gain_rl", "round": 64}
    gain = {"steps": 50, "controller": {"name": "grpo_only"}}  # 50 prompts of 640
    assert kinds(recipe(hybrid={**gain, "curriculum": window})) == ["window_of_all_prompts", "window_never_moves"]
    assert kinds(recipe(hybrid={**gain, "curriculum": {**window, "std": 80, "round": 10}})) == []
    assert kinds(recipe(hybrid={**gain, "curriculum": {**window, "round": 640}}))[0] == "window_of_all_prompts"
    dropping = {"lora": {"lora_dropout": 0.1}, "evaluate": {"every": 20}}
    guard = {"controller": {"name": "sasr", "kl_target": 0.1}, "kl": {"sample": 1.0}}
    assert kinds(recipe(**dropping, hybrid=guard)) == ["dropout_in_kl"]
    assert kinds(recipe(**dropping)) == []
    assert kinds(recipe(hybrid={"steps": 50}, run={"report_to": ["neptune"]})) == ["tracker_missing"]


def test_truncation_over_a_twentieth(digits) -> None:
    some = recipe(warmup={"steps": 1, "max_length": 12}, hybrid={"steps": 50, "grpo": {"max_completion_length": 8}})
    mostly = [(4, 4)] * 19
    for long, expected in (
        ([(4, 4)], []),
        ([(4, 7)], []),  # one in twenty
        ([(6, 6)] * 2, ["truncated_demonstrations"]),
        ([(2, 8)] * 2, ["truncated_completions"]),
    ):
        assert kinds(some, texts=texts_of(some, rows_of(*mostly, *long), digits, None)) == expected
    assert kinds(some, texts=texts_of(some, rows_of((4, 4)), digits, 12)) == ["long_prompts"]
    assert kinds(recipe(hybrid={"steps": 50}), past=Past(path="r", truncated=0.4, solve_rate=0.3)) == [
        "truncated_completions"
    ]


def test_4_bits_without_the_package_that_holds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    some = recipe(model={"name": "some/model", "load_in_4bit": True}, lora={"r": 4})
    assert "no_four_bits" not in kinds(some)
    monkeypatch.setattr(bitsandbytes_package, "_installed_version", lambda: None)
    assert "no_four_bits" in kinds(some)


def test_a_schedule_of_mu_that_the_stage_cuts_off() -> None:
    def found(steps: int, **settings: Any) -> list[str]:
        some = {"steps": steps, "controller": {"name": "chord", **settings}, "per_device_train_batch_size": 32}
        return kinds(recipe(hybrid=some, evaluate={"every": 20}))

    assert found(150) == ["schedule_beyond_stage"]
    assert found(200, mu_warmup_steps=10) == ["schedule_beyond_stage"]
    assert found(200) == found(150, tau=0.5) == found(150, mu_peak=0.05) == []


def test_how_an_adapter_gets_to_vllm_is_told() -> None:
    def told(on_gpu: bool, adapter: dict[str, Any] | None, **rollout: Any) -> list[str]:
        some = recipe(lora=adapter, rollout={"engine": "vllm", **rollout})
        return [each for each in kinds(some, "note", on_gpu=on_gpu) if each == "adapter_sent_whole"]

    assert told(False, {"r": 4}) == ["adapter_sent_whole"]
    assert told(True, {"r": 4}) == told(False, {"r": 4}, lora="adapter") == told(False, None) == []
    assert told(True, {"r": 4, "modules_to_save": ["lm_head"]}) == ["adapter_sent_whole"]
    assert told(True, {"r": 4, "modules_to_save": ["lm_head"]}, lora="merged") == []
