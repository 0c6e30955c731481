"""A series of numbers as one line of block characters, for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
GAP = " "


def sparkline(
    values: Sequence[float | None], width: int, *, low: float | None = None, high: float | None = None
) -> str:
    """Draw a series from its first value on the left to its last on the right.

    Args:
        values: In order; None, NaN and the infinities are gaps.
        width: Characters at most. A longer series is cut into `width` stretches of about equal length, of which each
            shows its mean; a shorter one takes one character a value.
        low, high: What the lowest and the highest block stand for; the least and the greatest mean where not given.

    Returns:
        Block characters, and blanks for gaps. Without `low` and `high` a series that is the same all along lies in the
        middle, one of zeros at the bottom.
    """
    count = min(len(values), max(width, 0))
    means = [_mean(values[place * len(values) // count : (place + 1) * len(values) // count]) for place in range(count)]
    seen = [mean for mean in means if mean is not None]
    if not seen:
        return GAP * count
    low = min(seen) if low is None else low
    high = max(seen) if high is None else high
    return "".join(GAP if mean is None else _block(mean, low, high) for mean in means)


def _mean(values: Sequence[float | None]) -> float | None:
    seen = [float(value) for value in values if value is not None and math.isfinite(value)]
    # Halves first: the sum of two large numbers may be infinite
    return sum(value / len(seen) for value in seen) if seen else None


def _block(value: float, low: float, high: float) -> str:
    span = high / 2 - low / 2
    if span <= 0:
        return BLOCKS[len(BLOCKS) // 2 - 1 if value else 0]
    share = (value / 2 - low / 2) / span
    return BLOCKS[min(max(int(share * len(BLOCKS)), 0), len(BLOCKS) - 1)]
