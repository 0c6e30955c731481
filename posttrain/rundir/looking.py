"""What a run directory would refuse, found before anything heavy is loaded or any process started."""

from __future__ import annotations

import os
from pathlib import Path

from posttrain.recipe.recipe import Recipe
from posttrain.rundir.facts import flatten, read_recipe
from posttrain.rundir.layout import Layout
from posttrain.rundir.masking import without_secrets
from posttrain.rundir.refusals import (
    cannot_be_written,
    nothing_to_resume,
    refuse_foreign_folder,
    serious_differences,
    started_differently,
)
from posttrain.rundir.unstarted import is_unstarted
from posttrain.storage import files
from posttrain.storage.lock import Lock


def check_directory(
    path: Path, recipe: Recipe, *, resume: bool, restart: bool, accept_changes: bool, starting: bool
) -> None:
    """Refuse at once what `RunDir.open` would refuse; data and rewards are compared only there.

    Args:
        path: The run directory.
        recipe: What is to run in it.
        resume, restart, accept_changes: As for `RunDir.open`.
        starting: Whether a run is about to start, so that no other may be at work. The lock is not kept.

    Raises:
        CheckpointError: Nothing can be written there.
        ResumeError: Another process is at work in it; it holds another recipe's run, or something else; or none to
            resume.
    """
    _check_writable(path)
    if starting and (path / ".lock").exists():
        Lock(path).release()
    if restart:
        return
    layout = Layout(path)
    if not layout.recipe_file.exists():
        if resume:
            raise nothing_to_resume(path)
        if path.is_dir():
            refuse_foreign_folder(path)
        return
    if accept_changes or (is_unstarted(layout) and not resume):
        return
    if serious := differences(layout, recipe):
        raise started_differently(path, serious)


def differences(layout: Layout, recipe: Recipe) -> list[str]:
    """`key: was -> is` for all by which the recipe is not that of the run in a directory; data and rewards apart."""
    was, now = flatten(read_recipe(layout.recipe_file)), flatten(without_secrets(files.plain(recipe.resolved())))
    if now.get("rollout.engine") == "auto":  # decided on the machine that trains, and written down as what it means
        was.pop("rollout.engine", None)
        now.pop("rollout.engine")
    return serious_differences(was, now)


def _check_writable(path: Path) -> None:
    there = path.resolve()
    while not there.exists() and there != there.parent:
        there = there.parent
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return
    raise cannot_be_written(path, f"{there} is {'read-only' if there.is_dir() else 'no folder'}")
