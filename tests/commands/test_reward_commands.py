"""`posttrain rewards list` and `posttrain rewards score`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from posttrain import cli
from posttrain.commands.rewards.score import parse_kwargs, reward_config

REWARD = '''
import time

from posttrain import Score


def score(completion, *, answer, tolerance=0, **row):
    """1 for the answer.

    What follows is not shown.
    """
    if answer is None:
        return None
    if completion == "raise":
        raise ValueError("cannot judge this")
    if completion == "hang":
        time.sleep(60)
    right = abs(len(completion) - len(answer)) <= tolerance
    return Score(right, parts={"length": len(completion)}, note="" if right else f"not {len(answer)} long")


def never(completion):
    raise KeyError("always")


def batch(completions, answer, **columns):
    return [3.0 * (a == b) for a, b in zip(completions, answer)]
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(REWARD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, *rows: object) -> None:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def score(*arguments: str) -> int:
    return cli.main(["rewards", "score", *arguments])


def records(text: str) -> list[dict]:
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in text.splitlines()]


# ---- list ----


def test_list_shows_what_a_recipe_can_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rewards", "list"]) == 0
    blocks = dict(block.split("\n", 1) for block in capsys.readouterr().out.strip().split("\n\n"))
    assert {"format", "json_structure", "knights_knaves", "math_answer"} <= set(blocks)
    assert "columns: names, solution" in blocks["knights_knaves"]
    assert "options: require_think=True, think_in_prompt=False" in blocks["format"]
    assert "posttrain.rewards.format:score" in blocks["format"]
    assert "otherwise 0." in blocks["format"]

    assert cli.main(["rewards", "list", "--json"]) == 0
    listed = {record["name"]: record for record in json.loads(capsys.readouterr().out)}
    assert listed["format"]["options"] == {"require_think": True, "think_in_prompt": False}
    assert listed["format"]["from"].startswith("posttrain ")
    assert listed["knights_knaves"]["error"] is None


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import not_there_at_all", "not_there_at_all"),
        ("raise SystemExit('no licence')", "no licence"),
        ("def score(text): return 0", "arguments (text)"),
        ("score = 3", "3"),
    ],
)
def test_a_reward_that_cannot_be_imported_is_listed_with_the_reason(source: str, said: str, folder: Path) -> None:
    """In a fresh process, since entry points are those of the installed packages on its path."""
    info = folder / "broken-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[posttrain.rewards]\nbroken = broken_reward:score\n")
    (folder / "broken_reward.py").write_text(source + "\n")
    command = [sys.executable, "-m", "posttrain", "rewards", "list"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    blocks = dict(block.split("\n", 1) for block in done.stdout.strip().split("\n\n"))
    assert "cannot be used: " in blocks["broken"]
    assert said in blocks["broken"]
    assert "from: broken 1.2, broken_reward:score" in blocks["broken"]
    assert "columns: names, solution" in blocks["knights_knaves"]


# ---- score ----


@pytest.mark.parametrize(
    ("text", "name", "path", "imported"),
    [
        ("math_answer", "math_answer", None, None),
        ("mine.py", None, "mine.py", None),
        ("mine.py:near", None, "mine.py:near", None),
        ("../here/mine:near", None, "../here/mine:near", None),
        ("package.module", None, None, "package.module"),
        ("module:near", None, None, "module:near"),
    ],
)
def test_what_a_reward_is_named_by(text: str, name: str | None, path: str | None, imported: str | None) -> None:
    config = reward_config(text, {"a": 1})
    assert (config.name, config.path, config.import_, config.kwargs) == (name, path, imported, {"a": 1})


def test_kwargs_as_pairs_or_as_an_object() -> None:
    assert parse_kwargs(["a=1e-6", "b=true", "c=[1, 2]", "d=x=y"]) == {"a": 1e-6, "b": True, "c": [1, 2], "d": "x=y"}
    assert parse_kwargs(['{"a": 1, "b": {"c": null}}']) == {"a": 1, "b": {"c": None}}
    assert parse_kwargs([]) == {}


def test_rows_come_back_in_order_with_what_the_reward_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        folder / "rows.jsonl",
        {"completion": "abc", "answer": "xyz", "id": 1, "score": "old", "error": "old"},
        {"completion": "ab", "answer": "wxyz", "emoji": "\u00e9\U0001f600"},
        "",
        {"completion": "ab", "answer": None, "half": "\ud83d"},
        {"completion": "raise", "answer": "x"},
        {"completion": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "abcd"}], "answer": "wxyz"},
    )
    assert score("--reward", "./mine.py", "--input", "rows.jsonl", "--workers", "0") == 0
    out, err = capsys.readouterr()
    assert records(out) == [
        {"completion": "abc", "answer": "xyz", "id": 1, "score": 1.0, "parts": {"length": 3.0}, "note": ""},
        {"completion": "ab", "answer": "wxyz", "emoji": "\u00e9\U0001f600", "score": 0.0, "parts": {"length": 2.0}}
        | {"note": "not 4 long"},
        {"completion": "ab", "answer": None, "half": "\ud83d", "score": None, "parts": {}, "note": ""},
        {"completion": "raise", "answer": "x", "score": None, "parts": {}, "note": ""}
        | {"error": "ValueError: cannot judge this"},
        json.loads((folder / "rows.jsonl").read_text().splitlines()[-1])
        | {"score": 1.0, "parts": {"length": 4.0}, "note": ""},
    ]
    assert "\u00e9\U0001f600" in out  # as text where it can be, as an escape where only that can carry it
    assert "5 completions" in err
    assert "1 None, 1 failed" in err
    assert "mean 0.6667, 1.0: 2 (66.67 %), 0: 1 (33.33 %)" in err
    assert "1x ValueError: cannot judge this" in err


def test_kwargs_another_column_and_an_import_path(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "rows.jsonl", {"text": "abcd", "answer": "abc"}, {"text": "a", "answer": "abc"})
    (folder / "imported_reward.py").write_text(REWARD)
    common = ["--input", "rows.jsonl", "--completion-column", "text", "--workers", "0"]
    assert score("--reward", "imported_reward:score", *common, "--kwargs", "tolerance=1") == 0
    assert [row["score"] for row in records(capsys.readouterr().out)] == [1.0, 0.0]
    assert score("--reward", "mine.py:batch", *common) == 0
    assert [row["score"] for row in records(capsys.readouterr().out)] == [0.0, 0.0]


def test_parquet_and_json_lists_are_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"completion": "abc", "answer": "xyz"}, {"completion": "", "answer": "x"}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    (folder / "rows.json").write_text(json.dumps(rows))
    for name in ("rows.parquet", "rows.json"):
        assert score("--reward", "mine.py", "--input", name, "--workers", "0") == 0
        assert [row["score"] for row in records(capsys.readouterr().out)] == [1.0, 0.0]


def test_a_completion_that_hangs_costs_only_itself(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "rows.jsonl", *({"completion": text, "answer": "a"} for text in ("b", "hang", "cc")))
    arguments = ["--reward", "mine.py", "--input", "rows.jsonl", "--output", "out/scored.jsonl"]
    assert score(*arguments, "--workers", "1", "--time-limit", "0.5") == 0
    rows = records((folder / "out/scored.jsonl").read_text())
    assert [row["score"] for row in rows] == [1.0, None, 0.0]
    assert "0.5 s" in rows[1]["error"]
    assert [path.name for path in (folder / "out").iterdir()] == ["scored.jsonl"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("{oops", "rows.jsonl:2: not JSON"),
        (b"\xff".decode("latin-1"), "rows.jsonl:2: not JSON"),
        ("[1]", "rows.jsonl:2: a list"),
        ('{"answer": "x"}', "rows.jsonl:2: no 'completion' among 'answer'"),
        ('{"completion": "x"}', "rows.jsonl:2: the reward's column 'answer' is missing among 'completion'"),
        ('{"completion": 3, "answer": "x"}', "rows.jsonl:2: completion is 3"),
        ("[" * 100_000, "rows.jsonl:2: not JSON"),
    ],
)
def test_a_bad_line_is_found_before_anything_is_scored(
    bad: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "rows.jsonl", {"completion": "a", "answer": "b"}, bad)
    assert score("--reward", "mine.py", "--input", "rows.jsonl", "--output", "out.jsonl", "--workers", "0") == 2
    out, err = capsys.readouterr()
    assert said in err
    assert "expected: " in err
    assert out == ""
    assert not list(folder.glob("out*"))


def test_all_bad_lines_are_counted_and_the_first_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "rows.jsonl", *["{}"] * 7, {"completion": "a", "answer": "b"})
    assert score("--reward", "mine.py", "--input", "rows.jsonl") == 2
    err = capsys.readouterr().err
    assert "rows.jsonl: 7 of 8 rows cannot be scored" in err
    assert "rows.jsonl:5: " in err
    assert "rows.jsonl:6: " not in err
    assert "and 2 more" in err


def test_standard_input_is_scored_up_to_a_bad_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = json.dumps({"completion": "a", "answer": "b"}).encode() + b"\n"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(good * 40 + b"oops\n" + good)))
    arguments = ["--reward", "mine.py", "--input", "-", "--workers", "0", "--output", "out.jsonl"]
    assert score(*arguments) == 2
    err = capsys.readouterr().err
    assert "standard input:41: not JSON" in err
    assert "the rows scored so far are in out.jsonl.partial" in err
    assert len(records((folder / "out.jsonl.partial").read_text())) == 40
    assert not (folder / "out.jsonl").exists()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(good * 3)))
    assert score(*arguments) == 0
    assert len(records((folder / "out.jsonl").read_text())) == 3
    assert not (folder / "out.jsonl.partial").exists()


def test_a_reader_that_has_read_enough_is_no_error(folder: Path) -> None:
    write(folder / "rows.jsonl", *[{"completion": "a" * 1000, "answer": "b"}] * 2000)
    command = f"{sys.executable} -m posttrain rewards score --reward mine.py --input rows.jsonl --workers 0 | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1
    assert "Error" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--reward", "math_anser"], 2, "nearest: 'math_answer'"),
        (["--reward", "absent.py"], 2, "--reward absent.py: no file"),
        (["--reward", "absent.module"], 2, "--reward absent.module: loading absent.module raised"),
        (["--reward", "mine.py:scor"], 2, "nearest: 'score'"),
        (["--reward", ""], 2, "--reward: nothing"),
        (["--reward", "mine.py", "--kwargs", "tolerence=1", "--input", "rows.jsonl"], 0, "2 completions"),
        (["--reward", "mine.py:never", "--kwargs", "tolerence=1"], 2, "no argument 'tolerence'"),
        (["--reward", "mine.py", "--kwargs", "tolerance"], 2, "expected: KEY=VALUE"),
        (["--reward", "mine.py", "--kwargs", "{oops"], 2, "not valid YAML"),
        (["--reward", "mine.py", "--workers", "-1"], 2, "--workers: -1"),
        (["--reward", "mine.py", "--time-limit", "0"], 2, "--time-limit: 0"),
        (["--reward", "mine.py", "--input", "row.jsonl"], 2, "did you mean rows.jsonl or empty.jsonl?"),
        (["--reward", "mine.py", "--input", "empty.jsonl"], 2, "empty.jsonl: no rows"),
        (["--reward", "mine.py", "--input", "mine.json"], 2, "mine.json: a dict"),
        (["--reward", "mine.py", "--input", "broken.parquet"], 2, "broken.parquet: unreadable"),
        (["--reward", "mine.py:never", "--workers", "0"], 1, "none of 2 completions could be scored"),
        (["--reward", "mine.py", "--output", "rows.jsonl/out", "--workers", "0"], 1, "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str], status: int, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "rows.jsonl", *[{"completion": "a", "answer": "b"}] * 2)
    (folder / "empty.jsonl").write_text("\n")
    (folder / "mine.json").write_text("{}")
    (folder / "broken.parquet").write_text("PAR1")
    given = arguments if "--input" in arguments else [*arguments, "--input", "rows.jsonl"]
    assert score(*given) == status
    assert said in capsys.readouterr().err


def test_a_traceback_on_request(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["rewards", "score", "--traceback"], ["rewards", "--traceback", "score"]):
        assert cli.main([*arguments, "--reward", "absent", "--input", "-"]) == 2
        assert "Traceback" in capsys.readouterr().err


def test_rewards_commands_need_no_torch(folder: Path) -> None:
    write(folder / "rows.jsonl", {"completion": "a", "answer": "b"})
    code = (
        "import sys; from posttrain.cli import main\n"
        "main(['rewards', 'list'])\n"
        "main(['rewards', 'score', '--reward', 'mine.py', '--input', 'rows.jsonl', '--workers', '0'])\n"
        "import posttrain.commands.rewards.check\n"
        "print([m for m in ('torch', 'transformers', 'trl', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
