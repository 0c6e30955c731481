"""Hybrid trainings for tests of several processes: the tiny model of `tests.training`, several cases per process."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, TrainerCallback

from posttrain.controllers import Controller
from posttrain.curricula import Curriculum
from posttrain.methods import Method
from posttrain.models.load import build_model, train_tokenizer
from posttrain.processes.ranks import Ranks
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import ROWS, StopAt, hybrid_args, reward, sparse_reward

NOT_COMPARED = ("seconds", "spent", "learning_rate")


class Case(NamedTuple):
    """One training; `changes` are arguments of the trainer, `sparse` rewards most groups' completions alike, `placed`
    is a model that sees where tokens stand, with prompts of unequal length."""

    controller: Controller
    changes: dict[str, Any]
    lora: bool = False
    stop: int | None = None
    resume: bool = False
    folder: str = ""
    sparse: bool = False
    placed: bool = False
    method: Method | None = None
    curriculum: Curriculum | None = None


class Result(NamedTuple):
    """What a training gave, as each process saw it; the weights and rollouts on the main process only."""

    records: dict[int, dict[str, Any]]
    completions: dict[int, list[dict[str, Any]]]
    weights: dict[str, torch.Tensor]
    own_records: dict[int, dict[str, Any]]
    evaluations: list[dict[str, Any]]
    sharded: bool


class Kept:
    """A recorder that keeps everything in memory."""

    def __init__(self):
        self.records, self.rows = {}, {}

    def step(self, record):
        self.records[record["step"]] = {k: v for k, v in record.items() if k not in NOT_COMPARED}

    def completions(self, step, rows):
        self.rows[step] = rows


class Watch(TrainerCallback):
    """What each process itself holds after every step."""

    def __init__(self):
        self.seen, self.trainer = {}, None

    def on_step_end(self, args, state, control, **kwargs):
        record = self.trainer.last_record
        self.seen[state.global_step] = {
            k: v for k, v in record.items() if k not in (*NOT_COMPARED, "sampled", "by_source")
        }  # which the main process alone has


def save_tiny(folder: Path) -> Path:
    """The tiny model and its tokenizer."""
    tokenizer = train_tokenizer([row["prompt"] + row["completion"] for row in ROWS], vocab_size=320)
    build_model(tokenizer, hidden_size=32, layers=2, heads=2, max_position_embeddings=64).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build(model_folder: Path, output: Path, case: Case, **more: Any) -> HybridTrainer:
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    if case.placed:
        model: Any = _gpt2(tokenizer)
    else:
        model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():  # as after a warm-up: no longer what TRL would read from the folder
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    if case.lora:
        with torch.random.fork_rng():
            torch.manual_seed(5)
            model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    prompts = _prompts(longer=case.placed)
    changes = {"kl_sample": 0.5, "completions_every": 1, "compare_ranks_every": 2, "output_dir": output, **case.changes}
    return HybridTrainer(
        model,
        sparse_reward if case.sparse else reward,
        hybrid_args(changes.pop("output_dir"), **changes),
        prompts,
        processing_class=tokenizer,
        demonstrations=Dataset.from_list(ROWS),
        controller=case.controller,
        method=case.method,
        curriculum=case.curriculum,
        **more,
    )


def train(model_folder: Path, output: Path, case: Case) -> Result:
    recorder, watch = Kept(), Watch()
    callbacks: list[TrainerCallback] = [watch]
    if case.stop:
        callbacks.append(StopAt(case.stop))
    more = {"eval_dataset": _prompts(8)} if "eval_strategy" in case.changes else {}
    trainer = build(model_folder, output, case, recorder=recorder, callbacks=callbacks, **more)
    watch.trainer = trainer
    torch.manual_seed(99 if case.resume else trainer.ranks.number)  # nothing may depend on it
    trainer.train(resume_from_checkpoint=case.resume)
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    evaluations = [entry for entry in trainer.state.log_history if "eval_reward" in entry]
    whole = {name: value.clone() for name, value in weights.items()} if trainer.ranks.is_main else {}
    sharded = all(isinstance(p, DTensor) for p in trainer.model.parameters())
    return Result(recorder.records, recorder.rows, whole, watch.seen, evaluations, sharded)


def train_all(model_folder: Path, output: Path, cases: dict[str, Case]) -> dict[str, Result]:
    """Each case in turn, in this process and those beside it."""
    Ranks.join(on_cpu=True, time_limit_s=60)
    return {name: train(model_folder, output / (case.folder or name), case) for name, case in cases.items()}


def _prompts(count: int | None = None, *, longer: bool = False) -> Dataset:
    before = ["plus " * (row["answer"] if longer else 0) for row in ROWS]
    rows = [{"prompt": more + row["prompt"], "answer": row["answer"]} for more, row in zip(before, ROWS, strict=True)]
    return Dataset.from_list(rows[:count])


def _gpt2(tokenizer: Any) -> GPT2LMHeadModel:
    sizes = {"vocab_size": len(tokenizer), "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2}
    still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "initializer_range": 0.3}
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return GPT2LMHeadModel(
            GPT2Config(**sizes, **still, bos_token_id=None, eos_token_id=tokenizer.eos_token_id)
        ).float()
