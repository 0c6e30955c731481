#!/usr/bin/env bash
# math-verify takes an equation of several letters for an assignment: its right side alone is the whole answer.
#
# math-verify 0.9.0 with latex2sympy2_extended 1.11.0 and sympy 1.14.0, on valid LaTeX:
#   $x+y=5$ against $5$         True
#   $x+y=5$ against $x+y=6$     False
#   $x+y=5$ against $2x+2y=10$  True
#
# Where the gold answer is a line or a constraint, its constant term is paid as if it were the equation.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    math-verify==0.9.0 latex2sympy2_extended==1.11.0 sympy==1.14.0 antlr4-python3-runtime==4.13.2
"$folder/venv/bin/python" - <<'PYTHON'
from math_verify import parse, verify

PAIRS = [  # gold, said, what verify says
    (r"$x+y=5$", r"$5$", True),
    (r"$x+y=5$", r"$x+y=6$", False),
    (r"$x+y=5$", r"$2x+2y=10$", True),
]
for gold, said, expected in PAIRS:
    same = verify(parse(gold), parse(said))
    print(f"{gold}  against  {said}: {parse(gold)[:1]} {parse(said)[:1]} -> {same}")
    assert same is expected, "this has changed"
PYTHON
