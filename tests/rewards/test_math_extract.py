r"""Where an answer stands: titles, phrases, sentences after the mark, and several answers beside each other."""

from __future__ import annotations

import time

import pytest

from posttrain.rewards.math_answer import score
from posttrain.rewards.math_extract import final_answer, last_boxed
from posttrain.rewards.math_several import belong_together
from posttrain.scoring.score import Score


def value(completion: str, answer: str) -> float:
    result = score(completion, answer=answer)
    assert isinstance(result, Score)
    return result.value


HASHES = [
    ("#### Step 2: add\nSo the answer is 23.", "23", 1),
    ("#### Answer: 23", "23", 1),
    ("#### The answer is 23.", "23", 1),
    ("#### Final Answer\n23", "23", 1),
    ("#### Final Answer\n\n$23$", "23", 1),
    ("#### 23\n\n#### Explanation\nWe add 20 and 3.", "23", 1),
    ("#### 1. Add\n20 + 3\n#### 2. Check\nThe answer is 23", "23", 1),
    ("#### $23$", r"23\text{ cm}", 1),
    ("#### $C$", "C", 1),
    ("#### no solution", "no solution", 1),
    ("#### 23\nI hope this helps.", "23", 1),
    ("#### 23 apples", "23", 1),
    ("#### 23\n#### 24", "24", 0),
    ("#### 23\n#### 23", "23", 1),
    ("#### 22\n\n#### 23", "23", 1),
    ("#### 23\n\n#### 22", "23", 0),
    ("#### 22\n#### 23", "22, 23", 1),
    ("#### 23\nNo, I forgot one.\n#### 24", "24", 1),
    ("#### Step 23: done", "23", 0),
    ("#### Conclusion\nnothing", "23", 0),
]

PHRASES = [
    ("### Final Answer\n23", "23", 1),
    ("## Answer\n\n23", "23", 1),
    ("**Final Answer**\n\n$23$", "23", 1),
    ("Ans: 23", "23", 1),
    ("Ans. 23", "23", 1),
    ("The answer would be 23.", "23", 1),
    ("The answer is therefore 23.", "23", 1),
    ("The answer (in cm) is 23", "23", 1),
    ("The answer comes out to 23.", "23", 1),
    ("The answer is **23** apples.", "23", 1),
    ("Final Answer: The least such $k$ is 23.", "23", 1),
    ("Final Answer: There are $23$ ways.", "23", 1),
    (r"The answer is $\$23$.", "23", 1),
    ("The answer is $23$ cm.", "23", 1),
    ("The answer is $23$ cm.", r"23\text{ m}", 0),
    ("The answer is $23$ and it is prime.", "23", 1),
    ("The answer is:\n$$\nx=23\n$$", "23", 1),
    ("The answer is Mrs. Hill.", "Mrs. Hill", 1),
    ("The answer is 4:30 p.m.", "4:30 p.m.", 1),
    ("The correct answer is (B).", "B", 1),
    ("<answer>The total is 23.</answer>", "23", 1),
    ("<thinking>The answer is 7.</thinking>The answer is 23.", "23", 1),
    ("The answer might be 23", "23", 0),
    ("The answer is not 23", "23", 0),
    ("The answer is not that the sum is 23", "23", 0),
    ("Final answer: if $n$ is 5, it is 23.", "23", 0),
    ("The answer is at least 23", "23", 0),
]

SEVERAL = [
    # completion, gold that is one of them, gold that is all of them, paid for one, paid for all
    (r"\boxed{3} and \boxed{8}", "8", "3, 8", 0, 1),
    (r"\boxed{3} or \boxed{8}", "8", "3, 8", 0, 1),
    (r"\boxed{3}, \boxed{8}", "8", "3, 8", 0, 1),
    (r"$\boxed{3}$ and $\boxed{8}$.", "8", "3, 8", 0, 1),
    (r"It is \boxed{3}, or maybe \boxed{8}.", "8", "3, 8", 0, 1),
    (r"It is \boxed{3}. Alternatively, it could be \boxed{8}.", "8", "3, 8", 0, 1),
    (r"x = \boxed{3}, y = \boxed{8}", "8", "x=3, y=8", 0, 1),
    (r"(a) \boxed{3} (b) \boxed{8}", "8", "3, 8", 0, 1),
    (r"\boxed{A} or \boxed{B}", "B", "A, B", 0, 1),
    (r"\boxed{8} \boxed{8}", "8", "3, 8", 1, 0),
    (r"\boxed{8}, that is, 8. So \boxed{8}", "8", "3, 8", 1, 0),
    (r"\boxed{3}. No, wait: \boxed{8}", "8", "3, 8", 1, 0),
    (r"First \boxed{3} of them are red. With the five blue ones there are \boxed{8}.", "8", "3, 8", 1, 0),
    (r"There are \boxed{3}." + "\n\n" + r"The answer is \boxed{8}.", "8", "3, 8", 1, 0),
    (r"x = \boxed{3}, so the answer is \boxed{8}", "8", "3, 8", 1, 0),
    ("The answer is $3$ or $8$.", "8", "3, 8", 0, 1),
    ("The answer is $3$ or $8$.", "3", "3, 8", 0, 1),
    ("The answers are $3$ and $8$.", "3", "3, 8", 0, 1),
    ("Final answer: $3$, $8$", "3", "3, 8", 0, 1),
    ("The answer is $3$ or 8.", "3", "3, 8", 0, 1),
    ("The answer is 3 or 8", "3", "3, 8", 0, 1),
    ("The answer is $3$. Or maybe $8$.", "3", "7, 9", 0, 0),
    ("The answer is 3. It could also be 8.", "3", "7, 9", 0, 0),
    ("The answer is 3. The answer is 8.", "8", "3, 8", 0, 1),
    ("The answer is 3. No, the answer is 8.", "8", "3, 8", 1, 0),
    ("Answer: 3\nFinal answer: 8", "8", "3, 8", 1, 0),
]


@pytest.mark.parametrize(("completion", "gold", "expected"), HASHES + PHRASES)
def test_what_is_marked(completion: str, gold: str, expected: int) -> None:
    assert value(completion, gold) == expected


@pytest.mark.parametrize(("completion", "one", "every", "paid_for_one", "paid_for_all"), SEVERAL)
def test_several_answers(completion: str, one: str, every: str, paid_for_one: int, paid_for_all: int) -> None:
    assert value(completion, one) == paid_for_one
    assert value(completion, every) == paid_for_all


@pytest.mark.parametrize("gap", [" and ", ", ", " or ", "$ and $", r"\text{ or }", r",\quad y = ", " or perhaps ", ""])
def test_words_that_join_two_answers(gap: str) -> None:
    assert belong_together(gap)


@pytest.mark.parametrize("gap", [" then ", ". Wait, ", " so we get ", ", which gives the total ", " and " + "x " * 90])
def test_words_after_which_an_answer_stands_alone(gap: str) -> None:
    assert not belong_together(gap)


def test_boxes_with_names_keep_them() -> None:
    assert last_boxed(r"$x = \boxed{3}$ and $y = \boxed{8}$") == "x = 3, y = 8"
    assert last_boxed(r"\boxed{x = \boxed{8}}") == "8"
    assert final_answer(r"Put it in \boxed{}. It is \boxed{8}.") == ("8", "boxed")


@pytest.mark.parametrize(
    "text",
    [
        "the answer is $1$ or " * 900,
        "answer: " + "a " * 9_000,
        "the answer is " + "$1$, " * 3_000,
        "#### a\n" * 3_000,
        "answer (" * 2_500,
        "answer for " * 1_800 + "is",
        "# answer\n" * 2_000,
        "\\boxed{1} or " * 2_000 + "\\boxed{2}",
        "the answer is " + "x is " * 3_000 + "5",
        "the answer is " + "$" * 9_000,
        "the answer is " + "$a" * 9_000,
        "the answer is \\(" * 1_300,
        "**" * 9_000,
    ],
    ids=lambda text: repr(text[:16]),
)
def test_hostile_completions_end(text: str) -> None:
    start = time.process_time()
    assert value(text, "72") == 0
    assert time.process_time() - start < 10
