"""Finding completions: by step, reward, part and text, newest or best first, and one prompt's across a run."""

from __future__ import annotations

import io
import json

import pytest

from posttrain.cli import main
from posttrain.rundir import completions as records
from posttrain.rundir.facts import write_recipe
from posttrain.storage import files

HOSTILE = "\x1b[31mred [bold]loud[/bold] :smile: \x1b[0m \x9b2J \u202egnorw\u202c"


def rollout(step, index, **more):
    return {
        "step": step, "prompt": f"problem {step}.{index // 2}", "completion": f"answer {step}.{index} {HOSTILE}",
        "advantage": index - 1.5, "reward/right": index / 4, "reward/form": float("nan") if index == 3 else step / 100,
        "part/right.format": index / 10, "note": f"why {HOSTILE}", "truncated": index == 2,
        "length": 10 + index, **more,
    }  # fmt: skip


def evaluated(stage, row, good):
    return {
        "row": row, "sample": None, "prompt": f"held out {row}", "completion": f"{stage} says {row}", "passed": good,
        "score": float(good), "note": "", "error": None, "length": 5, "truncated": False,
    }  # fmt: skip


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    for step in (10, 20, 30, 40):
        rows = [rollout(step, index) for index in range(4)]
        if step == 30:
            rows[1] |= {"completion": "a needle\nin two lines", "part/right.extra": 0.5}
        records.write_completions(folder / f"completions/step-{step:06d}.parquet", rows)
    for stage, step in (("start", 0), ("warmup", 5), ("hybrid", 20), ("hybrid", 40), ("final", 40)):
        rows = [evaluated(f"{stage}{step}", row, row == 1 and stage != "start") for row in range(3)]
        records.write_completions(folder / f"completions/eval-{stage}-{step:06d}.parquet", rows)
    rewards = [{"name": "right", "weight": 2.0}, {"name": "form", "weight": 1.0}]
    write_recipe(folder / "recipe.yaml", {"hybrid": {"steps": 40}, "rewards": rewards})
    return folder


@pytest.fixture
def view(run, capsys):
    def call(*arguments):
        assert main(["view", str(run), "--jsonl", *arguments]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return call


def places(rows):
    return [(row["step"], row["index"]) for row in rows]


def test_newest_first_and_by_step(view):
    assert places(view("--limit", "5")) == [(40, 0), (40, 1), (40, 2), (40, 3), (30, 0)]
    assert {row["step"] for row in view("--from", "15", "--to", "30")} == {20, 30}
    [first, *_] = view("--step", "20")
    assert first["prompt"] == "problem 20.0"
    assert first["completion"].startswith("answer 20.0 \x1b[31m")
    assert (first["length"], first["truncated"], first["advantage"]) == (10, False, -1.5)


def test_by_reward_which_is_the_weighted_sum_of_those_that_apply(view):
    rows = view("--step", "20")
    assert [row["reward"] for row in rows] == pytest.approx([0.2, 0.7, 1.2, 1.5])  # 2 * right + form, if form applies
    assert places(view("--min-reward", "1.2", "--max-reward", "1.45")) == [(40, 2), (30, 2), (20, 2)]
    assert places(view("--best", "--limit", "5")) == [(40, 3), (30, 3), (20, 3), (10, 3), (40, 2)]
    assert places(view("--worst", "--limit", "3", "--min-reward", "0.15")) == [(20, 0), (30, 0), (40, 0)]


def test_by_part_by_reward_and_by_text(view, run, capsys):
    assert places(view("--part", "format>=0.2", "--step", "10")) == [(10, 2), (10, 3)]
    assert places(view("--part", "right.format=0.1", "--part", "right<1", "--to", "20")) == [(20, 1), (10, 1)]
    assert places(view("--part", "extra>0")) == [(30, 1)]  # only one file has it
    assert places(view("--text", r"needle\s+in")) == [(30, 1)]
    assert places(view("--text", "needle", "--worst")) == [(30, 1)]
    assert view("--text", "NEEDLE") == []
    for arguments, seen in [
        (["--text", "("], "is no regular expression"),
        (["--part", "format"], "format<0.5"),
        (["--part", "nothing>1"], "one of: form, right, right.extra, right.format"),
        (["--step", "33"], "such as 30, 40"),
        (["--eval", "other"], "start, warmup, hybrid, averaged, final"),
        (["--limit", "0"], "at least 1"),
        (["--step", "1", "--from", "1"], "one step, or a range"),
    ]:
        assert main(["view", str(run), *arguments]) == 2
        assert seen in capsys.readouterr().err


def test_the_last_evaluation_of_a_stage_or_one_by_its_step(view):
    assert [row["completion"] for row in view("--eval", "hybrid")] == [f"hybrid40 says {row}" for row in range(3)]
    [only] = view("--eval", "hybrid", "--step", "20", "--min-reward", "1")
    assert (only["stage"], only["row"], only["passed"]) == ("hybrid", 1, True)


def test_one_prompt_across_the_run(view, run, capsys):
    stages = [(row["stage"], row["step"]) for row in view("--prompt", "1")]
    assert stages == [("start", 0), ("warmup", 5), ("hybrid", 20), ("hybrid", 40), ("final", 40)]
    assert places(view("--prompt", "PROBLEM 30.1")) == [(30, 2), (30, 3)]
    assert places(view("--prompt", "problem 30.1", "--min-reward", "1.4")) == [(30, 3)]
    assert [row["stage"] for row in view("--prompt", "1", "--eval", "warmup")] == ["warmup"]
    assert main(["view", str(run), "--prompt", "problem 3"]) == 2
    said = capsys.readouterr().err
    assert "2 prompts hold 'problem 3':" in said
    assert "fix: give more of the prompt" in said
    assert main(["view", str(run), "--prompt", "problem"]) == 2
    said = capsys.readouterr().err
    assert "8 prompts hold 'problem', such as:" in said
    assert "\n    \N{HORIZONTAL ELLIPSIS}\n" in said
    assert main(["view", str(run), "--prompt", "7"]) == 2
    assert "0 to 2" in capsys.readouterr().err


@pytest.mark.parametrize("how", [[], ["--full"], ["--prompt", "problem 40.0"]], ids=["table", "full", "prompt"])
def test_what_a_model_wrote_is_shown_and_not_obeyed(run, capsys, how):
    records.write_completions(
        run / "completions/step-000040.parquet", [rollout(40, i, prompt=f"problem 40.0 {HOSTILE}") for i in (0, 1)]
    )
    assert main(["view", str(run), "--step", "40", *how]) == 0
    out = capsys.readouterr().out
    assert not set(out) & {"\x1b", "\x9b", "\u202e"}
    assert "<U+001B>[31mred" in out
    assert "[bold]loud[/bold]" in out
    assert ":smile:" in out


def test_a_terminal_gets_the_texts_in_the_room_there_is(run):
    from rich.console import Console

    from posttrain.reading.view import search
    from posttrain.reading.view_query import Query
    from posttrain.reading.view_shown import show
    from posttrain.rundir.reading import open_run

    console = Console(width=60, force_terminal=True, record=True, file=io.StringIO())
    show(search(open_run(run), Query(step=30)), console=console)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 60
    assert sum("…" in line for line in lines) >= 3
    assert any("a needle ⏎ in" in line for line in lines)


def test_only_as_many_files_are_opened_as_it_takes(run, monkeypatch):
    import pyarrow.parquet as pq

    from posttrain.reading.view import search
    from posttrain.reading.view_query import Query
    from posttrain.rundir.reading import open_run

    opened, read = [], pq.ParquetFile
    monkeypatch.setattr(pq, "ParquetFile", lambda path, **how: opened.append(path.name) or read(path, **how))
    found = search(open_run(run), Query(limit=3))
    assert opened == ["step-000040.parquet"]
    assert found.more
    assert (len(found.rows), found.looked_at, found.files) == (3, 1, 4)


def test_a_run_without_rollouts_says_why_and_what_there_is(run, capsys):
    for file in run.glob("completions/step-*"):
        file.unlink()
    assert main(["view", str(run)]) == 0
    assert "no rollouts are recorded, for no GRPO step is; there are evaluations" in " ".join(
        capsys.readouterr().out.split()
    )
    files.append_line(run / "steps.jsonl", {"stage": "hybrid", "step": 1, "mix": {"sft": 0.0, "grpo": 1.0}})
    assert main(["view", str(run)]) == 0
    assert "run.save_completions_every" in capsys.readouterr().out
    assert main(["view", str(run / "completions")]) == 2
    assert "is no run" in capsys.readouterr().err
    (run / "completions/step-000050.parquet").write_bytes(b"torn")
    assert main(["view", str(run)]) == 1
    assert "step-000050.parquet: cannot be read" in capsys.readouterr().err
    assert main(["view", str(run), "--prompt", "1", "--eval", "start"]) == 0


def test_a_conversation_is_a_prompt_and_an_empty_file_is_no_error(run, capsys):
    talk = [{"role": "user", "content": "say hello"}]
    records.write_completions(run / "completions/step-000050.parquet", [rollout(50, 0, prompt=talk, note=None)])
    records.write_completions(run / "completions/step-000060.parquet", [])
    assert main(["view", str(run), "--jsonl", "--prompt", "say hello"]) == 0
    [row] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert row["step"] == 50
    assert json.loads(row["prompt"]) == talk
    assert main(["view", str(run), "--worst", "--limit", "1"]) == 0
    assert main(["view", str(run), "--step", "50", "--full"]) == 0
    said = capsys.readouterr().out
    assert "user: say hello\n" in said
    assert "step 50, reward 0.5, advantage -1.500" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--from", "50"],
            "--from: no completions of steps from 50 on are recorded\n  expected: steps that are, such as 40,",
        ),
        (
            ["--to", "9"],
            "--to: no completions of steps up to 9 are recorded\n  expected: steps that are, such as 10, 20",
        ),
        (["--from", "21", "--to", "29"], "no completions of steps 21 to 29 are recorded"),
        (["--prompt", "problem 30.1", "--from", "50"], "no completions of steps from 50 on are recorded"),
        (["--step", "11"], "no completions of step 11 are recorded\n  expected: one of those that are, such as 10, 20"),
        (
            ["--eval", "hybrid", "--from", "41"],
            "steps from 41 on are recorded\n  expected: steps that are, such as 40, 20",
        ),
        (
            ["--from", "30", "--to", "20"],
            "--from 30 is above --to 20\n  expected: the earlier step first\n  fix: --from 20 --to 30",
        ),
        (["--eval", "final", "--part", "format<1"], "evaluations record no parts"),
        (["--part", "formt<1"], "fix: did you mean format?"),
        (["--eval", "end"], "expected: one of start"),
        (["--part", "format"], "--part: 'format'"),
        (["--prompt", "9"], "there is no problem 9"),
        (["--prompt", "nobody"], "no prompt holds 'nobody'"),
        (["--limit", "0"], "--limit: 0"),
        (["--step", "1", "--to", "2"], "--step with"),
        (["--prompt", "1", "--best"], "--prompt with"),
    ],
)
def test_what_cannot_be_shown_is_said_with_what_to_do(run, capsys, arguments, said):
    assert main(["view", str(run), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "\n  fix: " in error
