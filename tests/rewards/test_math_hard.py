"""Answers in less usual forms, by kinds, in `math_answer`: what is paid and what is not."""

from __future__ import annotations

import pytest

from tests.rewards.test_math_lists import flat, value

#: kind: gold, said
RIGHT = {
    "counted parts": [
        ("(1) 4; (2) 7", "4, 7"),
        ("3, 9", "(1) 3; (2) 9"),
        ("(1) 4; (2) 7", "(a) 4 (b) 7"),
        ("(a) 1/2 (b) 1/4", "1/2, 1/4"),
        ("(a) 1/2 (b) 1/4", "(b) 1/4, (a) 1/2"),
        (r"\text{(i) } 3; \text{ (ii) } 5", "3, 5"),
        (r"\text{(a) } \frac{1}{3}, \text{(b) } 12 \text{ cm}, \text{(c) } x>2", r"1/3, 12, x>2"),
        ("a) 3, b) 8", "3, 8"),
    ],
    "words that name values": [
        (r"\text{length } 12, \text{ width } 5", "12, 5"),
        (r"\text{length } 12, \text{ width } 5", r"\text{width } 5, \text{ length } 12"),
        (r"\text{maximum } 5, \text{ minimum } -3", r"\max = 5, \min = -3"),
        (r"\text{maximum } 5, \text{ minimum } -3", "min: -3, max: 5"),
        (r"\text{mean } 4.5, \text{ median } 4", r"\text{mean} = 4.5, \text{median} = 4"),
    ],
    "statements": [
        (r"\text{ellipse}", r"\text{an ellipse}"),
        (r"\text{diverges}", r"\text{The series diverges}"),
        (r"\text{The sequence converges}", r"\text{It converges.}"),
        (r"\text{no solutions}", r"\text{There is no solution}"),
        (r"\text{does not exist}", r"\text{The limit does not exist}"),
        (r"\text{DNE}", r"\text{does not exist}"),
        (r"\text{second player}", r"\text{The second player wins}"),
        (r"\text{Yes}", r"\text{Yes, it is possible}"),
        (r"\text{No}", r"\text{No, it cannot be done}"),
        ("6 km north", "6 km"),
        ("6 km north", "6 kilometers north"),
    ],
    "sets in words": [
        (r"\mathbb{R}\setminus\{2\}", "all real numbers except 2"),
        (r"(-\infty,2)\cup(2,\infty)", r"\text{all real numbers except } x=2"),
        (r"\text{all real numbers except } 2", r"x\ne2"),
        (r"\mathbb{R}\setminus\{1,3\}", "all reals except 1 and 3"),
        (r"[-1,\infty)", r"\text{all } x\ge -1"),
        ("(0,2)", r"\text{increasing on } (0,2)"),
        (r"\text{increasing on } (0,2)", "(0,2)"),
        ("[2,4]", r"2\le f(x)\le4"),
    ],
    "constants and parameters": [
        ("y=Ce^{2x}", "y=Ae^{2x}"),
        ("C_1e^x+C_2e^{-x}", "Ae^x+Be^{-x}"),
        ("C_1e^x+C_2e^{-x}", "C_2e^x+C_1e^{-x}"),
        ("y = C_1 + C_2 x", "y = c_1 + c_2 x"),
        (r"(3t,-2t,t), t\in\mathbb{R}", r"(3s,-2s,s), s\in\mathbb{R}"),
        (r"(3t,-2t,t), t\in\mathbb{R}", "(3s,-2s,s)"),
        (r"n=6k, k\in\mathbb{N}", r"n=6m, m\in\mathbb{N}"),
        (r"k\pi, k\in\mathbb{Z}", r"n\pi, n\in\mathbb{Z}"),
    ],
    "coins": [("4 dimes", "40 cents"), ("4 dimes", "4")],
}
WRONG = {
    "counted parts": [
        ("(1) 4; (2) 7", "7, 4"),
        ("(1) 4; (2) 7", "(1) 7; (2) 4"),
        ("(1) 4; (2) 7", "4"),
        ("(1) 4; (2) 7", r"\{4, 7\}"),
        ("(1) 4; (2) 7", "1, 4, 2, 7"),
        (r"\text{(i) } 3; \text{ (ii) } 5", "5, 3"),
        ("(a) 1/2 (b) 1/4", "(b) 1/2 (a) 1/4"),
        ("4, 7", "(1) 4; (3) 7"),
        ("6, 5", "(1) + 6, (2) + 5"),
    ],
    "words that name values": [
        (r"\text{length } 12, \text{ width } 5", "5, 12"),
        (r"\text{maximum } 5, \text{ minimum } -3", r"\text{min } 5, \text{ max } -3"),
        (r"\text{maximum } 5, \text{ minimum } -3", "-3, 5"),
        (r"\text{boys } 9, \text{ girls } 4", r"\text{girls } 9, \text{ boys } 4"),
        (r"\angle A = 30, \angle AB = 20", r"\angle AB = 30, \angle A = 20"),
    ],
    "statements": [
        (r"\text{ellipse}", r"\text{a hyperbola}"),
        (r"\text{ellipse}", r"\text{not an ellipse}"),
        (r"\text{diverges}", r"\text{The series does not diverge}"),
        (r"\text{The series diverges}", r"\text{The sequence diverges}"),
        (r"\text{no solutions}", r"\text{one solution}"),
        (r"\text{does not exist}", r"\text{The limit exists}"),
        (r"\text{second player}", r"\text{The first player wins}"),
        (r"\text{second player}", r"\text{The second player loses}"),
        (r"\text{Yes}", r"\text{No, it is not possible}"),
        (r"\text{Yes}", r"\text{Yes, but not always}"),
        (r"\text{Yes}", r"\text{Yes or no}"),
        (r"\text{No}", r"\text{No, it is possible}"),
        (r"\text{No}", r"\text{No solution}"),
        ("6 km north", "6 km south"),
        (r"6\text{ units left}", r"6\text{ units right}"),
    ],
    "sets in words": [
        (r"\mathbb{R}\setminus\{2\}", "all real numbers except 3"),
        (r"\mathbb{R}\setminus\{2\}", "all real numbers"),
        (r"\mathbb{R}\setminus\{2\}", "2"),
        (r"[-1,\infty)", r"\text{all } x> -1"),
        (r"\text{increasing on } (0,2)", r"\text{decreasing on } (0,2)"),
        (r"\text{increasing on } (0,2)", "[0,2]"),
        ("[2,4]", r"2\le f(x)<4"),
    ],
    "constants and parameters": [
        ("y=Ce^{2x}", "y=Ae^{3x}"),
        ("C_1e^x+C_2e^{-x}", "Ae^x+Ae^{-x}"),
        ("C_1e^x+C_2e^{-x}", "Ae^x+Be^{x}"),
        (r"(3t,-2t,t), t\in\mathbb{R}", "(3s,2s,s)"),
        (r"(3t,-2t,t), t\in\mathbb{R}", "(3e,-2e,e)"),
        (r"(3t,-2t,t), t\in\mathbb{R}", "(3s,-2r,s)"),
        (r"k\pi, k\in\mathbb Z", r"k\pi, k\in\mathbb N"),
        (r"x\in\mathbb{R}", r"y\in\mathbb{R}"),
        ("Ax+By=D", "Bx+Ay=D"),
    ],
    "coins": [("4 dimes", "4 dollars"), ("4 nickels", "4 dimes")],
}


@pytest.mark.parametrize(("gold", "said"), flat(RIGHT))
def test_paid(gold: str, said: str) -> None:
    assert value(gold, said) == 1.0


@pytest.mark.parametrize(("gold", "said"), flat(WRONG))
def test_not_paid(gold: str, said: str) -> None:
    assert value(gold, said) == 0.0
