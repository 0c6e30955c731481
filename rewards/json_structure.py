"""Reward `json_structure`: a JSON object that fits the row's schema and says what the gold object says.

After the hierarchy of RL-Struct (arXiv 2512.00319), whose weights are not published; these are ours:

| part | weight | earns |
|---|---|---|
| `parses` | 0.1 | there is one JSON value; without it every part is 0 |
| `valid` | 0.2 | 1 - violated / applied keywords of the schema (`json_grade.py`) |
| `structure` | 0.2 | the share of required keys that are there with the right type |
| `values` | 0.4 | half the F1 over leaves, half being equal to the gold; only when `structure` is 1 |
| `only_json` | 0.1 | nothing but the JSON was given |

So, with these weights: no JSON < a key missing < the right keys with any wrong value < the right values with text
around < the right values alone, however many keys there are. An item fewer than the gold has is keys missing, too, and
taking more away from the gold earns no more, as long as the items of an array can be told apart.

Only 1 is a pass. What knows nothing of the text still earns the parts that don't ask about it: any other JSON value
alone, such as `5`, about 0.2 (`parses` and `only_json`); `{}` about 0.3, more when little is required; an object made
up from the schema, with all required keys and wrong values that fit, 0.6 and, for a value guessed right, a little more.
Without a gold the schema is all there is: whatever fits it earns 1, `{}` too if nothing is required.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, Literal

from posttrain.errors import RewardError
from posttrain.rewards.json_drafts import draft_of
from posttrain.rewards.json_grade import MISSING, TooLong, grade
from posttrain.rewards.json_schema import load_schema
from posttrain.rewards.json_text import NotJson, parse
from posttrain.rewards.json_text import read_answer as read_answer_text
from posttrain.rewards.json_values import ArrayOrder, key, leaf_f1
from posttrain.rewards.weighing import chosen_weights, weighted_mean
from posttrain.scoring.score import Score

WEIGHTS = {"parses": 0.1, "valid": 0.2, "structure": 0.2, "values": 0.4, "only_json": 0.1}


def score(
    completion: str,
    *,
    schema: str | dict[str, Any] | bool | None,
    gold: Any = None,
    weights: Mapping[str, float] | None = None,
    values_by: Literal["f1", "exact"] = "f1",
    array_order: ArrayOrder = "ordered",
    allow_fence: bool = False,
    think_in_prompt: bool = False,
    time_limit_s: float = 2.0,
    **row: Any,
) -> Score | None:
    """The weighted mean of the parts above; 1 exactly when each of them is 1.

    What is read as the answer, and what does not parse, is said in `json_text.py`. Equality is JSON Schema's: 1 equals
    1.0, `true` is not 1, the order of keys means nothing.

    Args:
        completion: The completion as text.
        schema: The JSON Schema, of the draft that its `$schema` names, else 2020-12: JSON text (a column of objects
            would get nulls for absent keys when rows go through Arrow), or the object. None: the row is of another
            task.
        gold: The right object: JSON text, or the object. Without it there is no part `values`.
        weights: Other weights for some parts; 0 leaves a part out.
        values_by: `f1` as above, `exact` for all or nothing.
        array_order: `any` compares arrays with the gold regardless of their order.
        allow_fence: A Markdown code fence around the JSON is no other text.
        think_in_prompt: The chat template ends with `<think>`, so the completion starts inside the thinking.
        time_limit_s: Seconds for checking against the schema; beyond them the completion scores 0.
        row: Ignored.

    Returns:
        Score with the parts, as `parsed` the value, as `note` what is wrong. None without a schema.

    Raises:
        RewardError: The row's schema or gold can't be used, or a setting makes no sense.
    """
    if schema is None:
        return None
    checked = load_schema(schema)
    expected = None if gold is None else read_gold(gold)
    weighed = chosen_weights(weights, WEIGHTS)
    if gold is None:
        weighed.pop("values", None)
    if not weighed:
        raise RewardError("no gold, and a weight for the part values only", expected="a gold column", where="gold")
    if values_by not in ("f1", "exact") or array_order not in ("ordered", "any"):
        raise RewardError(
            f"values_by {values_by!r}, array_order {array_order!r}", expected="f1 or exact; ordered or any"
        )

    reading = read_answer_text(completion, think_in_prompt=think_in_prompt)
    nothing = dict.fromkeys(weighed, 0.0)
    if not reading.found:
        return Score(0.0, parts=nothing, note=reading.note)
    try:
        fit = grade(
            checked,
            reading.value,
            gold=MISSING if gold is None else expected,
            array_order=array_order,
            time_limit_s=time_limit_s,
        )
    except TooLong:
        return Score(0.0, parts=nothing, parsed=reading.value, note=f"not checked within {time_limit_s:g} s")
    notes = [*fit.problems, reading.note]
    parts = {
        "parses": 1.0,
        "valid": fit.valid,
        "structure": fit.structure,
        "only_json": float(reading.alone or (reading.fenced and allow_fence)),
    }
    if gold is not None:
        same = key(expected, array_order) == key(reading.value, array_order)
        f1 = leaf_f1(expected, reading.value, array_order)
        graded = float(same) if values_by == "exact" else (f1 + same) / 2
        parts["values"] = graded if fit.structure == 1 else 0.0
        if not same:
            notes.append(f"values: F1 {f1:.2f}" + ("" if fit.structure == 1 else ", not counted: keys are missing"))
    parts = {name: parts[name] for name in weighed}
    return Score(weighted_mean(parts, weighed), parts=parts, parsed=reading.value, note="; ".join(filter(None, notes)))


def read_gold(gold: Any) -> Any:
    """The gold value of a row, from JSON text or as it is.

    Raises:
        RewardError: It is text and no JSON.
    """
    if not isinstance(gold, str):
        return gold
    try:
        return parse(gold)
    except NotJson as error:
        raise RewardError(str(error), expected="JSON text", where="gold") from None


def why_unreadable(schema: Any) -> str | None:
    """Why a row's schema is of a draft that nobody here can read, in words; None if it is none, or another fault."""
    try:
        draft_of(schema if isinstance(schema, dict) else parse(schema) if isinstance(schema, str) else None)
    except NotJson:
        return None
    except RewardError as error:
        return " ".join(str(error).split())
    return None


def check_row(schema: Any, gold: Any = None) -> str | None:
    """What makes a row unfit for this reward, or None: its schema, its gold, or that the one does not fit the other."""
    try:
        checked = load_schema(schema)
        if gold is None:
            return None
        value = read_gold(gold)
        problems = grade(checked, value).problems
    except RewardError as error:
        return " ".join(str(error).split())
    except TooLong:
        return "gold: checking it against the schema takes too long"
    return f"gold does not fit the schema: {problems[0]}" if problems else None


def read_answer(
    completion: str, *, array_order: ArrayOrder = "ordered", think_in_prompt: bool = False, **row: Any
) -> Any:
    """A stand-in for the JSON value that is given, for votes (`majority`); None without exactly one."""
    reading = read_answer_text(completion, think_in_prompt=think_in_prompt)
    return key(reading.value, array_order) if reading.found else None


score.read_answer, score.same_answer = read_answer, operator.eq  # type: ignore[attr-defined]
