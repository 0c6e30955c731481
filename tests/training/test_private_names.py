"""The private names of TRL and transformers that we build on are still what they were when we did."""

from __future__ import annotations

import inspect

import pytest
import trl
from transformers import Trainer
from trl import GRPOTrainer

from posttrain.training import ahead_side, begun_side, grpo_side, method_side, refilled_side, trainer
from posttrain.training.checkpoints import hybrid as hybrid_checkpoints
from posttrain.training.checkpoints import whole as whole_checkpoints
from posttrain.training.window import side as window_side
from tests.training.conftest import hybrid_args, reward

OURS = {
    trainer: trainer.HybridTrainer,
    grpo_side: grpo_side.GRPOSide,
    ahead_side: ahead_side.AheadSide,
    begun_side: begun_side.BegunSide,
    refilled_side: refilled_side.RefilledSide,
    method_side: method_side.MethodSide,
    window_side: window_side.WindowSide,
    hybrid_checkpoints: hybrid_checkpoints.HybridCheckpoints,
    whole_checkpoints: whole_checkpoints.WholeCheckpoints,
}
OF_TRL = {
    **trainer.PRIVATE_NAMES,
    **grpo_side.PRIVATE_NAMES,
    **ahead_side.PRIVATE_NAMES,
    **begun_side.PRIVATE_NAMES,
    **refilled_side.PRIVATE_NAMES,
    **method_side.PRIVATE_NAMES,
    **hybrid_checkpoints.PRIVATE_NAMES,
    **window_side.PRIVATE_NAMES,
}


@pytest.mark.parametrize("name", OF_TRL)
def test_a_private_method_of_trl_takes_what_it_took(name):
    installed = tuple(inspect.signature(getattr(GRPOTrainer, name)).parameters)
    known = OF_TRL[name]
    assert installed[: len(known)] == known, f"GRPOTrainer.{name} of trl {trl.__version__} takes {installed}"


@pytest.mark.parametrize("name", whole_checkpoints.PRIVATE_NAMES)
def test_a_private_method_of_transformers_takes_what_it_took(name):
    installed = tuple(inspect.signature(getattr(Trainer, name)).parameters)
    assert installed == whole_checkpoints.PRIVATE_NAMES[name], f"Trainer.{name} takes {installed}"


@pytest.mark.parametrize("module", OURS, ids=lambda module: module.__name__.rpartition(".")[2])
def test_every_private_method_that_is_overridden_is_listed(module):
    inherited = {name for base in GRPOTrainer.__mro__ for name in vars(base)}
    private = {name for name in vars(OURS[module]) if name.startswith("_") and not name.startswith("__")}
    overridden = private & inherited
    assert overridden <= module.PRIVATE_NAMES.keys(), f"not listed: {overridden - module.PRIVATE_NAMES.keys()}"


def test_the_device_is_kept_where_it_is_set(tmp_path):
    args = hybrid_args(tmp_path)
    setattr(args, whole_checkpoints.CACHED_DEVICE, "elsewhere")
    assert args.device == "elsewhere"


def test_the_private_attributes_are_there_and_the_rollouts_have_their_keys(model, tokenizer, prompts, tmp_path):
    plain = GRPOTrainer(model, reward, hybrid_args(tmp_path, max_steps=1), prompts, processing_class=tokenizer)
    for name in {
        *trainer.PRIVATE_ATTRIBUTES,
        *grpo_side.PRIVATE_ATTRIBUTES,
        *window_side.PRIVATE_ATTRIBUTES,
        *method_side.PRIVATE_ATTRIBUTES,
        *refilled_side.PRIVATE_ATTRIBUTES,
    }:
        assert hasattr(plain, name), f"GRPOTrainer has no {name} any more"
    plain.train()
    rollouts = plain._buffered_inputs[0]
    assert {"prompt_ids", "prompt_mask", "completion_ids", "completion_mask"} <= rollouts.keys()
    assert {"prompt", "completion", "advantages", "rewards"} <= plain._logs.keys()
