"""Packed passes of every trainer on a CPU go through the head of ours; TRL's own trainers beside them keep theirs."""

from __future__ import annotations

import pytest
from trl import GRPOConfig, GRPOTrainer, SFTConfig

from posttrain.controllers import Alternate
from posttrain.models import head, products
from posttrain.training.trainer import HybridTrainer
from posttrain.training.warmup import WarmupTrainer
from tests.training.conftest import COMMON, hybrid_args, reward


@pytest.fixture
def passes(monkeypatch):
    """Rows of the passes through our head, as they come."""
    seen, ours = [], head.LogProbs.apply
    monkeypatch.setattr(head.LogProbs, "apply", lambda hidden, *more: seen.append(len(hidden)) or ours(hidden, *more))
    return seen


@pytest.mark.skipif(not products.available(), reason="torch has no oneDNN operators")
def test_each_half_and_the_warm_up_go_through_it_and_a_trainer_of_trl_does_not(
    model, tokenizer, prompts, demonstrations, tmp_path, passes
):
    args = hybrid_args(tmp_path / "hybrid", max_steps=2)
    given = {"processing_class": tokenizer}
    HybridTrainer(
        model, reward, args, prompts, demonstrations=demonstrations, controller=Alternate(), **given
    ).train()  # fmt: skip
    both = len(passes)
    assert both >= 2, "one of each half"
    warm = SFTConfig(str(tmp_path / "warm"), max_steps=1, per_device_train_batch_size=16, **COMMON)
    WarmupTrainer(model, warm, train_dataset=demonstrations, **given).train()
    assert len(passes) > both
    plain = GRPOConfig(
        **COMMON, output_dir=str(tmp_path / "trl"), max_steps=1, per_device_train_batch_size=8, num_generations=4,
        max_completion_length=8,
    )  # fmt: skip
    passes.clear()
    GRPOTrainer(model, reward, plain, prompts, **given).train()
    assert not passes
