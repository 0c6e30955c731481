"""Checkpoints that are either whole or not there.

A checkpoint is written into a hidden staging folder beside its final place, sealed with a manifest of file sizes and
checksums, and renamed. Whatever interrupts the writing, the previous checkpoint is untouched and the next start sees
only sealed ones. What tears a sealed one (a failing disk, half a copy) is found by its manifest: sizes are looked at
whenever a checkpoint is chosen, checksums once, when a run is resumed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from posttrain.errors import CheckpointError
from posttrain.files import free_space, size_in_words, sync_folder

MANIFEST = "manifest.json"
STAGING = ".staging"
TORN = "torn-"
PIECE = 2**24


@contextmanager
def staged(folder: Path, name: str, *, is_main: bool = True, wait: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Yield a staging folder; on success `staging/name` becomes `folder/name`, on failure it vanishes.

    Args:
        folder: Where the checkpoints are.
        name: `checkpoint-STEP`.
        is_main: Whether this process clears, seals and renames; every process may write into the staging folder.
        wait: A barrier over all processes.

    Raises:
        CheckpointError: The block failed to write (a full disk, say). The error says how much room a checkpoint takes,
            how much there is, and which checkpoint is the last whole one.
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
        raise _not_written(error, folder, name, is_main=is_main) from error
    finally:
        if is_main:
            shutil.rmtree(staging, ignore_errors=True)


def _not_written(error: Exception, folder: Path, name: str, *, is_main: bool) -> CheckpointError:
    previous, written = latest_checkpoint(folder), _bytes_in(folder / STAGING)
    if is_main:
        shutil.rmtree(folder / STAGING, ignore_errors=True)  # before the free room is looked at
    needed = max(_bytes_in(previous), written) if previous else written
    return CheckpointError(
        f"{name} could not be written: {error}",
        expected=f"{'about' if previous else 'more than'} {size_in_words(needed)} of room; "
        f"{size_in_words(free_space(folder))} are free",
        where=str(folder),
        fix=f"make room, then resume: {previous.name} is whole"
        if previous
        else "make room, then start again: what was saved before is whole",
    )


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _publish(written: Path, final: Path) -> None:
    seal(written)
    if final.exists():  # the same step again: a kill between the two renames must not lose both
        final.replace(written.with_name(f"old-{final.name}"))
    written.replace(final)
    sync_folder(final.parent)


def seal(checkpoint: Path) -> None:
    """Flush every file to disk and write the manifest, last: name to size in bytes and checksum."""
    sealed = {}
    for path in sorted(p for p in checkpoint.rglob("*") if p.is_file() and p != checkpoint / MANIFEST):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        sealed[str(path.relative_to(checkpoint))] = [path.stat().st_size, checksum(path)]
    with (checkpoint / MANIFEST).open("w") as file:
        json.dump(sealed, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(checkpoint)


def checksum(path: Path) -> str:
    """The CRC-32 of the CRC-32s of a file's 16 MiB pieces, which several threads take: 1 to 2 GB/s each."""
    starts = range(0, path.stat().st_size, PIECE)
    with path.open("rb") as file, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:

        def piece(start: int) -> bytes:
            return zlib.crc32(os.pread(file.fileno(), PIECE, start)).to_bytes(4, "big")

        return f"{zlib.crc32(b''.join(threads.map(piece, starts))):08x}"


def is_whole(checkpoint: Path) -> bool:
    """Whether the manifest is there and every file has the size it had when the checkpoint was sealed."""
    return why_torn(checkpoint) is None


def why_torn(checkpoint: Path, *, contents: bool = False) -> str | None:
    """What is wrong with a sealed folder, in words; `None` when it is whole.

    Args:
        checkpoint: The folder.
        contents: Compare the checksums too, which reads every file.
    """
    try:
        sealed = json.loads((checkpoint / MANIFEST).read_text())
    except FileNotFoundError:
        return f"it has no {MANIFEST}, which is written last"
    except (OSError, ValueError) as error:
        return f"{MANIFEST} cannot be read: {error}"
    try:
        # A manifest from before there were checksums has sizes alone
        entries = {name: entry if isinstance(entry, list) else [entry, None] for name, entry in sealed.items()}
        found = (
            _why_torn(checkpoint / name, name, size, expected, contents) for name, (size, expected) in entries.items()
        )
        return next((reason for reason in found if reason), None)
    except (AttributeError, TypeError, ValueError):
        return f"{MANIFEST} is not a list of files"


def _why_torn(path: Path, name: str, size: int, expected: str | None, contents: bool) -> str | None:
    try:
        seen = path.stat().st_size
        if seen != size:
            return f"{name} has {seen:,} bytes, {size:,} expected"
        if contents and expected and checksum(path) != expected:
            return f"{name} has the {size:,} bytes expected, but other contents than were written (a failing disk?)"
    except FileNotFoundError:
        return f"{name} is missing, {size:,} bytes expected"
    except OSError as error:
        return f"{name} cannot be read: {error}"
    return None


def torn_checkpoints(folder: Path) -> list[str]:
    """What is wrong with the checkpoints in `folder` that are not whole, in words, the newest first.

    Contents are compared with their checksums from the newest on until one is whole, sizes in all of them.
    """
    return usable_checkpoint(folder)[1]


def usable_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint in `folder` whose contents are as they were written, and what is wrong with torn ones."""
    torn = _torn(folder)
    return _newest_but(folder, torn), [f"{checkpoint.name}: {reason}" for checkpoint, reason in torn]


def put_aside_torn(folder: Path) -> list[str]:
    """Rename the torn checkpoints in `folder` to torn-checkpoint-STEP, so that nothing takes them for whole.

    When none is whole, the stage is not begun anew by itself: that would throw away its steps and its rollouts for
    what may be a disk that is not mounted or a copy that is not complete. A person decides, and nothing is touched.

    Returns:
        A line a torn checkpoint: its name, why it is torn, and which one is used instead.

    Raises:
        CheckpointError: There are checkpoints, and none of them is whole.
    """
    torn = _torn(folder)
    latest = _newest_but(folder, torn)
    if torn and latest is None:
        raise CheckpointError(
            "no checkpoint is whole:" + "".join(f"\n    {path.name}: {reason}" for path, reason in torn),
            expected="at least one whole checkpoint to go on from",
            where=str(folder),
            fix="bring one back from a copy and resume; or move this folder away, and the stage starts from its "
            "beginning",
        )
    lines = []
    for checkpoint, reason in torn:
        aside = checkpoint.with_name(TORN + checkpoint.name)
        shutil.rmtree(aside, ignore_errors=True)
        checkpoint.rename(aside)
        instead = f" going on from {latest.name}" if latest and step_of(latest) < step_of(checkpoint) else ""
        lines.append(f"{checkpoint.name} is torn ({reason}) and now called {aside.name};{instead}".rstrip(";"))
    return lines


def _newest_but(folder: Path, torn: list[tuple[Path, str]]) -> Path | None:
    bad = {checkpoint for checkpoint, _ in torn}
    return max((path for path in _checkpoints(folder) if path not in bad), key=step_of, default=None)


def _torn(folder: Path) -> list[tuple[Path, str]]:
    torn, found_whole = [], False
    for checkpoint in sorted(_checkpoints(folder), key=step_of, reverse=True):
        reason = why_torn(checkpoint, contents=not found_whole)
        found_whole = found_whole or reason is None
        if reason:
            torn.append((checkpoint, reason))
    return torn


def latest_checkpoint(folder: Path) -> Path | None:
    """The whole checkpoint with the highest step in `folder`, or `None`."""
    return max((path for path in _checkpoints(folder) if is_whole(path)), key=step_of, default=None)


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]


def step_of(checkpoint: Path) -> int:
    """The optimizer step in a checkpoint's name."""
    return int(checkpoint.name.rpartition("-")[2])
