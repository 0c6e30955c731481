r"""Answers in a sentence: `The least such $k$ is 34.` says 34; a sentence that ends in no value is no answer."""

from __future__ import annotations

import re

_ADVERB = r"(?:therefore|thus|hence|then|so|simply|just|exactly|precisely|indeed|now|clearly|equal\s+to|given\s+by)"
_VERB = re.compile(
    rf"\b(?:is|are|equals|was|be|becomes|gives|equal\s+to|=)\s+(?:{_ADVERB}\s*,?\s+)*(?:\:\s*)?(?=\S)", re.IGNORECASE
)
#: How a value starts: a sign, a digit, a formula, a bracket, a letter by itself
_VALUE = re.compile(
    r"(?:[-+]\s*)?(?:[€£¥√π]|\d|\.\d|\\(?!text\{\s*[a-z]{2})|\$|[(\[{]|\*\*|[A-Za-z](?![A-Za-z'])|(?:about|approximately)\s+\d"
    r"|sqrt|pi\b)"
)
#: With these in front of it, what a sentence says last is not what it says
_DOUBT = re.compile(
    r"\b(?:not|never|no|cannot|if|unless|false|wrong|incorrect|suppose|assume|guess|maybe|perhaps|possibly|might|could"
    r"|may|either|or|neither|whether|hardly|impossible|unlikely|doubt)\b|n't\b",
    re.IGNORECASE,
)
_QUALIFIED = re.compile(
    r"^(?:\\text\{\s*)?(?:about|approximately|approx\.?|around|roughly|circa)[\s}]+(?=[-+]?[$\\\d.])", re.IGNORECASE
)
_EXACT = re.compile(r"^(?:exactly|precisely|only|just|a\s+total\s+of)\s+(?=[-+]?[$\\\d.])", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]{2,}")
_VERBS = """
    is are was were be has have had can cannot must see shown does do did will would should may might answers varies
    vary prove proof show follows exists holds there we it they she he
"""
_POINTERS = re.compile(
    r"^(?:see|refer|answers?\s+(?:may|will|can)?\s*vary|proof|prove|shown?|as\s+(?:shown|above|below)|diagram|graph|figure"
    r"|explanation|sample\s+answer)\b",
    re.IGNORECASE,
)
_MOST_WORDS = 8
_LONGEST = 400  # characters of a sentence that is looked at


def spoken_value(text: str) -> str | None:
    r"""The value that a sentence ends in: `34` of 'The least such $k$ is 34.'; None for everything else.

    Nothing is read out of a sentence that denies, doubts or offers a choice, nor out of one with several verbs that
    have a value behind them.
    """
    text = text.strip().rstrip(".!;, ").strip()
    if len(text) > _LONGEST or not text[:1].isascii() or not (text[:1].isalpha() or text[:1] in "$\\*"):
        return None
    verbs = list(_VERB.finditer(text))
    if not verbs or not _WORD.search(text[: verbs[-1].start()].replace("\\text", "")):
        return None
    before, value = text[: verbs[-1].start()], text[verbs[-1].end() :].strip()
    if _DOUBT.search(before) or not _VALUE.match(value):
        return None
    if value.count("{") != value.count("}"):  # the verb stands in a \\text behind a formula
        return None
    if any(_VALUE.match(text, verb.end()) for verb in verbs[:-1]):
        return None
    return value


def starts_with_value(text: str) -> bool:
    """Whether a text starts as a value does: with a number, a formula, a bracket or a letter by itself."""
    return _VALUE.match(text.lstrip("*_ ")) is not None


def unqualified(text: str) -> str:
    """`7` of 'about 7' and 'exactly 7'; a bound such as 'at least 7' stays what it is."""
    return _EXACT.sub("", _QUALIFIED.sub("", text))


def why_no_answer_text(text: str) -> str | None:
    """Why a gold answer of words is none that an answer could repeat; None when it is one."""
    words = [word.casefold() for word in _WORD.findall(re.sub(r"\\[A-Za-z]+", " ", text))]
    if _POINTERS.match(text) and len(words) > 1:
        return "it points to something else"
    if len(words) >= _MOST_WORDS or (len(words) >= 4 and set(_VERBS.split()) & set(words)):
        return "no value stands at its end"
    return None
