"""The statistics that `gac` goes by: against the definition, and over a step in other pieces."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from posttrain.controllers import GAC
from posttrain.training.row_statistics import RowStatistics
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import hybrid_args, sparse_reward


def test_by_hand():
    rows = RowStatistics("phi")
    logps = torch.tensor([[0.5, 0.1], [0.5, 1.0]]).log()
    rows.demonstrations(logps, torch.tensor([[True, True], [True, False]]))
    rows.rollouts(torch.tensor([[0.5, 0.2]]).log(), torch.tensor([[1, 0]]), torch.tensor([2.0]))
    rows.rollouts(torch.tensor([[0.5]]).log(), torch.tensor([[1]]), torch.tensor([-1.0]))
    seen = rows.signals()
    nlls = [-(math.log(0.5) + math.log(0.1)) / 2, -math.log(0.5)]
    assert seen["nll_variance"] == pytest.approx((nlls[0] - nlls[1]) ** 2 / 4, rel=1e-5)
    assert seen["advantage_variance"] == pytest.approx(2.25)
    gaps = [(0.25**2 + 0.09**2) / 2, 0.25**2, 1.75**2, 1.25**2]
    assert seen["coefficient_gap"] == pytest.approx(sum(gaps) / 4, rel=1e-5)
    rows.begin()
    rows.demonstrations(logps, torch.ones(2, 2))
    assert rows.signals() == {}, "without completions there is nothing to compare"


def test_the_tenth_at_either_end_is_left_out():
    rows = RowStatistics("nll")
    rows.rollouts(torch.zeros(1, 1), torch.ones(1, 1), torch.zeros(1))
    rows.demonstrations(-torch.tensor([[0.0], *[[float(n)] for n in range(1, 9)], [1e6]]), torch.ones(10, 1))
    assert rows.signals()["nll_variance"] == pytest.approx(5.25)


@pytest.mark.parametrize("packed", [True, False])
def test_a_step_in_other_pieces_has_the_same(model_folder, tokenizer, prompts, demonstrations, tmp_path, packed):
    def first(folder, **changes):
        from transformers import AutoModelForCausalLM

        trainer = HybridTrainer(
            AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32),
            sparse_reward,
            hybrid_args(folder, max_steps=2, sft_weight="phi", **changes),
            prompts,
            processing_class=tokenizer,
            demonstrations=demonstrations,
            controller=GAC(update_every=1, ema=0.0),
        )
        trainer.train()
        return [json.loads(line) for line in (Path(folder) / "steps.jsonl").open()]

    whole = first(tmp_path / "whole", per_device_train_batch_size=16)
    cut = first(tmp_path / "cut", per_device_train_batch_size=4, gradient_accumulation_steps=4, packed=packed)
    for one, other in zip(whole, cut, strict=True):
        for key in ("advantage_variance", "nll_variance", "coefficient_gap", "p"):
            assert other[key] == pytest.approx(one[key], rel=1e-4), key
    assert whole[0]["controller"]["sigma_r2"] == whole[0]["advantage_variance"] > 0
    assert whole[1]["p"] == pytest.approx(0.49)  # the cap's hundredth from init_mu, towards a prior that rises from 0
