"""Passes through a model that leave no gradients and change nothing about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def inference(model: Any) -> Iterator[None]:
    """Eval mode and no gradients inside; each module's own mode again outside.

    Not torch.inference_mode(): buffers that a model refreshes on the way would stay unusable for training.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
