"""What became of a file's rows, counted: one line that accounts for each of them, and notes that list some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

_NOUNS = ("duplicate", "prompt", "demonstration")
_SHOWN = 5  # of a list


class Tally:
    """Counts of rows by what became of them, in the order in which they were told.

    Args:
        total: Rows that there were.
        what: What they are called.
    """

    def __init__(self, total: int, what: str = "rows"):
        self.total, self.what = total, what
        self._counts: dict[str, Counter[str]] = {}

    def add(self, reason: str, count: int = 1, kind: str = "") -> None:
        """Count rows under a reason, such as `held out`, and there under a kind; none of them is not told."""
        if count:
            self._counts.setdefault(reason, Counter())[kind] += count

    def count(self, reason: str) -> int:
        """Rows that were told under a reason."""
        return self._counts.get(reason, Counter()).total()

    def line(self) -> str:
        """`200 rows: 100 duplicates, 3 with an unreadable answer (2 words, 1 size), 40 held out, 57 left for both`"""
        what = self.what.removesuffix("s") if self.total == 1 else self.what
        parts = ", ".join(
            f"{kinds.total():,} {reason}{'s' if reason in _NOUNS and kinds.total() != 1 else ''}" + _by_kind(kinds)
            for reason, kinds in self._counts.items()
        )
        return f"{self.total:,} {what}" + (f": {parts}" if parts else "")


def _by_kind(kinds: Counter[str]) -> str:
    named = [f"{count:,} {kind}" for kind, count in kinds.most_common() if kind]
    return f" ({', '.join(named)})" if named else ""


def listed(what: str, which: Sequence[str], of: int | None = None) -> str:
    """A note with the first of them under a line that counts them; `of`: among how many rows."""
    more = f"\n  and {len(which) - _SHOWN} more" if len(which) > _SHOWN else ""
    among = "" if of is None else f"of {of} "
    return f"{len(which)} {among}{what}\n  " + "\n  ".join(which[:_SHOWN]) + more
