"""`python -m posttrain`, for `accelerate launch -m posttrain run RECIPE`."""

from __future__ import annotations

import sys

from posttrain.cli import main

if __name__ == "__main__":
    sys.exit(main())
