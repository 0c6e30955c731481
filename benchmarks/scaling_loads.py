"""What `scaling.py` measures, one function a part; imported once, before its processes are forked."""

from __future__ import annotations

import math
import resource
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from scaling_points import SIZES, Point
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from posttrain.controllers import GRPOOnly, SFTOnly
from posttrain.models.inference import inference
from posttrain.models.load import train_tokenizer
from posttrain.planning.cost import ModelShape, StepWork
from posttrain.rollouts.for_trl import Place
from posttrain.rollouts.sampling import Sampling
from posttrain.rollouts.seeded import SeededRollouts
from posttrain.training.config import HybridConfig
from posttrain.training.trainer import HybridTrainer

TEXTS = [f"{number} plus {number} is {2 * number}." for number in range(64)]


def measure_training(point: Point, *, threads: int, budget: float) -> dict[str, Any]:
    """The training part of GRPO steps whose rollouts are given, by TRL's trainer or ours; and the optimizer's."""
    base = _begin(threads)
    model, tokenizer = _model(point), train_tokenizer(TEXTS, vocab_size=300)
    lengths, prompts, completions = _rollouts(point, len(tokenizer))
    prompt_ids = [prompt for prompt in prompts for _ in range(point.group)]

    def rollouts(texts: list[Any], trainer: Any) -> dict[str, Any]:
        return {"prompt_ids": prompt_ids, "completion_ids": completions, "logprobs": None}

    same = round(point.dropped * len(prompts)) * point.group

    def reward(prompts: list[Any], **columns: Any) -> list[float]:
        return [1.0 if row < same else float(row % 2) for row in range(len(prompts))]

    settings: dict[str, Any] = {
        **_settings(point), "num_generations": point.group, "max_completion_length": point.longest, "beta": 0.0,
    }  # fmt: skip
    dataset = Dataset.from_list([{"prompt": TEXTS[number % len(TEXTS)]} for number in range(len(prompts))])
    with tempfile.TemporaryDirectory() as folder:
        if point.trainer == "TRL":
            trainer = GRPOTrainer(
                model, reward, GRPOConfig(output_dir=folder, **settings), dataset,
                processing_class=tokenizer, rollout_func=rollouts,
            )  # fmt: skip
        else:
            args = HybridConfig(output_dir=folder, kl_sample=0.0, **settings)
            trainer = HybridTrainer(
                model, reward, args, dataset, processing_class=tokenizer, rollout_func=rollouts,
                controller=GRPOOnly(), demonstrations=[{"prompt": TEXTS[0], "completion": TEXTS[1]}],
            )  # fmt: skip
        clock = StepClock(trainer, budget)
        held = _resident() - base - _weights(model)
        trainer.train()
    work = StepWork(
        rows=point.rows, group=point.group, prompt=point.prompt, longest=point.longest, dropped=point.dropped,
        micro_batch=point.micro_batch, packed=point.trainer != "TRL", **_moments(lengths[same:]),
    )  # fmt: skip
    return _result(model, work, clock.seconds("training"), base, tokens=sum(lengths)) | {
        "optimizer": min(clock.seconds("optimizer")), "prepare": min(clock.seconds("prepare")), "held": held,
    }  # fmt: skip


def measure_sft(point: Point, *, threads: int, budget: float) -> dict[str, Any]:
    """SFT steps of the hybrid trainer on demonstrations that are all `longest` tokens, half of them labels."""
    base = _begin(threads)
    model, tokenizer = _model(point), train_tokenizer(TEXTS, vocab_size=300)
    length = point.longest
    ids = torch.randint(2, len(tokenizer), (point.rows, length), generator=torch.Generator().manual_seed(0)).tolist()
    rows = [{"input_ids": row, "labels": [-100] * (length // 2) + row[length // 2 :]} for row in ids]
    with tempfile.TemporaryDirectory() as folder:
        args = HybridConfig(
            output_dir=folder, num_generations=2, demonstration_batch_size=point.micro_batch, **_settings(point)
        )
        trainer = HybridTrainer(
            model, lambda **columns: [], args, Dataset.from_list([{"prompt": text} for text in TEXTS]),
            processing_class=tokenizer, controller=SFTOnly(), demonstrations=rows,
        )  # fmt: skip
        clock = StepClock(trainer, budget)
        held = _resident() - base - _weights(model)
        trainer.train()
    work = StepWork(demonstrations=point.rows, demonstration=length, demonstration_batch=point.micro_batch, labels=0.5)
    return _result(model, work, clock.seconds("training"), base, tokens=point.rows * length) | {"held": held}


def measure_logprobs(point: Point, *, threads: int, budget: float) -> dict[str, Any]:
    """Passes without gradients over rows that are all as long as the longest, through the trainer's own function."""
    base = _begin(threads)
    model, tokenizer = _model(point), train_tokenizer(TEXTS, vocab_size=300)
    with tempfile.TemporaryDirectory() as folder:
        settings = {**_settings(point), "gradient_accumulation_steps": 1}
        args = HybridConfig(output_dir=folder, num_generations=2, **settings)
        trainer = HybridTrainer(
            model, lambda **columns: [], args, Dataset.from_list([{"prompt": text} for text in TEXTS]),
            processing_class=tokenizer, controller=GRPOOnly(),
        )  # fmt: skip
    shape = (point.rows, point.prompt + point.longest)
    ids = torch.randint(2, len(tokenizer), shape, generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)

    def score() -> None:
        with inference(model):
            trainer._score(ids, mask, point.longest)

    work = StepWork(
        logprob_rows=point.rows, prompt=point.prompt, completion=point.longest, micro_batch=point.micro_batch
    )
    return _result(model, work, _repeated(score, budget), base, tokens=point.rows * point.longest)


def measure_generation(point: Point, *, threads: int, budget: float) -> dict[str, Any]:
    """Sampling with transformers as the trainer does it. Tokens that end a completion are so many that it has half of
    the limit on average.
    """
    base = _begin(threads)
    model, tokenizer = _model(point), train_tokenizer(TEXTS, vocab_size=300)
    _, prompts, _ = _rollouts(point, len(tokenizer))
    prompt_ids = [prompt for prompt in prompts for _ in range(point.group)]
    ends = list(range(2, 2 + round(2 * point.vocab / point.longest)))
    sampled: list[list[int]] = []

    sampling = Sampling(max_tokens=point.longest, temperature=1.0)
    rollouts = SeededRollouts(sampling, tokenizer=tokenizer, eos_token_ids=ends, run_seed=0)

    def sample() -> None:
        sampled[:] = rollouts.sample(model, prompt_ids, Place(0, 0), group=point.group)

    seconds = _repeated(sample, budget)
    lengths = [len(ids) for ids in sampled]
    work = StepWork(
        rows=point.rows, group=point.group, prompt=point.prompt, longest=max(lengths),
        micro_batch=point.micro_batch, **_moments(lengths),
    )  # fmt: skip
    return _result(model, work, seconds, base, tokens=sum(lengths))


MEASURES = {
    "training": measure_training, "generation": measure_generation, "logprobs": measure_logprobs, "sft": measure_sft,
}  # fmt: skip


class StepClock(TrainerCallback):
    """Computing seconds of each step of a trainer by part; ends training when a budget is used up.

    There are at least two steps, for the first one's peak is without the optimizer's memory.

    The training part is all of `training_step` but `_prepare_inputs`, which has the rollouts and their rewards in it.
    """

    def __init__(self, trainer: Any, budget: float):
        self._steps: list[dict[str, float]] = []
        self._budget = budget
        self._now = {"training": 0.0, "prepare": 0.0, "optimizer": 0.0}
        self._optimizer_began = 0.0
        self._wrap(trainer, "training_step", "training")
        self._wrap(trainer, "_prepare_inputs", "prepare")
        trainer.add_callback(self)

    def seconds(self, part: str) -> list[float]:
        """Of each step but the first."""
        return [step[part] - (step["prepare"] if part == "training" else 0.0) for step in self._steps[1:]]

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Start the step's clocks."""
        self._now = dict.fromkeys(self._now, 0.0)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """The gradients are there, clipped."""
        self._optimizer_began = time.process_time()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """The optimizer has stepped."""
        self._now["optimizer"] += time.process_time() - self._optimizer_began

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Keep the step's seconds."""
        self._steps.append(dict(self._now))
        if sum(self.seconds("training")) > self._budget:
            control.should_training_stop = True

    def _wrap(self, trainer: Any, method: str, part: str) -> None:
        inner = getattr(trainer, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return inner(*args, **kwargs)
            finally:
                self._now[part] += time.process_time() - start

        setattr(trainer, method, timed)


def _begin(threads: int) -> int:
    """Set this process up; the bytes that it holds before any model."""
    import transformers

    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    torch.randn(64, 64, requires_grad=True).mm(torch.randn(64, 64)).sum().backward()
    return _resident()


def _resident() -> int:
    """Bytes that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _weights(model: Any) -> int:
    return sum(each.numel() * each.element_size() for each in model.parameters())


def _result(model: Any, work: StepWork, seconds: list[float], base: int, *, tokens: int) -> dict[str, Any]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "shape": asdict(ModelShape.of(model.config)), "work": asdict(work), "seconds": min(seconds),
        "repeats": [round(each, 4) for each in seconds], "tokens": tokens, "peak": peak - base,
    }  # fmt: skip


def _model(point: Point) -> LlamaForCausalLM:
    hidden, layers = SIZES[point.size]
    config = LlamaConfig(
        vocab_size=point.vocab, hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers,
        num_attention_heads=hidden // 64, num_key_value_heads=hidden // 128, tie_word_embeddings=True,
        max_position_embeddings=8192, bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


def _rollouts(point: Point, tokens: int) -> tuple[list[int], list[list[int]], list[list[int]]]:
    """Lengths of completions, prompts (one a group), and completions, of random tokens."""
    source = torch.Generator().manual_seed(1)
    order = torch.randperm(point.rows, generator=source).tolist()
    lengths = [math.ceil(point.longest * (place + 1) / point.rows) for place in order]
    prompts = torch.randint(2, tokens, (point.rows // point.group, point.prompt), generator=source).tolist()
    return lengths, prompts, [[*torch.randint(2, tokens, (n - 1,), generator=source).tolist(), 1] for n in lengths]


def _settings(point: Point) -> dict[str, Any]:
    return {
        "per_device_train_batch_size": point.micro_batch,
        "gradient_accumulation_steps": point.rows // point.micro_batch,
        "max_steps": 4, "learning_rate": 1e-5, "bf16": False, "use_cpu": True, "gradient_checkpointing": False,
        "report_to": [], "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1000, "seed": 0,
    }  # fmt: skip


def _moments(lengths: list[int]) -> dict[str, float]:
    mean = sum(lengths) / len(lengths)
    variance = sum((length - mean) ** 2 for length in lengths) / len(lengths)
    return {"completion": mean, "spread": math.sqrt(variance) / mean}


def _repeated(call: Any, budget: float, most: int = 3) -> list[float]:
    """Computing seconds of calls within the budget, the first left out unless it takes the budget alone."""
    seconds: list[float] = []
    while len(seconds) <= most:
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
        if sum(seconds[1:] or seconds) > budget:
            break
    return seconds[1:] or seconds
