"""Reading a run's directory: what `explain`, `replay`, `view`, `compare`, `export` and the report look at.

Everything here only reads, works on a run that is still going on, and gives nothing where the run has nothing yet.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from posttrain.errors import ConfigError
from posttrain.nearest import nearest
from posttrain.rundir import completions as records
from posttrain.rundir.facts import read_environment, read_recipe, read_whole
from posttrain.rundir.layout import STAGES, Layout
from posttrain.storage import files

Lines = list[dict[str, Any]]
Key = tuple[int, str]
"""What a held-out problem is known by: its row and its prompt (as text; a conversation as JSON)."""


def open_run(path: str | Path) -> Layout:
    """The layout of the run in a directory.

    A trainer used as a library leaves steps.jsonl and completions/ and no recipe.yaml; that is a run, too.

    Raises:
        ConfigError: There is no such directory, or it is no run's.
    """
    layout = Layout(Path(path))
    expected = "the directory of a run, with its recipe.yaml and steps.jsonl"
    if not layout.path.is_dir():
        seen = "is a file" if layout.path.exists() else "does not exist"
        raise ConfigError(
            f"{seen}", expected=expected, where=str(path), fix=_runs_within(layout.path.parent, layout.path.name)
        )
    if not any(each.exists() for each in (layout.recipe_file, layout.steps_file, layout.completions_folder)):
        raise ConfigError("is no run", expected=expected, where=str(path), fix=_runs_within(layout.path))
    return layout


def _runs_within(folder: Path, name: str = "") -> str | None:
    # A folder with a recipe.yaml alone is where somebody keeps a recipe
    kept = [path for name in ("steps.jsonl", "environment.json") for path in folder.glob(f"*/{name}")]
    found = sorted({path.parent.name for path in kept})
    chosen = (nearest(name, found) or found)[:3]
    return f"did you mean {' or '.join(str(folder / each) for each in chosen)}?" if chosen else None


def steps(layout: Layout, stage: str | None = None) -> Lines:
    """The lines of steps.jsonl in their order, of one stage ("warmup" or "hybrid") or of both.

    Raises:
        DataError: A line in the middle of the file is broken.
    """
    return [line for line in files.read_lines(layout.steps_file) if stage is None or line.get("stage") == stage]


def evals(layout: Layout) -> Lines:
    """The lines of eval.jsonl in their order.

    Raises:
        DataError: A line in the middle of the file is broken.
    """
    return files.read_lines(layout.eval_file)


def last_evals(lines: Lines) -> dict[str, dict[str, Any]]:
    """The last evaluation of each stage, in the order of the stages."""
    last = {line["stage"]: line for line in lines if line.get("stage") in STAGES}
    return {stage: last[stage] for stage in STAGES if stage in last}


def done_stages(layout: Layout) -> dict[str, dict[str, Any]]:
    """The stages that are done, each with what it left: "warmup", "hybrid" and, when all is, "final".

    Raises:
        CheckpointError: The file cannot be read.
    """
    return read_whole(layout.state_file, json.loads)["done"] if layout.state_file.exists() else {}


def recipe(layout: Layout) -> dict[str, Any]:
    """The run's recipe as resolved, in plain values.

    Raises:
        ConfigError: The run has none, as a trainer used as a library leaves none.
        CheckpointError: It cannot be read.
    """
    if not layout.recipe_file.exists():
        raise ConfigError("there is no recipe.yaml", expected="a run of `posttrain run`", where=str(layout.path))
    return read_recipe(layout.recipe_file)


def environment(layout: Layout) -> dict[str, Any]:
    """The run's environment.json; empty where there is none.

    Raises:
        CheckpointError: It cannot be read.
    """
    return read_environment(layout.environment_file)


def leaks_of(layout: Layout, fingerprint: str | None = None) -> dict[str, Any] | None:
    """What a run found of its held-out rows in what it trains on (`inputs.looked_for`); `None` where it says nothing.

    Args:
        layout: Its directory.
        fingerprint: Of the rows that it must have been of; `None`: of any.
    """
    try:
        found = json.loads(layout.data_file.read_text(encoding="utf-8"))
        same = fingerprint in (None, found["fingerprint"])
        return dict(found["leaks"]) if same and "leaks" in found else None
    except (OSError, ValueError, KeyError, TypeError):  # of an older version, or torn
        return None


def accepted_changes(layout: Layout, section: str = "") -> list[tuple[int, list[str]]]:
    """What --accept-changes was said to on the way: the hybrid step from which it holds, and `key: was -> is` lines.

    Args:
        layout: The run.
        section: Only changes of keys that begin so, and only those that came after the first hybrid step.
    """
    found = []
    for session in environment(layout).get("sessions") or []:
        lines = [line for line in session.get("accepted") or [] if line.startswith(section)]
        if lines and session["from_hybrid_step"] > 1:
            found.append((session["from_hybrid_step"], lines))
    return found


def stages_done(layout: Layout) -> dict[str, dict[str, Any]]:
    """What state.json says of each finished stage ("warmup", "hybrid", "final"); empty without one.

    Raises:
        CheckpointError: It cannot be read.
    """
    if not layout.state_file.exists():
        return {}
    return read_whole(layout.state_file, json.loads).get("done") or {}


def g_warmup(layout: Layout) -> float | None:
    """The SFT gradient norm that the warm-up ended with; `None` without a finished warm-up."""
    return (stages_done(layout).get("warmup") or {}).get("g_warmup")


def rollout_files(layout: Layout) -> list[tuple[int, Path]]:
    """(step, file) of every step whose rollouts were recorded, by step."""
    return [(step, file) for stage, step, file in _completion_files(layout) if stage is None]


def eval_files(layout: Layout) -> list[tuple[str, int, Path]]:
    """(stage, step, file) of every evaluation whose completions are there, in the order of the run."""
    found = [(stage, step, file) for stage, step, file in _completion_files(layout) if stage in STAGES]
    return sorted(found, key=lambda each: (STAGES.index(each[0]), each[1]))


def _completion_files(layout: Layout) -> list[tuple[str | None, int, Path]]:
    """(stage, step, file) by step; the stage is `None` of a training step's rollouts."""
    found = []
    for file in layout.completions_folder.glob("*.parquet"):
        name = records.NAME.fullmatch(file.name)
        if name:
            found.append((name["stage"], int(name["step"]), file))
    return sorted(found, key=lambda each: (each[1], each[2].name))


def eval_file(layout: Layout, line: dict[str, Any]) -> Path | None:
    """The completions of an evaluation, a line of eval.jsonl; `None` if they are not there."""
    stage, step = line.get("stage"), line.get("step")
    return next((file for name, at, file in eval_files(layout) if (name, at) == (stage, step)), None)


def eval_results(layout: Layout, stage: str | None = None, columns: list[str] | None = None) -> dict[Key, Any]:
    """The greedy completions of the last evaluation of a stage, by (row, prompt), in the order of the rows.

    Args:
        layout: The run.
        stage: "start", "warmup", "hybrid" or "final"; `None` takes the run's last evaluation.
        columns: What to read besides row, prompt and sample; `None` reads all (completion, passed, score, note,
            error, length, truncated and the column the evaluation was sliced by).

    Returns:
        {(row, prompt): the row as a dict}; empty without such an evaluation, or without its completions.
    """
    latest = last_evals(evals(layout))
    line = latest.get(stage) if stage else next(reversed(latest.values()), None)
    file = eval_file(layout, line) if line else None
    if file is None:
        return {}
    wanted = None if columns is None else list(dict.fromkeys(["row", "prompt", "sample", *columns]))
    rows = [row for row in records.read_completions(file, wanted) if row.get("sample") is None]
    # A file that was written of no rows has no columns
    return {(row["row"], row["prompt"]): row for row in rows if "row" in row and "prompt" in row}
