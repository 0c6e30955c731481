r"""Vectors in one notation: `\vec a`, `\overrightarrow{AB}`, `\mathbf{a}` and the unit vectors `\hat{i}`.

Bold letters are those with an arrow only where the other answer has arrows; elsewhere bold is a font. A letter without
either is no vector: `a` does not say `\vec{a}`.
"""

from __future__ import annotations

import re

from posttrain.rewards.math_lists import without_name
from posttrain.rewards.math_shape import shape

_LONGEST = 300  # characters
_ARROW = re.compile(r"\\(?:vec|overrightarrow)(?![a-zA-Z])|\\hat\s?\{?\s?[ijk](?![a-zA-Z])")
_LONG_ARROW = re.compile(r"\\overrightarrow\s?(?=\{)")
_UNIT = re.compile(r"\\hat\s?(?:\{\s?(?:\\(?:mathbf|boldsymbol|bm)\s?\{\s?)?([ijk])\s?\}?\s?\}|([ijk])(?![a-zA-Z]))")
_BOLD = re.compile(r"\\(?:mathbf|boldsymbol|bm|textbf)\s?\{\s?([A-Za-z0])\s?\}")
_AXIS = re.compile(
    r"\\(?:vec|hat|mathbf|boldsymbol|bm)\s?\{\s?(?:\\(?:mathbf|boldsymbol|bm)\s?\{\s?)?([ijk])\s?\}?\s?\}"
)
_TUPLE = re.compile(r"\s*\$?(?:\\left\s?)?(?:\(|\\langle)|\\begin\{[pb]matrix\}")


def as_arrows(gold: str, said: str) -> tuple[str, str]:
    """Both answers with their vectors as letters under arrows, where one of them has some."""
    if _TUPLE.search(gold) and (parts := _components(said, gold)) is not None:
        return gold, parts
    if _TUPLE.search(said) and (parts := _components(gold, said)) is not None:
        return parts, said
    arrows = [bool(_ARROW.search(text)) and len(text) <= _LONGEST for text in (gold, said)]
    if not any(arrows) or max(len(gold), len(said)) > _LONGEST:
        return gold, said
    if "\\hat" in gold or "\\hat" in said:
        gold, said = (_UNIT.sub(lambda match: f"\\vec{{{match[1] or match[2]}}}", text) for text in (gold, said))
    gold, said = (_LONG_ARROW.sub(r"\\vec", text) for text in (gold, said))
    if all(arrows):
        return gold, said
    return (gold, _BOLD.sub(r"\\vec{\1}", said)) if arrows[0] else (_BOLD.sub(r"\\vec{\1}", gold), said)


def _components(text: str, other: str) -> str | None:
    r"""`(2,-1,3)` for `2\mathbf{i}-\mathbf{j}+3\mathbf{k}` against an answer with components; else None."""
    if len(text) > _LONGEST or len(other) > _LONGEST or not _AXIS.search(text):
        return None
    width = len(shape(without_name(other)[1]).parts)
    *pieces, rest = _AXIS.split(text.strip().rstrip(".$ ").lstrip("$ "))
    sizes = dict(zip(pieces[1::2], (one.strip() for one in pieces[::2]), strict=True))
    if rest or width not in (2, 3) or len(sizes) < len(pieces) // 2 or (width == 2 and "k" in sizes):
        return None
    if any(place and size[:1] not in ("+", "-") for place, size in enumerate(sizes.values())):
        return None
    return f"({', '.join(_size(sizes.get(axis, '0')) for axis in 'ijk'[:width])})"


def _size(text: str) -> str:
    text = text.removeprefix("+").strip()
    return f"{text}1" if text in ("", "-") else text
