"""From text to tokens: people, role words, other words and marks.

Every pattern is linear: no nested repetition, and bounded where something has to be looked for ahead.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

_FIRST_PERSON = 0xE000  # people become characters of Unicode's private use area before anything else is read
_MOST_PEOPLE = 0xF8FF - _FIRST_PERSON


_TICKS = "\u2713\u2714\u2705\u2611"


class Token(NamedTuple):
    """A piece of text: `kind` is name, role, word, num, arrow, tick, mark, nl or para; `value` what it stands for."""

    kind: str
    value: Any


def words(text: str) -> frozenset[str]:
    """A set of words, written as one string."""
    return frozenset(text.split())


@dataclass(frozen=True)
class Vocabulary:
    """The people and the role words of one puzzle, compiled. Build it with `of`."""

    names: tuple[str, ...]
    roles: Mapping[str, bool]  # lower-case word, singular and plural, -> is it the knight's
    words: tuple[str, str]  # the puzzle's own words: (knave, knight)
    name_pattern: re.Pattern[str]
    hyphened_pattern: re.Pattern[str]  # behind a name: it goes on
    token_pattern: re.Pattern[str]

    @classmethod
    def of(cls, names: Sequence[str], knight_knave: Mapping[str, str] | None = None) -> Vocabulary:
        """Compile names and the row's `knight_knave` words; without those, knight and knave."""
        words = knight_knave or {}
        knight, knave = words.get("knight") or "knight", words.get("knave") or "knave"
        roles: dict[str, bool] = {}
        for word, role in ((knight, True), (knave, False), ("truth-teller", True), ("liar", False)):
            for form in _forms(_plain(word)):
                roles.setdefault(form, role)
        role_words = "|".join(_spaced(word) for word in sorted(roles, key=len, reverse=True))
        name_words = "|".join(
            _spaced(unicodedata.normalize("NFC", name)) for name in sorted(names, key=len, reverse=True)
        )
        # Not inside a longer word or a hyphenated name; but `Ann-knight` and `_Ann_` are fine.
        name_pattern = re.compile(rf"(?<![^\W_])(?<![^\W\d_]-)(?:{name_words})(?![^\W_])", re.IGNORECASE)
        # Apart from the names, patterns are the same from row to row, and compiled once.
        hyphened_pattern = re.compile(rf"-(?!(?:{role_words})\b)[^\W\d_]", re.IGNORECASE)
        token_pattern = re.compile(
            r"(?P<name>[\ue000-\uf8ff])"
            rf"|(?P<role>(?<!\w)(?:{role_words})(?!\w))"
            r"|(?P<para>\n\s*\n)|(?P<nl>\n)|(?P<arrow>[-=]{1,20}>)"
            r"|(?P<word>(?:[^\W\d_]+(?:'[^\W\d_]+)?)|'(?:s|re)\b)|(?P<num>\d+)"
            r"|(?P<tick>[\u2713\u2714\u2705\u2611\u2717\u2718\u274c\u2716\u2715\u2612\u00d7])|(?P<mark>[.,;:!?()=|/&%-])",
            re.IGNORECASE,
        )
        return cls(tuple(names), roles, (knave, knight), name_pattern, hyphened_pattern, token_pattern)

    def word(self, role: bool) -> str:
        """The puzzle's word for a role."""
        return self.words[role]


def tokenize(text: str, vocabulary: Vocabulary) -> list[Token]:
    """The tokens of a text that `cleaned` has been over; anything else in it is skipped."""
    tokens = []
    for match in vocabulary.token_pattern.finditer(text):
        kind, string = str(match.lastgroup), match.group()
        value: Any = string.lower()
        if kind == "name":
            value = ord(string) - _FIRST_PERSON
        elif kind == "tick":
            value = string in _TICKS
        elif kind == "role":
            value = vocabulary.roles[_plain(string)]
        tokens.append(Token(kind, value))
    return tokens


# What the text is cleaned of, in order, once people are single characters.
_SWAPS = str.maketrans(
    {
        **dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2018\u2019", "'"),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        **dict.fromkeys("\u2192\u21d2\u27a1\u27f6\u27f9", "\u2192"),
        "\u2260": " is not ",
        "\u2194": " iff ",
        "\u21d4": " iff ",
        "\uff1a": ":",
        "\uff0c": ",",
        "\u3001": ",",
        "\u3002": ".",
        "\uff1b": ";",
        "\uff08": "(",
        "\uff09": ")",
    }
)
_CLEAN: list[tuple[re.Pattern[str], str]] = [
    (re.compile(r"\be\. ?g\.", re.IGNORECASE), " for example, "),
    (re.compile(r"\bi\. ?e\.", re.IGNORECASE), ", "),
    (re.compile(r"\\(?:begin|end)\{[^{}\n]{0,40}\}(?:\{[clr|@ ]{0,20}\})?"), "\n"),
    (re.compile(r"\\\\|<br ?/?>"), "\n"),
    (re.compile(r"\\(?:to|rightarrow|Rightarrow|implies)\b|\u2192"), " -> "),
    (re.compile(r"\\neq?\b|!="), " is not "),
    (re.compile(r"\\(?:neg|lnot)\b"), " not "),
    (re.compile(r"\\(?:land|wedge)\b"), " and "),
    (re.compile(r"\\(?:lor|vee)\b"), " or "),
    (re.compile(r"\\[a-zA-Z]+|\\[^\n]"), " "),
    (re.compile(r"~~[^~\n]{1,300}~~|</?[a-zA-Z][^<>\n]{0,60}>"), " "),
    (re.compile(r"[*`#_{}\[\]$]"), " "),
    (re.compile(r"\(e?s\)"), "s"),
    (re.compile(r"\((?=[^()\n]{0,400}\b(?:because|since|would|says|said|claims|contradict))[^()\n]{0,400}\)"), " "),
    (re.compile(r"[^\S\n]+"), " "),
]
_IDEOGRAPHS = re.compile("[\u3400-\u9fff]+")  # written without spaces around names
_QUOTED = re.compile(r'"([^"\n]*)"' r"|(?<![\w\ue000-\uf8ff])'([^'\n]{0,400})'(?!\w)")


def cleaned(text: str, vocabulary: Vocabulary) -> str:
    """The text with people as single characters and without markup or quoted claims."""
    text = unicodedata.normalize("NFC", text).replace("\r\n", "\n").translate(_SWAPS)
    text = re.sub(r"[\x00-\x08\x0b-\x1f\ue000-\uf8ff]", " ", text)
    if not any(_IDEOGRAPHS.search(name) for name in vocabulary.names):
        text = _IDEOGRAPHS.sub(r" \g<0> ", text)
    text = _with_people_marked(text, vocabulary)
    for pattern, replacement in _CLEAN:
        text = pattern.sub(replacement, text)
    return _QUOTED.sub(lambda match: _unquoted(match.group(1) or match.group(2) or "", vocabulary), text)


def _unquoted(inside: str, vocabulary: Vocabulary) -> str:
    """Quotation marks around one name or one role are punctuation, as in JSON; around more they quote someone."""
    tokens = [token for token in tokenize(inside, vocabulary) if token.value not in ("a", "an", "the", ",", ".")]
    if len(tokens) <= 1 and (not tokens or tokens[0].kind in ("name", "role", "word")):
        return f" {inside.rstrip('.')} "
    return " "


def _with_people_marked(text: str, vocabulary: Vocabulary) -> str:
    """Replace names by characters. A name in lower case is one only if it never appears in its own case."""
    number = {_plain(name): i for i, name in enumerate(vocabulary.names)}
    if len(number) > _MOST_PEOPLE:
        raise ValueError(f"{len(number)} people; at most {_MOST_PEOPLE}")
    hyphened = vocabulary.hyphened_pattern
    cased = {
        _plain(match.group())
        for match in vocabulary.name_pattern.finditer(text)
        if not match.group().islower() and not hyphened.match(text, match.end())
    }

    def mark(match: re.Match[str]) -> str:
        name = match.group()
        person = number.get(_plain(name))
        if person is None or hyphened.match(text, match.end()) or (name.islower() and _plain(name) in cased):
            return name
        return chr(_FIRST_PERSON + person)

    return vocabulary.name_pattern.sub(mark, text)


def _plain(word: str) -> str:
    return " ".join(unicodedata.normalize("NFC", word).translate(_SWAPS).casefold().replace("- ", "-").split())


def _spaced(words: str) -> str:
    """A regex for words with any white space (or, in a compound, none or a hyphen) between them."""
    return r"\s+".join(re.escape(part.translate(_SWAPS)) for part in words.split())


def _forms(word: str) -> set[str]:
    """A word with its plurals, right or not: what matters is that they are understood."""
    forms = {word, word + "s", word + "es", word.replace("-", " "), word.replace("-", " ") + "s"}
    if word.endswith("y"):
        forms.add(word[:-1] + "ies")
    if word.endswith("f"):
        forms.add(word[:-1] + "ves")
    if word.endswith("fe"):
        forms.add(word[:-2] + "ves")
    if word.endswith("man"):
        forms.add(word[:-3] + "men")
    return forms
