"""The runs of a folder: what each trains, how far it got, and its last evaluation. Only reads; loads no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from posttrain.errors import ConfigError, PosttrainError
from posttrain.rundir import reading as run_reading
from posttrain.rundir.layout import Layout
from posttrain.storage.lock import at_work

TAIL = 1 << 18
"""Bytes of steps.jsonl that are read for its last line."""


def runs_in(folder: str | Path) -> list[dict[str, Any]]:
    """The runs in a folder and in the folders in it, or the folder itself if it is one, the latest first.

    Returns:
        A dict a run: path, recipe (its file's name, where the command named one), model, task, state (`running`,
        `finished`, `failed`, `stopped`, `not started` or `unreadable`), at (how far, in words), pass@1, ci95, n,
        evaluation (its stage), when (ISO 8601, of the last that was written). What is not known is None.

    Raises:
        ConfigError: There is no such folder.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ConfigError(
            "is a file" if path.exists() else "does not exist",
            expected="a folder with runs in it",
            where=str(folder),
            fix="`posttrain run RECIPE` writes into runs/ below the working directory, or where run.dir says",
        )
    found = [_told(Layout(one)) for one in _folders(path)]
    return sorted(found, key=lambda run: (run["when"] or "", run["path"]), reverse=True)


def _folders(path: Path) -> Iterator[Path]:
    if _is_run(path):
        yield path
        return
    for inner in sorted(one for one in path.iterdir() if one.is_dir()):
        if _is_run(inner):
            yield inner
        else:
            yield from sorted(one for one in inner.iterdir() if one.is_dir() and _is_run(one))


def _is_run(path: Path) -> bool:
    layout = Layout(path)  # a folder with a recipe.yaml alone is where somebody keeps a recipe
    return layout.environment_file.exists() or layout.steps_file.exists()


def _told(layout: Layout) -> dict[str, Any]:
    run: dict[str, Any] = {
        "path": str(layout.path), "recipe": None, "model": None, "task": None, "state": "unreadable", "at": None,
        "pass@1": None, "ci95": None, "n": None, "evaluation": None, "when": _when(layout),
    }  # fmt: skip
    try:
        sessions = run_reading.environment(layout).get("sessions") or [{}]
        recipe = run_reading.recipe(layout) if layout.recipe_file.exists() else {}
        run |= {"recipe": _named(sessions[-1].get("command") or []), **_trained(recipe)}
        last = next(reversed(run_reading.evals(layout)), None)
        if last is not None:
            run |= {"pass@1": last["pass@1"], "ci95": last.get("ci95"), "n": last["n"], "evaluation": last["stage"]}
        done = run_reading.stages_done(layout)
        state, at = _state(layout, recipe, sessions[-1], done)
        return run | {"state": state, "at": at, "when": (done.get("final") or {}).get("finished") or run["when"]}
    except (PosttrainError, OSError, KeyError, TypeError, AttributeError) as error:
        return run | {"at": (str(error).splitlines() or [""])[0]}


def _state(
    layout: Layout, recipe: Mapping[str, Any], session: Mapping[str, Any], done: Mapping[str, Any]
) -> tuple[str, str | None]:
    """A run's state, and how far it got."""
    far = _far(layout, recipe)
    if at_work(layout.path) is not None:
        return "running", far
    if "final" in done:
        return "finished", far
    if session.get("failed"):
        said = str(session["failed"].get("error"))
        return "failed", f"{far}: {said}" if far else said
    return ("stopped", far) if far else ("not started", None)


def _far(layout: Layout, recipe: Mapping[str, Any]) -> str | None:
    """Such as `hybrid step 12 of 460`; None before the first step."""
    last = _last_line(layout.steps_file)
    if last is None:
        return None
    stage = str(last.get("stage"))
    steps = (recipe.get(stage) or {}).get("steps")
    return f"{'warm-up' if stage == 'warmup' else stage} step {last.get('step')}" + (f" of {steps}" if steps else "")


def _last_line(file: Path) -> dict[str, Any] | None:
    """The last whole line of a JSON-lines file, without reading all of it."""
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - TAIL))
            lines = opened.read().split(b"\n")
    except OSError:
        return None
    for line in reversed(lines):
        try:
            found = json.loads(line)
        except ValueError:  # empty, or torn by a kill
            continue
        if isinstance(found, dict):
            return found
    return None


def _named(command: list[str]) -> str | None:
    """The recipe that a command line names."""
    return next((word for word in command if word.endswith((".yaml", ".yml")) and "=" not in word), None) or next(
        (word for word in command if word.startswith("posttrain:")), None
    )


def _trained(recipe: Mapping[str, Any]) -> dict[str, str | None]:
    model, task = recipe.get("model") or {}, recipe.get("task") or {}
    named = model.get("name") or model.get("gguf") or ("from scratch" if model.get("init") else None)
    parts = task.get("tasks") or [task]
    return {
        "model": named,
        "task": " + ".join(str(one.get("label") or one.get("name")) for one in parts if one) or None,
    }


def _when(layout: Layout) -> str | None:
    """When the last of the run's own files was written."""
    written = []
    for file in (layout.steps_file, layout.eval_file, layout.state_file, layout.environment_file):
        try:
            written.append(file.stat().st_mtime)
        except OSError:
            continue
    return datetime.fromtimestamp(max(written), UTC).isoformat(timespec="seconds") if written else None
