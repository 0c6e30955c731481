"""The numbers in lines of steps.jsonl and eval.jsonl, by the names that trackers show them under."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def flat(record: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a line by name, `/` between the keys that lead to one; of an interval, `_low` and `_high`."""
    for key, value in record.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}/")
        elif is_number(value):
            yield name, value
        elif isinstance(value, list | tuple) and len(value) == 2 and all(map(is_number, value)):
            yield from zip((f"{name}_low", f"{name}_high"), value, strict=True)


def means(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of each number over the lines that have it; of whole numbers, which count something, the last one."""
    seen: dict[str, list[float]] = {}
    for record in records:
        for name, value in flat(record):
            seen.setdefault(name, []).append(value)
    return {
        name: values[-1] if isinstance(values[-1], int) and not isinstance(values[-1], bool) else _mean(values)
        for name, values in seen.items()
    }


def _mean(values: Sequence[float]) -> float:
    return sum(map(float, values)) / len(values)


def is_number(value: Any) -> bool:
    """Whether it is one; `True` and `False` are."""
    return isinstance(value, int | float)
