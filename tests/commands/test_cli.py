from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from posttrain import cli
from posttrain.commands.eval import _evaluation_lines
from posttrain.errors import ConfigError, DataError, Interrupted, TrainingError

RECIPE = "model: m\ntask: knights_knaves\n"


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "importtime", "-m", "posttrain", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


def messages(done: subprocess.CompletedProcess[str]) -> str:
    return "\n".join(line for line in done.stderr.splitlines() if not line.startswith("import time:"))


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--help"], 0, "usage: posttrain"),
        (["run", "--help"], 0, "--accept-changes"),
        (["run", "r.yaml", "hybrid.stpes=1"], 2, "command line: hybrid.stpes: unknown key 'stpes'"),
        (["run", "r.yaml", "hybrid.per_device_train_batch_size=3"], 2, "does not hold whole groups"),
        (["run", "absent.yaml"], 2, "absent.yaml does not exist"),
    ],
)
def test_quick_answers_need_no_torch(arguments: list[str], status: int, said: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == status
    assert said in done.stdout + messages(done)
    assert "Traceback" not in done.stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert not imported & {"torch", "transformers", "trl", "peft", "datasets", "accelerate"}


def test_help_takes_half_a_second_at_most(tmp_path: Path) -> None:
    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = spent()
    subprocess.run([sys.executable, "-m", "posttrain", "--help"], capture_output=True, cwd=tmp_path, check=True)
    assert spent() - before < 0.5  # of the processor: what else the machine does is not ours


def terminated() -> Interrupted:
    error = Interrupted("x")
    error.signal = signal.SIGTERM
    return error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("x"), 2),
        (DataError("x"), 2),
        (TrainingError("x"), 1),
        (KeyboardInterrupt(), 130),
        (Interrupted("x"), 130),
        (terminated(), 0),
    ],
)
def test_exit_status(
    error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: object) -> None:
        raise error

    monkeypatch.setattr("posttrain.commands.data._data", fail)
    arguments = ["data", "knights_knaves", "--people", "2", "--count", "1", "--out", "x"]
    assert cli.main(arguments) == status
    assert "Traceback" not in capsys.readouterr().err
    assert cli.main([*arguments, "--traceback"]) == status
    assert ("Traceback" in capsys.readouterr().err) == (status not in (0, 130))


def test_overrides_may_stand_among_the_flags() -> None:
    args = cli.parse(["run", "r.yaml", "a=1", "--resume", "b=2", "--accept-changes", "c=3"])
    assert args.overrides == ["a=1", "b=2", "c=3"]
    assert args.resume
    assert args.accept_changes
    args = cli.parse(["eval", "m", "--task", "knights_knaves", "task.eval=3", "--k", "1", "8"])
    assert (args.overrides, args.k) == (["task.eval=3"], ["1", "8"])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["run"],
        ["run", "r.yaml", "--resume", "--restart"],
        ["run", "r.yaml", "--hybrid.steps", "3"],
        ["data", "knights_knaves", "--people", "2", "--count", "1", "--out", "x", "stray"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.parse(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("posttrain ")


def test_data_writes_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.jsonl"
    arguments = ["data", "knights_knaves", "--people", "2-3", "--count", "6", "--out", str(out), "--seed", "1"]
    assert cli.main(arguments) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 6
    assert {row["people"] for row in rows} == {2, 3}
    assert all(row["prompt"] and "<answer>" in row["completion"] for row in rows)
    assert capsys.readouterr().out == f"wrote 6 rows to {out}\n"


@pytest.mark.parametrize(
    "task",
    [
        ["knights_knaves", "--people", "2"],
        ["json_structure", "--difficulty", "1"],
        ["table_structure", "--forms", "html", "latex", "--table-rows", "2", "--columns", "2-3"],
        ["countdown", "--numbers", "3", "--operators", "+", "-", "--largest", "20", "--target", "1", "60", "--use-all",
         "--prompt", "short", "--think-share", "0.5", "--tries", "1"],
    ],
)  # fmt: skip
def test_data_with_noise(task: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.jsonl"
    assert cli.main(["data", *task, "--count", "8", "--out", str(out), "--noise-share", "0.25"]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["noisy"] for row in rows].count(True) == 2
    assert capsys.readouterr().out == f"wrote 8 rows to {out}, 2 of them wrong on purpose\n"
    if task[0] == "countdown":
        assert all(row["use_all"] and row["target"] <= 60 and max(row["numbers"]) <= 20 for row in rows)
        assert sum("<think>" in row["completion"] for row in rows) == 4
        assert not any(sign in row["expression"] for row in rows for sign in "*/")


@pytest.mark.parametrize(
    ("changed", "status", "said"),
    [
        (["--people", "1-3"], 2, "numbers from 2 to 8"),
        (["--count", "0"], 2, "--count: 0"),
        (["--out", "."], 1, ".: cannot be written"),
    ],
)
def test_data_refuses(
    changed: list[str],
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["data", "knights_knaves", "--people", "2", "--count", "2", "--out", "x.jsonl", *changed]
    assert cli.main(arguments) == status
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task", "knights_knave"], "did you mean knights_knaves?"),
        (["--task", "knights_knaves", "task.peple=2"], "did you mean people?"),
        (["--task", "knights_knaves", "--k", "1", "8", "--samples", "4"], "pass@8 from 4 samples"),
        (["--task", "knights_knaves", "--k", "none"], "whole numbers above 0"),
        (["--task", "knights_knaves", "--batch-size", "0"], "--batch-size: 0"),
    ],
)
def test_eval_refuses_before_a_model_loads(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["eval", "no/model", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_evaluation_lines() -> None:
    by = {"people": {"2": {"n": 4, "pass@1": 0.75}}}
    record = {"n": 8, "pass@1": 0.5, "ci95": [0.25, 0.75], "pass@k": {"4": 0.9}, "by": by}
    assert _evaluation_lines(record) == [
        "pass@1 0.500  95% [0.250, 0.750]  on 8 problems, greedy",
        "pass@4 0.900  sampled",
        "  people 2: 0.750 of 4",
    ]


def test_overrides_may_stand_before_the_recipe() -> None:
    args = cli.parse(["run", "hybrid.steps=3", "r.yaml", "run.seed=1", "--resume"])
    assert (args.recipe, args.overrides) == ("r.yaml", ["hybrid.steps=3", "run.seed=1"])
    args = cli.parse(["plan", "a=1", "b=2"])
    assert (args.recipe, args.overrides) == ("a=1", ["b=2"]), "told as a file that is not there"


def test_data_are_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "puzzles.jsonl"
    command = ["data", "knights_knaves", "--people", "2", "--out", str(file), "--count"]
    assert cli.main([*command, "3"]) == 0
    before = file.read_bytes()
    assert cli.main([*command, "3"]) == 0
    assert "holds these 3 rows already" in capsys.readouterr().out
    assert cli.main([*command, "4"]) == 2
    assert "by --force" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert cli.main([*command, "4", "--force"]) == 0
    assert file.read_bytes() != before
