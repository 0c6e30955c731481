#!/usr/bin/env bash
# math-verify drops the degree sign inside a function: the sine of 18 degrees is that of 18 radians.
#
# math-verify 0.9.0 with latex2sympy2_extended 1.11.0 and sympy 1.14.0, on valid LaTeX:
#   $\sin 18^\circ$ against $\sin 18$                 True
#   $\sin 18^\circ$ against $\frac{\sqrt5-1}{4}$     False, its exact value
#   $\sin 30^\circ$ against $\frac12$                 False
#
# Both the wrong answer is paid and the right one refused; degrees have to be written as multiples of pi / 180
# first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    math-verify==0.9.0 latex2sympy2_extended==1.11.0 sympy==1.14.0 antlr4-python3-runtime==4.13.2
"$folder/venv/bin/python" - <<'PYTHON'
from math_verify import parse, verify

PAIRS = [  # gold, said, what verify says
    (r"$\sin 18^\circ$", r"$\sin 18$", True),
    (r"$\sin 18^\circ$", r"$\frac{\sqrt5-1}{4}$", False),
    (r"$\sin 30^\circ$", r"$\frac12$", False),
]
for gold, said, expected in PAIRS:
    same = verify(parse(gold), parse(said))
    print(f"{gold}  against  {said}: {parse(gold)[:1]} {parse(said)[:1]} -> {same}")
    assert same is expected, "this has changed"
PYTHON
