r"""Sets of real numbers, however written: intervals and unions, inequalities, set builders, `\mathbb{R}\setminus\{2\}`.

Between inequalities the words 'and' and 'or' count. A comma means 'and' when something fulfils both and 'or' when
nothing does. A letter of an inequality has to be that of the other, if both name one. What has yet to be solved, such
as `x^2>4`, is left to others; `|x-1|<2` is as good as solved.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from posttrain.rewards.math_judge import Unreadable, expression
from posttrain.rewards.math_names import is_name, key
from posttrain.rewards.math_numeric import same_values
from posttrain.rewards.math_shape import plain, shape, split
from posttrain.rewards.math_text import cleaned, tidied

_LONGEST = 300  # characters
_MOST_PARTS = 12
_HINTS = re.compile(
    r"[<>\u2264\u2265\u2260\u2208\u222a\u2229\[\]]|real|infinity|\\(?:le|ge|leq|geq|neq?|[lg]t|leqslant|geqslant|in|notin|not"
    r"|cup|cap|mathbb|setminus|emptyset|varnothing|infty|R|mid)(?![a-zA-Z])"
)
_OR, _AND = (
    re.compile(
        rf"(?i)(?:\\text\s*\{{[\s,;]*{word}\s*\}}|(?<=[\s,;$}}]){word}(?=[\s$\\])|\\(?:{commands})(?![a-zA-Z]))[\s,;]*"
    )
    for word, commands in (("or", "lor|vee"), ("and", "land|wedge"))
)
_BRACKET = re.compile(r"\s*\$?(?:\\left\s*)?\(")
_SIGN = re.compile(r"(\\(?:le|ge|ne|lt|gt|not=)(?![a-zA-Z])|<=|>=|<|>|(?<![<>!:])=)")
_MEANING = {"\\le": "<=", "\\ge": ">=", "\\lt": "<", "\\gt": ">", "\\ne": "!=", "\\not=": "!="}
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!=", "=": "="}
_MEMBER = re.compile(r"(.+?)\s*\\(in|notin|not\s*\\in)(?![a-zA-Z])\s*(.+)", re.DOTALL)
_BUILDER = re.compile(r"(\\mid(?![a-zA-Z])|\||:)")
_DISTANCE = re.compile(r"\|\s*([A-Za-z])\s*(?:([-+])([^|]+))?\|")
_REALS = re.compile(r"\\mathbb\s*\{?\s*R\s*\}?|\\R(?![a-zA-Z])")
_EVERYTHING = frozenset({"all real numbers", "all reals", "all real", "real numbers", "the real numbers"})
_NOTHING = re.compile(r"\\(?:emptyset|varnothing)(?![a-zA-Z])|\\\{\s*\\\}")
_MINUS = re.compile(r"\\(?:setminus|backslash)(?![a-zA-Z])|(?<=[)\]}R])\s*(?:-|\\)\s*(?=\\\{)")


@dataclass(frozen=True, slots=True)
class Region:
    """A set of real numbers.

    Args:
        numbers: The set, as sympy's.
        names: Which letters are said to be in it.
        bare: It is written like a point or a list as well: `(1,2)`, `\\{1,2\\}`.
    """

    numbers: Any
    names: frozenset[str]
    bare: bool = False


class _None(Exception):
    """The text is no set of real numbers."""


def same_region(gold: str, said: str, same: Callable[[str, str], bool]) -> bool | None:
    """Whether two answers are the same set of real numbers; None where one is none, or both are points as well."""
    if not any(_HINTS.search(text) for text in (gold, said)):
        return None
    ours, theirs = region(gold), region(said)
    if ours is None or theirs is None or (ours.bare and theirs.bare):
        return None
    if ours.names and theirs.names and ours.names != theirs.names:
        return False
    return _same_set(ours.numbers, theirs.numbers)


@functools.lru_cache(maxsize=512)
def region(text: str) -> Region | None:
    """The set of real numbers that a text stands for; None when it stands for none."""
    if len(text) > _LONGEST or not (_HINTS.search(text) or _BRACKET.match(text)):
        return None
    text = _AND.sub(r" \\land ", _OR.sub(r" \\lor ", text))
    names: set[str] = set()
    try:
        text = plain_of_region(text)
        numbers = _alternatives(text, names)
    except (_None, Unreadable, TypeError, ValueError, NotImplementedError, AttributeError, RecursionError):
        return None
    if len(names) > 1:
        return None
    return Region(
        numbers, frozenset(names), bare=shape(text).kind in ("round", "square", "set") and not _BUILDER.search(text)
    )


def plain_of_region(text: str) -> str:
    r"""A text with its signs and brackets in one form, and with `\land` and `\lor` as they are."""
    parts = re.split(r"(\\l(?:and|or)(?![a-zA-Z]))", text)
    whole = "".join(part if part in (r"\land", r"\lor") else f" {plain(tidied(part))} " for part in parts).strip()
    return re.sub(r"\\not\s*\\in(?![a-z])", r"\\notin", whole)


def _alternatives(text: str, names: set[str]) -> Any:
    from sympy import Union

    parts = _split_at(text, (r"\lor", r"\cup"))
    return Union(*[_together(part, names) for part in parts]) if len(parts) > 1 else _together(text, names)


def _together(text: str, names: set[str]) -> Any:
    from sympy import Intersection

    parts = _split_at(text, (r"\land", r"\cap"))
    if len(parts) > 1:
        return Intersection(*[_together(part, names) for part in parts])
    parts = [inner for part in split(text, ";") for inner in split(part, ",")]
    return _listed(parts, names) if len(parts) > 1 else _one(text.strip(), names)


def _listed(parts: list[str], names: set[str]) -> Any:
    from sympy import Intersection, Union

    first = re.fullmatch(r"(.+?\\ne(?![a-zA-Z]))(.+)", parts[0], re.DOTALL)
    if first and not any(_SIGN.search(part) for part in parts[1:]):  # x is neither 0 nor 1
        parts = [parts[0], *(first[1] + " " + part for part in parts[1:])]
        return Intersection(*[_one(part, names) for part in parts])
    if not all(_SIGN.search(part) or _MEMBER.fullmatch(part) for part in parts) or len(parts) > _MOST_PARTS:
        raise _None
    sets = [_one(part, names) for part in parts]
    if all("=" in part and not re.search(r"[<>]|\\[lgn]", part) for part in parts):
        raise _None  # a list of values
    both = Intersection(*sets)
    return Union(*sets) if both.is_empty else both


def _split_at(text: str, commands: tuple[str, ...]) -> list[str]:
    for command in commands:
        text = re.sub(re.escape(command) + r"(?![a-zA-Z])", "\x1f", text)
    parts = split(text, "\x1f") if "\x1f" in text else [text]
    if len(parts) > _MOST_PARTS:
        raise _None
    return parts


def _one(text: str, names: set[str]) -> Any:
    from sympy import Complement, FiniteSet, Interval, S

    text = text.strip()
    if _REALS.fullmatch(text) or cleaned(text).math in _EVERYTHING:
        return S.Reals
    if _NOTHING.fullmatch(text):
        return S.EmptySet
    minus = _MINUS.split(text)
    if len(minus) == 2 and all(part.strip() for part in minus):
        return Complement(_one(minus[0], names), _alternatives(minus[1].strip(), names))
    if text.startswith("(") and text.endswith(")") and len(split(text[1:-1], ",")) == 1:
        return _alternatives(text[1:-1], names)
    made = shape(text)
    if made.kind in ("round", "square") and len(made.parts) == 2:
        low, high = map(_number, made.parts)
        return Interval(low, high, made.form[0] == "(", made.form[1] == ")")
    if made.kind == "set":
        built = _BUILDER.split(text[2:-2].strip(), maxsplit=1)
        if len(built) == 3:
            return _built(built[0], built[2], names)
        return FiniteSet(*map(_number, made.parts))
    if member := _MEMBER.fullmatch(text):
        return _member(member[1], member[2], _alternatives(member[3], names), names)
    return _inequality(text, names)


def _built(letter: str, condition: str, names: set[str]) -> Any:
    from sympy import Intersection

    inside: set[str] = set()
    numbers = _alternatives(condition.strip(), inside)
    member = _MEMBER.fullmatch(letter.strip())
    if member:
        numbers = Intersection(numbers, _member(member[1], member[2], _alternatives(member[3], inside), inside))
    elif is_name(letter.strip()):
        inside.add(key(letter))
    if len(inside) > 1 or not (member or is_name(letter.strip())):
        raise _None  # \{x^2 \mid x>0\} is not what x may be
    return numbers  # its letter is bound


def _member(name: str, sign: str, numbers: Any, names: set[str]) -> Any:
    from sympy import Complement, S

    if not is_name(name.strip()):
        raise _None
    names.add(key(name))
    return numbers if sign == "in" else Complement(S.Reals, numbers)


def _inequality(text: str, names: set[str]) -> Any:
    from sympy import Intersection

    pieces = [piece.strip() for piece in _SIGN.split(text)]
    terms, signs = pieces[::2], [_MEANING.get(sign, sign) for sign in pieces[1::2]]
    if not signs or not all(terms) or len(terms) > 3:
        raise _None
    places = [index for index, term in enumerate(terms) if _is_unknown(term)]
    if len(places) != 1 or (len(terms) == 3 and places != [1]):
        raise _None
    place = places[0]
    unknown = terms[place]
    sets = []
    for index, sign in enumerate(signs):
        left = index == place
        bound = terms[index + 1] if left else terms[index]
        sets.append(_half(unknown, sign if left else _TURNED[sign], _number(bound), names))
    return Intersection(*sets) if len(sets) > 1 else sets[0]


def _is_unknown(term: str) -> bool:
    if _DISTANCE.fullmatch(term):
        return True
    return is_name(term) and term not in ("e", "i", "\\infty") and not re.fullmatch(r"\\text\s*\{.*\}", term)


def _half(unknown: str, sign: str, bound: Any, names: set[str]) -> Any:
    from sympy import Complement, FiniteSet, Interval, S, oo

    middle: Any = S.Zero
    distance = _DISTANCE.fullmatch(unknown)
    if distance is None:
        names.add(key(unknown))
        low, high = -oo, bound
    else:
        names.add(distance[1])
        middle = _number(distance[3]) * (-1 if distance[2] == "+" else 1) if distance[3] else middle
        if bound.is_negative is not False:
            raise _None
        low, high = middle - bound, middle + bound
    below = Interval(low, high, distance is None or sign in ("<", ">="), sign in ("<", ">="))
    if sign in ("<", "<="):
        return below
    if sign in (">", ">="):
        return Complement(S.Reals, below)
    points = FiniteSet(high) if distance is None else FiniteSet(low, high)
    return points if sign == "=" else Complement(S.Reals, points)


def _number(text: str) -> Any:
    from sympy import Float, Rational

    answer = cleaned(text)
    if answer.words or answer.time or answer.base or answer.percent:
        raise _None
    number = expression(answer.math)
    number = number.xreplace({one: Rational(str(one)) for one in number.atoms(Float)}).doit()
    if not getattr(number, "is_extended_real", False):
        raise _None
    return number


def _same_set(ours: Any, theirs: Any) -> bool:
    if ours == theirs:
        return True
    one, other = _pieces(ours), _pieces(theirs)
    if one is None or other is None or len(one) != len(other):
        return False
    return all(
        mine[2:] == yours[2:] and all(_same_end(*ends) for ends in zip(mine[:2], yours[:2], strict=True))
        for mine, yours in zip(one, other, strict=True)
    )


def _same_end(ours: Any, theirs: Any) -> bool:
    return bool(ours == theirs) or same_values(ours, theirs) is True


def bounds(numbers: Any) -> list[Any]:
    """The finite real ends of a set's intervals and its points."""
    pieces = _pieces(numbers) if numbers is not None else None
    return [end for piece in pieces or [] for end in piece[:2] if end.is_number and end.is_finite]


def _pieces(numbers: Any) -> list[tuple[Any, Any, bool, bool]] | None:
    """Beginning, end and whether these are left out, of all intervals and points, in their order."""
    from sympy import FiniteSet, Interval, Union

    pieces: list[tuple[Any, Any, bool, bool]] = []
    for part in numbers.args if isinstance(numbers, Union) else [numbers]:
        if isinstance(part, FiniteSet):
            pieces.extend((point, point, False, False) for point in part.args)
        elif isinstance(part, Interval):
            pieces.append((part.start, part.end, bool(part.left_open), bool(part.right_open)))
        else:
            return None
    try:
        return sorted(pieces, key=lambda piece: (float(piece[0]), float(piece[1])))
    except TypeError:  # a letter is no number
        return sorted(pieces, key=str)
