"""What the security tests attack with."""

from __future__ import annotations

from pathlib import Path


class Leaves:
    """A pickle of it leaves a file when it is read."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)
