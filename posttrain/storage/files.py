"""Writing files so that a kill or a full disk leaves either the old content or the new one, never a mixture.

A whole file is written beside its place and renamed over it. A JSON-lines file grows by whole lines: a line that
could not be written is taken back at once, and one that was torn by a kill is dropped when the file is next opened.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from posttrain.errors import CheckpointError, DataError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FREE_SPACE = "free some disk space, then run the same command again: what was there before is whole"


def free_space(path: Path) -> int:
    """Bytes free on the file system that `path` is on, or will be on."""
    path = Path(path).absolute()
    return shutil.disk_usage(next(place for place in (path, *path.parents) if place.exists())).free


def size_in_words(count: int) -> str:
    """A number of bytes as people say it: 512 bytes, 3.2 MiB."""
    if count < 1024:
        return f"{count} bytes"
    unit = min(int(math.log2(count)) // 10, 4)
    return f"{count / 1024**unit:.1f} {('KiB', 'MiB', 'GiB', 'TiB')[unit - 1]}"


def _not_written(path: Path, error: OSError, size: int | None, written: int = 0) -> CheckpointError:
    if error.errno not in FULL:
        return CheckpointError(f"could not be written: {error}", where=str(path), fix=_other_fix(path, error))
    needed = f"more than {size_in_words(written)}" if size is None else size_in_words(size)
    return CheckpointError(
        f"could not be written: {error}",
        expected=f"{needed} of room; {size_in_words(free_space(path))} are free",
        where=str(path),
        fix=FREE_SPACE,
    )


def _other_fix(path: Path, error: OSError) -> str | None:
    if error.errno == errno.ENOENT:
        return f"something removed {path.parent} while this ran"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"make {path.parent} writable for this user"
    return None


def is_full_disk(error: BaseException) -> bool:
    """Whether it is the error of a disk (or a quota, or a file's size limit) that is full."""
    cause = error.__cause__ if isinstance(error, CheckpointError) else error
    return isinstance(cause, OSError) and cause.errno in FULL


@contextlib.contextmanager
def replacing(path: Path, size: int | None = None) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; on success its file takes the place of `path`, synced to disk.

    Args:
        path: The file.
        size: Bytes that it will have, if known: an error about a full disk says so.

    Raises:
        CheckpointError: the file could not be written (disk full, no permission). `path` is as it was before.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError("cannot be written: it is a folder", expected="the name of a file", where=str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        descriptor = os.open(temporary, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except OSError as error:
        written = 0
        with contextlib.suppress(OSError):
            written = temporary.stat().st_size
            temporary.unlink()  # before the free room is looked at
        raise _not_written(path, error, size, written) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename outlive a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` (UTF-8), whole or not at all; raises CheckpointError as `replacing` does."""
    content = text.encode()
    with replacing(path, len(content)) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as indented JSON, whole or not at all; NaN and infinities become null."""
    write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> int:
    """Replace `path` by rows as JSON lines, whole or not at all; their number. Raises as `replacing` does."""
    count = 0
    with replacing(Path(path)) as temporary, temporary.open("w", encoding="utf-8") as file:
        for count, row in enumerate(rows, start=1):  # noqa: B007 (the number is what is returned)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return count


def plain(value: Any) -> Any:
    """The value in JSON's own types: NaN and infinities are None, numpy and torch scalars are Python numbers.

    Text that is not Unicode (half of a surrogate pair, from a cut emoji) gets a question mark where it is not.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Add one JSON line to `path` in a single write; a line that does not fit on the disk is taken back.

    Raises:
        CheckpointError: the line could not be written. The lines before it are whole.
    """
    line = (json.dumps(plain(record), ensure_ascii=False) + "\n").encode()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise _not_written(path, error, len(line)) from error
    try:
        size = os.fstat(descriptor).st_size
        try:
            written = os.write(descriptor, line)
            if written != len(line):
                raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes fitted")
        except OSError as error:
            os.ftruncate(descriptor, size)
            raise _not_written(path, error, len(line)) from error
    finally:
        os.close(descriptor)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON-lines file, [] when it is absent; what a kill tore off its end is left out.

    Raises:
        DataError: a line that is followed by whole ones cannot be read.
    """
    return [json.loads(line) for line in _whole_lines(path)]


def drop_torn_end(path: Path) -> bool:
    """Cut what a kill or a power cut left unreadable at the end of a JSON-lines file; True when it cut something."""
    if not path.exists():
        return False
    kept = b"".join(line + b"\n" for line in _whole_lines(path))
    if kept == path.read_bytes():
        return False
    _replace_bytes(path, kept)
    return True


def drop_broken_lines(path: Path) -> None:
    """Rewrite a JSON-lines file without the lines that cannot be read, wherever they are."""
    if not path.exists():
        return
    content = path.read_bytes()
    kept = b"".join(line + b"\n" for line in content.split(b"\n") if _is_record(line))
    if kept != content:
        _replace_bytes(path, kept)


def keep_lines(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Rewrite a JSON-lines file with only the records for which `keep` is true, their bytes unchanged."""
    if not path.exists():
        return
    content = path.read_bytes()
    kept = b"".join(line + b"\n" for line in _whole_lines(path) if keep(json.loads(line)))
    if kept != content:
        _replace_bytes(path, kept)


def _replace_bytes(path: Path, content: bytes) -> None:
    with replacing(path, len(content)) as temporary:
        temporary.write_bytes(content)


def _whole_lines(path: Path) -> list[bytes]:
    if not path.exists():
        return []
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    while lines and not _is_record(lines[-1]):
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if not _is_record(line):
            raise DataError(
                f"line {number} is not a JSON object: {line[:60]!r}",
                where=str(path),
                fix="delete that line: the ones after it are whole",
            )
    return lines


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
