"""The ledger: exact means, and a steps.jsonl line that says what a step did and did not show."""

from __future__ import annotations

import json
import math
import time

import pytest
import torch
from accelerate import Accelerator

from posttrain.alarms.rollout_facts import rollout_facts
from posttrain.controllers import SASR, Mix, Signals, replay
from posttrain.rundir.completions import read_completions
from posttrain.scoring.score import Outcome, Score
from posttrain.training.ledger import (
    FolderRecorder,
    Ledger,
    NewValues,
    completion_columns,
    reward_notes,
    rollout_rows,
    step_record,
    without_note,
)
from posttrain.training.sampling_drift import SamplingDrift


def test_means_weigh_by_count_and_are_absent_when_nothing_was_added():
    ledger = Ledger()
    ledger.add("kl", 6.0, 3.0)
    ledger.add("kl", 2.0, 1.0)
    ledger.add("nothing", 0.0, 0.0)
    assert ledger.mean("kl") == 2.0
    assert ledger.mean("nothing") is None
    assert ledger.mean("unheard of") is None
    assert "unheard of" not in ledger.sums
    before = {name: list(sums) for name, sums in ledger.sums.items()}
    ledger.reduce(Accelerator(cpu=True))
    assert ledger.sums == before


def test_what_is_added_on_a_device_is_read_once_a_step():
    ledger, weight = Ledger(), torch.ones((), requires_grad=True)
    ledger.add("entropy", weight * 6.0, torch.tensor(3))
    ledger.add("entropy", 2.0, 1.0)
    ledger.add("grpo_loss", weight * 0.5, 1 / 2)
    assert all(not pair.requires_grad for _, pair in ledger._unread), "no graph is kept alive"
    ledger.reduce(Accelerator(cpu=True))
    assert ledger.sums == {"entropy": [8.0, 4.0], "grpo_loss": [0.5, 0.5]}
    assert (ledger.mean("entropy"), ledger.mean("grpo_loss")) == (2.0, 1.0)


def test_the_drift_of_a_step_is_over_the_tokens_that_count():
    drift, accelerator = SamplingDrift(), Accelerator(cpu=True)
    assert drift.metrics(accelerator) == {}
    logps = torch.tensor([[-1.0, -2.0, -9.0], [-3.0, -9.0, -9.0]])
    sampling = torch.tensor([[-1.5, math.nan, 0.0], [-2.0, 0.0, 0.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    drift.add(logps[:1], sampling[:1], torch.tensor([[1.5, 1.0, 7.0]]), mask[:1])
    drift.add(logps[1:], sampling[1:], torch.tensor([[0.5, 7.0, 7.0]]), mask[1:])
    assert drift.metrics(accelerator) == {
        "sampling/sampling_logp_difference/mean": 0.75,
        "sampling/sampling_logp_difference/max": 1.0,
        "sampling/importance_sampling_ratio/min": 0.5,
        "sampling/importance_sampling_ratio/mean": 1.0,
        "sampling/importance_sampling_ratio/max": 1.5,
    }
    assert drift.metrics(accelerator) == {}, "each step anew"


def test_parts_of_a_step_add_up_to_its_loss():
    ledger = Ledger()
    for part in (0.5, 0.25, 0.25, 1.0):  # each micro-batch holds its part of the step's mean
        ledger.add("sft_loss", part, 1 / 4)
    assert ledger.mean("sft_loss") == 2.0


def test_clocks_add_up_even_when_the_block_fails():
    ledger = Ledger()
    with ledger.clock("sft"):
        time.sleep(0.01)
    once = ledger.seconds["sft"]
    with pytest.raises(KeyError), ledger.clock("sft"):
        raise KeyError
    seconds = ledger.timings()
    assert 0.01 <= once < ledger.seconds["sft"]
    assert seconds.keys() == {"total", "sft"}
    assert seconds["total"] >= seconds["sft"]


def test_new_values_are_those_since_the_mark():
    metrics, new = {"reward": [9.0], "entropy": [9.0]}, NewValues()
    new.mark(metrics)
    assert new.means(metrics) == {}
    metrics["reward"] += [1.0, math.nan, 2.0, math.inf]
    metrics["fresh"] = [4.0]
    assert new.means(metrics) == {"reward": 1.5, "fresh": 4.0}
    metrics.clear()  # TRL logs, then the next step begins
    new.mark(metrics)
    metrics["reward"] = [7.0]
    assert new.means(metrics) == {"reward": 7.0}


def record_of(mix, signals, seen=None, **ledger_sums):
    ledger = Ledger()
    for name, value in ledger_sums.items():
        ledger.add(name, value)
    return step_record(3, mix, signals, ledger, seen or {})


def test_a_step_records_what_it_showed_and_null_for_the_rest():
    seen = {"reward": 0.5, "rewards/knights_knaves/mean": 0.4, "rewards/knights_knaves/std": 0.1}
    seen |= {"frac_reward_zero_std": 0.25, "completions/mean_length": 12.0, "completions/clipped_ratio": 0.1}
    grpo = record_of(Mix(0.0, 1.0, p=0.2, reason="why"), Signals(grpo_norm=2.0, kl=0.01), seen, grpo_loss=0.3)
    assert (grpo["stage"], grpo["step"], grpo["mix"]) == ("hybrid", 3, {"sft": 0.0, "grpo": 1.0})
    assert (grpo["p"], grpo["reason"], grpo["grpo_loss"], grpo["grpo_norm"]) == (0.2, "why", 0.3, 2.0)
    assert (grpo["kl"], grpo["reward"], grpo["rewards"]) == (0.01, 0.5, {"knights_knaves": 0.4})
    assert (grpo["zero_std_share"], grpo["completion_length"], grpo["truncated_share"]) == (0.25, 12.0, 0.1)
    assert grpo["sft_loss"] is grpo["sft_norm"] is grpo["sft_weight"] is None
    sft = record_of(Mix(1.0, 0.0), Signals(sft_norm=1.5), sft_loss=2.0)
    assert (sft["sft_loss"], sft["sft_norm"], sft["rewards"]) == (2.0, 1.5, {})
    assert sft["grpo_loss"] is sft["grpo_norm"] is sft["reward"] is sft["kl"] is None


def test_phases_inside_the_grpo_step_are_not_counted_twice():
    ledger = Ledger()
    ledger.seconds.update(sft=1.0, grpo=10.0, generate=4.0, score=2.0, kl=1.5)
    seconds = step_record(1, Mix(0.0, 1.0), Signals(), ledger, {})["seconds"]
    assert seconds["grpo"] == 2.5
    assert (seconds["sft"], seconds["generate"], seconds["score"], seconds["kl"]) == (1.0, 4.0, 2.0, 1.5)


def test_steps_on_disk_replay_to_the_decisions_that_were_taken(tmp_path):
    controller, recorder, mixes = SASR(kl_target=0.1), FolderRecorder(tmp_path / "new"), []
    state = first = controller.start(total_steps=30, seed=1, g_warmup=1.3)
    for step in range(30):
        mixes.append(controller.decide(state))
        on_sft = mixes[-1].sft > 0
        signals = Signals(sft_norm=1 / (step + 3)) if on_sft else Signals(grpo_norm=1.0, kl=step / 100, reward=0.1)
        state = controller.observe(state, signals)
        recorder.step(step_record(step + 1, mixes[-1], signals, Ledger(), {"reward": math.nan}))
    lines = [json.loads(line) for line in (tmp_path / "new" / "steps.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 31))
    assert [line["reward"] for line in lines] == [None] * 30  # NaN is not JSON
    assert replay(controller, first, lines) == mixes


def test_rollouts_reach_the_table_row_by_row(tmp_path):
    logs = {
        "prompt": ["p0", "p1"],
        "completion": ["c0", "c1"],
        "advantages": [1.0, -1.0],
        "rewards": {"length": [0.5, 0.25], "format": [1.0, 0.0]},
    }
    outcomes = [
        Outcome(Score(0.5, {"words": 3.0})), Outcome(Score(0.25, {"words": 1, "cut": True}, note="no answer"))
    ]  # fmt: skip
    scored, plain = lambda: None, lambda: None
    scored.__name__, scored.last_outcomes = "length", outcomes
    rows = rollout_rows(7, logs, completion_columns([scored, plain], [[5, 6, 2], [5]], ends={2}))
    assert rows[1] == {
        "step": 7,
        "prompt": "p1",
        "completion": "c1",
        "advantage": -1.0,
        "reward/length": 0.25,
        "reward/format": 0.0,
        "note": "no answer",
        "truncated": True,
        "length": 1,
        "part/length.words": 1.0,
        "part/length.cut": 1.0,
    }
    assert rows[0].items() >= {"note": "", "truncated": False, "length": 3, "part/length.words": 3.0}.items()
    assert "part/length.cut" not in rows[0]
    FolderRecorder(tmp_path).completions(7, rows)
    assert [path.name for path in (tmp_path / "completions").iterdir()] == ["step-000007.parquet"]
    kept = read_completions(tmp_path / "completions" / "step-000007.parquet")
    assert [(row["prompt"], row["reward/format"], row["note"], row["part/length.cut"]) for row in kept] == [
        ("p0", 1.0, "", None),
        ("p1", 0.0, "no answer", 1.0),
    ]


def test_notes_join_what_every_reward_says():
    class Function:
        def __init__(self, *outcomes):
            self.last_outcomes = list(outcomes)

    one = Function(Outcome(Score(1.0, note="right")), Outcome(error="timed out"), Outcome())
    two = Function(Outcome(Score(0.0, note="too long")), Outcome(Score(1.0)), Outcome())
    silent = len  # a TRL-style function leaves no outcomes
    assert reward_notes([one, silent, two], 3) == ["right; too long", "timed out", ""]


def test_facts_of_a_generation_need_no_notes():
    logs = {"prompt": ["p"] * 4, "completion": ["a", "a", "b", "c"], "advantages": [0.0] * 4,
            "rewards": {"right": [0.0, 0.0, 0.5, 1.0]}}  # fmt: skip
    seen = [{"note": "x" * 99, "truncated": n == 1, "length": 40 + n, "part/right.form": n / 4} for n in range(4)]
    facts = [
        rollout_facts(rollout_rows(1, logs, columns), group=2, weights={})
        for columns in (seen, [without_note(row) for row in seen])
    ]
    assert facts[0] == facts[1]
    assert facts[0]["identical"] == 0.25
    assert without_note(seen[1]) == {"truncated": True, "length": 41, "part/right.form": 0.25}
