from __future__ import annotations

import itertools
import json

import pytest

from posttrain.errors import RewardError
from posttrain.rewards.format import score as form
from posttrain.rewards.json_structure import WEIGHTS, score
from posttrain.scoring.calling import score_completion
from posttrain.scoring.score import Reward
from tests.rewards.json_cases import GOLD, RIGHT, SCHEMA, judged


def fit(value, schema, **options):
    """How well a value fits a schema: (valid, structure)."""
    result = judged(json.dumps(value), schema=schema, gold=None, **options)
    return result.parts["valid"], result.parts["structure"]


@pytest.mark.parametrize("values_by", ["f1", "exact"])
@pytest.mark.parametrize("keys", [2, 3, 12])
def test_the_hierarchy_is_strictly_ordered(keys, values_by):
    names = [f"k{i}" for i in range(keys)]
    schema = {"type": "object", "properties": {n: {"type": "integer"} for n in names}, "required": names}
    gold = dict.fromkeys(names, 1)
    ladder = [
        [json.dumps(gold)[:-1], "I don't know.", ""],
        [json.dumps(dict.fromkeys(names[1:], 1)), json.dumps({names[0]: 1}), "{}"],
        [json.dumps(dict.fromkeys(names, 2)), json.dumps({**gold, names[0]: 2})],
        ["Here you are: " + json.dumps(gold) + " I hope it helps."],
        [json.dumps(gold)],
    ]
    rungs = [[judged(text, schema=schema, gold=gold, values_by=values_by).value for text in texts] for texts in ladder]
    for below, above in itertools.pairwise(rungs):
        assert max(below) < min(above)
    assert rungs[0] == [0.0, 0.0, 0.0]
    assert rungs[-1] == [1.0]


def test_the_parts_and_their_weights():
    result = judged(json.dumps({"reasoning": "six times seven", "answer": 41}))
    assert result.parts == {"parses": 1, "valid": 1, "structure": 1, "values": 0.25, "only_json": 1}
    assert result.value == pytest.approx(sum(WEIGHTS[name] * part for name, part in result.parts.items()))
    assert result.parsed == {"reasoning": "six times seven", "answer": 41}
    assert "F1 0.50" in result.note
    assert judged(RIGHT).note == ""


@pytest.mark.parametrize(
    ("completion", "note"),
    [
        ("", "empty"),
        ("The answer is 42.", "no JSON: 'The answer is 42.'"),
        (RIGHT[:-1], "(cut off)"),
        (RIGHT[:20], "(cut off)"),
        ('Sure! {"reasoning": "a", "answer": 4', "not JSON"),
        ('{"reasoning": "a", "answer": 42,}', "(a comma too many)"),
        ('{"reasoning": "a" "answer": 42}', "column 19 (a comma or a closing bracket is missing"),
        ("{'reasoning': 'a', 'answer': 42}", "(single quotes)"),
        ('{reasoning: "a", "answer": 42}', "(a key without quotes)"),
        ('{"reasoning": "a", "answer": None}', "(Python's word for a JSON value)"),
        ('{"reasoning": "a", // why\n"answer": 42}', "(a comment)"),
        ('{"reasoning": "a\nb", "answer": 42}', "(a line break or tab inside a string)"),
        (r'{"reasoning": "\d", "answer": 42}', "(a backslash that is not escaped)"),
        ('{"reasoning": "a", "answer": NaN}', "NaN is not JSON"),
        ('{"reasoning": "a", "answer": -Infinity}', "-Infinity is not JSON"),
        ('{"answer": 41, "reasoning": "a", "answer": 42}', "the key 'answer' twice in one object"),
        ('{"reasoning": "a", "answer": 1e999}', "too large for a double"),
        ('{"reasoning": "a", "answer": ' + "9" * 5000 + "}", "too large for a double"),
        (RIGHT + RIGHT, "2 JSON values; one is expected"),
        (f"{RIGHT} or rather {RIGHT}", "2 JSON values; one is expected"),
        ("[" * 200 + "]" * 200, "nested deeper than 64"),
        ('{"a":' * 200 + "1" + "}" * 200, "nested deeper than 64"),
        ("<think>so " + RIGHT, "the thinking is never closed"),
        # Broken JSON is not searched for something that would parse
        ("{'a': " + RIGHT + "}", "(single quotes)"),
        ('{"a": "text with {} inside', "(cut off)"),
    ],
)
def test_what_does_not_parse_earns_nothing_and_the_note_says_why(completion, note):
    result = judged(completion)
    assert result.value == 0.0
    assert set(result.parts) == set(WEIGHTS)
    assert set(result.parts.values()) == {0.0}
    assert result.parsed is None
    assert note in result.note


@pytest.mark.parametrize(
    "completion",
    [
        f" \n{RIGHT}\n",
        json.dumps(GOLD, indent=4),
        '{"answer": 42, "reasoning": "six times seven"}',
        '{"answer": 42.0, "reasoning": "six times seven"}',
        '{"answer": 4.2e1, "reasoning": "six \\u0074imes seven"}',
        RIGHT + "<|im_end|>",
        RIGHT + "\n</s>",
        f"<think>Maybe {{}} or [1]?</think>\n{RIGHT}",
    ],
)
def test_other_spellings_of_the_right_answer_pass(completion):
    assert judged(completion).value == 1.0


def test_the_prompt_can_open_the_thinking():
    assert judged("hm</think>" + RIGHT, think_in_prompt=True).value == 1.0
    assert judged(RIGHT, think_in_prompt=True).value == 0.0


@pytest.mark.parametrize(
    "completion",
    [
        f"Here: {RIGHT}",
        f"{RIGHT} Done.",
        f"\ufeff{RIGHT}",
        f"\u00a0{RIGHT}",
        f"As {{asked}} in [1] and [the text]:\n{RIGHT}",
        f"Sure:\n```json\n{RIGHT}\n```\nDone.",
    ],
)
def test_text_around_costs_only_json(completion):
    result = judged(completion, allow_fence=True)
    assert result.parts == {"parses": 1, "valid": 1, "structure": 1, "values": 1, "only_json": 0}
    assert result.note == "text around the JSON"


NAMES = ["think", "thinking", "THINK", "thought", "reasoning"]


@pytest.mark.parametrize("name", NAMES)
def test_thinking_ends_as_for_every_other_reward(name):
    assert judged(f"<{name}>Maybe {{}}?</{name}>\n{RIGHT}").value == 1.0
    assert judged(f"Maybe {{}}?</{name}>{RIGHT}").value == 1.0
    assert judged(f"Maybe {{}}?</{name}>{RIGHT}", think_in_prompt=True).value == 1.0
    assert judged(f"<{name}>{RIGHT}").note == "the thinking is never closed"
    assert judged(f"{RIGHT}<{name}>hm").value == 0.0
    assert judged(f"<{name}>{RIGHT}</{name}>").note == "empty"
    assert judged(f"Well, {{}}. <{name}>hm</{name}>{RIGHT}").parts["only_json"] == 0.0


@pytest.mark.parametrize("text", ["</think>", "<think>", "so <answer>1</answer> it is", '"</thinking>"', "</answer>"])
def test_a_tag_in_a_string_is_data(text):
    gold = {"reasoning": text, "answer": 42}
    said = json.dumps(gold)
    schema = {"type": "object", "required": ["reasoning", "answer"]}
    for completion in (
        said,
        f"<think>hm</think>{said}",
        f"<think>hm</think><answer>{said}</answer>",
        f"hm</think>{said}",
    ):
        assert judged(completion, schema=schema, gold=gold).value == 1.0, completion
    assert judged(f"Here: {said}", schema=schema, gold=gold).parts["values"] == 1.0
    assert judged(json.dumps(text), schema={}, gold=text).parts["parses"] == ("think" not in text)


@pytest.mark.parametrize(
    ("completion", "only_json"),
    [
        ("<answer>{}</answer>", 1),
        ("<think>Maybe [1]?</think>\n<answer>\n{}\n</answer>\n<|im_end|>", 1),
        ("<thinking>hm</thinking><ANSWER>{}</ANSWER>", 1),
        ("hm</think><answer>{}</answer></s>", 1),
        ("So: <answer>{}</answer>", 0),
        ("<answer>{}</answer> Done.", 0),
        ('Maybe {"a": 1}? <answer>{}</answer>', 0),
        ("<answer>It is {}.</answer>", 0),
        ("<answer>{}", 0),
        ("{}</answer>", 0),
        ("<answer>\n```json\n{}\n```\n</answer>", 0),
    ],
)
def test_the_answer_tags_around_the_json_are_no_other_text(completion, only_json):
    result = judged(completion.replace("{}", RIGHT))
    assert result.parts == {"parses": 1, "valid": 1, "structure": 1, "values": 1, "only_json": only_json}


@pytest.mark.parametrize(
    "completion",
    [
        "<answer></answer>{}",
        "<answer>{}</answer><answer>{}</answer>",
        "<answer>{} {}</answer>",
        "<answer>{</answer>{}",
        "<answer>none</answer> or {}",
        "<think><answer>{}</answer></think>",
        "<think><answer>{}</answer></think><answer></answer>",
    ],
)
def test_one_answer_is_expected_in_the_tags(completion):
    assert judged(completion.replace("{}", RIGHT)).value == 0.0


@pytest.mark.parametrize("options", [{}, {"think_in_prompt": True}])
def test_the_reward_format_and_this_one_can_both_be_1(options):
    opening = "" if options else "<think>"
    for said in (RIGHT, json.dumps(GOLD, indent=2), json.dumps({**GOLD, "reasoning": "</think>"})):
        completion = f"{opening}Six times seven.</think>\n<answer>\n{said}\n</answer>"
        assert form(completion, **options).value == 1.0
        assert judged(completion, gold=json.loads(said), **options).value == 1.0
    assert form(f"{opening}hm</think>{RIGHT}", **options).value == 0.0
    assert judged(f"{opening}hm</think>{RIGHT}", **options).value == 1.0


@pytest.mark.parametrize("fence", ["```json\n{}\n```", "```\n{}\n```", "\n```JSON\n{}```\n"])
def test_a_fence_is_text_around_unless_allowed(fence):
    completion = fence.replace("{}", RIGHT)
    assert judged(completion).value == pytest.approx(0.9)
    assert judged(completion).note == "a fence around the JSON"
    assert judged(completion, allow_fence=True).value == 1.0


def test_other_types_parse_but_do_not_fit():
    for text in ("42", "null", '"text"', "[]", "true", json.dumps(RIGHT)):
        result = judged(text)
        assert result.parts == {"parses": 1, "valid": 0, "structure": 0, "values": 0, "only_json": 1}, text


@pytest.mark.parametrize(
    ("gold", "said", "same"),
    [
        (1, "1.0", True),
        (1, "true", False),
        (0, "false", False),
        (True, "1", False),
        (None, "false", False),
        ("1", "1", False),
        (0.1, "0.10", True),
        (10**16 + 1, "1e16", False),
        ([1, 2], "[2, 1]", False),
        ([], "{}", False),
        ([1], "[true]", False),
        ({"a": {"b": 1, "c": 2}}, '{"a": {"c": 2, "b": 1}}', True),
        ("\ud83d", '"\\ud83d"', True),
        ("é", '"e\\u0301"', False),
    ],
)
def test_equality_with_the_gold(gold, said, same):
    assert (score(said, schema="true", gold=json.dumps(gold)).value == 1.0) == same
    assert judged(said, schema={"const": gold}, gold=None).parts["valid"] == same


def test_f1_over_leaves():
    def values(gold, said, **options):
        return judged(json.dumps(said), schema={}, gold=gold, **options).parts["values"]

    gold = {"a": 1, "b": {"c": 2, "d": []}, "e": [3, 4]}
    assert values(gold, gold) == 1.0
    assert values(gold, {**gold, "a": 9}) == pytest.approx(0.8 / 2)
    assert values(gold, {"a": 1}) == pytest.approx(2 * 1 / 6 / 2)
    assert values(gold, {**gold, "x": 1}) == pytest.approx(2 * 5 / 11 / 2)
    assert values(gold, {}) == 0.0
    assert values(gold, {**gold, "a": 9}, values_by="exact") == 0.0
    assert values(gold, gold, values_by="exact") == 1.0


def test_the_order_of_arrays_counts_unless_told_otherwise():
    def values(said, **options):
        return judged(json.dumps(said), schema={}, gold=[{"a": 1, "b": 2}, {"a": 3, "b": 4}], **options).parts["values"]

    assert values([{"a": 3, "b": 4}, {"a": 1, "b": 2}]) == 0.0
    assert values([{"a": 3, "b": 4}, {"a": 1, "b": 2}], array_order="any") == 1.0
    assert values([{"a": 3, "b": 4}, {"a": 1, "b": 9}], array_order="any") == pytest.approx(0.75 / 2)
    assert values([{"a": 1, "b": 4}, {"a": 3, "b": 2}], array_order="any") == pytest.approx(0.5 / 2)
    assert values([{"a": 3, "b": 4}] * 2, array_order="any") < 0.5


def test_valid_counts_each_keyword_of_the_schema_once():
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 0},
            "tags": {"type": "array", "items": {"enum": ["x", "y"]}},
        },
        "required": ["n", "tags"],
    }
    # type, required n, required tags, n: type and minimum, tags: type, items: enum
    assert fit({"n": 1, "tags": ["x"]}, schema)[0] == 1.0
    assert fit({"n": -1, "tags": ["x"]}, schema)[0] == pytest.approx(1 - 1 / 7)
    assert fit({"n": 1, "tags": ["z"]}, schema)[0] == pytest.approx(1 - 1 / 7)
    assert fit({"n": 1, "tags": ["z"] + ["x"] * 100}, schema)[0] == pytest.approx(1 - 1 / 7)
    assert fit({"n": "1", "tags": ["x"]}, schema)[0] == pytest.approx(1 - 1 / 6)  # no minimum of a string
    assert fit({"n": 1}, schema)[0] == pytest.approx(1 - 1 / 5)
    assert fit({}, schema)[0] == pytest.approx(1 - 2 / 3)
    assert fit([], schema)[0] == 0.0


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "integer"}, 1.0, True),
        ({"enum": [1, None]}, 1.0, True),
        ({"multipleOf": 0.01}, 19.99, 19.999),
        ({"uniqueItems": True}, [1, True, {"a": 1}, "1"], [{"a": 1}, {"a": 1.0}]),
        ({"pattern": r"^\d{3}$"}, "123", "123\n"),
        ({"pattern": r"^\d{3}$"}, "123", "١٢٣"),
        ({"pattern": r"^[\w$]+$"}, "a$1", "a-1"),
        ({"pattern": r"^\p{L}+$"}, "é", "1"),
        ({"patternProperties": {"^n_": {"type": "integer"}}, "additionalProperties": False}, {"n_a": 1}, {"m": 1}),
        ({"patternProperties": {"^n_": {"type": "integer"}}}, {"n_a": 1}, {"n_a": "1"}),
        ({"additionalProperties": {"type": "integer"}}, {"a": 1}, {"a": "1"}),
        ({"oneOf": [{"type": "integer"}, {"type": "null"}]}, None, "x"),
        ({"not": {"type": "string"}}, 1, "x"),
        ({"if": {"type": "integer"}, "then": {"minimum": 5}}, 5, 4),
        ({"contains": {"const": 1}}, [0, 1], [0]),
        ({"prefixItems": [{"type": "string"}], "items": False}, ["a"], ["a", 1]),
        ({"properties": {"a": False}}, {"b": 1}, {"a": 1}),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1, "b": 1}, {"a": 1}),
        ({"properties": {"a": {}}, "unevaluatedProperties": False}, {"a": 1}, {"b": 1}),
        ({"$defs": {"n": {"type": "integer"}}, "items": {"$ref": "#/$defs/n"}}, [1], ["1"]),
        ({"$id": "https://e.com/a", "$defs": {"n": {"type": "integer"}}, "$ref": "https://e.com/a#/$defs/n"}, 1, "1"),
        ({"$defs": {"n": {"$anchor": "num", "type": "integer"}}, "$ref": "#num"}, 1, "1"),
    ],
)
def test_keywords(schema, good, bad):
    assert fit(good, schema)[0] == 1.0
    assert fit(bad, schema)[0] < 1.0
    assert judged(json.dumps(bad), schema=schema, gold=None).value < 1.0


def test_nothing_fits_the_schema_false():
    assert judged("1", schema=False, gold=None).parts == {"parses": 1, "valid": 0, "structure": 0, "only_json": 1}
    assert judged("1", schema=True, gold=None).value == 1.0


def test_structure_looks_into_objects_arrays_and_references():
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"$ref": "#/$defs/b"}, "c": {"items": {"required": ["x"]}}},
        "required": ["a", "b"],
        "$defs": {"b": {"type": "object", "required": ["p", "q"], "properties": {"p": {"type": "string"}}}},
    }
    assert fit({"a": 1, "b": {"p": "", "q": 0}}, schema)[1] == 1.0
    assert fit({"a": "1", "b": {"p": "", "q": 0}}, schema)[1] == pytest.approx(4 / 5)
    assert fit({"a": 1, "b": {"q": 0}}, schema)[1] == pytest.approx(4 / 5)
    assert fit({"a": 1, "b": {}}, schema)[1] == pytest.approx(3 / 5)
    assert fit({"a": 1, "b": 7}, schema)[1] == pytest.approx(2 / 5)
    assert fit({"a": 1}, schema)[1] == pytest.approx(2 / 5)
    assert fit({"a": 1, "b": {"p": "", "q": 0}, "c": [{"x": 1}, {}, {}]}, schema)[1] == pytest.approx(5 / 6)


def test_items_in_items_are_counted_beside_the_right_ones():
    part = {"type": "object", "properties": {"p": {"type": "integer"}}, "required": ["p"]}
    inner = {"type": "object", "properties": {"parts": {"type": "array", "items": part}}, "required": ["parts"]}
    schema = {"type": "array", "items": inner}
    gold = [{"parts": []}, {"parts": [{"p": 1}, {"p": 2}]}]
    assert judged(json.dumps(gold), schema=schema, gold=gold).value == 1.0
    assert judged(json.dumps(gold[::-1]), schema=schema, gold=gold, array_order="any").value == 1.0
    half = json.dumps([gold[0], {"parts": [{"p": 1}]}])
    assert judged(half, schema=schema, gold=gold).parts["structure"] == pytest.approx(2 / 3)
    assert judged(half, schema=schema, gold=None).parts["structure"] == 1.0


def test_null_needs_no_keys_where_it_is_right():
    part = {"type": ["object", "null"], "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    schema = {"type": "object", "properties": {"a": part}, "required": ["a"]}
    assert judged('{"a": null}', schema=schema, gold={"a": None}).value == 1.0
    assert judged('{"a": null}', schema=schema, gold=None).value == 1.0
    assert judged('{"a": null}', schema=schema, gold={"a": {"x": 1}}).parts["values"] == 0.0


def test_values_count_only_when_the_structure_is_complete():
    schema = {"required": ["a", "b", "c"]}
    gold = {"a": 1, "b": 2, "c": 3}
    result = judged('{"a": 1, "b": 2}', schema=schema, gold=gold)
    assert result.parts["values"] == 0.0
    assert "F1 0.80, not counted" in result.note


def test_weights():
    wrong = '{"reasoning": "x", "answer": 1}'
    assert judged(wrong, weights={"values": 0}).value == 1.0
    assert "values" not in judged(wrong, weights={"values": 0}).parts
    assert judged(wrong, weights={"values": 0.6}).value == pytest.approx(0.6 / 1.2)
    assert judged(RIGHT, weights={"valid": 7.3, "only_json": 0.1}).value == 1.0
    assert judged(f"{RIGHT}.", weights={"only_json": 1e-12}).value < 1.0
    for weights, said in (({"value": 1}, "values"), ({"valid": -1}, "from 0"), (dict.fromkeys(WEIGHTS, 0), "above 0")):
        with pytest.raises(RewardError, match=said):
            judged(RIGHT, weights=weights)
    with pytest.raises(RewardError, match="no gold"):
        judged(RIGHT, gold=None, weights={**dict.fromkeys(WEIGHTS, 0), "values": 1})
    with pytest.raises(RewardError, match="exact"):
        judged(RIGHT, values_by="f2")


def test_schema_and_gold_as_objects_and_rows_of_other_tasks():
    assert score(RIGHT, schema=SCHEMA, gold=GOLD).value == 1.0
    assert score(RIGHT, schema=json.dumps(SCHEMA)).value == 1.0
    assert score(RIGHT, schema=None) is None
    assert score("null", schema="true", gold="null").value == 1.0
    reward = Reward.from_callable(score, kwargs={"values_by": "exact"})
    assert score_completion(reward, RIGHT, {"schema": SCHEMA, "gold": GOLD, "difficulty": 1}).value == 1.0
