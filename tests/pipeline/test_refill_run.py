"""A recipe that refills: what was replaced is in the records, and `plan`, `explain` and the report tell of it."""

from __future__ import annotations

import json

from tests.pipeline.runs import forked, train

REFILL = ("hybrid.refill={max_batches: 3}", "hybrid.controller=grpo_only")


def test_a_run_that_refills_tells_of_it(folder):
    planned = " ".join(forked(folder, "plan", "recipe.yaml", *REFILL).text.split())
    assert "refill: groups without a difference give way to further prompts, in all up to 3 times" in planned
    ended = train(folder, *REFILL)
    assert ended.code == 0, ended.text
    lines = [json.loads(line) for line in (folder / "run" / "steps.jsonl").read_text().splitlines()]
    seen = [line["refill"] for line in lines if line["stage"] == "hybrid"]
    assert sum(each["replaced"] for each in seen) > 0, "this model solves next to nothing"
    assert [line["prompt_cursor"] for line in lines if line["stage"] == "hybrid"][-1] == sum(
        each["prompts"] for each in seen
    )
    told = " ".join(forked(folder, "explain", "run", "--step", "1").text.split())
    assert f"Refilled: {seen[0]['prompts']} prompts were sampled, of which {seen[0]['replaced']} (" in told
    told = " ".join(forked(folder, "explain", "run").text.split())
    assert f"Refilled: {sum(each['prompts'] for each in seen)} prompts were sampled" in told
    assert "Groups replaced by refilling" in (folder / "run" / "report.html").read_text()
