"""Packed scoring gives TRL's padded log-probabilities, entropies and gradients, for every family it says yes to."""

from __future__ import annotations

import copy
import json
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaAttention
from trl import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from posttrain.controllers import GRPOOnly
from posttrain.models.attention_names import TREE
from posttrain.models.positions import count_by_mask
from posttrain.packing import attention as tree_attention
from posttrain.packing.families import MORE_IN_EAGER
from posttrain.packing.scores import install, installed, label_scores, row_scores, supports
from posttrain.packing.tree import grow
from posttrain.training.sft_side import add_untempered_head
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import hybrid_args, reward

VOCABULARY, P, C = 61, 12, 9
NAMES = {"gpt2": {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}}
NO_DROPOUT = {"gpt2": ("attn_pdrop", "embd_pdrop", "resid_pdrop")}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
MIXED = {**GROUPED, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {
    **GROUPED, "moe_intermediate_size": 16, "num_experts_per_tok": 2, "num_experts": 4, "num_local_experts": 4,
    "decoder_sparse_step": 1,
}  # fmt: skip
OWN = {
    "gpt2": {}, "gpt_neox": {"rotary_pct": 1.0}, "mistral": {**GROUPED, "sliding_window": None},
    "starcoder2": {"num_key_value_heads": 2, "attention_dropout": 0.0, "residual_dropout": 0.0},
    "phi3": {"num_key_value_heads": 2}, "cohere": {"num_key_value_heads": 2}, "olmo2": {"num_key_value_heads": 2},
    "olmo": {"num_key_value_heads": 2},
    "granite": {"num_key_value_heads": 2, "attention_multiplier": 0.3, "logits_scaling": 2.0},
    "seed_oss": {**GROUPED, "attention_dropout": 0.0, "residual_dropout": 0.0},
    "qwen2_moe": {**EXPERTS, "shared_expert_intermediate_size": 16}, "qwen3_moe": EXPERTS,
    "granitemoe": {"num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2},
    "glm4_moe": {**EXPERTS, "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1},
    "olmoe": {"num_key_value_heads": 2, "num_experts": 4, "num_experts_per_tok": 2},
    "ernie4_5_moe": {**EXPERTS, "moe_num_experts": 4, "moe_k": 2, "moe_layer_start_index": 1},
    "mixtral": {**GROUPED, "num_local_experts": 4, "sliding_window": 4},
    "cohere2": MIXED, "exaone4": MIXED, "gemma3_text": MIXED, "ministral": MIXED, "olmo3": MIXED,
    "ministral3": {**GROUPED, "sliding_window": 4},
    "gemma2": {**MIXED, "query_pre_attn_scalar": 8},
    "gemma4_text": {
        **MIXED, "global_head_dim": 8, "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0,
        "vocab_size_per_layer_input": VOCABULARY,
    },
    "gpt_oss": {**MIXED, "num_local_experts": 4, "num_experts_per_tok": 2},
}  # fmt: skip


def tiny(family: str = "llama", attention: str | None = None, **changes):
    """A small model of a family with TRL's head on it, far enough from its initial values that mistakes show."""
    settings = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2, **OWN.get(family, GROUPED), **dict.fromkeys(NO_DROPOUT.get(family, ()), 0.0), **changes,
    }  # fmt: skip
    attention = attention or ("eager" if family in MORE_IN_EAGER else "sdpa")
    names = NAMES.get(family, {})
    config = CONFIG_MAPPING[family](**{names.get(name, name): value for name, value in settings.items()})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).float().train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    count_by_mask(model)
    add_fused_lm_head(model, temperature=0.7, outputs=("log_probs", "entropy"))
    return model


def rows(groups: list[list[int]], seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Groups of completions of these lengths, after prompts of differing lengths."""
    draw = torch.Generator().manual_seed(seed)
    token = partial(torch.randint, 3, VOCABULARY, generator=draw)
    count = sum(len(group) for group in groups)
    ids, mask = torch.zeros(count, P + C, dtype=torch.long), torch.zeros(count, P + C, dtype=torch.long)
    row = 0
    for group in groups:
        width = int(torch.randint(1, P + 1, (), generator=draw))
        prompt = token((width,))
        for length in group:
            ids[row, P - width : P], mask[row, P - width : P + length] = prompt, 1
            ids[row, P : P + length] = token((length,))
            row += 1
    return ids[:, :P], mask[:, :P], ids[:, P:], mask[:, P:]


BATCHES = {
    "groups of one size": [[9, 3, 5, 1], [4, 4, 8, 2]],
    "groups of unequal sizes": [[9], [2, 6, 7], [1, 5]],
    "one row": [[7]],
    "single tokens": [[1, 1, 1], [1]],
    "rows that are masked whole": [[0, 4, 0], [0, 0], [9, 0]],
    "nothing to score": [[0, 0]],
}


def trl_scores(model, batch, *, autocast=nullcontext):
    """TRL's own method, on a trainer that is nothing but what the method reads."""
    trainer = type("Stub", (), {"accelerator": type("Accelerator", (), {"autocast": staticmethod(autocast)})})()
    ids, mask = torch.cat([batch[0], batch[2]], dim=1), torch.cat([batch[1], batch[3]], dim=1)
    method = GRPOTrainer._get_per_token_logps_and_entropies
    method = getattr(method, "__wrapped__", method)
    return method(trainer, model, ids, mask, batch[2].size(1), compute_entropy=True)[:2]


def gradient(model, scores) -> torch.Tensor:
    """Of a loss that looks at every cell in its own way, entropies included."""
    logps, entropies = scores
    weights = torch.randn(2, *logps.shape, generator=torch.Generator().manual_seed(3))
    model.zero_grad()
    ((weights[0] * logps).sum() + (weights[1] * entropies).sum()).backward()
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters() if p.requires_grad]
    return torch.cat([grad.flatten() for grad in grads])


def assert_same(model, batch, *, logps=2e-5, relative=1e-5, autocast=nullcontext):
    theirs = trl_scores(model, batch, autocast=autocast)
    their_gradient = gradient(model, theirs)
    install(model)
    ours = row_scores(model, *batch, autocast=autocast, entropy=True)
    our_gradient = gradient(model, ours)
    scored = batch[3].bool()
    for mine, trls in zip(ours, theirs, strict=True):
        assert mine.dtype == trls.dtype
        torch.testing.assert_close(mine[scored], trls[scored], rtol=0.0, atol=logps)
        assert not mine[~scored].any()
    if scored.any():
        assert (our_gradient - their_gradient).norm() / their_gradient.norm() < relative
        assert their_gradient.norm() > 1e-2
    else:
        assert not our_gradient.any()
        assert not their_gradient.any()


@pytest.mark.parametrize("name", BATCHES)
def test_batches_of_every_shape(name):
    assert_same(tiny(), rows(BATCHES[name]))


@pytest.mark.parametrize("fault", ["empty prompt", "hole"])
def test_rows_that_no_tree_holds_are_scored_padded(fault):
    batch = rows(BATCHES["groups of one size"])
    if fault == "empty prompt":
        batch[1][0] = 0
    else:
        batch[3][1, 1] = 0
    assert grow(*batch) is None
    model = tiny()
    theirs = trl_scores(model, batch)
    install(model)
    ours = row_scores(model, *batch, autocast=nullcontext, entropy=True)
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_finds_the_layout_again(reentrant):
    model = tiny()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    assert_same(model, rows(BATCHES["groups of unequal sizes"]))


def lora(model, **changes):
    adapted = get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM", **changes))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return adapted.train()


def test_an_adapter_without_a_wrapper():
    """`add_adapter` leaves the model what it is, and has it look like PEFT's."""
    model = tiny()
    model.add_adapter(LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False))
    assert supports(model) is None
    assert_same(model, rows(BATCHES["groups of unequal sizes"]))


def test_an_adapter_without_a_wrapper_trains_on_both_halves(model, tokenizer, prompts, demonstrations, tmp_path):
    model.add_adapter(LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    args = hybrid_args(tmp_path, max_steps=2, demonstration_batch_size=2)
    trainer = HybridTrainer(
        model, reward, args, prompts, processing_class=tokenizer, demonstrations=demonstrations, g_warmup=1.0
    )
    assert installed(model)
    trainer.train()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved
    assert all("lora_" in name for name in moved)


def test_lora():
    model = lora(tiny())
    assert supports(model) is None
    assert_same(model, rows(BATCHES["groups of unequal sizes"]))


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_bf16_autocast(family):
    """Loosely: the order in which bf16 rounds differs."""
    autocast = partial(torch.autocast, "cpu", dtype=torch.bfloat16)
    assert_same(tiny(family), rows(BATCHES["groups of one size"]), logps=0.15, relative=0.05, autocast=autocast)


def test_demonstrations_at_temperature_1():
    model = tiny()
    add_untempered_head(model)
    install(model)
    ids, _, more, _ = rows([[9, 3, 5, 1], [4, 2]])
    ids = torch.cat([ids, more], dim=1).roll(-5, dims=1)
    labels = ids.where(torch.rand(ids.shape, generator=torch.Generator().manual_seed(1)) < 0.4, -100)
    labels[1] = -100
    mask = torch.ones_like(ids)
    padded = model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True, untempered=True).log_probs
    padded_gradient = gradient(model, (padded, padded))
    packed = label_scores(model, ids, labels, autocast=nullcontext, untempered=True)
    torch.testing.assert_close(packed, padded, rtol=0.0, atol=2e-5)
    assert (gradient(model, (packed, packed)) - padded_gradient).norm() / padded_gradient.norm() < 1e-5


def test_sdpa_and_the_merged_kernels_agree():
    tree = grow(*rows(BATCHES["groups of unequal sizes"]))
    positions = tree.input_ids.size(1)
    results = []
    for function in (tree_attention._Merged.apply, tree_attention.masked):
        torch.manual_seed(0)
        shapes = ((1, 4, positions, 8), (1, 2, positions, 8), (1, 2, positions, 8))
        inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
        out = function(*inputs, tree, 0.3)
        (out * torch.randn(out.shape, dtype=torch.float64)).sum().backward()
        results.append([out, *(each.grad for each in inputs)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=1e-12)


def test_a_prepared_model_does_what_it_did(tmp_path):
    model = tiny("qwen2").eval()
    ids, mask, *_ = rows(BATCHES["groups of unequal sizes"])
    sample = {"input_ids": ids, "attention_mask": mask, "max_new_tokens": 8, "do_sample": False}
    before, logits = model.generate(**sample), model(ids, attention_mask=mask).logits
    install(model)
    install(model)
    assert len(model.base_model._forward_hooks) == 1
    assert torch.equal(model.generate(**sample), before)
    assert torch.equal(model(ids, attention_mask=mask).logits, logits)
    assert torch.equal(copy.deepcopy(model).generate(**sample), before)
    model.save_pretrained(tmp_path)
    assert TREE not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.config._attn_implementation == "sdpa"
    assert torch.equal(loaded.generate(**sample), before)


def test_a_copy_of_a_prepared_model_is_prepared_once():
    model = tiny()
    install(model)
    twin = copy.deepcopy(model)
    install(twin)
    batch = rows(BATCHES["one row"])
    scores = [row_scores(each, *batch, autocast=nullcontext, entropy=False)[0] for each in (model, twin)]
    assert torch.equal(*scores)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lambda: torch.nn.Linear(1, 1), "not a model of transformers"),
        (lambda: tiny("opt", ffn_dim=32, word_embed_proj_dim=32), "model type opt"),
        (lambda: tiny("llama", attention_dropout=0.1), "dropout"),
        (lambda: lora(tiny(), lora_dropout=0.1), "dropout"),
        (lambda: lora(tiny(), alora_invocation_tokens=[5]), "aLoRA"),
        (lambda: tiny("llama", attention="eager"), "packing stands in for sdpa"),
        (lambda: tiny("gemma", use_bidirectional_attention=True), "both directions"),
        (lambda: tiny("llama", rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}), "rotary"),
        (lambda: get_peft_model(tiny(), PromptTuningConfig("CAUSAL_LM", num_virtual_tokens=2)), "learns a prompt"),
    ],
)
def test_what_is_refused_and_why(model, why):
    assert why in supports(model())


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("qwen3_next", "carry a state"),
        ("qwen3_5_text", "carry a state"),
        ("lfm2", "model type lfm2"),
        ("granitemoehybrid", "granitemoehybrid"),
        ("falcon_h1", "falcon_h1"),
        ("opt", "model type opt"),
    ],
)
def test_a_configuration_alone_says_why_not(family, why):
    assert why in supports(CONFIG_MAPPING[family]())


def test_longrope_stays_padded_and_flash_attention_says_so():
    factors = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    assert "the longest row of a batch" in supports(tiny("phi3", rope_parameters=factors))
    config = CONFIG_MAPPING["llama"]()
    config._attn_implementation = "flash_attention_2"
    assert "nobody has compared gradients beside flash_attention_2's" in supports(config)
    config._attn_implementation = "sdpa"
    assert supports(config) is None


class Deaf(LlamaAttention):
    """Like a class that came with a model's weights: it hands on only the keywords that it knows."""

    def forward(self, hidden_states, position_embeddings=None, attention_mask=None, past_key_values=None, **more):
        return super().forward(hidden_states, position_embeddings, attention_mask, past_key_values)


class Another(LlamaForCausalLM):
    """A model of somebody else's under the same `model_type`."""


def with_class(kind, *, attention: bool):
    model = tiny()
    for module in [layer.self_attn for layer in model.model.layers] if attention else [model]:
        module.__class__ = kind
    return model


class Mixer(torch.nn.Module):
    """Not an attention by any name."""


def with_mixer():
    model = tiny()
    model.model.layers[1].self_attn = Mixer()
    return model


def with_forward():
    model = tiny()
    attention = model.model.layers[1].self_attn
    attention.forward = attention.forward
    return model


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lambda: with_class(Deaf, attention=True), "Deaf is not transformers' own"),
        (lambda: with_class(Another, attention=False), "Another is not transformers' own"),
        (with_mixer, "1 attention modules for 2 layers"),
        (with_forward, "forward of LlamaAttention has been replaced"),
    ],
)
def test_code_that_is_not_transformers_own_is_refused(model, why):
    assert why in supports(model())


def test_a_forward_replaced_for_a_whole_class_is_refused(monkeypatch):
    monkeypatch.setattr(LlamaAttention, "forward", Deaf.forward)
    assert "forward of LlamaAttention has been replaced" in supports(tiny())


def test_a_model_that_keeps_the_layout_to_itself_is_left_as_it_was():
    model = with_class(Deaf, attention=True)
    modes = [index % 2 == 0 for index, _ in enumerate(model.modules())]
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode
    assert "Deaf is not told of the layout" in install(model)
    assert not installed(model)
    assert model.config._attn_implementation == "sdpa"
    assert not model.base_model._forward_hooks
    assert [module.training for module in model.modules()] == modes


def test_continuous_batching_keeps_an_attention_that_transformers_pages(model, tokenizer, prompts, tmp_path):
    args = hybrid_args(tmp_path, use_transformers_continuous_batching=True)
    trainer = HybridTrainer(model, reward, args, prompts, processing_class=tokenizer, controller=GRPOOnly())
    assert trainer.model.config._attn_implementation == "sdpa"
    assert not installed(trainer.model)


def test_eager_attention_is_left_alone():
    model = tiny()
    model.set_attn_implementation("eager")
    assert "attention eager" in supports(model)


def test_what_is_kept_for_the_backward_pass_grows_with_the_positions_alone():
    model, kept = tiny(), []
    install(model)
    for groups in (4, 8):
        kept.append(0)

        def keep(tensor):
            kept[-1] += 0 if tensor.is_leaf else tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            row_scores(model, *rows([[9] * 8] * groups, seed=groups), autocast=nullcontext, entropy=False)
    assert kept[1] < 2.1 * kept[0]


def test_the_way_without_cpu_kernels_gives_trls_gradients(monkeypatch):
    monkeypatch.setattr(tree_attention, "_forward", None)
    assert_same(tiny(), rows(BATCHES["groups of unequal sizes"]))
