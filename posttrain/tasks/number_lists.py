"""Lists of whole numbers as people write them in a recipe or on the command line."""

from __future__ import annotations

from typing import Any

from posttrain.errors import ConfigError


def parse_numbers(value: Any, allowed: range, *, expected: str, where: str) -> list[int]:
    """Numbers from `3`, `[2, 4]`, `"2-4"` or `"2,5-7"`, each once, in the order given.

    Args:
        value: What was written.
        allowed: The numbers that make sense.
        expected: What to say where it is something else.
        where: The key or argument.

    Raises:
        ConfigError: It is none of these, or a number is not allowed.
    """
    numbers: list[int] = []
    try:
        for part in value.split(",") if isinstance(value, str) else [value] if isinstance(value, int) else value:
            first, dash, last = str(part).strip().partition("-")
            numbers += range(int(first), int(last if dash else first) + 1)
    except (TypeError, ValueError):
        numbers = []
    if not numbers or not all(number in allowed for number in numbers):
        raise ConfigError(repr(value), expected=expected, where=where)
    return list(dict.fromkeys(numbers))
