from __future__ import annotations

import pytest

from posttrain.rewards.format import score


@pytest.mark.parametrize(
    "text",
    [
        "<think>why</think><answer>42</answer>",
        "\n<think>\nwhy\n</think>\n\n<answer>\n42\n</answer>\n",
        "<think>a < b and b > a</think> <answer>42</answer><|im_end|>",
        "<think>why</think><answer>42</answer></s>",
        "<thinking>why</thinking><answer>42</answer>",
        "<THINK>why</THINK><Answer>42</Answer>",
        '<think>{"tag": "</think>"}</think><answer>42</answer>',
    ],
)
def test_the_right_form(text):
    result = score(text)
    assert result.value == 1.0, result.note
    assert set(result.parts.values()) == {1.0}
    assert result.parsed == "42"
    assert result.note == ""


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("", "no <think>; no <answer>"),
        ("42", "no <think>; no <answer>"),
        ("<answer>42</answer>", "no <think>"),
        ("<think>why</think>42", "no <answer>"),
        ("<think>why", "<think> is never closed; no <answer>"),
        ("<think>why</think><answer>42", "<answer> is never closed"),
        ("why</think><answer>42</answer>", "</think> was never opened"),
        ("<think>why</think><answer> </answer>", "<answer> is empty"),
        ("<think> </think><answer>42</answer>", "<think> is empty"),
        ("<think>a</think><think>b</think><answer>42</answer>", "2 times <think>"),
        ("<think>a</think><answer>1</answer><answer>2</answer>", "2 times <answer>"),
        ("<answer>42</answer><think>why</think>", "the answer does not follow the thinking"),
        ("<think>why<answer>42</answer></think>", "the answer does not follow the thinking"),
        ("</think>why<think><answer>42</answer>", "</think> comes before <think>"),
        ("<think>why</think><answer>42</answer> and more", "text outside the tags: 'and more'"),
        ("Well: <think>why</think><answer>42</answer>", "text outside the tags: 'Well:'"),
        ("<think>why</think> so <answer>42</answer>", "text outside the tags: 'so'"),
        ("<think>why</thinking><answer>42</answer>", "<think> is closed by </thinking>"),
        ("<think>why</think><thinking>more</thinking><answer>42</answer>", "2 times <think>"),
        ("<think>why</think><answer>4</thinking>2</answer>", "2 times <think>"),
        ("<thinking>why", "<thinking> is never closed; no <answer>"),
    ],
)
def test_the_wrong_form_says_what_is_wrong(text, note):
    result = score(text)
    assert result.value == 0.0
    assert result.note == note
    assert 0.0 in result.parts.values()


def test_thinking_can_be_optional():
    assert score("<answer>42</answer>", require_think=False).value == 1.0
    assert score("<think>why</think><answer>42</answer>", require_think=False).value == 1.0
    assert score("<think>why<answer>42</answer>", require_think=False).value == 0.0
    assert score("<answer>42</answer> more", require_think=False).value == 0.0
    assert score("42", require_think=False).value == 0.0


def test_the_prompt_can_open_the_thinking():
    assert score("why</think><answer>42</answer>", think_in_prompt=True).value == 1.0
    assert score("<think>why</think><answer>42</answer>", think_in_prompt=True).value == 0.0


@pytest.mark.parametrize("chunk", ["<think>", "</answer>", "<", "<|", " ", "<think></think><answer></answer>"])
def test_a_megabyte_earns_nothing(chunk):
    assert score(chunk * (1_000_000 // len(chunk))).value == 0.0
