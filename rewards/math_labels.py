r"""Answers whose parts have labels: `(a) 1/2 (b) 1/4`, `(1) 4; (2) 7`, `\text{length } 12, \text{ width } 5`.

Labels that count say where a part stands, so against a bare list the order counts. Labels of words name a value, and
one may be written shorter than the other: `max` is `maximum`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from posttrain.rewards.math_shape import plain, shape

Same = Callable[[str, str], bool]
_LONGEST = 600  # characters
_COUNTS = (
    ("1", "2", "3", "4", "5", "6", "7", "8"),
    ("a", "b", "c", "d", "e", "f", "g", "h"),
    ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii"),
)
_ONE = r"\(?(?P<{0}>[1-8]|[a-h]|i{{1,3}}|iv|vi{{0,3}})\)"
_PART = r"(?:[Pp]art\s{0,2})?"
#: A label inside \text, with whatever else the \text says
_IN_TEXT = re.compile(rf"\\text\s?\{{\s{{0,3}}{_PART}{_ONE.format('label')}[\s:]{{0,3}}")
_LABEL = re.compile(rf"(?:^|(?<=[\s,;.])){_PART}{_ONE.format('label')}(?:\s*:\s*|\s+)(?=\S)")
_STARTS = re.compile(rf"(?:\$|\\text\s?\{{\s?)?{_PART}\(?(?:[1-8]|[a-h]|i{{1,3}}|iv|vi{{0,3}})\)")
_OPERATOR_END = re.compile(r"(?:[-+*/^=<>]|\\(?:times|cdot|pm|div|le|ge))$")
_OPERATOR_START = re.compile(r"[+*/^=<>]|-\s|\\(?:times|cdot|pm|div|le|ge|cup|cap)(?![a-z])")
_WORD_LABEL = re.compile(
    r"(?:\\text\s?\{\s*(?P<wrapped>[A-Za-z]{3,20}(?: [A-Za-z]{2,20}){0,2})\s*(?:[:=]|\bis)?\s*\}"
    r"|(?P<bare>[A-Za-z]{3,20}(?: [a-z]{2,20}){0,2}?)(?=[\s:]))"
    r"\s*(?::|\\text\s?\{\s*is\s*\}|is\s)?\s*(?P<value>[-+]?(?:\d|\\(?:frac|sqrt|pi)|\$|\().*)",
    re.DOTALL,
)
_WORD = re.compile(r"[A-Za-z]?[a-z]{2,60}|\\(?:max|min)")
#: Words in front of a value that say something about it, and name nothing
_NO_LABEL_WORDS = """
    about at all and any approximately around base between both but by cos each either even every exactly
    except for from if increasing decreasing least less log mod more most near neither no none nor not odd of
    on only or over roughly sin some sqrt tan than then to under unless until when where with without max min
    gcd lcm
"""
_NO_LABEL = frozenset(_NO_LABEL_WORDS.split())


def same_labelled(gold: str, said: str, same: Same) -> bool | None:
    """Whether answers with counted parts are the same; None where neither counts its parts."""
    ours, theirs = labelled(gold), labelled(said)
    if ours is None and theirs is None:
        return None
    ours, theirs = ours or _bare(gold), theirs or _bare(said)
    if ours is None or theirs is None or len(ours) != len(theirs):
        return False
    return all(same(one, other) for one, other in zip(ours, theirs, strict=True))


def labelled(text: str) -> tuple[str, ...] | None:
    """The parts of an answer that counts them, in their order; None for all others."""
    if len(text) > _LONGEST or not _STARTS.match(text.strip()):
        return None
    flat = _IN_TEXT.sub(lambda match: f" ({match['label']}) \\text{{", text.replace("~", " "))
    flat = re.sub(r"\\text\s?\{\s*\}|\\q?quad(?![a-z])|\\[,; ]|\\\\", " ", flat).strip().strip("$").strip()
    marks = list(_LABEL.finditer(flat))
    if len(marks) < 2 or marks[0].start():
        return None
    labels = [mark["label"] for mark in marks]
    count = next((one for one in _COUNTS if sorted(labels) == sorted(one[: len(labels)])), None)
    if count is None:
        return None
    ends = [*(mark.start() for mark in marks[1:]), len(flat)]
    values = [_value(flat[mark.end() : end]) for mark, end in zip(marks, ends, strict=True)]
    if not all(values):
        return None
    return tuple(values[labels.index(label)] for label in count[: len(labels)])


def _value(text: str) -> str:
    """What stands behind a label; "" where the label is a factor of a product or another part of a formula."""
    text = re.sub(r"(?:[\s,;.]|\band)+$", "", text.strip())
    return "" if not text or _OPERATOR_END.search(text) or _OPERATOR_START.match(text) else text


def _bare(text: str) -> tuple[str, ...] | None:
    made = shape(text)
    return made.parts if made.kind in ("list", "round") else None


def word_label(part: str) -> tuple[str, str] | None:
    r"""`length` and `12` from `\text{length } 12`; None where no word names the value."""
    match = _WORD_LABEL.fullmatch(plain(part))
    if match is None:
        return None
    label = (match["wrapped"] or match["bare"]).casefold().removeprefix("the ").removesuffix(" is")
    return (
        None
        if set(label.split()) & _NO_LABEL and label not in ("max", "min")
        else (label.replace(" ", ""), match["value"])
    )


def matching(names: Sequence[str], others: Sequence[str]) -> list[int] | None:
    """Where each name stands among the others, one of both perhaps shorter; None unless each has its own."""
    places = []
    for name in names:
        found = [place for place, other in enumerate(others) if _alike(name, other)]
        if len(found) != 1:
            return None
        places.append(found[0])
    return places if len(set(places)) == len(others) else None


def _alike(one: str, other: str) -> bool:
    if one == other:
        return True
    words = [name.removeprefix("\\").casefold() if _WORD.fullmatch(name) else "" for name in (one, other)]
    shorter, longer = sorted(words, key=len)
    return len(shorter) > 2 and longer.startswith(shorter)
