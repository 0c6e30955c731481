"""Prints the coefficients of a cost model fitted to what benchmarks/scaling.py measured. Those that ship are made by

python -m posttrain.planning benchmarks/results/scaling.json > posttrain/planning/coefficients.json
"""

from __future__ import annotations

import sys

from posttrain.planning.seconds import measured

if __name__ == "__main__":
    print(measured(sys.argv[1]).to_json())
