"""The nearest legal name to one that is not, and the nearest file to one that does not exist."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path


def nearest(name: str, legal: Iterable[str], count: int = 1) -> list[str]:
    """Up to `count` of the legal names that `name` may have been meant as, the likeliest first.

    A misspelling counts, and so does a part of a name (`heads`) or its initials (`lr`).
    """
    names = list(legal)
    plain = name.lower().replace("-", "_")
    initials = [other for other in names if "".join(part[:1] for part in other.split("_")) == plain]
    near = difflib.get_close_matches(plain, names, n=count, cutoff=0.7)
    partly = [other for other in names if len(plain) > 2 and (plain in other or other in plain)]
    loosely = difflib.get_close_matches(plain, names, n=count, cutoff=0.6) if len(plain) > 3 else []
    return list(dict.fromkeys([*near, *initials, *partly, *loosely]))[:count]


def did_you_mean(name: str, legal: Iterable[str]) -> str | None:
    """`did you mean ...?` for the nearest legal name, if any is near."""
    near = nearest(name, legal)
    return f"did you mean {near[0]}?" if near else None


def hint(name: str, legal: Iterable[str]) -> str:
    """` (nearest: 'x')`, to stand behind a name in a message, if any legal name is near."""
    near = nearest(name, legal)
    return f" (nearest: {near[0]!r})" if near else ""


def nearest_files(path: Path) -> str:
    """What to use instead of a file that does not exist, in words."""
    folder = path.parent
    while not folder.is_dir():
        folder = folder.parent
    if folder != path.parent:
        return f"the folder {display(path.parent)} does not exist either"
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file() and entry.suffix == path.suffix)
    if not path.suffix:
        names = sorted(entry.name for entry in folder.iterdir() if entry.suffix in (".yaml", ".yml"))
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(display(folder / name) for name in near) + "?"
    shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    return f"{display(folder)} holds {shown}" if names else f"{display(folder)} holds no {path.suffix or '.yaml'} files"


def display(path: Path) -> str:
    """A path relative to the working directory where it lies below it, for messages."""
    full = Path(os.path.abspath(path))  # noqa: PTH100  (resolve() would show where a link points, not what was typed)
    here = Path.cwd()
    return str(full.relative_to(here)) if full.is_relative_to(here) else str(full)
