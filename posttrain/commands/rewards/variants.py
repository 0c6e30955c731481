"""Completions whose worth is known: a gold completion, what is left of it, and texts that no reward may fall for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from posttrain.commands.rewards.forms.of_row import forms_of
from posttrain.scoring.score import Reward

#: What a right reward says. `gold`: 1.0. `kept`: what it said of the gold completion, unless it judges the form.
#: `wrong`: less than 1.0. `open`: that is for the reward to say. `equal`: 1.0, for it says the same as the gold one.
#: `near`: less than 1.0, for it only looks like the gold one.
Kind: TypeAlias = Literal["gold", "kept", "wrong", "open", "equal", "near"]

T = TypeVar("T")

_HUGE = 1_000_000  # characters
_MANY = 20_000  # repetitions of a short text
_DEEP = 5_000  # levels of nesting: more than Python's recursion limit


@dataclass(frozen=True)
class Example:
    """A row of the recipe.

    Args:
        where: Which part of the task's data it is from, and its number there.
        row: Its columns.
        prompt: Its prompt as text.
        gold: Its demonstration's completion as text; None when it has none.
    """

    where: str
    row: dict[str, Any]
    prompt: str
    gold: str | None = None


@dataclass(frozen=True)
class Tries:
    """Completions made in one way, each for an example.

    Args:
        name: Their line in the table.
        kind: What a right reward says of them.
        pairs: Each example and its completion.
    """

    name: str
    kind: Kind
    pairs: list[tuple[Example, str]]


_FROM_GOLD: Sequence[tuple[str, Kind, Callable[[str], str]]] = (
    ("gold", "gold", lambda gold: gold),
    ("gold, white space around", "kept", lambda gold: f" \n\n{gold} \n\n"),
    ("gold, end-of-turn token", "kept", lambda gold: f"{gold}<|im_end|>"),
    ("gold, prose before", "kept", lambda gold: f"Let me think about this step by step.\n\n{gold}"),
    ("gold, prose after", "kept", lambda gold: f"{gold}\n\nI hope this helps."),
    ("gold, twice", "kept", lambda gold: f"{gold}\n\n{gold}"),
    ("gold, its first 90 %", "open", lambda gold: gold[: len(gold) * 9 // 10]),
    ("gold, its first half", "wrong", lambda gold: gold[: len(gold) // 2]),
)
_GIVEN_ROW: Sequence[tuple[str, Callable[[Example], str]]] = (
    ("empty", lambda example: ""),
    ("white space", lambda example: " \n\t \n"),
    ("the prompt echoed", lambda example: example.prompt),
)
_BOXED = "prompt's formula, boxed"
_FORMULA = re.compile(
    r"\$\$?([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]"
    r"|((?:\d[\d.,]*|\([\d.,+*/ -]{1,80}\))(?:\s*[-+*/^\u00d7\u00f7]\s*[\d(][\d.,)]*)+)",
    re.DOTALL,
)
_OPERATION = re.compile(r"\w\s*[-+*/^!\u00d7\u00f7]|\\[a-zA-Z]{3}")
_HOSTILE: Mapping[str, str] = {
    "1 MB of words": "so it is. " * (_HUGE // 10),
    "1 MB without a space": "a" * _HUGE,
    "a million digits": "The answer is 1" + "0" * _HUGE,
    "a tower of powers": r"The answer is \boxed{9^{9^{9^{9}}}} 9**9**9**9 9^9^9^9",
    "deep LaTeX": r"\boxed{" + r"\frac{1}{" * _DEEP + "1" + "}" * _DEEP + "}",
    "deep brackets": "[" * _DEEP + "]" * _DEEP,
    "deep objects": '{"a":' * _DEEP + "1" + "}" * _DEEP,
    "brackets never closed": "([{" * _MANY,
    "not a number": r"NaN Infinity -Infinity 1e999 \boxed{\infty} null",
    "tags nested": "<think><answer>" * _MANY + "</answer></think>" * _MANY,
    "tags closed only": "</think></answer>" * _MANY,
    "tags, boxes, fences": "<answer>\\boxed{}```json\n#### </answer>" * _MANY,
    "NUL and control bytes": "\x00\x01\x08\x1b\x7f" * 100,
    "lone surrogates": "\ud800 \udfff" * 100,
    "terminal escapes": "\x1b[2J\x1b[31;1m\x1b]0;title\x07" * 100,
    "right to left": "\u202e\u2067 \u0661\u0662\u0663 \u05d0\u05d1\u05d2 \u202c" * 100,
    "format strings": "%s %n {0.__class__} {prompt} ${HOME} $(id) __import__('os') " * 100,
}
_FEW = 3  # rows that slow texts are tried on
_OF_A_FORM = 20  # completions of one form


def equal_and_near(reward: Reward, gold: Sequence[Example]) -> list[Tries]:
    """Equal forms of the gold completions, and near misses, each kind for itself; of a TRL-style function none.

    Args:
        reward: Decides which forms make sense.
        gold: Examples with a gold completion.
    """
    found: dict[tuple[bool, str], list[tuple[Example, str]]] = {}
    for example in gold if reward.style != "trl" else ():
        for form in forms_of(reward, example.row, example.gold or ""):
            found.setdefault((form.equal, form.kind), []).append((example, form.text))
    return [
        Tries(f"{'equal' if equal else 'near'}: {kind}", "equal" if equal else "near", spread(pairs, _OF_A_FORM))
        for (equal, kind), pairs in sorted(found.items(), key=lambda one: not one[0][0])
    ]


def tries(
    reward: Reward, gold: Sequence[Example], others: Sequence[Example], forms: Sequence[Tries] = ()
) -> Iterator[Tries]:
    """Everything that one reward is tried on.

    Args:
        reward: Decides which gold completions count as those of another row.
        gold: Examples with a gold completion.
        others: Further examples, with or without one.
        forms: What `equal_and_near` found.
    """
    for name, kind, change in _FROM_GOLD:
        yield Tries(name, kind, [(example, change(example.gold or "")) for example in gold])
    yield from forms
    columns = columns_read(reward, gold[0].row)
    # A reward that reads no column cannot tell whose answer it sees
    yield Tries("another row's gold", "wrong" if columns else "open", list(_with_other_gold(gold, columns)))
    for name, make in _GIVEN_ROW:
        yield Tries(name, "wrong", [(example, make(example)) for example in (*gold, *others)])
    yield Tries(_BOXED, "wrong", list(_with_own_formula((*gold, *others))))
    few = spread(gold, _FEW)
    yield Tries(
        "gold after 1 MB", "open", [(example, "so it is. " * (_HUGE // 10) + (example.gold or "")) for example in few]
    )
    for name, text in _HOSTILE.items():
        yield Tries(name, "wrong", [(example, text) for example in few])


#: apart from forms
NUMBER_OF_TRIES = len(_FROM_GOLD) + 1 + len(_GIVEN_ROW) + 2 + len(_HOSTILE)


def spread(items: Sequence[T], at_most: int) -> list[T]:
    """Some of the items, evenly spread: a part of the data may be one task after the other."""
    size = min(at_most, len(items))
    return [items[i * len(items) // size] for i in range(size)]


def columns_read(reward: Reward, row: dict[str, Any]) -> list[str]:
    """The row's columns, apart from the prompt, that a reward names in its signature."""
    return [name for name in reward.parameters if name in row and name not in ("prompt", "completion", *reward.kwargs)]


def _with_other_gold(examples: Sequence[Example], columns: Sequence[str]) -> Iterator[tuple[Example, str]]:
    """Each example with the gold completion of the next one whose answer is another.

    Answers are taken for the same when all `columns` are, or when the completions are made of the same words: then
    they may well state the same thing in another order.
    """
    for i, example in enumerate(examples):
        for other in (*examples[i + 1 :], *examples[:i]):
            if _differs(example, other, columns):
                yield example, other.gold or ""
                break


def _with_own_formula(examples: Sequence[Example]) -> Iterator[tuple[Example, str]]:
    """Each example with the last formula of its prompt as the answer, where that has something to compute.

    `50+2` equals the answer to 'What is 50+2?' without answering it. A formula that is the row's own answer, or that
    the gold completion boxes, is left out.
    """
    for example in examples:
        found = [next(filter(None, match.groups())).strip().rstrip(".,") for match in _FORMULA.finditer(example.prompt)]
        formula = next((one for one in reversed(found) if _OPERATION.search(one)), None)
        if formula is None or formula in example.row.values() or f"\\boxed{{{formula}}}" in (example.gold or ""):
            continue
        yield example, f"The answer is \\boxed{{{formula}}}."


def _differs(one: Example, other: Example, columns: Sequence[str]) -> bool:
    if columns and all(one.row.get(column) == other.row.get(column) for column in columns):
        return False
    return _words(one.gold) != _words(other.gold)


def _words(text: str | None) -> list[str]:
    return sorted(re.findall(r"\w+", text or ""))
