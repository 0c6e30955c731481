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


ESCALATED = {  # nothing scores as much
    "trapo": "{name: escalate, blocks: [1, 1], below: [1], shares: [0.5], passing: 1.5}",
    "ghpo": "{name: escalate, form: ghpo, passing: 1.5}",
}


@pytest.mark.parametrize("form", ESCALATED)
def test_a_run_that_escalates_tells_how_far(form, folder):
    longer = ("hybrid.grpo.max_completion_length=60", "task.think_share=0", "hybrid.steps=2")
    ended = train(folder, f"hybrid.method={ESCALATED[form]}", "hybrid.controller=grpo_only", *longer)
    assert ended.code == 0, ended.text
    lines = [json.loads(line) for line in (folder / "run" / "steps.jsonl").read_text().splitlines()]
    seen = [line["method"] for line in lines if line["stage"] == "hybrid"]
    assert sum(each["begun_rows"] for each in seen) > 0
    again = sum(each["sampled_again"] for each in seen)
    assert (again > 0) == (form == "ghpo")
    shown = " ".join(command(folder, "explain", "run", "--step", "1").text.split())
    assert "The method escalate treated its groups so: " in shown
    assert ("too few solved: up to 50% of the demonstration" in shown) == (form == "trapo")
    assert ("rollouts were sampled in place of others that were thrown away" in shown) == (form == "ghpo")
    assert "rollouts went on from" in shown


def test_blocks_that_make_no_group_are_refused_with_some_that_do(folder):
    shown = command(folder, "plan", "recipe.yaml", "hybrid.method=escalate", "hybrid.controller=grpo_only")
    assert shown.code != 0
    text = " ".join(shown.text.split())
    assert "blocks of 4 + 2 + 1 + 1 = 8 rollouts, of 2 in a group" in text
    assert "blocks: [1, 1], below: [1], shares: [1.0]" in text


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


def test_explain_speaks_of_what_a_method_did(folder):
    longer = ("hybrid.grpo.max_completion_length=60", "task.think_share=0", "hybrid.steps=2")
    ended = train(folder, "hybrid.method={name: hpt, gate: 2}", "hybrid.controller=grpo_only", *longer)
    assert ended.code == 0, ended.text
    shown = command(folder, "explain", "run", "--step", "1")
    assert "The method hpt treated its groups so: " in shown.text
    assert "at most 2 of 2 solved: demonstration" in shown.text
    assert "were trained on beside the rollouts" in " ".join(shown.text.split())


@pytest.mark.parametrize("method", ["hpt", "escalate"])
def test_a_smoke_test_tries_the_method(method, folder):
    shown = command(folder, "run", "recipe.yaml", "--smoke", f"hybrid.method={method}", "hybrid.controller=grpo_only",
                    "hybrid.grpo.max_completion_length=60", "hybrid.grpo.num_generations=8",
                    "hybrid.per_device_train_batch_size=8")  # fmt: skip
    assert shown.code == 0, shown.text
