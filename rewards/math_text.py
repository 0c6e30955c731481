"""One answer as written, in LaTeX or plain, made ready to compare: signs, spacing, units, words, choices, bases."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from fractions import Fraction

from posttrain.rewards.math_clock import Time, clock
from posttrain.rewards.math_frames import unframed, without_delimiters, without_money
from posttrain.rewards.math_plain import typed
from posttrain.rewards.math_sentence import unqualified
from posttrain.rewards.math_signs import one_spelling, readable_signs, tidied
from posttrain.rewards.math_unit_names import MULTIPLIERS
from posttrain.rewards.math_units import Unit, mixed_quantity, split_unit
from posttrain.rewards.math_words import as_choice, as_words, letters_of_choices, named_choice, normal_text, plain_words

__all__ = ["LONGEST", "Answer", "cleaned", "tidied"]

LONGEST = 2_000  # characters; longer texts stay as they are, and are too long to be read
_PLAIN_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?", re.ASCII)  # the commonest answers need nothing done
_NAMES = {
    "infinity": r"\infty", "positive infinity": r"\infty", "plus infinity": r"\infty", "pi": r"\pi",
    "negative infinity": r"-\infty", "minus infinity": r"-\infty", "empty set": r"\emptyset",
    "the empty set": r"\emptyset", "null set": r"\emptyset",
}  # fmt: skip
_COMMAND = re.compile(r"\\(?!text)[A-Za-z]+")
_LEADING_TEXT = re.compile(r"^\\text\{\s*([^{}]*?)\s*\}")
_TEXT_WITH_NUMBER = re.compile(r"\\text\{\s*([-+]?\d[\d.,]*(?:/\d+)?)(?![\d.,:])\s*([^{}]*)\}")
_LETTER_IN_TEXT = re.compile(r"\\text\{\s*([A-Zei])\s*\}")
_MULTIPLIER = "|".join(MULTIPLIERS)
_MULTIPLIED = re.compile(
    rf"(\d)\s*(?:\\text\{{\s*(?P<wrapped>{_MULTIPLIER})s?\s*\}}|(?P<bare>{_MULTIPLIER})s?(?![a-zA-Z])"
    rf"|\\text\{{\s*(?P<more>{_MULTIPLIER})s?\s+)",
    re.IGNORECASE,
)
_MIXED = re.compile(r"(?<![\d./])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d./])")
_SCIENTIFIC = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?|\.\d+)[eE]\+?(-?\d{1,4})(?![\w.])")
_SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d,]| \d)")
_GROUPED = re.compile(r"(?<!\\)\{\d{1,3}(?:,\d{3})+\}")
_BASE_WORDS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
               "twelve": 12, "sixteen": 16}  # fmt: skip
_BASE = r"(\d{1,2}|" + "|".join(_BASE_WORDS) + ")"
_BASED = re.compile(
    rf"(\(?)\s*([0-9A-Za-z]+)\s*\)?\s*(?:_\s*\{{?\s*\(?\s*(?:\\text\{{\s*)?(?:base\s*)?{_BASE}\s*\)?\s*\}}?\}}?"
    rf"|(?:\\text\{{\s*)?\(?\s*(?:in\s+)?base[\s-]*{_BASE}\s*\)?\s*\}}?)"
)
_MEMBERS = re.compile(r"[,;](?!\d{3}(?!\d))|(?<=[^\d,;])[,;]")
_MAY_HAVE_UNIT = re.compile(r"[^\W\d_]|%|\\circ")
_BRACKETS = (("\\{", "\\}"), ("(", ")"), ("[", "]"), ("(", "]"), ("[", ")"))


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer ready to compare.

    Args:
        math: What math-verify reads, or the words.
        words: It is words or a letter of a choice, not mathematics.
        percent: A percent sign was taken off its end.
        unit: The name of its unit, if that is a known one; see `math_units.py`. Of a list with several, all of them.
        base: The base of the digits in `math`, if one was given.
        time: It is a time of day; `math` is its text.
        choice: The letter of a choice in front of it, as in `(B) 12`; `math` is then what stands behind it. Where
            nothing does, `math` is the letter.
        as_unit: How it reads if letters at its end, which may be algebra, are a unit: `5` in metres for `5m`. Which
            of both it is depends on the other answer; see `math_pair.readings`.
        apart: Those letters stand apart, as those of a unit do, and not in a formula.
        mixed: It was written with several units, such as 2 hours and 30 minutes; `math` is the sum.
    """

    math: str
    words: bool = False
    percent: bool = False
    unit: str | None = None
    base: int | None = None
    time: Time | None = None
    choice: str | None = None
    as_unit: Answer | None = None
    apart: bool = False
    mixed: bool = False

    @property
    def only_choice(self) -> bool:
        """It is the letter of a choice and nothing else, or any other capital letter."""
        return self.words and self.choice == self.math


@functools.lru_cache(maxsize=4096)
def cleaned(text: str) -> Answer:
    """An answer without what doesn't change its meaning. Never fails; what makes no sense comes out as it is."""
    if len(text) > LONGEST:
        return Answer(text)
    text = " ".join(text.split())
    if _PLAIN_NUMBER.fullmatch(text):
        return Answer(text)
    framed = unframed(readable_signs(text))
    return _read(framed.text, wrapped=framed.words, formula=framed.formula)


def _read(text: str, *, wrapped: bool = False, formula: bool = False) -> Answer:
    text = unqualified(text)
    if (time := clock(text)) is not None:
        return Answer(text, time=time)
    if (name := _NAMES.get(text.casefold())) is not None:
        return Answer(name)
    if (named := named_choice(text)) is not None:
        return Answer(named, words=True, choice=named)
    if (words := plain_words(text)) is not None:
        return Answer(words, words=True, choice=words if len(words) == 1 else None)
    text, money = without_money(without_delimiters(text)) if not text.isalnum() else (text, None)
    text = " ".join(one_spelling(text).split())
    inner = unframed(text)
    text, wrapped = inner.text, wrapped or inner.words
    if money is None and (chosen := _with_choice(text)) is not None:
        return chosen
    if (letters := letters_of_choices(text)) is not None:
        return Answer(letters, words=True)
    if not text[:1].isdigit() and not money and (words := as_words(text, wrapped=wrapped)) is not None:
        return Answer(words, words=True, choice=words if len(words) == 1 and words.isupper() else None)
    answer = _value(text, formula=formula, money=money)
    if wrapped and len(text) > 1 and any(character.isalpha() for character in _COMMAND.sub("", answer.math)):
        return Answer(normal_text(text), words=True)
    return answer


def _with_choice(text: str) -> Answer | None:
    """`(B) 12` as 12 with the letter B."""
    found = as_choice(_LEADING_TEXT.sub(r"\1 ", text, count=1))
    if found is None:
        return None
    letter, rest = found
    if not rest:
        return Answer(letter, words=True, choice=letter)
    answer = _read(unframed(rest).text)
    return replace(answer, choice=letter, as_unit=answer.as_unit and replace(answer.as_unit, choice=letter))


def _value(text: str, *, formula: bool, money: str | None) -> Answer:
    """An answer that is no text: a number or formula, with units, percent signs or a base."""
    if text[:1] == "\\" or "\\text" in text:
        text = _TEXT_WITH_NUMBER.sub(r"\1 \\text{ \2}", text)
    text = _MULTIPLIED.sub(_as_power_of_ten, typed(text))
    if (based := _based(text)) is not None:
        return based
    text = unframed(text).text
    if (mixed := mixed_quantity(text)) is not None:
        return Answer(_written(mixed[0]), unit=mixed[1], mixed=True)
    certain, as_unit = _without_units(text)
    unit = _with_money(certain.name, money)
    answer = Answer(_numbers(certain.value), percent=certain.percent, unit=unit)
    if as_unit is None:
        return answer
    other = Answer(_numbers(as_unit.value), percent=as_unit.percent, unit=as_unit.name or money)
    return replace(answer, as_unit=other, apart=as_unit.apart and not formula)


def _with_money(unit: str | None, money: str | None) -> str | None:
    """`dollar hour^-1` for `$12 per hour`."""
    if unit and money and all("^-" in part for part in unit.split()):
        return " ".join(sorted([money, *unit.split()]))
    return unit or money


def _written(number: Fraction) -> str:
    return str(number) if number.denominator == 1 else f"\\frac{{{number.numerator}}}{{{number.denominator}}}"


def _as_power_of_ten(match: re.Match[str]) -> str:
    word = (match["wrapped"] or match["bare"] or match["more"]).lower()
    return f"{match[1]} \\times 10^{{{MULTIPLIERS[word]}}}" + (" \\text{ " if match["more"] else "")


def _based(text: str) -> Answer | None:
    match = _BASED.fullmatch(text)
    if match is None or not any(character.isdigit() for character in match[2]):
        return None
    named = match[3] or match[4]
    base = int(named) if named.isdigit() else _BASE_WORDS[named]
    return Answer(match[2].upper(), base=base) if base > 1 else None


@dataclass(frozen=True, slots=True)
class _Bare:
    value: str
    name: str | None = None
    percent: bool = False
    apart: bool = False


def _without_units(text: str) -> tuple[_Bare, _Bare | None]:
    """A text without the units that are certain, and, where letters may be more of them, without those too."""
    if not _MAY_HAVE_UNIT.search(text):
        return _Bare(text), None
    opening, closing = next(
        ((one, other) for one, other in _BRACKETS if text.startswith(one) and text.endswith(other)), ("", "")
    )
    inside = text[len(opening) : len(text) - len(closing)]
    cuts = [match.span() for match in _MEMBERS.finditer(inside)]
    if opening and not cuts:
        opening = closing = ""
        inside = text
    starts, ends = [0, *(end for _, end in cuts)], [*(start for start, _ in cuts), len(inside)]
    members = [inside[start:end].strip() for start, end in zip(starts, ends, strict=True)]
    separators = [inside[start:end] + " " for start, end in cuts] + [""]
    split = [_member(member) for member in members]
    if all(unit == plain for plain, (unit, _) in zip(map(_Bare, members), split, strict=True)) and not any(
        letters for _, letters in split
    ):
        return _Bare(text), None

    def together(parts: list[_Bare]) -> _Bare:
        value = opening + "".join(part.value + sign for part, sign in zip(parts, separators, strict=True)) + closing
        names = [part.name for part in parts if part.name]
        same = names[0] if names and len(set(names)) == 1 else ",".join(names) or None
        percent = all(part.percent for part in parts) or (parts[-1].percent and not opening)
        return _Bare(value, same, percent, any(part.apart for part in parts))

    certain = together([unit for unit, _ in split])
    if not any(letters for _, letters in split):
        return certain, None
    return certain, together([letters or unit for unit, letters in split])


def _member(text: str) -> tuple[_Bare, _Bare | None]:
    name = None
    for _ in range(3):
        unit = split_unit(text)
        if unit is None:
            break
        if unit.letters:
            return _Bare(text, name), _of_unit(unit)
        text, name = unit.value.rstrip(" ,"), unit.name or name
    percent = text.endswith("%")
    return _Bare(unframed(text[:-1]).text if percent else text, name, percent), None


def _of_unit(unit: Unit) -> _Bare:
    percent = unit.value.endswith("%")
    return _Bare(unit.value.removesuffix("%").rstrip(), unit.name, percent, unit.apart)


def _numbers(text: str) -> str:
    text = unframed(text).text
    text = _SPACED.sub(lambda match: match.group().replace(" ", ""), text)
    text = _GROUPED.sub(lambda match: match.group().replace(",", ""), text)
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    text = _LETTER_IN_TEXT.sub(r" \1 ", text)
    return _SCIENTIFIC.sub(r"\1 \\times 10^{\2}", text)
