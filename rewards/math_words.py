r"""Answers that are words or the letter of a choice: `\text{Friday}`, `Mrs. Hill`, `May 3`, `(B)`, `B. 12`, `A, C`."""

from __future__ import annotations

import re
import unicodedata

_WORDS = re.compile(r"[A-Za-z][A-Za-z'\- ]*")
_SHORT_WORDS = frozenset({"yes", "no", "odd", "even", "true", "false", "none", "never", "both", "mon", "tue", "wed",
                          "thu", "fri", "sat", "sun", "may", "all", "red", "blue"})  # fmt: skip
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
#: What no text has, once its \text{} are opened
_MATHEMATICS = re.compile(r"[\\^_=<>+*{}$|]|[A-Za-z]\(|\d\s*/|/\s*\d|%")
_PRODUCT = re.compile("[abcdxyz]{3}")  # abc and xyz are the commonest words that are none
_FUNCTION = re.compile(r"(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?|log|ln|exp|gcd|lcm|max|min|det|mod|sqrt|pi|inf|infinity")
_WORD = re.compile(r"[^\W\d_]+")
_LONG_WORD = re.compile(r"(?=[A-Za-z]*[aeiouyAEIOUY])[A-Za-z]{3}|[^\W\d_a-zA-Z\u0370-\u03ff]")
#: A letter of a choice: (B), B), B., B:, with what it stands for behind
_CHOICE = re.compile(
    r"(?:(?:the\s+)?(?:option|choice|answer)\s*:?\s*)?"
    r"(?:\(\s*(?P<round>[A-J])\s*\)|\[\s*(?P<square>[A-J])\s*\]|(?P<letter>[A-J])\s*(?:[.:]\s|\)(?!\s*[)(,])|[.:]$|$))"
    r"\s*(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_NAMED_CHOICE = re.compile(r"(?:the\s+)?(?:option|choice)\s+\(?([A-J])\)?", re.IGNORECASE)
_ANOTHER_CHOICE = re.compile(r"\(\s*[A-J]\s*\)|(?:\bor\b|\band\b|[,;/&])\s*\(?[A-J](?![A-Za-z])|(?<!\w)[A-J][.):]\s")
_ONE = r"(?:\([A-J]\)|[A-J])"
_LETTERS = re.compile(rf"{_ONE}(?:\s*[,;&]\s*(?:and\s+|or\s+)?{_ONE})+", re.IGNORECASE)


def named_choice(text: str) -> str | None:
    """The letter of 'Option B'; None for everything else."""
    match = _NAMED_CHOICE.fullmatch(text)
    return match[1].upper() if match else None


def as_choice(text: str) -> tuple[str, str] | None:
    """The letter of a choice and what stands behind it, if anything; None when a text starts with no such letter.

    A letter that stands there without a bracket or stop is one only by itself; two letters are no choice.
    """
    match = _CHOICE.match(text) if text[:1].isalpha() or text[:1] in "([" else None
    if match is None:
        return None
    letter = match["round"] or match["square"] or match["letter"]
    rest = match["rest"].strip()
    if not letter.isupper() or _ANOTHER_CHOICE.search(rest) or rest[:1] in ("^", "_", "=", "!", "'", "*", "/"):
        return None
    # (A)(B) and (C)x^2 are products; words, and a number behind a space, are not multiplied by a letter in front
    if rest and not match["letter"] and not text[: match.start("rest")].endswith(" "):
        return (letter, rest) if rest[0].isdigit() or rest.startswith("\\text") else None
    return None if rest[:1] in ("(", "[") else (letter, rest)


def letters_of_choices(text: str) -> str | None:
    """`A, C` for several letters of choices in whatever order; None for everything else."""
    if not _LETTERS.fullmatch(text):
        return None
    letters = re.findall(r"(?<![A-Za-z])[A-Ja-j](?![A-Za-z])", text)
    if not all(letter.isupper() for letter in letters):
        return None
    return ", ".join(sorted(set(letters)))


def plain_words(text: str) -> str | None:
    r"""Words that stand there without \text: long enough, or known, or they are a product of variables."""
    if not _WORDS.fullmatch(text):
        return None
    parts = text.split()
    if any(len(part) >= 4 for part in parts) or all(part.casefold() in _SHORT_WORDS for part in parts):
        return " ".join(parts).casefold()
    return text if len(text) == 1 and text.isupper() else None


def as_words(text: str, *, wrapped: bool) -> str | None:
    r"""The text of an answer that is a text and no mathematics, in one form; a single letter keeps its case.

    Args:
        text: An answer without what stands around it.
        wrapped: A command such as \text stood around all of it: then it is a text unless it is a number.
    """
    bare = _TEXT.sub(r" \1 ", text)
    wrapped = wrapped or (bare != text and not _TEXT.sub("", text).strip(" .,;()\"'"))
    bare = " ".join(bare.split()).strip(" .,;:!\"'")
    if bare.startswith("(") and bare.endswith(")"):
        bare = bare[1:-1].strip()
    if not bare or not any(character.isalpha() for character in bare):
        return None
    if len(bare) == 1:
        return bare if bare.isupper() or not bare.isascii() else None
    if not wrapped and _PRODUCT.fullmatch(text) and len(set(text)) == len(text):
        return None
    if not wrapped and "\\text" in text and not _is_text(_TEXT.sub("", text).strip()):
        return None  # n \text{ ways}
    if (words := plain_words(bare)) is not None:
        return words
    if not (wrapped and "\\" not in bare) and not _is_text(bare):
        return None
    return normal_text(bare)


def _is_text(text: str) -> bool:
    """A text that starts with a word, or has one of another alphabet, and nothing of a formula."""
    if _MATHEMATICS.search(text):
        return False
    words = _WORD.findall(text)
    foreign = any(not word.isascii() and not _is_greek_letter(word) for word in words)
    if not words or not (text[:1].isalpha() or foreign):
        return False
    if any(_FUNCTION.fullmatch(word) for word in words):
        return False
    return any(_LONG_WORD.search(word) for word in words)


def _is_greek_letter(word: str) -> bool:
    return len(word) == 1 and "\u0370" <= word <= "\u03ff"


def normal_text(text: str) -> str:
    """A text as texts are compared: without case, spaces at signs, and full stops that end a word."""
    text = unicodedata.normalize("NFC", text).casefold()
    text = re.sub(r"\s*,\s*(?:and\s+|or\s+)?|\s+(?:and|or)\s+", ", ", text)
    text = re.sub(r"(?<=\w)\.(?!\d)|\.(?=\s|$)", "", text)
    return " ".join(text.split()).strip(" .,;:!\"'")
