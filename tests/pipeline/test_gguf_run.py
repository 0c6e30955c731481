"""A run on a model that is a file: unpacked once, trained with an adapter, and never resumed on another file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import pre_tokenizers

from posttrain.models.load import load_policy
from tests.gguf_files import byte_level_bpe, tiny_llama, write_gguf
from tests.pipeline.runs import REWARD, train

RECIPE = """
model: tiny.gguf
task: {name: knights_knaves, people: [2], split: statements, prompt: short, think_share: 0.0,
       train: 8, eval: 4, demonstrations: 8}
rewards: [{path: rewards.py:score}]
lora: {r: 2}
warmup: {steps: 2, learning_rate: 1.0e-2, per_device_train_batch_size: 4}
hybrid:
  steps: 2
  per_device_train_batch_size: 4
  controller: {name: sasr}
  grpo: {num_generations: 2, max_completion_length: 8}
rollout: {engine: transformers}
evaluate: {batch_size: 4}
run: {dir: run, device: cpu, threads: 1}
"""


def tiny_file(folder: Path, seed: int) -> Path:
    tokenizer = byte_level_bpe(pre_tokenizers.ByteLevel(add_prefix_space=False))
    torch.manual_seed(seed)
    model = tiny_llama(tokenizer.get_vocab_size())
    model.config.max_position_embeddings = 512
    return write_gguf(folder / "tiny.gguf", tokenizer, model, pre="gpt-2")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "rewards.py").write_text(REWARD)
    tiny_file(folder, seed=0)
    ended = train(folder)
    assert ended.code == 0, ended.text
    return folder


def test_the_adapter_stands_on_the_unpacked_model(finished):
    run = finished / "run"
    assert json.loads((run / "model" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        (run / "base").resolve()
    )
    base, final = load_policy(run / "base"), load_policy(run / "model")
    ids = torch.tensor([[1, 40, 50, 2]])
    with torch.no_grad():
        assert not torch.equal(base(input_ids=ids).logits, final(input_ids=ids).logits)
        assert torch.allclose(base(input_ids=ids).logits, load_policy(finished / "tiny.gguf")(input_ids=ids).logits)
    assert "model" in json.loads((run / "environment.json").read_text())["fingerprints"]


@pytest.mark.parametrize("flags", [(), ("--accept-changes",)])
def test_another_file_is_another_run(finished, flags):
    whole = (finished / "tiny.gguf").read_bytes()
    try:
        tiny_file(finished, seed=1)
        ended = train(finished, *flags)
    finally:
        (finished / "tiny.gguf").write_bytes(whole)
    assert ended.code == 1
    assert "fingerprint of model" in ended.text
    assert "--restart" in ended.text
