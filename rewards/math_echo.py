r"""Whether a right answer only repeats the question, or leaves its arithmetic to whoever reads it.

`\boxed{525^2-475^2}` equals 50000, and a comparison of values cannot tell it from an answer. Asked only about answers
that equal the gold one, so nothing here can make a wrong answer right.
"""

from __future__ import annotations

import functools
import re

from posttrain.rewards.math_compare import approximate, leaves
from posttrain.rewards.math_domains import set_in_signs
from posttrain.rewards.math_families import unqualified
from posttrain.rewards.math_names import EQUALS, NAME
from posttrain.rewards.math_numbers import plain_number
from posttrain.rewards.math_pair import readings
from posttrain.rewards.math_text import cleaned, tidied
from posttrain.rewards.math_vectors import as_arrows

_LONGEST_PROMPT = 50_000  # characters, from the end

_FRACTION = r"(?:\\frac\s*(?:\{\s*-?\d+\s*\}|\d)\s*(?:\{\s*-?\d+\s*\}|\d)|\d+\s*/\s*\d+)"
_PLAIN_FRACTION = re.compile(_FRACTION)
_SCIENTIFIC = re.compile(
    r"(?<![\w.])(?:[\d.,]+\s*(?:\\times|\\cdot|\*)\s*)?10\s*\^\s*(?:\{\s*-?\d+\s*\}|\d(?!\d))(?!\s*[\w(\\^!])"
)
_UNDONE = re.compile(
    r"[+*^!|]|[\w)}\]]\s*-|\\(?:times|cdot|div|ast|bmod|mod|pmod|[dt]?binom|[lr]?floor|[lr]ceil|[lr]?vert)(?![a-zA-Z])"
    r"|\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?(?![a-z])|\\(?:log|ln|lg|exp|max|min|det)(?![a-z])|/"
    r"|(?:[\d)}\]]|(?<![\\A-Za-z])[A-Za-z])\s*\(|\)\s*(?:[\w({]|\\(?:frac|sqrt|pi|left)(?![a-zA-Z]))"
)
_ROOT_OR_FRACTION = re.compile(r"\\sqrt|\\frac|/")
_ONLY_NUMBERS = re.compile(r"(?:[\d\s.,;:()\[\]{}/+-]|\\[{}]|\\(?:frac|pm|cup|infty)(?![a-z]))+")
_BUILDER = re.compile(
    r"^\s*(?:\\\{\s*)?[A-Za-z]\s*(?:\\in\s*\\mathbb\s*\{?\s*R\s*\}?\s*)?(?:\\mid(?![a-z])|\||:)(?=.*[<>\\])"
)
_INEQUALITY = re.compile(
    r"[<>]|\\(?:le|ge|ne|lt|gt|in|setminus|cup|cap|lor|land)(?![a-zA-Z])|(?<=[)\]}R])\s*-\s*(?=\\\{)"
)
_DISTANCE = re.compile(r"\|\s*[A-Za-z]\s*(?:[-+]\s*[\d./]+\s*)?\|(?=\s*(?:[<>]|\\[lg]))")
_FUNCTION = re.compile(r"[A-Za-z]\([a-z]\)")  # what an inequality may be about, as a letter
_NO_MEANING = re.compile(r"[\s{}$]+|\\(?:left|right)(?![a-zA-Z])|\.(?!\d)")
_TIMES = re.compile(r"\\(?:times|cdot)(?![a-zA-Z])")
_SILENT_TIMES = re.compile(r"\*(?=[(A-Za-z\\])|(?<=[)A-Za-z])\*")


def why_no_answer(gold: str, said: str, prompt: str = "") -> str | None:
    """Why an answer that equals the gold one is none all the same; None when it is one.

    Two things are refused, unless the text is the gold answer's own. What holds an operation (a sum, a power, a root,
    a fraction of more than numbers) and stands in the prompt, white space apart, repeats the question. And where the
    gold answer is nothing but numbers, sums, products, powers, factorials, logarithms and the like are arithmetic
    left undone; fractions, roots and `1.2 \\times 10^3` are numbers.

    Args:
        gold: The gold answer.
        said: An answer that `math_compare.same_answer` found equal to it.
        prompt: The prompt as text.
    """
    golds = {key for side in approximate(gold) for key in _keys(side)}
    text = approximate(set_in_signs(as_arrows(gold, said)[1]))[0]
    whole = readings(approximate(gold)[0], text)[1].math
    if golds & set(map(_key, [said, whole, *_parts(whole)])):
        return None
    question = _question(prompt[-_LONGEST_PROMPT:])
    if _operates(whole) and _stands_in(_key(whole), question):
        return "repeats the question"
    numbers = _is_of_numbers(gold)
    for leaf in leaves(unqualified(text)[0]):
        reasons = [_why_not(part, golds, question, numbers=numbers) for part in _parts(cleaned(leaf).math)]
        if reasons and None not in reasons:
            return reasons[0]
    return None


def _why_not(part: str, golds: set[str], question: str, *, numbers: bool) -> str | None:
    """Why one side of an answer such as `2+3=5` is no answer by itself; one side that is one is enough."""
    if _key(part) in golds:
        return None
    if _operates(part) and _stands_in(_key(part), question):
        return "repeats the question"
    # 1 < x < 5 and |x-2| < 3 are as good as (1, 5) and (-1, 5)
    sides = [side.strip() for side in _INEQUALITY.split(_DISTANCE.sub("x", _BUILDER.sub("", part)))]
    return (
        "leaves the arithmetic undone"
        if numbers and any(_undone(side) for side in sides if not _FUNCTION.fullmatch(side))
        else None
    )


def _keys(gold: str) -> list[str]:
    math = cleaned(gold).math
    return [_key(gold), _key(math), *map(_key, _parts(math))]


def _parts(math: str) -> list[str]:
    """What is equated, without a name in front."""
    parts = [part.strip() for part in EQUALS.split(math) if part.strip()]
    return parts[1:] if len(parts) > 1 and NAME.fullmatch(parts[0]) else parts


def _is_of_numbers(gold: str) -> bool:
    """The gold answer is a number, or a list, a point or intervals of numbers, and itself computed."""
    found = [cleaned(leaf).math for leaf in leaves(unqualified(approximate(gold)[-1])[0])]
    return bool(found) and all(map(_is_number, found))


def _is_number(math: str) -> bool:
    parts = _parts(math)
    solved = len(parts) == 1 or NAME.fullmatch(math.partition("=")[0].strip()) or _ONLY_NUMBERS.fullmatch(parts[0])
    return bool(solved and parts and _ONLY_NUMBERS.fullmatch(parts[-1])) and not _undone(parts[-1])


def _undone(math: str) -> bool:
    return bool(_UNDONE.search(_SCIENTIFIC.sub("1", _PLAIN_FRACTION.sub("1", _without_signs(math)))))


def _operates(math: str) -> bool:
    if plain_number(math) is not None:
        number = plain_number(math)
        # 1/2 is a number, 144/12 is a question
        return number is not None and "/" in math and number.value.denominator == 1
    rest = _PLAIN_FRACTION.sub("1", _without_signs(math))
    return bool(_UNDONE.search(rest) or _ROOT_OR_FRACTION.search(rest))


def _without_signs(math: str) -> str:
    """Without brackets around everything and without plus signs that add nothing: `(+5)` is a number."""
    math = re.sub(r"\s*\+\s*", "+", math.strip())
    while math.startswith("(") and math.endswith(")") and _closes_last(math):
        math = math[1:-1].strip()
    return re.sub(r"(?<![\w)}\]!.|'])\+", "", math)


def _closes_last(math: str) -> bool:
    depth = 0
    for position, character in enumerate(math):
        depth += (character == "(") - (character == ")")
        if not depth:
            return position == len(math) - 1
    return False


def _key(text: str) -> str:
    """A text without what doesn't change its meaning: white space, braces, sizes of brackets, silent products."""
    text = _NO_MEANING.sub("", _TIMES.sub("*", tidied(text)))
    return _SILENT_TIMES.sub("", text).rstrip(".,;:")


@functools.lru_cache(maxsize=64)  # a prompt has a group of completions
def _question(prompt: str) -> str:
    return _key(prompt)


def _stands_in(key: str, question: str) -> bool:
    """Whether a key is in the question, and not as a part of a longer number or name."""
    bare = key
    while bare.startswith("(") and bare.endswith(")") and _closes_last(bare):
        bare = bare[1:-1]
    # What stood outside the formula has lost its white space: only digits show that a number goes on
    before = r"(?<![\d.])" if bare[:1].isdigit() else ""
    after = r"(?!\.?\d)" if bare[-1:].isdigit() else ""
    return bool(bare) and re.search(before + re.escape(bare) + after, question) is not None
