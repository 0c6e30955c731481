"""What a command is at before it has loaded what would say so better. Loads nothing."""

from __future__ import annotations

import os
import sys
import time


def say(text: str) -> None:
    """Print a line with a clock time on stderr, as `Progress` does; of several processes only the main one says it."""
    if os.environ.get("RANK", "0") == "0":
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
