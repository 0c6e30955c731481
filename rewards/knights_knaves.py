"""Reward `knights_knaves`: who is a knight and who is a knave, in whatever words the answer comes.

Which part of the completion is the answer is decided here; what it says is read by `role_statements.py`.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.rewards.role_statements import CONTRADICTED, HEDGED, read_roles
from posttrain.rewards.role_words import Vocabulary
from posttrain.rewards.thinking import answer_section
from posttrain.scoring.score import Score

_HEADING = re.compile(
    r"^[^\w\n]{0,12}(?:(?:so|thus|hence|therefore),? )?(?:(?:the|my|our) )?(?:final |correct )?"
    r"(?:answers?|conclusions?|solutions?|verdict|result)\b(?:[^\w\n]{0,6}$|(?: is| are)?[^\w\n]{0,6}:)",
    re.IGNORECASE | re.MULTILINE,
)
#: An answer section longer than this states nothing; of untagged text only this much of the end is read.
_LONGEST_ANSWER = 20_000
_HEADINGS_TRIED = 4  # from the end, until one is followed by a statement
_QUOTED_PUZZLE = 40  # characters from which a verbatim copy of the prompt is taken out of the completion


def score(
    completion: str,
    *,
    names: Sequence[str],
    solution: Sequence[bool],
    knight_knave: Mapping[str, str] | None = None,
    **row: Any,
) -> Score:
    """1 when the final answer states everyone's role and every role is right; otherwise 0.

    The answer is the last `<answer>` section; without one, what follows the last heading such as 'Final answer:',
    or else the whole text after the thinking. Inside it the last statement counts, if the text says that it
    changes its mind. A contradiction, a hedge, a question, or a quoted, reported or denied claim is no statement.

    Args:
        completion: The completion as text.
        names: The people.
        solution: True for each who is a knight, in the order of `names`.
        knight_knave: The puzzle's own words for the roles, such as `{"knight": "saint", "knave": "sinner"}`.
        row: Only `prompt` and `quiz` are read: a verbatim copy of the puzzle is no answer.

    Returns:
        Score with the parts `correct_share` (of everyone) and `complete` (1 when nobody is missing); as `parsed`
        the role word of each person who has one; as `note` what is wrong with each of the others.

    Raises:
        ValueError: the row itself makes no sense: no names, a repeated name, or another number of solutions.
    """
    names, solution = list(names), [bool(role) for role in solution]
    if not names or len(names) != len(solution) or len({name.casefold() for name in names}) != len(names):
        raise ValueError(f"row with names {names} and solution {solution}: one role for each of distinct names")
    vocabulary = Vocabulary.of(names, knight_knave)

    section, tagged = answer_section(completion)
    if tagged and len(section) > _LONGEST_ANSWER:
        said = {}
        notes = [f"an answer of {len(section)} characters"]
    else:
        said = _read(section, tagged, vocabulary, [row.get("prompt"), row.get("quiz")])
        notes = ["nothing after the thinking"] if not section.strip() else []

    right, parsed = 0, {}
    for person, (name, truth) in enumerate(zip(names, solution, strict=True)):
        role = said.get(person)
        if isinstance(role, bool):
            parsed[name] = vocabulary.word(role)
            right += role == truth
            if role != truth:
                notes.append(f"{name}: said {vocabulary.word(role)}, is {vocabulary.word(truth)}")
        elif role == CONTRADICTED:
            notes.append(f"{name}: said to be both {vocabulary.word(True)} and {vocabulary.word(False)}")
        elif role == HEDGED:
            notes.append(f"{name}: left open")
        else:
            notes.append(f"no statement about {name}")
    parts = {"correct_share": right / len(names), "complete": float(len(parsed) == len(names))}
    return Score(float(right == len(names)), parts=parts, parsed=parsed, note="; ".join(notes) or "everyone right")


def read_answer(
    completion: str, *, names: Sequence[str], knight_knave: Mapping[str, str] | None = None, **row: Any
) -> tuple[bool, ...] | None:
    """Everyone's role in the order of `names`, for votes (`majority`); None if anyone's is missing."""
    names = list(names)
    section, tagged = answer_section(completion)
    if tagged and len(section) > _LONGEST_ANSWER:
        return None
    said = _read(section, tagged, Vocabulary.of(names, knight_knave), [row.get("prompt"), row.get("quiz")])
    roles = [said.get(person) for person in range(len(names))]
    return tuple(bool(role) for role in roles) if all(isinstance(role, bool) for role in roles) else None


score.read_answer, score.same_answer = read_answer, operator.eq  # type: ignore[attr-defined]


def _read(section: str, tagged: bool, vocabulary: Vocabulary, copies: list[Any]) -> dict[int, bool | str]:
    for copy in copies:
        if isinstance(copy, str) and len(copy) >= _QUOTED_PUZZLE:
            section = section.replace(copy, "\n\n")
    if tagged:
        return read_roles(section, vocabulary, strict=True)
    section = section[-_LONGEST_ANSWER:]
    for heading in reversed(list(_HEADING.finditer(section))[-_HEADINGS_TRIED:]):
        said = read_roles(section[heading.end() :], vocabulary)
        if said:
            return said
    return read_roles(section, vocabulary)
