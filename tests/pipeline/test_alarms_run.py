"""Alarms of real runs: in the log, in `alarms.jsonl` and at the end, and the same when a run was killed and resumed."""

from __future__ import annotations

import signal

import pytest

from posttrain import alarms
from tests.pipeline.runs import assert_same_run, at_step, lines, train, write_recipe

# Nothing is ever right; answers of an untrained model never end; and SFT of such a learning rate leaves the warm-up far
TROUBLED = (
    "rewards=[{path: rewards.py:nothing}]", "hybrid.steps=14", "hybrid.learning_rate=0.05", "evaluate.every=0",
    "evaluate.at_start=false", "hybrid.controller={name: static, mode: blend, sft_share: 0.5}",
)  # fmt: skip
NOTHING = """

def nothing(completion, **row):
    from posttrain import Score
    return Score(0.0, parts={"letters": len(completion) / 100}, note="nothing is right")
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run in trouble, and what it said."""
    folder = troubled(tmp_path_factory.mktemp("troubled"))
    ended = train(folder, *TROUBLED)
    assert ended.code == 0, ended.text
    return folder, ended.text


def troubled(folder):
    write_recipe(folder)
    with (folder / "rewards.py").open("a") as file:
        file.write(NOTHING)
    return folder


def test_troubles_are_said_kept_and_summed_up(whole):
    folder, said = whole
    raised = alarms.read(folder / "run")
    kinds = {line["kind"] for line in raised}
    assert kinds >= {"dead_groups", "truncation", "kl_blow_up"}, raised
    dead = next(line for line in raised if line["kind"] == "dead_groups")
    assert (dead["level"], dead["about"], dead["step"]) == ("problem", "wrong", 5)
    assert "in 100% of the groups" in dead["evidence"]
    before_end, _, at_end = said.rpartition("hybrid 14/14")
    for line in raised:
        assert f"{line['level']} at step {line['step']}: {line['kind'].replace('_', ' ')}" in before_end
    for kind in kinds:
        assert f": {kind.replace('_', ' ')}, " in at_end
    assert said.index("problem: dead groups, since step 5") > said.index("hybrid 14/14")


def test_a_step_has_what_its_completions_show(whole):
    folder, _ = whole
    sampled = [line["sampled"] for line in lines(folder / "run", "steps.jsonl") if line["stage"] == "hybrid"]
    assert len(sampled) == 14
    for facts in sampled:
        assert (facts["completions"], facts["groups"]) == (8, 4)
        assert (facts["dead_wrong"], facts["dead_right"], facts["finished_reward"] or 0.0) == (1.0, 0.0, 0.0)
        assert facts["parts"].keys() == {"nothing.letters"}


def test_a_killed_run_goes_on_with_its_alarms(whole, tmp_path):
    folder = troubled(tmp_path)
    ended = train(folder, *TROUBLED, fault=at_step("hybrid", 13))
    assert ended.code == -signal.SIGKILL, ended.text
    ended = train(folder, *TROUBLED, "--resume")
    assert ended.code == 0, ended.text
    assert_same_run(whole[0] / "run", folder / "run")
    assert "problem at step 5" not in ended.text, "said before"
    assert "problem: dead groups, since step 5" in ended.text, "and still to be told at the end"


def test_a_run_in_good_health_says_nothing(reference):
    raised = alarms.read(reference())
    assert [line for line in raised if line["kind"] != "truncation"] == []
