#!/usr/bin/env bash
# math-verify does not know R from r: symbols are put into lower case before they are compared.
#
# math-verify 0.9.0 with latex2sympy2_extended 1.11.0 and sympy 1.14.0, on valid LaTeX:
#   $R^2-r^2$ against $0$     True: it is read as r**2 - r**2
#   $a$ against $A$           True
#   $a$ against $b$           False
#
# A ring between two circles is thus worth nothing, and any answer with two letters that differ by case is
# judged wrongly. The setting is lowercase_symbols of its LaTeX parser; handing the text to latex2sympy directly
# keeps the case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    math-verify==0.9.0 latex2sympy2_extended==1.11.0 sympy==1.14.0 antlr4-python3-runtime==4.13.2
"$folder/venv/bin/python" - <<'PYTHON'
from math_verify import parse, verify

PAIRS = [  # gold, said, what verify says
    (r"$R^2-r^2$", r"$0$", True),
    (r"$a$", r"$A$", True),
    (r"$a$", r"$b$", False),
]
for gold, said, expected in PAIRS:
    same = verify(parse(gold), parse(said))
    print(f"{gold}  against  {said}: {parse(gold)[:1]} {parse(said)[:1]} -> {same}")
    assert same is expected, "this has changed"
PYTHON
