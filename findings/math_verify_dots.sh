#!/usr/bin/env bash
# math-verify drops the dots of a list.
#
# math-verify 0.9.0 with latex2sympy2_extended 1.11.0 and sympy 1.14.0, on valid LaTeX:
#   $2,4,\ldots,20$ against $2,4,20$     True: both are the set of three numbers
#   $2,4,\ldots,20$ against $2,4,6,20$   False
#
# An answer that leaves out what the dots stand for is paid, one that writes more of it out is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    math-verify==0.9.0 latex2sympy2_extended==1.11.0 sympy==1.14.0 antlr4-python3-runtime==4.13.2
"$folder/venv/bin/python" - <<'PYTHON'
from math_verify import parse, verify

PAIRS = [  # gold, said, what verify says
    (r"$2,4,\ldots,20$", r"$2,4,20$", True),
    (r"$2,4,\ldots,20$", r"$2,4,6,20$", False),
]
for gold, said, expected in PAIRS:
    same = verify(parse(gold), parse(said))
    print(f"{gold}  against  {said}: {parse(gold)[:1]} {parse(said)[:1]} -> {same}")
    assert same is expected, "this has changed"
PYTHON
