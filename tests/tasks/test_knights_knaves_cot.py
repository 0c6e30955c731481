"""Every step of a chain of thought is parsed back from its words and checked by brute force."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from posttrain.tasks.knights_knaves.cot import assume_thought, completion_text, copy_thought
from posttrain.tasks.knights_knaves.generate import PuzzleSource, random_claim
from posttrain.tasks.knights_knaves.logic import CONNECTIVES, evaluate
from posttrain.tasks.knights_knaves.text import DEFAULT_ROLES, NAMES, claim_text, complete_roles, quiz_text

WORD = re.compile(r"[A-Za-z]+|[().=]")
VALUES = {"true": True, "false": False}
PERTURBED = complete_roles({"knight": "altruist", "knave": "egoist"})


class ClaimReader:
    """Recursive descent over the words of a claim, written without a look at how claims are rendered."""

    def __init__(self, text, names, roles):
        self.words, self.names, self.at = WORD.findall(text), list(names), 0
        self.roles = {roles["knight"]: "telling-truth", roles["knave"]: "lying"}

    def next(self, *expected):
        word = self.words[self.at] if self.at < len(self.words) else None
        assert word is not None, "the text ends early"
        assert not expected or word.lower() in expected, (word, expected, self.words)
        self.at += 1
        return word

    def sees(self, *words):
        here = [word.lower() for word in self.words[self.at : self.at + len(words)]]
        return here == list(words)

    def whole(self, read):
        claim = read()
        assert self.at == len(self.words), self.words[self.at :]
        return claim

    def compound(self, unit, negation, equivalence):
        """if U then U | <negation> U | U | U and U and ... | U or ... | U <equivalence> U"""
        if self.sees("if"):
            self.next("if")
            first = unit()
            self.next("then")
            return ("->", first, unit())
        if self.sees(*negation):
            for word in negation:
                self.next(word)
            return ("not", unit())
        parts, tags = [unit()], set()
        for tag, words in (("and", ["and"]), ("or", ["or"]), ("<=>", equivalence)):
            while self.sees(*words):
                for word in words:
                    self.next(word)
                parts.append(unit())
                tags.add(tag)
        assert len(tags) <= 1
        return (*tags, *parts) if tags else parts[0]

    def claim(self):
        return self.compound(self.unit, ["it", "is", "not", "the", "case", "that"], ["if", "and", "only", "if"])

    def unit(self):
        if self.sees("("):
            self.next("(")
            inner = self.claim()
            self.next(")")
            return inner
        person = self.names.index(self.next())
        self.next("is")
        negated = self.sees("not")
        if negated:
            self.next("not")
        self.next("a", "an")
        atom = (self.roles[self.next()], person)
        return ("not", atom) if negated else atom


class WorkedReader(ClaimReader):
    """The same for the `copy` form, where each atom and each bracket is followed by its value."""

    def __init__(self, text, names, roles, tried):
        super().__init__(text, names, roles)
        self.tried = tried

    def claim(self):
        return self.compound(self.unit, ["not"], ["iff"])

    def unit(self):
        if self.sees("("):
            self.next("(")
            claim = self.claim()
            self.next(")")
        else:
            person = self.names.index(self.next())
            claim = (self.roles[self.next()], person)
        assert VALUES[self.next()] == evaluate(claim, self.tried), f"a false value after {claim}"
        return claim


COPY = re.compile(r" (\w+) (\w+) says (.+) = (true|false) (yes|no)")


def check_copy(text, puzzle, roles):
    """Raises unless every word of a `copy` thought is true and it ends at the solution."""
    people = len(puzzle.names)
    role_of = {roles["knight"]: True, roles["knave"]: False}
    lines = text.split("\n")
    for line, tried in zip(lines, itertools.product([True, False], repeat=people), strict=False):
        head, *said, end = line.split(".")
        assert end == ""
        words = head.split()
        assert words[0] == "Try"
        assert words[1::2] == list(puzzle.names)
        assert tuple(role_of[word] for word in words[2::2]) == tried
        verdicts = []
        for speaker, sentence in enumerate(said):
            match = COPY.fullmatch(sentence)
            assert match
            name, role, worked, value, verdict = match.groups()
            assert (name, role_of[role]) == (puzzle.names[speaker], tried[speaker])
            reader = WorkedReader(worked, puzzle.names, roles, tried)
            assert reader.whole(reader.claim) == puzzle.statements[speaker]
            assert VALUES[value] == evaluate(puzzle.statements[speaker], tried)
            assert (verdict == "yes") == (VALUES[value] == tried[speaker])
            verdicts.append(verdict)
        last = line is lines[-1]
        assert verdicts == ["yes"] * people if last else verdicts == ["yes"] * (len(verdicts) - 1) + ["no"]
        if last:
            assert tried == puzzle.solution


ASSUME = re.compile(
    r"Assume (\w+) is an? (\w+), so their claim that (.+) must be (true|false)\. No contradiction so far\."
)
REJECT = re.compile(
    r"(\w+) cannot be an? (\w+), because the claim of (\w+) that (.+) must be (true|false) and would be (true|false)\."
)
RETREAT = re.compile(r"No role is left for (.+), so go back and reconsider (\w+)\.")


def check_assume(text, puzzle, roles):
    """Raises unless every step of an `assume` thought is true where it stands and the last is the solution."""
    names, statements = list(puzzle.names), puzzle.statements
    role_of = {roles["knight"]: True, roles["knave"]: False}
    everything = list(itertools.product([True, False], repeat=len(names)))
    assumed: dict[int, bool] = {}
    ruled_out: dict[int, set[bool]] = {}

    def extensions(roles_so_far):
        return [full for full in everything if all(full[i] == role for i, role in roles_so_far.items())]

    def claim_of(person, words):
        reader = ClaimReader(words, names, roles)
        assert reader.whole(reader.claim) == statements[person]

    head, *steps, foot = text.split("\n")
    for step in steps:
        if match := ASSUME.fullmatch(step):
            person, knight, value = names.index(match[1]), role_of[match[2]], VALUES[match[4]]
            claim_of(person, match[3])
            assert person not in assumed
            assert knight == value
            assert knight not in ruled_out.get(person, set())
            assumed[person] = knight
            for speaker, role in assumed.items():
                assert any(evaluate(statements[speaker], full) == role for full in extensions(assumed))
        elif match := REJECT.fullmatch(step):
            person, knight, speaker = names.index(match[1]), role_of[match[2]], names.index(match[3])
            claim_of(speaker, match[4])
            must, would = VALUES[match[5]], VALUES[match[6]]
            supposed = {**assumed, person: knight}
            assert person not in assumed
            assert must == supposed[speaker]
            assert {evaluate(statements[speaker], full) for full in extensions(supposed)} == {would} == {not must}
            ruled_out.setdefault(person, set()).add(knight)
        elif match := RETREAT.fullmatch(step):
            stuck = [names.index(name) for name in re.findall(r"\b(?!and\b)\w+", match[1])]
            assert ruled_out[stuck[0]] == {True, False}
            assert puzzle.solution not in extensions(assumed)
            for person in stuck[1:]:
                assert next(reversed(assumed)) == person
                ruled_out.setdefault(person, set()).add(assumed.pop(person))
                assert ruled_out[person] == {True, False}
            person = names.index(match[2])
            assert next(reversed(assumed)) == person
            for other in stuck:
                del ruled_out[other]
            ruled_out.setdefault(person, set()).add(assumed.pop(person))
            assert ruled_out[person] != {True, False}
        else:
            pytest.fail(f"not a step: {step}")
    assert tuple(assumed[i] for i in range(len(names))) == puzzle.solution
    assert head == "Let us assume a role for one person after another and look for contradictions."
    assert foot == "Everybody has a role and no claim is contradicted, so this is the solution."


def puzzles(people, depth, count):
    source = PuzzleSource([people], depth, list(CONNECTIVES), NAMES)
    return source.draw(count, random.Random(people * 10 + depth), "test")


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("people", range(2, 9))
def test_every_assume_step_is_true(people, depth):
    for roles in (DEFAULT_ROLES, PERTURBED):
        for puzzle in puzzles(people, depth, 8):
            check_assume(assume_thought(puzzle.statements, puzzle.names, roles), puzzle, roles)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("people", range(2, 9))
def test_every_copy_step_is_true(people, depth):
    for roles in (DEFAULT_ROLES, PERTURBED):
        for puzzle in puzzles(people, depth, 12 if people < 6 else 2):
            check_copy(copy_thought(puzzle.statements, puzzle.names, roles), puzzle, roles)


def test_backtracking_happens():
    thoughts = [assume_thought(p.statements, p.names, DEFAULT_ROLES) for p in puzzles(5, 1, 40)]
    assert sum("go back" in thought for thought in thoughts) > 10
    assert any(" and " in match[1] for thought in thoughts for match in RETREAT.finditer(thought))


@pytest.mark.parametrize(("write", "check"), [(assume_thought, check_assume), (copy_thought, check_copy)])
def test_the_checks_notice_a_false_word(write, check):
    noticed = tried = 0
    for puzzle in puzzles(3, 2, 5):
        text = write(puzzle.statements, puzzle.names, DEFAULT_ROLES)
        for match in re.finditer(r"\b(true|false|yes|no|knight|knave)\b", text):
            swap = {"true": "false", "false": "true", "yes": "no", "no": "yes", "knight": "knave", "knave": "knight"}
            wrong = text[: match.start()] + swap[match[0]] + text[match.end() :]
            tried += 1
            try:
                check(wrong, puzzle, DEFAULT_ROLES)
            except (AssertionError, pytest.fail.Exception):
                noticed += 1
    assert tried > 50
    assert noticed == tried


@pytest.mark.parametrize("depth", [0, 1, 2, 4])
def test_a_claim_can_be_read_back_from_its_words(depth):
    rng = random.Random(depth)
    for _ in range(200):
        claim = random_claim(rng, 4, depth, list(CONNECTIVES.values()))
        for spaced in (False, True):
            reader = ClaimReader(claim_text(claim, NAMES[:4], PERTURBED, spaced=spaced), NAMES[:4], PERTURBED)
            assert reader.whole(reader.claim) == claim


def test_the_quiz_holds_every_claim_and_the_role_words():
    puzzle = puzzles(4, 1, 1)[0]
    quiz = quiz_text(puzzle.statements, puzzle.names, PERTURBED, random.Random(0))
    assert quiz.startswith("A very special island is inhabited only by altruists and egoists. Altruists always tell")
    assert quiz.endswith("So who is an altruist and who is an egoist?")
    for claim in puzzle.statements:
        assert claim_text(claim, puzzle.names, PERTURBED).lower() in quiz.lower()
    assert "knight" not in quiz


def test_worked_example():
    names, statements = ["Ann", "Bob"], (("and", ("lying", 0), ("lying", 1)), ("telling-truth", 1))
    assert copy_thought(statements, names, DEFAULT_ROLES).split("\n") == [
        "Try Ann knight Bob knight. Ann knight says Ann knave false and Bob knave false = false no.",
        "Try Ann knight Bob knave. Ann knight says Ann knave false and Bob knave true = false no.",
        "Try Ann knave Bob knight. Ann knave says Ann knave true and Bob knave false = false yes. "
        "Bob knight says Bob knight true = true yes.",
    ]
    assert completion_text("x", "y") == "<think>x</think>\n<answer>y</answer>"
    assert completion_text(None, "y") == "<answer>y</answer>"
