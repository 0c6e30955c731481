"""A reward to begin with, written for the rows of a file: it works as it is, and says how to make it one's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from posttrain.planning.starting import answers
from posttrain.planning.starting.found import Found, written
from posttrain.tasks.rows.templates import as_text

LOOKED_AT = 500
"""Demonstrations that are looked at to find where their answer stands."""
SURE, LIKELY = 0.95, 0.5
"""Shares of them in which a place is taken for the one, and for the best guess."""
SHORT = 40
"""Characters up to which a demonstration without an answer beside it is compared as a whole."""

Place = Callable[[str, str], str | None]


@dataclass(frozen=True)
class Reward:
    """A reward file.

    Args:
        text: What the file says.
        said: What the reward does on the demonstrations, in words.
    """

    text: str
    said: str


def reward_for(found: Found) -> Reward:
    """The reward for what was found: by the answer, by the demonstration, or a stand-in where there is neither."""
    parameter = found.roles.parameter
    if parameter is None or (found.roles.answer is None and not found.demonstrated):
        said = "the rows have no answer to judge by: reward.py holds a stand-in to replace"
        return Reward(_HEAD.format(what="a stand-in, to be replaced: it knows no answer.") + _STAND_IN, said)
    if found.roles.answer is None:
        return _by_demonstration(found, parameter)
    pairs = _pairs(found, parameter)
    place, share = place_of(pairs)
    return _exact(parameter, place, _told(place, share, len(pairs)))


def place_of(pairs: Sequence[tuple[str, str]]) -> tuple[Place, float]:
    """Where the demonstrations have their answers, and the share of them that do.

    Args:
        pairs: Demonstrations with the answers of their rows.
    """
    if not pairs:
        return answers.whole, 1.0
    for place in answers.MARKED:
        if sum(place(wanted, "") is not None for _, wanted in pairs) >= SURE * len(pairs):
            return place, _share(place, pairs)
    shares = {place: _share(place, pairs) for place in answers.PLACES}
    sure = next((place for place in shares if shares[place] >= SURE), None)
    best = sure or max(shares, key=lambda place: shares[place])
    return (best, shares[best]) if shares[best] >= LIKELY else (answers.whole, shares[answers.whole])


def _share(place: Place, pairs: Sequence[tuple[str, str]]) -> float:
    right = 0
    for text, wanted in pairs:
        final = place(wanted, wanted) or wanted
        right += (said := place(text, final)) is not None and answers.same(said, final)
    return right / len(pairs)


def _pairs(found: Found, parameter: str) -> list[tuple[str, str]]:
    rows = [row for row in found.demonstrated if row.columns.get(parameter) is not None][:LOOKED_AT]
    return [(written(row.completions[0]), as_text(row.columns[parameter]) or "") for row in rows]


def _told(place: Place, share: float, pairs: int) -> str:
    what = _in_words(place)
    if not pairs:
        return f"the reward: {what} is the answer (no demonstration shows where it stands)"
    said = f"the reward: {what} is the answer in {share:.0%} of {pairs:,} demonstrations"
    return said if share >= SURE else f"{said}: look at the others before training"


def _in_words(place: Place) -> str:
    said = (place.__doc__ or "").strip().rstrip(".")
    return said[0].lower() + said[1:]


def _exact(parameter: str, place: Place, said: str) -> Reward:
    parts = [inspect.getsource(function).rstrip() for function in (answers.plain, answers.same, place)]
    head = _HEAD.format(what=f"{_in_words(place)}, compared with the row's `{parameter}`.")
    body = "\n\n\n".join(parts) + _EXACT.format(parameter=parameter, place=place.__name__)
    imports = "import json\n" + ("import re\n" if "re." in parts[-1] else "")
    return Reward(f"{head}\n{imports}\nfrom posttrain import Score\n\n\n{body}", said)


def _by_demonstration(found: Found, parameter: str) -> Reward:
    texts = [written(row.completions[0]) for row in found.demonstrated]
    short = sorted(map(len, texts))[len(texts) // 2] <= SHORT
    conversation = found.roles.conversation or found.columns[found.roles.completion or ""].kind == "messages"
    what = "is it the demonstration's?" if short else "how many words does it share with the demonstration's?"
    head = _HEAD.format(what=f"the completion beside the row's demonstration: {what}")
    gold = _LAST_TURN.format(parameter=parameter) if conversation else f"    wanted = str({parameter})\n"
    body = (_SAME if short else _OVERLAP).format(parameter=parameter, gold=gold)
    said = (
        "the reward: is the completion the demonstration's (the rows have no answer beside it)"
        if short
        else "the reward: the words that a completion shares with the demonstration (the rows have no answer beside it)"
    )
    return Reward(head + body, said)


_HEAD = '''\
"""The reward of recipe.yaml, as `posttrain init` wrote it: {what}

Make it your own:
- `score` gets one completion and returns a number in [0, 1], a Score that also says why, or None where the reward
  does not apply to a row. `posttrain view` shows the note.
- Its arguments are the row's columns by their names, each value as it stands in the file: add those you need. One
  without a default has to be there; `**row` takes the rest.
- A graded score helps while the model solves little: a part of 1.0 for the form, for a right unit, for a test passed.
- After a change: `posttrain rewards check` on the recipe says whether every demonstration still gets 1.0.
"""
'''
_EXACT = '''


def score(completion: str, *, {parameter}, **row) -> Score | None:
    """1 for the row's `{parameter}`, else 0; None for a row without one."""
    if {parameter} is None:
        return None
    wanted = {parameter} if isinstance({parameter}, str) else json.dumps({parameter}, ensure_ascii=False)
    wanted = {place}(wanted, wanted) or wanted
    said = {place}(completion, wanted)
    if said is None:
        return Score(0.0, note="no answer in the completion")
    right = same(said, wanted)
    return Score(float(right), parsed=said, note="" if right else f"said {{said[:80]!r}}")
'''
_LAST_TURN = """\
    last = {parameter}[-1] if isinstance({parameter}, list) else {parameter}  # the assistant's last turn
    wanted = str(last.get("content", last.get("value", "")))
"""
_SAME = '''
from posttrain import Score


def plain(text: str) -> str:
    """A text without case, spare white space, and a full stop at its end."""
    return " ".join(text.lower().split()).strip().rstrip(".").rstrip()


def score(completion: str, *, {parameter}, **row) -> Score | None:
    """1 for what the row's demonstration says, else 0; None for a row without one."""
    if not {parameter}:
        return None
{gold}    right = plain(completion) == plain(wanted)
    return Score(float(right), note="" if right else f"said {{completion.strip()[:80]!r}}")
'''
_OVERLAP = '''
import re
from collections import Counter

from posttrain import Score


def words(text: str) -> Counter:
    """The words of a text, counted."""
    return Counter(re.findall(r"\\w+", text.lower()))


def score(completion: str, *, {parameter}, **row) -> Score | None:
    """The share of words that completion and demonstration have in common (F1): 1 for the same words.

    A measure of likeness, not of being right: put in its place what makes an answer right in your task.
    """
    if not {parameter}:
        return None
{gold}    said, gold = words(completion), words(wanted)
    shared = (said & gold).total()
    value = 2 * shared / (said.total() + gold.total()) if shared else float(completion.strip() == wanted.strip())
    return Score(value, note=f"{{shared}} words of {{gold.total()}}")
'''
_STAND_IN = '''
from posttrain import Score

LONGEST = 400  # characters


def score(completion: str, **row) -> Score:
    """1 for an answer of at most 400 characters, less for a longer one, 0 for none: write here what is right."""
    length = len(completion.strip())
    return Score(min(1.0, LONGEST / length) if length else 0.0, note=f"{length} characters")
'''
