"""A recipe with a method: the demonstrations' prompts join the task's, and what became of groups is in the records."""

from __future__ import annotations

import json

import pytest

from tests.pipeline.runs import command, train


@pytest.mark.parametrize("method", ["{name: hpt, gate: 2}", "{name: uft, weight: 0.1}"])
def test_a_run_with_a_method(method, folder):
    longer = ("hybrid.grpo.max_completion_length=60", "task.think_share=0")
    ended = train(folder, f"hybrid.method={method}", "hybrid.controller=grpo_only", *longer)
    assert ended.code == 0, ended.text
    assert "prompts have a demonstration; 0 demonstrations have another prompt" in ended.text
    steps = [json.loads(line) for line in (folder / "run" / "steps.jsonl").read_text().splitlines()]
    seen = [step["method"] for step in steps if step["stage"] == "hybrid"]
    assert {each["name"] for each in seen} == {"hpt" if "hpt" in method else "uft"}
    assert sum(each.get("demonstration_tokens" if "hpt" in method else "begun_tokens", 0) for each in seen) > 0


def test_demonstrations_that_are_all_too_long_are_refused_before_the_warm_up(folder):
    ended = train(folder, "hybrid.method=hpt", "hybrid.controller=grpo_only", "hybrid.grpo.max_completion_length=2")
    assert ended.code != 0
    assert "12 are longer than a completion may be" in ended.text
    assert "warmup 1/5" not in ended.text


def test_a_method_alone_has_grpo_steps_only_and_refuses_what_its_loss_does_not_go_with(folder):
    shown = command(folder, "plan", "recipe.yaml", "hybrid.method=luffy", "hybrid.grpo.loss_type=bnpo")
    assert shown.code != 0
    assert "hybrid.grpo.loss_type" in shown.text
    assert "luffy does not go with" in shown.text
