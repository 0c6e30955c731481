"""A recipe with a method: the demonstrations' prompts join the task's, and what became of groups is in the records."""

from __future__ import annotations

import json
import signal

import pytest

from tests.pipeline.runs import assert_same_run, at_step, forked, lines, train


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
    shown = " ".join(forked(folder, "explain", "run", "--step", "1").text.split())
    assert "The method escalate treated its groups so: " in shown
    assert ("too few solved: up to 50% of the demonstration" in shown) == (form == "trapo")
    assert ("rollouts were sampled in place of others that were thrown away" in shown) == (form == "ghpo")
    assert "rollouts went on from" in shown


def test_blocks_that_make_no_group_are_refused_with_some_that_do(folder):
    shown = forked(folder, "plan", "recipe.yaml", "hybrid.method=escalate", "hybrid.controller=grpo_only")
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
    shown = forked(folder, "plan", "recipe.yaml", "hybrid.method=luffy", "hybrid.grpo.loss_type=bnpo")
    assert shown.code != 0
    assert "hybrid.grpo.loss_type" in shown.text
    assert "luffy does not go with" in " ".join(shown.text.split())


def test_explain_speaks_of_what_a_method_did(folder):
    longer = ("hybrid.grpo.max_completion_length=60", "task.think_share=0", "hybrid.steps=2")
    ended = train(folder, "hybrid.method={name: hpt, gate: 2}", "hybrid.controller=grpo_only", *longer)
    assert ended.code == 0, ended.text
    shown = forked(folder, "explain", "run", "--step", "1")
    assert "The method hpt treated its groups so: " in shown.text
    assert "at most 2 of 2 solved: demonstration" in shown.text
    assert "were trained on beside the rollouts" in " ".join(shown.text.split())


@pytest.mark.parametrize("method", ["hpt", "escalate"])
def test_a_smoke_test_tries_the_method(method, folder):
    shown = forked(folder, "run", "recipe.yaml", "--smoke", f"hybrid.method={method}", "hybrid.controller=grpo_only",
                   "hybrid.grpo.max_completion_length=60", "hybrid.grpo.num_generations=8",
                   "hybrid.per_device_train_batch_size=8")  # fmt: skip
    assert shown.code == 0, shown.text


RELIFT = (
    "hybrid.method={name: relift, buffer: 3, passing: 2}", "hybrid.controller=grpo_only",
    "hybrid.grpo.max_completion_length=60",
    "task.think_share=0", "hybrid.grpo.steps_per_generation=2", "hybrid.save_steps=1",
)  # fmt: skip
"""Windows of two steps whose prompts are never solved; SFT steps come between windows."""

HPT = ("hybrid.method={name: hpt, gate: 2}", *RELIFT[1:])


@pytest.mark.parametrize(("method", "step"), [(RELIFT, 4), (RELIFT, 3), (HPT, 5)], ids=["relift", "SFT", "hpt"])
def test_killed_inside_a_window_and_resumed_it_is_the_run_that_was_not(method, step, folder, reference):
    """`SFT`: right behind an SFT step."""
    assert train(folder, *method, fault=at_step("hybrid", step)).code == -signal.SIGKILL
    ended = train(folder, *method, "--resume")
    assert ended.code == 0, ended.text
    assert_same_run(reference(*method), folder / "run")
    steps = [line for line in lines(folder / "run", "steps.jsonl") if line["stage"] == "hybrid"]
    if method is RELIFT:
        assert [line["mix"]["sft"] for line in steps] == [0.0, 0.0, 1.0] * 3 + [0.0]
        assert [line["method"]["used"] for line in steps] == [0, 0, 3] * 3 + [0]
        saved = json.loads((folder / "run" / "checkpoints" / "hybrid" / "checkpoint-4" / "posttrain.json").read_text())
        assert saved["window"]
        assert len(saved["buffer"]["waiting"]) == steps[3]["method"]["waiting"] > 0
    else:
        assert sum(line["method"].get("demonstrations", 0) for line in steps) > 0


def test_explain_tells_of_what_waits(folder):
    ended = train(folder, *RELIFT, "hybrid.steps=3")
    assert ended.code == 0, ended.text
    first, third = (" ".join(forked(folder, "explain", "run", "--step", step).text.split()) for step in ("1", "3"))
    assert "prompts that no rollout solved began to wait for an SFT step; " in first
    assert "Step 3 was an SFT step." in third
    assert "The method relift took it" in third
    assert "the demonstrations of the 3 oldest. " in third
    assert "does not add up" not in first + third
    shown = forked(folder, "replay", "run")
    assert shown.code == 0, shown.text
    assert "not as the run" not in shown.text


def test_a_smoke_test_takes_an_sft_step_of_what_waits(folder):
    shown = forked(folder, "run", "recipe.yaml", "--smoke", *RELIFT[:4])
    assert shown.code == 0, shown.text
    steps = [json.loads(line) for line in (folder / "run-smoke" / "run" / "steps.jsonl").read_text().splitlines()]
    assert [line["method"]["used"] for line in steps if line["stage"] == "hybrid"] == [0, 1]


def test_a_teacher_that_the_model_has_no_positions_for_is_refused_before_the_warm_up(folder):
    shown = forked(folder, "run", "recipe.yaml", "hybrid.method=rlsd", "hybrid.controller=grpo_only",
                   "hybrid.grpo.max_completion_length=140", "task.think_share=0")  # fmt: skip
    assert shown.code != 0
    assert "12 leave a teacher no positions for a completion" in shown.text
    assert "warmup 1/5" not in shown.text


@pytest.mark.parametrize(
    ("method", "measured", "said"),
    [
        ("{name: rlsd, fades_in: 4, teacher_kl: 0.1}", ("teacher_weight", "teacher_clipped", "teacher_kl"),
         ("The teacher, shown the demonstrations, had the share 0.5", "The KL to the teacher over the whole")),
        ("{name: srft, passing: 0.5}", ("nll_weight", "right_weight"), ("By the entropy of its tokens the NLL of",)),
    ],
)  # fmt: skip
def test_a_teacher_and_entropies_are_in_the_records_and_in_words(method, measured, said, folder):
    settings = ("hybrid.grpo.max_completion_length=40", "task.think_share=0", "model.init.max_position_embeddings=320")
    ended = train(folder, f"hybrid.method={method}", "hybrid.controller=grpo_only", "task.train=4", *settings)
    assert ended.code == 0, ended.text
    steps = [json.loads(line) for line in (folder / "run" / "steps.jsonl").read_text().splitlines()]
    seen = [step["method"] for step in steps if step["stage"] == "hybrid"]
    for name in measured:
        assert any(each[name] for each in seen), name
    if "rlsd" in method:
        assert [each["teacher_share"] for each in seen] == pytest.approx([0.5, 0.375, 0.25, 0.125] + [0.0] * 6)
        assert {each["teacher_weight"] for each in seen[4:]} == {None}
    shown = " ".join(" ".join(forked(folder, "explain", "run", "--step", str(n)).text for n in (1, 2)).split())
    assert all(text in shown for text in said)
