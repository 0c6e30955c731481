"""What the live view of a run shows: plain facts, gathered as the run goes on, without a terminal.

A model's text is only ever kept here as text that a terminal can be given: no control characters, no escape codes.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

CURVES = ("reward", "p", "sft_norm", "grpo_norm", "kl", "entropy")
"""Keys of a line of `steps.jsonl` that are drawn over the steps, in this order."""

KEPT = 1024
"""Points kept of a curve; beyond twice as many, neighbours are averaged."""

LONGEST = 2000
"""Characters kept of a model's text: more than a terminal has room for."""

_PLAIN = re.compile(r"[\n\x20-\x7e]*")
_MARKS = 3  # combining marks kept on one character: a pile of them covers other lines


class Curve:
    """A series over a whole run in bounded memory: where it gets long, neighbours become their mean."""

    def __init__(self, kept: int = KEPT):
        self.points: list[float | None] = []
        self.latest: float | None = None
        self._kept, self._stride = kept, 1
        self._pending: list[float | None] = []

    def add(self, value: float | None) -> None:
        """Append what a step showed; None where it showed nothing."""
        self.latest = self.latest if value is None else value
        self._pending.append(value)
        if len(self._pending) < self._stride:
            return
        self.points.append(_mean(self._pending))
        self._pending = []
        if len(self.points) >= 2 * self._kept:
            self.points = [_mean(self.points[place : place + 2]) for place in range(0, len(self.points), 2)]
            self._stride *= 2


@dataclass(frozen=True)
class Shown:
    """One completion as the view shows it.

    Attributes:
        prompt, text: What was asked and said, safe to print.
        scores: Name to value of each reward that applied.
        note: Why, in the rewards' words.
        truncated: Whether it met the length limit.
    """

    prompt: str
    text: str
    scores: Mapping[str, float]
    note: str = ""
    truncated: bool = False

    @property
    def total(self) -> float:
        """The sum of its scores."""
        return sum(self.scores.values())


@dataclass
class Bar:
    """How far a stage or an evaluation is.

    Attributes:
        figures: Its latest figures, in a line.
        left: The time left, or that it is done.
    """

    name: str
    step: int
    total: int
    figures: str = ""
    left: str = ""


@dataclass
class LiveState:
    """All that a frame shows.

    Attributes:
        bars: The stages, and the evaluation that is going on, in order.
        curves: A curve for each of `CURVES`; empty before the first step.
        stage, step: Of the latest step; "" and 0 before it.
        mix: What the latest step was made of, as in `steps.jsonl`.
        reason: Why, in words.
        by_source: Of the latest step that sampled, each source's mean reward.
        completions: Of the latest rollouts, those to show.
        completions_step: The step they are of, 0 where there are none.
        alarms: The latest alarms, newest last.
    """

    bars: list[Bar] = field(default_factory=list)
    curves: dict[str, Curve] = field(default_factory=lambda: {name: Curve() for name in CURVES})
    stage: str = ""
    step: int = 0
    mix: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    by_source: Mapping[str, float] = field(default_factory=dict)
    completions: list[Shown] = field(default_factory=list)
    completions_step: int = 0
    alarms: list[str] = field(default_factory=list)
    _sampled: tuple[int, Callable[[], Sequence[Mapping[str, Any]]]] | None = None

    def add_record(self, record: Mapping[str, Any]) -> None:
        """Take in a line of `steps.jsonl`."""
        self.stage, self.step = record["stage"], record["step"]
        self.mix, self.reason = record.get("mix") or {}, safe(str(record.get("reason") or ""), lines=False)
        seen = record.get("by_source") or {}
        scored = {safe(name, lines=False): of["reward"] for name, of in seen.items() if of.get("reward") is not None}
        self.by_source = scored or self.by_source
        for name, curve in self.curves.items():
            curve.add(record.get(name))

    def forget_steps(self) -> None:
        """Drop what the lines of `steps.jsonl` brought."""
        self.curves, self.stage, self.step = {name: Curve() for name in CURVES}, "", 0

    def add_completions(self, step: int, rows: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
        """Note that a step has rollouts; `rows` gives them (see `ledger.rollout_rows`) once they are to be drawn."""
        self._sampled = (step, rows)

    def catch_up(self, count: int = 3) -> None:
        """Look at the latest rollouts, if it was not done yet: the best, the worst, and some in between are kept."""
        if self._sampled is None:
            return
        (self.completions_step, rows), self._sampled = self._sampled, None
        ranked = sorted(rows(), key=lambda row: -sum(_scores(row).values()))
        last = len(ranked) - 1
        places = dict.fromkeys(round(place * last / max(count - 1, 1)) for place in range(min(count, len(ranked))))
        self.completions = [as_shown(ranked[place]) for place in places]

    def add_alarm(self, text: str, kept: int = 5) -> None:
        """Take in an alarm's line."""
        self.alarms = [*self.alarms, safe(text, lines=False)][-kept:]


def as_shown(row: Mapping[str, Any]) -> Shown:
    """A row of a table of rollouts, made safe to print."""
    return Shown(
        prompt=safe(_text(row.get("prompt")), lines=False),
        text=safe(_text(row.get("completion"))),
        scores={safe(name, lines=False): value for name, value in _scores(row).items()},
        note=safe(str(row.get("note") or ""), lines=False),
        truncated=bool(row.get("truncated")),
    )


def _scores(row: Mapping[str, Any]) -> dict[str, float]:
    """Name to score of the rewards that apply to a rollout: TRL has NaN for the others."""
    named = {key.removeprefix("reward/"): value for key, value in row.items() if key.startswith("reward/")}
    return {name: float(value) for name, value in named.items() if value is not None and not math.isnan(value)}


def figure(value: Any) -> str:
    """A figure as people read it: a mix as its shares, a number with as many digits as tell something."""
    if isinstance(value, Mapping):
        return " + ".join(f"{share:.2f} {name}" for name, share in value.items() if share) or "none"
    if isinstance(value, float):
        return f"{value:.2f}" if 0.01 <= abs(value) < 1000 or value == 0 else f"{value:.1e}"
    return str(value)


def safe(text: str, *, lines: bool = True) -> str:
    """Text that no terminal takes a command from: control characters and marks of direction become visible signs.

    Args:
        text: Of a model, a reward or a data set.
        lines: Keep the ends of lines; else they become blanks.
    """
    text = text[:LONGEST].replace("\r\n", "\n").replace("\t", " ")
    if not lines:
        text = " ".join(text.split())
    if _PLAIN.fullmatch(text):
        return text
    shown, marks = [], 0
    for char in text:
        marks = marks + 1 if unicodedata.combining(char) else 0
        if marks <= _MARKS:
            shown.append(char if char == "\n" else _visible(char))
    return "".join(shown)


def _visible(char: str) -> str:
    kind = unicodedata.category(char)
    if kind in ("Cc", "Cs"):
        code = ord(char)
        return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"
    if kind in ("Zl", "Zp"):
        return " "
    # Marks of direction and other characters of no width could make a line look other than it is
    return "" if kind == "Cf" else char


def _text(value: Any) -> str:
    """The text of a prompt or completion: a string, or what its messages say."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return "\n".join(str(each.get("content", "")) if isinstance(each, Mapping) else str(each) for each in value)
    return "" if value is None else str(value)


def _mean(values: Sequence[float | None]) -> float | None:
    seen = [value for value in values if value is not None]
    return sum(seen) / len(seen) if seen else None
