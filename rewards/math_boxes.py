r"""What the last `\boxed{...}` of a text holds, together with those before it that are part of the same answer."""

from __future__ import annotations

import re

from posttrain.rewards.math_several import as_one, belong_together, name_before

BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{|\d)")  # \boxed5 is LaTeX as well
_NO_BEFORE = re.compile(
    r"(?:\b(?:is|are|was|be)\s+(?:\w{4,12}ly\s+)?not|n't(?:\s+be|\s+think\s+(?:that\s+)?(?:it|this|the\s+answer)\s+is)?|\bcannot\s+be"
    r"|\b(?:wrong|incorrect|false)\s+(?:final\s+)?(?:answer|value|result|option|choice|solution)\s+(?:is|was|would\s+be))"
    r"[\s$*]*\\?[\[(]?\s*$",
    re.IGNORECASE,
)
_NO_BEHIND = re.compile(
    r"[\s$*_]{0,6}(?:\\[)\]][\s*_]{0,6})?(?:(?:,?\s+which|,?\s+but\s(?:this|that|it)|\.?[\s$*_]{0,6}\s(?:this|that|it))\s+)?"
    r"(?:(?:is|was|would\s+be)\s+(?:\w{4,12}ly\s+)?(?:wrong|incorrect|not\s+(?:right|correct))|(?:isn't|cannot\s+be|can't\s+be)\s+(?:right|correct)"
    r"|(?:is\s+(?:\w{4,12}ly\s+)?not|isn't|cannot\s+be|can't\s+be)\s+the\s+(?:right\s+|correct\s+|final\s+)?answer)(?!\s+(?:to|that|if))\b",
    re.IGNORECASE,
)
#: In front of a box that names what is wrong: 'step 3 is wrong'
_NAMED = re.compile(r"\b(?:step|statement|option|equation|line|claim|choice|number)s?[\s$*(\\]*$", re.IGNORECASE)
_BOXES_TRIED = 1000  # from the end, until one is not empty
_MOST_TOGETHER = 20
_LONGEST_BOX = 100_000  # characters looked through for the end of a box


def last_boxed(text: str) -> str | None:
    r"""What is in the last `\boxed{...}` that is not empty; "" when the last is never closed or all are denied.

    Boxes before it count with it where the words between say so, as in `\boxed{3} and \boxed{8}`: `3, 8`; see
    `math_several.py`. A box that is denied ('the answer is not', 'is wrong') does not count.
    None without any box. Braces are balanced; `\{` and `\}` are no braces. The time is linear in the text's length.
    """
    boxes = list(BOX.finditer(text))[-_BOXES_TRIED:]
    denied: list[str] = []
    for number in range(len(boxes) - 1, -1, -1):
        end = _end(text, boxes[number].end())
        if end is None:
            return ""
        content = _inside(text, boxes[number].end(), end)
        if content in denied or len(denied) > _MOST_TOGETHER:
            return ""
        if content and _is_denied(text, boxes[number].start(), end, content):
            denied.append(content)
        elif content:
            return _with_those_before(text, boxes[:number], boxes[number].start(), content)
    return "" if denied else None


def denied_behind(text: str, end: int) -> bool:
    """Whether the words from `end` on say that what stands before them is wrong."""
    return _NO_BEHIND.match(text[end : end + 80]) is not None


def _is_denied(text: str, start: int, end: int, content: str) -> bool:
    """Whether the words beside a box say that it is not the answer; which option is wrong may be the question."""
    before = text[max(0, start - 60) : start]
    if _NO_BEFORE.search(before):
        return True
    if _NAMED.search(before) or not any(character.isdigit() for character in content):
        return False
    return denied_behind(text, end)


def _with_those_before(text: str, boxes: list[re.Match[str]], start: int, content: str) -> str:
    contents: list[str] = [content]
    names: list[str] = []
    for box in reversed(boxes[-_MOST_TOGETHER:]):
        end = _end(text, box.end())
        if end is None:
            break
        if end > start:  # around the other one
            continue
        gap = text[end:start]
        inside = _inside(text, box.end(), end)
        if not inside or not belong_together(gap):
            break
        names.insert(0, name_before(gap))
        contents.insert(0, inside)
        start = box.start()
    names.insert(0, name_before(text[max(0, start - 40) : start]))
    if len(contents) > 1 and all(names) and "=" not in "".join(contents):
        contents = [f"{name} {inside}" for name, inside in zip(names, contents, strict=True)]
    return as_one(contents)


def _inside(text: str, start: int, end: int) -> str:
    return (text[start + 1 : end - 1] if text[start] == "{" else text[start:end]).strip()


def _end(text: str, start: int) -> int | None:
    """Where the box whose brace or digit is at `start` ends; None when it is not closed, or far away."""
    if text[start] != "{":
        return start + 1
    depth, position, end = 0, start, min(len(text), start + _LONGEST_BOX)
    while position < end:
        character = text[position]
        if character == "\\":
            position += 1  # whatever it is, it is no brace
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if not depth:
                return position + 1
        position += 1
    return None
