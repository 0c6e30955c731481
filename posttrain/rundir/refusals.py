"""When a run directory is not to be used, and what to do instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from posttrain.errors import CheckpointError, ResumeError
from posttrain.recipe.step_sizes import same_size_keys
from posttrain.rundir.added_keys import added_since
from posttrain.rundir.facts import HARMLESS, difference, without


def serious_differences(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """`key: was -> is` for each fact by which the run that was started and the one at hand are not the same run."""
    same = same_size_keys(was, now) | added_since(was, now)
    return difference(without(was, same), without(now, same), ignore=HARMLESS)


def started_differently(path: Path, serious: list[str]) -> ResumeError:
    """The error of a run directory that holds another run, by what differs."""
    shown = "".join(f"\n    {line}" for line in serious)
    return ResumeError(
        f"the run in this directory was started differently (was -> is):{shown}",
        where=str(path),
        fix="go on under the new values by --accept-changes; start over by --restart (moves the old run to "
        f"{aside(path).name}); or train elsewhere by run.dir=...",
    )


def cannot_be_written(path: Path, why: object) -> CheckpointError:
    """The error of a run directory that nothing can be written into."""
    return CheckpointError(
        f"the run directory cannot be written: {why}",
        expected="a folder on a file system that can be written, with room for checkpoints",
        where=str(path),
        fix="name another folder by run.dir=..., or make this one writable",
    )


def nothing_to_resume(path: Path) -> ResumeError:
    """The error of a start that was to go on with a run, where there is none."""
    return ResumeError(
        "there is no run to resume",
        expected="a directory with a recipe.yaml",
        where=str(path),
        fix="leave out --resume to start one, or name its directory by run.dir=...",
    )


def refuse_foreign_folder(path: Path) -> None:
    """Refuse a folder that holds something else than a run.

    Raises:
        ResumeError: It does.
    """
    names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    created_first = {"environment.json", "data.json"}  # by a run that was killed while it was created
    names = [name for name in names if name not in created_first]
    if names:
        raise ResumeError(
            f"the folder has no recipe.yaml but other files, {', '.join(names[:3])} among them",
            expected="an empty or absent folder, or the directory of a run",
            where=str(path),
            fix="name another folder by run.dir=...",
        )


def aside(path: Path) -> Path:
    """The first of NAME.1, NAME.2 and so on that is free."""
    path, number = path.resolve(), 1
    while (aside := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    return aside
