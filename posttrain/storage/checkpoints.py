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
import time
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from safetensors import SafetensorError

from posttrain.errors import CheckpointError, PosttrainError
from posttrain.storage.files import free_space, size_in_words, sync_folder

if TYPE_CHECKING:  # it imports torch, which those who only look for a checkpoint need not
    from posttrain.processes.ranks import Ranks

MANIFEST = "manifest.json"
STAGING = ".staging"
TORN = "torn-"
PIECE = 2**24
VISIBLE_WITHIN_S = 30.0
"""How long the main process waits for what another node wrote."""

Sizes: TypeAlias = dict[str, int]
"""Of the files of a checkpoint, by name, in bytes."""


@contextmanager
def staged(folder: Path, name: str, *, ranks: Ranks | None = None, apart: bool = True) -> Iterator[Path]:
    """Yield a staging folder; on success `staging/name` becomes `folder/name`, on failure it vanishes.

    Args:
        folder: Where the checkpoints are.
        name: `checkpoint-STEP`.
        ranks: The processes that write into it, each of which calls this; the main one clears, seals and renames.
            `None` is this process by itself.
        apart: Whether the processes are on their own in the block, so that one that fails can tell the others at its
            end. With collective calls in it the others may wait elsewhere, and the error is raised at once.

    Raises:
        CheckpointError: A process failed to write (a full disk, say): on all of them. The error says how much room a
            checkpoint takes, how much there is, and which checkpoint is the last whole one.
    """
    staging, is_main = folder / STAGING, ranks is None or ranks.is_main
    failed: Exception | None = None
    by_rank: list[Sizes] = []

    def clear() -> None:
        with explained(folder, name):
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)

    def ended() -> None:
        if failed is not None:
            raise failed

    def sync() -> Sizes:
        with explained(folder, name, is_main=is_main):
            return _sync(staging / name)

    def publish() -> None:
        with explained(folder, name):
            _await(staging / name, by_rank)
            _publish(staging / name, folder / name, {file for sizes in by_rank for file in sizes})
            shutil.rmtree(staging, ignore_errors=True)  # before the others go on

    try:
        clear() if ranks is None else ranks.decided(clear)
        try:
            with explained(folder, name, is_main=is_main):
                yield staging
        except Exception as error:
            if not apart:
                raise
            failed = error
        if ranks is None or ranks.count == 1:
            ended()
            publish()
        else:
            ranks.together(ended)  # nobody writes from here on
            by_rank = ranks.gathered(ranks.together(sync))
            ranks.decided(publish)
    finally:
        if is_main:
            shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def explained(folder: Path, name: str, *, is_main: bool = True) -> Iterator[None]:
    """Turn what failed to write a checkpoint into a `CheckpointError`; see `staged`."""
    try:
        yield
    except PosttrainError:
        raise
    except (OSError, RuntimeError, SafetensorError) as error:
        if isinstance(error, RuntimeError) and "enforce fail" not in str(error):
            raise  # torch raises RuntimeError when it cannot write, but so does much else
        instead = _not_written(error, folder, name, is_main=is_main)
        instead.shared = getattr(error, "shared", False)
        raise instead from error


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
    size = 0
    with suppress(FileNotFoundError):  # another process may be clearing it
        for path in folder.rglob("*"):
            size += path.stat().st_size if path.is_file() else 0
    return size


def _sync(checkpoint: Path) -> Sizes:
    """Flush what this process wrote, and whatever else it sees, to disk: name to size in bytes."""
    sizes = {}
    for path in (path for path in checkpoint.rglob("*") if path.is_file()):
        with suppress(FileNotFoundError), path.open("rb") as file:
            os.fsync(file.fileno())
            # Opened, for a network file system may know the size of a file that another node wrote only then
            sizes[str(path.relative_to(checkpoint))] = os.fstat(file.fileno()).st_size
    return sizes


def _await(checkpoint: Path, by_rank: list[Sizes]) -> None:
    """Wait until this process sees what every process sees, which on a network file system takes a while.

    Raises:
        CheckpointError: It did not come.
    """
    expected = {file: max(sizes.get(file, 0) for sizes in by_rank) for file in set().union(*by_rank)}
    deadline = time.monotonic() + VISIBLE_WITHIN_S
    while late := sorted(file for file, size in expected.items() if _size(checkpoint / file) != size):
        if time.monotonic() > deadline:
            rank = next(number for number, sizes in enumerate(by_rank) if sizes.get(late[0]) == expected[late[0]])
            raise CheckpointError(
                f"{checkpoint.name} could not be completed: {late[0]} with {expected[late[0]]:,} bytes, which rank "
                f"{rank} sees, cannot be seen by the main process after {VISIBLE_WITHIN_S:g} s",
                expected="one folder that all nodes share",
                where=str(checkpoint.parent.parent),
                fix="put the run directory on a file system that all nodes share, then resume",
            )
        time.sleep(0.1)


def _size(path: Path) -> int | None:
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return None


def _publish(written: Path, final: Path, files: Iterable[str] = ()) -> None:
    seal(written, files)
    if final.exists():  # the same step again: a kill between the two renames must not lose both
        final.replace(written.with_name(f"old-{final.name}"))
    written.replace(final)
    sync_folder(final.parent)


def seal(checkpoint: Path, files: Iterable[str] = ()) -> None:
    """Flush every file to disk and write the manifest, last: name to size in bytes and checksum.

    Args:
        checkpoint: The folder.
        files: Names that are known to be in it, which a network file system may not list yet.
    """
    sealed = {}
    present = {path for path in checkpoint.rglob("*") if path.is_file()} | {checkpoint / name for name in files}
    for path in sorted(present - {checkpoint / MANIFEST}):
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

        pieces = threads.map(piece, starts) if len(starts) > 1 else map(piece, starts)  # most files are small
        return f"{zlib.crc32(b''.join(pieces)):08x}"


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


def usable_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint in `folder` whose contents are as they were written, and what is wrong with torn ones.

    Contents are compared with their checksums from the newest on until one is whole, sizes in all of them.
    """
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


def last_checkpoints(folder: Path, count: int) -> list[Path]:
    """The whole checkpoints with the highest steps in `folder`, so many at most, in the order of their steps."""
    whole = [path for path in _checkpoints(folder) if why_torn(path, contents=True) is None]
    return sorted(whole, key=step_of)[-count:]


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]


def step_of(checkpoint: Path) -> int:
    """The optimizer step in a checkpoint's name."""
    return int(checkpoint.name.rpartition("-")[2])
