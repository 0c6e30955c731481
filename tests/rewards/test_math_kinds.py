"""More kinds of answers in `math_answer`: what is paid and what is not."""

from __future__ import annotations

import pytest

from posttrain.rewards.math_answer import score, why_unreadable
from tests.rewards.math_kinds import MORE_OTHER, MORE_SAME, OFFERED, OTHER, SAME, SENTENCES
from tests.rewards.math_text_cases import pairs
from tests.rewards.test_math_lists import value


def with_cases(table: dict[str, str]) -> list[tuple[str, str, str]]:
    return pairs(
        {kind: lines.replace("[[", r"\begin{cases} ").replace("]]", r" \end{cases}") for kind, lines in table.items()}
    )


EQUAL = with_cases({**SAME, **MORE_SAME, "sentences": SENTENCES["same"]})
UNEQUAL = with_cases({**OTHER, **MORE_OTHER, "sentences": SENTENCES["other"]})


@pytest.mark.parametrize(("kind", "gold", "said"), EQUAL)
def test_both_say_the_same(kind: str, gold: str, said: str) -> None:
    assert value(said, gold) == 1


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
