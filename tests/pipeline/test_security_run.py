"""`model.trust_remote_code` in a whole run: every stage, TRL's reference too, loads the model's own code; else none."""

from __future__ import annotations

import json

import pytest

from tests.pipeline.runs import train, write_recipe

CODE = """
from pathlib import Path
Path({mark!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""
SHORT = ("warmup.steps=2", "hybrid.steps=2", "hybrid.controller=grpo_only", "evaluate.every=0")


@pytest.fixture
def own_code(tmp_path):
    """The folder of a recipe whose model brings code, which leaves the file `ran`."""
    from posttrain.models.load import build_model, train_tokenizer

    folder = write_recipe(tmp_path / "recipe")
    tokenizer = train_tokenizer(["Alice is a knight and Bob is a knave."], vocab_size=300)
    build_model(tokenizer, hidden_size=32, layers=2, heads=2, max_position_embeddings=1024).save_pretrained(
        folder / "m"
    )
    tokenizer.save_pretrained(folder / "m")
    (folder / "m" / "own.py").write_text(CODE.format(mark=str(folder / "ran")))
    file = folder / "m" / "config.json"
    auto = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    change = {"auto_map": auto, "model_type": "own", "architectures": ["OwnModel"]}
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    recipe = (folder / "recipe.yaml").read_text().split("task:")
    (folder / "recipe.yaml").write_text(f"rollout: {{engine: transformers}}\nmodel: {{name: ./m}}\ntask:{recipe[1]}")
    return folder


def test_a_models_code_runs_only_where_it_is_trusted(own_code):
    ended = train(own_code, *SHORT)
    assert ended.code == 2, ended.text
    assert "brings code of its own, which has not been run" in ended.text
    assert "model.trust_remote_code: true" in ended.text
    assert not (own_code / "ran").exists()
    assert not (own_code / "run").exists(), "refused before there is a run directory"
    ended = train(own_code, *SHORT, "model.trust_remote_code=true", "hybrid.grpo.beta=0.1")
    assert ended.code == 0, ended.text
    assert (own_code / "ran").exists()
    assert "OwnModel" in (own_code / "run" / "model" / "config.json").read_text()
