"""Beginning from another run's warm-up: what runs share that differ in their hybrid stages only.

A warm-up depends on the model, the task, the seed and its own settings, so that runs which agree in these can share one
and are the runs that they would have been alone. Taken over are the model from scratch or unpacked, the warmed-up
model, G_warmup and the cursor, the warm-up's steps, and the evaluations at the start and behind the warm-up.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain.errors import ResumeError
from posttrain.rundir import completions as records
from posttrain.rundir.facts import HARMLESS, difference, flatten, named, read_environment, read_recipe
from posttrain.rundir.layout import BASES, REST, Layout
from posttrain.rundir.reading import done_stages
from posttrain.rundir.refusals import cannot_be_written
from posttrain.rundir.rundir import RunDir
from posttrain.storage import files
from posttrain.storage.checkpoints import MANIFEST, staged

OF_HYBRID = re.compile(
    r"hybrid\.(?!args\.(chat_template_kwargs|bf16|fp16)\b|demonstrations_after$|grpo\.max_completion_length$)"
)
"""Keys of the hybrid stage that a warm-up and the evaluations around it know nothing of."""

_STAGES = ("start", "warmup")


def warmup_facts(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a resolved recipe that the start and the warm-up depend on, dotted, with their values."""
    facts = {key: value for key, value in flatten(recipe).items() if not OF_HYBRID.match(key)}
    return {key: value for key, value in facts.items() if not HARMLESS.match(key)}


def take_warmup(run: RunDir, source: Path) -> bool:
    """Take over the start and the warm-up of another run, unless this one has begun by itself.

    Killed in the middle, the next start takes it over again.

    Args:
        run: Which has not warmed up yet.
        source: The directory of a run that has.

    Returns:
        Whether it was taken over just now.

    Raises:
        ResumeError: The other run has no finished warm-up, or was warmed up differently.
    """
    if run.done("warmup") is not None or run.checkpoints("warmup").exists():
        return False
    other = Layout(source)
    warmed = done_stages(other).get("warmup") if other.recipe_file.exists() else None
    if warmed is None:
        raise ResumeError(
            "has no finished warm-up to begin from",
            expected="the directory of a run whose warm-up is done",
            where=str(source),
            fix="let that run finish it first, or leave --warmup-from out",
        )
    lines = difference(_facts_of(other), _facts_of(run))
    if lines:
        raise ResumeError(
            "the warm-up to begin from is of another recipe, data or rewards (there -> here):"
            + "".join(f"\n    {line}" for line in lines),
            where=str(source),
            fix="leave --warmup-from out, so that the run warms up by itself",
        )
    try:
        _copy(other, run)
    except OSError as error:
        raise cannot_be_written(run.path, error) from error
    run.mark_done("warmup", {name: value for name, value in warmed.items() if name != "finished"})
    return True


def _facts_of(run: Layout) -> dict[str, Any]:
    prints = read_environment(run.environment_file).get("fingerprints", {})
    facts = warmup_facts(read_recipe(run.recipe_file))
    facts.pop("rollout.engine", None)  # decided on the machine, as late as by the first rollouts
    return {**facts, **named(prints)}


def _copy(other: Layout, run: RunDir) -> None:
    for name in (*BASES, REST, other.warmup_model.name):
        if (other.path / name).is_dir() and not (run.path / name).is_dir():
            with staged(run.path, name) as staging:
                ignored = shutil.ignore_patterns(MANIFEST)
                shutil.copytree(other.path / name, staging / name, ignore=ignored, copy_function=_link)
    run.completions_folder.mkdir(exist_ok=True)
    for file in sorted(other.completions_folder.glob("*.parquet")):
        of = records.stage_and_step(file)
        if of and of[0] in _STAGES:
            (run.completions_folder / file.name).unlink(missing_ok=True)
            _link(file, run.completions_folder / file.name)
    for theirs, ours in ((other.steps_file, run.steps_file), (other.eval_file, run.eval_file)):
        files.keep_lines(ours, lambda line: line.get("stage") not in _STAGES)
        for line in files.read_lines(theirs):
            if line.get("stage") in _STAGES:
                files.append_line(ours, line)


def _link(source: str | Path, target: str | Path) -> None:
    """A second name for a file, which is only ever replaced whole; a copy where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
