from __future__ import annotations

import itertools
import time

import pytest

from posttrain.rewards import math_judge
from posttrain.rewards.math_answer import score, why_unreadable
from posttrain.rewards.math_compare import _same_plain
from posttrain.rewards.math_extract import gold_answer
from posttrain.rewards.math_judge import verified
from posttrain.rewards.math_text import cleaned
from posttrain.rewards.math_units import ratio, split_unit, unit_name
from posttrain.scoring.score import Score
from tests.rewards.math_text_cases import OTHER, SAME, SPOKEN, UNREADABLE, pairs


def value(completion: str, answer: str) -> float:
    result = score(completion, answer=answer)
    assert isinstance(result, Score), why_unreadable(answer)
    return result.value


@pytest.mark.parametrize(("kind", "gold", "said"), pairs(SAME))
def test_the_same_answer_in_other_clothes(kind: str, gold: str, said: str) -> None:
    assert value(f"So it is \\boxed{{{said}}}.", gold) == 1


@pytest.mark.parametrize(("kind", "gold", "said"), pairs(OTHER))
def test_another_answer_in_the_same_clothes(kind: str, gold: str, said: str) -> None:
    assert value(f"So it is \\boxed{{{said}}}.", gold) == 0


@pytest.mark.parametrize("gold", sorted({gold for _, gold, _ in pairs(SAME) + pairs(OTHER)}))
def test_every_gold_answer_says_itself(gold: str) -> None:
    assert why_unreadable(gold) is None
    assert value(f"\\boxed{{{gold}}}", gold) == 1
    assert value(f"#### {gold}", gold) == 1


@pytest.mark.parametrize(("gold", "says"), SPOKEN)
def test_the_value_of_a_sentence(gold: str, says: str) -> None:
    assert why_unreadable(gold) is None
    assert value(f"\\boxed{{{says}}}", gold) == 1
    assert value(f"\\boxed{{{gold}}}", gold) == 1
    assert value("\\boxed{99}", gold) == 0


@pytest.mark.parametrize(("kind", "gold"), [(kind, gold) for kind, golds in UNREADABLE.items() for gold in golds])
def test_what_a_gold_answer_is_when_it_cannot_be_read(kind: str, gold: str | None) -> None:
    assert (why_unreadable(gold) or "").startswith(f"{kind}: ")
    assert score("\\boxed{5}", answer=gold) is None


@pytest.mark.parametrize("gold", ["no solution", "yes", r"\text{neither of them}", "x", "x=2 or x=3", "12 red apples"])
def test_words_that_are_an_answer(gold: str) -> None:
    assert why_unreadable(gold) is None
    assert value(f"\\boxed{{{gold}}}", gold) == 1


FORMS = [
    *(
        "3",
        "-3",
        "2.5",
        r"$3$",
        r"\$3",
        "€3",
        "3 cm",
        r"3\text{ cm}",
        "3 m",
        "3m",
        r"2\frac{1}{2}",
        r"-2\frac12",
        "2 1/2",
    ),
    *(
        r"0.\overline{3}",
        r"\frac13",
        "1/3",
        "0.333333",
        "3rd",
        "**3**",
        r"\boldsymbol{3}",
        "about 3",
        "(B) 3",
        "C. 2.5",
    ),
    *(r"\text{3 hours}", "180 minutes", "3%", "3:00", "3_8", "1,000", r"1,\!000", "1 000", "1e3"),
]


def test_the_fast_path_never_disagrees_with_the_slow_one() -> None:
    decided = 0
    for gold, said in itertools.product(FORMS, repeat=2):
        fast = _same_plain(gold, said)
        ours, theirs = cleaned(gold), cleaned(said)
        if fast is None or ours.choice or theirs.choice or ours.as_unit or theirs.as_unit:
            continue
        decided += 1
        assert fast == verified(ours.math, theirs.math), (gold, said)
    assert decided > 300


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("cm", "cm"),
        ("centimeters", "cm"),
        ("square centimetres", "cm^2"),
        ("cm^2", "cm^2"),
        ("cm2", "cm^2"),
        ("meters squared", "m^2"),
        ("m/s^2", "m second^-2"),
        ("miles per hour", "hour^-1 mile"),
        ("mph", "hour^-1 mile"),
        ("N", "newton"),
        ("n", None),
        ("apples", None),
        ("cm of rope", None),
    ],
)
def test_units_have_one_spelling(words: str, name: str | None) -> None:
    assert unit_name(words) == name


def test_units_of_one_measure_have_a_ratio() -> None:
    assert ratio("hour", "minute") == 60
    assert ratio("m^2", "cm^2") == 10_000
    assert ratio("cm", "cm^2") is None
    assert ratio("hour", "m") is None


@pytest.mark.parametrize(
    "text", ["12", "12x", "12abc", "12xcm", "x^2", "2^{10}", "12 squared", "12 or", "x cm y", "5M"]
)
def test_what_has_no_unit(text: str) -> None:
    assert split_unit(text) is None


HOSTILE = {
    "dollars": "$" * 1900,
    "dollars and digits": "$1" * 900,
    "groups": r"\text{" * 300,
    "styles": r"\boldsymbol{" * 150 + "5" + "}" * 150,
    "unit words": "5 " + "m " * 900,
    "unit powers": "5 " + "cm^2/" * 350,
    "commas": "5 cm," * 350,
    "letters": "A, " * 600,
    "choices": "(A) " * 450,
    "repeating": "0." + "3" * 1800 + "...",
    "roots": "sqrt(" * 350,
    "words": "is is " * 300 + "5",
    "degrees": r"5^\circ" * 200,
    "spaces": "5" + r"\ " * 900 + "6",
    "stars": "*" * 1900,
    "quantities": "5 h " * 400,
    "foreign": "元" * 1900,
    "superscripts": "x" + "²" * 1800,
    "quotients": r"5\frac{\text{m}}{" * 100,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_are_read_in_no_time(name: str) -> None:
    math_judge.load()
    for text in (HOSTILE[name], HOSTILE[name] + "\x00", "x" + HOSTILE[name]):
        start = time.process_time()
        cleaned(text)
        gold_answer(text)
        assert time.process_time() - start < 5
        assert value(f"\\boxed{{{text}}}", "72") == 0
