r"""Sets of real numbers said in words: 'all real numbers except 2', 'all x >= -1', 'increasing on (0,2)'."""

from __future__ import annotations

import re

_TRIGGER = re.compile(
    r"(?i)\b(?:all|every|except|other|increasing|decreasing|convex|concave|positive|negative|continuous|defined)\b"
)
_OPENED = re.compile(r"\\text\s?\{([^{}]*)\}")
_EXCEPT = re.compile(
    r"^(?:(?:the )?set of )?(?:all |every |any )?(?:real )?(?:numbers?|reals?|values?|\\mathbb ?\{? ?R ?\}?|x)"
    r"(?: (?:of )?x)?,? ?"
    r"(?:except(?: for)?|excluding|other than|but|not equal to)\s+(?P<out>[^A-Za-z].*|\\.*|x ?=.*)$",
    re.IGNORECASE,
)
_ALL = re.compile(
    r"^(?:for )?(?:all|every|any)(?: real)?(?: numbers?| values?)?(?: of)?"
    r" (?=\$?[A-Za-z](?![A-Za-z])[^A-Za-z]{0,9}(?:[<>]|\\[lg]e|\\in(?![a-z])))",
    re.IGNORECASE,
)
_ON = re.compile(
    r"^(?:(?:it|[a-zA-Z]|[a-z]\([a-z]\)|the function) is |the function |f )?(?P<kind>(?:strictly |always )?"
    r"(?:increasing|decreasing|concave (?:up|down)|convex|concave|positive|negative|continuous|defined))"
    r" (?:on|in|for|over|when)(?: the intervals?)? (?=[(\[\\xX$-])",
    re.IGNORECASE,
)


def in_signs(gold: str, said: str) -> tuple[str, str]:
    """Both answers with sets said in words in signs, without what happens there unless both say it."""
    if not (_TRIGGER.search(gold) or _TRIGGER.search(said)):
        return gold, said
    (kind, ours), (other, theirs) = _without_kind(gold), _without_kind(said)
    if kind and other and kind != other:
        return gold, said
    return set_in_signs(ours), set_in_signs(theirs)


def set_in_signs(text: str) -> str:
    r"""`\mathbb{R}\setminus\{2\}` for 'all real numbers except 2'; other texts as they are."""
    if len(text) > 200 or not _TRIGGER.search(text):
        return text
    text = _without_kind(text)[1]
    flat = _flat(text)
    if (match := _EXCEPT.match(flat)) is not None:
        out = re.sub(r"(?:^|(?<=,)) ?x ?(?:=|\\ne) ?", "", re.sub(r",? (?:and|or) ", ", ", match["out"].strip(" $.")))
        out = out[2:-2] if out.startswith("\\{") and out.endswith("\\}") else out
        return rf"\mathbb{{R}}\setminus\{{{out}\}}"
    if (match := _ALL.match(flat)) is not None:
        return flat[match.end() :]
    return text


def _without_kind(text: str) -> tuple[str, str]:
    match = _ON.match(_flat(text)) if len(text) <= 200 else None
    return ("", text) if match is None else (match["kind"].casefold(), _flat(text)[match.end() :])


def _flat(text: str) -> str:
    return " ".join(_OPENED.sub(r" \1 ", text).split())
