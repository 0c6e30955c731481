"""The schema and gold object that most tests of `json_structure` judge against."""

from __future__ import annotations

import json

from posttrain.rewards.json_structure import score

SCHEMA = {
    "type": "object",
    "properties": {"reasoning": {"type": "string"}, "answer": {"type": "integer"}},
    "required": ["reasoning", "answer"],
    "additionalProperties": False,
}
GOLD = {"reasoning": "six times seven", "answer": 42}
RIGHT = json.dumps(GOLD)


def judged(completion, *, schema=SCHEMA, gold=GOLD, **options):
    as_text = {"schema": json.dumps(schema), "gold": None if gold is None else json.dumps(gold)}
    return score(completion, **as_text, **options)
