"""`posttrain run` before it trains: mistakes cost a second, something is said at once, and Ctrl-C ends it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from posttrain.rundir.rundir import RunDir

TASK = "task: {name: math, path: rows.jsonl, train: 3, eval: 2, demonstrations: 3}\n"
MODEL = "model: {init: {hidden_size: 32, layers: 2, heads: 2, vocab_size: 300, max_position_embeddings: 160}}\n"
RUN = "rollout: {engine: transformers}\nrun: {device: cpu, dir: out}\n"
GRPO = (
    "warmup: {steps: 0}\nhybrid: {controller: grpo_only, steps: 1, warmup_steps: 0, grpo: {max_completion_length: 8}}\n"
)
RECIPE = MODEL + TASK + RUN + GRPO
START = """
from posttrain.__main__ import main, while_starting
while_starting()
print("go", flush=True)
main()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"question": f"{n} + 1?", "answer": str(n + 1), "solution": f"\\boxed{{{n + 1}}}"} for n in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "broken.py").write_text("def score(completion, **row):\n    return (\n")
    (tmp_path / "wants.py").write_text("def score(completion, *, unit):\n    return 0.0\n")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("")
    (tmp_path / "r.yaml").write_text(RECIPE)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["task.path=absent.jsonl"], "absent.jsonl"),
        (["task.train=90"], "task.train"),
        (["model=./absent-model"], "there is no folder './absent-model'"),
        (["model=absent.gguf"], "there is no file absent.gguf"),
        (["run.dir=notes.txt"], "the run directory cannot be written"),
        (["run.dir=foreign"], "the folder has no recipe.yaml but other files, thesis.tex among them"),
        (["run.report_to=[comet_ml]"], "comet_ml is named, and comet_ml is not installed here"),
        (["--resume"], "there is no run to resume"),
        (["rewards=[{path: broken.py}]"], "broken.py"),
        (["rewards=[{path: wants.py}]"], "the data has no column 'unit'"),
        (["rewards=[{name: math_anwser}]"], "math_answer"),
        (["evaluate.reward={path: absent.py}"], "absent.py"),
    ],
)
def test_mistakes_are_found_before_torch_is_loaded(arguments: list[str], said: str, folder: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "posttrain", "run", "r.yaml", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    shown = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode in (1, 2), shown
    assert said in "\n".join(shown)
    assert "reading r.yaml" in shown[0], "something is said before anything is done"
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert not imported & {"torch", "transformers", "trl", "datasets"}
    assert not (folder / "out").exists()


def test_another_recipe_s_run_is_refused_before_torch_is_loaded_unless_it_has_taken_no_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from posttrain.recipe.recipe import load_recipe
    from posttrain.rundir.looking import check_directory

    monkeypatch.chdir(folder)
    before, now = load_recipe("r.yaml"), load_recipe("r.yaml", ["hybrid.learning_rate=1e-3"])
    how = {"restart": False, "accept_changes": False, "starting": True}
    with RunDir.open("out", before.resolved(), {}) as run:
        pass
    check_directory(run.path, now, resume=False, **how)
    with pytest.raises(Exception, match="started differently"):
        check_directory(run.path, now, resume=True, **how)
    run.steps_file.write_text('{"stage": "hybrid", "step": 1}\n')
    with pytest.raises(Exception, match="started differently"):
        check_directory(run.path, now, resume=False, **how)


@pytest.mark.slow
@pytest.mark.parametrize("after", ["", "reading", "loading rows", "loading torch"])
def test_ctrl_c_ends_a_start_wherever_it_is(after: str, folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", START, "run", "r.yaml"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    lines: list[str] = []
    while after and not any(after in line for line in lines):
        lines.append(process.stdout.readline())
        assert lines[-1], lines
    process.send_signal(signal.SIGINT)
    said = process.stdout.read()
    assert process.wait() == 130, said
    assert said.splitlines()[-1] == "interrupted"
    assert "Traceback" not in said
    assert not (folder / "out").exists()
