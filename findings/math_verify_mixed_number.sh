#!/usr/bin/env bash
# math-verify reads a number before a bracket as the whole part of a mixed number, not as a factor.
#
# math-verify 0.9.0 with latex2sympy2_extended 1.11.0 and sympy 1.14.0, on valid LaTeX:
#   $3(4)$ against $7$        True
#   $3(4)$ against $12$       False
#   $3\cdot(4)$ against $12$  True
#
# A product without a sign between its factors has to get one before it is handed over.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    math-verify==0.9.0 latex2sympy2_extended==1.11.0 sympy==1.14.0 antlr4-python3-runtime==4.13.2
"$folder/venv/bin/python" - <<'PYTHON'
from math_verify import parse, verify

PAIRS = [  # gold, said, what verify says
    (r"$3(4)$", r"$7$", True),
    (r"$3(4)$", r"$12$", False),
    (r"$3\cdot(4)$", r"$12$", True),
]
for gold, said, expected in PAIRS:
    same = verify(parse(gold), parse(said))
    print(f"{gold}  against  {said}: {parse(gold)[:1]} {parse(said)[:1]} -> {same}")
    assert same is expected, "this has changed"
PYTHON
