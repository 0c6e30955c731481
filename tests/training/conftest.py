"""A tiny real model, tokenizer and task: an addition table, small enough to train on in a second."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import accelerate.utils.modeling
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, TrainerCallback

from posttrain.models.load import build_model, train_tokenizer
from posttrain.training.config import HybridConfig

ROWS = [{"prompt": f"{a} plus {b} is", "completion": f" {a + b}.", "answer": a + b} for a in range(5) for b in range(5)]


def reward(completions, answer, **kwargs):
    """Dense on purpose, so that groups differ: long answers and the right digit score more."""
    return [0.1 * len(set(c)) + float(str(a) in c) for c, a in zip(completions, answer, strict=True)]


def sparse_reward(completions, answer, **kwargs):
    """Alike in three groups of five, so that nothing is to be learned from these."""
    dense = reward(completions, answer)
    return [1.0 if a % 5 in (0, 2, 3) else score for score, a in zip(dense, answer, strict=True)]


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def known_packages():
    """PEFT is installed, or not, for all tests: accelerate asks so often that it takes a tenth of these runs."""
    with pytest.MonkeyPatch.context() as patch:
        known = functools.cache(accelerate.utils.modeling.is_peft_available)
        patch.setattr(accelerate.utils.modeling, "is_peft_available", known)
        yield


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer([row["prompt"] + row["completion"] for row in ROWS], vocab_size=320)


@pytest.fixture(scope="session")
def model_folder(tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    build_model(tokenizer, hidden_size=32, layers=2, heads=2, max_position_embeddings=64).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def loaded(model_folder):
    return AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)


@pytest.fixture
def model(loaded):
    return copy.deepcopy(loaded)


@pytest.fixture(scope="session")
def prompts() -> Dataset:
    return Dataset.from_list([{"prompt": row["prompt"], "answer": row["answer"]} for row in ROWS])


@pytest.fixture(scope="session")
def demonstrations() -> Dataset:
    return Dataset.from_list(ROWS)


class StopAt(TrainerCallback):
    """Saves and stops after a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True


COMMON = {
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "bf16": False,
    "use_cpu": True,
    "gradient_checkpointing": False,
    "report_to": [],
    "disable_tqdm": True,
    "save_strategy": "no",
    "logging_steps": 1,
    "seed": 7,
}


def hybrid_args(folder: Path, **changes) -> HybridConfig:
    settings = {
        **COMMON,
        "output_dir": str(folder),
        "max_steps": 4,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 6,
        **changes,
    }
    return HybridConfig(**settings)
