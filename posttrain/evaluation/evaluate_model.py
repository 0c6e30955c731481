"""Evaluating a model by itself, outside a run: `posttrain eval`."""

from __future__ import annotations

from typing import Any

import torch

from posttrain.errors import ConfigError
from posttrain.evaluation.asked import Asked
from posttrain.evaluation.examiner import Examiner
from posttrain.inputs.inputs import hub_options, load_rewards, loading, policy_options
from posttrain.models.gguf_files import gguf_file
from posttrain.models.load import load_policy, load_tokenizer
from posttrain.tasks import TaskData
from posttrain.watching.progress import Progress
from posttrain.watching.quiet import quiet_libraries


def evaluate_model(asked: Asked, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Evaluate a model on rows, as a run of the recipe would.

    Args:
        asked: The model and the recipe, whose every setting that bears on an evaluation holds here.
        rows: The held-out rows.

    Returns:
        A record as in eval.jsonl, with stage `eval`.
    """
    quiet_libraries()
    recipe = asked.recipe
    if recipe.run.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device is cuda, and torch sees no GPU", where="--device", fix="give --device auto")
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    data = TaskData(eval=rows)
    judges = recipe.evaluate.reward  # what trains is of no account where something else judges
    rewards = load_rewards(recipe.model_copy(update={"rewards": judges}) if judges else recipe, data)
    on_gpu = torch.cuda.is_available() and recipe.run.device != "cpu"
    options = policy_options(recipe, on_gpu=on_gpu)
    if asked.layout is None and recipe.model.dtype == "auto":
        options["dtype"] = "bfloat16" if on_gpu else "float32"
    source = gguf_file(asked.model, "MODEL") or asked.model
    with loading(source, "MODEL"):
        tokenizer = load_tokenizer(source, **hub_options(recipe))
        policy = load_policy(source, **options, trainable=False)
    with (
        Examiner(recipe, data, rewards, tokenizer, on_gpu=on_gpu) as examiner,
        Progress([], plain=None) as progress,
    ):
        return examiner.evaluate(policy, rows, progress.track("eval")).record("eval", 0)
