"""Where in a completion the final answer of a math problem is."""

from __future__ import annotations

import re

from posttrain.rewards.thinking import answer_section

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{|\d)")  # \boxed5 is LaTeX as well
_BOXES_TRIED = 1000  # from the end, until one is not empty
_LONGEST_BOX = 100_000  # characters looked through for the end of a box
_TAIL = 20_000  # characters at the end that are searched for anything but a box
_PHRASE = re.compile(
    r"\b(?:final\s+answer|answer|answers)\b(?:\s(?:to|of|for)\s[^.:=\n]{1,80}?\s(?=is\s|are\s))?[ \t*:=]{0,6}"
    r"(?:(?:is|are|equals)\b[ \t*:=]{0,6}|(?<=[:=]|\*)[ \t]*)",
    re.IGNORECASE,
)
_INLINE_MATH = re.compile(r"\s*(?:\$\$?(?!\d[\d.,]*\s+[a-z]{2})([^$\n]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\])")
_SENTENCE_END = re.compile(r"[.;!?](?=\s|$|\*|<)|,?\s(?:because|since|which|so)\s|<")
_END_TOKEN = re.compile(r"<\||</")  # of the text or of a part of it
_LAST_NUMBER = re.compile(r"-?(?<![\d.,])\$?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:/\d+)?%?")


def final_answer(completion: str, *, strict: bool = True) -> tuple[str | None, str]:
    """The text of the final answer, and where it was: `boxed`, `####`, `phrase`, `answer tag` or `last number`.

    What follows the thinking counts, and of that the last `<answer>` section when there is one; see
    `thinking.answer_section`. In it the last box with something in it counts, else the rest of the line
    after the last `####`, else what follows the last 'the answer is' or 'final answer:', else the whole `<answer>`
    section. A last box that is never closed is no answer, whatever came before it.

    Args:
        completion: The completion as text.
        strict: False takes the last number of the text when there is nothing else.

    Returns:
        The answer and where it was; None and a reason when there is no answer.
    """
    section, tagged = answer_section(completion)
    if not section.strip():
        return None, "nothing after the thinking" if completion.strip() else "an empty completion"
    boxed = last_boxed(section)
    if boxed is not None:
        return (boxed, "boxed") if boxed else (None, "the last \\boxed{ is never closed")
    tail = section[-_TAIL:]
    hashes = tail.rfind("####")
    if hashes >= 0:
        line = _END_TOKEN.split(tail[hashes + 4 :].strip().split("\n", 1)[0])[0].strip()
        return (line, "####") if line else (None, "nothing after ####")
    phrase = _after_phrase(tail)
    if phrase is not None:
        return phrase, "phrase"
    if tagged:
        return section.strip(), "answer tag"
    if not strict:
        numbers = [match.group() for match in _LAST_NUMBER.finditer(tail) if any(c.isdigit() for c in match.group())]
        if numbers:
            return numbers[-1], "last number"
    return None, "no \\boxed{...}, no ####, no 'the answer is'"


def gold_answer(text: str) -> str:
    """A gold answer by itself: of a worked solution, such as GSM8K's, what its last box or `####` marks."""
    return (final_answer(text)[0] or "") if "####" in text or _BOX.search(text) else text


def last_boxed(text: str) -> str | None:
    r"""What is in the last `\boxed{...}` that is not empty; "" when the last is never closed, None without any.

    Braces are balanced; `\{` and `\}` are no braces. The time is linear in the text's length.
    """
    openings = [match.end() for match in _BOX.finditer(text)]
    for opening in reversed(openings[-_BOXES_TRIED:]):
        content = _balanced(text, opening)
        if content is None:
            return ""
        if content.strip():
            return content.strip()
    return None


def _balanced(text: str, start: int) -> str | None:
    """What is inside the brace that opens at `start`, or the digit there; None when it is not closed, or far away."""
    if text[start] != "{":
        return text[start]
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
                return text[start + 1 : position]
        position += 1
    return None


def _after_phrase(text: str) -> str | None:
    found = None
    for found in _PHRASE.finditer(text):  # noqa: B007 (the last one is wanted)
        pass
    if found is None:
        return None
    rest = text[found.end() :].lstrip("*_ \t\n:")
    inline = _INLINE_MATH.match(rest)
    if inline:
        return next(group for group in inline.groups() if group is not None).strip() or None
    line = rest.split("\n", 1)[0]
    ending = _SENTENCE_END.search(line)
    return (line[: ending.start()] if ending else line).strip().strip("*_ ") or None
