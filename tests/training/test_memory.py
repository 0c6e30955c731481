"""What the KL is held in memory for: a copy of what trains, and under LoRA no second model, ours or TRL's."""

from __future__ import annotations

import gc

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensor

from posttrain.controllers import GRPOOnly
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import hybrid_args, reward

ARMS = {"none": {"kl_sample": 0.0}, "kl": {"kl_sample": 1.0}, "beta": {"kl_sample": 0.0, "beta": 0.1}}


@pytest.fixture
def trained(model_folder, tokenizer, prompts, tmp_path):
    """`trained(arm, lora)` is a trainer after two steps."""

    def train(arm: str, lora: bool) -> HybridTrainer:
        from posttrain.models.load import load_policy

        model = load_policy(model_folder)
        if lora:
            model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
        args = hybrid_args(tmp_path / arm, max_steps=2, **ARMS[arm])
        trainer = HybridTrainer(model, reward, args, prompts, processing_class=tokenizer, controller=GRPOOnly())
        trainer.train()
        return trainer

    return train


def base_weights(trainer: HybridTrainer) -> int:
    """Tensors of the policy that are no adapter's."""
    return sum("lora_" not in name for name, _ in trainer.model.named_parameters())


def copies_of_the_embedding(trainer: HybridTrainer) -> int:
    """Tensors in this process of the embedding's shape, gradients and the optimizer's included."""
    shape = trainer.accelerator.unwrap_model(trainer.model).get_input_embeddings().weight.shape
    gc.collect()
    # Tensors of torch's own tracing, which other tests may have left, have no memory and may have no shape
    tensors = (each for each in gc.get_objects() if isinstance(each, torch.Tensor) and not isinstance(each, FakeTensor))
    alive = (each for each in tensors if each.shape == shape)
    return len({each.data_ptr() for each in alive})


@pytest.mark.parametrize("arm", ["kl", "beta"])
def test_under_lora_no_second_model_is_held(trained, arm):
    before = trained("none", lora=True)
    expected = base_weights(before), copies_of_the_embedding(before)
    del before
    trainer = trained(arm, lora=True)
    assert trainer.ref_model is None
    assert (base_weights(trainer), copies_of_the_embedding(trainer)) == expected
    record = trainer.last_record
    assert arm == "beta" or record["kl"] > 0, "and it is measured"


@pytest.mark.parametrize(("arm", "second_model"), [("kl", False), ("beta", True)])
def test_of_a_whole_model_one_copy_is_held(trained, arm, second_model):
    before = trained("none", lora=False)
    expected = copies_of_the_embedding(before)
    del before
    trainer = trained(arm, lora=False)
    assert (trainer.ref_model is not None) == second_model
    assert copies_of_the_embedding(trainer) == expected + 1
