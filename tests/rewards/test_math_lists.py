"""Named values, lists, sets, points, vectors, plus-minus and dots in `math_answer`: what is paid and what is not."""

from __future__ import annotations

import time

import pytest

from posttrain.rewards.math_answer import score, why_unreadable

HOSTILE_CPU_S = 10.0  # of computing; the reward's own limit is 2, and a busy machine's seconds are long

#: kind: gold, said
RIGHT = {
    "named values": [
        ("(2,-1)", "x=2, y=-1"),
        ("(2,-1)", r"x=2 \text{ and } y=-1"),
        ("(2,-1)", "y=-1, x=2"),
        ("(2,-1)", r"\begin{cases}x=2\\y=-1\end{cases}"),
        ("(2,-1)", r"\left\{\begin{array}{l}x=2\\y=-1\end{array}\right."),
        ("(2,-1)", r"\begin{aligned}x&=2\\y&=-1\end{aligned}"),
        ("(2,-1)", "(x,y)=(2,-1)"),
        ("3,4", "p=3, q=4"),
        ("3, 4", "p=3,q=4"),
        ("2,3", "x_1=2, x_2=3"),
        ("2,3", "x_1 = 3, x_2 = 2"),
        ("2,3", "x=2; x=3"),
        ("2,3", "x=2, 3"),
        ("x=2, y=-1", "(2,-1)"),
        ("x=2, y=-1", "2, -1"),
        ("x=2, y=-1", "y=-1, x=2"),
        ("(x,y)=(2,-1)", "x=2,y=-1"),
        ("(1,2),(2,1)", r"x=1, y=2 \text{ or } x=2, y=1"),
        ("(x,y)=(1,2),(2,1)", "(2,1),(1,2)"),
        ("a=1, b=-3, c=2", "(1,-3,2)"),
        ("(2,2)", "x=y=2"),
        ("6, 14", r"6\text{ hens and }14\text{ rabbits}"),
        ("6, 14", r"6 \text{ hens}, 14 \text{ rabbits}"),
        (r"6\text{ hens and }14\text{ rabbits}", r"14\text{ rabbits and }6\text{ hens}"),
        ("4, 9", r"\text{boys: }4, \text{ girls: }9"),
        ("(3,5)", r"x=3,\ y=5"),
        ("(3,5)", r"\text{x = 3, y = 5}"),
        (r"\left(\frac12, 3\right)", r"x = 0.5, y = \sqrt{9}".replace(r"\sqrt{9}", "3")),
        (r"\begin{pmatrix}2\\-1\end{pmatrix}", "x=2, y=-1"),
    ],
    "points, sets and vectors": [
        ("(1,4),(4,1)", r"\{(1,4),(4,1)\}"),
        ("(1,4),(4,1)", "(4,1), (1,4)"),
        (r"\{(1,4),(4,1)\}", r"(1,4) \text{ and } (4,1)"),
        (r"\langle 1,2\rangle", "(1,2)"),
        ("(1,2)", r"\left\langle 1, 2 \right\rangle"),
        ("(1,2,3)", r"\begin{pmatrix}1\\2\\3\end{pmatrix}"),
        (r"\begin{bmatrix}1\\2\end{bmatrix}", "(1,2)"),
        (r"\begin{pmatrix}\frac12\\2\end{pmatrix}", r"\begin{pmatrix}0.5\\2\end{pmatrix}"),
        (r"\{1,2,3\}", "3, 2, 1"),
        (r"S=\{1,2\}", r"\{2,1\}"),
        (r"x\in\{1,2\}", "1,2"),
        ("P=(1,2)", "(1,2)"),
        ("(1,1,2)", "(1,1,2)"),
        (r"[0,1),[2,3]", "[2,3],[0,1)"),
    ],
    "plus-minus": [
        (r"\frac{3\pm\sqrt5}{2}", r"\frac{3\pm\sqrt5}{2}"),
        (r"\frac{3+\sqrt5}{2}, \frac{3-\sqrt5}{2}", r"\frac{3\pm\sqrt5}{2}"),
        (r"\frac{3\pm\sqrt5}{2}", r"\frac{3-\sqrt5}{2}, \frac{3+\sqrt5}{2}"),
        (r"\frac{3\pm\sqrt5}{2}", r"x = \frac{3\pm\sqrt{5}}{2}"),
        (r"\frac{3\pm\sqrt5}{2}", r"1.5 \pm \frac{\sqrt5}{2}"),
        (r"(1,0),(-1,0)", r"(\pm1,0)"),
        (r"(\pm1,0)", "(-1,0),(1,0)"),
        (r"\{-2,2\}", r"\{\pm 2\}"),
        (r"1\pm i", "1+i, 1-i"),
        (r"\pm\sqrt2, 0", r"0, \sqrt2, -\sqrt2"),
        (r"2\pm3", "5, -1"),
        (r"(1,-1),(-1,1)", r"(\pm1,\mp1)"),
        (r"1\pm\sqrt2", "1\u00b1\u221a2"),
    ],
    "dots": [
        (r"2,4,\ldots,20", r"2,4,\ldots,20"),
        (r"2,4,\ldots,20", "2, 4, 6, ..., 20"),
        (r"2,4,\ldots,12", "2,4,6,8,10,12"),
        (r"2,4,6,\ldots", r"2,4,\dots"),
        (r"1,2,4,\ldots,32", "1,2,4,8,16,32"),
        (r"\{1,2,\ldots,100\}", r"\{1,2,3,\ldots,100\}"),
        (r"a_1,a_2,\ldots,a_n", r"a_1, a_2, \dots, a_n"),
    ],
    "ratios and cases": [
        ("3:4:5", "6:8:10"),
        (
            r"\begin{cases} x & x<0\\ 1 & x\ge0\end{cases}",
            r"\begin{cases} 1, & \text{if } x\geq 0\\ x, & \text{if } x<0\end{cases}",
        ),
    ],
    "thousands": [("100,200", "100, 200"), ("1,234, 5", "1234, 5"), (r"(1,\!234, 5)", "(1234,5)")],
}
WRONG = {
    "named values": [
        ("(2,-1)", "y=2, x=-1"),
        ("(2,-1)", "x=-1, y=2"),
        ("(2,-1)", "x=2, y=1"),
        ("(2,-1)", "x=2"),
        ("(2,-1)", "x=2, y=-1, z=0"),
        ("(2,-1)", "x=2, x=-1"),
        ("[2,3]", "x=2, y=3"),
        ("(2,3)", r"\begin{cases}x=3\\y=2\end{cases}"),
        ("3,4", "p=4, q=3"),
        ("3,4", "p=3, q=5"),
        ("2,3", "x_1=2, x_2=4"),
        ("2,3", "x=2; x=4"),
        ("x=2, y=-1", "(-1,2)"),
        ("x=2, y=-1", "a=2, b=-1"),
        ("x=2, y=-1", "x=-1, y=2"),
        ("x=2, x=3", "y=2, y=3"),
        ("(x,y)=(1,2)", "(y,x)=(1,2)"),
        ("(1,2),(2,1)", "x=1, y=2"),
        ("(1,2),(3,1)", r"x=1, y=2 \text{ or } x=1, y=3"),
        ("5", "x=5, y=5"),
        ("6, 14", r"6\text{ hens and }15\text{ rabbits}"),
        ("6, 14", r"14\text{ hens and }6\text{ rabbits}"),
        (r"6\text{ hens and }14\text{ rabbits}", r"6\text{ rabbits and }14\text{ hens}"),
    ],
    "points, sets and vectors": [
        ("(1,4),(4,1)", "(1,4),(1,4)"),
        ("(1,4),(4,1)", "(1,4)"),
        ("(1,4),(4,1)", r"\{(1,4),(4,2)\}"),
        ("(1,4)", "(1,4),(4,1)"),
        (r"\langle 1,2\rangle", "(2,1)"),
        (r"\langle 1,2\rangle", "[1,2]"),
        (r"\langle 1,2\rangle", r"\langle 1,-2\rangle"),
        ("(1,2)", r"\{1,2\}"),
        ("(1,2,3)", r"\begin{pmatrix}1\\3\\2\end{pmatrix}"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}"),
        (r"S=\{1,2\}", r"T=\{1,2\}"),
        (r"\{1,2,3\}", r"\{1,2\}"),
        (r"\{1,2\}", r"\{1,2,3\}"),
        ("1,2,2", "1,2"),
        ("1,2,2", "1,1,2"),
        (r"[0,1),[2,3]", "[0,1],[2,3)"),
    ],
    "plus-minus": [
        (r"\frac{3\pm\sqrt5}{2}", r"\frac{3+\sqrt5}{2}"),
        (r"\frac{3+\sqrt5}{2}", r"\frac{3\pm\sqrt5}{2}"),
        (r"\frac{3\pm\sqrt5}{2}", r"\frac{3\pm\sqrt6}{2}"),
        (r"\frac{3\pm\sqrt5}{2}", r"\frac{-3\pm\sqrt5}{2}"),
        (r"(1,0),(-1,0)", r"(0,\pm1)"),
        (r"(1,0),(-1,0)", "(1,0)"),
        (r"(1,1),(-1,-1)", r"(\pm1,\mp1)"),
        (r"1\pm i", "1+i"),
    ],
    "dots": [
        (r"2,4,\ldots,20", "2,4,20"),
        (r"2,4,6,\ldots", "2,4,6"),
        (r"2,4,\ldots,20", r"2,4,\ldots,22"),
        (r"2,4,\ldots,20", r"2,4,\ldots"),
        (r"2,4,6,\ldots", r"2,4,8,\ldots"),
        ("2,4,20", r"2,4,\ldots,20"),
        (r"2,4,\ldots,12", "2,4,6,8,12"),
        (r"a_1,a_2,\ldots,a_n", "a_1,a_2,a_n"),
    ],
    "ratios and cases": [
        ("3:4:5", "3:5:4"),
        ("3:4:5", "3:4"),
        (r"\begin{cases} x & x<0\\ 1 & x\ge0\end{cases}", r"\begin{cases} x & x>0\\ 1 & x\le0\end{cases}"),
        (r"\begin{cases} x & x<0\\ 1 & x\ge0\end{cases}", "x, 1"),
    ],
    "thousands": [("100,200", "100"), ("(1,234)", "1234"), ("1,234, 5", "1,235, 5")],
}


def flat(cases: dict[str, list[tuple[str, str]]]) -> list[object]:
    return [pytest.param(*case, id=f"{kind}: {case[0]} | {case[1]}") for kind, some in cases.items() for case in some]


def value(gold: str, said: str) -> float:
    result = score(f"So it is $\\boxed{{{said}}}$.", answer=gold)
    assert result is not None
    return result.value


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


HOSTILE = {
    "spaces in a name": "\\a" + " " * 1_900 + "! = 1, y=2",
    "signs": r"\pm" * 600,
    "signs of parts": ",".join([r"\pm1\pm2\pm3"] * 60),
    "names": ",".join(f"x_{number}=1" for number in range(300)),
    "cases": r"\begin{cases}" * 100 + r"x=1\\" * 50,
    "dots": "1,2,\\ldots,999999999999",
    "dots of powers": "1,2,4,\\ldots,3",
    "alternatives": r" \text{ or } ".join(f"x<{number}" for number in range(100)),
    "unions": r"\cup".join(f"({number},{number + 1})" for number in range(40)),
    "texts": r"\text{a and " * 150,
    "commas": ", " * 900 + "where k is an integer",
    "qualifiers": "5" + ", k \\in \\mathbb{Z}" * 100,
    "long equation": "x+y=" + "+".join(f"x^{{{number}}}y" for number in range(2, 30)),
    "tower": r"2^{x^{y^{9}}}=9^{y^{x^{9}}}",
    "lists in lists": "(" * 500 + "1,2" + ")" * 500,
}


@pytest.mark.parametrize("gold", ["(1,2)", "x+y=5", r"(-\infty,2)\cup(3,\infty)", r"\frac{\pi}{2}+k\pi", "1, 2, 3"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_end(name: str, gold: str) -> None:
    start = time.process_time()
    assert value(gold, HOSTILE[name]) == 0
    assert time.process_time() - start < HOSTILE_CPU_S
