r"""Sentences that have one value and say it of something: `She has 5 apples left.` says 5, `There are $34$ of them` 34.

Nothing is read where there is a second number, in digits or words, a bound ('at least'), a denial, a doubt or a choice,
or where the number counts something else ('5 times', 'step 5').
"""

from __future__ import annotations

import re

from posttrain.rewards.math_statements import gives_direction
from posttrain.rewards.math_units import unit_name

_LONGEST = 200  # characters of a sentence that is looked at
_TEXT = re.compile(r"\\text\s?\{([^{}]*)\}")
_FORMULA = re.compile(r"\$([^$]{1,80})\$")
_NUMBER = (
    r"(?:\\?[$€£¥₹]\s?)?-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?(?:\s?\\?%|\^\{?\\circ\}?|°)?"
    r"(?:\s(?:hundred|thousand|million|billion|trillion)(?![a-z]))?"
)
_VALUE = re.compile(
    rf"(?<![\w.,\\^_/+*=<>(-])(?:{_NUMBER}|\\[dt]?frac\{{-?\d+\}}\{{\d+\}})(?![\w$^_/+*=<>(!:-]|[.,]\d)"
)
#: What the rest of such a sentence is made of: words, and letters in dollars
_REST = re.compile(r"(?:[A-Za-z\s,.;:'-]|\$[A-Za-z]\$)*")
_WORD = re.compile(r"[A-Za-z][A-Za-z']*")
_VERBS = re.compile(
    r"(?:there|that|this|it|he|she|they|we|you|i) (?:is|are|was|were)|(?:is|are|was|were|has|have|had|will|can|needs?"
    r"|takes?|took|makes?|made|gets?|got|gives?|gave|earns?|costs?|sells?|sold|buys?|bought|pays?|paid|saves?|spends?"
    r"|spent|eats?|ate|weighs?|measures?|travels?|runs?|ran|drives?|drove|walks?|works?|reads?|requires?|contains?"
    r"|holds?|lasts?|equals?|becomes?|wins?|won|loses?|lost|leaves?|left|keeps?|kept|must|should|would|[a-z]{3,}ed)",
    re.IGNORECASE,
)
_REFUSED_WORDS = """
    yes true lost loses loss
    not no never none nobody nothing neither nor cannot without if unless whether suppose assume guess maybe perhaps
    possibly probably might could may or either and plus minus versus vs but however wrong incorrect false hardly
    impossible unlikely doubt except excluding instead actually multiple multiples factor factors divisor divisors
    divisible
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety dozen half halves third thirds quarter
    quarters twice thrice double triple another
"""
_REFUSED = frozenset(_REFUSED_WORDS.split())
#: In front of a number: a bound
_BOUNDS_WORDS = "than least most almost nearly under over below above between fewer up exceeds exceed"
_BOUNDS = frozenset(_BOUNDS_WORDS.split())
#: In front of a number that only numbers something
_LABELS_WORDS = """
    step part case figure page question problem number option chapter day room grade class team player group no
    row column line level type version box door bus route equation base mod modulo power root exponent index from
    choice answer to until before after by times place position seat lane year exercise
    january february march april may june july august september october november december
"""
_LABELS = frozenset(_LABELS_WORDS.split())
#: Behind a number that is not the value then
_MULTIPLYING_WORDS = """
    times fold hundredths tenths thousandths squared cubed factorial pi sqrt root choose mod e i x to st nd rd th
    percentage points out
"""
_MULTIPLYING = frozenset(_MULTIPLYING_WORDS.split())


def only_value(text: str) -> str | None:
    """The one value of a sentence, with the word behind it, which may be its unit; None for everything else."""
    if not 8 <= len(text) <= _LONGEST or not (text[0].isalpha() or text.startswith("\\text")):
        return None
    if "\n" in text or "?" in text:
        return None
    flat = " ".join(_TEXT.sub(r" \1 ", text).split()).rstrip(" .!;,")
    found = _only_one(flat)
    if found is None:
        return None
    value, before, after = found
    if not before[:1].isalpha() or not _REST.fullmatch(before) or not _REST.fullmatch(after) or "n't" in flat:
        return None
    words, behind = ([word.casefold() for word in _WORD.findall(part)] for part in (before, after))
    said = {*words, *behind} - ({"may"} if re.search(r"(?<=\s)May(?![a-z])", flat) else set())  # the month
    if len(words) < 2 or _REFUSED & said or _BOUNDS & set(words) or words[-1] in _LABELS:
        return None
    if gives_direction(said):
        return None
    if behind and (behind[0] in _MULTIPLYING or (len(behind[0]) == 1 and behind[0] != "a")):
        return None
    if not _has_verb(words, before):
        return None
    unit = re.match(r"\s([a-z]{2,12})(?![a-z'])", after)
    return f"{value}{unit.group()}" if unit and unit_name(unit[1]) else value


def _only_one(text: str) -> tuple[str, str, str] | None:
    """The only formula in dollars that has a digit, or else the only number, with what stands on both sides of it."""
    formulas = [match for match in _FORMULA.finditer(text) if any(character.isdigit() for character in match[1])]
    found = formulas or list(_VALUE.finditer(text))
    if len(found) != 1:
        return None
    match = found[0]
    before, after = text[: match.start()], text[match.end() :]
    return (match.group(), before, after) if not any(one.isdigit() for one in before + after) else None


def _has_verb(words: list[str], before: str) -> bool:
    if any(_VERBS.fullmatch(word) for word in words):
        return True
    # 'Janet makes', 'The train travels': the second word, or the third behind an article
    place = 2 if words[0] in ("the", "a", "an", "her", "his", "their", "our", "my") else 1
    return len(words) > place and words[place].endswith("s") and len(words[place]) > 3 and before[:1].isupper()
