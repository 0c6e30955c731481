"""Pages to look at, made once: of a real run and of a hostile one; and a browser to look with."""

from __future__ import annotations

import pytest

from posttrain.cli import main
from posttrain.methods import PrefixRFT
from posttrain.report.report import write_report
from posttrain.storage import files
from tests.pipeline.runs import train, write_recipe
from tests.reading.method_runs import method_run
from tests.report.chromium import INSTALL, Chromium, found
from tests.report.runs import hostile_beside, hostile_run


@pytest.fixture(scope="session")
def real_run(tmp_path_factory):
    """A finished run of the tiny recipe, with sampled evaluations; the alarms are written by hand."""
    folder = write_recipe(tmp_path_factory.mktemp("real"))
    ended = train(folder, "evaluate.samples=2", "evaluate.k=[1,2]", "hybrid.steps=6", "hybrid.save_steps=6")
    assert ended.code == 0, ended.text
    alarm = {
        "step": 4,
        "kind": "dead_groups",
        "evidence": "7 of 8 groups",
        "advice": "more generations",
        "level": "problem",
    }
    files.append_line(folder / "run" / "alarms.jsonl", alarm)
    return folder / "run"


@pytest.fixture(scope="session")
def pages(real_run, tmp_path_factory):
    """The paths of the pages: report.html of "real" and "hostile"; "compare" of two hostile runs; "replay"; of a
    run with a method "method" and "replay_method".
    """
    folder = tmp_path_factory.mktemp("pages")
    hostile = [hostile_run(folder / f"<b>run & 'co'{number}", other=bool(number)) for number in range(2)]
    made = {name: folder / f"{name}.html" for name in ("compare", "replay")}
    compared = main(["compare", "--no-weights", *map(str, hostile), "--html", str(made["compare"])])
    replayed = main(["replay", str(real_run), "controller.gamma=2", "--out", str(made["replay"])])
    assert (compared, replayed) == (0, 0)
    begun = method_run(folder / "method", PrefixRFT())
    hostile_beside(begun)
    made["replay_method"] = folder / "replay_method.html"
    assert main(["replay", str(begun), "method.shortest=0.9", "--out", str(made["replay_method"])]) == 0
    return {"real": write_report(real_run), "hostile": write_report(hostile[0]), "method": write_report(begun), **made}


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """A headless Chromium; without one the test is skipped."""
    program = found()
    if program is None:
        pytest.skip(INSTALL)
    with Chromium(program, tmp_path_factory.mktemp("profile")) as browser:
        yield browser
