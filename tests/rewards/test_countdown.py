"""The reward `countdown`: what is read as the answer, what it is worth, and text that is out to break it."""

from __future__ import annotations

import random
import time
from fractions import Fraction

import numpy as np
import pytest

from posttrain.errors import RewardError
from posttrain.rewards.arithmetic import DEEPEST, LONGEST, NotArithmetic, work_out
from posttrain.rewards.countdown import score
from posttrain.scoring.calling import score_completion
from posttrain.scoring.score import Reward

NUMBERS = [3, 8, 8, 5]


def judged(completion, numbers=NUMBERS, target=24, **options):
    result = score(completion, numbers=numbers, target=target, **options)
    assert result is not None
    assert 0 <= result.value <= 1
    return result


# ---- arithmetic ----


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("10 - 4 - 3", 3),
        ("24 / 4 / 2", 3),
        ("8 / (3 - 8 / 3)", 24),
        ("1 / 3 + 1 / 6", Fraction(1, 2)),
        ("-3 + 5", 2),
        ("3 - -5", 8),
        ("-(2 + 3) * 2", -10),
        ("2 * -3", -6),
        ("[2 + 3] * (1 + 1)", 10),
        ("3x4", 12),
        ("3 \u00d7 4 \u00f7 2 \u2212 1", 5),
        ("12 : 4 \u00b7 2 \u22c5 1", 6),
        ("2.5 * 4", 10),
        ("0.1 + 0.2 - 0.3", 0),
        ("007 + 1", 8),
    ],
)
def test_expressions(text, value):
    assert work_out(text).values == (value,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "breaks off"),
        ("3 +", "breaks off"),
        ("3", "number alone"),
        ("(3)", "number alone"),
        ("3 = 3", "number alone"),
        ("3 4", "'4' where an operator"),
        ("2(3 + 4)", "'(' where an operator"),
        ("(3)(4)", "'(' where an operator"),
        ("3 + * 4", "'*' where a number"),
        ("--3 + 4", "'-' where a number"),
        ("(3 + 4", "no )"),
        ("(3 + 4]", "no )"),
        ("3 + 4)", "')' where an operator"),
        ("()", "')' where a number"),
        ("3 == 3 + 0", "'=' where a number"),
        ("= 3 + 4", "'=' where a number"),
        ("3 + 4 =", "breaks off"),
        ("2 ** 3", "** is not among"),
        ("7 // 2", "// is not among"),
        ("7 / / 2", "'/' where a number"),
        ("7 % 2", "'% 2'"),
        ("2 ^ 3", "'^ 3'"),
        ("3!", "'!'"),
        ("1e3 + 1", "'e3 + 1'"),
        ("0x10 + a", "'a'"),
        ("__import__('os')", "is no number"),
        ("1_000 + 1", "'_000 + 1'"),
        ("1,000 + 1", "',000 + 1'"),
        ("3 / 0", "division by 0"),
        ("3 / (2 - 2)", "division by 0"),
        ("\u0663 + \u0664", "is no number"),
        ("\uff13 + 4", "is no number"),
        ("3\u00b2 + 1", "is no number"),
        ("\u00bd + 1", "is no number"),
        ("3. + 1", "'. + 1'"),
        (".5 + 1", "'.5 + 1'"),
    ],
)
def test_what_is_no_arithmetic(text, said):
    with pytest.raises(NotArithmetic) as refused:
        work_out(text)
    assert said in str(refused.value)
    assert judged(text).value == 0


def test_against_python_on_random_expressions():
    rng = random.Random(0)

    def some(depth: int) -> tuple[str, Fraction]:
        if depth == 0 or rng.random() < 0.2:
            number = rng.randint(0, 20)
            return str(number), Fraction(number)
        (left, a), (right, b) = some(depth - 1), some(depth - 1)
        sign = rng.choice("+-*/")
        made = {"+": a + b, "-": a - b, "*": a * b}.get(sign)
        return f"({left} {sign} {right})", a / b if made is None else made

    tried = 0
    for _ in range(400):
        try:
            text, value = some(4)
        except ZeroDivisionError:
            continue
        if len(text) <= LONGEST and any(sign in text for sign in "+-*/"):
            tried += 1
            assert work_out(text).values == (value,)
    assert tried > 200


# ---- what is judged ----


@pytest.mark.parametrize(
    ("completion", "value", "parts"),
    [
        ("<answer>(8 - 5) * 8</answer>", 1, (1, 1, 1)),
        ("<answer>8 + 8 + 8</answer>", 0, (1, 0, 1)),
        ("<answer>8 + 8 + 5</answer>", 0, (1, 1, 0)),
        ("<answer>2 * 13</answer>", 0, (1, 0, 0)),
        ("<answer>8 +</answer>", 0, (0, 0, 0)),
        ("<answer></answer>", 0, (0, 0, 0)),
        ("", 0, (0, 0, 0)),
    ],
)
def test_parts(completion, value, parts):
    result = judged(completion)
    assert result.value == value
    assert tuple(result.parts[name] for name in ("reads", "numbers", "target")) == parts
    assert bool(result.note) is (value == 0)


def test_notes_and_what_was_read():
    assert judged("<answer>8 + 8 + 8</answer>").note == "8 is used 3 times, is there 2 times"
    assert judged("<answer>5 * 5 - 1</answer>").note == "5 is used 2 times, is there once"
    assert judged("<answer>2 * 12</answer>").note == "2 is not among the numbers"
    assert judged("<answer>8 / 3</answer>").note == "8/3, not 24"
    assert judged("So:\n(8 - 5) * 8 = 24.").parsed == "(8 - 5) * 8 = 24"
    assert judged("<think>8 * 3").note == "no answer"
    assert judged("<answer>8 * 3</answer>", use_all=True).note == "8 is not used"


@pytest.mark.parametrize(
    ("completion", "operators", "note"),
    [
        ("3 * 8", ["+", "-"], "* is not among the operators"),
        ("3 \u00d7 8", ["+", "-"], "* is not among the operators"),
        ("8 / 3 - 5", ["*"], "- is not among the operators; -7/3, not 24"),
        ("8 + 8 + 8", ["*"], "8 is used 3 times, is there 2 times; + is not among the operators"),
        ("-3 + 8 + 8 + 5", ["+"], "- is not among the operators; 18, not 24"),
        ("3 * 8", ["*"], ""),
        ("3 * 8", "*/", ""),
        ("3 * 8 = 24", np.array(["*", "+"]), ""),
        ("3 * 8", None, ""),
    ],
)
def test_operators(completion, operators, note):
    result = judged(completion, operators=operators, partial=0.5)
    assert (result.value, result.note) == (float(not note), note)
    assert result.parts["operators"] == float("operators" not in note)


@pytest.mark.parametrize("operators", [[], ["^"], ["+", None]])
def test_operators_that_make_no_sense_are_the_rows_fault(operators):
    outcome = score_completion(
        Reward.from_callable(score), "3 * 8", {"numbers": [3, 8], "target": 24, "operators": operators}
    )
    assert outcome.value is None
    assert outcome.error.startswith("operators: ")


@pytest.mark.parametrize("completion", ["2 * 3!", "2 * (3)!", "2 * 3 !", "**2 * 3**!", "2 * 3!.", "6 = 2 * 3!"])
def test_a_factorial_is_no_product(completion):
    result = judged(f"<answer>{completion}</answer>", numbers=[2, 3], target=6)
    assert (result.value, result.parts["reads"]) == (0, 0)
    assert "is no number or operator" in result.note or "** is not among" in result.note


def test_all_numbers_where_they_are_asked_for():
    assert judged("8 * 3", use_all=False).value == 1
    assert judged("8 * 3", use_all=True).value == 0
    assert judged("8 + 8 + 5 + 3", use_all=True).value == 1
    assert judged("(8 - 5) * 8", numbers=[8, 5, 8], use_all=True).value == 1
    reward = Reward.from_callable(score, kwargs={"use_all": True})
    row = {"numbers": NUMBERS, "target": 24}
    assert score_completion(reward, "8 * 3", row).value == 0


@pytest.mark.parametrize(
    ("completion", "value"),
    [("8 + 8 + 5", 0.25), ("(8 - 5) * 8", 1), ("8 + 8 + 8", 0), ("2 * 13", 0), ("8 +", 0), ("23", 0), ("", 0)],
)
def test_partial(completion, value):
    assert judged(completion, partial=0.25).value == value


@pytest.mark.parametrize("partial", [-0.1, 1, 1.5, float("nan")])
def test_a_partial_that_makes_no_sense_is_refused(partial):
    with pytest.raises(RewardError, match="from 0 to below 1"):
        score("8 * 3", numbers=NUMBERS, target=24, partial=partial)


@pytest.mark.parametrize(
    ("numbers", "target"),
    [([], 24), ([3, 8.5], 24), ([3, "8"], 24), ([3, None], 24), ([3, 8], 24.5), ([3, 8], "24"), ([3, True], 24),
     ([3, float("nan")], 24), ([3, float("inf")], 24)],
)  # fmt: skip
def test_rows_that_make_no_sense_are_the_rows_fault(numbers, target):
    outcome = score_completion(Reward.from_callable(score), "3 * 8", {"numbers": numbers, "target": target})
    assert outcome.value is None
    assert outcome.error.startswith("numbers: ")


def test_rows_of_other_tasks_and_numbers_of_other_kinds():
    assert score("3 * 8", numbers=None, target=None) is None
    assert judged("3 * 8", numbers=np.array([3, 8]), target=np.int64(24)).value == 1
    assert judged("3 * 8", numbers=[3.0, 8.0], target=24.0).value == 1


@pytest.mark.parametrize(
    "completion",
    [
        "<answer>8 * 3</answer>",
        "<think>no</think>8 * 3",
        "Let me see.\n8 + 3 = 11\nThe final answer is: 8 * 3 = 24.",
        "So, we get 8 * 3.",
        "Answer: `8 * 3`",
        "**8 * 3**",
        "$8 \\times 3 = 24$",
        "\\(8 \\cdot 3\\)",
        "\\[ \\left( 8 - 5 \\right) \\times 8 \\]",
        "\\boxed{8 \\cdot 3 = 24}",
        "24 = 8 * 3 = 3 * 8",
        "8 * 3 = 24.0",
        "<answer>\n8 * 3\n\n</answer>",
        "<answer>1</answer><answer>8 * 3</answer>",
        "<answer>8 * 3",
        "8 * 3\n  \n",
        "8\u00a0*\u202f3\u00a0=\u200924.",
        "The\u00a0answer is\u3000\u00a08 * 3",
    ],
)
def test_forms_that_are_right(completion):
    assert judged(completion).value == 1, judged(completion).note


@pytest.mark.parametrize(
    "completion",
    [
        "8 * 3 = 24\n8 + 3 = 11",  # the last statement counts
        "<answer>8 * 3</answer><answer>8 + 3</answer>",
        "<think>8 * 3</think>",
        "<think>8 * 3 = 24",
        "8 * 3 = 25",
        "8 * 3 = 8 + 3",
        "25 = 8 * 3",
        "It is not 8 * 3",
        "8 * 3 is wrong",
        "8 * 3?",
        "8 * 3, 8 * 3",
        "8 * 3; 5 + 3",
        "8 * 3 or 8 + 3",
        "if 8 * 3",
        "8 * 3 + x",
        "x * 8 * 3",
        "8 ^ 2 + 8 * 3",
        "<answer>8 * 3 (I think)</answer>",
        "eight times three",
        "24",
        "24 = 24",
        "3 8",
        "8*3*10**0",
        "8 * 3 \u2248 24",
    ],
)
def test_what_is_not_paid(completion):
    assert judged(completion).value == 0
    assert judged(completion, partial=0.5).value in (0, 0.5)


# ---- hostile text ----

LONG = 1_000_000


@pytest.mark.parametrize(
    "completion",
    [
        "9" * LONG,
        "9" * LONG + " + 1",
        "1 + " * (LONG // 4) + "1",
        "(" * LONG,
        "(" * LONG + "8 * 3" + ")" * LONG,
        "-" * LONG + "1",
        "8 * 3 = " * (LONG // 8) + "24",
        "so " * (LONG // 3) + "8 * 3",
        "so the answer is " * 80 + "8 * 3 +",
        "\\boxed{" * (LONG // 7),
        "\\left" * (LONG // 5),
        "*" * LONG + "8 * 3" + "*" * LONG,
        "8" + "." * LONG,
        "\n" * LONG + "8",
        " " * LONG,
        "8 *\t" + " " * LONG + "3 +",
        "<answer>" * (LONG // 8),
        "9" * 200 + "*" + "9" * 190,
        "9**9**9**9",
        "9" * 100 + " ** " + "9" * 100,
        "1/" * 150 + "3",
        "\x00" * 1000,
        "\ud800 + 1",
        "[" * 390,
    ],
)
def test_hostile_text_ends(completion):
    started = time.process_time()
    result = judged(completion)
    assert time.process_time() - started < 10
    assert result.value == 0
    assert len(str(result.parsed)) < 2000
    assert len(result.note) < 200


def test_bounds_are_where_they_are_said_to_be():
    deep = "(" * (DEEPEST - 1) + "8 * 3" + ")" * (DEEPEST - 1)
    assert judged(f"({deep})").value == 1
    assert judged(f"(({deep}))").note == f"brackets more than {DEEPEST} deep"
    assert judged("(8" + " " * (LONGEST - 6) + "* 3)").value == 1
    assert "characters, more than" in judged("(8" + " " * (LONGEST - 5) + "* 3)").note


def test_a_score_depends_on_nothing_but_its_arguments():
    first = [judged(text) for text in ("8 * 3", "8 + 8 + 5", "8 +")]
    judged("(" * 30)
    assert [judged(text) for text in ("8 * 3", "8 + 8 + 5", "8 +")] == first
