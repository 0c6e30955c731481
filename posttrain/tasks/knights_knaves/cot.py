"""Worked solutions whose every line is true.

Two forms. `assume` reasons as the published data does: assume a role, look for a contradiction, go back when both
roles fail. `copy` is for tiny models: assignments are tried in a fixed order, and each atom is restated next to its
truth value, so that every word follows from words nearby. A tiny model learns that form fastest, but its length
grows with 2**people; from 4 people on, use `assume`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from posttrain.tasks.knights_knaves.logic import (
    ATOMS,
    Claim,
    Statements,
    agreement_table,
    all_assignments,
    assignment,
    evaluate,
    knight_table,
    mentioned,
)
from posttrain.tasks.knights_knaves.text import claim_text, is_role, join_words


def completion_text(thought: str | None, answer: str) -> str:
    """A demonstration: the thought, when there is one, and the answer, each in its tags."""
    tagged = f"<answer>{answer}</answer>"
    return tagged if thought is None else f"<think>{thought}</think>\n{tagged}"


def copy_thought(statements: Statements, names: Sequence[str], roles: Mapping[str, str]) -> str:
    """Tries assignments in order, one line each, up to the first that fits.

    A line names the assignment, then each claim with the value of every part, the claim's own value, and `yes` when
    that is what the speaker's role asks for (a knight's claim true, a knave's false). The line ends at the first `no`.

        Try Ann knight Bob knight. Ann knight says Bob knave false = false no.
        Try Ann knight Bob knave. Ann knight says Bob knave true = true yes. Bob knave says ...
    """
    people, lines = len(statements), []
    for index in range(1 << people):
        tried = assignment(index, people)
        named = [_named(name, knight, roles) for name, knight in zip(names, tried, strict=True)]
        line = [f"Try {' '.join(named)}."]
        fits = True
        for speaker, claim in enumerate(statements):
            value = evaluate(claim, tried)
            fits = value == tried[speaker]
            worked = _worked(claim, tried, names, roles)
            line.append(f"{named[speaker]} says {worked} = {_word(value)} {'yes' if fits else 'no'}.")
            if not fits:
                break
        lines.append(" ".join(line))
        if fits:
            break
    return "\n".join(lines)


def _named(name: str, knight: bool, roles: Mapping[str, str]) -> str:
    return f"{name} {roles['knight'] if knight else roles['knave']}"


def _word(value: bool) -> str:
    return "true" if value else "false"


def _worked(claim: Claim, tried: tuple[bool, ...], names: Sequence[str], roles: Mapping[str, str]) -> str:
    """A claim with the value after each atom and each bracket."""
    tag, parts = claim[0], claim[1:]
    if tag in ATOMS:
        return f"{_named(names[parts[0]], tag == 'telling-truth', roles)} {_word(evaluate(claim, tried))}"
    inner = [
        text if part[0] in ATOMS else f"( {text} ) {_word(evaluate(part, tried))}"
        for part, text in ((part, _worked(part, tried, names, roles)) for part in parts)
    ]
    if tag == "not":
        return f"not {inner[0]}"
    if tag == "->":
        return f"if {inner[0]} then {inner[1]}"
    return f" {'iff' if tag == '<=>' else tag} ".join(inner)


def assume_thought(statements: Statements, names: Sequence[str], roles: Mapping[str, str]) -> str:
    """Backtracking search in words, one step a line.

    A step assumes a role that no claim of an already assumed person rules out, or says which claim rules it out, or
    goes back to the last person with a role left. "Rules out" is exact: no roles of the others would help.
    """
    lines = ["Let us assume a role for one person after another and look for contradictions."]
    lines += _Search(statements, names, roles).steps()
    lines.append("Everybody has a role and no claim is contradicted, so this is the solution.")
    return "\n".join(lines)


class _Search:
    """Depth-first search over roles, knight first, that writes down what it finds."""

    def __init__(self, statements: Statements, names: Sequence[str], roles: Mapping[str, str]):
        self.names, self.roles, self.people = names, roles, len(statements)
        self.claims = [claim_text(claim, names, roles) for claim in statements]
        self.mentions = [mentioned(claim) for claim in statements]
        self.agreement = [agreement_table(i, claim, self.people) for i, claim in enumerate(statements)]

    def steps(self) -> list[str]:
        """The steps up to the first assignment without a contradiction."""
        lines: list[str] = []
        assumed: dict[int, bool] = {}  # in the order of the assumptions
        possible = [all_assignments(self.people)]  # the assignments that each prefix of the assumptions leaves
        person, candidates = 0, [True, False]
        untried: list[list[bool]] = []  # the roles left for each assumed person
        while True:
            chosen = None
            while candidates and chosen is None:
                knight = candidates.pop(0)
                left = possible[-1] & self._role_table(person, knight)
                culprit = self._contradicted([*assumed, person], left)
                if culprit is None:
                    chosen = knight
                    assumed[person] = knight
                    possible.append(left)
                    lines.append(self._assumption(person, knight))
                else:
                    must = knight if culprit == person else assumed[culprit]
                    lines.append(self._rejection(person, knight, culprit, must))
            if chosen is not None:
                untried.append(candidates)
                if len(assumed) == self.people:
                    return lines
                person, candidates = self._next(assumed), [True, False]
                continue
            exhausted = [person]
            while True:  # back to the last person who has a role left; one exists while a solution does
                person, _ = assumed.popitem()
                possible.pop()
                candidates = untried.pop()
                if candidates:
                    break
                exhausted.append(person)
            stuck = join_words([self.names[i] for i in exhausted])
            lines.append(f"No role is left for {stuck}, so go back and reconsider {self.names[person]}.")

    def _role_table(self, person: int, knight: bool) -> int:
        here = knight_table(person, self.people)
        return here if knight else all_assignments(self.people) ^ here

    def _contradicted(self, speakers: list[int], left: int) -> int | None:
        return next((speaker for speaker in speakers if not left & self.agreement[speaker]), None)

    def _next(self, assumed: Mapping[int, bool]) -> int:
        """The first person without a role whom an assumed speaker mentions, else the first without one."""
        for speaker in assumed:
            for person in self.mentions[speaker]:
                if person not in assumed:
                    return person
        return next(person for person in range(self.people) if person not in assumed)

    def _assumption(self, person: int, knight: bool) -> str:
        role = is_role(self.names[person], knight, self.roles)
        value = _word(knight)
        return f"Assume {role}, so their claim that {self.claims[person]} must be {value}. No contradiction so far."

    def _rejection(self, person: int, knight: bool, culprit: int, must: bool) -> str:
        role = self.roles["a_knight"] if knight else self.roles["a_knave"]
        return (
            f"{self.names[person]} cannot be {role}, because the claim of {self.names[culprit]} that "
            f"{self.claims[culprit]} must be {_word(must)} and would be {_word(not must)}."
        )


def thought(form: str, statements: Statements, names: Sequence[str], roles: Mapping[str, str]) -> str:
    """The worked solution in one of the forms `assume` and `copy`. The puzzle must have a solution."""
    write = {"assume": assume_thought, "copy": copy_thought}[form]
    return write(statements, names, roles)
