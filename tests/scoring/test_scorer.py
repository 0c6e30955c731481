from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from posttrain.errors import RewardError
from posttrain.scoring.score import Reward, Score
from posttrain.scoring.scorer import Scorer, trl_reward_functions


def exact(completion: str, *, answer: str, **row: Any) -> Score | None:
    if answer == "skip":
        return None
    return Score(float(completion == answer), parts={"length": len(completion)}, note=f"saw {sorted(row)}")


def lengths(completions: list[Any], **columns: Any) -> list[float | None]:
    return [-float(len(completion)) for completion in completions]


def test_a_batch_with_two_rewards():
    scorer = Scorer([Reward.from_callable(exact, weight=2.0), Reward.from_callable(lengths, name="brevity")])
    assert (scorer.names, scorer.weights) == (["exact", "brevity"], [2.0, 1.0])
    first, second = scorer(["p", "p", "q"], ["a", "b", "c"], {"answer": ["a", "x", "skip"]})
    assert [outcome.value for outcome in first] == [1.0, 0.0, None]
    assert first[2].error is None
    assert [outcome.value for outcome in second] == [-1.0, -1.0, -1.0]
    assert scorer.error_count == 0


def test_repeated_names_get_a_number():
    assert Scorer([Reward.from_callable(exact)] * 3).names == ["exact", "exact_2", "exact_3"]


def test_an_error_costs_only_its_completion():
    def fragile(completion: str, *, answer: str) -> float:
        return 1 / len(completion)

    scorer = Scorer([Reward.from_callable(fragile)])
    (outcomes,) = scorer(["p", "q"], ["", "x"], {"answer": ["", ""]})
    assert [outcome.value for outcome in outcomes] == [None, 1.0]
    assert scorer.error_count == 1
    (kept,) = scorer.errors
    assert (kept["reward"], kept["prompt"], kept["completion"]) == ("fragile", "p", "")
    assert kept["error"].startswith("ZeroDivisionError")


def test_too_many_errors_stop_the_run_and_show_the_worst():
    def broken(completion: str) -> float:
        if completion.startswith("bad"):
            raise KeyError("gold")
        return 1.0

    scorer = Scorer([Reward.from_callable(broken)])
    scorer(["p"] * 19, ["bad"] * 19, {})  # too few to judge
    with pytest.raises(RewardError) as error:
        scorer(["p"], ["bad luck"], {})
    message = str(error.value)
    assert "20 of the last 20" in message
    assert "20x KeyError: 'gold'" in message
    assert "'bad luck'" in message
    assert "'broken'" in message


def test_the_error_rate_is_over_a_window():
    def broken(completion: str) -> float:
        return 1.0 if completion == "good" else math.nan

    scorer = Scorer([Reward.from_callable(broken)], max_error_rate=0.1, window=100)
    scorer(["p"] * 200, ["good"] * 200, {})
    scorer(["p"] * 10, ["bad"] * 10, {})
    with pytest.raises(RewardError, match="11 of the last 100"):
        scorer(["p"], ["bad"], {})
    assert Scorer([Reward.from_callable(broken)], max_error_rate=1.0)(["p"] * 30, ["bad"] * 30, {})


def test_kept_errors_are_bounded():
    def broken(completion: str) -> float:
        raise ValueError

    scorer = Scorer([Reward.from_callable(broken)], max_error_rate=1.0)
    scorer(["p"] * 500, [f"{i} " + "x" * 10_000 for i in range(500)], {})
    assert scorer.error_count == 500
    assert len(scorer.errors) == 200
    assert scorer.errors[-1]["completion"].startswith("499 ")
    assert len(scorer.errors[-1]["completion"]) <= 4000


@pytest.mark.parametrize("returned", [[1.0], None, 3.0])
def test_a_batch_function_that_returns_the_wrong_thing(returned):
    scorer = Scorer([Reward.from_callable(lambda completions: returned, name="wrong")])
    (outcomes,) = scorer(["p", "p"], ["a", "b"], {})
    assert all(outcome.error for outcome in outcomes)
    assert scorer.error_count == 2


def test_a_batch_function_may_return_none_and_any_finite_number():
    scorer = Scorer([Reward.from_callable(lambda completions: [None, math.nan, -3, math.inf], name="any")])
    (outcomes,) = scorer(["p"] * 4, list("abcd"), {})
    assert [outcome.value for outcome in outcomes] == [None, None, -3.0, None]
    assert [outcome.error is not None for outcome in outcomes] == [False, False, False, True]


def test_async_batch_functions():
    async def later(completions: list[str], **columns: Any) -> list[float]:
        return [1.0 for _ in completions]

    (outcomes,) = Scorer([Reward.from_callable(later)])(["p"], ["a"], {})
    assert outcomes[0].value == 1.0


def test_a_batch_function_gets_what_trl_gives_and_nothing_else():
    seen: dict[str, Any] = {}

    def spy(prompts, completions, completion_ids, **columns):
        seen.update(columns, prompts=prompts, completions=completions, ids=completion_ids)
        return [0.0] * len(completions)

    chat = [{"role": "assistant", "content": "a"}]
    scorer = Scorer([Reward.from_callable(spy)])
    scorer(
        [[{"role": "user", "content": "q"}]],
        [chat],
        {"answer": ["x"], "prompt": ["q"], "completion": ["demo"]},
        [[7]],
        "state",
    )
    assert seen == {
        "prompts": [[{"role": "user", "content": "q"}]],
        "completions": [chat],
        "ids": [[7]],
        "answer": ["x"],
        "trainer_state": "state",
    }


@pytest.mark.parametrize("chat", [False, True])
def test_trl_calls_the_functions(chat):
    """TRL's own code calls them: `GRPOTrainer._calculate_rewards`, without the rest of a trainer."""
    import torch
    from accelerate import PartialState
    from trl import GRPOTrainer

    PartialState(cpu=True)
    scorer = Scorer([Reward.from_callable(exact), Reward.from_callable(lengths)])
    functions = trl_reward_functions(scorer)
    assert [function.__name__ for function in functions] == ["exact", "lengths"]
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(device=torch.device("cpu"), is_main_process=True),
        args=SimpleNamespace(report_to=[]),
        state=SimpleNamespace(global_step=3),
        environments=None,
        reward_funcs=functions,
        reward_processing_classes=[None, None],
        reward_func_names=["exact", "lengths"],
        _log_completion_extra=lambda *_: None,
        _log_metric=lambda *_: None,
    )
    prompts: list[Any] = ["p", "p", "q"]
    completions: list[Any] = ["a", "b", "c"]
    inputs = [{"prompt": p, "answer": a, "level": 1} for p, a in zip(prompts, ["a", "x", "skip"], strict=True)]
    if chat:
        completions = [[{"role": "assistant", "content": text}] for text in completions]
    rewards = GRPOTrainer._calculate_rewards(trainer, inputs, prompts, completions, [[1], [2], [3]])
    assert rewards[:, 0].tolist()[:2] == [1.0, 0.0]
    assert math.isnan(rewards[2, 0])
    assert rewards[:, 1].tolist() == [-1.0, -1.0, -1.0]
    notes = [outcome.score and outcome.score.note for outcome in functions[0].last_outcomes]  # type: ignore[attr-defined]
    assert notes == ["saw ['level', 'prompt']", "saw ['level', 'prompt']", None]
