"""Times of day as answers: `3:30`, `2:30 p.m.`, `14:30`, `4 PM`, `noon`."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HALF = r"(?:\\text\s*\{)?\s*([ap])\s*\.?\s*m\b\s*\.?\s*\}?"
_TIME = re.compile(rf"(\d{{1,2}})\s*:\s*(\d\d)(?:\s*:\s*(\d\d))?(?:\s*{_HALF})?", re.IGNORECASE)
_HOUR = re.compile(rf"(\d{{1,2}})\s*{_HALF}", re.IGNORECASE)
_NAMED = {"noon": "p", "midnight": "a"}


@dataclass(frozen=True, slots=True)
class Time:
    """A time of day.

    Args:
        hour: As written, 0 to 24.
        minute: 0 to 59.
        second: 0 to 59.
        half: `a` or `p`; "" when only the hour says which half of the day it is, if it does.
    """

    hour: int
    minute: int
    second: int = 0
    half: str = ""

    @property
    def of_day(self) -> int | None:
        """Seconds since midnight; None when it may be morning or evening."""
        if not self.half and 0 < self.hour <= 12:
            return None
        hour = self.hour % 12 + 12 * (self.half == "p") if self.half else self.hour % 24
        return 3600 * hour + 60 * self.minute + self.second


def clock(text: str) -> Time | None:
    """A text that is nothing but a time of day; None for everything else."""
    text = text.strip()
    if match := _TIME.fullmatch(text):
        time = Time(int(match[1]), int(match[2]), int(match[3] or 0), (match[4] or "").lower())
    elif match := _HOUR.fullmatch(text):
        time = Time(int(match[1]), 0, 0, match[2].lower())
    elif (name := text.casefold().removeprefix("12 ").removeprefix("12:00 ")) in _NAMED:
        return Time(12, 0, 0, _NAMED[name])
    else:
        return None
    most = 12 if time.half else 24
    return time if time.hour <= most and time.minute < 60 and time.second < 60 else None


def same_time(gold: Time, said: Time) -> bool:
    """Whether two times are one. Where one of them leaves the half of the day open, only the dials are compared."""
    if gold.of_day is not None and said.of_day is not None:
        return gold.of_day == said.of_day
    return (gold.hour, gold.minute, gold.second) == (said.hour, said.minute, said.second)
