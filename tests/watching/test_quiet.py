"""What the libraries below say: a tied weight that a checkpoint lacks is no news, any other one is."""

from __future__ import annotations

import logging

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from posttrain.watching.quiet import quiet_about_tied

SIZES = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}


@pytest.mark.parametrize(
    ("tied", "missing", "said"),
    [
        (True, ["lm_head.weight"], False),
        (True, ["model.embed_tokens.weight"], False),
        (True, ["lm_head.weight", "model.embed_tokens.weight"], True),
        (True, ["lm_head.weight", "model.norm.weight"], True),
        (False, ["lm_head.weight"], True),
    ],
)
def test_only_missing_keys_that_are_tied_go_unsaid(tied, missing, said, caplog, monkeypatch):
    quiet_about_tied(LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied)))
    logger = logging.getLogger("transformers.trainer")
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logger, "disabled", False)
    logger.addHandler(caplog.handler)
    try:
        logger.error(f"There were missing keys in the checkpoint model loaded: {missing}.")
        logger.error("something else")
    finally:
        logger.removeHandler(caplog.handler)
    assert ("missing keys" in caplog.text) == said
    assert "something else" in caplog.text
