"""What `posttrain plan` says of a method's needs, against counts by hand and what a run pairs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from datasets import Dataset

from posttrain.inputs.data import with_demonstrated
from posttrain.inputs.pairs import Pairs
from posttrain.planning.in_words import time_in_words
from posttrain.planning.lengths import Lengths, texts_of
from posttrain.planning.machine import Machine
from posttrain.planning.methods import Paired, method_findings, method_in_words
from posttrain.planning.plan import make_plan
from posttrain.scoring.score import Reward
from posttrain.tasks import TaskData
from tests.planning.plans import digit_tokenizer, recipe

ROWS = TaskData(
    train=[{"prompt": "1"}, {"prompt": "2"}, {"prompt": "3", "demonstration": ["33", "3"]}, {"prompt": "4"}],
    demonstrations=[
        {"prompt": "1", "completion": "11"},
        {"prompt": "1", "completion": "1" * 40},
        {"prompt": "5", "completion": "5"},
    ],
)


def right(completion: str, **row: Any) -> float:
    return 1.0


def theirs(completions: list[str], **columns: Any) -> list[float]:
    return [5.0 for _ in completions]


def a_recipe(limit: int = 16, **method: Any):
    return recipe(hybrid={"method": {"name": "hpt", **method}, "grpo": {"max_completion_length": limit}})


def found(some, *, paired=None, completions=None, rewards=()):
    return {each.kind: each for each in method_findings(some, paired, completions, list(rewards))}


def test_prompts_are_paired_as_in_a_run() -> None:
    assert Paired.of(ROWS) == Paired(prompts=5, paired=3, several=2)
    tokenizer = digit_tokenizer()
    table = Dataset.from_list([{"demonstration": None, **row} for row in with_demonstrated(ROWS)])
    pairs = Pairs(
        table, ROWS.demonstrations, tokenizer, longest=16, too_long="leave_out", template_kwargs={}, after=None
    )
    assert (pairs.prompts, len(pairs.of), pairs.left_out) == (5, 3, 1)


def test_a_line_says_what_is_there_and_what_is_too_long() -> None:
    completions = texts_of(a_recipe(), ROWS, digit_tokenizer(), 64).completions
    assert method_in_words(a_recipe(), Paired.of(ROWS), completions) == (
        "method hpt: 3 of 5 prompts have a demonstration, 2 of them several, GRPO alone on the rest; a demonstration "
        "of more than 16 tokens is left out (1 of 3)"
    )
    assert method_in_words(a_recipe(too_long="refuse"), None, None) == (
        "method hpt: the demonstrations' prompts are among the prompts, GRPO alone on the rest; a demonstration of "
        "more than 16 tokens is refused"
    )


def test_few_prompts_with_a_demonstration_are_noted() -> None:
    assert found(a_recipe(), paired=Paired(10, 5, 0)) == {}
    finding = found(a_recipe(), paired=Paired(10, 4, 0))["method_demonstrations"]
    assert finding.level == "note"
    assert "4 of 10 prompts" in finding.evidence


@pytest.mark.parametrize(
    ("too_long", "over", "rows", "level"),
    [("leave_out", 0.2, 10, "note"), ("leave_out", 1.0, 10, "problem"), ("leave_out", 1.0, 5, "warning"),
     ("refuse", 0.2, 10, "problem")],
)  # fmt: skip
def test_demonstrations_beyond_a_completion(too_long, over, rows, level) -> None:
    some = found(a_recipe(too_long=too_long), completions=Lengths(rows, 10, 12.0, 30, 16, over))
    assert some["method_too_long"].level == level
    assert f"{over:.0%} of the demonstrations have more than the 16 tokens" in some["method_too_long"].evidence
    assert "max_completion_length to 30" in some["method_too_long"].advice
    assert found(a_recipe(), completions=Lengths(10, 10, 12.0, 16, 16, 0.0)) == {}


def test_beginnings_shorten_what_is_left_to_sample() -> None:
    uft = recipe(hybrid={"method": {"name": "uft"}, "grpo": {"max_completion_length": 100}})
    roomy = found(uft, completions=Lengths(10, 10, 40.0, 60, 100, 0.0))["method_room"]
    assert (roomy.level, "has 60 left to sample" in roomy.evidence) == ("note", True)
    tight = found(uft, completions=Lengths(10, 10, 90.0, 99, 100, 0.0))["method_room"]
    assert (tight.level, "has 10 left to sample" in tight.evidence) == ("warning", True)
    assert tight.advice == "set it to 180 or more"


def test_what_a_rollout_can_score_against_what_is_asked_of_it() -> None:
    def of(weights, passing=1.0, function=right):
        rewards = [Reward.from_callable(function, weight=weight, name=f"r{n}") for n, weight in enumerate(weights)]
        return found(a_recipe(passing=passing), rewards=rewards).get("method_rewards")

    assert of([1.0]) is None
    out_of_reach = of([0.5, 0.3])
    assert out_of_reach.level == "warning"
    assert "scores 0.8 at most" in out_of_reach.evidence
    assert out_of_reach.advice == "set hybrid.method.passing to 0.8 or less"
    more = of([1.0, 0.2])
    assert (more.level, "of 1.2 at most (r0 1, r1 0.2)" in more.evidence) == ("note", True)
    below = of([1.0, -0.5])
    assert (below.level, "takes down to -0.5" in below.evidence) == ("note", True)
    assert of([1.0], passing=0.0).level == "warning"
    assert "all do" in of([1.0], passing=0.0).evidence
    own = of([1.0], function=theirs)
    assert (own.level, "may score beyond 0 and 1" in own.evidence) == ("note", True)
    luffy = recipe(hybrid={"method": {"name": "luffy"}})
    assert found(luffy, rewards=[Reward.from_callable(right, weight=0.5)]) == {}, "it has no gate"


def test_nothing_is_said_without_a_method() -> None:
    assert found(recipe(), paired=Paired(10, 0, 0), completions=Lengths(1, 1, 9.0, 9, 4, 1.0)) == {}


def test_a_plan_has_the_numbers(tmp_path) -> None:
    some = recipe(
        hybrid={"method": {"name": "hpt", "passing": 2.0}, "steps": 4},
        task={"name": "knights_knaves", "people": [2], "train": 20, "demonstrations": 6, "eval": 4},
        rollout={"engine": "transformers"},
        run={"dir": str(tmp_path / "run")},
    )
    plan = make_plan(some, Machine(device="cpu", memory=2**33))
    assert plan.paired is not None
    assert plan.paired.paired >= 1
    assert plan.counts["train"] <= plan.paired.prompts
    assert "method_rewards" in {each.kind for each in plan.findings}
    assert any("taken as one of GRPO" in line for line in time_in_words(plan))
    assert any("predicted sampling is a random policy's" in line for line in time_in_words(plan))
    phases = {name: replace(phase, source="recorded") for name, phase in plan.time.phases.items()}
    recorded = replace(plan, time=replace(plan.time, phases=phases))
    assert not any("predicted sampling" in line for line in time_in_words(recorded))
