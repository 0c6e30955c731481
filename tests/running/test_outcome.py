"""The last lines of a run."""

from __future__ import annotations

import json

from posttrain.rundir.layout import Layout
from posttrain.rundir.rundir import RunDir
from posttrain.running.outcome import outcome
from tests.rundir.test_rundir import PRINTS, RECIPE


def test_they_say_what_came_of_it_how_long_it_took_and_what_to_do_next(tmp_path):
    with RunDir.open(tmp_path / "my run", RECIPE, PRINTS) as run:
        for stage, passes in (("start", 1), ("warmup", 2), ("hybrid", 5), ("final", 6)):
            rows = [{"row": number, "prompt": f"p{number}", "passed": number < passes} for number in range(10)]
            line = {"stage": stage, "step": passes, "n": 10, "pass@1": passes / 10, "ci95": [0.0, 1.0]}
            run.evaluation(line, [{**row, "sample": None} for row in rows])
        scores, done, go_on = outcome(run, 145.4)
    assert scores.startswith("pass@1: 10.0% start -> 20.0% warm-up -> 60.0% final; +40.0 points since the warm-up (")
    assert scores.endswith("the same 10 problems)")
    assert done == f"done: model in {run.model}, report in {run.report_file}, after 2m25s"
    assert f"posttrain view '{run.path}' --worst" in go_on, "to be copied into a shell"


def test_without_a_second_evaluation_there_is_nothing_to_compare(tmp_path):
    (tmp_path / "eval.jsonl").write_text(json.dumps({"stage": "final", "step": 3, "pass@1": 0.5}) + "\n")
    assert [line.split(":")[0] for line in outcome(Layout(tmp_path), 1)] == ["done", "go on"]
