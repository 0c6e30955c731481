"""Where a step and a value lie in a chart, which values its axes name, and how a number is written there."""

from __future__ import annotations

import math

from posttrain.drawing.steps import HYBRID, WARMUP, StepNames

WIDTH, HEIGHT = 360, 198
ROOM = 44  # that the word 'warm-up' takes
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 22, 36  # room for the unit above, and for the steps and their name below


class Frame:
    """Where a step and a value are in a drawing of WIDTH by HEIGHT units.

    Args:
        xs: The first and the last step.
        ys: The lowest and the highest value.
        log: The value axis is logarithmic; then `ys` are positive.
        boundary: The place of the warm-up's last step; see `StepNames`.
    """

    def __init__(self, xs: tuple[float, float], ys: tuple[float, float], log: bool, boundary: float | None = None):
        self.log, self.names = log, StepNames(boundary)
        self.x0, self.x1 = xs if xs[0] < xs[1] else (xs[0] - 1, xs[1] + 1)
        low, high = (math.log10(ys[0]), math.log10(ys[1])) if log else ys
        if high - low < 1e-9 * max(1.0, abs(high)):
            low, high = low - max(abs(low) * 0.1, 0.05), high + max(abs(high) * 0.1, 0.05)
        self.y0, self.y1 = low, high

    def x(self, step: float) -> float:
        """The place of a step from the left."""
        return LEFT + (step - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """The place of a value from the top; one beyond the axis lies on its end."""
        if self.log and value <= 0:
            return HEIGHT - BOTTOM
        at = math.log10(value) if self.log else value
        at = min(max(at, self.y0), self.y1)
        return HEIGHT - BOTTOM - (at - self.y0) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM)

    def values(self) -> list[float]:
        """The values that the axis names."""
        if not self.log:
            return round_ticks(self.y0, self.y1, 4)
        powers = [10.0**power for power in range(math.ceil(self.y0 - 1e-9), math.floor(self.y1 + 1e-9) + 1)]
        if len(powers) > 5:
            powers = powers[:: math.ceil(len(powers) / 5)]
        return powers if len(powers) >= 2 else [10**self.y0, 10**self.y1]

    def steps(self) -> list[tuple[float, str]]:
        """The places that the axis names and their steps there: whole ones, the same text never twice.

        Of a run of both stages those of the hybrid stage, from its own 0 on.
        """
        zero = self._zero()
        ticks = [
            tick
            for tick in round_ticks(self.x0 if zero is None else 0, self.x1 - (zero or 0), 4)
            if tick == round(tick)
        ]
        return [((zero or 0) + tick, f"{tick:.12g}") for tick in ticks or [self.x0, self.x1]]

    def stages(self, across: str) -> list[tuple[float, str]]:
        """What stands under the axis, and where its middle is: what the steps are, of each stage that has the room."""
        zero = self._zero()
        left = LEFT if zero is None else self.x(zero)
        found = [((left + WIDTH - RIGHT) / 2, self.across(across).lower())]
        if zero is not None and left - LEFT >= ROOM:
            found.append(((LEFT + left) / 2, WARMUP))
        return found

    def across(self, across: str) -> str:
        """What the steps are called."""
        if self.names.boundary is None:
            return across.capitalize()
        return f"{WARMUP if self._zero() is None else HYBRID} step".capitalize()

    def _zero(self) -> float | None:
        """Where the hybrid stage begins, if the axis shows it."""
        boundary = self.names.boundary
        return boundary if boundary is not None and self.x0 < boundary < self.x1 else None


def round_ticks(low: float, high: float, wanted: int) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten between two values, about as many as wanted."""
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    return [index * step for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def number(value: float, percent: bool = False, digits: int = 3) -> str:
    """A value as a label: three digits at most, or a whole percentage."""
    if not math.isfinite(value):
        return str(value)
    if percent:
        return f"{100 * value:.{max(0, digits - 3)}f} %"
    if value and not 0.001 <= abs(value) < 10_000:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"
