"""Rollouts that go on from a demonstration's beginning: sampled from token ids, and scored as they were sampled."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, set_seed

from posttrain.methods import HPT, UFT, PrefixRFT
from posttrain.storage.files import read_lines
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import hybrid_args, reward
from tests.vllm.training import Watched

FLOAT32 = 1e-4
"""How far apart two implementations of the same float32 model may be, per token, as a log-probability."""


@pytest.mark.parametrize("method", [PrefixRFT(shortest=0.9), UFT(hinted=1.0), HPT(gate=4)], ids=lambda each: each.name)
def test_the_sampler_and_the_trainer_agree(method, engine, model_folder, tokenizer, prompts, demonstrations, tmp_path):
    set_seed(3)
    trainer = HybridTrainer(
        AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32),
        reward,
        hybrid_args(
            tmp_path, use_vllm=True, vllm_probe_every=1, max_steps=3, per_device_train_batch_size=16, learning_rate=1e-2
        ),
        prompts,
        processing_class=tokenizer,
        demonstrations=demonstrations,
        method=method,
        engine=Watched(engine),
    )
    watched = trainer.vllm_generation.engine
    trainer.train()
    records = read_lines(tmp_path / "steps.jsonl")
    assert len(records) == 3
    for record in records:
        assert record["sampling"]["logp_difference_max"] < FLOAT32
        assert record["sampling"]["probe_max"] < FLOAT32
        assert record["sampling"]["ratio_min"] == pytest.approx(1.0, abs=FLOAT32)
    tokens = "begun_tokens" if method.begins_rollouts else "demonstration_tokens"
    assert sum(record["method"][tokens] for record in records) > 0
    if method.begins_rollouts:
        known = [trainer._tokenize_prompts([row["prompt"]])[0][0] for row in prompts]
        asked = [ids for request in watched.requests for ids in request[0] if ids not in known]
        ends = [ids[len(start) :] for ids in asked for start in known if ids[: len(start)] == start]
        assert ends
        assert all(any(ids[: len(end)] == end for ids in trainer.pairs.ids) for end in ends)
