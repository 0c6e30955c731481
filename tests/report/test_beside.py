"""What the report shows of a method: its charts, and one prompt with what was given and what was sampled."""

from __future__ import annotations

import pytest

from posttrain.methods import HPT, LUFFY, PrefixRFT
from posttrain.report.beside import ROLLOUTS_SHOWN, beside
from posttrain.report.curves import curves
from posttrain.report.report import write_report
from posttrain.rundir.layout import Layout
from posttrain.rundir.rundir import RunDir
from tests.reading.method_runs import method_run
from tests.report.runs import HOSTILE, TEXTS, hostile_beside
from tests.report.test_report import Page


def line(step, **method):
    return {"stage": "hybrid", "step": step, "mix": {"sft": 0.0, "grpo": 1.0}, "method": {"name": "x", **method}}


def titles(lines):
    return {chart.title: chart for chart in curves(lines, [], [], 0)}


def test_the_charts_of_a_gate_by_hand():
    lines = [
        line(step, paired=4, demonstrations=of, gate_open=of / 4, demonstration_nll=2.0 / step, begun_share=None,
             begun_reward=None, alone_reward=0.5)
        for step, of in ((1, 3), (2, 1))
    ]  # fmt: skip
    found = titles([*lines, line(3)])  # a step that sampled nothing anew
    assert set(found) == {"Demonstrations beside rollouts", "Loss of demonstrations"}
    assert found["Demonstrations beside rollouts"].names == ["trained on whole", "gate open"]
    assert [row[1:] for row in found["Demonstrations beside rollouts"].rows] == [["75.0 %"] * 2, ["25.0 %"] * 2]


def test_the_charts_of_beginnings_and_of_what_waits_by_hand():
    lines = [line(1, paired=4, demonstrations=0, begun_share=0.5, begun_reward=0.75, alone_reward=0.25, waiting=3)]
    found = titles(lines)
    assert set(found) == {
        "Beginnings of demonstrations", "Reward with and without a beginning", "Demonstrations that wait for SFT",
    }  # fmt: skip
    assert found["Reward with and without a beginning"].names == ["with", "without"]


def test_a_run_without_a_method_has_no_such_chart():
    plain = {name: value for name, value in line(1).items() if name != "method"}
    assert titles([plain | {"reward": 0.5}]).keys() == {"Reward of the rollouts"}


@pytest.mark.parametrize("method", [HPT(gate=4), LUFFY(), PrefixRFT()], ids=lambda method: method.name)
def test_a_real_run_has_its_charts_and_a_prompt(method, tmp_path):
    run = method_run(tmp_path / "run", method)
    text = " ".join(Page(write_report(run).read_text()).text.split())
    begins = method.begins_rollouts
    assert ("Demonstrations beside rollouts" in text) != begins
    assert ("Beginnings of demonstrations" in text) == begins
    assert "A prompt beside the method, hybrid step" in text
    assert ("The demonstration's beginning" in text) == begins
    assert ("The demonstration, trained on whole" in text) != begins


def test_hostile_text_stays_text_and_parts_are_told_apart(tmp_path):
    with RunDir.open(tmp_path / "run", {}, {}) as run:
        run.step({**line(90), "stage": "hybrid"})
    hostile_beside(tmp_path / "run")
    page = Page(write_report(tmp_path / "run").read_text())
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert f"shown {HOSTILE}" in page.text
    half = len(TEXTS[7]) // 2
    assert "Went on with" in page.text
    found = beside(Layout(tmp_path / "run"))
    assert [row["source"] for row in found["rows"]] == ["begun"] * 4 + ["rollout"] * 4 + ["demonstration"]
    assert found["rows"][3]["given"] == TEXTS[7][:half]
    assert found["rows"][3]["sampled"] == TEXTS[7][half:]
    assert found["left_out"] == len(TEXTS) - ROLLOUTS_SHOWN == 0
    assert found["rows"][-1]["about"] == "demonstration, credit +0.5, reward 1, 9 tokens"


def test_a_torn_file_costs_the_section_only(tmp_path):
    with RunDir.open(tmp_path / "run", {}, {}) as run:
        run.step(line(1))
    hostile_beside(tmp_path / "run")
    (tmp_path / "run/completions/step-000090.parquet").write_bytes(b"PAR1")
    assert beside(Layout(tmp_path / "run")) is None
    assert "A prompt beside" not in write_report(tmp_path / "run").read_text()
