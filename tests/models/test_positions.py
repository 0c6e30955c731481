"""A row padded on the left is scored as it is alone, and as it was sampled, in every family of transformers."""

from __future__ import annotations

import inspect

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from posttrain.models.positions import DISTANCES, count_by_mask, counts_by_mask, from_mask
from posttrain.packing.scores import FAMILIES

VOCABULARY = 61
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "rotary_dim": 8, "ffn_dim": 48, "dff": 48,
    "num_experts": 4, "moe_topk": 2, "word_embed_proj_dim": 32,
}  # fmt: skip
OWN = {
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]}, "falcon": {"head_dim": None},
    "phi3": {"head_dim": None}, "starcoder2": {"head_dim": None}, "mistral": {"sliding_window": None},
}  # fmt: skip

SHIFTED = (
    "biogpt", "ctrl", "gpt2", "gpt_bigcode", "gpt_neo", "hunyuan_v1_dense", "hunyuan_v1_moe", "openai-gpt", "xglm",
)  # fmt: skip
"""Those that number columns and see them: learned, sinusoidal, and rotary ones behind which queries are normed."""

RIGHT = ("bloom", "codegen", "falcon", "gptj", "mpt", "opt")
"""By the mask, or by distance."""


def tiny(family: str):
    """A small model of a family, far enough from its initial values that positions show."""
    kind = CONFIG_MAPPING[family]
    known = set(inspect.signature(kind.__init__).parameters) | set(kind().to_dict())
    names = {name: kind.attribute_map.get(name, name) for name in SIZES}
    settings = {names[name]: value for name, value in SIZES.items() if names[name] in known}
    settings |= {name: 0.0 for name in known if "drop" in name}
    config = kind(**{name: value for name, value in {**settings, **OWN.get(family, {})}.items() if value is not None})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    """Two rows (2, 13), the first of 5 tokens behind 8 of padding."""
    ids = torch.randint(3, VOCABULARY, (2, 13), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, :8] = ids[0, :8] = 0
    return ids, mask


@torch.no_grad()
def apart(model) -> float:
    """The largest difference of a log-probability in the padded row from the row alone."""
    ids, mask = rows()
    alone = model(ids[:1, 8:], use_cache=False).logits[0].log_softmax(-1)
    padded = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[0, 8:].log_softmax(-1)
    return float((padded - alone).abs().max())


@pytest.mark.parametrize("family", SHIFTED)
def test_padding_does_not_shift_a_row(family):
    model = tiny(family)
    assert apart(model) > 1e-2, "transformers counts by the mask now"
    count_by_mask(model)
    count_by_mask(model)
    assert counts_by_mask(model)
    assert len(model._forward_pre_hooks) == 1
    assert apart(model) < 1e-5


@pytest.mark.parametrize("family", RIGHT)
def test_what_was_right_stays_so(family):
    model = tiny(family)
    assert apart(model) < 1e-5
    count_by_mask(model)
    assert apart(model) < 1e-5


@pytest.mark.parametrize("family", DISTANCES)
def test_where_only_distances_count_nothing_changes(family):
    model = tiny(family)
    ids, mask = rows()
    assert apart(model) < 1e-5
    before = model(input_ids=ids, attention_mask=mask).logits
    count_by_mask(model)
    assert torch.equal(model(input_ids=ids, attention_mask=mask).logits, before)


def test_what_is_left_as_it_is_can_be_packed():
    assert set(DISTANCES) < set(FAMILIES)


def test_rotary_positions_that_are_scaled_by_the_longest_row_go_by_the_mask():
    model = tiny("llama")
    model.config.rope_parameters = {**model.config.rope_parameters, "rope_type": "dynamic"}
    count_by_mask(model)
    assert counts_by_mask(model)


def test_positions_that_are_given_are_taken():
    model = tiny("gpt2")
    ids, mask = rows()
    shifted = {"input_ids": ids, "attention_mask": mask, "position_ids": torch.arange(13)[None].expand(2, -1)}
    before = model(**shifted).logits
    count_by_mask(model)
    assert torch.equal(model(**shifted).logits, before)


def test_a_row_with_nothing_in_it_has_positions():
    assert from_mask(torch.tensor([[0, 0, 1, 1, 0], [0] * 5])).tolist() == [[0, 0, 0, 1, 1], [0] * 5]


@pytest.mark.parametrize("adapter", ["lora", "prefix"])
def test_under_an_adapter(adapter):
    torch.manual_seed(0)
    lora = LoraConfig(target_modules=["c_attn"], init_lora_weights=False, task_type="CAUSAL_LM")
    prefix = PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    model = get_peft_model(tiny("gpt2"), lora if adapter == "lora" else prefix).eval()
    assert apart(model) > 1e-2
    count_by_mask(model)
    assert counts_by_mask(model)
    assert apart(model) < 1e-5
