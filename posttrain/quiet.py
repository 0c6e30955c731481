"""Silence from the libraries below, so that what a run says can be read."""

from __future__ import annotations

import logging

import transformers
from datasets import disable_progress_bars


def quiet_libraries() -> None:
    """Errors only, and no bars beside our own."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("trl").setLevel(logging.ERROR)  # it prints every completion that no reward could score
    disable_progress_bars()
