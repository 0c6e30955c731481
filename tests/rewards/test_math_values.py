"""Formulas and their values in `math_answer`: exactness, positive letters, degrees."""

from __future__ import annotations

import pytest

from posttrain.rewards.math_answer import why_unreadable
from posttrain.rewards.math_judge import verified
from tests.rewards.test_math_lists import flat, value

#: kind: gold, said
RIGHT = {
    "powers and indices of functions": [
        (r"\sin^2(x)", r"\sin^2(x)"),
        (r"\sin^2 x", r"\sin^2(x)"),
        (r"\cos^2(x)", r"1-\sin^2 x"),
        (r"\tan^{2}(\theta)", r"\tan^2\theta"),
        (r"\ln^2(x)", r"(\ln x)^2"),
        (r"\log_2(x+1)", r"\log_{2}(x+1)"),
        (r"\log_2 3", r"\log_2{3}"),
        (r"\log_2 3", r"\log_{2} 3"),
        (r"\log_2 3", r"\frac{\ln 3}{\ln 2}"),
        (r"\frac 1 2\pi", r"\frac{\pi}{2}"),
        (r"\frac 3 4 x", r"0.75x"),
        (r"\frac53", r"1 \tfrac 2 3"),
        (r"2^3x", "8x"),
        (r"x^2(x+1)", "x^3+x^2"),
    ],
    "exactness": [
        (r"1.6\times10^{-19}", r"1.60 \cdot 10^{-19}"),
        (r"1.6\times10^{-19}", r"0.16\times10^{-18}"),
        ("1.6e-19", r"1.6\times 10^{-19}"),
        (r"\frac{1}{2^{99}}", "2^{-99}"),
        (r"1-\frac{1}{2^{99}}", r"\frac{2^{99}-1}{2^{99}}"),
        (r"\frac{1}{20!}", r"\frac{21}{21!}"),
        (r"\frac{1}{1+\sqrt2}", r"\sqrt2-1"),
        (r"\sqrt2", "1.414214"),
        (r"\frac{1}{30}", "0.0333333"),
    ],
    "positive letters": [
        (r"\sqrt{\frac{a}{b}}", r"\frac{\sqrt a}{\sqrt b}"),
        (r"\sqrt{ab}", r"\sqrt a\sqrt b"),
        (r"\ln(ab)", r"\ln a+\ln b"),
        (r"\sqrt[3]{a^2}", "a^{2/3}"),
        (r"\sqrt[3]{x^3}", "x"),
        (r"x\sqrt{y}\cdot\sqrt{y}", "xy"),
        ("x^{a+b}", "x^a x^b"),
        (r"(-1)^{2n}x", "x"),
        (r"\frac{x^2-1}{x-1}", "x+1"),
    ],
    "degrees": [
        (r"\sin 18^\circ", r"\frac{\sqrt5-1}{4}"),
        (r"\sin 18^\circ", r"\sin(18^{\circ})"),
        (r"\sin 18^\circ", "\\sin 18\u00b0"),
        (r"\cos 20^\circ\cos 40^\circ", r"\cos(40^\circ)\cos(20^\circ)"),
        (r"180^\circ-\alpha", r"180^\circ-\alpha"),
        (r"\frac{\pi}{6}", r"30^\circ"),
        (r"30^\circ", r"\frac{\pi}{6}"),
        (r"30^\circ, 60^\circ", "30, 60"),
        ("30, 60", r"30^\circ, 60^\circ"),
        (r"x=30^\circ", "30"),
        (r"2\sin 15^\circ", r"\frac{\sqrt6-\sqrt2}{2}"),
    ],
    "d and binomials": [
        (r"\frac{d}{t}", "d/t"),
        (r"\frac{d^2}{4}", r"\left(\frac d2\right)^2"),
        (r"\frac{d-c}{2}", r"\frac12(d-c)"),
        ("cdx", "xcd"),
        (r"\binom{n+1}{2}", r"\frac{n(n+1)}{2}"),
        (r"\binom{2n}{n}", r"\frac{(2n)!}{(n!)^2}"),
        (r"\binom{10}{3}", r"\binom{10}{7}"),
    ],
    "constants": [
        (r"3+4i", r"3+4\mathrm{i}"),
        (r"e^2", r"\mathrm{e}^2"),
        (r"\frac{1+i}{\sqrt2}", r"e^{i\pi/4}"),
        (r"33\frac13\%", r"33\frac{1}{3}\%"),
        (r"\frac13", r"33\frac13\%"),
        (r"\pi(R^2-r^2)", r"\pi(R-r)(R+r)"),
    ],
}
WRONG = {
    "powers and indices of functions": [
        (r"\sin^2(x)", r"\sin(x^2)"),
        (r"\sin^2(x)", r"2\sin(x)"),
        (r"\ln^2(x)", r"\ln(x^2)"),
        (r"\log_2(x+1)", "2(x+1)"),
        (r"\log_2(x+1)", r"\log_3(x+1)"),
        (r"\log_2 3", r"\log_3 2"),
        (r"\log_2 3", r"\log_{23}"),
        (r"\frac 1 2\pi", r"\frac{1}{2\pi}"),
        (r"\frac53", r"1 \tfrac 1 3"),
        (r"x^2(x+1)", "2x(x+1)"),
    ],
    "exactness": [
        ("1.6e-19", "9.1e-31"),
        (r"1.6\times10^{-19}", r"9.1\times10^{-31}"),
        (r"1.6\times10^{-19}", r"1.6\times10^{-20}"),
        (r"1.6\times10^{-19}", r"1.7\times10^{-19}"),
        (r"1.6022\times10^{-19}", r"1.6021\times10^{-19}"),
        (r"1.6\times10^{-19}", "0"),
        (r"4.5\times10^{-33}", r"4.7\times10^{-33}"),
        (r"6.02\times10^{23}", r"6.03\times10^{23}"),
        (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"),
        (r"\frac{1}{2^{99}}", "0"),
        (r"\frac{1}{20!}", r"\frac{1}{21!}"),
        (r"1-\frac{1}{2^{99}}", r"1-\frac{1}{2^{98}}"),
        (r"1-\frac{1}{2^{99}}", "1"),
        (r"1-\frac{1}{2^{999}}", r"1-\frac{1}{2^{998}}"),
        (r"\sqrt2+10^{-40}", r"\sqrt2"),
        ("2^{1000}", "2^{1000}+1"),
        (r"\sqrt2", "1.41421"),
        (r"\frac{x}{2^{99}}", r"\frac{x}{2^{98}}"),
        (r"1.6\times10^{-19}x", r"9.1\times10^{-31}x"),
    ],
    "positive letters": [
        ("|x|", "x"),
        ("x", r"\sqrt{x^2}"),
        (r"\sqrt{x^2}", "x"),
        ("|x-10|", "10-x"),
        (r"\sqrt{(x-10)^2}", "10-x"),
        (r"\ln|x|", r"\ln x"),
        (r"\sqrt{a+b}", r"\sqrt a+\sqrt b"),
        (r"\ln(a+b)", r"\ln(ab)"),
        (r"\sqrt[3]{a^2}", r"\sqrt{a^3}"),
        (r"\sqrt{\frac{a}{b}}", r"\sqrt{\frac{b}{a}}"),
        (r"(-1)^{n}x", "x"),
        (r"\lfloor x\rfloor", "x"),
    ],
    "degrees": [
        (r"\sin 18^\circ", r"\sin 18"),
        (r"\sin 18", r"\sin 18^\circ"),
        (r"\sin 18^\circ", r"\cos 18^\circ"),
        (r"180^\circ-\alpha", r"90^\circ-\alpha"),
        (r"180^\circ-\alpha", r"180^\circ"),
        (r"\frac{\pi}{6}", r"60^\circ"),
        (r"\frac{\pi}{6}", "30"),
        (r"30^\circ, 60^\circ", "30, 61"),
    ],
    "d and binomials": [
        (r"\frac{d}{t}", r"\frac{t}{d}"),
        (r"\frac{d^2}{4}", r"\frac{d}{4}"),
        (r"\binom{n+1}{2}", r"\frac{n(n-1)}{2}"),
        (r"\binom{2n}{n}", r"\binom{2n}{2}"),
        ("120", r"\binom{10}{3}"),
    ],
    "constants": [
        (r"3+4i", r"3-4\mathrm{i}"),
        (r"e^2", r"\mathrm{e}^3"),
        (r"33\frac13\%", r"33\%"),
        (r"\pi(R^2-r^2)", "0"),
        ("R-r", "r-R"),
        ("y'", "y"),
    ],
}


@pytest.mark.parametrize(("gold", "said"), flat(RIGHT))
def test_what_is_the_same(gold: str, said: str) -> None:
    assert value(gold, said) == 1


@pytest.mark.parametrize(("gold", "said"), flat(WRONG))
def test_what_is_not(gold: str, said: str) -> None:
    assert value(gold, said) == 0


@pytest.mark.parametrize("gold", sorted({case[0] for some in [*RIGHT.values(), *WRONG.values()] for case in some}))
def test_gold_answers_are_readable_and_say_themselves(gold: str) -> None:
    assert why_unreadable(gold) is None
    assert value(gold, gold) == 1


@pytest.mark.parametrize(("gold", "said"), [("1", "(-1)^{2n}"), (r"\binom{10}{3}", "120"), ("8", "2^3")])
def test_values_without_regard_to_what_an_answer_may_be(gold: str, said: str) -> None:
    assert verified(gold, said)
