"""Schemas of each draft, validated by that draft; patterns as ECMA-262 has them."""

from __future__ import annotations

import json
import time

import pytest

from posttrain.errors import RewardError
from posttrain.rewards.json_drafts import DRAFTS, draft_of
from posttrain.rewards.json_structure import check_row, why_unreadable
from tests.rewards.json_cases import GOLD, RIGHT, SCHEMA, judged

ADDRESSES = {
    "draft-04": "json-schema.org/draft-04/schema",
    "draft-06": "json-schema.org/draft-06/schema",
    "draft-07": "json-schema.org/draft-07/schema",
    "draft/2019-09": "json-schema.org/draft/2019-09/schema",
    "draft/2020-12": "json-schema.org/draft/2020-12/schema",
}


def by(draft, schema):
    return {"$schema": f"https://{ADDRESSES[draft]}", **schema}


def fits(value, schema):
    return judged(json.dumps(value), schema=schema, gold=None).value == 1.0


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("end", ["", "#"])
@pytest.mark.parametrize("draft", ADDRESSES)
def test_every_address_of_a_draft_is_read(draft, scheme, end):
    schema = {"$schema": f"{scheme}://{ADDRESSES[draft]}{end}", **SCHEMA}
    assert draft_of(schema) is DRAFTS[draft]
    assert judged(RIGHT, schema=schema).value == 1.0
    assert judged('{"reasoning": "six times seven"}', schema=schema).value < 0.6
    assert check_row(schema, GOLD) is None
    assert why_unreadable(schema) is why_unreadable(json.dumps(schema)) is None


@pytest.mark.parametrize(
    ("schema", "near"),
    [
        ("http://json-schema.org/draft-03/schema#", "nearest"),
        ("http://json-schema.org/draft/2020-12/shema", "nearest: 'https://json-schema.org/draft/2020-12/schema'"),
        ("draft-07", ""),
        ("https://json-schema.org/draft/2020-12/schema##", ""),
        ("ftp://json-schema.org/draft-07/schema#", ""),
        (None, ""),
        ([], ""),
        ("x" * 10_000, ""),
    ],
)
def test_an_unknown_draft_is_an_error_in_four_parts(schema, near):
    with pytest.raises(RewardError) as caught:
        judged(RIGHT, schema={"$schema": schema, **SCHEMA})
    said = str(caught.value)
    for part in ("schema.$schema: $schema ", "expected: one of http://json-schema.org/draft-04/schema#", "fix: ", near):
        assert part in said
    assert len(said) < 1000
    assert "expected" in why_unreadable({"$schema": schema})


@pytest.mark.parametrize(
    ("draft", "schema", "good", "bad"),
    [
        ("draft-04", {"minimum": 1, "exclusiveMinimum": True}, 2, 1),
        ("draft-04", {"type": "integer"}, 1, 1.5),
        ("draft-04", {"id": "http://e.com/a", "definitions": {"n": {"type": "integer"}},
                      "items": {"$ref": "#/definitions/n"}}, [1], ["1"]),
        ("draft-06", {"exclusiveMinimum": 1}, 2, 1),
        ("draft-06", {"contains": {"const": 1}}, [0, 1], [0]),
        ("draft-07", {"items": [{"type": "string"}], "additionalItems": False}, ["a"], ["a", 1]),
        ("draft-07", {"items": [True], "additionalItems": {"required": ["x"]}}, [1, {"x": 1}], [1, {}]),
        ("draft-07", {"dependencies": {"a": ["b"]}}, {"a": 1, "b": 1}, {"a": 1}),
        ("draft-07", {"dependencies": {"a": {"required": ["b"]}}}, {"a": 1, "b": 1}, {"a": 1}),
        ("draft-07", {"if": {"type": "integer"}, "then": {"minimum": 5}}, 5, 4),
        ("draft/2019-09", {"items": [{"type": "string"}], "additionalItems": False}, ["a"], ["a", 1]),
        ("draft/2019-09", {"properties": {"a": {"$recursiveRef": "#"}}, "additionalProperties": False},
         {"a": {}}, {"a": {"b": 1}}),
        ("draft/2019-09", {"properties": {"a": {}}, "unevaluatedProperties": False}, {"a": 1}, {"b": 1}),
        ("draft/2020-12", {"prefixItems": [{"type": "string"}], "items": False}, ["a"], ["a", 1]),
    ],
)  # fmt: skip
def test_keywords_as_their_draft_has_them(draft, schema, good, bad):
    schema = by(draft, schema)
    assert fits(good, schema)
    assert not fits(bad, schema)
    assert judged(json.dumps(good), schema=schema, gold=good).value == 1.0
    assert judged(json.dumps(bad), schema=schema, gold=good).value < 1.0


def test_keywords_of_other_drafts_mean_nothing():
    assert fits([1], by("draft-07", {"prefixItems": [{"type": "string"}]}))
    assert fits(4, by("draft-06", {"if": {"type": "integer"}, "then": {"minimum": 5}}))
    assert fits({"a": 1}, by("draft/2020-12", {"dependencies": {"a": ["b"]}}))
    assert fits({}, by("draft-07", {"dependentSchemas": 5, "$dynamicRef": "#nowhere"}))


@pytest.mark.parametrize("draft", ["draft-04", "draft-06", "draft-07"])
def test_up_to_draft_7_nothing_counts_beside_a_reference(draft):
    part = {"type": "object", "required": ["x"]}
    beside = {"$ref": "#/definitions/part", "required": ["y"], "properties": {"x": {"type": "string"}}}
    old = by(draft, {"definitions": {"part": part}, "properties": {"a": beside}, "required": ["a"]})
    new = by("draft/2020-12", {key: part for key, part in old.items() if key != "$schema"})
    gold = {"a": {"x": 1}}
    assert judged(json.dumps(gold), schema=old, gold=gold).value == 1.0
    assert judged('{"a": {}}', schema=old, gold=gold).parts["structure"] == pytest.approx(2 / 3)
    assert judged(json.dumps(gold), schema=new, gold=None).value < 1.0


@pytest.mark.parametrize("draft", ADDRESSES)
def test_patterns_have_a_time_limit_wherever_the_draft_is_named(draft):
    schema = by(
        draft, {"properties": {"a": {"type": "string", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"}, "b": {"$ref": "#"}}}
    )
    started = time.process_time()
    for value in ({"a": "a" * 5000}, {"b": {"a": "a" * 5000}}):
        assert judged(json.dumps(value), schema=schema, gold=None, time_limit_s=0.2).value == 0.0
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"patternProperties": {"^n_": {"type": "integer"}}}, {"n_a": 1}, {"n_a": 1, "m": 1}),
        ({"patternProperties": {r"^\p{L}+$": {}}}, {"é": 1}, {"1": 1}),
        ({"properties": {"a": {}}, "allOf": [{"patternProperties": {"^b": {}}}]}, {"a": 1, "bc": 2}, {"c": 1}),
        ({"anyOf": [{"properties": {"a": {}}, "required": ["a"]},
                    {"patternProperties": {"^b": {}}, "required": ["b1"]}]},
         {"a": 1}, {"a": 1, "b2": 1}),
        ({"oneOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"a": {"type": "integer"}, "b": {}}}]},
         {"a": 1, "b": 1}, {"a": "x", "b": 1}),
        ({"if": {"properties": {"k": {"const": 1}}, "required": ["k"]}, "then": {"patternProperties": {"^x": {}}}},
         {"k": 1, "xy": 1}, {"k": 2, "xy": 1}),
        ({"properties": {"k": {}}, "dependentSchemas": {"k": {"patternProperties": {"^x": {}}}}},
         {"k": 1, "x": 1}, {"x": 1}),
        ({"$defs": {"d": {"patternProperties": {"^x": {}}}}, "$ref": "#/$defs/d"}, {"x1": 1}, {"y": 1}),
        ({"not": {"properties": {"a": {}}, "required": ["a", "z"]}}, {}, {"a": 1}),
        ({"allOf": [{"additionalProperties": {"type": "integer"}}]}, {"a": 1}, {"a": "1"}),
        ({"allOf": [{"patternProperties": {"^a": {}}, "unevaluatedProperties": {"type": "integer"}}]},
         {"b": 1}, {"b": "1"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("draft", ["draft/2019-09", "draft/2020-12"])
def test_unevaluated_properties_beside_patterns(schema, good, bad, draft):
    schema = by(draft, {**schema, "unevaluatedProperties": False})
    assert fits(good, schema)
    assert not fits(bad, schema)


def test_what_is_unevaluated_may_have_a_schema():
    schema = {"patternProperties": {"^a": {}}, "unevaluatedProperties": {"type": "integer"}}
    assert fits({"a": "x", "b": 1}, schema)
    assert not fits({"a": "x", "b": "y"}, schema)
    slow = {"patternProperties": {"^(([a-z])+.)+[A-Z]([a-z])+$": {}}, "unevaluatedProperties": False}
    assert judged(json.dumps({"a" * 5000: 1}), schema=slow, gold=None, time_limit_s=0.2).note.startswith("not checked")


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (r"^\cJ$", "\n", "J"),
        (r"^[\cA-\cZ]+$", "\x01\x1a", "A"),
        (r"^[^\cj]$", "j", "\n"),
        (r"^\u{1F600}$", "\U0001f600", "u"),
        (r"^[\u{61}-\u{63}]$", "b", "d"),
        (r"^(?<a>x|y)\k<a>$", "xx", "xy"),
        (r"^\\cJ$", "\\cJ", "\n"),
    ],
)
def test_escapes_of_ecma_262(pattern, good, bad):
    assert fits(good, {"pattern": pattern})
    assert not fits(bad, {"pattern": pattern})


@pytest.mark.parametrize("pattern", [r"\c", r"\c1", r"\u{110000}", r"\u{xyz}", r"\k<none>"])
def test_escapes_that_mean_nothing_are_refused(pattern):
    with pytest.raises(RewardError, match="the pattern"):
        judged('"a"', schema={"pattern": pattern}, gold=None)
