"""The command, and `python -m posttrain`, for `accelerate launch -m posttrain run RECIPE`."""

from __future__ import annotations

from posttrain.processes.interrupting import while_starting
from posttrain.processes.launched import end, follow_launcher


def main() -> int:
    """Run one command, as `cli.main`; Ctrl-C ends it at once from here on, the imports included."""
    while_starting()
    from posttrain import cli

    return cli.main()


if __name__ == "__main__":
    follow_launcher()
    end(main())
