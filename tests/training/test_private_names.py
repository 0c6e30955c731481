"""The private names of TRL and transformers that we build on are still what they were when we did."""

from __future__ import annotations

import inspect

import pytest
import trl
from transformers import Trainer
from trl import GRPOTrainer

from posttrain import trainer as hybrid
from posttrain import whole_checkpoints
from posttrain.trainer import HybridTrainer
from tests.training.conftest import hybrid_args, reward


@pytest.mark.parametrize("name", hybrid.PRIVATE_NAMES)
def test_a_private_method_of_trl_takes_what_it_took(name):
    installed = tuple(inspect.signature(getattr(GRPOTrainer, name)).parameters)
    known = hybrid.PRIVATE_NAMES[name]
    assert installed[: len(known)] == known, f"GRPOTrainer.{name} of trl {trl.__version__} takes {installed}"


@pytest.mark.parametrize("name", whole_checkpoints.PRIVATE_NAMES)
def test_a_private_method_of_transformers_takes_what_it_took(name):
    installed = tuple(inspect.signature(getattr(Trainer, name)).parameters)
    assert installed == whole_checkpoints.PRIVATE_NAMES[name], f"Trainer.{name} takes {installed}"


def test_every_private_method_that_is_overridden_is_listed():
    listed = {*hybrid.PRIVATE_NAMES, *whole_checkpoints.PRIVATE_NAMES}
    ours = {*vars(HybridTrainer), *vars(whole_checkpoints.WholeCheckpoints)}
    inherited = {name for base in GRPOTrainer.__mro__ for name in vars(base)}
    overridden = {name for name in ours & inherited if name.startswith("_") and not name.startswith("__")}
    assert overridden <= listed, f"not listed: {overridden - listed}"


def test_the_private_attributes_are_there_and_the_rollouts_have_their_keys(model, tokenizer, prompts, tmp_path):
    trainer = GRPOTrainer(model, reward, hybrid_args(tmp_path, max_steps=1), prompts, processing_class=tokenizer)
    for name in hybrid.PRIVATE_ATTRIBUTES:
        assert hasattr(trainer, name), f"GRPOTrainer has no {name} any more"
    trainer.train()
    rollouts = trainer._buffered_inputs[0]
    assert {"prompt_ids", "prompt_mask", "completion_ids", "completion_mask"} <= rollouts.keys()
    assert {"prompt", "completion", "advantages", "rewards"} <= trainer._logs.keys()
