"""The recipe of the packaged model, a few steps of it: a real model and chat template, an adapter, checked answers."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from tests.pipeline.runs import forked

RECIPE = Path(__file__).parents[2] / "recipes" / "gsm8k-smollm2-135m.yaml"
NAMES, THINGS = ("Ann", "Ben", "Cleo", "Dan"), ("apples", "coins", "pens", "cups")
OVERRIDES = {
    "task": {
        "dataset": None, "config": None, "eval_split": None, "path": "problems.jsonl", "instruction": "",
        "train": 4, "demonstrations": 8, "eval": 4,
    },
    "warmup": {"steps": 3, "warmup_steps": 0, "gradient_accumulation_steps": 1},
    "hybrid": {
        "steps": 2, "warmup_steps": 0, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1,
        "controller": "grpo_only", "grpo.max_completion_length": 30,
    },
    "rollout": {"engine": "vllm", "max_model_length": 256},
    "evaluate": {"every": 0, "at_start": False},
    "run": {"dir": "run", "device": "cpu", "threads": 1, "save_completions_every": 1},
}  # fmt: skip


def problems() -> list[dict[str, str]]:
    rows = []
    for number, (name, things) in enumerate(itertools.product(NAMES, THINGS)):
        has, gets = 2 + number % 5, 1 + number % 4
        question = f"{name} has {has} {things} and gets {gets} more. How many {things} does {name} have?"
        steps = f"{name} has {has} + {gets} = <<{has}+{gets}={has + gets}>>{has + gets} {things}."
        rows.append({"question": question, "answer": f"{steps}\n#### {has + gets}"})
    return rows


@pytest.mark.slow
def test_a_few_steps_of_the_recipe(tmp_path):
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems()))
    overrides = [f"{part}.{key}={json.dumps(value)}" for part, keys in OVERRIDES.items() for key, value in keys.items()]
    ended = forked(tmp_path, "run", str(RECIPE), *overrides)
    assert ended.code == 0, ended.text
    run = tmp_path / "run"

    steps = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in steps] == ["warmup"] * 3 + ["hybrid"] * 2
    warmup, hybrid = steps[:3], steps[3:]
    assert warmup[-1]["sft_loss"] < warmup[0]["sft_loss"]
    assert all(math.isfinite(line["grpo_loss"]) for line in hybrid)
    evaluations = [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["n"], line["errors"]) for line in evaluations] == [
        ("warmup", 4, 0),
        ("final", 4, 0),
    ]

    rollouts = pq.read_table(run / "completions" / "step-000001.parquet").to_pylist()
    assert len(rollouts) == 8
    assert any(character.isdigit() for row in rollouts for character in row["completion"])

    adapter = run / "model"
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == str(run / "base")
    weights = load_file(adapter / "adapter_model.safetensors")
    assert any(tensor.abs().max() > 0 for name, tensor in weights.items() if "lora_B" in name)
    assert "<|im_start|>" in (adapter / "chat_template.jinja").read_text()
