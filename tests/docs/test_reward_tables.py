"""The tables of docs/rewards.md on what the built-in rewards take, and what they cannot tell: every row is scored."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from posttrain.rewards import (
    countdown,
    json_structure,
    knights_knaves,
    length_budget,
    majority,
    math_answer,
    table_structure,
)
from posttrain.rewards import format as format_reward
from posttrain.scoring.loading import known_rewards
from posttrain.scoring.score import Score
from tests.docs.pages import DOCS, code_in, prose, tables

PAGE = DOCS / "rewards.md"
HEADINGS = ("What {} takes", "What {} cannot tell")


def objects(completion: str) -> Score | None:
    """Against the gold object and the schema that the page names above the table."""
    text = "\n".join(line for _, line in prose(PAGE))
    said = text[text.index("#### What json_structure takes") :]
    gold, schema = (json.loads(code) for code in code_in(said.split("|", 1)[0]))
    return json_structure.score(completion, schema=schema, gold=gold)


def roles(completion: str) -> Score:
    return knights_knaves.score(completion, names=["Ann", "Bob"], solution=[True, False])


def table(completion: str) -> Score | None:
    """Against the gold table and in the forms that the page names above the table of examples."""
    forms = {"<": "html", "\\": "latex"}
    gold = {"columns": ["host", "seats"], "rows": [["Ann", "7"], ["Bob", "20"]]}
    return table_structure.score(completion, table=gold, form=forms.get(completion[:1], "text"))


REWARDS: dict[str, Callable[..., Any]] = {
    "math_answer": lambda gold, completion: math_answer.score(completion, answer=gold),
    "knights_knaves": roles,
    "json_structure": objects,
    "table_structure": table,
    "countdown": lambda completion: countdown.score(completion, numbers=[3, 8, 8, 5], target=24),
    "format": format_reward.score,
    "length_budget": lambda completion: length_budget.score(
        completion, token_budget=10, completion_tokens=len(completion.split())
    ),
    "majority": lambda completion: majority.score(
        completion, of="math_answer", group_completions=[r"\boxed{4}", r"\boxed{8/2}", r"\boxed{5}", completion]
    ),
}
ROWS = [
    pytest.param(name, cells, id=f"{name} {number}")
    for name in REWARDS
    for number, cells in enumerate(row for heading in HEADINGS for row in tables(PAGE).get(heading.format(name), ()))
]


def test_each_built_in_reward_has_both_tables():
    ours = {name for name, point in known_rewards().items() if point.value.startswith("posttrain.")}
    assert ours == set(REWARDS)
    found = tables(PAGE)
    for name in ours:
        takes, cannot = (found[heading.format(name)] for heading in HEADINGS)
        assert {"0", "1"} <= {cells[-2] for cells in takes}, name
        assert cannot, name


@pytest.mark.parametrize(("name", "cells"), ROWS)
def test_a_row_is_scored_as_the_page_says(name, cells):
    *given, written, why = cells
    said = [code_in(cell)[0].replace("⏎", "\n") for cell in given]
    assert len(said) == (2 if name == "math_answer" else 1)
    assert why
    outcome = REWARDS[name](*said)
    if written == "none":
        assert outcome is None
    else:
        assert outcome is not None
        assert outcome.value == pytest.approx(float(written), abs=5e-4), outcome.note
