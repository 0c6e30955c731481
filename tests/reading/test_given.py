"""What of a completion was given: on a terminal, as JSON, and by hand."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from posttrain.cli import main
from posttrain.reading.given import given_and_sampled, newest_group, source_in_words
from posttrain.reading.view import search
from posttrain.reading.view_query import Query
from posttrain.reading.view_shown import show
from posttrain.rundir import completions as records
from posttrain.rundir.reading import open_run
from tests.reading.test_view import HOSTILE

GIVEN = {"source": "rollout", "grpo_advantage": 0.0, "begun_tokens": 0, "begun_characters": 0, "credit": None}


def row(completion, prompt="problem", **more):
    return {
        "step": 4, "prompt": prompt, "completion": completion, "advantage": 0.5, "reward/right": 1.0, "note": "",
        "truncated": False, "length": 9, **GIVEN, **more,
    }  # fmt: skip


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    rows = [
        row("plain", "another"),
        row(f"alone {HOSTILE}"),
        row(
            f"given{HOSTILE}went on", source="begun", begun_tokens=3, begun_characters=len(f"given{HOSTILE}"),
            credit=0.25, grpo_advantage=-1.0,
        ),
        row("the answer", source="demonstration", begun_tokens=9, begun_characters=10, credit=0.7, advantage=None),
        row("after", "last"),
    ]  # fmt: skip
    records.write_completions(folder / "completions/step-000004.parquet", rows)
    return folder


def said(run, *, full=False, **query):
    out = io.StringIO()
    show(search(open_run(run), Query(**query)), full=full, console=Console(file=out, width=160))
    return out.getvalue()


def test_the_two_parts_of_a_completion_by_hand():
    assert given_and_sampled({"completion": "abcd", "begun_characters": 3}) == ("abc", "d")
    assert given_and_sampled({"completion": "abcd"}) == ("", "abcd")
    said = json.dumps([{"role": "assistant", "content": "abcd"}])
    assert given_and_sampled({"completion": said, "begun_characters": 1}) == ("a", "bcd")
    assert given_and_sampled({"completion": "[{not json", "begun_characters": 2}) == ("[{", "not json")
    assert source_in_words({"source": "begun", "begun_tokens": 2, "length": 7, "credit": 0.0}) == (
        "begun with 2 of 7 tokens"
    )
    assert source_in_words({"source": "demonstration", "credit": -0.5}) == "demonstration, credit -0.5"
    assert source_in_words({"source": "rollout"}) == source_in_words({}) == ""


def test_a_terminal_sets_the_beginning_apart_and_names_the_demonstration(run):
    told = said(run, full=True)
    assert "advantage +0.500, -1.000 in GRPO, begun with 3 of 9 tokens, credit +0.25, 9 tokens" in told
    beginning, rest = told.split("the demonstration's beginning\n")[1].split("\nwent on with\n")
    assert beginning.startswith("given")
    assert rest.startswith("went on\n")
    assert "demonstration, credit +0.7" in told
    assert "the demonstration, trained on whole\nthe answer" in told
    assert "\x1b" not in told
    assert "[bold]" in told  # as text
    table = said(run)
    assert [word for word in table.split("─")[0].split() if word in ("credit", "given", "adv")] == [
        "adv", "credit", "given",
    ]  # fmt: skip
    assert "all" in table
    assert "\x1b" not in table


def test_the_best_are_what_was_sampled(run, capsys):
    assert main(["view", str(run), "--best", "--jsonl"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["source"] for each in found] == ["rollout", "rollout", "begun", "rollout"]
    assert main(["view", str(run), "--jsonl"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found[2] | {"begun_tokens": 3, "credit": 0.25, "grpo_advantage": -1.0} == found[2]
    assert found[3]["source"] == "demonstration"


def test_the_newest_group_that_tells_something(run):
    rows = newest_group(open_run(run), [])
    assert [each["source"] for each in rows] == ["rollout", "begun", "demonstration"]
    records.write_completions(run / "completions/step-000009.parquet", [row("x"), row("y")])
    assert newest_group(open_run(run), []) == rows
    without = {name: value for name, value in row("z").items() if name not in GIVEN}
    records.write_completions(run / "completions/step-000010.parquet", [without])
    assert newest_group(open_run(run), []) == []


@pytest.mark.parametrize("name", ["hpt", "uft", "prefix_rft"])
def test_real_runs_show_their_beginnings_and_demonstrations(run_of, name):
    told = said(run_of(name), full=True, limit=100)
    assert ("the demonstration, trained on whole" in told) == (name == "hpt")
    assert ("the demonstration's beginning" in told) == (name != "hpt")
    rows = newest_group(open_run(run_of(name)), [])
    assert {each["source"] for each in rows} > {"rollout"} or all(each["source"] == "begun" for each in rows)


def test_rows_without_a_method_are_as_they_were(tmp_path, capsys):
    plain = {name: value for name, value in row("x").items() if name not in GIVEN}
    records.write_completions(tmp_path / "run/completions/step-000001.parquet", [plain])
    assert main(["view", str(tmp_path / "run"), "--jsonl"]) == 0
    assert "source" not in json.loads(capsys.readouterr().out)
