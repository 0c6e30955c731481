"""Silence from the libraries below, so that what a run says can be read."""

from __future__ import annotations

import ast
import logging

import transformers
from datasets import disable_progress_bars
from torch import nn


def quiet_libraries() -> None:
    """Errors only, and no bars beside our own."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("trl").setLevel(logging.ERROR)  # it prints every completion that no reward could score
    disable_progress_bars()


class _TiedKeys(logging.Filter):
    """Drops the warning that a checkpoint lacks a weight which it has under another name."""

    SAID = "There were missing keys in the checkpoint model loaded: "

    def __init__(self) -> None:
        super().__init__()
        self.tied: list[set[str]] = []

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if not message.startswith(self.SAID):
            return True
        try:
            missing = set(ast.literal_eval(message.removeprefix(self.SAID).rstrip(".")))
        except (SyntaxError, ValueError):
            return True
        there_too = {name for names in self.tied if not names <= missing for name in names}
        return not missing <= there_too


_tied_keys = _TiedKeys()


def quiet_about_tied(model: nn.Module) -> None:
    """Say nothing of weights of this model that its checkpoints lack because they are another's; of others, do.

    The trainer of each process but the first one warns again, whatever `quiet_libraries` says.
    """
    names: dict[int, set[str]] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(weight), set()).add(name)
    _tied_keys.tied = [each for each in names.values() if len(each) > 1]
    logging.getLogger("transformers.trainer").addFilter(_tied_keys)  # once, however often it is added
