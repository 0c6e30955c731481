"""What became of a file's rows, counted: one line that accounts for each of them."""

from __future__ import annotations

_NOUNS = ("duplicate", "prompt", "demonstration")


class Tally:
    """Counts of rows by what became of them, in the order in which they were told.

    Args:
        total: Rows that there were.
        what: What they are called.
    """

    def __init__(self, total: int, what: str = "rows"):
        self.total, self.what = total, what
        self._counts: dict[str, int] = {}

    def add(self, reason: str, count: int = 1) -> None:
        """Count rows under a reason, such as `held out`; none of them is not told."""
        if count:
            self._counts[reason] = self._counts.get(reason, 0) + count

    def count(self, reason: str) -> int:
        """Rows that were told under a reason."""
        return self._counts.get(reason, 0)

    def line(self) -> str:
        """`200 rows: 100 duplicates, 1 without an answer, 40 held out, 59 left for both`."""
        what = self.what.removesuffix("s") if self.total == 1 else self.what
        parts = ", ".join(
            f"{count:,} {reason}{'s' if reason in _NOUNS and count != 1 else ''}"
            for reason, count in self._counts.items()
        )
        return f"{self.total:,} {what}" + (f": {parts}" if parts else "")
