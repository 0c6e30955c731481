"""What a run evaluates with."""

from __future__ import annotations

import pytest
import torch

from posttrain.evaluation.examiner import Examiner
from posttrain.recipe.recipe import load_recipe
from posttrain.tasks import TaskData


@pytest.mark.parametrize(
    ("args", "on_gpu", "dtype"),
    [
        ("{}", True, torch.bfloat16),  # TRL's default
        ("{bf16: true}", True, torch.bfloat16),
        ("{bf16: false}", True, torch.float32),
        ("{fp16: true, bf16: false}", True, torch.float16),
        ("{fp16: true}", False, torch.float32),
    ],
)
def test_evaluations_compute_in_what_training_computes_in(tmp_path, args, on_gpu, dtype):
    (tmp_path / "r.yaml").write_text(f"model: m\ntask: knights_knaves\nhybrid: {{args: {args}}}\n")
    recipe = load_recipe(tmp_path / "r.yaml")
    with Examiner(recipe, TaskData(train=[], eval=[], demonstrations=[]), [], None, on_gpu=on_gpu) as examiner:
        assert examiner._dtype == dtype
