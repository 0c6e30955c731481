r"""What stands for what: `x=5`, `f(x)=2x`, `\angle ABC=30^\circ`, `(x,y)=(1,2)`; names, and what they name."""

from __future__ import annotations

import re

EQUALS = re.compile(r"(?<![<>!\\=:])=(?!=)")
NAME = re.compile(
    r"(?:\\(?!frac|sqrt|text|pi(?![a-z])|infty)[A-Za-z]+\s*\{?\s*[A-Za-z]*\s*\}?|[A-Za-z]{1,4}|\|[A-Z]{2}\|"
    r"|[A-Za-z][A-Za-z ]*[A-Za-z]|\\text\{[^{}]*\})"
    r"'*(?:\s*_\s*(?:\w|\{[^{}]*\}))?(?:\s*\^\s*\{?\s*-1\s*\}?)?(?:\s*\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])*\s*\))?"
)
_NEGATED = re.compile(r"(?<![a-z])not?(?![a-z])|\\ne")
_TUPLE = re.compile(r"\(\s*([^()]{1,60},[^()]{1,60})\)")
_LETTER = re.compile(r"(\\[a-z]+|[A-Za-z])\s*(?:_\s*\{?\s*(\d{1,3})\s*\}?)?")
#: By the letters of the alphabet that they are ordered like; a pair of them is seldom in another order
_GREEK = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu",
          "xi", "omicron", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega")  # fmt: skip


def is_name(text: str) -> bool:
    """Whether a text may name what stands behind the equals sign."""
    return bool(NAME.fullmatch(text)) and not _NEGATED.search(text)


def key(name: str) -> str:
    """A name without white space, braces and dollars, which don't tell names apart."""
    return re.sub(r"[\s{}$]+", "", name.replace("\\text", ""))


def tuple_names(text: str) -> list[str] | None:
    """`x` and `y` from `(x,y)`; None for anything but a tuple of different names."""
    match = _TUPLE.fullmatch(text.strip())
    names = [part.strip() for part in match[1].split(",")] if match else []
    keys = [key(name) for name in names]
    return keys if len(names) > 1 and all(map(is_name, names)) and len(set(keys)) == len(keys) else None


def usual_order(names: list[str]) -> list[int] | None:
    """In which order one writes the values of these names as a tuple: by alphabet and index, Latin letters first.

    None where there is no usual order: words, or letters that differ in case only.
    """
    found = [_LETTER.fullmatch(name) for name in names]
    if not all(found):
        return None
    places = []
    for match in found:
        assert match is not None
        letter = match[1].lstrip("\\")
        if len(letter) > 1 and letter not in _GREEK:
            return None
        rank = _GREEK.index(letter) + 1000 if letter in _GREEK else ord(letter.lower())
        places.append((rank, int(match[2] or 0)))
    if len(set(places)) < len(places):
        return None
    return sorted(range(len(names)), key=lambda index: places[index])


def one_letter(names: list[str]) -> bool:
    """Whether the names are `x_1`, `x_2` and so on: roots of one equation, whose numbers say nothing."""
    found = [_LETTER.fullmatch(name) for name in names]
    return len({match[1] for match in found if match and match[2]}) == 1 and all(match and match[2] for match in found)
