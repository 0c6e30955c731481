"""Short runs of `HybridTrainer` with vLLM, in this process or in several, and what they leave to compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from posttrain.controllers import Controller
from posttrain.models.policy_weights import named_weights
from posttrain.storage.files import read_lines
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import ROWS, hybrid_args, reward

ROWS_A_STEP = 16
"""Completions in a generation, over all processes."""


class Watched:
    """An engine that remembers what it was asked for and what it gave."""

    def __init__(self, engine: Any):
        self.engine, self.dtype, self.samples_aside = engine, engine.dtype, engine.samples_aside
        self.loads, self.sleeps, self.requests = 0, [], []

    def load(self, model):
        self.loads += 1
        self.engine.load(model)

    def sleep(self, level):
        self.sleeps.append(level)

    def sample(self, prompt_ids, seeds, sampling, limits=None):
        return self.begin(prompt_ids, seeds, sampling, limits=limits)()

    def begin(self, prompt_ids, seeds, sampling, on_prompt=None, limits=None):
        collect = self.engine.begin(prompt_ids, seeds, sampling, on_prompt, limits)

        def collected():
            sampled = collect()
            self.requests.append((prompt_ids, seeds, sampling, sampled))
            return sampled

        return collected


@dataclass
class Ran:
    """What a run left: its steps, the rollouts of this process, and the whole weights as an engine gets them."""

    steps: list[dict[str, Any]]
    rollouts: list[list[list[int]]]
    gaps: list[float]
    weights: dict[str, torch.Tensor] = field(repr=False)
    loads: int = 0


def train(
    folder: Path,
    model_folder: Path,
    controller: Controller,
    *,
    processes: int = 1,
    lora: dict[str, Any] | None = None,
    before: Callable[[HybridTrainer], None] | None = None,
    callbacks: list[Any] | None = None,
    resume: bool = False,
    **changes: Any,
) -> Ran:
    """Train a few steps of the addition table.

    Args:
        folder: Of the run.
        model_folder: Holds the policy and its tokenizer.
        processes: Among which the rows of a step are shared out.
        lora: Arguments of `LoraConfig`; None trains all weights.
        before: Called with the trainer before it trains.
        callbacks: The trainer's.
        resume: From the last checkpoint.
        changes: Of the `HybridConfig`.
    """
    set_seed(3)
    policy = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    if lora is not None:
        policy = get_peft_model(policy, LoraConfig(r=4, task_type="CAUSAL_LM", **lora))
    settings = {"max_steps": 4, "learning_rate": 1e-2, "kl_sample": 0.0, "vllm_probe_every": 1, **changes}
    settings.setdefault("per_device_train_batch_size", ROWS_A_STEP // processes)
    data = [{"prompt": row["prompt"], "answer": row["answer"]} for row in ROWS]
    trainer = HybridTrainer(
        policy,
        reward,
        hybrid_args(folder, use_vllm=True, **settings),
        Dataset.from_list(data),
        processing_class=AutoTokenizer.from_pretrained(model_folder),
        demonstrations=Dataset.from_list(ROWS),
        controller=controller,
        callbacks=callbacks,
    )
    watched = trainer.vllm_generation.engine = Watched(trainer.vllm_generation.engine)
    if before:
        before(trainer)
    gaps: list[float] = []
    log = trainer.log

    def logged(*args, **kwargs):
        gaps.extend(trainer._metrics["train"]["sampling/sampling_logp_difference/max"])
        log(*args, **kwargs)

    trainer.log = logged
    try:
        trainer.train(resume_from_checkpoint=resume)
        weights = {name: tensor.clone() for name, tensor in named_weights(trainer.model)}
    finally:
        watched.engine.close()
    # A probe asks for one completion of distinct prompts; a rollout's own requests come with its group's size
    rollouts = [[one.token_ids for group in r[3] for one in group] for r in watched.requests if r[2].n > 1]
    steps = read_lines(folder / "steps.jsonl") if trainer.accelerator.is_main_process else []
    return Ran(steps, rollouts, gaps, weights, watched.loads)
