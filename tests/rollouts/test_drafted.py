"""Whatever is guessed, the loop that reads guesses gives the tokens of the plain loop; good guesses save passes."""

from __future__ import annotations

import gc
import itertools
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    DiffLlamaConfig,
    GPTBigCodeConfig,
    JetMoeConfig,
    LlamaConfig,
)

from posttrain.errors import TrainingError
from posttrain.models.inference import inference
from posttrain.rollouts import lane_cache, row_buffers
from posttrain.rollouts.choice import Choice, sampler
from posttrain.rollouts.drafted import decode_drafted
from posttrain.rollouts.drafts import CONTEXTS, Drafts, Texts
from posttrain.rollouts.kv_buffers import NotPlain
from posttrain.rollouts.sampling import Sampling
from posttrain.rollouts.transformers import sample_tokens
from tests.rollouts.test_decode import (
    BATCHES,
    COMMON,
    CONFIGS,
    SHAPE,
    VOCABULARY,
    Tokenizer,
    build,
    ours,
    prompts,
    seeds,
    spy,
)

BIGCODE = GPTBigCodeConfig(
    vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128, n_inner=48, initializer_range=0.3
)


class Random(Drafts):
    """Guesses of all lengths, which are hardly ever right."""

    def __init__(self):
        super().__init__()
        self._rng = random.Random(5)

    def after(self, ids, most, least):
        return [self._rng.randrange(VOCABULARY) for _ in range(self._rng.randint(0, max(0, most)))]


class Prophet(Drafts):
    """Guesses that are right up to a random place, which is known from the rows as they will be."""

    def __init__(self, rows, completions):
        super().__init__()
        self._whole = [[*ids, *more] for ids, more in zip(rows, completions, strict=True)]
        self._rng = random.Random(6)

    def after(self, ids, most, least):
        whole = self._rng.choice([each for each in self._whole if each[: len(ids)] == list(ids)])
        guess = whole[len(ids) : len(ids) + most]
        wrong = self._rng.randrange(len(guess) + 1)
        return [*guess[:wrong], *(self._rng.randrange(VOCABULARY) for _ in guess[wrong:])]


def drafted(model, rows, sampling, eos_ids, drafts=None, **more):
    with inference(model):
        return decode_drafted(
            model, rows, Choice(sampler(seeds(rows), sampling, "cpu")), drafts or Drafts(),
            max_new_tokens=sampling.max_tokens, eos_ids=eos_ids, **more,
        )  # fmt: skip


def passes_of(model, run):
    """What came, and the tokens read in each pass."""
    shapes = []
    hook = model.get_input_embeddings().register_forward_hook(lambda _m, inputs, _o: shapes.append(inputs[0].numel()))
    try:
        return run(), shapes
    finally:
        hook.remove()


@pytest.mark.parametrize("name", CONFIGS)
def test_tokens_are_those_of_the_plain_loop_whatever_is_guessed(name):
    model, rows = build(CONFIGS[name]), prompts()
    for sampling in (Sampling(max_tokens=40), Sampling(max_tokens=12, temperature=0.0)):
        plain = ours(model, rows, sampling, (1, 5, 9))
        for drafts in (Drafts(), Random(), Prophet(rows, plain)):
            assert drafted(model, rows, sampling, (1, 5, 9), drafts) == plain


def test_one_key_for_all_heads():
    model, rows, sampling = build(BIGCODE), prompts(), Sampling(max_tokens=40)
    plain = ours(model, rows, sampling, (1, 5, 9))
    assert drafted(model, rows, sampling, (1, 5, 9), Prophet(rows, plain)) == plain


@pytest.mark.parametrize("how", [{"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1}])
def test_warpers_apply_at_every_place(how):
    model, rows, sampling = build(CONFIGS["llama"]), prompts(), Sampling(max_tokens=30, **how)
    plain = ours(model, rows, sampling, (1, 5))
    assert drafted(model, rows, sampling, (1, 5), Prophet(rows, plain)) == plain


@pytest.mark.parametrize(("groups", "limit", "eos_ids"), BATCHES)
def test_batches_and_limits_of_all_kinds(groups, limit, eos_ids):
    model, rows, sampling = build(CONFIGS["qwen3"]), prompts(groups), Sampling(max_tokens=limit)
    plain = ours(model, rows, sampling, eos_ids)
    assert drafted(model, rows, sampling, eos_ids, Prophet(rows, plain)) == plain


@pytest.mark.parametrize("leave", [0.0, 1.0])
def test_when_rows_leave_and_how_buffers_grow_changes_nothing(monkeypatch, leave):
    monkeypatch.setattr(lane_cache, "LEAVE", leave)
    monkeypatch.setattr(lane_cache, "ROOM", 1)
    monkeypatch.setattr(lane_cache, "GROWTH", 0.0)
    model, rows, sampling = build(CONFIGS["llama-gqa"]), prompts()[::-1] + prompts(), Sampling(max_tokens=60)
    plain = ours(model, rows, sampling, (1, 5, 9, 13))
    assert drafted(model, rows, sampling, (1, 5, 9, 13), Prophet(rows, plain)) == plain


def test_limits_of_rows_and_reports_as_they_end():
    model, rows, sampling = build(CONFIGS["llama"]), prompts(), Sampling(max_tokens=40)
    limits = [min(40, 1 + 3 * row) for row in range(len(rows))]
    plain = ours(model, rows, sampling, (1, 5), limits=limits)
    reported = []
    found = drafted(
        model, rows, sampling, (1, 5), Prophet(rows, plain), limits=limits,
        on_row=lambda row, ids: reported.append((row, list(ids))),
    )  # fmt: skip
    assert found == plain
    assert sorted(reported) == list(enumerate(plain))


def test_right_guesses_save_passes_and_wrong_ones_make_no_more():
    model, rows, sampling = build(CONFIGS["llama"]), prompts([(5, 6)]), Sampling(max_tokens=33, temperature=0.0)
    plain, one_by_one = passes_of(model, lambda: ours(model, rows, sampling, ()))
    assert len(one_by_one) == 33

    class Known(Prophet):
        def after(self, ids, most, least):
            return self._whole[0][len(ids) : len(ids) + most]

    found, shapes = passes_of(model, lambda: drafted(model, rows, sampling, (), Known(rows, plain)))
    assert found == plain
    assert len(shapes) == 4, "the prompt, then 1 and 12 tokens at a time"
    assert shapes == [5, 13, 13, 6], "what six rows have in common is read once"
    _, shapes = passes_of(model, lambda: drafted(model, rows, sampling, (), Random()))
    assert len(shapes) <= 33


def test_what_rows_have_in_common_is_read_once():
    """Of 16 rows of one prompt, as many tokens are read as there are different beginnings of completions."""
    model, rows, sampling = build(CONFIGS["llama"]), prompts([(5, 16), (7, 8)]), Sampling(max_tokens=24, top_k=2)
    plain = ours(model, rows, sampling, (1, 5))
    found, shapes = passes_of(model, lambda: drafted(model, rows, sampling, (1, 5), NoGuess()))
    assert found == plain
    beginnings = {(tuple(ids), tuple(said[:n])) for ids, said in zip(rows, plain, strict=True) for n in range(1, 24)}
    ended = {(tuple(ids), tuple(said)) for ids, said in zip(rows, plain, strict=True) if len(said) < 24}
    assert sum(shapes) == 5 + 7 + len(beginnings - ended)
    assert sum(shapes) < sum(map(len, plain)) * 0.9


def test_lanes_that_part_and_end_leave_their_slots_to_others(monkeypatch):
    moved, copy = [], row_buffers.RowBuffers.copy

    def spied(self, old, new, held):
        moved.append((old.tolist(), new.tolist()))
        copy(self, old, new, held)

    monkeypatch.setattr(row_buffers.RowBuffers, "copy", spied)
    model, rows = build(CONFIGS["llama-gqa"]), prompts([(5, 16), (3, 12)])
    sampling, ends = Sampling(max_tokens=40, top_k=3), tuple(range(0, VOCABULARY, 12))
    plain = ours(model, rows, sampling, ends)
    assert drafted(model, rows, sampling, ends, Prophet(rows, plain)) == plain
    assert any(max(old) > max(new) for old, new in moved), "to where none is any more"
    assert any(len(set(old)) < len(old) for old, _ in moved), "two copies of what parted in three"
    for old, new in moved:
        assert not set(old) & set(new)
        assert len(set(new)) == len(new)


class NoGuess(Drafts):
    """None at all."""

    def after(self, ids, most, least):
        return []


def test_the_law_of_completions_is_the_policys():
    """All 5 + 5 * 4 + ... sequences over 5 tokens, one of which ends, by chi-square against their probabilities."""
    torch.manual_seed(0)
    config = LlamaConfig(**{**SHAPE, **COMMON, "vocab_size": 5, "initializer_range": 0.15})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    prompt, end, longest, count = [2, 3], 1, 4, 12000
    laws = {}

    def spread(said, mass):
        if len(said) == longest or (said and said[-1] == end):
            laws[tuple(said)] = mass
            return
        with torch.no_grad():
            after = model(torch.tensor([[*prompt, *said]])).logits[0, -1].double().softmax(-1)
        for token in range(5):
            spread([*said, token], mass * float(after[token]))

    spread([], 1.0)
    seen = dict.fromkeys(laws, 0)
    guessed, read = 0, 0

    class Counting(Drafts):
        def after(self, ids, most, least):
            nonlocal guessed
            guess = super().after(ids, most, least)
            guessed += len(guess)
            return guess

    for start in range(0, count, 1000):
        numbers = [(11, start + row) for row in range(1000)]
        drafts = Counting(Texts([(each, 0) for each in itertools.islice(laws, 30)]))
        choice = Choice(sampler(numbers, Sampling(max_tokens=longest), "cpu"))
        with inference(model):
            found, shapes = passes_of(
                model,
                lambda choice=choice, drafts=drafts: decode_drafted(
                    model, [prompt] * 1000, choice, drafts, max_new_tokens=longest, eos_ids=(end,)
                ),
            )
        read += sum(shapes)
        for ids in found:
            seen[tuple(ids)] += 1
    often = [each for each, mass in laws.items() if mass * count >= 5]
    rest = count - sum(seen[each] for each in often)
    expected = [laws[each] * count for each in often]
    pairs = zip([*(seen[each] for each in often), rest], [*expected, count - sum(expected)], strict=True)
    statistic, freedom = sum((a - b) ** 2 / b for a, b in pairs), len(often)
    bound = freedom * (1 - 2 / (9 * freedom) + 2.326 * (2 / (9 * freedom)) ** 0.5) ** 3  # 99 %, Wilson and Hilferty
    assert freedom > 100
    assert statistic < bound
    assert sum(seen.values()) == count
    assert guessed > read / 8, "guesses were read"
    assert read < count, "and what completions have in common once"


def test_adapters_apply_and_the_fused_pass_leaves_them_alone():
    model, rows, sampling = build(CONFIGS["llama-gqa"]), prompts(), Sampling(max_tokens=30)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear")).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.double()
    assert drafted(adapted, rows, sampling, (1, 5), Random()) == ours(adapted, rows, sampling, (1, 5))
    assert lane_cache.fused(adapted.float().get_base_model()) is None


def test_of_bfloat16_most_tokens_are_the_same():
    model, rows, sampling = build(CONFIGS["llama-gqa"]).bfloat16(), prompts([(4, 4), (7, 4)]), Sampling(max_tokens=4)
    pairs = zip(drafted(model, rows, sampling, ()), ours(model, rows, sampling, ()), strict=True)
    assert sum(a == b for a, b in pairs) >= len(rows) - 2, "bfloat16 can tip a token"


def test_autocast_is_left_to_the_plain_loop():
    model = build(CONFIGS["llama-gqa"]).float()
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(NotPlain):
        drafted(model, prompts(), Sampling(max_tokens=4), ())


@pytest.mark.parametrize("lacks", ["operator", "attention"])
def test_what_it_is_not_for_goes_to_the_plain_loop(monkeypatch, lacks):
    model, rows, sampling = build(CONFIGS["llama"]), prompts(), Sampling(max_tokens=9)
    if lacks == "operator":
        monkeypatch.setattr(row_buffers, "KERNEL", None)
    else:
        model = build(CONFIGS["llama"], attention="eager").float()
    with pytest.raises(NotPlain):
        drafted(model, rows, sampling, ())
    calls = spy(monkeypatch)
    with inference(model):
        found = sample_tokens(model, rows, seeds(rows), sampling, tokenizer=Tokenizer, eos_ids=[1])
    assert calls == ["drafted", "decode"]
    assert found == ours(model, rows, sampling, [1])


TINY = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "initializer_range": 0.3,
}  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [
        DiffLlamaConfig(num_key_value_heads=2, max_position_embeddings=128, **TINY),
        JetMoeConfig(
            vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_key_value_heads=2, kv_channels=8,
            intermediate_size=48, num_local_experts=2, num_experts_per_tok=1, initializer_range=0.3,
        ),
        LlamaConfig(
            rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}, **SHAPE,
            **{**COMMON, "max_position_embeddings": 8},
        ),
        BertConfig(is_decoder=False, **TINY),
    ],
    ids=lambda config: config.model_type,
)  # fmt: skip
def test_attention_that_would_be_misread_is_found_out_before_anything_is_sampled(config):
    model, rows = build(config), prompts()
    choice = Choice(sampler(seeds(rows), Sampling(max_tokens=5), "cpu"))
    with inference(model), pytest.raises(NotPlain):
        decode_drafted(model, rows, choice, Drafts(), max_new_tokens=5)
    assert choice._draw.position == 0


def test_autocast_inside_a_models_forward_is_left_to_the_plain_loop():
    model, rows = build(CONFIGS["llama"]).float(), prompts()
    model.forward = torch.autocast("cpu", dtype=torch.bfloat16)(model.forward)  # as accelerate prepares it
    with inference(model), pytest.raises(NotPlain):
        decode_drafted(model, rows, Choice(sampler(seeds(rows), Sampling(max_tokens=5), "cpu")), Drafts(),
                       max_new_tokens=5)  # fmt: skip


def test_what_a_call_held_is_let_go_and_threads_do_not_meet():
    models = [build(CONFIGS["llama"]), build(CONFIGS["llama-gqa"])]
    rows, sampling = prompts(), Sampling(max_tokens=25)
    plain = [ours(model, rows, sampling, (1, 5)) for model in models]
    with ThreadPoolExecutor(2) as threads:
        for _ in range(3):
            found = list(threads.map(lambda model: drafted(model, rows, sampling, (1, 5)), models))
            assert found == plain
    held = [each for each in gc.get_objects() if type(each) is row_buffers.RowBuffers]
    assert not held


def test_logits_that_are_not_finite_are_said_so():
    model = build(CONFIGS["llama"])
    model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(TrainingError, match="logits are not finite"):
        drafted(model, prompts(), Sampling(max_tokens=5), ())


def test_guesses_follow_the_longest_known_context():
    drafts = Drafts(Texts([([1, 2, 3, 4], 0), ([9, 2, 3, 5], 0), ([9, 2, 3, 5], 0), ([7, 2, 3, 5], 3)]))
    assert drafts.after([1, 2, 3], 1, 0.0) == [4], "three tokens of context are known, and it was always 4"
    assert drafts.after([8, 8, 3], 1, 0.0) == [5], "after one token, 5 was said more often"
    assert drafts.after([8, 8, 8], 1, 0.0) == []
    assert drafts.after([1, 2, 3], 1, 0.6) == [], "seen once: a share of 1 in 2"
    assert drafts.after([9, 2, 3], 1, 0.6) == [5]
    drafts.read([8, 3, 6, 8, 3, 6, 8, 3, 6], 2)
    assert drafts.after([8, 8, 3], 1, 0.0) == [6], "what was said in this call comes before what was known"
    assert drafts.after([1, 2, 3], 5, 0.0)[:1] == [4]
    assert max(CONTEXTS) == 6


def test_texts_are_read_up_to_a_limit(monkeypatch):
    monkeypatch.setattr("posttrain.rollouts.drafts.MOST_TOKENS", 4)
    texts = Texts(([number, number + 1, number + 2], 1) for number in itertools.count(0, 10))
    assert {key for key in texts.followed if len(key) == 1} == {(0,), (1,), (10,), (11,)}
    drafts = Drafts()
    for number in range(0, 50, 10):
        drafts.read([number, number + 1, number + 2], 1)
    assert drafts.after([10], 1, 0.0) == [11]
    assert drafts.after([20], 1, 0.0) == [], "a long call's guesses do not fill the memory"
