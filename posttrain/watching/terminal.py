"""Where commands print: rich's console, wide enough not to break file names where no terminal shows them."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console

PIPED_WIDTH = 120
"""Columns of a file or a pipe. rich would take 80, or the width of the terminal that standard error has."""


def console(**options: Any) -> Console:
    """A console as wide as COLUMNS says, else as its terminal is, else PIPED_WIDTH.

    Args:
        options: Arguments of `rich.console.Console`; a `width` among them is kept. Numbers are highlighted only if
            `highlight` says so.
    """
    made = Console(**{"highlight": False, **options})
    given = options.get("width") is not None or os.environ.get("COLUMNS", "").isdigit()
    if not given and not (made.is_terminal and made.file.isatty()):  # FORCE_COLOR makes rich take a pipe for a terminal
        made.width = PIPED_WIDTH
    return made
