"""Regular expressions of a JSON Schema, as `regex` ones: these can be given a time limit, Python's `re` can't.

JSON Schema refers to ECMA-262, whose patterns mean something else in places, and have escapes that `regex` lacks.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import regex

LARGEST = 20_000
"""Characters to match once every repetition is written out."""
_PART = re.compile(
    r"(?P<escape>\\(?:[pPxu]\{[^{}]*\}|c[A-Za-z]|k<\w+>|.))|"
    r"\[\^?\]?(?P<set>(?:[^\]\\]|\\.)*)\]|\{\d+(?:,(?P<most>\d*))?\}|.",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:u\{[^{}]*\}|c[A-Za-z]|.)", re.DOTALL)
_ASCII = {r"\d": "0-9", r"\w": "A-Za-z0-9_"}


@lru_cache(maxsize=4096)
def compiled(source: str) -> Any:
    """A schema's pattern as a `regex` one.

    As in ECMA-262, `$` is the very end, `\\d` and `\\w` are ASCII, `\\cJ` is a control character, `\\u{1F600}` a code
    point and `\\k<name>` what a group has matched.

    Raises:
        regex.error: It is no regular expression.
    """

    def translate(match: re.Match[str]) -> str:
        text = match.group()
        if text == "$":
            return r"\Z"
        if match["set"] is not None:
            return _ESCAPE.sub(lambda escape: _ASCII.get(escape.group(), _character(escape.group())), text)
        if text in (r"\D", r"\W"):
            return f"[^{_ASCII[text.lower()]}]"
        if text.startswith(r"\k<"):
            return f"(?P={text[3:-1]})"
        return f"[{_ASCII[text]}]" if text in _ASCII else _character(text)

    return regex.compile(_PART.sub(translate, source))


def _character(escape: str) -> str:
    """`\\cJ` and `\\u{A}` as an escape that `regex` knows; anything else as it is."""
    if escape.startswith(r"\c") and len(escape) == 3:
        return f"\\x{ord(escape[2]) % 32:02x}"
    if escape.startswith(r"\u{"):
        try:
            return f"\\U{int(escape[3:-1], 16):08x}"
        except ValueError:
            return escape
    return escape


def written_out(source: str) -> int:
    """The size of a pattern with its counted repetitions written out: what compiling it costs."""
    groups = [0]  # the size so far of each open group
    last = 0
    for match in _PART.finditer(source):
        text = match.group()
        if text == "(":
            groups.append(0)
            last = 0
        elif text == ")" and len(groups) > 1:
            last = groups.pop()
            groups[-1] += last
        elif text[0] == "{" and text[-1] == "}":
            times = max(int(number[:9]) for number in re.findall(r"\d+", text))
            groups[-1] += last * max(times - 1, 0)
            last *= max(times, 1)
        else:
            last = 1
            groups[-1] += 1
    return sum(groups)
