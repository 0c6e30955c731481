"""A method's decisions in sentences: of real steps of each method, and of runs by hand."""

from __future__ import annotations

import re

import pytest

from posttrain.methods import METHODS
from posttrain.reading.explain import explain_step, read
from posttrain.reading.explain_method import of_run, of_step
from posttrain.reading.explain_summary import explain_run
from tests.reading import conftest


@pytest.mark.parametrize("name", conftest.METHODS)
def test_every_methods_reasons_come_out_with_their_numbers(run_of, name):
    run = read(run_of(name))
    lines = [each.record for each in run.decisions]
    for line in lines:
        seen, told = line["method"], explain_step(run, line["step"])
        text = " ".join(told["sentences"])
        assert told["follows"] is True
        for reason, count in seen.get("groups", {}).items():
            assert (
                f"{count} {reason}" in text if reason else f"{seen['paired']} of 2 groups had a demonstration" in text
            )
        if seen.get("begun_rows"):
            assert f"{seen['begun_rows']} rollouts went on from {seen['begun_tokens']} tokens" in text
        for measured in METHODS[seen["name"]].measures:
            if seen.get(measured) is not None:
                assert re.search(r"weigh|share|teacher|counted in the mean", text)
        assert "None" not in text
        assert "nan" not in text
    summary = " ".join(explain_run(run)["sentences"])
    sampled = [line["method"] for line in lines if "groups" in line["method"]]
    assert f"The method {sampled[0]['name']} had {2 * len(sampled)} groups at {len(sampled)} steps" in summary
    assert f"{sum(each['paired'] for each in sampled)} with a demonstration" in summary
    assert ("Its gate let" in summary) == any(each["gate_open"] is not None for each in sampled)
    assert "None" not in summary


def line(**more):
    return {"method": {"name": "hpt", "groups": {"a": 3, "b": 1}, "paired": 3, **more}}


def test_a_run_by_hand():
    lines = [
        line(gate_open=1.0, demonstrations=2, demonstration_tokens=20, demonstration_nll=2.0),
        line(gate_open=0.5, demonstrations=1, demonstration_tokens=9, demonstration_nll=1.5),
    ]
    assert of_run(lines, [lines[:1], lines[1:]]) == [
        "The method hpt had 8 groups at 2 steps, 6 with a demonstration: 6 (75%) a; 2 (25%) b.",
        "Its gate let the demonstration in for 75% of these, by quarter 100% -> 50%.",
        "3 demonstrations of 29 tokens were trained on beside rollouts; their NLL went from 2 to 1.5 nats a token.",
    ]
    some = [
        line(begun_rows=4, begun_tokens=8, begun_share=0.5, begun_reward=0.8, alone_reward=0.25),
        line(begun_rows=0, begun_tokens=0, begun_share=None, begun_reward=None, alone_reward=0.5),
    ]
    assert of_run(some, [some[:1], some[1:]])[1] == (
        "4 rollouts went on from 8 tokens of demonstrations in all; by quarter a beginning was 50% -> - of the "
        "demonstration, and scored 0.80 -> -, rollouts without one 0.25 -> 0.50."
    )
    waits = [line(waiting=3, entered=3, used=0), {"method": {"name": "relift", "waiting": 1, "entered": 0, "used": 2}}]
    assert of_run(waits, [waits])[-1] == (
        "3 prompts that no rollout solved began to wait; 1 SFT steps took 2 of their demonstrations, and 1 wait."
    )
    assert of_run([{"method": None}, {}], [[]]) == []


def test_a_step_by_hand():
    seen = line(gate_open=1 / 3, demonstrations=1, demonstration_tokens=7, demonstration_nll=1.25)["method"]
    assert of_step(seen) == [
        "The method hpt treated its groups so: 3 a; 1 b.",
        "Its gate let the demonstration in for 1 of 3 groups with one (33%).",
        "1 demonstrations of 7 tokens, at 1.25 nats each, were trained on beside the rollouts.",
    ]
    uft = {"name": "uft", "groups": {"": 4}, "paired": 3, "begun_rows": 0, "begun_tokens": 0}
    assert of_step(uft) == [
        "The method uft: 3 of 4 groups had a demonstration.",
        "No rollout went on from the beginning of a demonstration.",
    ]
    assert of_step({"name": "hpt"}) == []
    # A record of a version that knew less
    assert of_step({"name": "hpt", "groups": {"a": 1}}) == ["The method hpt treated its groups so: 1 a."]
