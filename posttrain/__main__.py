"""`python -m posttrain`, for `accelerate launch -m posttrain run RECIPE`."""

from __future__ import annotations

from posttrain.cli import main
from posttrain.processes.launched import end, follow_launcher

if __name__ == "__main__":
    follow_launcher()
    end(main())
