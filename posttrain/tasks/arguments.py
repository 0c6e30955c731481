"""What people write as a task's arguments, in a recipe or on the command line, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from posttrain.errors import ConfigError

T = TypeVar("T")


def checked(kind: type[T], options: Mapping[str, Any], *, count: int) -> T:
    """A task that has `count` demonstrations and nothing else, for a generator's caller.

    Raises:
        ConfigError: An option is out of bounds.
    """
    try:
        return TypeAdapter(kind).validate_python({**options, "demonstrations": count, "train": 0, "eval": 0})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(key) for key in first["loc"][:1]).replace("demonstrations", "count")
        where = place or str(getattr(kind, "name", kind.__name__))
        raise ConfigError(f"{first['input']!r}: {first['msg']}", where=where) from error


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


def check_source(task: Any, expected: str) -> None:
    """Refuse a task that names no source of its rows, or two, or a setting of the other one.

    Args:
        task: With `path`, `eval_path`, `dataset`, `config` and `eval_split`, each None where it is not given.
        expected: What the error says it wants, where not exactly one of path and dataset is given.

    Raises:
        ConfigError: It does.
    """
    if (task.path is None) == (task.dataset is None):
        seen = "neither path nor dataset" if task.path is None else "both path and dataset"
        raise ConfigError(seen, expected=expected, where="task")
    for key in ("config", "eval_split"):
        if task.dataset is None and getattr(task, key) is not None:
            raise ConfigError(
                f"{key} without dataset",
                expected="dataset, which it belongs to",
                where=f"task.{key}",
                fix="for files use path and eval_path",
            )
    if task.eval_path and task.eval_split:
        raise ConfigError("both eval_path and eval_split", expected="one of them", where="task.eval_split")
