"""A change is called clear by the exact test of the flips: with few of them the bootstrap interval is too narrow."""

from __future__ import annotations

import pytest

from posttrain.reading.compare import compare
from posttrain.report.compare_page import compare_page
from posttrain.report.report import write_report
from posttrain.report.tables import before_after
from posttrain.rundir import completions as records
from posttrain.rundir import reading as run_reading
from posttrain.rundir.layout import Layout
from posttrain.rundir.rundir import RunDir
from tests.report.test_report import Page


def evaluated(folder, wins: int, stages=("warmup", "final")) -> RunDir:
    """A run on 100 problems, 40 of them right at first, that turned `wins` more of them right."""
    with RunDir.open(folder, {}, {}) as run:
        for step, stage in enumerate(stages, 1):
            right = 40 + (wins if stage == "final" else 0)
            rows = [{"row": row, "sample": None, "prompt": f"p{row}", "passed": row < right} for row in range(100)]
            run.evaluation({"stage": stage, "step": step, "n": 100, "pass@1": right / 100, "ci95": [0.3, 0.5]}, rows)
    return run


def text_of(html: str) -> str:
    return " ".join(Page(html).text.split())


@pytest.mark.parametrize(("wins", "clear"), [(4, False), (6, True)])
def test_the_report_goes_by_the_flips(tmp_path, wins, clear):
    run = evaluated(tmp_path / "run", wins)
    change = before_after(run, run_reading.evals(run))[-1]["changes"]["warmup"]
    assert change["lo"] > 0, "the interval excludes 0 in both"
    html = write_report(run.path).read_text(encoding="utf-8")
    assert ('class="up">+' in html) == clear
    assert ("no clear change" in text_of(html)) == (not clear)
    assert f"McNemar p {2 / 2**wins:.2g}" in text_of(html)
    assert f"+{100 * change['lo']:.1f} to +{100 * change['hi']:.1f}" in text_of(html)


def page_of(*folders) -> str:
    compared = compare(folders)
    return compare_page(compared | {"runs": [run | {"weights": {}} for run in compared["runs"]]})


def test_the_compare_page_goes_by_the_flips_and_by_how_many_runs_there_are(tmp_path):
    folders = [evaluated(tmp_path / f"plus{wins}", wins).path for wins in (0, 4, 6)]
    few, more = (page_of(folders[0], folder) for folder in folders[1:])
    assert 'class="up">+' not in few
    assert "+1.0 to +8.0 over 100 problems; p 0.12, no clear change" in text_of(few)
    assert '<strong class="up">+6.0 points' in more
    assert "no clear change" not in text_of(more)
    again = [evaluated(tmp_path / f"again{n}", 6).path for n in range(2)]
    three = page_of(folders[0], folders[2], *again)  # 3 * 0.031 is above 0.05
    assert 'class="up">+' not in three
    assert text_of(three).count("no clear change") == 3


def test_an_evaluation_whose_file_has_no_rows_gives_no_results(tmp_path):
    run = evaluated(tmp_path / "run", 4)
    file = run.eval_completions_file("final", 2)
    for rows in ([], [{"something": 1}]):
        records.write_completions(file, rows)
        for columns in (None, ["passed"]):
            assert run_reading.eval_results(Layout(run.path), "final", columns) == {}
