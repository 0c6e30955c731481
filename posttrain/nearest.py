"""The nearest legal name to one that is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
