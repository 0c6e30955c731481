"""Puzzles and answers in words, in the style of the published data."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from posttrain.errors import DataError
from posttrain.tasks.knights_knaves.logic import ATOMS, Claim, Statements

# fmt: off
NAMES = (
    "Ann", "Bob", "Cleo", "Dan", "Eve", "Finn", "Gina", "Hugo", "Ivy", "Jon", "Kate", "Leo", "Mona", "Ned", "Olga",
    "Paul", "Rosa", "Sam", "Tina", "Victor", "Wendy", "Yuri", "Zara", "Adam", "Bella", "Carl", "Dora", "Eric", "Flora",
    "Greg", "Helen", "Ian", "Jane", "Karl", "Lena", "Mark", "Nina", "Oscar", "Petra", "Ralph", "Sara", "Tom", "Ursula",
    "Vera", "Walter", "Amy", "Boris", "Clara", "David", "Elsa", "Felix", "Hanna", "Igor", "Julia", "Kevin", "Laura",
    "Martin", "Nora", "Otto", "Peter", "Rita", "Simon", "Tessa", "Viola",
)
# fmt: on

DEFAULT_ROLES = {
    "knight": "knight",
    "knave": "knave",
    "a_knight": "a knight",
    "a_knave": "a knave",
    "Knight": "Knight",
    "Knave": "Knave",
}

# {claim} is the claim as it stands inside a sentence, {Claim} the same with a capital.
_SPEECH = (
    '{name} said, "{Claim}."',
    '{name} replied, "{Claim}."',
    '{name} remarked, "{Claim}."',
    '{name} explained: "{Claim}."',
    '{name} answered: "{Claim}."',
    '{name} announced, "{Claim}."',
    '{name} was overheard saying, "{Claim}."',
    'According to {name}, "{claim}."',
    'In the words of {name}: "{Claim}."',
    'The answer of {name} was: "{Claim}."',
    '"{Claim}," {name} claimed.',
    '"{Claim}," {name} insisted.',
    '"{Claim}," {name} told you.',
    '"{Claim}," said {name}.',
    '"{Claim}" - {name}.',
    "{name} said that {claim}.",
    "{name} told you that {claim}.",
    "{name} assured you that {claim}.",
    "{name} let you know that {claim}.",
)

# No name of the puzzle stands here, so that the example does not suggest an answer.
_FORMAT_REQUEST = (
    "Think it through between <think> and </think>. Then state the role of each person between <answer> and "
    "</answer>, one numbered line per person, such as: (1) NAME is {a_knight}"
)


def complete_roles(roles: Mapping[str, str] | None, *, where: str = "knight_knave") -> dict[str, str]:
    """The six role words of the published `knight_knave` column, from at least `knight` and `knave`.

    Missing articles and capitals are derived ("a pioneer", "an egoist", "Pioneer").

    Raises:
        DataError: `knight` or `knave` is missing, a key is unknown, or both roles have the same word.
    """
    given = dict(DEFAULT_ROLES if roles is None else roles)
    for key, value in given.items():
        if key not in DEFAULT_ROLES or not isinstance(value, str) or not value.strip():
            raise DataError(f"{key}: {value!r}", expected=f"words for {', '.join(DEFAULT_ROLES)}", where=where)
    if "knight" not in given or "knave" not in given:
        raise DataError(f"keys {sorted(given)}", expected="at least knight and knave", where=where)
    if given["knight"].lower() == given["knave"].lower():
        raise DataError(f"both roles are called {given['knight']!r}", expected="two words", where=where)
    derived = {
        "a_knight": _with_article(given["knight"]),
        "a_knave": _with_article(given["knave"]),
        "Knight": _capital(given["knight"]),
        "Knave": _capital(given["knave"]),
    }
    return {key: given.get(key) or derived[key] for key in DEFAULT_ROLES}


def _with_article(word: str) -> str:
    return f"{'an' if word[0].lower() in 'aeiou' else 'a'} {word}"


def _capital(text: str) -> str:
    start = len(text) - len(text.lstrip("("))
    return text[: start + 1].upper() + text[start + 1 :]


def _plural(word: str) -> str:
    if word.endswith("y") and word[-2:-1] not in ("a", "e", "i", "o", "u"):
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh", "o")) else "s")


def join_words(words: Sequence[str]) -> str:
    """ "A", "A and B", "A, B, and C"."""
    if len(words) < 3:
        return " and ".join(words)
    return ", ".join(words[:-1]) + f", and {words[-1]}"


def is_role(name: str, knight: bool, roles: Mapping[str, str]) -> str:
    """ "Ann is a knight"."""
    return f"{name} is {roles['a_knight'] if knight else roles['a_knave']}"


def claim_text(claim: Claim, names: Sequence[str], roles: Mapping[str, str], *, spaced: bool = False) -> str:
    """A claim as it stands inside a sentence; a compound inside a compound is in brackets.

    Args:
        claim: The claim.
        names: One name per person.
        roles: The six role words.
        spaced: Put spaces inside the brackets, so that every word follows a space.
    """
    tag, parts = claim[0], claim[1:]
    if tag in ATOMS:
        return is_role(names[parts[0]], tag == "telling-truth", roles)
    if tag == "not" and parts[0][0] in ATOMS:
        tag, person = parts[0]
        return f"{names[person]} is not {roles['a_knight'] if tag == 'telling-truth' else roles['a_knave']}"
    inner = [_bracketed(part, names, roles, spaced) for part in parts]
    if tag == "not":
        return f"it is not the case that {inner[0]}"
    if tag == "->":
        return f"if {inner[0]} then {inner[1]}"
    return {"<=>": " if and only if "}.get(tag, f" {tag} ").join(inner)


def _bracketed(claim: Claim, names: Sequence[str], roles: Mapping[str, str], spaced: bool) -> str:
    text = claim_text(claim, names, roles, spaced=spaced)
    if claim[0] in ATOMS or (claim[0] == "not" and claim[1][0] in ATOMS):
        return text
    return f"( {text} )" if spaced else f"({text})"


def quiz_text(statements: Statements, names: Sequence[str], roles: Mapping[str, str], rng: random.Random) -> str:
    """The puzzle as the published data words it: the island, its people, what each said, the question."""
    knights, knaves = _plural(roles["knight"]), _plural(roles["knave"])
    sentences = [
        f"A very special island is inhabited only by {knights} and {knaves}.",
        f"{_capital(knights)} always tell the truth, and {knaves} always lie.",
        f"You meet {len(names)} inhabitants: {join_words(names)}.",
    ]
    for name, claim in zip(names, statements, strict=True):
        text = claim_text(claim, names, roles)
        sentences.append(rng.choice(_SPEECH).format(name=name, claim=text, Claim=_capital(text)))
    sentences.append(f"So who is {roles['a_knight']} and who is {roles['a_knave']}?")
    return " ".join(sentences)


def short_text(statements: Statements, names: Sequence[str], roles: Mapping[str, str]) -> str:
    """The claims alone, in the fewest words. Every name and role follows a space, so it is the same token anywhere."""
    said = (
        f"{name} says {claim_text(claim, names, roles, spaced=True)}."
        for name, claim in zip(names, statements, strict=True)
    )
    return f"Puzzle: {' '.join(said)}"


def full_prompt(quiz: str, roles: Mapping[str, str]) -> str:
    """The puzzle and how to answer it."""
    return f"{quiz}\n{_FORMAT_REQUEST.format(a_knight=roles['a_knight'])}"


def solution_text(solution: Sequence[bool], names: Sequence[str], roles: Mapping[str, str]) -> str:
    """The answer in the published form: "(1) Ann is a knight", one person per line."""
    rows = zip(names, solution, strict=True)
    return "\n".join(f"({i}) {is_role(name, knight, roles)}" for i, (name, knight) in enumerate(rows, 1))
