"""A source that falls while the whole rises: from the evaluations alone, each said once, a stop or not."""

from __future__ import annotations

from posttrain.alarms import read
from posttrain.alarms.by_source import of_evaluations
from posttrain.rundir.layout import Layout
from posttrain.running.alarm_callback import raise_of_evaluations
from posttrain.storage.files import append_line


def line(stage: str, step: int, column: str = "source", n: int = 200, **rates: float) -> dict:
    by = {column: {name: {"n": n, "pass@1": rate} for name, rate in rates.items()}}
    return {"stage": stage, "step": step, "n": n * len(rates), "pass@1": sum(rates.values()) / len(rates), "by": by}


START = line("start", 0, sums=0.1, words=0.1)
WARM = line("warmup", 5, sums=0.4, words=0.5)


def about(lines) -> list[tuple]:
    return [(each["step"], each["about"], each["level"], each["change"]) for each in of_evaluations(lines)]


def test_a_fall_below_the_warm_up_while_the_mean_rises_is_said_and_said_again_when_it_is_worse():
    fell = line("hybrid", 10, sums=0.7, words=0.36)
    assert about([START, WARM, fell]) == [(10, "words", "warning", "began")]
    lines = [START, WARM, fell, line("hybrid", 20, sums=0.8, words=0.37), line("hybrid", 30, sums=0.9, words=0.2),
             line("hybrid", 40, sums=0.9, words=0.5), line("final", 50, sums=0.9, words=0.3)]  # fmt: skip
    assert about(lines) == [
        (10, "words", "warning", "began"), (30, "words", "problem", "got worse"), (50, "words", "problem", "came back")
    ]  # fmt: skip
    (said,) = of_evaluations([START, WARM, fell])
    assert "pass@1 of the source words fell from 50.0% to 36.0% (200 problems, 2.9 standard errors)" in said["evidence"]
    assert "while that of all rose from 45.0% to 53.0%" in said["evidence"]
    assert "--source words" in said["advice"]


def test_what_is_no_alarm():
    assert not about([START, WARM, line("hybrid", 10, sums=0.3, words=0.3)]), "all fell: nothing is hidden"
    assert not about([START, WARM, line("hybrid", 10, sums=0.9, words=0.46)]), "by less than 5 points"
    assert not about([line("warmup", 5, n=20, a=0.4, b=0.5), line("hybrid", 9, n=20, a=0.9, b=0.4)]), "20 problems"
    assert not about([WARM, START, line("hybrid", 10, column="people", sums=0.9, words=0.1)]), "no sources"
    assert not about([line("warmup", 5, words=0.5), line("final", 9, words=0.6)])
    assert not about([line("hybrid", 10, sums=0.9, words=0.1)]), "nothing to compare with"
    assert not about([])


def test_without_a_warm_up_it_is_the_start_and_of_a_mixture_the_task():
    lines = [line("start", 0, column="task", a=0.5, b=0.4), line("final", 9, column="task", a=0.3, b=0.9)]
    assert about(lines) == [(9, "a", "problem", "began")]


def test_each_is_written_once_however_often_the_run_is_taken_up(tmp_path):
    run, said = Layout(tmp_path), []
    for each in (START, WARM, line("hybrid", 10, sums=0.7, words=0.36), line("hybrid", 20, sums=0.9, words=0.2)):
        append_line(run.eval_file, each)
        raise_of_evaluations(run, said.append)
        raise_of_evaluations(run, said.append)
    assert [(each["step"], each["change"]) for each in read(tmp_path)] == [(10, "began"), (20, "got worse")]
    assert len(said) == 2
    assert said[0].startswith("warning at step 10: source fell: pass@1 of the source words")
    run.alarms_file.unlink()
    raise_of_evaluations(run, said.append)
    assert len(read(tmp_path)) == 2
