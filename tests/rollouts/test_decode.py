"""Our decoding loop gives the tokens of model.generate(); what it doesn't know goes to model.generate()."""

from __future__ import annotations

import random
from functools import partial

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GenerationConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from posttrain.errors import TrainingError
from posttrain.models.attention_names import TREE
from posttrain.models.inference import inference
from posttrain.packing import attention as tree_attention
from posttrain.rollouts import decode as module
from posttrain.rollouts import transformers as sampling_module
from posttrain.rollouts.choice import Choice, sampler
from posttrain.rollouts.decode import NotPlain, decode, why_not
from posttrain.rollouts.sampling import Sampling
from posttrain.rollouts.transformers import _generate, _up_to_the_end, sample_tokens

VOCABULARY = 60
SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
COMMON = {"vocab_size": VOCABULARY, "max_position_embeddings": 128, "initializer_range": 0.3, "eos_token_id": 1}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE, **COMMON),
    "llama-gqa": LlamaConfig(num_key_value_heads=2, **SHAPE, **COMMON),
    "qwen2": Qwen2Config(num_key_value_heads=1, **SHAPE, **COMMON),
    "qwen3": Qwen3Config(num_key_value_heads=2, head_dim=16, **SHAPE, **COMMON),
    "mistral": MistralConfig(num_key_value_heads=2, sliding_window=None, **SHAPE, **COMMON),
    "gemma": GemmaConfig(num_key_value_heads=1, head_dim=16, **SHAPE, **COMMON),
    "gpt_neox": GPTNeoXConfig(**SHAPE, **COMMON),
    "gpt2": GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=VOCABULARY, n_positions=128, initializer_range=0.3, eos_token_id=1
    ),
}
SLIDING = MistralConfig(num_key_value_heads=2, sliding_window=6, **SHAPE, **COMMON)
GROUPS = [(3, 4), (9, 4), (1, 4), (6, 1), (9, 2)]
"""Tokens of each prompt and rows of it."""
BATCHES = [
    (GROUPS, 1, (1, 5)),
    ([(7, 1)], 60, (1,)),
    ([(1, 3)], 60, (1, 5)),
    ([(1, 1)], 1, ()),
    ([(5, 4), (5, 4)], 60, (1, 5)),
    (GROUPS, 50, ()),
    (GROUPS, 50, tuple(range(2, VOCABULARY, 3))),
    ([(60, 2), (2, 2)], 50, (1,)),
]
"""Groups, the limit on a completion and the tokens that end one."""


class Tokenizer:
    """What `sample_tokens` asks of one."""

    pad_token_id, bos_token_id = 0, None


def build(config, *, attention: str = "sdpa") -> PreTrainedModel:
    # float64: the last bits, which depend on the size of a batch, are far below those of the logits, float32
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).double().eval()
    model.generation_config.eos_token_id = None  # generate() takes that for want of another
    return model


def prompts(groups=GROUPS) -> list[list[int]]:
    rng = random.Random(0)
    return [ids for size, rows in groups for ids in [[rng.randrange(2, VOCABULARY) for _ in range(size)]] * rows]


def seeds(rows) -> list[tuple[int, ...]]:
    return [(7, row) for row in range(len(rows))]


def theirs(model, rows, sampling, eos_ids) -> list[list[int]]:
    config = GenerationConfig(
        max_new_tokens=sampling.max_tokens, do_sample=False, eos_token_id=eos_ids or None, pad_token_id=0,
        repetition_penalty=sampling.repetition_penalty, disable_compile=True,
    )  # fmt: skip
    with inference(model):
        found = _generate(model, rows, config, sampler(seeds(rows), sampling, "cpu"))
    return [_up_to_the_end(row, set(eos_ids))[0] for row in found]


def ours(model, rows, sampling, eos_ids, **more) -> list[list[int]]:
    with inference(model):
        choice = Choice(sampler(seeds(rows), sampling, "cpu"))
        return decode(model, rows, choice, max_new_tokens=sampling.max_tokens, eos_ids=eos_ids, **more)


def check(model, rows=None, sampling=None, eos_ids=(1, 5, 9)) -> list[list[int]]:
    """That both give the same, which is returned."""
    rows = prompts() if rows is None else rows
    sampling = sampling or Sampling(max_tokens=70)
    assert why_not(model) is None
    found = ours(model, rows, sampling, eos_ids)
    assert found == theirs(model, rows, sampling, eos_ids)
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_tokens_are_those_of_generate(name):
    model = build(CONFIGS[name])
    found = check(model)
    assert len({len(row) for row in found}) > 5, "rows end at different times"
    assert len({tuple(row) for row in found}) == len(found)
    check(model, sampling=Sampling(max_tokens=12, temperature=0.0))


@pytest.mark.parametrize("attention", ["eager", TREE])
def test_other_attention_functions_are_left_as_they_were(attention):
    tree_attention.register()
    model = build(CONFIGS["llama-gqa"], attention=attention)
    check(model.float() if attention == "eager" else model)  # transformers' own masks are float32's here
    assert model.config._attn_implementation == attention


@pytest.mark.parametrize(
    "how", [{"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1}, {"temperature": 1.4, "top_k": 20}]
)
def test_warpers_are_those_of_generate(how):
    check(build(CONFIGS["llama"]), sampling=Sampling(max_tokens=30, **how))


@pytest.mark.parametrize(("groups", "limit", "eos_ids"), BATCHES)
def test_batches_and_limits_of_all_kinds(groups, limit, eos_ids):
    check(build(CONFIGS["qwen3"]), prompts(groups), Sampling(max_tokens=limit), eos_ids)


def test_equal_prompts_need_not_stand_together():
    rows = prompts([(3, 1), (8, 1), (5, 1)]) * 3
    model = build(CONFIGS["llama"])
    shapes = []
    hook = model.model.embed_tokens.register_forward_hook(lambda _m, inputs, _o: shapes.append(tuple(inputs[0].shape)))
    try:
        ours(model, rows, Sampling(max_tokens=3), ())
    finally:
        hook.remove()
    assert shapes == [(3, 8), (9, 1), (9, 1)], "each prompt once, and no pass after the last token"
    check(model, rows)


@pytest.mark.parametrize("leave", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("every", [1, 3, 8])
def test_when_rows_leave_and_how_often_is_looked_changes_nothing(monkeypatch, leave, every):
    monkeypatch.setattr(module, "LEAVE", leave)
    monkeypatch.setattr(module, "ROOM", 5)
    monkeypatch.setitem(module.LOOK_EVERY, "cpu", every)
    check(build(CONFIGS["llama-gqa"]), eos_ids=(1, 5, 9, 13, 17))


def test_rows_that_have_ended_are_no_longer_computed(monkeypatch):
    monkeypatch.setattr(module, "LEAVE", 0.0)
    model = build(CONFIGS["llama"])
    rows, batches = prompts(), []
    hook = model.model.embed_tokens.register_forward_hook(lambda _m, inputs, _o: batches.append(inputs[0].shape[0]))
    try:
        found = ours(model, rows, Sampling(max_tokens=70), (1, 5, 9))
    finally:
        hook.remove()
    steps = range(1, max(len(row) for row in found))
    assert batches[1:] == [sum(len(row) > step for row in found) for step in steps]


def test_a_row_is_reported_when_it_ends_and_once():
    model, rows, reported, steps = build(CONFIGS["llama"]), prompts(), [], []
    hook = model.register_forward_hook(lambda *_: steps.append(None))
    try:
        found = ours(
            model, rows, Sampling(max_tokens=40), (1, 5, 9),
            on_row=lambda row, ids: reported.append((row, list(ids), len(steps))),
        )  # fmt: skip
    finally:
        hook.remove()
    assert sorted(row for row, *_ in reported) == list(range(len(rows)))
    assert all(found[row] == ids and len(ids) == step for row, ids, step in reported)
    assert len({step for *_, step in reported}) > 3


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_sample_tokens_reports_rows_however_they_are_sampled(monkeypatch, penalty):
    model, rows, reported = build(CONFIGS["llama"]), prompts(), {}
    sampling = Sampling(max_tokens=20, repetition_penalty=penalty)
    calls = spy(monkeypatch)
    with inference(model):
        found = sample_tokens(
            model, rows, seeds(rows), sampling, tokenizer=Tokenizer, eos_ids=[1, 5],
            on_row=lambda row, ids: reported.update({row: list(ids)}),
        )  # fmt: skip
    assert [reported[row] for row in range(len(rows))] == found == theirs(model, rows, sampling, [1, 5])
    assert calls == (["drafted"] if penalty == 1.0 else ["generate"])


def test_adapters_apply():
    model = build(CONFIGS["llama-gqa"])
    plain = check(model)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear")).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.double()
    found = check(adapted)
    assert found != plain
    with adapted.disable_adapter():
        assert check(adapted) == plain


def test_under_autocast_tokens_are_those_of_generate():
    model, rows, sampling = build(CONFIGS["llama-gqa"]).float(), prompts([(4, 4), (7, 4)]), Sampling(max_tokens=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pairs = list(zip(ours(model, rows, sampling, ()), theirs(model, rows, sampling, ()), strict=True))
    assert sum(a == b for a, b in pairs) >= len(pairs) - 2, "bfloat16 can tip a token"


def spy(monkeypatch) -> list[str]:
    """Which of the three was called."""
    calls = []

    def watched(name, function):
        return lambda *args, **more: (calls.append(name), function(*args, **more))[1]

    for name, attribute in (("drafted", "decode_drafted"), ("decode", "decode"), ("generate", "_generate")):
        monkeypatch.setattr(sampling_module, attribute, watched(name, getattr(sampling_module, attribute)))
    return calls


def replaced():
    model = build(CONFIGS["llama"])
    model.generate = partial(model.generate, suppress_tokens=[7])
    return model


def with_prefix():
    return get_peft_model(build(CONFIGS["llama"]), PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: build(SLIDING), "layers other than full attention"),
        (with_prefix, "goes by the prompt"),
        (replaced, "inputs of its own"),
    ],
)
def test_what_is_not_known_goes_to_generate(monkeypatch, make, why):
    model, rows, sampling = make().double().eval(), prompts(), Sampling(max_tokens=20)
    assert why in why_not(model)
    expected = theirs(model, rows, sampling, [1, 5])
    calls = spy(monkeypatch)
    with inference(model):
        found = sample_tokens(model, rows, seeds(rows), sampling, tokenizer=Tokenizer, eos_ids=[1, 5])
    assert found == expected
    assert calls == ["generate"]


def test_processes_in_step_go_to_generate(monkeypatch):
    model, rows = build(CONFIGS["llama"]), prompts()
    monkeypatch.setattr(sampling_module, "_generate", lambda *_, **__: [])  # needs a group of processes
    calls = spy(monkeypatch)
    with inference(model):
        for synced in (None, False, True):
            sample_tokens(
                model, rows, seeds(rows), Sampling(max_tokens=2), tokenizer=Tokenizer, eos_ids=[], synced=synced
            )
    assert calls == ["drafted", "drafted", "generate"]


def test_a_model_that_keeps_something_else_is_found_out_before_anything_is_sampled(monkeypatch):
    model, rows, sampling = build(CONFIGS["llama"]), prompts(), Sampling(max_tokens=5)
    attention = model.model.layers[1].self_attn
    attention.layer_idx = 0
    with pytest.raises(NotPlain):  # two layers write into one
        ours(model, rows, sampling, ())
    attend = attention.forward
    attention.forward = lambda *args, past_key_values, **more: attend(*args, past_key_values=None, **more)
    expected = theirs(model, rows[:1], Sampling(max_tokens=1), ())
    calls = spy(monkeypatch)
    with inference(model):
        found = sample_tokens(model, rows[:1], seeds(rows[:1]), Sampling(max_tokens=1), tokenizer=Tokenizer, eos_ids=[])
    assert calls == ["drafted", "decode", "generate"]
    assert found == expected


def test_logits_that_are_not_finite_are_said_so():
    model = build(CONFIGS["llama"])
    model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(TrainingError, match="logits are not finite"):
        ours(model, prompts(), Sampling(max_tokens=5), ())


@pytest.mark.parametrize("eos_ids", [(), (1,), (1, 5)])
def test_what_is_held_is_no_more_than_generate_holds_at_its_peak(eos_ids):
    model, rows, sampling = build(CONFIGS["llama-gqa"]), prompts([(20, 8), (30, 8)]), Sampling(max_tokens=80)
    held: dict[str, int] = {}
    for side, run in (("ours", ours), ("theirs", theirs)):

        def measure(_model, _inputs, keywords, _output, side=side):
            tensors = [each for layer in keywords["past_key_values"].layers for each in (layer.keys, layer.values)]
            size = sum(each.untyped_storage().nbytes() for each in tensors)
            held[side] = max(held.get(side, 0), size)

        hook = model.register_forward_hook(measure, with_kwargs=True)
        try:
            run(model, rows, sampling, eos_ids)
        finally:
            hook.remove()
    assert held["ours"] <= held["theirs"]
