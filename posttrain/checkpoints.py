"""Checkpoints that are either whole or not there.

A checkpoint is written into a hidden staging folder beside its final place, sealed with a manifest of file sizes,
and renamed. Whatever interrupts the writing, the previous checkpoint is untouched and the next start sees only
sealed ones.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from posttrain.errors import CheckpointError

MANIFEST = "manifest.json"
STAGING = ".staging"


@contextmanager
def staged(folder: Path, name: str, *, is_main: bool = True, wait: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Yield a staging folder; on success `staging/name` becomes `folder/name`, on failure it vanishes.

    Args:
        folder: Where the checkpoints are.
        name: `checkpoint-STEP`.
        is_main: Whether this process clears, seals and renames; every process may write into the staging folder.
        wait: A barrier over all processes.

    Raises:
        CheckpointError: The block failed to write (a full disk, say). The error names the last whole checkpoint.
    """
    staging = folder / STAGING
    try:
        if is_main:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
        wait()
        yield staging
        wait()
        if is_main:
            _publish(staging / name, folder / name)
        wait()
    except (OSError, RuntimeError, SafetensorError) as error:
        if isinstance(error, RuntimeError) and "enforce fail" not in str(error):
            raise  # torch raises RuntimeError when it cannot write, but so does much else
        previous = latest_checkpoint(folder)
        raise CheckpointError(
            f"{name} could not be written: {error}",
            expected=f"room to write it ({shutil.disk_usage(_existing(folder)).free / 2**20:.0f} MiB are free)",
            where=str(folder),
            fix=f"make room, then resume: {previous.name} is whole"
            if previous
            else "make room, then start again: what was saved before is whole",
        ) from error
    finally:
        if is_main:
            shutil.rmtree(staging, ignore_errors=True)


def _publish(written: Path, final: Path) -> None:
    seal(written)
    if final.exists():  # the same step again: a kill between the two renames must not lose both
        final.replace(written.with_name(f"old-{final.name}"))
    written.replace(final)
    _sync_folder(final.parent)


def seal(checkpoint: Path) -> None:
    """Flush every file to disk and write the manifest, last."""
    sizes = {}
    for path in sorted(p for p in checkpoint.rglob("*") if p.is_file() and p != checkpoint / MANIFEST):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        sizes[str(path.relative_to(checkpoint))] = path.stat().st_size
    with (checkpoint / MANIFEST).open("w") as file:
        json.dump(sizes, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def is_whole(checkpoint: Path) -> bool:
    """Whether the manifest is there and every file has the size it had when the checkpoint was sealed."""
    try:
        sizes = json.loads((checkpoint / MANIFEST).read_text())
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def latest_checkpoint(folder: Path) -> Path | None:
    """The whole checkpoint with the highest step in `folder`, or `None`."""
    whole = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return max((path for path in whole if is_whole(path)), key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """The optimizer step in a checkpoint's name."""
    return int(checkpoint.name.rpartition("-")[2])


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
