"""The padding row of an embedding stays what it was: with a gradient, or without one.

TRL and transformers write the tokenizer's padding token into the configuration of the model that they train. Where that
is the end of sequence and the model had none, whoever loads the trained model makes an embedding that leaves this token
out: as an input it has no gradient any more.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from posttrain.models.policy_weights import base_model


class PaddingKept(TrainerCallback):
    """Gives a model's configuration its own padding token back when training begins, so that it is saved so.

    The generation configuration keeps the tokenizer's: padding is asked for there, and makes no layer.

    Args:
        model: As it was handed in, before a trainer was made of it; a path or hub id is looked at by `built`.
    """

    def __init__(self, model: Any):
        self._own = [(each, getattr(each, "pad_token_id", None)) for each in _configs(model)]

    def built(self, model: Any) -> PaddingKept:
        """Take down what the trainer's model was built with, where none was handed in."""
        if not self._own:
            row = getattr(base_model(model).get_input_embeddings(), "padding_idx", None)
            self._own = [(each, row) for each in _configs(model)]
        return self

    def on_train_begin(self, args, state, control, **kwargs):
        """Put back what the trainer has overwritten by now."""
        for config, own in self._own:
            config.pad_token_id = own


def _configs(model: Any) -> list[Any]:
    config = None if isinstance(model, str) else getattr(base_model(model), "config", None)
    return [] if config is None else list({id(each): each for each in (config, config.get_text_config())}.values())
