"""Reading which of two roles a text gives to each of some people.

The text is cut into tokens (people, role words, other words, marks), the tokens into clauses, and each clause is
read left to right for 'Ann is a knight', 'Ann | knight', 'knights: Ann and Bob', 'both are knaves' and the like.
Everything is one pass over the text: no input, however hostile, takes more than linear time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from posttrain.rewards.role_clauses import Claim, claims_in, names_only, only_roles
from posttrain.rewards.role_words import Token, Vocabulary, cleaned, tokenize, words

CONTRADICTED = "contradicted"
HEDGED = "hedged"

_SAID = words(
    "said says saying claim claims claimed claiming stated states asserted asserts assert remarked remarks remark "
    "commented comments mentioned mentions told tells telling according accuses accused thinks believes declared "
    "declares declare noted notes expressed expresses argued argues suggested suggests insists "
    "insisted replied replies statement statements assertion asks asked"
)
_TRUTH = words("truth truths lie lies true truthfully")
_ASSUME = words(
    "assume assumes assuming suppose supposing hypothetically case cases imagine consider considering "
    "scenario possibility option try test"
)
_SETTLED = words("only consistent valid")  # 'the only consistent scenario is ...' assumes nothing
_IF = words("if whether unless would wouldn't iff were should implies imply assumption hypothesis example")
_HEDGE = words(
    "or either maybe perhaps possibly possible might may could probably likely presumably unclear unsure uncertain "
    "alternatively"
)
_UNKNOWN = words("undetermined unknown undeterminable unsolvable inconclusive")
_CANNOT = words("cannot can't couldn't impossible not")
_REVISION = words(
    "wait actually correction hmm oops sorry mistake mistaken scratch instead recheck reconsider reconsidering "
    "revised revise revising"
)
_THEREFORE = words("therefore thus hence so consequently finally conclusion conclude overall summary answer solution")
_EXPLAINED = words("no without because since doesn't don't")
_EVERYBODY = words("both all everyone everybody each they")
_REASON = frozenset(("because", "since"))
_VERBS = words("is are be must isn't aren't")
_SMALL_JOINERS = words("is are a an the and not as be both")


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
    ledger = _Ledger(len(vocabulary.names), strict)
    heading: bool | None = None  # 'Knaves:' on a line of its own, then one name a line
    column: list[int] = []  # a table's row of names, then its row of roles
    for sentence in _sentences(tokenize(cleaned(text, vocabulary), vocabulary)):
        if sentence.paragraph:
            ledger.new_paragraph()
        people, roles = names_only(sentence.tokens), only_roles(sentence.tokens)
        if people and heading is not None:
            ledger.add([Claim(person, heading) for person in people])
            continue
        if not any(token.value == "|" for token in sentence.tokens):
            column = []
        if column and len(roles) == len(column):
            ledger.add([Claim(person, role) for person, role in zip(column, roles, strict=True)])
        if people or roles:
            column = people if len(people) > 1 and Token("mark", "|") in sentence.tokens else []
            heading = roles[0] if len(roles) == 1 and not people else None
            continue
        if all(token.kind in ("mark", "arrow", "num") for token in sentence.tokens):
            continue  # the rule below a table's head, a number in a list
        column, heading = [], None
        for opener, clause in _clauses(sentence.tokens):
            _read_clause(clause, opener, sentence.question, ledger)
    return ledger.result()


class _Sentence(NamedTuple):
    tokens: list[Token]
    question: bool
    paragraph: bool  # a blank line comes before it


class _Ledger:
    """Who was said to be what. A segment is a stretch of text that has to agree with itself."""

    def __init__(self, people: int, strict: bool):
        self.people, self.strict = people, strict
        self.said: dict[int, bool | str] = {}
        self.segment: dict[int, bool | str] = {}
        self.replaces = False
        self.assuming = False

    def add(self, claims: list[Claim]) -> None:
        for claim in claims:
            for person in self._whom(claim):
                before = self.segment.get(person, claim.role)
                self.segment[person] = claim.role if before in (claim.role, HEDGED) else CONTRADICTED

    def _whom(self, claim: Claim) -> list[int]:
        if claim.person == Claim.EVERYONE:
            return list(range(self.people))
        if claim.person == Claim.BOTH:
            return [0, 1] if self.people == 2 else []
        if claim.person == Claim.OTHERS:
            known = set(claim.besides) or set(self.segment or self.said)
            return [person for person in range(self.people) if person not in known]
        return [claim.person]

    def hedge(self, people: Sequence[int]) -> None:
        for person in people:
            if self.segment.get(person) != CONTRADICTED:
                self.segment[person] = HEDGED

    def close(self, replaces: bool = False) -> None:
        """End the segment; `replaces` says that the next one may overrule what was said."""
        complete = len(self.segment) == self.people and HEDGED not in self.segment.values()
        overrule = self.replaces or (complete and not self.strict)
        for person, role in self.segment.items():
            before = self.said.get(person, role)
            agree = overrule or role == HEDGED or before in (role, HEDGED)
            self.said[person] = role if agree else CONTRADICTED
        self.segment, self.replaces, self.assuming = {}, replaces, False

    def new_paragraph(self) -> None:
        self.assuming = False
        if not self.strict:
            self.close(self.replaces and not self.segment)

    def result(self) -> dict[int, bool | str]:
        self.close()
        return self.said


def _read_clause(tokens: list[Token], opener: str, question: bool, ledger: _Ledger) -> None:
    """Put what one clause asserts into the ledger."""
    if opener:
        ledger.assuming = False
    if opener == "revision" or (opener == "conclusion" and not ledger.strict):
        ledger.close(replaces=True)
    tokens, quoted = _before_reported_speech(tokens)
    spoken = {token.value for token in tokens if token.kind == "word"}
    people = [token.value for token in tokens if token.kind == "name"]
    roles = any(token.kind == "role" for token in tokens)
    undecided = "determine" in " ".join(spoken) and spoken & _CANNOT
    ignorant = "don't" in spoken and "know" in spoken
    if spoken & _UNKNOWN or undecided or ignorant:
        ledger.hedge(range(ledger.people))
        return
    if question or (quoted and not roles):
        return
    contradiction = any(word.startswith("contradict") for word in spoken) and not spoken & _EXPLAINED
    if spoken & _ASSUME and not spoken & _SETTLED:
        ledger.assuming = not contradiction
        return
    if spoken & _IF:
        return
    if "either" in spoken and "way" in spoken:
        spoken.discard("either")
    if spoken & _HEDGE or ("can" in spoken and not spoken & {"only", "not", "we", "i"}):
        if spoken & _REASON or tokens[0].value == "as":
            return
        if people and (roles or "either" in spoken):
            ledger.hedge(people)
        elif roles and spoken & _EVERYBODY:
            ledger.hedge(range(ledger.people))
        return
    if contradiction:
        ledger.assuming = False
        if not ledger.strict:
            ledger.segment.clear()
        return
    claims = claims_in(tokens)
    if ledger.assuming:
        return
    if opener == "revision" and roles and not claims:
        ledger.hedge(list(ledger.said))  # 'no, a knave': of whom is anyone's guess
    ledger.add(claims)


def _before_reported_speech(tokens: list[Token]) -> tuple[list[Token], bool]:
    """Cut a clause at the first verb of saying, unless the writer says it ('I say that Ann ...')."""
    for i, token in enumerate(tokens):
        if token.kind == "word" and token.value in _SAID:
            if any(before.value in ("i", "we", "my", "our", "don't") for before in tokens[max(0, i - 2) : i]):
                continue
            if any(after.value in _TRUTH for after in tokens[i + 1 : i + 4]):
                continue  # 'Ann is a knight (tells the truth)'
            return tokens[:i], True
    return tokens, False


def _clauses(tokens: list[Token]) -> Iterator[tuple[str, list[Token]]]:
    """Split a sentence before words that give a reason, conclude or revise; yields (opener, tokens)."""
    opener = ""
    clause: list[Token] = []
    for i, token in enumerate(tokens):
        before = tokens[i - 1].value if i else None
        following = tokens[i + 1].value if i + 1 < len(tokens) else ","
        if token.kind == "word" and clause and (token.value in _REASON or (token.value, following) == ("as", "either")):
            yield opener, clause
            opener, clause = "", [token]
            continue
        if token.value == "actually" and before in _VERBS:  # 'Ann is actually a knight'
            opener = "revision"
            continue
        kind = _opener(before, token, following)
        if not kind or before in _VERBS:
            clause.append(token)
            continue
        if clause:
            yield opener, clause
        # 'Wait, so Ann is ...' stays a revision.
        opener = kind if clause or opener != "revision" else opener
        clause = []
    if clause or opener:
        yield opener, clause


def _opener(before: Any, token: Token, following: Any) -> str:
    if token.kind != "word" or (token.value == "so" and following in ("is", "are")):
        return ""
    if token.value in ("means", "implies") and before in ("this", "which", "that", "it"):
        return "conclusion"
    if token.value in _REVISION or (token.value == "no" and following in (",", "-", ":")):
        return "revision"
    if token.value in _THEREFORE and following != "that":
        return "conclusion"
    return ""


def _sentences(tokens: list[Token]) -> Iterator[_Sentence]:
    """Split at full stops, semicolons, question marks and line ends, but not at a line wrapped in mid-phrase."""
    current: list[Token] = []
    paragraph = False
    for i, token in enumerate(tokens):
        following = tokens[i + 1] if i + 1 < len(tokens) else None
        if token.kind == "nl" and _wrapped(current, following):
            continue
        ends = token.kind in ("nl", "para") or (token.kind == "mark" and token.value in ".;!?")
        if not ends:
            current.append(token)
            continue
        if current:
            yield _Sentence(current, token.value == "?", paragraph)
            current, paragraph = [], False
        paragraph = paragraph or token.kind == "para"
    if current:
        yield _Sentence(current, False, paragraph)


def _wrapped(current: list[Token], following: Token | None) -> bool:
    if not current or following is None:
        return False
    last = current[-1]
    if last.value == "," or (last.kind == "word" and last.value in _SMALL_JOINERS):
        return following.kind != "num" and following.value not in ("|", "-", "(")
    return following.kind == "word" and following.value in ("is", "are", "and", "isn't", "aren't", "a", "an")
