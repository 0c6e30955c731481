"""Rewards that apply to nothing, and tasks of a mixture that no reward applies to."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from posttrain.errors import ConfigError
from posttrain.inputs.applying import Tried, check_tasks_covered, idle_rewards, try_rewards, uses_rewards
from posttrain.inputs.inputs import load_data, load_rewards
from posttrain.recipe.recipe import Recipe
from posttrain.scoring.score import Reward, Score
from posttrain.tasks import TaskData

TINY = {"init": {"hidden_size": 16, "layers": 2, "heads": 2}}
ROWS = [{"prompt": f"{n}?", "completion": f"It is {n}.", "answer": str(n), "kind": n % 2} for n in range(100)]
DATA = TaskData(train=ROWS[:20], demonstrations=ROWS, eval=ROWS[:1])


def recipe(**sections: Any) -> Recipe:
    return Recipe.model_validate({"model": TINY, "task": {"name": "knights_knaves"}, **sections})


@pytest.fixture(scope="module")
def plain() -> Recipe:
    return recipe(scoring={"workers": 0})


def right(completion, *, answer, **row):
    return float(answer in completion)


def forgets(completion, *, answer, **row):
    float(answer in completion)


def odd_only(completion, *, kind, **row):
    return 1.0 if kind else None


def last_one_only(completion, *, answer, **row):
    return Score(1.0) if answer == "99" else None


def zero(completion, **row):
    return 0.0


def fails(completion, **row):
    raise ValueError("no way")


def fails_or_nothing(completion, *, kind, **row):
    if kind:
        raise ValueError("no way")


def trl_style(completions, **columns):
    return [1.0] * len(completions)


def found(plain: Recipe, *functions: Any, data: TaskData = DATA) -> list[tuple[bool, str]]:
    rewards = [each if isinstance(each, Reward) else Reward.from_callable(each) for each in functions]
    return [(alone, str(error)) for alone, error in idle_rewards(try_rewards(plain, rewards, data))]


@pytest.mark.parametrize(
    "functions",
    [(right,), (zero,), (odd_only,), (right, odd_only), (trl_style,), (right, trl_style)],
    ids=lambda functions: "+".join(each.__name__ for each in functions),
)
def test_rewards_that_score_something_are_in_order(plain, functions):
    assert found(plain, *functions) == []


@pytest.mark.parametrize(
    ("functions", "alone", "said"),
    [
        ((forgets,), True, "applies to none of 64 gold completions: it returned None; no other"),
        ((fails,), True, "it failed on all 4 gold completions .* by: ValueError: no way; no other"),
        ((fails_or_nothing,), True, "none of 4 gold completions: it returned None; it failed on 2, .* no way"),
        ((last_one_only,), True, "applies to none of 64"),
        ((right, forgets), False, "reward 'forgets': it applies to none of 64"),
        ((trl_style, forgets), False, "reward 'forgets': it applies to none of 64"),
        ((Reward.from_callable(right, weight=0.0), forgets), True, "no other reward scores these rows"),
    ],
)  # fmt: skip
def test_rewards_that_score_nothing_are_named(plain, functions, alone, said):
    ((is_alone, text),) = found(plain, *functions)
    assert is_alone == alone
    assert ("GRPO would learn nothing" in text) == alone
    assert re.search(said, text), text
    for part in ("  expected: ", "  fix: "):
        assert part in text


def test_each_of_several_is_named_and_without_demonstrations_none(plain):
    assert [alone for alone, _ in found(plain, forgets, fails)] == [True, True]
    assert found(plain, forgets, data=TaskData(train=ROWS, eval=ROWS[:1])) == []


def test_another_tasks_reward_covers_nothing():
    rows = [{**row, "task": "a" if row["kind"] else "b"} for row in ROWS]
    rewards = [Reward.from_callable(right, tasks=["a"]), Reward.from_callable(forgets, tasks=["b"])]
    some = recipe(scoring={"workers": 0})
    (told,) = idle_rewards(try_rewards(some, rewards, TaskData(demonstrations=rows)))
    assert told[0]
    assert "'forgets'" in str(told[1])
    everywhere = [Reward.from_callable(right), rewards[1]]
    assert [alone for alone, _ in idle_rewards(try_rewards(some, everywhere, TaskData(demonstrations=rows)))] == [False]


def hangs(completion, **row):
    time.sleep(60)


def test_a_reward_that_hangs_costs_a_few_of_its_time_limits():
    some = recipe(scoring={"time_limit_s": 0.2, "workers": 2})
    started = time.monotonic()
    (tried,) = try_rewards(some, [Reward.from_callable(hangs)], DATA)
    assert (tried.tried, tried.scored, tried.failed) == (4, 0, 4)
    assert time.monotonic() - started < 30
    assert isinstance(tried, Tried)


# ---- mixtures ----

MIXED = [
    {"name": "knights_knaves", "people": [2], "split": "content", "train": 8, "eval": 2, "demonstrations": 2},
    {"name": "json_structure", "difficulty": [1], "train": 6, "eval": 2, "demonstrations": 2},
]


def mixture(**sections: Any) -> Recipe:
    return recipe(task={"name": "mixture", "tasks": MIXED}, **sections)


KK, JSON = {"name": "knights_knaves"}, {"name": "json_structure"}
FORMAT = {"name": "format", "weight": 0.1}


@pytest.mark.parametrize(
    ("rewards", "left"),
    [
        ([KK], "6 of the 14 prompts, those of json_structure"),
        ([JSON], "8 of the 14 prompts, those of knights_knaves"),
        ([KK, {**FORMAT, "tasks": ["knights_knaves"]}], "those of json_structure"),
        ([KK, {**JSON, "weight": 0.0}], "those of json_structure"),
        ([], None),
        ([KK, JSON], None),
        ([FORMAT], None),
        ([KK, {**FORMAT, "tasks": ["json_structure"]}], None),
    ],
)
def test_a_task_without_a_reward_is_refused_with_what_to_add(rewards, left):
    some = mixture(rewards=rewards)
    data = load_data(some)
    if left is None:
        load_rewards(some, data)
        return
    with pytest.raises(ConfigError) as refused:
        load_rewards(some, data)
    assert left in refused.value.seen
    missing = left.split()[-1]
    assert f"add `- name: {missing}` to rewards" in refused.value.fix
    assert refused.value.expected
    assert "rewards" in refused.value.where


def test_a_mixture_that_is_not_trained_on_rewards_needs_none():
    for hybrid in ({"steps": 0}, {"controller": {"name": "sft_only"}}):
        some = mixture(rewards=[KK], hybrid=hybrid)
        assert not uses_rewards(some)
        load_rewards(some, load_data(some))
    assert uses_rewards(mixture())


def test_a_function_for_all_tasks_covers_them():
    some = mixture(rewards=[KK])
    load_rewards(some, load_data(some), [zero])
    check_tasks_covered(some, [], [])
