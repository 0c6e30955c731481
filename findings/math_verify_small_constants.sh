#!/usr/bin/env bash
# math-verify calls two constants equal that differ by less than about 1e-16, however small they are themselves.
#
# math-verify 0.9.0 with latex2sympy2_extended 1.11.0 and sympy 1.14.0, on valid LaTeX:
#   $\frac{1}{2^{99}}$ against $\frac{1}{2^{98}}$   True
#   $\frac{1}{20!}$ against $\frac{1}{21!}$       True
#   $\frac{1}{2^{9}}$ against $\frac{1}{2^{8}}$     False
#
# The comparison is of the difference to 15 digits, with what is left cut off, and not relative to the size of
# the numbers: probabilities of long odds and constants of physics are all the same number.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    math-verify==0.9.0 latex2sympy2_extended==1.11.0 sympy==1.14.0 antlr4-python3-runtime==4.13.2
"$folder/venv/bin/python" - <<'PYTHON'
from math_verify import parse, verify

PAIRS = [  # gold, said, what verify says
    (r"$\frac{1}{2^{99}}$", r"$\frac{1}{2^{98}}$", True),
    (r"$\frac{1}{20!}$", r"$\frac{1}{21!}$", True),
    (r"$\frac{1}{2^{9}}$", r"$\frac{1}{2^{8}}$", False),
]
for gold, said, expected in PAIRS:
    same = verify(parse(gold), parse(said))
    print(f"{gold}  against  {said}: {parse(gold)[:1]} {parse(said)[:1]} -> {same}")
    assert same is expected, "this has changed"
PYTHON
