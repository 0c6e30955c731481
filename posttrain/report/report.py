"""The report of a run: one HTML page that needs no network and no script, from whatever the run has left so far."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from posttrain.alarms import read as read_alarms
from posttrain.drawing import page
from posttrain.drawing.steps import StepNames
from posttrain.errors import CheckpointError
from posttrain.inputs.looked_for import in_words as leaks_in_words
from posttrain.reading.compare_spending import spent
from posttrain.reading.judged import in_words, judge_of
from posttrain.report import alarms, completions, curves, tables
from posttrain.report.beside import beside
from posttrain.report.trained import go_on, trained
from posttrain.rundir.facts import read_recipe
from posttrain.rundir.layout import Layout
from posttrain.rundir.reading import evals as read_evals
from posttrain.rundir.reading import leaks_of
from posttrain.rundir.reading import steps as read_steps
from posttrain.storage import files
from posttrain.watching.progress import duration

Lines = list[dict[str, Any]]
LONGEST_FILE = 40_000  # characters of the recipe and of the environment that the page shows


def write_report(run_dir: str | Path) -> Path:
    """Write report.html into a run directory, from the files that are there, and return its path.

    An unfinished run gives a page with what it has. The paired differences come from the completions of the
    evaluations: problems are matched by their row and prompt. The page stays small however long the run: curves are
    thinned, and of completions, alarms and long texts it shows a part and says so.

    Raises:
        DataError: a line within steps.jsonl, eval.jsonl or alarms.jsonl is broken.
        CheckpointError: the page could not be written; an older one is whole.
    """
    layout = Layout(Path(run_dir))
    files.write_text(layout.report_file, page.render("posttrain.report", "report.html.j2", **_values(layout)))
    return layout.report_file


def _values(layout: Layout) -> dict[str, Any]:
    """What the template shows."""
    steps, evals = read_steps(layout), read_evals(layout)
    environment = _json(layout.environment_file)
    offset = curves.warmup_steps(steps)
    places = [curves.place(line, offset) for line in steps]
    names, recipe = StepNames(float(offset) if offset else None), _recipe(layout)
    finished = any(line.get("stage") == "final" for line in evals)
    total = spent(layout, recipe, steps)["total_seconds"]
    raised = alarms.shown(read_alarms(layout.path) if layout.path.is_dir() else [], offset)
    table = tables.before_after(layout, evals)
    head = tables.headline(table)
    return {
        "name": layout.path.resolve().name,
        "finished": finished,
        "trained": trained(recipe, environment, total),
        "padded": tables.padded(steps),
        "go_on": go_on(layout, environment, finished, has_steps=bool(steps)),
        "started": _started(environment),
        "version": (environment.get("versions") or {}).get("posttrain", ""),
        "table": table,
        "headline": head,
        "judged": _judged(recipe, evals),
        "leaks": leaks_in_words(leaks_of(layout)),
        "tiles": _tiles(steps, raised, total),
        "mix": curves.mix(steps, offset),
        "pins": alarms.pins(raised, min(places), max(places)) if places else [],
        "offset": offset,
        "ends": (names.told(min(places), min(places)), names.told(max(places), max(places))) if places else ("", ""),
        "both_stages": 0 < offset < max(places, default=0),
        "sums": tables.sums(steps),
        "charts": curves.curves(steps, evals, raised, offset),
        "alarms": alarms.by_kind(raised),
        "slices": tables.slices(evals),
        "flips": completions.flips(layout, head),
        "samples": completions.samples(layout, evals),
        "beside": beside(layout),
        "recipe": _text(layout.recipe_file),
        "environment": json.dumps(environment, indent=2, ensure_ascii=False) if environment else "",
        "longest_file": LONGEST_FILE,
    }


def _recipe(layout: Layout) -> dict[str, Any]:
    try:
        recipe = read_recipe(layout.recipe_file) if layout.recipe_file.exists() else {}
    except CheckpointError:  # a report comes of a torn recipe, too
        return {}
    return recipe if isinstance(recipe, dict) else {}


def _judged(recipe: dict[str, Any], evals: Lines) -> str:
    """What the last evaluation was judged by, in words."""
    judge = judge_of(evals[-1], recipe) if evals else None
    return in_words(judge) if judge else ""


def _tiles(steps: Lines, raised: Lines, total: float) -> list[tuple[str, str, str, str]]:
    """(name, value, note, kind) of the numbers at the top."""
    hybrid = [line for line in steps if line.get("stage") == "hybrid"]
    mixes = [line.get("mix") or {} for line in hybrid]
    sft, grpo = (sum(float(mix.get(key) or 0) for mix in mixes) for key in ("sft", "grpo"))
    seconds = tables.seconds_of(steps)
    problems = sum(each["level"] == "problem" for each in raised)
    tiles = [
        ("Steps", f"{len(steps):,}", f"{len(steps) - len(hybrid):,} warm-up, {len(hybrid):,} hybrid", ""),
        ("SFT in the hybrid steps", f"{sft / (sft + grpo) * 100:.0f} %", f"{grpo / (sft + grpo) * 100:.0f} % GRPO", "")
        if sft + grpo else None,
        ("Time", duration(total), f"{duration(seconds['total'])} in steps, the rest in evaluations", "")
        if seconds["total"] else None,
        ("Alarms", f"{len(raised):,}" if raised else "none", _levels(problems, len(raised) - problems),
         "down" if problems else "warn" if raised else ""),
    ]  # fmt: skip
    return [tile for tile in tiles if tile] if steps else []


def _levels(problems: int, warnings: int) -> str:
    said = [(problems, "problem"), (warnings, "warning")]
    return ", ".join(f"{count:,} {word}{'s' if count > 1 else ''}" for count, word in said if count)


def _json(file: Path) -> dict[str, Any]:
    """A JSON file as far as it can be read: a report comes of a torn one, too."""
    try:
        value = json.loads(_text(file) or "{}")
    except ValueError as error:
        return {"unreadable": str(error)}
    return value if isinstance(value, dict) else {"unreadable": f"it holds a {type(value).__name__}"}


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""


def _started(environment: dict[str, Any]) -> str:
    sessions = environment.get("sessions") or [{}]
    return str(sessions[0].get("started", ""))
