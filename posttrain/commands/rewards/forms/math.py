r"""Of a gold answer of mathematics, by its shape: a number, a fraction, a list, something in brackets, a quantity with
a unit, a letter of a choice, an equation, a formula. Texts get none: what says the same in words is no one's to list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from posttrain.commands.rewards.forms import Form

_NUMBER = re.compile(r"(-?)(\d+|\d{1,3}(?:,\d{3})+)(\.\d+)?")
_FRACTION = re.compile(r"(-?)(?:\\[dt]?frac\{(\d+)\}\{(\d+)\}|(\d+)/(\d+))")
_BRACKETED = re.compile(r"(?:\\left)?\s*([(\[])(.+?)(?:\\right)?\s*([)\]])", re.DOTALL)
_SET = re.compile(r"(?:\\left)?\\\{(.+?)(?:\\right)?\\\}", re.DOTALL)
_QUANTITY = re.compile(r"(-?\d+(?:\.\d+)?)\s*(?:\\[ ,;!]|~)*\s*(?:\\(?:text|mathrm)\{\s*([a-z]+)\.?\s*\}|([a-z]{2,}))")
_CHOICE = re.compile(r"\(?([A-E])\)?|\\text\{\(?([A-E])\)?\}")
_WORDS = re.compile(r"\\text|\\mathrm|\\mbox|[A-Za-z]{4,}(?![A-Za-z]*\{)")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_LAST_DIGIT = re.compile(r"\d(?=\D*$)")
#: of each unit another of another quantity; a near miss
_OTHER_UNIT = {
    **dict.fromkeys(("cm", "m", "km", "mm", "feet", "inches", "miles", "meters"), "kg"),
    **dict.fromkeys(("kg", "g", "grams", "pounds", "hours", "minutes", "seconds", "days", "years", "degrees"), "cm"),
    **dict.fromkeys(("dollars", "cents"), "km"),
}
_BRACKET = {"(": "[", "[": "(", ")": "]", "]": ")"}


def forms(gold: str) -> Iterator[Form]:
    """Equal forms and near misses of an answer, as they stand in a box.

    Args:
        gold: In LaTeX or plain text, without the box; perhaps in dollars.
    """
    inner = gold.strip()
    if inner.startswith("$") and inner.endswith("$") and inner.count("$") == 2:
        inner = inner.strip("$").strip()
    if not inner or len(inner) > 200 or "$" in inner:
        return
    for make in (_choice, _number, _fraction, _quantity, _set, _bracketed, _list, _equation, _formula):
        found = list(make(inner))
        if found:
            yield from found
            return


def _choice(gold: str) -> Iterator[Form]:
    if not (match := _CHOICE.fullmatch(gold)):
        return
    letter = match[1] or match[2]
    yield Form("a letter in brackets", rf"\textbf{{({letter})}}", True)
    yield Form("a letter in dollars", f"${letter}$", True)
    yield Form("another letter", "ABCDE"[("ABCDE".index(letter) + 1) % 5], False)


def _number(gold: str) -> Iterator[Form]:
    if not (match := _NUMBER.fullmatch(gold)):
        return
    yield from _dressed(gold)
    yield Form("a unit", rf"{gold}\text{{ cm}}", True)
    yield Form("a unit", rf"{gold} \mathrm{{~km}}/\mathrm{{h}}", True)
    yield Form("in a font", rf"\text{{{gold}}}", True)
    yield Form("in a font", rf"\mathbf{{{gold}}}", True)
    sign, whole, part = match.groups()
    whole = whole.replace(",", "")
    if not part:
        yield Form("a decimal", f"{sign}{whole}.0", True)
    if len(whole) > 3 and whole[0] != "0":
        yield Form("thousands", f"{sign}{int(whole):,}{part or ''}", True)
        yield Form("thousands", f"{sign}{int(whole):,}{part or ''}".replace(",", "{,}"), True)
    if part and len(part) < 6:
        value = abs(Fraction(f"{whole}{part}"))
        yield Form("a fraction", rf"{sign}\frac{{{value.numerator}}}{{{value.denominator}}}", True)
    yield from _misses(gold)
    if not part and int(whole):
        yield Form("ten times", f"{sign}{whole}0", False)


def _fraction(gold: str) -> Iterator[Form]:
    if not (match := _FRACTION.fullmatch(gold)):
        return
    sign = match[1]
    over, under = (int(one) for one in (match.group(2, 3) if match[2] else match.group(4, 5)))
    if not over or not under:
        return
    yield from _dressed(gold)
    yield Form("another spelling", rf"{sign}\dfrac{{{over}}}{{{under}}}", True)
    yield Form("another spelling", f"{sign}{over}/{under}", True)
    value = Fraction(over, under)
    if 10**5 % value.denominator == 0:
        yield Form("a decimal", sign + f"{over / under:.5f}".rstrip("0").rstrip("."), True)
    yield Form("one digit", rf"{sign}\frac{{{over + 1}}}{{{under}}}", False)
    yield Form("the sign", rf"{'' if sign else '-'}\frac{{{over}}}{{{under}}}", False)
    if over != under:
        yield Form("upside down", rf"{sign}\frac{{{under}}}{{{over}}}", False)


def _quantity(gold: str) -> Iterator[Form]:
    match = _QUANTITY.fullmatch(gold)
    unit = (match[2] or match[3]) if match else ""
    if not match or unit not in _OTHER_UNIT:
        return
    number = match[1]
    yield Form("without its unit", number, True)
    yield Form("the unit, spelt otherwise", rf"{number}\,\mathrm{{{unit}}}", True)
    yield Form("the unit, spelt otherwise", f"{number} {unit}", True)
    yield Form("all as text", rf"\text{{{number} {unit}}}", True)
    yield Form("another unit", rf"{number}\text{{ {_OTHER_UNIT[unit]}}}", False)
    yield Form("one digit", rf"{_other_digit(number)}\text{{ {unit}}}", False)


def _set(gold: str) -> Iterator[Form]:
    match = _SET.fullmatch(gold)
    parts = _members(match[1]) if match else []
    if not _are_values(parts):
        return
    yield Form("in another order", r"\{" + ", ".join(reversed(parts)) + r"\}", True)
    yield Form("another spelling", r"\left\{" + ",".join(parts) + r"\right\}", True)
    yield Form("one digit", r"\{" + ", ".join([*parts[:-1], _other_digit(parts[-1])]) + r"\}", False)
    if len(parts) > 1:
        yield Form("one left out", r"\{" + ", ".join(parts[:-1]) + r"\}", False)


def _bracketed(gold: str) -> Iterator[Form]:
    match = _BRACKETED.fullmatch(gold)
    parts = _members(match[2]) if match else []
    if not match or len(parts) < 2 or any(one in gold for one in ("\\cup", "\\cap", "\\pm")):
        return
    left, right = match[1], match[3]
    if (left, right) == ("[", "]") and len(parts) > 2:  # who knows what that is
        return
    yield from _dressed(gold, named=False)
    yield Form("another spelling", rf"\left{left}" + ", ".join(parts) + rf"\right{right}", True)
    yield Form("another spelling", left + ",".join(parts) + right, True)
    endless = "\\infty" in gold
    if not endless and _are_values(parts[-1:]):
        changed = ", ".join([*parts[:-1], _other_digit(parts[-1])])
        yield Form("one digit", left + changed + right, False)
    if not endless and parts != parts[::-1] and _are_values(parts):
        yield Form("the order", left + ", ".join(reversed(parts)) + right, False)
    if (len(parts) == 2 and (left, right) != ("(", ")")) or endless:
        at_end = "\\infty" not in parts[-1]
        brackets = (left, _BRACKET[right]) if at_end else (_BRACKET[left], right)
        yield Form("a bracket", brackets[0] + ", ".join(parts) + brackets[1], False)


def _list(gold: str) -> Iterator[Form]:
    parts = _members(gold)
    if len(parts) < 2 or not _are_values(parts) or len({_value(part) for part in parts}) < len(parts):
        return
    yield Form("in another order", ", ".join(reversed(parts)), True)
    yield Form("in dollars", " and ".join(f"${part}$" for part in parts), True)
    yield Form("named", ", ".join(f"x = {part}" for part in parts), True)
    yield Form("a unit", ", ".join(rf"{part}\text{{ cm}}" for part in parts), True)
    yield Form("one left out", ", ".join(parts[:-1]), False)
    yield Form("one more", ", ".join([*parts, "987"]), False)
    changed = _other_digit(parts[-1])
    if _value(changed) not in {_value(part) for part in parts}:
        yield Form("one digit", ", ".join([*parts[:-1], changed]), False)


def _equation(gold: str) -> Iterator[Form]:
    left, equals, right = gold.partition("=")
    if not equals or "=" in right or any(sign in gold for sign in "<>") or not _is_formula(gold):
        return
    if left.strip() and right.strip() and left.strip()[-1] not in "!:\\":
        if re.search("[a-z]", _COMMAND.sub("", right)):  # nobody writes 5 = x
            yield Form("its sides exchanged", f"{right.strip()} = {left.strip()}", True)
        if re.search(r"\d", right):
            yield Form("one digit", f"{left.strip()} = {_other_digit(right.strip())}", False)


def _formula(gold: str) -> Iterator[Form]:
    if not _is_formula(gold) or len(_members(gold)) > 1 or any(sign in gold for sign in ("=", "<", ">", "\\in")):
        return
    yield from _dressed(gold)
    if "\\frac" in gold:
        yield Form("another spelling", gold.replace("\\frac", "\\dfrac"), True)
    if re.search(r"\d", gold):
        yield Form("one digit", _other_digit(gold), False)
    if "\\pm" not in gold and not re.search(r"(?<!^)[+-]", gold):
        yield Form("the sign", gold[1:] if gold.startswith("-") else f"-{gold}", False)


def _dressed(gold: str, *, named: bool = True) -> Iterator[Form]:
    """What may stand around any value."""
    yield Form("in dollars", f"${gold}$", True)
    letter = next((one for one in "xyzt" if one not in _COMMAND.sub("", gold)), None)
    if named and letter:
        yield Form("named", f"{letter} = {gold}", True)


def _misses(number: str) -> Iterator[Form]:
    yield Form("one digit", _other_digit(number), False)
    if re.search("[1-9]", number):
        yield Form("the sign", number[1:] if number.startswith("-") else f"-{number}", False)


def _other_digit(text: str) -> str:
    """The text with its last digit one higher, a 9 one lower."""
    return _LAST_DIGIT.sub(lambda match: "8" if match[0] == "9" else str(int(match[0]) + 1), text, count=1)


def _members(text: str) -> list[str]:
    """The parts between commas that stand in no bracket."""
    parts, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            parts.append(text[start:at].strip())
            start = at + 1
    parts.append(text[start:].strip())
    return parts if all(parts) else []


def _are_values(parts: list[str]) -> bool:
    return bool(parts) and all(_NUMBER.fullmatch(part) or _FRACTION.fullmatch(part) for part in parts)


def _value(text: str) -> Fraction | str:
    if match := _FRACTION.fullmatch(text):
        over, under = (int(one) for one in (match.group(2, 3) if match[2] else match.group(4, 5)))
        return Fraction(int(f"{match[1]}1") * over, under) if under else text
    return Fraction(text.replace(",", ""))


def _is_formula(gold: str) -> bool:
    return not _WORDS.search(gold) and "\\begin" not in gold and gold.isascii() and "\\ldots" not in gold
