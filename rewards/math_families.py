r"""What is said about the letters of an answer rather than by it, and letters that could be others.

- 'for all x', 'where k is an integer', `k\in\mathbb{Z}`, 'only' and the like are no part of an answer.
- An integer letter is any integer: `k\pi` is `n\pi`, `\frac{\pi}{2}+k\pi` is `-\frac{\pi}{2}+n\pi`. A letter counts as
  one where the answer says so, or stands by `\pi` or degrees and is one of the usual ones (k, n, m). In `2n+1`, where
  nothing is said, the letter may be another of those, but the same integers have to be meant for the same n.
- The argument of a function is any letter: `f(n)=n+1` is `f(x)=x+1`. A constant of integration, or the factor in a
  function that is given up to one, may be called c, C, k or K.
"""

from __future__ import annotations

import re

_LETTER = r"(\\(?:alpha|beta|lambda|mu|theta|ell)(?![a-z])|(?<![A-Za-z\\])[A-Za-z](?![A-Za-z]))"
_IN = r" ?\\in ?\\mathbb\{%s\} ?(?:[\^_]? ?\{?[+*]\}?)?"
_WHERE = r"[ ,;:(]+(?:where |with |for (?:all |any |some |every |each )?)?"
_END = r" ?[.)]*$"
_TRIGGER = re.compile(r"integer|\\in(?![a-z])|\u2208|\bfor\b|\bonly\b|constant|\\forall|\bwhere\b")
#: Behind an answer, in the form that `_flat` gives it: a letter is an integer
_INTEGERS = [
    re.compile(_WHERE + pattern + _END)
    for pattern in (
        rf"(?:integers? )?{_LETTER}(?: ?, ?(?!\1){_LETTER})?{_IN % 'Z'}",  # of \pi n, n\in\mathbb{{Z}} one n
        rf"{_LETTER} (?:is |are |being )?(?:an? |any )?(?:arbitrary )?integers?",
        rf"(?:an )?integers? {_LETTER}",
    )
]
#: and what says nothing
_QUALIFIERS = [
    re.compile(pattern + _END)
    for pattern in (
        _WHERE + _LETTER + _IN % "[RCQN]",
        r"[ ,;:(]*for (?:all|any|every|each)(?: real| positive| such)?(?: numbers?| values?)?(?: of)?(?: "
        rf"{_LETTER}(?:{_IN % '[RCQN]'})?)?",
        rf"[ ,;:(]*(?:where |for |with )(?:some |any )?(?:{_LETTER} (?:is |being )?)?(?:an? |any )?"
        rf"(?:arbitrary |real )*(?:constant|real number)s?(?: {_LETTER})?",
        r"[ ,;:(]*only",
    )
]
_BEFORE = re.compile(r"^(?:\\text ?\{ ?only ?\}|only ) ?(?=[-\d$\\(])")
_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne|lt|gt)(?![a-z])|[\u2264\u2265\u2260]")
_FLAT = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\text\s*\{([^{}]*)\}", r" \1 "),
        (r"\$|\\(?:quad|qquad)(?![a-z])|\\[,; ]|~", " "),
        (r"\\forall(?![a-z])", " for all "),
        ("\u2208", r"\\in "),
        (
            r"\\(?:mathbb|mathbf|Bbb)\s*\{?\s*([NZQRC])(?![A-Za-z])\s*\}?|([\u2124])",
            lambda m: f"\\mathbb{{{m[1] or 'Z'}}}",
        ),
        (r"\s+", " "),
    )
]
_USUAL = ("k", "n", "m")
_ALTERNATING = re.compile(r"\(-1\)\s?\^\s?(?:[knm]|\{\s?[knm]\s?(?:[-+]\s?\d\s?)?\})")
_CONSTANTS = ("c", "C", "k", "K")
_LONGEST = 500  # characters
#: What stands for any integer, in both answers, once it is known to
ANY_INTEGER = "\\kappa"


def alike(gold: str, said: str) -> tuple[str, str]:
    """Both answers without what is said about their letters, with letters for any integer, or constant, the same."""
    if max(len(gold), len(said)) > _LONGEST:
        return gold, said
    ours, our_integers = unqualified(gold)
    theirs, their_integers = unqualified(said)
    if not any(character.isalpha() for character in ours):
        return ours, theirs
    our_integers = our_integers or _of_angles(ours)
    their_integers = their_integers or _of_angles(theirs)
    if our_integers and not their_integers:
        their_integers = _only_usual(theirs)
    if our_integers and their_integers:
        return _with_any(ours, our_integers), _with_any(theirs, their_integers)
    return ours, _renamed(ours, theirs)


def unqualified(text: str) -> tuple[str, tuple[str, ...]]:
    """An answer without its qualifiers, and the letters that they say are integers."""
    text = _BEFORE.sub("", text.strip())
    if not _TRIGGER.search(text) or len(text) > _LONGEST:
        return text, ()
    flat = text
    for pattern, replacement in _FLAT:
        flat = pattern.sub(replacement, flat)
    integers: list[str] = []
    shortened = False
    while found := _qualifier(flat := flat.strip().rstrip(" .,;)" if flat.count(")") > flat.count("(") else " .,;")):
        flat, letters = found
        integers.extend(letters)
        shortened = True
    if not shortened:
        return text, ()
    used = _letters(flat)
    flat = flat.strip(" ,;")
    return flat, tuple(dict.fromkeys(letter for letter in integers if letter in used))


def _qualifier(flat: str) -> tuple[str, list[str]] | None:
    """A text without the qualifier at its end, and which letters that says are integers; None where there is none."""
    for pattern in [*_INTEGERS, *_QUALIFIERS]:
        match = pattern.search(flat)
        if match is None or not flat[: match.start()].strip(" (,;"):
            continue
        integers = [letter for letter in match.groups() if letter] if pattern in _INTEGERS else []
        if integers and _RELATION.search(flat):
            return None  # the integers of an interval are not the interval
        return flat[: match.start()], integers
    return None


def _letters(text: str) -> list[str]:
    words = re.sub(r"\\text\s*\{[^{}]*\}", " ", text)
    return [letter for letter in re.findall(r"\\[A-Za-z]+|[A-Za-z]", words) if letter.isalpha() or letter in _GREEK]


_GREEK = ("\\alpha", "\\beta", "\\lambda", "\\mu", "\\theta")


def _of_angles(text: str) -> tuple[str, ...]:
    r"""The one letter of `\frac{\pi}{4}+k\pi`, when nothing else there is one."""
    if "\\pi" not in text and "\\circ" not in text and "π" not in text and "°" not in text:
        return ()
    value = text.rpartition("=")[2]
    letters = [letter for letter in dict.fromkeys(_letters(value)) if letter.isalpha()]
    if (
        len(letters) != 1
        or letters[0] not in _USUAL
        or re.search(rf"\^\s*\{{?[^}}]*{letters[0]}|\\(?:sin|cos|tan)", _ALTERNATING.sub("", value))
    ):
        return ()
    return tuple(letters)


def _only_usual(text: str) -> tuple[str, ...]:
    letters = [letter for letter in dict.fromkeys(_letters(text.rpartition("=")[2])) if letter in _USUAL]
    return tuple(letters) if len(letters) == 1 else ()


def _replaced(text: str, swaps: dict[str, str]) -> str:
    pattern = re.compile(r"\\text\s*\{[^{}]*\}|\\[A-Za-z]+|[A-Za-z]")
    return pattern.sub(lambda match: swaps.get(match.group(), match.group()), text)


def _with_any(text: str, integers: tuple[str, ...]) -> str:
    return _replaced(text, {letter: f"{ANY_INTEGER}{'_' + str(place) if place else ''} "
                            for place, letter in enumerate(integers)})  # fmt: skip


def _renamed(gold: str, said: str) -> str:
    """What is said with the letters of the gold answer for its argument, its constant, or its multiples."""
    ours, theirs = re.match(_FUNCTION, gold.strip("$ ")), re.match(_FUNCTION, said.strip("$ "))
    arguments: set[str] = set()
    if ours and theirs and ours[1] == theirs[1]:
        said = _swapped(said, theirs[2], ours[2], theirs[1])
        arguments = {ours[1], ours[2]}
    one, other = ([x for x in dict.fromkeys(_letters(text)) if x not in arguments] for text in (gold, said))
    if arguments or _ADDED.search(gold) or _ADDED.search(said):
        mine, yours = ([x for x in letters if x in _CONSTANTS] for letters in (one, other))
        if len(mine) == len(yours) == 1 and (set(one) - set(mine)) == (set(other) - set(yours)):
            return _swapped(said, yours[0], mine[0])
    if (
        len(one) == len(other) == 1
        and one[0] in _USUAL
        and other[0] in _USUAL
        and _MULTIPLES.fullmatch(gold.strip("$ "))
    ):
        return _swapped(said, other[0], one[0])
    return said


_FUNCTION = r"([A-Za-z])\s*(?:\\left)?\(\s*([A-Za-z])\s*(?:\\right)?\)\s*="
_ADDED = re.compile(r"\+\s*[cCkK]\s*\$?$")
#: 2n+1 and 5-3k: every so manieth integer; 4n alone may be a length as well
_MULTIPLES = re.compile(r"-?\d+\s*[-+]\s*(?:[2-9]|\d\d+)\s*[A-Za-z]|-?(?:[2-9]|\d\d+)\s*[A-Za-z]\s*[-+]\s*\d+")


def _swapped(text: str, old: str, new: str, function: str = "") -> str:
    return text if old in (new, function) or new in _letters(text) else _replaced(text, {old: new})


def same_family(gold: object, said: object) -> bool:
    """Whether two expressions, linear in the letter for any integer, go through the same values."""
    from sympy import Expr, Symbol

    if not isinstance(gold, Expr) or not isinstance(said, Expr):
        return False
    letters = {str(one) for one in gold.free_symbols | said.free_symbols}
    if letters != {"kappa"}:
        return False
    symbol = next(one for one in gold.free_symbols | said.free_symbols if isinstance(one, Symbol))
    lines = []
    for one in (gold, said):
        line = one.doit().expand()
        step = line.coeff(symbol, 1)
        start = (line - step * symbol).expand()
        if start.free_symbols or step == 0:
            return False
        lines.append((step, start))
    (step, start), (other, begin) = lines
    apart = ((start - begin) / step).simplify()
    return bool((step - other == 0 or step + other == 0) and apart.is_Integer)
