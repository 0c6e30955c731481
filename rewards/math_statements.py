r"""Answers that are statements: `The series diverges` is `diverges`, `no solutions` is `No solution`.

Articles, copulas and the like say nothing; a negation and every other word does. What a statement is about may be left
out by one of two, never be another thing.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?|[^\w\s]")
_FILLING_WORDS = """
    the a an is are was be it its this that there they we he she does do did have has therefore thus so hence
    will would
"""
_FILLING = frozenset(_FILLING_WORDS.split())
_SAME = {"dne": ["not", "exist"], "doesn't": ["not"], "don't": ["not"], "isn't": ["not"], "aren't": ["not"],
         "cannot": ["can", "not"], "can't": ["can", "not"], "nonexistent": ["not", "exist"]}  # fmt: skip
#: What a statement may be about, and need not say; without an s at their end
_SUBJECTS_WORDS = """
    limit serie sequence integral function graph curve conic shape figure equation system triangle
    quadrilateral matrix statement line plane vector event number answer sum product expression inequality set
"""
_SUBJECTS = frozenset(_SUBJECTS_WORDS.split())
_WINNING = (["win"], ["wins"], ["won"], ["winning", "strategy"])
_DENIED = re.compile(r"\b(?:not?|never|none|cannot|neither|impossible|but|or|maybe|perhaps|unless|if)\b|n't\b")
_HEDGED = re.compile(r"\b(?:yes|but|or|maybe|perhaps|unless|if)\b")
_AFFIRMED = re.compile(r"(?:it|they|he|she|we|there|this|that)\b")
_OPPOSITES = [
    frozenset(words.split())
    for words in (
        "north south east west northeast northwest southeast southwest", "up down upward downward upwards downwards",
        "left right", "clockwise counterclockwise anticlockwise", "above below", "profit loss", "gain loss",
        "increase decrease", "forward backward", "ahead behind", "early late", "faster slower", "taller shorter",
        "older younger",
    )
]  # fmt: skip
_MOVING = frozenset(
    {"moves", "moved", "turns", "turned", "shifts", "shifted", "walks", "walked", "steps", "units", "spaces", "places"}
)
_PLAIN_WORD = re.compile(r"(?<![\\A-Za-z])[a-z]{2,16}(?![A-Za-z])")


def same_statement(gold: str, said: str) -> bool:
    """Whether two texts, both in the form of `math_words.normal_text`, say the same."""
    if gold == said:
        return True
    if gold in ("yes", "no") or said in ("yes", "no"):
        return _same_verdict(gold, said)
    ours, theirs = _said(gold), _said(said)
    if not ours or not theirs:
        return False
    return ours == theirs or _shortened(ours, theirs) or _shortened(theirs, ours)


def opposed(gold: str, said: str) -> bool:
    """Whether two answers give directions, both, and not the same: 6 km north and 6 km south."""
    ours, theirs = (set(_PLAIN_WORD.findall(text.casefold())) for text in (gold, said))
    return any(ours & pair and theirs & pair and ours & pair != theirs & pair for pair in _OPPOSITES)


def gives_direction(words: set[str]) -> bool:
    """Whether a sentence says in which direction, so that its number is not all it says; 'left' may be 'over'."""
    if any(words & pair for pair in _OPPOSITES if "left" not in pair):
        return True
    return "right" in words or ("left" in words and bool(words & _MOVING))


def _same_verdict(gold: str, said: str) -> bool:
    """`Yes, it is possible` is `Yes`; what takes the first word back is not."""
    (one, _, more), (other, _, others) = (text.partition(", ") for text in (gold, said))
    if one != other:
        return False
    rest = more or others
    if one == "yes":
        return not _DENIED.search(rest)
    return not _HEDGED.search(rest) and (not _AFFIRMED.match(rest) or bool(_DENIED.search(rest)))


def _said(text: str) -> list[str]:
    """The words of a text that say something, nouns and verbs without an s at their end."""
    words = [part for word in _WORD.findall(text) for part in _SAME.get(word, [word])]
    return [_stem(word) for word in words if word not in _FILLING]


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 4 and word.endswith("s") and not word.endswith("ss") else word


def _shortened(full: list[str], short: list[str]) -> bool:
    """Whether one text is another without what it is about, or without who else than a winner it could name."""
    if len(full) > 1 and full[0] in _SUBJECTS and short[0] not in _SUBJECTS and full[1:] == short:
        return True
    return any(full == [*short, *winning] for winning in _WINNING) and short[-1] in ("player", "team")
