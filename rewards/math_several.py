"""Several answers marked one after the other: whether they belong together, or the later one replaces the others."""

from __future__ import annotations

import re
from collections.abc import Sequence

from posttrain.rewards.math_text import cleaned

_LONGEST_GAP = 120  # characters between two marks that may belong together
#: Signs between two answers that say nothing by themselves, LaTeX's delimiters and spaces among them
_SIGNS = re.compile(r"\\[()\[\],;:! \\]|\\q?quad(?![a-zA-Z])|\\(?:text|mathrm|textbf)\s*\{|[\s$*_.,;:&{}()\[\]|/~-]+")
_NAME = re.compile(r"(?:\\[A-Za-z]+|[A-Za-z])'?(?:_\{?\w{1,3}\}?)?(?:\([a-z]\))?\s*(?:=|\\in(?![a-z]))")
_WORD = re.compile(r"[A-Za-z']+|\S")
#: Words that only count on: what stands on both sides of them is one answer
_JOINING = "and or also both as well plus respectively with either nor alongside together while"
#: Words that offer another answer in place of the one before
_HEDGING = "or maybe perhaps possibly alternatively otherwise either could might may probably another versus vs else"
#: Words that say nothing about the answer and may stand beside the others
_FILLING = (
    "the a an it is be answer answers answered final my other one option options guess choice value values result so"
    " that this i we think say solution solutions possibility possible candidate first second third if not"
    " can also first second was would"
)
_JOINS, _HEDGES, _FILLS = (frozenset(words.split()) for words in (_JOINING, _HEDGING, _FILLING))
#: Words with which somebody takes back what stands before
_CORRECTING = re.compile(
    r"\b(?:no|wait|actually|correct|correction|corrected|mistake|sorry|instead|rather|wrong|oops|hmm|error|recheck"
    r"|checking|hence|thus|therefore|so|then|final|finally)\b",
    re.IGNORECASE,
)
_STRONG_HEDGE = re.compile(
    r"\b(?:maybe|perhaps|possibly|alternatively|(?:could|might|may)\s+(?:also\s+)?be)\b", re.IGNORECASE
)
_PARTS = re.compile(
    r"(?:\(?(?:[b-h]|ii|iii|iv|v|vi|[2-9])[).:]|(?:part|answer|case|option|solution|guess|candidate|number|no\.?|choice)"
    r"\s*\(?(?:[b-h]|ii|iii|iv|[2-9]|two|three|four)\)?\s*[:.=)]?)",
    re.IGNORECASE,
)


def belong_together(gap: str) -> bool:
    r"""Whether the text between two marked answers makes them one answer, or a choice between two, which is none.

    `\boxed{3} and \boxed{8}`, `\boxed{3}, \boxed{8}`, `x = \boxed{3}, y = \boxed{8}`, `\boxed{3} or maybe \boxed{8}`
    belong together. After 'No, wait:' or a sentence of reasoning the later answer stands alone.
    """
    if len(gap) > _LONGEST_GAP:
        return False
    bare = _NAME.sub(" ", gap)
    bare = _PARTS.sub(" ", " ".join(_SIGNS.sub(" ", bare).split()) if _PARTS.search(bare) is None else bare)
    words = [word.casefold() for word in _WORD.findall(_SIGNS.sub(" ", bare))]
    if not words:
        return True
    if not all(word in _JOINS for word in words):
        if _CORRECTING.search(gap):
            return False
        if _STRONG_HEDGE.search(gap):
            return True
    hedged = any(word in _HEDGES for word in words)
    return all(word in _JOINS or word in _HEDGES or (hedged and word in _FILLS) for word in words)


def name_before(gap: str) -> str:
    """The name and equals sign at the end of a text, such as `y =`; "" without one."""
    matches = list(_NAME.finditer(gap[-40:]))
    if not matches or gap[-40:][matches[-1].end() :].strip():
        return ""
    return matches[-1].group() if matches[-1].group().endswith("=") else ""


def as_one(answers: Sequence[str]) -> str:
    """Answers that belong together as one text: a list, or the last of them where all are the same."""
    distinct = {_key(answer): answer.strip() for answer in answers}
    return ", ".join(distinct.values())


def _key(answer: str) -> tuple[str, bool, str | None]:
    read = cleaned(answer)
    return read.math.replace(" ", ""), read.percent, read.choice
