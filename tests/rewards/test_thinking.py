"""Which text of a completion is the answer, for every reward alike."""

from __future__ import annotations

import json
import time

import pytest

from posttrain.rewards.thinking import after_thinking, answer_section

NAMES = ["think", "thinking", "THINK", "Thinking", "thought", "reasoning", "seed:think"]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_thinking_ends_it(name):
    assert after_thinking(f"<{name}>a</{name}>b") == "b"
    assert after_thinking(f"a</{name}>b") == "b"
    assert after_thinking(f"a</ {name} >b") == "b"
    assert after_thinking(f"<{name}>a") is None
    assert after_thinking(f"a<{name}>b") is None
    assert after_thinking(f"<{name}>a</{name}>b<{name}>c</{name}>d") == "d"
    assert after_thinking(f"a</{name}>b", in_prompt=True) == "b"


@pytest.mark.parametrize("text", ["a", "", "<b>a</b>", "<thinker>a</thinker>", "I think>a", "<rethink>", "</answer>a"])
def test_other_text_is_no_thinking(text):
    assert after_thinking(text) == text
    assert after_thinking(text, in_prompt=True) is None


@pytest.mark.parametrize("tag", ["<think>", "</think>", "<thinking>", '\\"</think>\\"'])
@pytest.mark.parametrize("written", ['{"%s": 1}', '{"a": "%s"}', '{"a": ["x", "%s"], "b": 1}', '[\n "so %s and"\n]'])
def test_a_tag_in_a_string_of_json_is_data(tag, written):
    written = written % tag
    json.loads(written)
    assert after_thinking(written) == written
    assert after_thinking(f"<think>hm</think>{written}") == written
    assert after_thinking(f"Here: {written} Done.") == f"Here: {written} Done."


@pytest.mark.parametrize(
    "thought", ['a 5" pipe', 'it says "yes', '{"a": "x', '{"a": "x"', '{"a": "x, "b', 'so: "x', '["', "{'a': \"", "\\"]
)
def test_a_quotation_mark_in_the_thinking_hides_no_tag(thought):
    assert after_thinking(f'<think>{thought}</think>{{"a": "b"}}') == '{"a": "b"}'
    assert after_thinking(f'{thought}</think>\n{{"a": "b"}}') == '\n{"a": "b"}'


@pytest.mark.parametrize(
    ("text", "section", "tagged"),
    [
        ("<answer>a</answer><answer>b</answer> c", "b", True),
        ("<answer>a</answer><answer>b", "b", True),
        ("<ANSWER>a</ANSWER>", "a", True),
        ("<think><answer>a</answer></think>b", "b", False),
        ("<thinking><answer>a</answer></thinking>b", "b", False),
        ("<think>a", "", False),
        ("<think>a</think>b<THINK>c</THINK>d", "d", False),
        ("a", "a", False),
    ],
)
def test_answer_section(text, section, tagged):
    assert answer_section(text) == (section, tagged)


CHUNKS = ["<think>", "</think>", "<", "</", '{"', ':"', '"', ',"\\', '\\"', ': "a" ', "[ ", '":"</think>', "< ", '"]\n']


@pytest.mark.parametrize("chunk", CHUNKS)
def test_hostile_text_takes_linear_time(chunk):
    text = "<think>" + chunk * (500_000 // len(chunk))
    started = time.process_time()
    after_thinking(text)
    answer_section(text)
    assert time.process_time() - started < 10
