"""What a study's directories come to: the best point, the judgement, the table and the page; of runs made by hand."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import numpy as np
import pytest

from posttrain.cli import main
from posttrain.rundir.rundir import RunDir
from posttrain.study import tables
from posttrain.study.judged import judge
from posttrain.study.page import mean_curve, study_page
from posttrain.study.queue import Queue
from posttrain.study.results import kept
from posttrain.study.study import Study
from posttrain.study.tuning import chosen, next_value, tuning_runs
from posttrain.study.writing import write
from tests.study.test_study_file import RECIPE

STUDY = """recipe: recipe.yaml
budget: {seconds: 60}
seeds: [0, 1, 2]
tune: {seed: 100, grid: {hybrid.learning_rate: [1.0e-4, 3.0e-4, 1.0e-3]}}
arms:
  sft_only: {hybrid.controller: sft_only}
  switch: {hybrid.controller: {name: switch, at: 0.5}}
  static: {hybrid.controller: {name: static}}
"""
N = 200
RATES = {"sft_only": 0.5, "switch": 0.55, "static": 0.75}


def make_run(study: Study, job, passed: list[bool], scores: list[float] | None = None) -> None:
    """A finished run with two evaluations on the way, whose final completions are these."""
    layout = study.layout(job)
    share = sum(passed) / len(passed)
    with RunDir.open(layout.path, job.recipe.resolved(), {}) as run:
        for step in (1, 2):
            spent = {"seconds": 30.0 * step, "sampled_tokens": 100 * step, "trained_tokens": 50 * step, "flops": 1e9}
            run.step({"stage": "hybrid", "step": step, "seconds": {"total": 30.0}, "spent": spent})
        for stage, step, value in (("warmup", 0, 0.1), ("hybrid", 1, share / 2), ("final", 2, share)):
            rows = [
                {"row": row, "sample": None, "prompt": f"seed {job.seed}, problem {row}", "completion": "",
                 "passed": good, "score": float(good) if scores is None else scores[row], "people": 2 + row % 2}
                for row, good in enumerate(passed)
            ]  # fmt: skip
            by = {"people": {"2": {"n": N // 2, "pass@1": value}, "3": {"n": N // 2, "pass@1": value / 2}}}
            run.evaluation({"stage": stage, "step": step, "n": N, "pass@1": value, "by": by}, rows)
        for stage in ("warmup", "hybrid", "final"):
            run.mark_done(stage)
    layout.report_file.write_text("report")


@pytest.fixture
def study(tmp_path) -> Study:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "study.yaml").write_text(STUDY)
    return Study(tmp_path / "study.yaml", tmp_path / "dir")


def tune(study: Study, arm: str, shares: list[float], scores: list[float]) -> None:
    jobs = study.grid_of(arm)
    for job, share, score in zip(jobs, shares, scores, strict=True):
        make_run(study, job, [row < share * N for row in range(N)], [score] * N)


def test_the_highest_pass_rate_is_chosen_and_the_mean_score_breaks_ties(study):
    assert chosen(study, "switch").point is None
    tune(study, "switch", [0.5, 0.6, 0.6], [0.9, 0.1, 0.2])
    picked = chosen(study, "switch")
    assert (picked.point, picked.edges) == ({"hybrid.learning_rate": 1e-3}, ["hybrid.learning_rate"])
    tune(study, "static", [0.5, 0.6, 0.6], [0.9, 0.3, 0.2])
    picked = chosen(study, "static")
    assert (picked.point, picked.edges) == ({"hybrid.learning_rate": 3e-4}, [])


def test_a_point_that_failed_is_not_waited_for(study):
    jobs = study.grid_of("switch")
    make_run(study, jobs[0], [True] * 10 + [False] * (N - 10))
    make_run(study, jobs[1], [False] * N)
    assert chosen(study, "switch").point is None
    assert chosen(study, "switch", [jobs[2].name]).point == {"hybrid.learning_rate": 1e-4}
    assert chosen(study, "switch", [job.name for job in jobs]).point == {"hybrid.learning_rate": 1e-4}


FURTHER = STUDY.replace("grid: {", "further: {hybrid.learning_rate: 3}, grid: {")


@pytest.fixture
def going_on(tmp_path) -> Study:
    """A study whose grid goes on where its best value is at an edge."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "study.yaml").write_text(FURTHER)
    return Study(tmp_path / "study.yaml", tmp_path / "dir")


def tried(study: Study, arm: str, best: float, failed=()) -> list[float]:
    """The learning rates that tuning comes to, one after the other, of an arm that is best at one of them."""
    while True:
        left = [job for job in tuning_runs(study, arm, failed) if not study.is_done(job) and job.name not in failed]
        for job in left:
            apart = abs(np.log(job.point["hybrid.learning_rate"] / best))
            make_run(study, job, [row < N / (1 + apart) for row in range(N)])
        if not left:
            return [job.point["hybrid.learning_rate"] for job in tuning_runs(study, arm, failed)]


@pytest.mark.parametrize(
    ("best", "beyond", "picked", "edges"),
    [
        (3.0e-4, [], 3e-4, []),  # inside: the grid is enough
        (1.5e-3, [3.33333e-3], 1e-3, []),
        (1.0e-2, [3.33333e-3, 1.11111e-2, 3.70369e-2], 1.11111e-2, []),
        (1.0, [3.33333e-3, 1.11111e-2, 3.70369e-2], 3.70369e-2, ["hybrid.learning_rate"]),  # no more than three
        (3.0e-5, [3.33333e-5, 1.11111e-5], 3.33333e-5, []),
    ],
)
def test_a_grid_goes_on_until_its_best_value_is_inside(going_on, best, beyond, picked, edges):
    assert tried(going_on, "switch", best) == pytest.approx([1e-4, 3e-4, 1e-3, *beyond], rel=1e-5)
    found = chosen(going_on, "switch")
    assert found.point["hybrid.learning_rate"] == pytest.approx(picked, rel=1e-5)
    assert found.edges == edges
    assert [job.name for job in tuning_runs(going_on, "switch")][3:] == [
        f"tuning/switch-{4 + number}" for number in range(len(beyond))
    ]


def test_a_value_beyond_that_failed_or_that_no_recipe_takes_ends_the_grid(going_on, tmp_path):
    beyond = "tuning/switch-4"
    assert len(tried(going_on, "switch", 1.0, [beyond])) == 4
    found = chosen(going_on, "switch", [beyond])
    assert (found.point, found.edges) == ({"hybrid.learning_rate": 1e-3}, [])

    shares = "further: {hybrid.controller.sft_share: 2}, arms: {static: {hybrid.controller.sft_share: [0.4, 0.8]}}, "
    (tmp_path / "shares.yaml").write_text(STUDY.replace("grid: {", f"{shares}grid: {{"))
    study = Study(tmp_path / "shares.yaml", tmp_path / "shares")
    jobs = study.grid_of("static")
    for job in jobs:  # 0.8 is best, and 1.6 no share
        make_run(study, job, [row < N * job.point["hybrid.controller.sft_share"] for row in range(N)])
    assert tuning_runs(study, "static") == jobs
    assert "hybrid.controller.sft_share" in chosen(study, "static").edges


def test_a_grid_of_whole_numbers_goes_on_to_one_and_ends(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    grids = "further: {hybrid.max_skipped_steps: 4}, grid: {hybrid.max_skipped_steps: [2, 4]}"
    text = STUDY.replace("grid: {hybrid.learning_rate: [1.0e-4, 3.0e-4, 1.0e-3]}", grids)
    (tmp_path / "study.yaml").write_text(text)
    study = Study(tmp_path / "study.yaml", tmp_path / "dir")
    for _ in range(4):
        for job in tuning_runs(study, "switch"):
            if not study.is_done(job):
                make_run(study, job, [row < N / job.point["hybrid.max_skipped_steps"] for row in range(N)])
    assert [job.point["hybrid.max_skipped_steps"] for job in tuning_runs(study, "switch")] == [2, 4, 1]
    assert chosen(study, "switch").point == {"hybrid.max_skipped_steps": 1}


def test_a_run_that_failed_and_then_ends_well_leaves_the_runs_beyond_what_they_are(going_on):
    *others, last = going_on.grid_of("switch")
    for job, share in zip(others, (0.2, 0.1), strict=True):
        make_run(going_on, job, [row < share * N for row in range(N)])
    (below,) = tuning_runs(going_on, "switch", [last.name])[3:]
    make_run(going_on, below, [row < 0.15 * N for row in range(N)])
    assert chosen(going_on, "switch", [last.name]).point == {"hybrid.learning_rate": 1e-4}
    # The next start tries it again, and now it is the best
    make_run(going_on, last, [row < 0.3 * N for row in range(N)])
    (above,) = tuning_runs(going_on, "switch")[3:]
    assert (below.name, above.name) == ("tuning/switch-4", "tuning/switch-5")
    make_run(going_on, above, [row < 0.25 * N for row in range(N)])
    assert [job.name for job in tuning_runs(going_on, "switch")][3:] == [above.name]
    found = chosen(going_on, "switch")
    assert (found.point, found.changed) == ({"hybrid.learning_rate": 1e-3}, {})
    going_on.check_unchanged(tuning_runs(going_on, "switch"))


def test_several_keys_that_go_on_at_once_have_runs_of_their_own(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    keys = ("hybrid.learning_rate", "hybrid.max_grad_norm", "hybrid.weight_decay")
    grids = f"{{{keys[0]}: [1.0e-4, 3.0e-4], {keys[1]}: [0.5, 1.0], {keys[2]}: [0.1, 0.2]}}"
    text = STUDY.replace("grid: {hybrid.learning_rate: [1.0e-4, 3.0e-4, 1.0e-3]}",
                         f"further: {{{', '.join(f'{key}: 1' for key in keys)}}}, grid: {grids}")  # fmt: skip
    (tmp_path / "study.yaml").write_text(text)
    study = Study(tmp_path / "study.yaml", tmp_path / "dir")
    for number, job in enumerate(study.grid_of("switch")):
        make_run(study, job, [row < (100 if number else 120) for row in range(N)])
    beyond = tuning_runs(study, "switch")[8:]
    assert [job.name for job in beyond] == [f"tuning/switch-{number}" for number in (9, 10, 11)]
    make_run(study, beyond[1], [row < 90 for row in range(N)])  # the one that was not killed
    again = tuning_runs(study, "switch")[8:]
    assert [(job.name, job.point) for job in again] == [(job.name, job.point) for job in beyond]


def test_the_next_value_keeps_the_ratio_and_whole_numbers():
    assert next_value([1e-4, 2e-4, 6e-4], up=True) == pytest.approx(1.8e-3)
    assert next_value([1e-4, 2e-4, 6e-4], up=False) == pytest.approx(5e-5)
    assert next_value([3, 4], up=True) == 5
    assert isinstance(next_value([2, 4], up=False), int)


def test_a_queue_waits_for_what_tuning_comes_to(going_on):
    queue = Queue(going_on)
    assert [job.name for job in queue.wanted() if job.arm == "switch"] == [f"tuning/switch-{n}" for n in (1, 2, 3)]
    for job, share in zip(going_on.grid_of("switch"), (0.1, 0.2, 0.3), strict=True):
        make_run(going_on, job, [row < share * N for row in range(N)])
    assert [job.name for job in queue.wanted() if job.arm == "switch"][3:] == ["tuning/switch-4"]


def finish(study: Study, arms=RATES, seeds=(0, 1, 2)) -> None:
    for arm in arms:
        tune(study, arm, [0.4, 0.5, 0.3], [0.4, 0.5, 0.3])
        for seed in seeds:
            rng = np.random.default_rng([seed, len(arm)])
            make_run(study, study.final(arm, seed, {"hybrid.learning_rate": 3e-4}), list(rng.random(N) < RATES[arm]))


def test_the_judgement_the_table_and_the_page(study):
    finish(study)
    judged = judge(study)
    assert judged["reference"] == "switch"
    by_arm = {each["arm"]: each for each in judged["differences"]}
    assert by_arm["static"]["told_apart"]
    assert not by_arm["sft_only"]["told_apart"]
    assert by_arm["static"]["df"] == 4  # (3 arms - 1) (3 seeds - 1)
    arms = {arm["name"]: arm for arm in judged["arms"]}
    mean = np.mean([each["pass@1"] for each in arms["static"]["seeds"]])
    assert arms["static"]["pass@1"] == pytest.approx(mean)
    assert by_arm["static"]["difference"] == pytest.approx(mean - arms["switch"]["pass@1"])
    assert judged["best_two"]["reference"] == "static"
    assert judged["best_two"]["arm"] == "switch"
    assert [row[0] for row in tables.rows(judged)] == ["static", "switch", "sft_only"]
    assert arms["static"]["spent"]["seconds"] == 60.0
    said = " ".join(tables.verdicts(judged))
    assert "above switch: static +" in said
    assert "not to be told apart from switch: sft_only" in said

    write(study, judged)
    assert json.loads((study.folder / "study.json").read_text())["name"] == "study"
    table = (study.folder / "study.md").read_text()
    assert "| static |" in table
    assert "learning_rate 0.0003 |" in table  # not at an edge
    page = (study.folder / "study.html").read_text()
    Balanced().feed(page)
    assert page.count("<svg") >= 2 + 2 * 2  # two of intervals; over seconds and tokens, each arm beside the reference
    for word in ("static", "people", "tokens sampled", "chosen", "hybrid.controller.name"):
        assert word in page
    assert "src=" not in page


def test_another_reference_is_asked_for_on_the_command_line(study, capsys, monkeypatch):
    finish(study)
    monkeypatch.setenv("COLUMNS", "200")
    asked = ["study", str(study.path), "--dir", str(study.folder), "--json"]
    assert main(asked) == 0
    assert json.loads(capsys.readouterr().out)["reference"] == "switch"
    assert main([*asked, "--reference", "sft_only"]) == 0
    other = json.loads(capsys.readouterr().out)
    assert other["reference"] == "sft_only"
    assert {each["arm"] for each in other["differences"]} == {"switch", "static"}
    assert main([*asked, "--reference", "swich"]) == 2
    assert "did you mean" in capsys.readouterr().err


class Balanced(HTMLParser):
    """Fails where a tag is closed that was not open."""

    VOID = {"meta", "link", "br", "hr", "img", "input"}
    SVG = {"line", "rect", "circle", "path", "polyline", "polygon"}

    def __init__(self):
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_what_is_not_finished_is_shown_and_left_out_of_the_tests(study):
    finish(study, ["switch", "static"])
    finish(study, ["sft_only"], seeds=(0,))
    judged = judge(study, {"runs/sft_only-seed1": "out of memory"})
    arms = {arm["name"]: arm for arm in judged["arms"]}
    assert (arms["sft_only"]["state"], arms["sft_only"]["why"]) == ("failed", "out of memory")
    assert [each["arm"] for each in judged["differences"]] == ["static"]
    assert tables.rows(judged)[-1][1].startswith("failed, 1 of 3: ")
    assert "out of memory" in study_page(judged)


def test_nothing_yet_has_a_table_and_a_page_too(study):
    judged = judge(study)
    assert [arm["state"] for arm in judged["arms"]] == ["tuning"] * 3
    assert judged["differences"] == []
    assert "tuning, 0 of 3" in tables.markdown(judged)
    assert "Nothing yet" in study_page(judged)


def test_tuning_on_problems_that_are_judged_is_said(study):
    finish(study)
    assert not any("chosen by" in note for note in judge(study)["notes"])
    for job in (job for arm in study.arms for job in study.grid_of(arm)):
        object.__setattr__(job, "seed", 0)  # whose problems these are
        make_run(study, job, [job.point["hybrid.learning_rate"] == 3e-4] * N)
    assert any("200 of the 200 problems" in note for note in judge(study)["notes"])


def test_a_curve_is_the_mean_over_what_all_seeds_have_spent():
    one = [{"seconds": 0.0, "pass@1": 0.0}, {"seconds": 10.0, "pass@1": 1.0}]
    two = [{"seconds": 0.0, "pass@1": 0.2}, {"seconds": 5.0, "pass@1": 0.2}, {"seconds": 20.0, "pass@1": 0.8}]
    line = mean_curve("arm", [one, two], "seconds")
    assert line.points[0] == (0.0, pytest.approx(0.1))
    assert line.points[12] == (5.0, pytest.approx((0.5 + 0.2) / 2))  # the middle of 25 places up to 10
    assert line.points[-1] == (10.0, pytest.approx((1.0 + 0.4) / 2))
    assert line.band[-1] == (pytest.approx(0.4), pytest.approx(1.0))
    assert mean_curve("arm", [[{"seconds": 0.0, "pass@1": 0.3}]], "seconds") is None


def test_a_run_of_another_setting_is_not_the_arms(study):
    finish(study)
    make_run(study, study.grid_of("static")[-1], [True] * N)  # static's last point, made again, wins
    assert chosen(study, "static").point == {"hybrid.learning_rate": 1e-3}
    judged = judge(study)
    arms = {arm["name"]: arm for arm in judged["arms"]}
    assert arms["static"]["state"] == "changed"
    assert arms["static"]["seeds"] == []
    assert arms["static"]["changed"]["runs/static-seed0"] == ["hybrid.learning_rate: 0.0003 -> 0.001"]
    assert [each["arm"] for each in judged["differences"]] == ["sft_only"]
    assert any("runs/static-seed2" in note and "hybrid.learning_rate" in note for note in judged["notes"])
    assert tables.rows(judged)[-1][1] == "changed, 0 of 3"

    said = []
    queue = Queue(study, only=["static"], say=said.append)
    assert queue._ready() == []
    assert set(queue.failed) == {f"runs/static-seed{seed}" for seed in (0, 1, 2)}
    assert "hybrid.learning_rate: 0.0003 -> 0.001" in said[0]
    assert Queue(study, only=["switch"])._ready() == []


def test_what_was_forgotten_is_evaluated_again_when_its_model_or_its_recipe_changes(tmp_path):
    for name in ("recipe.yaml", "second.yaml"):
        (tmp_path / name).write_text(RECIPE)
    (tmp_path / "study.yaml").write_text(STUDY + "forgetting: {recipe: second.yaml}\n")
    study = Study(tmp_path / "study.yaml", tmp_path / "dir")
    tune(study, "switch", [0.4, 0.5, 0.3], [0.4, 0.5, 0.3])
    point = {"hybrid.learning_rate": 3e-4}
    final = study.final("switch", 0, point)
    job = study.forgetting(final)
    second = study.evaluation(job)
    second.begin()
    second.file.write_text('{"pass@1": 0.25}')
    assert not study.is_done(job)  # no run
    make_run(study, final, [True] * N)
    assert not study.is_done(job)  # of another one
    second.begin()
    assert not second.file.exists()
    second.file.write_text('{"pass@1": 0.25}')
    assert study.is_done(job)
    assert kept(study, "switch", point) == {0: {"after": 0.25, "before": None}}
    text = (tmp_path / "second.yaml").read_text()
    (tmp_path / "second.yaml").write_text(text + "evaluate: {threshold: 0.75}\n")
    changed = Study(tmp_path / "study.yaml", tmp_path / "dir")
    assert not changed.is_done(changed.forgetting(changed.final("switch", 0, point)))
    assert kept(changed, "switch", point) == {}
    state = json.loads(study.layout(final).state_file.read_text())
    state["done"]["final"]["finished"] = "later"
    study.layout(final).state_file.write_text(json.dumps(state))
    assert not study.is_done(job)


def test_a_changed_budget_leaves_nothing_that_counts(study, tmp_path):
    finish(study)
    (tmp_path / "study.yaml").write_text(STUDY.replace("seconds: 60", "seconds: 90"))
    judged = judge(Study(tmp_path / "study.yaml", study.folder))
    assert [arm["state"] for arm in judged["arms"]] == ["changed"] * 3
    assert judged["differences"] == []
    changed = judged["arms"][1]["changed"]
    assert changed["tuning/switch-1"] == ["hybrid.budget.seconds: 60.0 -> 90.0"]
