from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time

import pytest
from math_verify import parse, verify

from posttrain.rewards import math_compare, math_judge
from posttrain.rewards.math_answer import score, why_unreadable
from posttrain.rewards.math_compare import same_answer
from posttrain.rewards.math_extract import final_answer, last_boxed
from posttrain.rewards.math_guard import OutOfTime, deadline, tree_problem
from posttrain.rewards.math_numbers import plain_number, rounding, same_number
from posttrain.rewards.math_text import cleaned
from posttrain.scoring.score import Reward, Score
from tests.rewards.math_answer_cases import IN_THE_PROMPT, REPEATED, RIGHT, WRONG

HOSTILE_CPU_S = 10.0  # of computing, on a machine that also does other things: what is not linear takes minutes
LIMIT_S = 5.0  # what a completion may take by default; an idle machine needs a fraction of it


def value(completion: str, answer: str, **options: object) -> float:
    result = score(completion, answer=answer, **options)
    assert isinstance(result, Score)
    return result.value


@pytest.mark.parametrize(("gold", "said"), RIGHT)
def test_right_answers(gold: str, said: str) -> None:
    assert value(f"So it is \\boxed{{{said}}}.", gold) == 1


@pytest.mark.parametrize(("gold", "said"), WRONG)
def test_wrong_answers(gold: str, said: str) -> None:
    assert value(f"So it is \\boxed{{{said}}}.", gold) == 0


@pytest.mark.parametrize(("prompt", "gold", "said"), REPEATED)
def test_the_question_is_no_answer(prompt: str, gold: str, said: str) -> None:
    result = score(f"\\boxed{{{said}}}", answer=gold, prompt=f"{prompt}\n\nPut the answer in \\boxed{{}}.")
    assert result is not None
    assert (result.value, result.note) == (0, "boxed: repeats the question")
    assert value(f"\\boxed{{{gold}}}", gold, prompt=prompt) == 1


@pytest.mark.parametrize(("prompt", "gold", "said"), IN_THE_PROMPT)
def test_an_answer_may_stand_in_the_prompt(prompt: str, gold: str, said: str) -> None:
    assert value(f"\\boxed{{{said}}}", gold, prompt=prompt) == 1


def test_arithmetic_left_undone_is_named() -> None:
    result = score("\\boxed{67.4+61.75}", answer="129.15")
    assert result is not None
    assert (result.value, result.note) == (0, "boxed: leaves the arithmetic undone")


@pytest.mark.parametrize("gold", sorted({gold for gold, _ in RIGHT + WRONG}))
def test_every_gold_answer_says_itself(gold: str) -> None:
    assert why_unreadable(gold) is None
    assert value(f"\\boxed{{{gold}}}", gold) == 1


@pytest.mark.parametrize(
    ("completion", "gold", "expected"),
    [
        ("The answer is 72.", "72", 1),
        ("The final answer is $\\frac12$ because", "1/2", 1),
        ("**Answer:** 72", "72", 1),
        ("Final Answer:\n72", "72", 1),
        ("Answer: $72$.", "72", 1),
        ("the answer is 12.5 dollars. So", "12.5", 1),
        ("The answer to the question is 72", "72", 1),
        ("The answer is: \\(72\\)", "72", 1),
        ("The answers are 2 and 3.", "2,3", 1),
        ("The answer is -3", "-3", 1),
        ("The answer is -3", "3", 0),
        ("The answer is .5", "0.5", 1),
        ("The answer is not 72", "72", 0),
        ("The answer is 72 or 73", "72", 0),
        ("The answer is 71. No, the answer is 72.", "72", 1),
        ("The answer, my friend, is blowing", "72", 0),
        ("so 5\n#### 1,234", "1234", 1),
        ("#### 72\n#### 71", "72", 0),
        ("#### 72<|im_end|>", "72", 1),
        ("#### 71\nIt is \\boxed{72}", "72", 1),
        ("<think>\\boxed{72}</think> It is \\boxed{71}", "72", 0),
        ("<think>\\boxed{71}</think> It is \\boxed{72}", "72", 1),
        ("<think>\\boxed{72}</think> Done.", "72", 0),
        ("<think>\\boxed{72}", "72", 0),
        ("<think>x</think><answer>72</answer>", "72", 1),
        ("\\boxed{71} then \\boxed{72}", "72", 1),
        ("\\boxed{72} then \\boxed{71}", "72", 0),
        ("\\boxed{72", "72", 0),
        ("\\boxed{72} and \\boxed{", "72", 0),
        ("I put it in \\boxed{}. #### 72", "72", 1),
        ("\\fbox{72}", "72", 1),
        ("It is $\\boxed5$.", "5", 1),
        ("It is $\\boxed 5$.", "5", 1),
        ("It is $\\boxed72$.", "72", 0),
        ("\\boxed{72} or \\boxed5", "72", 0),
        ("\\boxed{\\boxed{72}}", "72", 1),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}", 1),
        ("\\boxed{\\{1,2\\}}", "\\{1,2\\}", 1),
        ("It is 72", "72", 0),
        ("", "72", 0),
        ("\\boxed{72} " * 10_000 + "\\boxed{71}", "72", 0),
    ],
)
def test_where_the_answer_is(completion: str, gold: str, expected: int) -> None:
    assert value(completion, gold) == expected


@pytest.mark.parametrize(
    ("completion", "expected"),
    [("It is 72.", 1), ("total $72", 1), ("1,072", 0), ("-72", 0), ("72 or 73", 0), ("3/72", 0), ("none", 0)],
)
def test_not_strict_takes_the_last_number(completion: str, expected: int) -> None:
    assert value(completion, "72", strict=False) == expected
    assert value(completion, "72") == 0


def test_a_score_says_what_was_read_and_why() -> None:
    assert score("\\boxed{71}", answer="72") == Score(0.0, parsed="71", note="boxed: read as 71, not 72")
    assert score("#### 72", answer="72") == Score(1.0, parsed="72", note="####")
    assert score("72", answer="72") == Score(0.0, note="no \\boxed{...}, no ####, no 'the answer is'")
    unread = score("\\boxed{7 2}", answer="72")
    assert unread is not None
    assert unread.note == "boxed: cannot be read: two numbers side by side"


@pytest.mark.parametrize("gold", [None, "", "  ", "?", "9^{9^{9^9}}", "7 2", "(1,", "1" * 500, "\\text{a} + 3", "\x00"])
def test_a_gold_answer_that_cannot_be_read_scores_none(gold: str | None) -> None:
    assert why_unreadable(gold)
    for completion in (f"\\boxed{{{gold}}}", "\\boxed{72}", "", "\\boxed{" + "x" * 10_000 + "}"):
        assert score(completion, answer=gold) is None


def test_the_reward_reads_the_column_answer_and_may_see_the_prompt() -> None:
    assert "prompt" in Reward.from_callable(score).parameters
    assert Reward.from_callable(score).required_columns() == ["answer"]


HOSTILE = {
    "tower": "9^9^9^9",
    "tower in braces": "9^{9^{9^{9}}}",
    "power of a power": "10^{10^{10}}",
    "postfix powers": "(((9^{999})^{999})^{999})^{999}",
    "negative tower": "9^{-9^{9}}",
    "exponentials": "e^{e^{e^{10}}}",
    "exp": "\\exp(\\exp(\\exp(9)))",
    "factorial": "100000!",
    "factorials": "((9!)!)!",
    "binomial": "\\binom{1000000000}{500000000}",
    "nested binomial": "\\binom{\\binom{9999}{5000}}{77}",
    "modulo": "9^{9^{9}} \\mod 7",
    "floor": "\\lfloor 10^{10^{10}} \\rfloor",
    "logarithm": "\\log_{2}{9^{9^{9}}}",
    "tangent": "\\tan(10^{77})",
    "fractions": "\\frac{1}{" * 10_000 + "2" + "}" * 10_000,
    "roots": "\\sqrt{" * 200_000 + "2" + "}" * 200_000,
    "digits": "7" * 1_000_000,
    "decimals": "72." + "0" * 300 + "1",
    "open": "(" * 100_000,
    "parentheses": "(" * 24 + "72" + ")" * 24,
    "ambiguous bars": "|x|" * 90,
    "ambiguous parentheses": ",".join(["((((((1))))))"] * 20),
    "subscripts": "x_" * 140,
    "superscripts": "^".join("x" * 8),
    "more superscripts": "^".join("x" * 20),
    "superscripts, many": "x^" * 140,
    "superscripts of commands": r"\pi^" * 60 + "2",
    "superscripts apart": "x ^ " * 40 + "2",
    "superscripts, signed": "x^-" * 40 + "2",
    "superscripts, long numbers": "^".join(["12"] * 40),
    "superscripts with subscripts": "^".join(["x_1"] * 40),
    "superscripts in braces": "^".join(["{x}"] * 40),
    "superscripts in brackets": "^".join(["(x)"] * 20),
    "superscripts, primed": "x'^" * 40 + "2",
    "superscripts, primed seldom": "x^" + "x'^x" * 6,
    "divisions, few": r"x\div " * 8 + "x",
    "slashes, few": "/".join("x" * 9),
    "slashes": "/".join("x" * 120),
    "slashes of numbers": "/".join("7" * 120),
    "a tower in brackets": "x^(x^(x^(x^(x^(x^(x^(x)))))))",
    "a tower in braces": "x^{" * 8 + "x" + "}" * 8,
    "divisions": r"x\div " * 40 + "x",
    "colons": ":".join("x" * 120),
    "factorials, many": "x" + "!" * 200,
    "matrix": "\\begin{pmatrix}" + "\\\\".join(["&".join("1" * 100)] * 100) + "\\end{pmatrix}",
    "polynomial": "(x+y+z+w)^{60}",
    "polynomials": "((x+1)^{50})^{50}",
    "fraction sum": "+".join(f"\\frac{{1}}{{x+{number}}}" for number in range(16)),
    "sum": "\\sum_{i=1}^{1000000000} i",
    "integral": "\\int_0^{72} 1 dx",
    "list": ",".join(map(str, range(1, 101))),
    "every number": " ".join(map(str, range(1, 101))),
    "equals": "=" * 200 + "72",
    "chain": "1=" * 70 + "72",
    "null": "72\x00",
    "bidirectional": "\u202e27",
    "zero width": "7\u200b2",
    "surrogate": "72\ud800",
    "text": "\\text{" * 80 + "72" + "}" * 80,
    "words": "72 " + "a " * 900 + "!",
    "spaces": "7" + " " * 100_000 + "2",
    "percents": "72" + "%" * 200,
    "commas": "72" + "," * 250 + "73",
    "scientific": "1e99999999",
}


@pytest.mark.parametrize("gold", ["72", "\\frac{\\sqrt{2}+x}{3}"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_end_and_score_0(name: str, gold: str) -> None:
    math_judge.load()
    for completion in (f"\\boxed{{{HOSTILE[name]}}}", f"#### {HOSTILE[name]}"):
        start = time.process_time()
        assert value(completion, gold, prompt=completion) == 0
        assert time.process_time() - start < HOSTILE_CPU_S


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_gold_answers_end(name: str) -> None:
    start = time.monotonic()
    assert value("\\boxed{71}", "72") == 0
    result = score("\\boxed{1}", answer=HOSTILE[name])
    assert result is None or result.value == 0
    assert time.monotonic() - start < LIMIT_S


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 150_000,
        "\\boxed{}" * 100_000,
        "\\boxed " * 150_000,
        "\\boxed" + " " * 1_000_000,
        "\\boxed{" + "{" * 1_000_000,
        "\\boxed{5" + "\\" * 99_999,
        "the answer is " * 70_000,
        "answer" + "*" * 20_000,
        "answer to " * 20_000,
        "answer is " * 2_000 + "$" * 3_000,
        "#### " * 200_000,
        "<think>" * 100_000,
        "<answer>" * 100_000,
        "\n" * 1_000_000,
        "1," * 500_000,
        "1" * 1_000_000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_hostile_completions_end_and_score_0(text: str) -> None:
    start = time.monotonic()
    assert value(text, "72") == 0
    assert value(text, "72", strict=False) == 0
    assert time.monotonic() - start < LIMIT_S


def test_in_a_thread_there_is_no_signal_and_the_same_verdict() -> None:
    verdicts: list[float] = []
    thread = threading.Thread(
        target=lambda: verdicts.extend(value(f"\\boxed{{{said}}}", "x+1") for said in ("1+x", "x"))
    )
    thread.start()
    thread.join()
    assert verdicts == [1, 0]


def test_the_deadline_stops_python_and_leaves_no_timer() -> None:
    def endless() -> None:
        with deadline(0.05):
            while True:
                pass

    with pytest.raises(OutOfTime):
        endless()
    with deadline(0.05):
        pass
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass


def test_a_comparison_that_takes_too_long_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*arguments: object) -> bool:
        while True:
            pass

    math_judge.load()
    monkeypatch.setattr(math_compare, "SECONDS", 0.1)
    monkeypatch.setattr(math_compare, "same_leaf", endless)
    same, why = same_answer("x+1", "1+x")
    assert not same
    assert why == "not compared within 0.1 s of computing"
    monkeypatch.undo()
    assert same_answer("x+1", "1+x") == (True, "")


@pytest.mark.parametrize("text", ["9^{9^{9}}", "100000!", "(x+1)^{1000}"])
def test_what_is_too_big_is_refused_before_it_is_computed(text: str) -> None:
    assert tree_problem(parse(f"\\boxed{{{text}}}")[0])


@pytest.mark.parametrize("text", ["x^{2005}", "2^{1000}", "20!", "(x+1)^{20}", "\\sqrt{2}", "e^{-x^2}"])
def test_what_a_gold_answer_may_be_is_not_refused(text: str) -> None:
    assert tree_problem(parse(f"\\boxed{{{text}}}")[0]) is None


NUMBERS = [
    *("0", "1", "-1", "2", "3", "12", "120", "-12", "72", "100", "1000", "1,000", "1234", "1,234", "12,345,678", "007"),
    *("0.5", ".5", "-0.5", "1.0", "1.5", "12.0", "12.5", "0.333", "0.333333", "0.3333333", "0.666667", "1.000001"),
    *("1.0000001", "0.1", "0.10", "3.14159", "1,234.5", "0.000001", "0.0000001", "0.0000002", "99.999999", "0.00001"),
    *("1/2", "-1/2", "2/4", "1/3", "2/3", "3/2", "7/1", "1/12", "22/7", "1/1000000", "12/1", "-3/3"),
    *(r"\frac{1}{2}", r"\frac12", r"-\frac{1}{2}", r"\frac{-1}{2}", r"\frac{2}{3}", r"\frac{144}{12}", r"\frac{0}{5}"),
    *("12345678901234567", "12345678901234568", "1234567890.12345", "0.12345678901234567", "100000000000000000000"),
]


def test_the_fast_path_never_disagrees_with_math_verify() -> None:
    parsed = {text: parse(f"\\boxed{{{text}}}") for text in NUMBERS}
    decided, disagreed = 0, []
    for gold, said in itertools.product(NUMBERS, repeat=2):
        ours, theirs = plain_number(cleaned(gold).math), plain_number(cleaned(said).math)
        assert ours is not None
        assert theirs is not None
        fast = same_number(ours, theirs)
        if fast is None:
            continue
        decided += 1
        if fast != verify(parsed[gold], parsed[said], float_rounding=rounding(ours, theirs), timeout_seconds=0):
            disagreed.append((gold, said, fast))
    assert not disagreed
    assert decided > 0.9 * len(NUMBERS) ** 2  # the rest is left to math-verify


@pytest.mark.parametrize("text", ["", "x", "1/0", "1,23", "1.2.3", "1 2", "--1", "1e3", "\u0663", "\\frac{1}{0}", "5%"])
def test_what_is_no_plain_number(text: str) -> None:
    assert plain_number(text) is None


def test_the_last_box_is_balanced() -> None:
    assert last_boxed("\\boxed{a{b}c} d") == "a{b}c"
    assert last_boxed("\\boxed{\\{1\\}} and \\boxed{ }") == "\\{1\\}"
    assert last_boxed("\\boxed{1") == ""
    assert last_boxed("no box") is None
    assert final_answer("\\boxed{1}; no, \\boxed {2}") == ("2", "boxed")


def test_plain_numbers_need_no_sympy() -> None:
    code = (
        "import sys\n"
        "from posttrain.rewards.math_answer import score\n"
        "assert score('#### 1,234', answer='1234').value == 1\n"
        "assert not {'sympy', 'math_verify', 'torch', 'transformers', 'datasets'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    "gold",
    ["Natalia sold 48/2 = <<48/2=24>>24 clips.\n#### 72", "Then $x = 70 + 2$, which is $\\boxed{72}$.", "#### 72"],
)
def test_gold_as_a_worked_solution(gold: str) -> None:
    assert why_unreadable(gold) is None
    assert value("\\boxed{72}", gold) == 1
    assert value("\\boxed{24}", gold) == 0


def test_a_worked_solution_without_an_answer_scores_nothing() -> None:
    assert score("\\boxed{72}", answer="So it goes.\n####") is None
    assert why_unreadable("\\boxed{") is not None
