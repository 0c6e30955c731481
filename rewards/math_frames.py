r"""What stands around an answer: dollars and other delimiters of mathematics, Markdown, fonts, braces; and money.

A dollar is a delimiter before it is money: `$14$` is 14, `$14` and `\$14` are 14 dollars.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from posttrain.rewards.math_signs import STYLES, TEXTS, closing_brace

#: `$...$` and `$$...$$`: by Pandoc's rule no digit follows, so that '$5 and $6' is money
_INLINE = re.compile(r"(?<![\\$])(\$\$?)((?:[^$\\]|\\.)+?)\1(?![\d$])", re.DOTALL)
_DELIMITED = re.compile(r"\\\((?P<round>(?:(?!\\[()]).)+)\\\)|\\\[(?P<square>(?:(?!\\[\[\]]).)+)\\\]", re.DOTALL)
_STYLED = re.compile(rf"\\(?:{STYLES}|(?P<text>{TEXTS}))\s*(?=\{{)")
_LEADING = re.compile(r"^(?:\\[ ,;:!]|\s)+")
_MARKS = ("**", "__", "`", '"', "*", "_")
_MONEY = {
    "$": "dollar",
    "€": "euro",
    "£": "pound",
    "¥": "yen",
    "₹": "rupee",
    "₽": "ruble",
    "₩": "won",
    "₱": "peso",
    "¢": "cent",
}
_CODES = {"usd": "dollar", "us": "dollar", "eur": "euro", "gbp": "pound", "jpy": "yen", "inr": "rupee", "rs": "rupee",
          "cny": "yuan", "rmb": "yuan"}  # fmt: skip
_SIGN = rf"[{''.join(_MONEY)}]"
#: \text{Rs. }250, \mathrm{USD}\ 5, 25\text{¢}
_IN_TEXT = re.compile(
    rf"\\{TEXTS}\s?\{{\s?(?:(?:US|HK|NZ|A|C|S)?\s?(?P<sign>\\?{_SIGN})|(?P<code>USD|EUR|GBP|JPY|INR|CNY|RMB|Rs)\.?)\s?\}}"
    r"(?:\\[ ,;:])?"
)
_CURRENCY = re.compile(
    rf"(?:(?<![A-Za-z])(?:US|HK|NZ|A|C|S)\s?)?(?P<sign>\\?{_SIGN})\s*(?=[-+]?\s*[\d.\\(])"
    rf"|(?<=[\d)}}])\s*(?P<after>\\?{_SIGN})(?!\w)|(?P<stray>\\?{_SIGN})"
    r"|(?<![A-Za-z\\])(?P<code>USD|EUR|GBP|JPY|INR|CNY|RMB|Rs\.?)\s*(?=\d)"
)


@dataclass(frozen=True, slots=True)
class Framed:
    r"""What is inside the frames of an answer.

    Args:
        text: The inside.
        words: A command such as `\text` stood around all of it.
        formula: `$...$`, `\(...\)` or the like stood around all of it.
    """

    text: str
    words: bool = False
    formula: bool = False


def unframed(text: str) -> Framed:
    """An answer without what stands around the whole of it; marks inside a formula stay."""
    words = formula = False
    for _ in range(12):
        before = text
        text = _LEADING.sub("", _without_end(text))
        for mark in _MARKS:
            # A mark of two signs may have lost its other end to whoever cut the answer out
            if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
                text = text[len(mark) : -len(mark)]
            elif mark in ("**", "`"):
                text = text.removeprefix(mark).removesuffix(mark)
        if (match := _INLINE.fullmatch(text)) or (match := _DELIMITED.fullmatch(text)):
            text, formula = next(group for group in match.groups()[::-1] if group is not None), True
        elif (match := _STYLED.match(text)) and closing_brace(text, match.end()) == len(text) - 1:
            words |= match["text"] is not None
            text = text[match.end() + 1 : -1]
        elif len(text) > 2 and text[0] == "{" and text[-1] == "}" and closing_brace(text, 0) == len(text) - 1:
            text = text[1:-1]
        if text == before:
            break
    return Framed(text, words, formula)


def _without_end(text: str) -> str:
    r"""A text without stops, spaces and spacing commands at its end; a pattern would take the square of its length."""
    while True:
        kept = text.rstrip().rstrip(".,;:\\").removesuffix("\\!")
        if kept == text:
            return text
        text = kept


def without_delimiters(text: str) -> str:
    """A text with the insides of all `$...$` in place of them."""
    return _INLINE.sub(r" \2 ", text) if "$" in text else text


def inline_formula(text: str, position: int = 0) -> re.Match[str] | None:
    r"""The `$...$`, `\(...\)` or `\[...\]` that starts at a position."""
    return _INLINE.match(text, position) or _DELIMITED.match(text, position)


def without_money(text: str) -> tuple[str, str | None]:
    """A text without the signs of currencies, and which these were; dollars as delimiters are gone before."""
    found: list[str] = []

    def note(match: re.Match[str]) -> str:
        sign = match["sign"] or match["after"]
        if sign:
            found.append(_MONEY[sign.removeprefix("\\")])
        elif match["code"]:
            found.append(_CODES[match["code"].rstrip(".").casefold()])
        return " "

    text = _IN_TEXT.sub(lambda match: match["sign"] or f"{match['code']} ", text) if "{" in text else text
    text = _CURRENCY.sub(note, text)
    return text, "+".join(dict.fromkeys(found)) or None
