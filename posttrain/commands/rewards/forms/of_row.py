"""Which forms of a row's gold answer a reward is tried on: those of its kind where it is built in, else safe ones."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from posttrain.commands.rewards.forms import Form, expressions, math, objects, roles, tables
from posttrain.errors import RewardError
from posttrain.rewards.math_extract import gold_answer
from posttrain.rewards.table_structure import read_gold
from posttrain.rewards.thinking import answer_section
from posttrain.scoring.score import Reward

_PACKAGE = "posttrain.rewards."
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_EXPRESSION = re.compile(r"[0-9()+\-*/ ]+")
_TAGGED = re.compile(r"<think>(.*)</think>\s*<answer>(.*)</answer>", re.DOTALL)


def forms_of(reward: Reward, row: Mapping[str, Any], gold: str) -> list[Form]:
    """Completions that say the same as a row's gold one, and near misses, each once.

    Args:
        reward: Where it is built in, the gold answer is in the columns that it takes.
        row: The columns.
        gold: The gold completion.
    """
    known = _BUILT_IN.get(_built_in(reward))
    if known:
        made = known(reward.arguments(row), gold)
    else:
        made = _of_any({name: row[name] for name in reward.parameters if name in row and name != "prompt"}, gold)
    found: dict[str, Form] = {}
    for form in made:
        found.setdefault(form.text, form)
    return list(found.values())


def _built_in(reward: Reward) -> str:
    module = getattr(reward.function, "__module__", None) or ""
    return module.removeprefix(_PACKAGE) if module.startswith(_PACKAGE) else ""


def _of_math(columns: Mapping[str, Any], gold: str) -> Iterator[Form]:
    answer = columns.get("answer")
    for form in math.forms(gold_answer(answer)) if isinstance(answer, str) else ():
        yield form._replace(text=f"The answer is \\boxed{{{form.text}}}.")


def _of_roles(columns: Mapping[str, Any], gold: str) -> Iterable[Form]:
    names, solution = columns.get("names") or [], columns.get("solution") or []
    return roles.forms(names, solution, columns.get("knight_knave")) if len(names) == len(solution) > 0 else []


def _of_objects(columns: Mapping[str, Any], gold: str) -> Iterable[Form]:
    value = columns.get("gold")
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):  # the reward says so itself
        value = None
    return [] if value is None else objects.forms(value)


def _of_tables(columns: Mapping[str, Any], gold: str) -> Iterable[Form]:
    try:
        names, rows = read_gold(columns.get("table"))
    except RewardError:  # the reward says so itself
        return []
    return tables.forms(columns["form"], names, rows) if columns.get("form") in tables.FORMS else []


def _of_expressions(columns: Mapping[str, Any], gold: str) -> Iterable[Form]:
    section, _ = answer_section(gold)
    expression, target = section.strip(), columns.get("target")
    told = isinstance(target, int) and _EXPRESSION.fullmatch(expression)
    return expressions.forms(expression, int(target)) if told and target is not None else []


def _of_tags(columns: Mapping[str, Any], gold: str) -> Iterator[Form]:
    match = _TAGGED.fullmatch(gold.strip())
    if match is None:
        return
    thought, answer = match.groups()
    think, said = f"<think>{thought}</think>", f"<answer>{answer}</answer>"
    yield Form("a line between the tags", f"{think}\n\n{said}\n", True)
    yield Form("another name for thinking", f"<reasoning>{thought}</reasoning>\n{said}", True)
    yield Form("the order of the tags", f"{said}\n{think}", False)
    yield Form("a tag left open", f"<think>{thought}\n{said}", False)
    yield Form("no tags around the answer", f"{think}\n{answer}", False)
    yield Form("the answer twice", f"{think}\n{said}\n{said}", False)
    yield Form("a word after the tags", f"{think}\n{said} Done", False)


def _of_any(columns: Mapping[str, Any], gold: str) -> Iterator[Form]:
    """Of a reward that nobody knows: the gold completion with another number where it ends in the row's answer.

    No equal forms: what else a reward of the user's own should take is the user's to say.
    """
    numbers = list(_NUMBER.finditer(gold))
    answers = [value for value in columns.values() if isinstance(value, str) and _NUMBER.fullmatch(value)]
    if numbers and numbers[-1][0] in answers:
        at = numbers[-1].end() - 1
        yield Form("one digit", f"{gold[:at]}{'8' if gold[at] == '9' else int(gold[at]) + 1}{gold[at + 1 :]}", False)


_BUILT_IN: Mapping[str, Callable[[Mapping[str, Any], str], Iterable[Form]]] = {
    "math_answer": _of_math,
    "knights_knaves": _of_roles,
    "json_structure": _of_objects,
    "table_structure": _of_tables,
    "countdown": _of_expressions,
    "format": _of_tags,
}
