"""Replaying a run's signals: its own settings give its own decisions, others what their own steps would have seen."""

from __future__ import annotations

import json
import re

import pytest
from pydantic import TypeAdapter

from posttrain.cli import main
from posttrain.controllers import GAC, SASR, Alternate, Chord, Cosine, GRPOOnly, SFTOnly, Static, Switch
from posttrain.errors import ConfigError
from posttrain.reading.replay import replay, replay_run, start_state
from posttrain.rundir.reading import open_run, steps
from posttrain.storage import files
from tests.reading.recorded import G_WARMUP, recorded_run

GUARDED = SASR(gamma=0.7, kl_target=0.02, kappa=2.0, refresh_every=3)
ALL = [
    SASR(gamma=1.0), GUARDED, SASR(mode="blend", match_norms=True), Static(sft_share=0.3), Static(mode="blend"),
    Alternate(sft_steps=2, grpo_steps=3), Cosine(), SFTOnly(), GRPOOnly(),
    Switch(), Switch(at="flat", window=5), Chord(), Chord(tau=0.6), GAC(update_every=3),
]  # fmt: skip


def lines_of(run):
    return steps(open_run(run), "hybrid")


@pytest.mark.parametrize(
    "controller", ALL, ids=lambda each: f"{each.name}-{getattr(each, 'mode', '')}-{getattr(each, 'adaptive', '')}"
)
def test_its_own_settings_give_the_run_even_over_skipped_steps(tmp_path, controller):
    run = recorded_run(tmp_path / "run", controller, skipped=(7, 8, 21))
    result = replay(run)
    assert result.other_than_run == []
    mixes = [(each.mix.sft, each.mix.grpo, each.mix.p) for each in result.replayed]
    assert mixes == [(line["mix"]["sft"], line["mix"]["grpo"], line["p"]) for line in lines_of(run)]
    assert result.summary["held"] == result.summary["resting"] == result.summary["unseen"] == 0


def test_a_measurement_without_a_step_that_was_skipped_stays_without_a_norm(tmp_path):
    run = recorded_run(tmp_path / "run", SASR(gamma=50.0, refresh_every=2), skipped=tuple(range(4, 15)))
    result = replay(run)
    assert sum(each.mix.measure_sft for each in result.replayed[3:14]) > 5
    assert result.other_than_run == []
    assert result.summary["held"] == 0


def test_a_step_that_the_run_did_not_measure_holds_its_last_value_and_is_counted(tmp_path):
    lines = lines_of(recorded_run(tmp_path / "run", Alternate(sft_steps=1, grpo_steps=1), steps=6))
    norms = [line["sft_norm"] for line in lines]
    # Steps 1, 3 and 5 were SFT; a blend measures both halves of every step
    controller = SASR(mode="blend")
    replayed = replay_run(controller, start_state(controller, lines, G_WARMUP), lines)
    assert [each.held for each in replayed] == [(), ("sft_norm",)] * 3
    assert [each.rests_on_held for each in replayed] == [False, False, True, False, True, False]
    seen = [G_WARMUP, norms[0], norms[0], norms[2], norms[2], norms[4]]
    assert [each.mix.p for each in replayed] == [norm / (norm + G_WARMUP) for norm in seen]


def test_what_its_own_steps_would_not_have_measured_is_not_shown_to_it(tmp_path):
    lines = lines_of(recorded_run(tmp_path / "run", SFTOnly(), steps=30))
    controller = SASR(gamma=4.0)
    replayed = replay_run(controller, start_state(controller, lines, G_WARMUP), lines)
    last = G_WARMUP
    for each, line in zip(replayed, lines, strict=True):
        assert each.mix.p == last / (last + 4.0 * G_WARMUP)
        last = line["sft_norm"] if each.mix.sft else last
        assert each.unseen == (() if each.mix.sft else ("sft_norm",))
    assert 0 < sum(each.mix.sft for each in replayed) < 30


def test_the_guard_rests_on_a_held_kl_and_on_none_where_none_was_measured(tmp_path):
    controller = SASR(kl_target=0.01)
    lines = lines_of(recorded_run(tmp_path / "sft", SFTOnly(), steps=20))
    replayed = replay_run(controller, start_state(controller, lines, G_WARMUP), lines)
    assert any("kl" in each.held for each in replayed)
    assert not any("above its target" in each.mix.reason for each in replayed)  # nothing to hold was ever measured
    lines = lines_of(recorded_run(tmp_path / "both", Alternate(), steps=20))
    replayed = replay_run(controller, start_state(controller, lines, G_WARMUP), lines)
    held = [each.step for each in replayed if "kl" in each.held]
    assert held
    assert all(lines[step - 1]["kl"] is None for step in held)
    after = replayed[held[-1]]
    assert after.rests_on_held
    assert f"KL={lines[held[-1] - 2]['kl']:.4g} above" in after.mix.reason


def test_another_controller_and_another_gamma_on_the_command_line(tmp_path, capsys):
    run = recorded_run(tmp_path / "run", SASR(gamma=1.0))
    assert main(["replay", str(run), "controller.gamma=8", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["reproduces_run"]
    assert told["summary"]["replay"]["sft"] < told["summary"]["run"]["sft"]
    assert told["controller"]["run"]["gamma"] == 1.0
    assert told["controller"]["replay"]["gamma"] == 8.0
    assert len(told["steps"]) == 40
    assert told["summary"]["other_mix"] == sum(each["run"]["mix"] != each["replay"]["mix"] for each in told["steps"])
    assert any("would have moved" in sentence for sentence in told["sentences"])
    assert main(["replay", str(run), "hybrid.controller.name=cosine", "controller.end_share=0.5"]) == 0
    said = capsys.readouterr().out
    assert "replay: cosine end_share=0.5" in said
    assert "▁" in said
    assert "\x1b" not in said
    assert (
        f"{sum(Cosine(end_share=0.5).decide({'step': i, 'seed': 5, 'total_steps': 40}).sft for i in range(40)):.0f}"
        in said
    )


def test_a_run_that_its_recipe_does_not_give_is_said_and_the_status_says_it(tmp_path, capsys):
    run = recorded_run(tmp_path / "run", SASR(gamma=1.0))
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe.replace("gamma: 1.0", "gamma: 1.5"))
    assert main(["replay", str(run)]) == 1
    assert "NOT the run at" in " ".join(capsys.readouterr().out.split())
    assert main(["replay", str(run), "controller.gamma=1.0", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert not told["reproduces_run"]
    assert told["summary"]["other_mix"] == 0


@pytest.mark.parametrize("name", ["drawn.html", "drawn.svg"])
def test_it_is_drawn_over_what_happened(tmp_path, capsys, name):
    run = recorded_run(tmp_path / "a <b> run", SASR())
    assert main(["replay", str(run), "controller.gamma=3", "--out", str(tmp_path / name)]) == 0
    drawn = (tmp_path / name).read_text()
    lines = list(re.findall(r"<polyline[^>]*class=\"s[01][ \"]", drawn))
    assert {"s0" in line for line in lines} == {True, False}  # the run and the replay
    assert ("<b>" not in drawn and "<script" not in drawn and "http-equiv" in drawn) or name.endswith("svg")


def test_what_was_meant_is_said_as_it_can_be_typed(tmp_path, capsys):
    sft = recorded_run(tmp_path / "sft", SFTOnly())
    assert main(["replay", str(sft), "gamma=2"]) == 2
    assert "fix: did you mean controller.gamma=2?" in capsys.readouterr().err
    assert main(["replay", str(sft), "seed=2"]) == 2
    assert "fix: leave it out" in capsys.readouterr().err
    assert main(["replay", str(sft), "controller.gamma=2"]) == 2
    said = capsys.readouterr().err
    override = re.search(r'takes its place by "(.*)"', said)[1]
    assert override == "controller={name: sasr, gamma: 2}"
    assert main(["replay", str(sft), override]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "replay: sasr gamma=2.0" in said
    assert "time in steps ?: the run had no step of the kind GRPO, so what such a step takes is not known" in said
    with pytest.raises(ConfigError, match="unknown key 'gama'") as raised:
        replay(sft, ["controller.gama=2"])
    assert "takes its place" not in str(raised.value), "no controller has it"


def test_what_cannot_be_replayed_is_refused_with_the_reason(tmp_path):
    run = recorded_run(tmp_path / "run", Cosine())
    keeper = tmp_path / "recipes"
    keeper.mkdir()
    (keeper / "recipe.yaml").write_text("hybrid: {}")
    with pytest.raises(ConfigError, match=r"did you mean \S*/run\?"):  # a folder with a recipe is no run
        replay(tmp_path)
    for overrides, seen in [
        (["controller.gama=1"], "unknown key 'gama'"),
        (["controller.name=sasr", "controller.gamma=-1"], "greater than 0"),
        (["hybrid.steps=3"], "cannot be replayed"),
        (["controller.name=sas"], "sas"),
        (["gamma"], "not an override"),
    ]:
        with pytest.raises(ConfigError, match=re.escape(seen)):
            replay(run, overrides)
    with pytest.raises(ConfigError, match="is no run"):
        replay(tmp_path)
    with pytest.raises(ConfigError, match="does not exist"):
        replay(tmp_path / "other")
    (run / "state.json").unlink()
    with pytest.raises(ConfigError, match="g_warmup"):  # cosine kept no norm
        replay(run, ["controller=sasr"])
    assert replay(run, ["controller.name=sasr", "controller.g_warmup=0.5"]).summary["steps"] == 40
    files.keep_lines(run / "steps.jsonl", lambda line: line["step"] > 3)
    with pytest.raises(ConfigError, match="first hybrid steps are not recorded"):
        replay(run)
    (run / "steps.jsonl").unlink()
    with pytest.raises(ConfigError, match="no hybrid step to replay"):
        replay(run)
    assert main(["replay", str(run), "--out", "drawn.png"]) == 2


def test_every_controller_of_a_recipe_is_covered_here():
    from posttrain.controllers import CONTROLLERS

    assert {type(each) for each in ALL} == set(CONTROLLERS.values())
    assert TypeAdapter(SASR).validate_python({"name": "sasr"}) == SASR()
