"""Replaying a method: its own settings give its own decisions, others what its recorded groups give, by hand."""

from __future__ import annotations

import json
import re

import pytest

from posttrain.cli import main
from posttrain.controllers import SASR
from posttrain.errors import ConfigError
from posttrain.methods import HPT, LUFFY, METHODS, UFT, Escalate
from posttrain.reading.replay_method import replay_method, take
from posttrain.rundir.reading import open_run, steps
from posttrain.storage import files
from tests.reading import conftest
from tests.reading.recorded import recorded_run


def lines_of(run):
    return steps(open_run(run), "hybrid")


def line(rewards, lengths, *, worth=None, step=1, total=1, window=0):
    seen = {
        "rewards": rewards,
        "demonstration_lengths": lengths,
        "demonstration_rewards": worth or [None] * len(rewards),
    }
    return {
        "step": step, "controller": {"seed": 7, "total_steps": total},
        "method": {"name": "hpt", "window": window, "groups": {}, **seen},
    }  # fmt: skip


def taken_by(method, record, own=None):
    return take(method, record, own=own or method, clock=record["step"] - 1)


@pytest.mark.parametrize("name", conftest.METHODS)
def test_its_own_settings_take_all_decisions_again(run_of, name, capsys):
    result = replay_method(run_of(name))
    assert result.other_than_run == []
    sampled = [record for record in lines_of(run_of(name)) if "groups" in record["method"]]
    assert len(result.taken) == len(sampled) >= 2
    for taken, record in zip(result.taken, sampled, strict=True):
        assert taken.groups == record["method"]["groups"]
        assert sum(tokens for of in taken.begun for tokens in of) == record["method"]["begun_tokens"]
    begun = sum(taken.counts["begun_tokens"] for taken in result.taken)
    assert (begun > 0) == result.own.begins_rollouts
    assert main(["replay", str(run_of(name)), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["of_method"]["reproduces_run"]
    assert told["reproduces_run"]  # the controller


def test_every_method_of_a_recipe_is_covered_here():
    assert {method.name for method in conftest.METHODS.values()} == set(METHODS)


def test_another_gate_by_hand():
    record = line([[0, 0, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, None], [0, 0, 0, 0]], [5, 7, 9, 11, 0])
    own, wide, strict = (taken_by(method, record) for method in (HPT(), HPT(gate=1), HPT(gate=1, passing=1.5)))
    assert own.counts["demonstrations"] == 0
    assert wide.counts["demonstrations"] == 2  # the first, and the fourth, whose unscored rollout solved nothing
    assert wide.counts["demonstration_tokens"] == 16
    assert own.others(wide) == 2
    assert strict.counts["demonstrations"] == 4
    assert wide.groups == {
        "at most 1 of 4 solved: demonstration": 2, "more than 1 of 4 solved: GRPO": 2, "no demonstration: GRPO": 1,
    }  # fmt: skip
    # Rollouts with an advantage: all of the second group; none of one that is solved whole, or not at all
    assert wide.counts["rollouts"] == 4
    assert own.counts["rollouts"] == 4 + 4 + 3
    assert wide.gates == [True, False, False, True]


def test_escalation_by_hand():
    """Blocks of 2 and 2; below 1 solved of the first two the others begin with half of the demonstration."""
    method = Escalate(blocks=(2, 2), below=(1,), shares=(0.5,))
    record = line([[0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]], [10, 10, 0])
    record["method"]["levels"] = [0, 1, 0]
    taken = taken_by(method, record)
    assert taken.begun == ((0, 0, 0, 0), (0, 0, 5, 5), (0, 0, 0, 0))
    assert taken.gates == [False, True]
    assert taken_by(Escalate(blocks=(2, 2), below=(2,), shares=(0.2,)), record).begun[0] == (0, 0, 2, 2)


def test_groups_that_were_sampled_again_whole_go_on_from_what_their_level_says():
    method = Escalate(form="ghpo", below=(1, 2), shares=(0.3, 0.6))
    record = line([[1, 0], [1, 0], [1, 0]], [10, 10, 10])
    record["method"]["levels"] = [0, 1, 2]
    taken = taken_by(method, record)
    # One solved is enough at first, too few behind 30 %, where the run's record ends; and all that there is behind 60 %
    assert taken.begun == ((0, 0), (6, 6), (6, 6))
    record["method"]["rewards"][1] = [1, 1]
    assert taken_by(method, record).begun[1] == (3, 3)


def test_a_level_of_blocks_says_nothing_of_groups_sampled_again():
    """What TRAPO came to is no reason why GHPO would have thrown these rollouts away: 5 of 8 are solved."""
    record = line([[1, 0, 0, 0, 1, 1, 1, 1]], [10])
    record["method"]["levels"] = [3]
    assert taken_by(Escalate(form="ghpo"), record, own=Escalate()).begun == ((0,) * 8,)
    dead = line([[0] * 8], [10])
    dead["method"]["levels"] = [3]
    assert taken_by(Escalate(form="ghpo"), dead, own=Escalate()).begun == ((7,) * 8,)


def test_the_clock_of_a_budget_is_where_schedules_stand():
    record = line([[0, 0]], [100], step=3, total=11)
    early, late = (take(UFT(hinted=1.0), record, own=UFT(hinted=1.0), clock=clock) for clock in (0.0, 10.0))
    assert sum(early.begun[0]) > sum(late.begun[0])


def test_advantages_with_the_demonstration_in_the_group_by_hand():
    taken = taken_by(LUFFY(), line([[0, 1]], [3], worth=[1]))
    assert taken.arranged[0].credit == pytest.approx(1 - 2 / 3)
    assert taken.arranged[0].advantages == pytest.approx((-2 / 3, 1 / 3))


def test_other_settings_on_the_command_line(run_of, capsys):
    run = run_of("hpt")
    assert main(["replay", str(run), "hybrid.method.gate=4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["method"]["run"]["gate"] == 1
    assert told["method"]["replay"]["gate"] == 4
    paired = sum(record["method"]["paired"] for record in lines_of(run))
    assert told["summary"]["replay"]["demonstrations"] == paired  # of four rollouts all may be solved
    assert told["summary"]["replay"]["gate_open"] == 1.0
    assert told["summary"]["other_groups"] == paired - told["summary"]["run"]["demonstrations"] > 0
    assert any("would have sampled others" in sentence for sentence in told["sentences"])
    assert main(["replay", str(run), "method.gate=4"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "run: hpt gate=1" in said
    assert "at most 4 of 4 solved: demonstration" in said
    assert f"{paired} demonstrations of" in said
    assert main(["replay", str(run), "method.too_long=refuse"]) == 0
    assert "every group would have been treated as it was" in " ".join(capsys.readouterr().out.split())


def test_another_schedule_of_beginnings(run_of):
    result = replay_method(run_of("uft"), ["method.hinted=0.1", "method.high=1.0", "method.low=1.0"])
    assert result.method == UFT(hinted=0.1, high=1.0, low=1.0)
    assert [any(tokens for of in taken.begun for tokens in of) for taken in result.replayed] == [True, False, False]


def test_another_method_in_its_place(run_of):
    result = replay_method(run_of("luffy"), ["method={name: hpt, gate: 0}"])
    assert isinstance(result.method, HPT)
    with pytest.raises(ConfigError, match="which hpt had nobody score"):
        replay_method(run_of("hpt"), ["method.name=luffy"])


@pytest.mark.parametrize("name", ["drawn.html", "drawn.svg"])
def test_it_is_drawn_over_what_happened(run_of, tmp_path, name):
    run = run_of("hpt", tmp_path / "a <b> run")
    assert main(["replay", str(run), "method.gate=3", "--out", str(tmp_path / name)]) == 0
    drawn = (tmp_path / name).read_text()
    assert {'class="s0' in each for each in re.findall(r"<polyline[^>]*class=\"s[01][^>]*", drawn)} == {True, False}
    assert ("<b>" not in drawn and "<script" not in drawn) or name.endswith("svg")


def test_what_cannot_be_replayed_is_refused_with_the_reason(run_of, tmp_path, capsys):
    without = recorded_run(tmp_path / "without", SASR())
    with pytest.raises(ConfigError, match="the run had no method"):
        replay_method(without, ["method=hpt"])
    run = run_of("hpt", tmp_path)
    with pytest.raises(ConfigError, match="unknown key 'gat'"):
        replay_method(run, ["method.gat=1"])
    with pytest.raises(ConfigError, match="greater than or equal to 0"):
        replay_method(run, ["method.gate=-1"])
    assert main(["replay", str(run), "gate=1"]) == 2
    assert "did you mean method.gate=1?" in capsys.readouterr().err
    assert main(["replay", str(run), "method.ratio=rl_plus"]) == 2
    assert 'another method takes its place by "method={name: luffy, ratio: rl_plus}"' in capsys.readouterr().err
    assert main(["replay", str(run), "method.gate=1", "controller.name=static"]) == 2
    assert "each is replayed by itself" in capsys.readouterr().err
    records = lines_of(run)
    (run / "steps.jsonl").unlink()
    for record in records:
        del record["method"]["rewards"]
        files.append_line(run / "steps.jsonl", record)
    with pytest.raises(ConfigError, match="step 1 has no rewards by group"):
        replay_method(run, ["method.gate=1"])
    assert main(["replay", str(run)]) == 0  # its controller can be


def test_a_record_that_the_recipe_does_not_give_is_said_and_the_status_says_it(run_of, tmp_path, capsys):
    run = run_of("hpt", tmp_path)
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe.replace("gate: 1", "gate: 2"))
    assert main(["replay", str(run)]) == 1
    assert "does NOT decide as recorded" in " ".join(capsys.readouterr().out.split())
