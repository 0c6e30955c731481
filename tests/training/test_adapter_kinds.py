"""For each kind of adapter: the policy is the same after a trainer was made, saved and loaded, merged, and in between.

What a recipe is refused instead is in tests/recipe/test_adapter_kinds.py.
"""

from __future__ import annotations

import peft
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen2Config, Qwen2ForCausalLM

from posttrain.controllers import GRPOOnly
from posttrain.errors import ConfigError, ResumeError
from posttrain.models.load import load_policy
from posttrain.models.merging import merge
from posttrain.models.policy_weights import REFERENCE
from posttrain.models.snapshot import PolicySnapshot
from posttrain.running.policies import save_whole
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import hybrid_args, reward

TOKEN = 61
IDS = torch.tensor([[TOKEN, 5, 9, 2, 40, 7, 11, 8]])
ROUND_OFF = 5e-6

KINDS = {
    "plain": {},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "random": {"init_lora_weights": False},
    "mica": {"init_lora_weights": "mica"},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "patterns": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}},
    "one layer": {"target_modules": ["q_proj"], "layers_to_transform": [1]},
    "parameters": {"target_modules": ["v_proj"], "target_parameters": ["q_proj.weight"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "dora on the embedding": {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True},
    "whole head": {"modules_to_save": ["lm_head"]},
    "whole embedding": {"modules_to_save": ["embed_tokens"]},
    "whole both, apart": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "whole both, tied": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "biases": {"bias": "all"},
    "biases of its layers": {"bias": "lora_only", "target_modules": ["q_proj"]},
    "bdlora": {
        "target_modules": ["q_proj", "o_proj"],
        "use_bdlora": {"target_modules_bd_a": ["o_proj"], "target_modules_bd_b": ["q_proj"], "nblocks": 2},
    },
    "velora": {"velora_config": {"num_groups": 1}},
    "alora": {"alora_invocation_tokens": [TOKEN]},
}
UNMERGED = {"alora": "PEFT cannot merge"}
WITHOUT_REFERENCE = ("biases", "biases of its layers")


def logits(model, ids=IDS):
    model.eval()
    with torch.no_grad():
        return model(input_ids=ids).logits


def apart(one, other):
    return float((one - other).abs().max())


@pytest.fixture(scope="module")
def base(tokenizer, tmp_path_factory):
    """A model with biases, whose LM head is its embedding."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def moved(model):
    """A training stage's worth of change to everything that trains."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    return model


def adapted(base, **kind):
    config = LoraConfig(**({"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | kind))
    return moved(get_peft_model(load_policy(base), config))


def trainer(model, tokenizer, prompts, folder, **args):
    args = hybrid_args(folder, gradient_checkpointing=False, **args)
    return HybridTrainer(model, reward, args, prompts, processing_class=tokenizer, controller=GRPOOnly())


@pytest.mark.parametrize("name", KINDS)
def test_the_policy_stays_what_it_is(base, tokenizer, prompts, tmp_path, name):
    policy = adapted(base, **KINDS[name])
    expected = logits(policy)
    assert apart(expected, logits(load_policy(base))) > 100 * ROUND_OFF

    beta = 0.0 if name in WITHOUT_REFERENCE else 0.04
    made = trainer(policy, tokenizer, prompts, tmp_path / "run", beta=beta)
    assert torch.equal(logits(policy), expected)
    scored = made._logps_of([[TOKEN, 9]], [[4, 7]])[0]
    with torch.no_grad():
        alone = policy.eval()(input_ids=torch.tensor([[TOKEN, 9, 4, 7]])).logits[0].log_softmax(-1)
    assert scored == pytest.approx([float(alone[1, 4]), float(alone[2, 7])], abs=ROUND_OFF)
    if beta:
        policy.set_adapter(REFERENCE)
        assert torch.equal(logits(policy), expected)
        policy.set_adapter("default")

    save_whole(tmp_path / "saved", made.model, tokenizer)
    assert torch.equal(logits(load_policy(tmp_path / "saved")), expected)
    (tmp_path / "merged").mkdir()
    if name in UNMERGED:
        with pytest.raises(ConfigError, match=UNMERGED[name]):
            merge(tmp_path / "saved", tmp_path / "merged")
    else:
        merge(tmp_path / "saved", tmp_path / "merged")
        assert apart(logits(load_policy(tmp_path / "merged")), expected) < ROUND_OFF

    start = PolicySnapshot(policy)
    assert apart(logits(moved(policy)), expected) > 100 * ROUND_OFF
    with start.swapped_into(policy):
        assert torch.equal(logits(policy), expected)


@pytest.mark.parametrize("name", ["mica", "dora", "embedding", "whole both, tied", "biases", "alora"])
def test_stopped_and_resumed_is_one_go(base, tokenizer, prompts, tmp_path, name):
    beta = 0.0 if name in WITHOUT_REFERENCE else 0.04
    settings = {"beta": beta, "max_steps": 2, "save_steps": 1, "save_strategy": "steps", "learning_rate": 1e-2}
    ids = tokenizer(prompts[0]["prompt"], return_tensors="pt")["input_ids"]
    kind = KINDS[name] | ({"alora_invocation_tokens": [int(ids[0, -1])]} if name == "alora" else {})
    began = adapted(base, **kind)
    save_whole(tmp_path / "began", began, tokenizer)
    start = logits(began, ids)
    whole = trainer(load_policy(tmp_path / "began"), tokenizer, prompts, tmp_path / "run", **settings)
    whole.train()
    ended = logits(whole.model, ids)
    assert apart(ended, start) > 100 * ROUND_OFF
    again = trainer(load_policy(tmp_path / "began"), tokenizer, prompts, tmp_path / "run", **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
    assert torch.equal(logits(again.model, ids), ended)
    if beta:  # what the KL penalty is taken against is the start, not the checkpoint
        again.model.set_adapter(REFERENCE)
        assert torch.equal(logits(again.model, ids), start)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_a_model_in_memory_whose_base_was_rewritten_is_not_rewritten_again(base, tokenizer, prompts, tmp_path, init):
    policy = adapted(base, init_lora_weights=init)
    expected = logits(policy)
    trainer(policy, tokenizer, prompts, tmp_path, beta=0.04)
    assert torch.equal(logits(policy), expected)
    assert policy.peft_config["default"].init_lora_weights == init
    policy.set_adapter(REFERENCE)
    assert torch.equal(logits(policy), expected)


def test_a_folder_whose_base_is_made_anew_at_each_load_is_refused(base, tmp_path):
    adapted(base, init_lora_weights="pissa_niter_2").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"an adapter with init_lora_weights 'pissa_niter_2'"):
        load_policy(tmp_path)


@pytest.mark.parametrize(
    ("kind", "beta", "why"),
    [
        ({"target_modules": ["lm_head"]}, 0.0, "past the adapter"),
        ({"target_modules": ["embed_tokens"], "ensure_weight_tying": True}, 0.04, "past the adapter"),
        ({"trainable_token_indices": [3]}, 0.0, "past the adapter"),
        ({"bias": "all"}, 0.04, "one adapter with a bias at a time"),
    ],
)
def test_what_grpo_cannot_train_is_said_in_words(base, tokenizer, prompts, tmp_path, kind, beta, why):
    with pytest.raises(ConfigError, match=why):
        trainer(adapted(base, **kind), tokenizer, prompts, tmp_path, beta=beta)


@pytest.mark.parametrize(
    ("other", "said"),
    [({"lora_alpha": 32}, "has lora_alpha 32, the model's has 8"),
     ({"modules_to_save": ["lm_head"]}, r"has 1 weight that the model's lacks, such as .*lm_head\.weight"),
     ({"target_modules": ["q_proj"]}, r"lacks 24 weights of the model's, such as .*down_proj\.lora_A")],
)  # fmt: skip
def test_a_checkpoint_of_another_adapter(base, tokenizer, prompts, tmp_path, other, said):
    settings = {"max_steps": 1, "save_steps": 1, "save_strategy": "steps"}
    trainer(adapted(base, **other), tokenizer, prompts, tmp_path, **settings).train()
    with pytest.raises(ResumeError, match=said):
        trainer(adapted(base), tokenizer, prompts, tmp_path, **settings).train(resume_from_checkpoint=True)


def test_fields_that_nobody_has_looked_at():
    """A field that PEFT gains is tried (above), refused, or on this list, before recipes may ask for it."""
    from posttrain.recipe.adapter_kinds import CHANGES_BASE, REFUSED
    from posttrain.recipe.library_fields import LORA_ELSEWHERE, library_fields
    from posttrain.recipe.library_fields import REFUSED as CODE

    tried = {name for kind in KINDS.values() for name in kind} | {"r", "lora_alpha", "lora_dropout"}
    harmless = {
        "exclude_modules", "fan_in_fan_out", "layers_pattern", "qalora_group_size", "peft_version",
    }  # fmt: skip
    left = (
        library_fields("peft.LoraConfig") - tried - set(REFUSED) - set(CHANGES_BASE) - set(LORA_ELSEWHERE) - set(CODE)
    )
    assert left <= harmless, f"PEFT {peft.__version__}: {sorted(left - harmless)}"
