r"""Vectors in one notation: `\vec a`, `\overrightarrow{AB}`, `\mathbf{a}` and the unit vectors `\hat{i}`.

Bold letters are those with an arrow only where the other answer has arrows; elsewhere bold is a font. A letter without
either is no vector: `a` does not say `\vec{a}`.
"""

from __future__ import annotations

import re

_LONGEST = 300  # characters
_ARROW = re.compile(r"\\(?:vec|overrightarrow)(?![a-zA-Z])|\\hat\s?\{?\s?[ijk](?![a-zA-Z])")
_LONG_ARROW = re.compile(r"\\overrightarrow\s?(?=\{)")
_UNIT = re.compile(r"\\hat\s?(?:\{\s?(?:\\(?:mathbf|boldsymbol|bm)\s?\{\s?)?([ijk])\s?\}?\s?\}|([ijk])(?![a-zA-Z]))")
_BOLD = re.compile(r"\\(?:mathbf|boldsymbol|bm|textbf)\s?\{\s?([A-Za-z])\s?\}")


def as_arrows(gold: str, said: str) -> tuple[str, str]:
    """Both answers with their vectors as letters under arrows, where one of them has some."""
    arrows = [bool(_ARROW.search(text)) and len(text) <= _LONGEST for text in (gold, said)]
    if not any(arrows) or max(len(gold), len(said)) > _LONGEST:
        return gold, said
    if "\\hat" in gold or "\\hat" in said:
        gold, said = (_UNIT.sub(lambda match: f"\\vec{{{match[1] or match[2]}}}", text) for text in (gold, said))
    gold, said = (_LONG_ARROW.sub(r"\\vec", text) for text in (gold, said))
    if all(arrows):
        return gold, said
    return (gold, _BOLD.sub(r"\\vec{\1}", said)) if arrows[0] else (_BOLD.sub(r"\\vec{\1}", gold), said)
