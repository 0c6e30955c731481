"""Reading which of two roles a text gives to each of some people.

The text is cut into tokens, these into lines, table rows and sentences, sentences into clauses. What a clause does with
its statement (conclude, suppose, report, ask, hedge) is in the letters of `role_lexicon`; the statement itself is read
by `role_clauses`. Everything is one pass over the text: no input, however hostile, takes more than linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from posttrain.rewards.role_clauses import Said, claims_in
from posttrain.rewards.role_ledger import CONTRADICTED, HEDGED, Ledger
from posttrain.rewards.role_letters import Items, framed, itemize
from posttrain.rewards.role_tables import Table, is_rule, split
from posttrain.rewards.role_words import Token, Vocabulary, cleaned, tokenize, words

__all__ = ["CONTRADICTED", "HEDGED", "read_roles"]

_SMALL_JOINERS = words("is are a an the and not as be both")
_NAMES_ONLY = re.compile(r"[#1()\-,f:>.]{0,6}(?:[wgl]:)?N(?:[,&()\-#1/]{0,3}N)*[):,\-.#1]{0,4}")
_ROLES_ONLY = re.compile(r"[^A-Za-z!]{0,6}(?:[aobfkm1#]{0,3}R[^A-Za-z]{0,6}(?:gF?)?l?[^A-Za-z]{0,4})+")
_ROLE_LINE = re.compile(r"[^A-Za-z]{0,4}(?:l[:>\-v]{1,2}|v)?[anob]{0,3}R(?![^RN]{0,4}R)(?![:>v\-(|]{0,3}[NABOk])")
_DIALOGUE = re.compile(r"[#1()\-,.]{0,6}N:[f]{0,3}(?:(?P<other>N)[fn]{0,3}v|[ABZqmi#z]|1[^(R])")
_SPLITS = re.compile(r"[rCDVM!]")
#: 'That is wrong', 'this cannot be', 'this assignment is inconsistent': what the sentence before says is denied
_TAKES_BACK = re.compile(
    r"[&+,fV]{0,4}(?:[hi][DQf]?I?|(?:BF)?g|pv?|hv)(?:vf{0,2}a?[dK]|f?vf?nb|(?:f?n|vn)(?:vb?|b)|f?[wcy]?f?a?K|vnf?H$)(?![a-zA-Z])"
)
_SOMEONE = frozenset({"he", "she", "they", "him"})
_IN_A_CASE = frozenset({"case", "scenario", "situation", "possibility"})
_SUFFIX = re.compile(r"Y[fa]{0,2}N?$")
_THEN = re.compile(r"[,\-]?f")


class _Sentence(NamedTuple):
    items: Items
    question: bool
    paragraph: bool  # a blank line comes before it
    starts_line: bool
    ends_line: bool


def read_roles(text: str, vocabulary: Vocabulary, strict: bool = False) -> dict[int, bool | str]:
    """What the text finally says about each person.

    Args:
        text: The part of a completion that holds the answer.
        vocabulary: The people and the role words.
        strict: A second statement that contradicts the first needs words such as 'wait' or 'actually' to replace
            it. Otherwise a conclusion ('so ...') or a complete paragraph replaces what came before as well, since
            reasoning in the open tries things out.

    Returns:
        By position in `names`: True (knight), False (knave), CONTRADICTED or HEDGED. Nobody else is mentioned.
    """
    ledger = Ledger(len(vocabulary.names), strict)
    page = _Page(ledger)
    table: Table | None = None
    for row, paragraph in _lines(tokenize(cleaned(text, vocabulary), vocabulary)):
        if Token("mark", "|") not in row:
            table = None if not row else table
            for sentence in _sentences(row, paragraph):
                table = None
                page.read(sentence)
            continue
        if paragraph:
            ledger.new_paragraph()
            table = None
        if is_rule(row):
            continue
        table = table or Table()
        said = table.read(row)
        if said is not None:
            ledger.add(said)
            page.heading = page.person = None
            continue
        for cell in split(row):
            for sentence in _sentences(cell, False):
                page.read(sentence._replace(starts_line=False))
    return ledger.result()


class _Page:
    """Sentences one after the other, and the headings above them."""

    def __init__(self, ledger: Ledger):
        self.ledger = ledger
        self.heading: bool | None = None  # 'Knaves:' on a line of its own, then one name a line
        self.person: int | None = None  # 'Ann:' on a line of its own, then her role

    def read(self, sentence: _Sentence) -> None:
        items, ledger = sentence.items, self.ledger
        latest, ledger.latest = ledger.latest, []
        if not re.search("[A-Za-z!<~^]", items.letters):
            return
        if sentence.paragraph:
            ledger.new_paragraph()
        if items.letters.strip(",-:") == "H" and "or" in items.values:
            ledger.open("M")  # one solution 'or' another
            return
        if self.heading is not None and _NAMES_ONLY.fullmatch(items.letters):
            ledger.add([(person, self.heading) for person in _named(items)])
            return
        if self._only_roles(sentence):
            return
        heading, person = self.heading, self.person
        self.heading = self.person = None
        if _NAMES_ONLY.fullmatch(items.letters) and sentence.ends_line:
            names = _named(items)
            self.person = names[0] if len(names) == 1 else None
            ledger.context.last = tuple(names)
            return
        if person is not None and _ROLE_LINE.match(items.letters):
            items = Items("N:" + items.letters, [person, ":", *items.values])
        if heading is not None and items.letters.startswith("Z"):
            return
        _read_sentence(items, sentence, latest, ledger)

    def _only_roles(self, sentence: _Sentence) -> bool:
        """A line of roles heads a list; the same behind a statement takes it back ('a knight; a knave')."""
        items, ledger = sentence.items, self.ledger
        if not sentence.starts_line and re.match("a?R,(?!N+$)", items.letters):
            ledger.add([(who, items.values[items.letters.index("R")]) for who in ledger.context.last])
        if not _ROLES_ONLY.fullmatch(items.letters):
            return False
        roles = [value for letter, value in zip(items.letters, items.values, strict=True) if letter == "R"]
        person, self.person = self.person, None
        if person is not None and sentence.starts_line and len(roles) == 1 and sentence.ends_line:
            ledger.add([(person, roles[0] != ("n" in items.letters))])
        elif not sentence.starts_line and ledger.context.last and len(roles) == 1:
            ledger.add([(who, roles[0]) for who in ledger.context.last if who in ledger.segment])
        self.heading = roles[0] if len(roles) == 1 and person is None and sentence.starts_line else None
        return True


def _named(items: Items) -> list[int]:
    return [value for letter, value in zip(items.letters, items.values, strict=True) if letter == "N"]


def _read_sentence(items: Items, sentence: _Sentence, latest: Said, ledger: Ledger) -> None:
    dialogue = _DIALOGUE.match(items.letters)
    if dialogue:
        speaker = items.values[items.letters.index("N")]
        if not dialogue.group("other") or items.values[dialogue.start("other")] != speaker:
            ledger.context.last = (speaker,)
            return
    denies = _TAKES_BACK.match(items.letters) and not _SOMEONE & set(map(str, items.values[:5]))
    if ledger.mode == "" and denies and not sentence.question:
        ledger.take_back(latest)
    if ledger.mode == "if" and not _THEN.match(items.letters):
        ledger.mode = ""
    for opener, clause in _clauses(items):
        _read_clause(clause, opener, sentence.question, ledger)
    if "Y" in items.letters or "~" in items.letters:
        ledger.latest = []  # 'that is wrong' may be said of what is reported


def _clauses(items: Items) -> Iterator[tuple[str, Items]]:
    """Split a sentence before letters that give a reason, conclude or revise; yields (opener, items)."""
    opener, start = "", 0
    for match in _SPLITS.finditer(items.letters):
        i, letter = match.start(), match.group()
        if i > start or (opener and letter not in "rCD"):
            yield opener, items.cut(start, i)
            opener = ""
        if letter == "r":
            opener, start = "", i
        else:
            # 'Wait, so Ann is ...' stays a revision.
            opener = opener if opener in ("V", "M", "!") or (opener == "D" and letter == "C") else letter
            start = i + 1
    if start < len(items.letters) or opener:
        yield opener, items.cut(start)


def _read_clause(items: Items, opener: str, question: bool, ledger: Ledger) -> None:
    """Put what one clause asserts into the ledger."""
    letters = items.letters
    ledger.open(opener)
    if "T" in letters:
        ledger.open("V")
    first = re.search("N(?:[,&]{1,2}N)*", letters)
    if first and not re.match(r"[f,&+C]{0,3}p", letters):
        ledger.context.last = tuple(
            value for value in items.values[first.start() : first.end()] if isinstance(value, int)
        )
    people = _named(items)
    if "U" in letters:
        ledger.hedge(people if people and "R" in letters else ledger.context.everyone())
        if letters.endswith(":"):
            ledger.announce("hedging")
        return
    if question:
        return
    items, reported = _before_reported_speech(items)
    letters = items.letters
    roles = "R" in letters or "t" in letters
    bare = letters.rstrip("-").endswith(":")
    if reported and not roles:
        if bare or reported == ":":
            ledger.announce("reported")
        return
    negative = "K" in letters and not re.search(r"[zn][^N]{0,4}K|r|w\w?K", letters)
    if "S" in letters or "<" in letters:
        if "S" in letters or bare or roles:
            ledger.suppose(
                [] if negative else claims_in(Items(re.sub("[SI<]", "f", letters), items.values), ledger.context)
            )
        if negative:
            ledger.refute()
        return
    if "I" in letters:
        if letters[0] != "r" or roles:
            ledger.condition(claims_in(Items(re.sub("[I]", "f", letters), items.values), ledger.context))
        if negative:
            ledger.refute()
        return
    if "H" in letters:
        if letters[0] in "re":
            return
        if people and (roles or "either" in items.values):
            ledger.hedge(people)
        elif roles and re.search("[ABp]", letters):
            ledger.hedge(ledger.context.everyone())
        if bare and not roles:
            ledger.announce("hedging")
        return
    if roles and re.search(r"R,fK(?![zn])", letters) and _IN_A_CASE & set(map(str, items.values[:4])):
        return  # 'in this case, ..., which contradicts ...'
    if "K" in letters or "b" in letters:
        ledger.verdict(negative, bool(people))
        if negative and not people:
            return
    if re.search("d[:]$", letters) and not people:
        ledger.announce("reported")
        return
    said = claims_in(items, ledger.context)
    if opener == "V" and "R" in letters and not said:
        ledger.hedge(list(ledger.said))  # 'no, a knave': of whom is anyone's guess
        return
    if not people and "d" in letters:
        ledger.verdict(True, True)
    ledger.conclude(said, opener)


def _before_reported_speech(items: Items) -> tuple[Items, str]:
    """Cut a clause at the first verb of saying; nothing is left of '..., says Ann'."""
    letters = items.letters
    i = letters.find("Y")
    if "~" in letters:
        return Items("", []), "~"
    if i < 0:
        return items, ""
    if (
        _SUFFIX.search(letters, i)
        and re.search("R", letters[:i])
        and re.search(r"[,\-]f?N?f?$|vi[Np]$|e[Np]f?$", letters[:i])
    ):
        return Items("", []), "Y"
    behind = re.search(r",\+", letters[i:])
    if behind:
        start = i + behind.end()
        return Items(letters[:i] + ";" + letters[start:], [*items.values[:i], ";", *items.values[start:]]), "Y"
    return items.cut(0, i), ":" if letters.endswith(":") else "Y"


def _lines(tokens: list[Token]) -> Iterator[tuple[list[Token], bool]]:
    """Lines as lists of tokens, each with whether a blank line comes before; wrapped ones joined."""
    current: list[Token] = []
    paragraph = False
    for i, token in enumerate(tokens):
        following = tokens[i + 1] if i + 1 < len(tokens) else None
        if token.kind == "nl" and _wrapped(current, following):
            continue
        if token.kind not in ("nl", "para"):
            current.append(token)
            continue
        if current:
            yield current, paragraph
            current, paragraph = [], False
        paragraph = paragraph or token.kind == "para"
    if current:
        yield current, paragraph


def _wrapped(current: list[Token], following: Token | None) -> bool:
    if not current or following is None:
        return False
    last = current[-1]
    if last.value == "," or (last.kind == "word" and last.value in _SMALL_JOINERS):
        return following.kind != "num" and following.value not in ("|", "-", "(")
    return following.kind == "word" and following.value in ("is", "are", "and", "isn't", "aren't", "a", "an")


def _sentences(line: list[Token], paragraph: bool) -> Iterator[_Sentence]:
    """Split a line at full stops, semicolons, question marks."""
    start = 0
    for i, token in enumerate([*line, Token("nl", "\n")]):
        if token.kind != "nl" and not (token.kind == "mark" and token.value in ".;!?"):
            continue
        if i > start:
            items = framed(itemize(line[start:i]))
            ends = i >= len(line) - 1
            yield _Sentence(items, token.value == "?", paragraph, start == 0, ends)
            paragraph = False
        start = i + 1
