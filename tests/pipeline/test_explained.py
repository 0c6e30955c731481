"""Real runs, whole, killed, with skipped steps and blended: the replay gives every decision, and the reasons add up."""

from __future__ import annotations

import json
import signal

import pytest

from posttrain.cli import main
from posttrain.reading.explain import explain_step, read
from posttrain.reading.explain_summary import explain_run
from posttrain.reading.replay import replay
from tests.pipeline.runs import at_step, both, nan_gradient, train

BLEND = ("hybrid.controller.name=sasr", "hybrid.controller.mode=blend", "hybrid.gradient_accumulation_steps=2")
GUARDED = ("hybrid.controller.gamma=3", "hybrid.controller.kl_target=1.0e-5", "hybrid.controller.refresh_every=2")


def adds_up(run, steps=10):
    result = replay(run)
    assert result.other_than_run == []
    assert result.summary["held"] == 0
    assert len(result.replayed) == steps
    recorded = read(run)
    told = explain_run(recorded)
    assert told["follows"] is True
    assert told["differs"] == []
    assert told["steps"] == steps
    assert all(explain_step(recorded, step)["follows"] for step in range(1, steps + 1))
    return told


@pytest.mark.parametrize("overrides", [(), BLEND], ids=["step", "blend"])
def test_a_run_replays_to_itself(reference, overrides):
    told = adds_up(reference(*overrides))
    made = "10 of both losses" if overrides else "SFT"
    assert any(made in sentence for sentence in told["sentences"])


def test_so_does_one_that_was_killed_and_went_on_with_a_skipped_step_the_guard_and_the_refresh(folder, capsys):
    nan = nan_gradient("hybrid", 4)
    ended = train(folder, *GUARDED, fault=both(nan, at_step("hybrid", 7)))
    assert ended.code == -signal.SIGKILL, ended.text
    assert adds_up(folder / "run", 7)["steps"] == 7  # unfinished
    ended = train(folder, *GUARDED, "--resume")
    assert ended.code == 0, ended.text
    told = adds_up(folder / "run")
    said = " ".join(told["sentences"])
    assert "The KL guard acted at" in said
    assert "Skipped" in said
    assert "taken up again once" in said
    assert main(["replay", str(folder / "run"), "controller.gamma=0.1", "controller.kl_target=null", "--json"]) == 0
    other = json.loads(capsys.readouterr().out)
    assert other["reproduces_run"]
    assert other["summary"]["other_mix"] > 0
    assert main(["view", str(folder / "run"), "--prompt", "0", "--jsonl"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["stage"] for row in rows] == ["start", "warmup", "hybrid", "hybrid", "final"]
    assert main(["view", str(folder / "run"), "--best", "--limit", "1", "--jsonl"]) == 0
    [best] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert best["stage"] == "rollout"
    assert best["reward"] == pytest.approx(min(1.0, len(set(best["completion"])) / 20))
