"""What could hang or mislead the reward `json_structure`: unfit rows, endless schemas, hostile completions, guesses."""

from __future__ import annotations

import json
import socket
import time
import urllib.request

import pytest

from posttrain.errors import RewardError
from posttrain.rewards.json_structure import check_row, score
from posttrain.scoring.calling import score_completion
from posttrain.scoring.score import Reward
from tests.rewards.json_cases import GOLD, RIGHT, SCHEMA, judged


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"$ref": "https://example.com/s.json"}, "https://example.com/s.json"),
        ({"$ref": "file:///etc/hostname"}, "nothing is fetched"),
        ({"properties": {"a": {"$ref": "/etc/hostname"}}}, "nothing is fetched"),
        ({"items": {"$dynamicRef": "https://example.com/s.json#a"}}, "nothing is fetched"),
        ({"$id": "https://example.com/a", "$ref": "b"}, "nothing is fetched"),
        ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, "nothing is fetched"),
        ({"$ref": "#/$defs/missing"}, "nothing is fetched"),
        ({"$ref": "#/title", "title": "text"}, "no schema"),
        ({"$ref": "#"}, "refers to itself without end"),
        ({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"anyOf": [{"$ref": "#"}]}}}, "without end"),
        ({"properties": {"a": {"$ref": "#/properties/a"}}}, "without end"),
        ({"type": "strnig"}, "strnig"),
        ({"$schema": "http://json-schema.org/draft-03/schema#"}, "draft-03"),
        ({"$schema": "https://example.com/schema"}, "https://example.com/schema"),
        ({"$schema": 7}, "$schema 7"),
        ({"items": {"$schema": "http://json-schema.org/draft-07/schema#"}}, "one draft for all"),
        ({"pattern": "("}, "the pattern '('"),
        ({"patternProperties": {"[": {}}}, "the pattern '['"),
        ({"pattern": "((a{1000}){1000}){1000}"}, "fewer repetitions"),
        ("{", "not JSON"),
        ("[" * 100_000, "nested deeper"),
        (7, "7 is not"),
    ],
)
def test_unfit_schemas_are_the_rows_fault(schema, said, monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("something was opened")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    text = schema if isinstance(schema, str) else json.dumps(schema)
    with pytest.raises(RewardError) as refused:
        score("{}", schema=text)
    assert said in str(refused.value)
    found = check_row(text)
    monkeypatch.undo()
    assert found is not None
    outcome = score_completion(Reward.from_callable(score), "{}", {"schema": text})
    assert outcome.value is None
    assert "schema" in outcome.error


def test_check_row_finds_a_gold_that_does_not_fit():
    assert check_row(SCHEMA, GOLD) is None
    assert check_row(json.dumps(SCHEMA), RIGHT) is None
    assert check_row(SCHEMA) is None
    assert "'answer' is a required property" in check_row(SCHEMA, '{"reasoning": ""}')
    assert "gold: not JSON" in check_row(SCHEMA, "{")
    with pytest.raises(RewardError, match="gold"):
        score(RIGHT, schema=SCHEMA, gold="forty-two")


RECURSIVE = {
    "$ref": "#/$defs/node",
    "$defs": {"node": {"type": "object", "properties": {"next": {"allOf": [{"$ref": "#/$defs/node"}]}}}},
}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"pattern": "(a+)+$"}, "a" * 5000 + "b"),
        ({"pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"}, "a" * 5000),
        ({"patternProperties": {"^(([a-z])+.)+[A-Z]([a-z])+$": {}}}, {"a" * 5000: 1}),
        ({"$defs": {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(40)} | {"a40": {}},
          "$ref": "#/$defs/a0"}, 1),
    ],
)  # fmt: skip
def test_schemas_that_take_too_long_end_in_time(schema, value):
    started = time.process_time()
    result = judged(json.dumps(value), schema=schema, gold=None, time_limit_s=0.2)
    assert time.process_time() - started < 10
    assert result.value == 0.0
    assert result.note == "not checked within 0.2 s"


def test_deep_values_under_a_recursive_schema():
    deepest = '{"next":' * 63 + "{}" + "}" * 63
    assert judged(deepest, schema=RECURSIVE, gold=None).value == 1.0
    assert judged(deepest, schema=RECURSIVE, gold=json.loads(deepest)).value == 1.0
    assert judged(f'{{"next":{deepest}}}', schema=RECURSIVE, gold=None).value == 0.0
    assert judged(deepest.replace("{}", "1"), schema=RECURSIVE, gold=None).value < 1.0


LONG = 99_990


@pytest.mark.parametrize(
    "completion",
    [
        "[" * 1_000_000,
        "[" * LONG,
        '{"a":' * (LONG // 5),
        '"' * LONG,
        '{"' * (LONG // 2),
        '{"a' + '\\"' * (LONG // 2 - 2),
        '{"a"}' * (LONG // 5),
        "[1]" * (LONG // 3),
        "{" * 1000 + "}" * 1000,
        "`" * LONG,
        "<|" * (LONG // 2),
        " " * LONG + "x",
        "x" + " " * (LONG - 2) + "x",
        "<|a|>" * (LONG // 5),
        "</think>" * (LONG // 8),
        "<answer>" * (LONG // 8),
        "[" + "{}," * (LONG // 3 - 2) + "1]",
        '{"reasoning": "' + "\\u0000" * (LONG // 7) + '", "answer": 1' + "0" * 300 + "}",
    ],
)
def test_huge_and_hostile_completions_end_soon(completion):
    started = time.process_time()
    result = judged(completion)
    assert time.process_time() - started < 10
    assert result.value < 0.7
    assert len(result.note) < 1000


ITEM = {"type": "object", "properties": {"sku": {"type": "string"}, "qty": {"type": "integer"}}}
ITEM |= {"required": ["sku", "qty"], "additionalProperties": False}
ORDER = {"type": "object", "properties": {"id": {"type": "integer"}, "items": {"type": "array", "items": ITEM}}}
BOUGHT = {"id": 1, "items": [{"sku": "a", "qty": 2}, {"sku": "b", "qty": 3}]}


@pytest.mark.parametrize("required", [["id", "items"], ["id"]])
@pytest.mark.parametrize("array_order", ["ordered", "any"])
def test_leaving_items_out_earns_less_than_a_key_missing_in_them(required, array_order):
    def earns(items):
        said = {"id": 1} if items is None else {"id": 1, "items": items}
        schema = {**ORDER, "required": required}
        return judged(json.dumps(said), schema=schema, gold=BOUGHT, array_order=array_order)

    first, second = BOUGHT["items"]
    left_out = [earns(items) for items in (None, [], [first], [second], "none", {})]
    incomplete = [earns(items) for items in ([first, {"sku": "b"}], [{"qty": 2}, second], [{"sku": "a"}, {"sku": "b"}])]
    wrong = [earns(items) for items in ([first, {"sku": "b", "qty": 0}], [{"sku": "x", "qty": 0}] * 2)]
    assert max(result.value for result in left_out) < min(result.value for result in incomplete)
    assert max(result.value for result in incomplete) < min(result.value for result in wrong)
    assert {result.parts["values"] for result in left_out} == {0.0}
    assert earns([first, second]).value == 1.0
    assert earns([second, first]).parts["structure"] == 1.0


def test_what_an_answer_without_the_text_earns():
    assert judged("5").value == pytest.approx(0.2)
    assert judged("{}").value == pytest.approx(0.1 + 0.2 * 2 / 4 + 0.2 / 3 + 0.1)
    assert judged('{"reasoning": "", "answer": 0}').value == pytest.approx(0.6)
    assert judged('{"reasoning": "", "answer": 0}', gold=None).value == 1.0
    assert judged("{}", schema={"properties": SCHEMA["properties"]}, gold=None).value == 1.0
