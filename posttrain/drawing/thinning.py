"""A long line as the few points and rows that can be seen: its highs and lows, its running mean, its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[float, float]
MOST_POINTS = 360  # more than one a unit of a drawing can't be seen
ROWS = 20  # of the table behind a chart


def extremes(points: list[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most `most` points: the lowest and the highest of each stretch, so that no spike is lost."""
    if len(points) <= most:
        return points
    size = math.ceil(2 * len(points) / most)
    kept: list[Point] = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        low, high = min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])
        kept += sorted({low, high})
    return kept


def means(points: list[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most `most` points, each the mean of a stretch."""
    size = math.ceil(len(points) / most)
    if size <= 1:
        return points
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def running_mean(points: list[Point]) -> list[Point]:
    """Each value's mean with its neighbours, over about a twentieth of the line."""
    reach = max(1, len(points) // 40)
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    smooth = []
    for index, (x, _) in enumerate(points):
        low, high = max(0, index - reach), min(len(points), index + reach + 1)
        smooth.append((x, (sums[high] - sums[low]) / (high - low)))
    return smooth


def stretches(lines: Sequence[list[Point]], most: int = ROWS) -> list[tuple[tuple[float, float], list[list[float]]]]:
    """The values of several lines by stretches of the steps at which any has one.

    Returns:
        At most `most` times ((first step, last step), the values of each line between them).
    """
    steps = sorted({x for points in lines for x, _ in points})
    size = math.ceil(len(steps) / most) if steps else 1
    place = {step: index // size for index, step in enumerate(steps)}
    cells: list[list[list[float]]] = [[[] for _ in lines] for _ in range(math.ceil(len(steps) / size))]
    for number, points in enumerate(lines):
        for x, y in points:
            cells[place[x]][number].append(y)
    ends = [(steps[start], steps[min(start + size, len(steps)) - 1]) for start in range(0, len(steps), size)]
    return list(zip(ends, cells, strict=True))
