"""A run whose recipe names the end of sequence: the same in both stages, saved, merged, and after a resume."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.export.export import export
from posttrain.models.load import build_model, train_tokenizer
from tests.pipeline.runs import at_step, interrupt, lines, train

SHORT = ("model=base", "warmup.args.eos_token=<|stop|>", "warmup.steps=2", "hybrid.steps=3", "evaluate.every=0")


@pytest.fixture
def base(folder):
    tokenizer = train_tokenizer([f"{name} is a knave." for name in ("Ann", "Bob", "Cat")], 300)
    tokenizer.add_tokens([AddedToken("<|stop|>", special=True)])
    model = build_model(tokenizer, hidden_size=32, layers=2, heads=2, max_position_embeddings=512)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    return folder


def ends(model):
    """Of the tokenizer, the configuration and the generation configuration."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    said = [
        json.loads((model / name).read_text())["eos_token_id"] for name in ("config.json", "generation_config.json")
    ]
    return [tokenizer.eos_token, *said], tokenizer.convert_tokens_to_ids(["<|stop|>", "<|end|>"])


def test_the_end_is_one_in_one_go_and_resumed(base):
    done = train(base, *SHORT, "run.dir=once")
    assert done.code == 0, done.text
    said, (stop, end) = ends(base / "once/model")
    assert said == ["<|stop|>", stop, [stop, end]]
    first = lines(base / "once", "steps.jsonl")
    assert first[0]["stage"] == "warmup"

    assert train(base, *SHORT, "run.dir=twice", fault=at_step("hybrid", 2, interrupt)).code == 130
    done = train(base, *SHORT, "run.dir=twice")
    assert done.code == 0, done.text
    assert ends(base / "twice/model") == (said, [stop, end])
    weights = [load_file(base / run / "model/model.safetensors") for run in ("once", "twice")]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])


def test_without_a_warmup_the_hybrid_stage_has_it_too(base):
    done = train(base, *SHORT, "warmup.steps=0", "hybrid.controller={name: grpo_only}")
    assert done.code == 0, done.text
    said, (stop, end) = ends(base / "run/model")
    assert said == ["<|stop|>", stop, [stop, end]]


def test_a_merged_adapter_ends_by_it(base):
    done = train(base, *SHORT, f"model={base / 'base'}", "lora={r: 2}")
    assert done.code == 0, done.text
    export(base / "run", base / "out", merge_lora=True)
    stop = AutoTokenizer.from_pretrained(base / "out").convert_tokens_to_ids("<|stop|>")
    assert stop in AutoModelForCausalLM.from_pretrained(base / "out").generation_config.eos_token_id
