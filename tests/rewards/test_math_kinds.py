"""More kinds of answers in `math_answer`: what is paid and what is not."""

from __future__ import annotations

import time

import pytest

from posttrain.rewards import math_judge
from posttrain.rewards.math_answer import score, why_unreadable
from tests.rewards.math_kinds import MORE_OTHER, MORE_SAME, OFFERED, OTHER, SAME, SENTENCES
from tests.rewards.math_text_cases import pairs
from tests.rewards.test_math_answer import HOSTILE_CPU_S
from tests.rewards.test_math_lists import value


def with_cases(table: dict[str, str]) -> list[tuple[str, str, str]]:
    return pairs(
        {kind: lines.replace("[[", r"\begin{cases} ").replace("]]", r" \end{cases}") for kind, lines in table.items()}
    )


EQUAL = with_cases({**SAME, **MORE_SAME, "sentences": SENTENCES["same"]})
UNEQUAL = with_cases({**OTHER, **MORE_OTHER, "sentences": SENTENCES["other"]})


@pytest.mark.parametrize(("kind", "gold", "said"), EQUAL)
def test_both_say_the_same(kind: str, gold: str, said: str) -> None:
    assert value(gold, said) == 1


@pytest.mark.parametrize(("kind", "gold", "said"), UNEQUAL)
def test_it_only_looks_the_same(kind: str, gold: str, said: str) -> None:
    result = score(f"\\boxed{{{said}}}", answer=gold)
    assert result is None or result.value == 0


@pytest.mark.parametrize("gold", sorted({gold for _, gold, _ in EQUAL + UNEQUAL}))
def test_a_gold_answer_says_itself(gold: str) -> None:
    assert value(gold, gold) == 1, why_unreadable(gold)


@pytest.mark.parametrize("line", OFFERED.strip().splitlines())
def test_what_is_offered_beside_an_answer(line: str) -> None:
    completion, gold, expected = line.strip().rsplit(" | ", 2)
    result = score(completion, answer=gold)
    assert result is not None
    assert result.value == int(expected)


HOSTILE = {
    "cases in cases": r"\begin{cases}" * 8_000,
    "many cases": r"\begin{cases}" + r"x & x>0 \\" * 40 + r"\end{cases}",
    "columns": r"\begin{cases}" + "&" * 100_000 + r"\end{cases}",
    "a tower in cases": r"\begin{cases} 9^{9^9} & x>0 \\ 0 & x\le0 \end{cases}",
    "cases far out": r"\begin{cases} x & x>10^{300} \\ -x & \text{otherwise} \end{cases}",
    "a big modulus": r"\begin{cases} 1 & n \equiv 0 \pmod{999999} \\ 0 & \text{otherwise} \end{cases}",
    "residues": "1," * 50_000 + r"1 \pmod 7",
    "builders": r"\{k\in " * 20_000,
    "arrows": r"\vec" * 30_000,
    "hats": r"\hat{" * 20_000,
    "bold letters": r"\mathbf{" * 15_000,
    "chain": "a<" * 50_000,
    "sets": r"\max\{" * 20_000,
    "codes": r"\text{Rs" * 15_000,
    "cents": "¢" * 100_000,
    "a sentence": "He has " + "a" * 100_000 + "! 7",
    "a short sentence": "He has " + "a" * 180 + "! 7",
    "formulas": "the answer is $3$" + " / $3$" * 20_000,
    "brackets": "the answer is " + "$3$ (" * 20_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_of_these_kinds_end(name: str) -> None:
    math_judge.load()
    for gold in ("|x|", r"x \equiv 3 \pmod 7", r"\vec{a}"):
        start = time.process_time()
        for completion in (f"\\boxed{{{HOSTILE[name]}}}", HOSTILE[name]):
            result = score(completion, answer=gold)
            assert result is None or result.value == 0
        score(f"\\boxed{{{gold}}}", answer=HOSTILE[name])
        assert time.process_time() - start < HOSTILE_CPU_S
