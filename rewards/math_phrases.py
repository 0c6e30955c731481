r"""What follows 'the answer is', a title such as '### Final Answer', or `####`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from posttrain.rewards.math_boxes import denied_behind
from posttrain.rewards.math_frames import inline_formula, unframed
from posttrain.rewards.math_numbers import plain_number
from posttrain.rewards.math_only_value import only_value
from posttrain.rewards.math_sentence import spoken_value, starts_with_value
from posttrain.rewards.math_several import as_one, belong_together
from posttrain.rewards.math_signs import without_emphasis
from posttrain.rewards.math_text import cleaned
from posttrain.rewards.math_units import unit_name

_ADVERB = r"(?:therefore|thus|hence|then|so|simply|just|clearly|indeed|now|given\s+by|equal\s+to|as\s+follows)"
_PHRASE = re.compile(
    r"(?<!\bwrong\s)(?<!\bincorrect\s)(?<!\bfalse\s)\b(?:(?P<final>final)\s+answers?|answers?|ans)\b\.?"
    r"(?:\s(?:to|of|for)\s[^.:=\n]{1,80}?\s(?=(?:is|are|would|must|should)\s)|\s?\([^()\n]{1,40}\))?"
    rf"[ \t*:=]{{0,6}}(?:(?:{_ADVERB}\s+)?"
    r"(?:is|are|was|equals|becomes|(?:would|should|must|will)\s+(?:then\s+|thus\s+)?be|comes\s+(?:out\s+)?to)\b"
    rf"(?:\s+{_ADVERB}\b)*[ \t*:=,]{{0,6}}|(?<=[:=]|\*)[ \t]*)"
    r"|\bans\.[ \t]{0,3}(?=[-\d$\\(\[])",
    re.IGNORECASE,
)
_TITLE = re.compile(
    r"^[#*_ \t]{0,9}(?:the\s|my\s)?(?P<final>final\s)?(?:answers?|result)[*_:. \t]{0,9}$", re.IGNORECASE | re.MULTILINE
)
_LABEL = re.compile(r"(?:so\s+|the\s+|my\s+)*(?:final\s+)?(?:answers?|ans|result)\b", re.IGNORECASE)
_MONEY_FIRST = re.compile(r"\$\$?\d[\d.,]*\s+[a-z]{2}")
_JOIN = re.compile(
    r"\s{0,3}(?:[,;&]|\b(?:and|or)\b)(?:\s{0,3}(?:[,;]|\b(?:and|or|also|maybe|perhaps|possibly|either|else)\b)){0,3}\s{0,3}"
)
#: Between two formulas only: of '3 to 2 places' the 2 is no answer
_BETWEEN = re.compile(
    r"\s{0,3}(?:/|\||\\slash(?![a-z])|\b(?:to|vs\.?|versus)(?![a-z])|(?<=\s)[-\u2013\u2014~](?=\s))\s{0,3}"
)
_PLACES = re.compile(r"\s{0,3}(?:more\s)?(?:decimal|significant|digit|place|d\.?p|s\.?f)", re.IGNORECASE)
_FORMULAS_APART = re.compile(r"(\$|\\\))\s{0,3}(?:/|\||\\slash|to|vs\.?|versus|[-\u2013\u2014~(])\s{0,3}(?=\$|\\\()")
_BRACKET = re.compile(r"\s{0,3}\(\s{0,3}")
_NUMBER = re.compile(r"-?\d[\d.,/]*(?<![.,])")
_SENTENCE_END = re.compile(
    r"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)[.;!?](?=\s|$|\*|<)|,?\s\(?(?:because|since|which|so|as|where)\s|<"
    r"|(?<=[\d})$]),?\s\(?(?:and\s)?not\s(?=[-$\\\d(])"  # 12, not 13
)
_HEDGE = re.compile(
    r"[\s.,;(]*(?:or|maybe|perhaps|possibly|alternatively|otherwise|(?:it|this)\s+(?:could|might|may))\b"
    r"(?!\W{0,3}(?:equivalent|in\s+other|simply|about|approximately|written|as\s+a|more|less|rather))",
    re.IGNORECASE,
)
_IN_WORDS = re.compile(r"[*_]{0,2}(?P<number>[1-9]?\d)[*_]{0,2}\s\((?P<words>[A-Za-z]{3,9}(?:[- ][A-Za-z]{3,5})?)\)")
_ONES_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen"
)
_TENS_WORDS = "- - twenty thirty forty fifty sixty seventy eighty ninety"
_ONES, _TENS = _ONES_WORDS.split(), _TENS_WORDS.split()
_HASHES = re.compile(r"#{4,}([^\n#]*)")
_HASHES_TRIED = 12
_END_TOKEN = re.compile(r"<\||</")  # of the text or of a part of it
_HEADING = re.compile(
    r"(?:step|part|case|explanation|solution|conclusion|verification|verify|check|checking|summary|note|notes|analysis"
    r"|approach|method|reasoning|given|understanding|calculation|calculate|compute|find|solve|introduction|problem"
    r"|question|proof|details|discussion|remarks?|alternative|setup|setting|why|how|what|let|using|determine)\b"
    r"|\d{1,2}[.)]\s+[A-Za-z]{2}",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _Said:
    text: str
    start: int
    end: int
    final: bool


def after_phrase(text: str) -> str | None:
    """What follows the last 'the answer is' or title; with what is offered beside it, which then is one answer."""
    text = without_emphasis(text)
    marks = sorted([*_PHRASE.finditer(text), *_TITLE.finditer(text)], key=lambda mark: mark.end())[-_HASHES_TRIED:]
    said: list[_Said] = []
    for mark in reversed(marks):
        found = _value_after(text, mark)
        if found is None:
            if not said:
                return None
            break
        if said and found.text and mark.end() > said[0].start:
            continue  # a title and the phrase in it
        if said and not _beside(text[found.end : said[0].start], found, said[0]):
            break
        said.insert(0, found)
    return as_one([one.text for one in said]) if said else None


def after_hashes(text: str) -> tuple[str | None, bool]:
    """The answer in the last line that `####` marks, and whether there is such a line; headings are none."""
    lines = list(_HASHES.finditer(text))[-_HASHES_TRIED:]
    found: list[str] = []
    start, last = 0, True
    for line in reversed(lines):
        if found and (text[line.end() : start].strip() or text.count("\n", line.end(), start) > 1):
            break
        answer = _hashed(text, line)
        if answer == "":
            return None, True
        if answer is None:
            if found:
                break
            continue
        found.insert(0, answer)
        start, last = line.start(), False
    return (as_one(found), True) if found and not last else (None, False)


def without_sentence(text: str) -> str:
    """The value in an answer that is a sentence, such as 'Answer: 5' or 'The least such $k$ is 34.'; else the text."""
    phrase = _PHRASE.search(text) if _LABEL.match(text.lstrip("*_# ")) else None
    if phrase is not None and not text[: phrase.start()].strip("*_# ").casefold().strip("soethmy "):
        found = _value_after(text, phrase)
        if found is not None and "\n" not in text.strip():
            return found.text
    framed = unframed(text)
    sentence = framed.text if framed.words else text
    return only_value(sentence) or spoken_value(sentence) or text


def _hashed(text: str, line: re.Match[str]) -> str | None:
    """The answer that one line of `####` gives; "" when nothing at all follows, None when it is a heading."""
    title, rest = _END_TOKEN.split(line[1])[0].strip(" *_\t"), text[line.end() :].strip()
    if not title:
        title, _, rest = rest.partition("\n")
        title, rest = _END_TOKEN.split(title)[0].strip(), rest.strip()
    if not title:
        return ""
    if label := _LABEL.match(title):
        if not title[label.end() :].strip(" :.*_"):
            following = _END_TOKEN.split(rest.split("\n", 1)[0])[0].strip()
            return without_sentence(following.lstrip("# ")) if following else None
        return without_sentence(title)
    more = bool(rest) and not rest.startswith(("<|", "</"))
    if _HEADING.match(title) and (more or not starts_with_value(title)):
        return None
    if more and (title.endswith(":") or not starts_with_value(title)):
        return None
    return without_sentence(title)


def _value_after(text: str, mark: re.Match[str]) -> _Said | None:
    position = mark.end()
    while position < len(text) and text[position] in "*_ \t\n:":
        position += 1
    start, final = mark.start(), bool(mark["final"])
    line_end = text.find("\n", position)
    line_end = len(text) if line_end < 0 else line_end
    formula = None if _MONEY_FIRST.match(text, position) else inline_formula(text, position)
    if formula is not None:
        end = _with_bracketed(text, position, _with_joined(text, formula.end()))
        end = _with_hedge(text, _with_unit(text, end, line_end), line_end)
        value = _FORMULAS_APART.sub(r"\1, ", text[position:end])
    else:
        end = _sentence_end(text, position, line_end)
        value = text[position:end].strip().strip("*_ ")
        if not starts_with_value(value):
            value = only_value(value) or spoken_value(value) or value
        value = _without_words(value)
        hedged = _with_hedge(text, end, line_end)
        value, end = (f"{value}, {text[end:hedged].strip(' .;')}", hedged) if hedged > end else (value, end)
    if not value.strip() or (any(character.isdigit() for character in value) and denied_behind(text, end)):
        return None
    return _Said(value.strip(), start, end, final)


def _without_words(value: str) -> str:
    """`12` of '12 (twelve)'; words that are another number stay, and so do numbers from a hundred."""
    match = _IN_WORDS.fullmatch(value)
    if match is None:
        return value
    tens, ones = divmod(int(match["number"]), 10)
    if tens < 2:
        spelled = _ONES[10 * tens + ones]
    else:
        spelled = " ".join(filter(None, (_TENS[tens], _ONES[ones] if ones else "")))
    return match["number"] if match["words"].casefold().replace("-", " ") == spelled else value


def _with_joined(text: str, end: int) -> int:
    """The end of all of `$3$, $5$ or 8`, and of `$3$ / $8$`, which offers two answers as well."""
    while match := _JOIN.match(text, end):
        another = inline_formula(text, match.end()) or _NUMBER.match(text, match.end())
        if another is None:
            break
        end = another.end()
    between = _BETWEEN.match(text, end)
    another = inline_formula(text, between.end()) if between else None
    return end if another is None or _PLACES.match(text, another.end()) else another.end()


def _with_bracketed(text: str, start: int, end: int) -> int:
    """The end of `$3$ ($8$)`, when these are two numbers: then it is a choice of two."""
    bracket = _BRACKET.match(text, end)
    inside = inline_formula(text, bracket.end()) if bracket else None
    if inside is None or text[inside.end() : inside.end() + 1] != ")":
        return end
    one, other = (plain_number(cleaned(part).math) for part in (text[start:end], inside.group()))
    return inside.end() if one and other and one.value != other.value else end


def _with_unit(text: str, end: int, line_end: int) -> int:
    stop = _sentence_end(text, end, max(end, line_end))
    words = text[end:stop]
    return stop if words.strip() == "%" or (len(words) < 40 and unit_name(words.strip()) is not None) else end


def _with_hedge(text: str, end: int, line_end: int) -> int:
    """The end of what is offered beside an answer, in its own sentence or in the next one."""
    if not (match := _HEDGE.match(text, end, max(end, line_end))):
        return end
    stop = _sentence_end(text, match.end(), max(match.end(), line_end))
    return stop if re.search(r"[\d$\\]|\b[A-Za-z]\b", text[match.end() : stop]) else end


def _sentence_end(text: str, start: int, line_end: int) -> int:
    """Where a sentence ends; what looks like an end inside a formula is none."""
    position = start
    while position < line_end:
        ending = _SENTENCE_END.search(text, position, line_end)
        if ending is None:
            return line_end
        dollar = text.find("$", position, ending.start())
        formula = inline_formula(text, dollar) if dollar >= 0 else None
        if formula is None or formula.end() > line_end:
            return ending.start()
        position = formula.end()
    return line_end


def _beside(gap: str, one: _Said, other: _Said) -> bool:
    if other.final and not one.final:
        return False
    return belong_together(re.sub(r"\b(?:the|my|so)\b", " ", gap, flags=re.IGNORECASE))
