r"""Letters of a gold answer that stand for any number: constants of integration, and parameters with their range.

`y=Ce^{2x}` is `y=Ae^{2x}`, and `(3t,-2t,t), t\in\mathbb{R}` is `(3s,-2s,s)`. One letter stands for one letter.
"""

from __future__ import annotations

import itertools
import re

_LETTER = re.compile(
    r"\\text\s?\{[^{}]*\}|\\mathbb\s?\{?\s?[A-Z]\s?\}?|\\[A-Za-z]+|(?P<letter>[A-Za-z](?:_\s?(?:\d|\{\s?\d\s?\}))?)"
)
_CONSTANT = re.compile(r"[CcKABD](?:_\d)?")
_STATED = re.compile(r"([a-z])(?:\s?,\s?([a-z]))?\s?\\in\s?\\mathbb\s?\{?\s?([RNZQC])\s?\}?")
_OTHERS = re.compile(r"\\(?:frac|sqrt|sin|cos|ln|exp)|e\s?\^|[xyt]")
_NEVER = frozenset("eixyzf")  # numbers, variables and functions
_LONGEST = 300  # characters
_MOST = 3  # letters that are renamed


def ranges_differ(gold: str, said: str) -> bool:
    r"""Whether both say what their letters are, and not the same: `k\in\mathbb{Z}` and `k\in\mathbb{N}`."""
    ours, theirs = ({match[3] for match in _STATED.finditer(text)} for text in (gold, said))
    return len(ours) == len(theirs) == 1 and ours != theirs


def renamings(gold: str, said: str) -> list[str]:
    """What is said with the letters of the gold answer, for each way to rename them; none without such letters."""
    if max(len(gold), len(said)) > _LONGEST:
        return []
    ours, theirs = _letters(gold), _letters(said)
    stated = {letter for match in _STATED.finditer(gold) for letter in match.groups()[:2] if letter}
    stated -= _NEVER
    mine = [one for one in ours if one in stated] if stated else _constants(gold, ours)
    kept = set(ours) - set(mine)
    yours = [one for one in theirs if one not in kept]
    if (
        not mine
        or _NEVER & set(yours)
        or len(mine) != len(yours)
        or len(mine) > _MOST
        or set(theirs) - set(yours) != kept
    ):
        return []
    if not stated and not all(_CONSTANT.fullmatch(one) or one in ("k",) for one in yours):
        return []
    return [
        _renamed(said, dict(zip(yours, order, strict=True)))
        for order in itertools.permutations(mine)
        if list(order) != yours
    ]


def _constants(gold: str, letters: list[str]) -> list[str]:
    """The letters that are constants of integration by their usual names, in a formula of others."""
    found = [one for one in letters if _CONSTANT.fullmatch(one)]
    numbered = any("_" in one for one in found)
    if not found or not _OTHERS.search(gold) or not ({"x", "t"} & set(letters)):
        return []
    integration = numbered or found == ["C"] or ({"A", "B"} == set(found) and "e" in letters)
    return found if integration else []


def _letters(text: str) -> list[str]:
    found = (match["letter"] for match in _LETTER.finditer(text))
    return list(dict.fromkeys(re.sub(r"[\s{}]", "", one) for one in found if one))


def _renamed(text: str, names: dict[str, str]) -> str:
    def new(match: re.Match[str]) -> str:
        letter = re.sub(r"[\s{}]", "", match["letter"] or "")
        return f"{names[letter]} " if letter in names else match.group()

    return _LETTER.sub(new, text)
