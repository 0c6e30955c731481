"""`python -m posttrain`, for `accelerate launch -m posttrain run RECIPE`."""

from __future__ import annotations

import sys

from posttrain.cli import main
from posttrain.launch_end import follow_launcher, leave_code

if __name__ == "__main__":
    follow_launcher()
    status = main()
    leave_code(status)
    sys.exit(status)
