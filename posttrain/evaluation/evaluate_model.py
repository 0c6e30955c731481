"""Evaluating a model by itself, outside a run: `posttrain eval`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from posttrain.errors import ConfigError
from posttrain.evaluation.evaluate import evaluate
from posttrain.inputs.data import fit_to_model
from posttrain.inputs.inputs import loading, task_rewards
from posttrain.models.gguf_files import gguf_file
from posttrain.models.load import load_policy, load_tokenizer
from posttrain.scoring.pool import RewardPool
from posttrain.tasks import Task
from posttrain.watching.progress import Progress
from posttrain.watching.quiet import quiet_libraries


def evaluate_model(
    model: str,
    task: Task,
    *,
    k: Sequence[int] = (1,),
    samples: int = 1,
    temperature: float = 1.0,
    max_completion_length: int = 512,
    batch_size: int = 64,
    seed: int = 0,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Evaluate a model (hub id, folder, an adapter included, or GGUF file) on a task's held-out rows.

    Args:
        model: Hub id, local folder, GGUF file, or the name of a packaged model (`gguf_files.PACKAGED`).
        task: Gives the rows, by `seed`, and the reward that defines a pass.
        k, samples, temperature: Of the sampled pass@k; greedy pass@1 is always there.
        max_completion_length: Tokens.
        batch_size: Completions generated at once.
        seed: Of the task's rows, the samples and the bootstrap.
        device: `auto` takes a GPU if there is one.
        trust_remote_code: Run code that comes with the model.

    Returns:
        A record as in eval.jsonl, with stage `eval`.
    """
    quiet_libraries()
    on_gpu = torch.cuda.is_available() and device != "cpu"
    source = gguf_file(model, "MODEL") or model
    with loading(source, "MODEL"):
        tokenizer = load_tokenizer(source, trust_remote_code=trust_remote_code)
        dtype = "bfloat16" if on_gpu else "float32"
        policy = load_policy(source, dtype=dtype, trainable=False, trust_remote_code=trust_remote_code)
    rewards = task_rewards(task)
    if not rewards:
        raise ConfigError(
            f"the task {task.name} has no reward of its own",
            expected="a task whose reward defines a pass: knights_knaves, math or json_structure",
            where="--task",
            fix="evaluate such rows in a run: its recipe's rewards judge them",
        )
    with RewardPool(rewards) as pool, Progress([], plain=None) as progress:
        result = evaluate(
            policy.to("cuda" if on_gpu else "cpu"),
            tokenizer,
            fit_to_model(task.load(seed).eval, tokenizer),
            rewards,
            k=k,
            samples=samples,
            temperature=temperature,
            max_new_tokens=max_completion_length,
            batch_size=batch_size,
            seed=seed,
            slice_by=task.slice_by,
            pool=pool,
            on_progress=progress.track("eval"),
        )
    return result.record("eval", 0)
