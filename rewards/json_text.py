"""The JSON value in a completion: read strictly, found among other text, and what is wrong with it in words.

Strictly means RFC 8259, and besides: no key twice in one object (readers disagree which one counts), no number that a
double can't hold, and no nesting beyond `DEEPEST`. The RFC lets a reader set such limits.
"""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import dataclass, replace
from typing import Any

from posttrain.rewards.thinking import after_thinking, tags

DEEPEST = 64
"""Arrays and objects inside one another that are read."""
LONGEST = 100_000
"""Characters of a completion; of a longer one nothing is read."""
MOST_BRACKETS = 100
"""Bracketed passages of a prose answer that are looked at; with more, nothing is read."""

_SPACE = " \t\n\r"  # JSON's white space; a byte order mark or a non-breaking space is other text
_MOST_DIGITS = len(str(int(sys.float_info.max)))
_END_TOKEN = re.compile(r"(?:<\|[^<>|\s]{1,40}\|>|</s>|<eos>)\Z")
_LONGEST_TOKEN = 44
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"?|[{}\[\]]', re.DOTALL)


class NotJson(ValueError):
    """Text that is no JSON value, and why, in words."""


class _Refused(Exception):
    """JSON by its grammar that we don't read."""


@dataclass(frozen=True)
class Reading:
    """What a completion says.

    Args:
        found: Whether there is exactly one JSON value.
        value: That value.
        alone: The completion is that value and nothing else, white space and end tokens apart.
        fenced: There is nothing else but a Markdown fence around it.
        note: Why nothing was found, or what else there is.
    """

    found: bool
    value: Any = None
    alone: bool = False
    fenced: bool = False
    note: str = ""


def parse(text: str) -> Any:
    """The JSON value that the whole text is.

    Raises:
        NotJson: It is none, or more than one.
    """
    text = text.strip(_SPACE)
    try:
        value, end = _decode(text, 0)
    except _Refused as error:
        raise NotJson(str(error)) from None
    except json.JSONDecodeError as error:
        raise NotJson(_in_words(error, text)) from None
    if end < len(text):
        raise NotJson(f"more text after the JSON: {text[end : end + 40].strip(_SPACE)!r}")
    return value


def read_answer(completion: str, *, think_in_prompt: bool = False) -> Reading:
    """The one JSON value of a completion: all of it, all that is in its fence, or the one object in its prose.

    Thinking is no part of the answer (`thinking.py`), nor is the pair of tags `<answer>` and `</answer>` around all the
    rest, which the reward `format` asks for. Where just one `<answer>` section stands among other text, it is what is
    read. In prose, the value is the only object outside of other brackets, or, when there is no object, the only array.
    What stands inside broken JSON is never taken for an answer, nor is one picked out of several.
    """
    if len(completion) > LONGEST:
        return Reading(False, note=f"{len(completion)} characters; at most {LONGEST} are read")
    text = _without_end(completion)
    after = after_thinking(text, in_prompt=think_in_prompt)
    if after is None:
        return Reading(False, note="the thinking is never closed")
    first = next((tag for tag in tags(text) if tag.thinking), None)
    before = "" if first is None or first.closes or think_in_prompt else text[: first.start]
    answer, around = _unwrapped(after.strip(_SPACE))
    reading = _read(answer)
    if reading.found and (around or before.strip(_SPACE)):
        return replace(reading, alone=False, fenced=False, note="text around the JSON")
    return reading


def _without_end(text: str) -> str:
    text = text.strip(_SPACE)
    while token := _END_TOKEN.search(text, max(0, len(text) - _LONGEST_TOKEN)):
        text = text[: token.start()].rstrip(_SPACE)
    return text


def _unwrapped(text: str) -> tuple[str, bool]:
    """What is inside the one `<answer>` section, and whether there is more than that; the text itself without one."""
    found = tags(text)
    if [tag.closes for tag in found] not in ([False], [False, True]):
        return text, False
    start, end = found[0].end, found[1].start if found[1:] else len(text)
    whole = found[0].start == 0 and bool(found[1:]) and found[1].end == len(text)
    return text[start:end].strip(_SPACE), not whole


def _read(text: str) -> Reading:
    if not text:
        return Reading(False, note="empty")
    try:
        return Reading(True, parse(text), alone=True)
    except NotJson as error:
        whole = str(error)
    inside = _inside_fence(text)
    if inside is not None:
        try:
            return Reading(True, parse(inside), fenced=True, note="a fence around the JSON")
        except NotJson as error:
            whole = str(error)
    try:
        values = _values_in_prose(text)
    except _Refused as error:
        return Reading(False, note=str(error))
    if not values:
        return Reading(False, note=whole)
    if len(values) > 1:
        return Reading(False, note=f"{len(values)} JSON values; one is expected")
    return Reading(True, values[0], note="text around the JSON")


def _inside_fence(text: str) -> str | None:
    if not text.startswith("```") or not text.endswith("```") or "\n" not in text:
        return None
    opening, _, rest = text.partition("\n")
    return rest[:-3] if opening[3:].strip().lower() in ("", "json") else None


def _values_in_prose(text: str) -> list[Any]:
    objects: list[Any] = []
    arrays: list[Any] = []
    position = 0
    for _ in range(MOST_BRACKETS):
        starts = [place for place in (text.find("{", position), text.find("[", position)) if place >= 0]
        if not starts:
            return objects or arrays
        start = min(starts)
        try:
            value, position = _decode(text, start)
        except json.JSONDecodeError:
            position = _after_bracket(text, start)
        else:
            (objects if isinstance(value, dict) else arrays).append(value)
    raise _Refused(f"more than {MOST_BRACKETS} bracketed passages")


def _after_bracket(text: str, start: int) -> int:
    """Behind the bracket that closes the one at `start`, or the end of the text."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        if token.group() in "{[":
            depth += 1
        elif token.group() in "}]":
            depth -= 1
            if not depth:
                return token.end()
    return len(text)


def _decode(text: str, start: int) -> tuple[Any, int]:
    """The JSON value at `start` and the position behind it; raises JSONDecodeError or _Refused."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except RecursionError:
        raise _Refused(f"nested deeper than {DEEPEST}") from None
    if depth(value) > DEEPEST:
        raise _Refused(f"nested deeper than {DEEPEST}")
    return value, end


def depth(value: Any) -> int:
    """How many arrays and objects are inside one another; 0 for a scalar."""
    levels, inside = 0, [value]
    while inside := [each for each in inside if isinstance(each, dict | list)]:
        levels += 1
        inside = [part for each in inside for part in (each.values() if isinstance(each, dict) else each)]
    return levels


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Refused(f"the key {shorten(twice)} twice in one object")
    return result


def _integer(digits: str) -> int:
    if len(digits) <= _MOST_DIGITS + 1:
        number = int(digits)
        if abs(number) <= sys.float_info.max:
            return number
    raise _Refused(f"a number too large for a double: {digits[:20]}...")


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise _Refused(f"a number too large for a double: {digits[:20]}")
    return number


def _constant(name: str) -> Any:
    raise _Refused(f"{name} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant, strict=True
)


def shorten(value: Any, limit: int = 60) -> str:
    """The value as Python writes it, cut to `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _in_words(error: json.JSONDecodeError, text: str) -> str:
    """Where the text stops being JSON, and the likely reason."""
    place, here = error.pos, text[error.pos : error.pos + 20]
    before = text[:place].rstrip(_SPACE)
    reason = (error.msg[:1].lower() + error.msg[1:]).removesuffix(" starting at")
    cause = ""
    if not before.strip("\ufeff") and "{" not in text and "[" not in text:
        return f"no JSON: {shorten(text, 40)}"
    if place >= len(text) or "nterminated string" in error.msg:
        cause = "cut off"
    elif here[0] == "'":
        cause = "single quotes"
    elif (here[0] in "}]" and before.endswith(",")) or (before.endswith(",") and "trailing comma" in error.msg):
        cause = "a comma too many"
    elif here.startswith(("//", "/*", "#")):
        cause = "a comment"
    elif here.startswith(("True", "False", "None")):
        cause = "Python's word for a JSON value"
    elif "Invalid control" in error.msg:
        cause = "a line break or tab inside a string"
    elif "property name" in error.msg:
        cause = "a key without quotes"
    elif "',' delimiter" in error.msg:
        cause = "a comma or a closing bracket is missing, or a quote is not escaped"
    elif "Invalid \\escape" in error.msg or "Invalid \\uXXXX" in error.msg:
        cause = "a backslash that is not escaped"
    return f"not JSON: {reason} at line {error.lineno}, column {error.colno}" + (f" ({cause})" if cause else "")
