"""Passes through a model that leave no gradients and change nothing about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def inference(model: Any) -> Iterator[None]:
    """Eval mode, no gradients and no router logits inside; each module's own mode again outside.

    Not torch.inference_mode(): buffers that a model refreshes on the way would stay unusable for training.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad(), without_router_logits(model):
            yield
    finally:
        for module in training:
            module.training = True


@contextlib.contextmanager
def without_router_logits(model: Any) -> Iterator[None]:
    """A mixture of experts gives no router logits inside: only a router loss is made of them.

    TRL asks for them in the configuration, where they stay. `generate` then fails, for it makes that loss from the mask
    of all tokens so far and the logits of one.
    """
    config = getattr(model, "config", None)
    configs = [] if config is None else {id(each): each for each in (config, config.get_text_config())}.values()
    asked = [each for each in configs if getattr(each, "output_router_logits", False)]
    for each in asked:
        each.output_router_logits = False
    try:
        yield
    finally:
        for each in asked:
            each.output_router_logits = True
