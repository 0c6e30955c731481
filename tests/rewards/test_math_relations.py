"""Sets of real numbers, equations, families and qualifiers in `math_answer`: what is paid and what is not."""

from __future__ import annotations

import pytest

from posttrain.rewards.math_answer import why_unreadable
from tests.rewards.test_math_lists import flat, value

#: kind: gold, said
RIGHT = {
    "inequalities": [
        (r"(-\infty,2)\cup(3,\infty)", r"x<2 \text{ or } x>3"),
        (r"(-\infty,2)\cup(3,\infty)", r"x<2 or x>3"),
        (r"x<2 \text{ or } x>3", r"(-\infty,2)\cup(3,\infty)"),
        (r"(-\infty,2)\cup(3,\infty)", "x<2, x>3"),
        (r"(-\infty,2)\cup(3,\infty)", r"x<2 \lor x>3"),
        (r"x < 2 \text{ or } x > 3", r"x>3 \text{ or } x<2"),
        ("(2,5)", r"x>2 \text{ and } x<5"),
        ("(2,5)", r"x>2 \land x<5"),
        ("(2,5)", "2<x<5"),
        ("(2,5)", "5>x>2"),
        ("2<x<5", "(2,5)"),
        ("(2,5]", r"2 < x \leq 5"),
        (r"[2,\infty)", r"x\ge 2"),
        (r"[2,\infty)", r"2 \leqslant x"),
        ("[-1,1]", r"|x|\le 1"),
        ("(-1,3)", "|x-1|<2"),
        (r"(-\infty,-1)\cup(3,\infty)", "|x-1|>2"),
        (r"x\ne 2", r"(-\infty,2)\cup(2,\infty)"),
        (r"x\ge\frac12", "x >= 0.5"),
        (r"(\sqrt8,\infty)", r"x>2\sqrt2"),
        (r"(0,2\pi)", r"0<\theta<2\pi"),
        (r"(-\infty,1]\cup\{3\}", r"x\le1 \text{ or } x=3"),
    ],
    "sets": [
        (r"\{x|-2<x<3\}", "(-2,3)"),
        ("(-2,3)", r"\{x|-2<x<3\}"),
        ("(-2,3)", r"\{x \mid -2 < x < 3\}"),
        ("(-2,3)", r"\{x\in\mathbb{R} : -2<x<3\}"),
        ("(-2,3)", r"\{t|-2<t<3\}"),
        (r"\mathbb{R}\setminus\{2\}", r"\mathbb{R}-\{2\}"),
        (r"\mathbb R\setminus\{2\}", r"(-\infty,2)\cup(2,\infty)"),
        (r"\mathbb{R}-\{2\}", r"x\ne 2"),
        (r"\mathbb{R}\setminus\{-1,1\}", r"(-\infty,-1)\cup(-1,1)\cup(1,\infty)"),
        (r"(-\infty,\infty)", r"\mathbb{R}"),
        (r"(0,1)", "]0,1["),
        ("[0,1)", "[0,1["),
        ("(0,1]", "]0,1]"),
        ("(0,1)", r"x\in(0,1)"),
        (r"x\in(0,1)", "0<x<1"),
        (r"\emptyset", r"\varnothing"),
        (r"[1,3]", r"[1,2]\cup[2,3]"),
        (r"(1,2)", r"(0,2)\cap(1,3)"),
        (r"\mathbb{R}\setminus\{0,1\}", r"x\ne0,1"),
    ],
    "equations": [
        ("x+y=5", "y=5-x"),
        ("2x-y+1=0", "y=2x+1"),
        ("3x+4y=12", r"y=3-\frac34x"),
        ("x^2+y^2=25", "x^2=25-y^2"),
        ("x=2y", "y=x/2"),
        ("xy=6", r"y=\frac{6}{x}"),
        ("y=2x+1", "2x-y+1=0"),
        ("y=2x+1", "2y=4x+2"),
        ("y=2x+1", "2x+1"),
        ("2x+3y-6=0", "6-2x-3y=0"),
        (r"\frac{x^2}{4}+\frac{y^2}{9}=1", "9x^2+4y^2=36"),
        ("y=e^x", r"\ln y=x"),
        ("x+y<5", "y<5-x"),
        (r"x-2y\ge 4", r"y\le\frac{x}{2}-2"),
        ("0.5x+y=1", "x+2y=2"),
    ],
    "families": [
        (r"\frac{\pi}{2}+k\pi", r"\frac{\pi}{2}+k\pi, k\in\mathbb{Z}"),
        (r"\frac{\pi}{2}+k\pi, k\in\mathbb{Z}", r"\frac{\pi}{2}+n\pi"),
        (r"\frac{\pi}{2}+k\pi, k\in\mathbb{Z}", r"\frac{(2n+1)\pi}{2}"),
        (r"\frac{\pi}{2}+k\pi", r"-\frac{\pi}{2}+k\pi"),
        (r"k\pi", r"n\pi"),
        (r"k\pi", r"x=n\pi, \text{ where } n \text{ is an integer}"),
        (r"x=2k\pi\pm\frac{\pi}{3}", r"\frac{\pi}{3}+2n\pi, -\frac{\pi}{3}+2n\pi"),
        (r"k\cdot180^\circ", r"180^\circ n"),
        ("2n+1", "2k+1"),
        (r"2n, n\in\mathbb{Z}", r"2m \text{ for any integer } m"),
        (r"3k+1 \quad (k\in\mathbb Z)", r"3n-2, n\in\mathbb{Z}"),
    ],
    "qualifiers": [
        ("f(x)=3x", r"f(x)=3x \text{ for all } x"),
        ("f(x)=3x", r"f(x)=3x \text{ for all real } x"),
        ("f(x)=3x", r"f(x)=3x, x\in\mathbb{R}"),
        ("f(x)=3x", r"f(x)=3x \quad \forall x\in\mathbb{R}"),
        ("f(n)=n+1", "f(x)=x+1"),
        ("f(x)=cx", "f(x)=kx"),
        ("f(x)=cx", r"f(x)=kx \text{ for some constant } k"),
        ("x^2+C", "x^2+c"),
        ("x^2+C", "C+x^2"),
        ("x^2+C", r"x^2+C, \text{ where } C \text{ is a constant}"),
        ("5", r"5 \text{ only}"),
        ("5", r"\text{only } 5"),
    ],
}
WRONG = {
    "inequalities": [
        (r"(-\infty,2)\cup(3,\infty)", r"x<2 \text{ and } x>3"),
        (r"(-\infty,2)\cup(3,\infty)", r"x\le2 \text{ or } x>3"),
        (r"(-\infty,2)\cup(3,\infty)", "x<2"),
        (r"(-\infty,2)\cup(3,\infty)", "2<x<3"),
        (r"x<2 \text{ or } x>3", r"x<2 \text{ or } x>4"),
        (r"x<2 \text{ or } x>3", r"y<2 \text{ or } y>3"),
        ("(2,5)", r"x>2 \text{ or } x<5"),
        ("(2,5)", r"x\ge2 \text{ and } x<5"),
        ("(2,5)", "2<x<6"),
        ("(2,5)", r"2\le x<5"),
        ("[2,5]", "x=2, x=5"),
        (r"[2,\infty)", "x>2"),
        (r"[2,\infty)", r"x\le 2"),
        ("[-1,1]", "|x|<1"),
        ("[-1,1]", r"|x|\ge 1"),
        ("(-1,3)", "|x+1|<2"),
        ("x<2", "y<2"),
        (r"(-\infty,-2)\cup(2,\infty)", "x^2>4"),
        (r"x\ne 2", "x=2"),
    ],
    "sets": [
        (r"\{x|-2<x<3\}", r"\{x|-2\le x<3\}"),
        (r"\{x|-2<x<3\}", r"\{-2,3\}"),
        (r"\mathbb{R}\setminus\{2\}", r"\mathbb{R}"),
        (r"\mathbb{R}\setminus\{2\}", r"\mathbb{R}\setminus\{3\}"),
        (r"\mathbb{R}\setminus\{2\}", r"\{2\}"),
        ("(0,1)", "]0,1]"),
        ("]0,1[", "[0,1]"),
        (r"\emptyset", "0"),
        (r"\emptyset", r"\{0\}"),
        (r"[1,3]", r"[1,2)\cup(2,3]"),
    ],
    "equations": [
        ("x+y=5", "y=5+x"),
        ("x+y=5", "y=x-5"),
        ("x+y=5", "a+b=5"),
        ("x+y=5", "5"),
        ("2x-y+1=0", "y=2x-1"),
        ("3x+4y=12", r"y=3+\frac34x"),
        ("x^2+y^2=25", "x^2+y^2=5"),
        ("x^2+y^2=25", r"y=\sqrt{25-x^2}"),
        ("xy=6", "y=6x"),
        ("y=x", "y^2=x^2"),
        ("y=2x+1", "x=2y+1"),
        ("y=2x+1", "z=2x+1"),
        (r"\frac{x^2}{4}+\frac{y^2}{9}=1", r"\frac{x^2}{9}+\frac{y^2}{4}=1"),
        ("x+y<5", "y>5-x"),
        ("x+y<5", r"y\le5-x"),
        ("x^2+1=0", "x^2+2=0"),
    ],
    "families": [
        (r"\frac{\pi}{2}+k\pi", r"\frac{\pi}{3}+k\pi"),
        (r"\frac{\pi}{2}+k\pi", r"\frac{\pi}{2}+2k\pi"),
        (r"\frac{\pi}{2}+k\pi", r"\frac{\pi}{2}"),
        (r"k\pi", r"x\pi"),
        (r"k\pi", r"2k\pi"),
        (r"x=2k\pi\pm\frac{\pi}{3}", r"\frac{\pi}{3}+2n\pi"),
        ("2n+1", "2k-1"),
        ("2n+1", "2x+1"),
        ("2n+1", "3k+1"),
        ("n^2", "k^2"),
        ("n+1", "k+1"),
        ("n", "k"),
    ],
    "qualifiers": [
        ("f(x)=3x", r"f(x)=4x \text{ for all } x"),
        ("f(x)=3x", "g(x)=3x"),
        ("f(n)=n+1", "f(x)=n+1"),
        ("f(x)=x+a", "f(x)=x+b"),
        ("f(x)=cx", "f(x)=kx^2"),
        ("f(x)=cx", "f(x)=x"),
        ("x^2+C", "x^2"),
        ("x^2+C", "x^2+x"),
        ("x^2+C", "2x^2+C"),
        ("5", r"6 \text{ only}"),
        ("5", r"\text{not only } 5"),
        ("x<2", r"x<2, x\in\mathbb{Z}"),
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
