"""Sampling with transformers, and the tables that completions are kept in."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from posttrain.errors import CheckpointError, DataError
from posttrain.inputs.rendering import tokenize_prompts
from posttrain.rollouts.choice import InverseTransform
from posttrain.rollouts.transformers import generate
from posttrain.rundir.completions import Completion, read_completions, stage_and_step, write_completions

WORDS = 40
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}assistant{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    names = ["<pad>", "<eos>", "<unk>", "<bos>", "user", "assistant", *(f"w{i}" for i in range(WORDS))]
    vocabulary = {name: index for index, name in enumerate(names)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", bos_token="<bos>",
        chat_template=TEMPLATE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=128, initializer_range=0.5, eos_token_id=1, bos_token_id=3, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).float()


@pytest.fixture(scope="module")
def prompts():
    rng = random.Random(0)
    return [" ".join(f"w{rng.randrange(WORDS)}" for _ in range(rng.randint(2, 12))) for _ in range(9)]


def greedy_by_hand(model, ids: list[int], eos: int, limit: int) -> list[int]:
    sampled: list[int] = []
    with torch.no_grad():
        while len(sampled) < limit:
            token = int(model(input_ids=torch.tensor([[*ids, *sampled]])).logits[0, -1].argmax())
            sampled.append(token)
            if token == eos:
                break
    return sampled


def test_greedy_completions_are_those_of_plain_decoding(model, tokenizer, prompts):
    ids = tokenize_prompts(tokenizer, prompts)
    found = generate(model, tokenizer, prompts, max_new_tokens=12, temperature=0.0, batch_size=4)
    for own, [completion] in zip(ids, found, strict=True):
        assert completion.token_ids == greedy_by_hand(model, own, tokenizer.eos_token_id, 12)
        assert completion.length == len(completion.token_ids)
        assert completion.truncated == (completion.token_ids[-1] != tokenizer.eos_token_id)
        assert completion.text == tokenizer.decode(completion.token_ids, skip_special_tokens=True)


KINDS: dict[str, Any] = {
    "bad_words_ids": [[7]], "sequence_bias": [[[7], 9.0]], "suppress_tokens": [7, 8], "begin_suppress_tokens": [7, 8],
    "exponential_decay_length_penalty": (1, 2.0), "stop_strings": ["w3"], "max_time": 1e-9, "guidance_scale": 2.0,
    "cache_implementation": "static", "temperature": 0.3, "do_sample": True, "watermarking_config": {"bias": 5.0},
    "force_words_ids": [[7]], "return_dict_in_generate": True, "output_attentions": True, "early_stopping": True,
}  # fmt: skip
"""Values of the keys that take no number."""
KEYS = sorted(key for key in vars(GenerationConfig()) if key[0] != "_" and not key.endswith("_token_id"))


@pytest.mark.parametrize("loop", ["decode", "generate"])
def test_nothing_of_the_models_own_generation_config_leaks_in(model, tokenizer, prompts, loop, monkeypatch):
    """Of all keys that transformers has; what one does by itself is seen where generate() is called without ours."""
    from posttrain.rollouts import transformers

    monkeypatch.setattr(transformers, "why_not", lambda model: None if loop == "decode" else "a test")
    plain = generate(model, tokenizer, prompts[:3], max_new_tokens=8, temperature=0.7, seed=1)
    own = model.generation_config
    try:
        for key in KEYS:
            model.generation_config = config = copy.deepcopy(own)
            setattr(config, key, KINDS.get(key, 2))
            assert generate(model, tokenizer, prompts[:3], max_new_tokens=8, temperature=0.7, seed=1) == plain, key
            assert model.generation_config is config
    finally:
        model.generation_config = own


def test_every_end_token_that_the_model_declares_ends_a_completion(model, tokenizer, prompts):
    [[first]] = generate(model, tokenizer, prompts[:1], max_new_tokens=10, temperature=0.0)
    end_of_turn = first.token_ids[3]
    own, model.generation_config = model.generation_config, GenerationConfig(eos_token_id=[end_of_turn])
    try:
        [[cut]] = generate(model, tokenizer, prompts[:1], max_new_tokens=10, temperature=0.0)
    finally:
        model.generation_config = own
    assert cut.token_ids == first.token_ids[: first.token_ids.index(end_of_turn) + 1]
    assert not cut.truncated


def test_a_sample_depends_on_the_seed_and_its_place_only(model, tokenizer, prompts):
    options = {"max_new_tokens": 10, "temperature": 0.7, "top_p": 0.9}
    four = generate(model, tokenizer, prompts, num_samples=4, batch_size=5, seed=3, **options)
    torch.manual_seed(99)
    assert generate(model, tokenizer, prompts, num_samples=4, batch_size=64, seed=3, **options) == four
    two = generate(model, tokenizer, prompts[:3], num_samples=2, batch_size=1, seed=3, **options)
    assert two == [group[:2] for group in four[:3]]
    assert generate(model, tokenizer, prompts, num_samples=4, batch_size=5, seed=4, **options) != four
    assert len({tuple(completion.token_ids) for completion in four[0]}) > 1


def test_no_seed_draws_a_fresh_one(model, tokenizer, prompts):
    one, two = (generate(model, tokenizer, prompts, max_new_tokens=10, temperature=1.0) for _ in range(2))
    assert one != two


def test_torchs_generator_and_the_models_mode_stay_as_they_were(model, tokenizer, prompts):
    model.train()
    model.model.layers[0].eval()
    before = [module.training for module in model.modules()]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    generate(model, tokenizer, prompts, max_new_tokens=4, temperature=1.0, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == before
    model.eval()


def test_gradient_checkpointing_leaves_the_cache_on_and_training_possible(model, tokenizer, prompts, caplog):
    plain = generate(model, tokenizer, prompts, max_new_tokens=6, temperature=0.0)
    model.gradient_checkpointing_enable()
    model.train()
    read = []
    hook = model.model.embed_tokens.register_forward_hook(lambda _m, inputs, _o: read.append(inputs[0].numel()))
    try:
        assert generate(model, tokenizer, prompts, max_new_tokens=6, temperature=0.0) == plain
        assert read[1:]
        assert max(read[1:]) < read[0], "with a cache no pass reads the prompts again"
        ids = torch.tensor([[3, 4, 5]])
        model(input_ids=ids, labels=ids).loss.backward()
    finally:
        hook.remove()
        model.zero_grad()
        model.gradient_checkpointing_disable()
        model.eval()


def test_draws_follow_the_distribution():
    probabilities = torch.tensor([0.0, 0.2, 0.5, 0.0, 0.3, 0.0])
    scores = probabilities.log().expand(4000, -1)
    draws = torch.linspace(0, 1 - 2**-24, 4000)[:, None]
    chosen = InverseTransform(draws)(torch.empty(0), scores)
    assert torch.equal((chosen == 0).sum(dim=1), torch.ones(4000, dtype=torch.long))
    shares = (chosen == 0).float().mean(dim=0)
    torch.testing.assert_close(shares, probabilities, atol=1e-3, rtol=0)
    assert shares[probabilities == 0].sum() == 0


def test_prompts_are_tokenised_as_grpo_trainer_does(tokenizer):
    assert tokenize_prompts(tokenizer, ["w1 w2", "w3"]) == tokenizer(text=["w1 w2", "w3"])["input_ids"]
    assert tokenize_prompts(tokenizer, ["w1"])[0][0] == tokenizer.bos_token_id
    chat = [[{"role": "user", "content": "w1 w2"}], [{"role": "user", "content": "w3"}]]
    expected = [
        tokenizer(tokenizer.apply_chat_template(one, add_generation_prompt=True, tokenize=False),
                  add_special_tokens=False)["input_ids"]
        for one in chat
    ]  # fmt: skip
    assert tokenize_prompts(tokenizer, chat) == expected
    assert expected[0][-1] == tokenizer.convert_tokens_to_ids("assistant")


def test_progress_counts_completions_and_order_is_kept(model, tokenizer, prompts):
    seen: list[tuple[int, int]] = []
    found = generate(
        model, tokenizer, prompts, max_new_tokens=3, temperature=0.0, num_samples=2, batch_size=5,
        on_progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(5, 18), (10, 18), (15, 18), (18, 18)]
    assert [len(group) for group in found] == [2] * 9
    alone = [generate(model, tokenizer, [prompt], max_new_tokens=3, temperature=0.0)[0][0] for prompt in prompts]
    assert [group[0] for group in found] == alone


def test_no_prompts_give_nothing_and_an_empty_one_is_an_error(model, tokenizer):
    assert generate(model, tokenizer, [], max_new_tokens=3, temperature=0.0) == []
    words = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<eos>": 0}, unk_token="<eos>")), eos_token="<eos>"
    )
    with pytest.raises(DataError, match="prompt 1 has no tokens"):
        tokenize_prompts(words, ["a", ""])


def test_completions_survive_a_round_trip(tmp_path):
    rows = [
        {"step": 1, "prompt": "a", "completion": "</script>\n\x00é", "reward": 1.0, "note": None, "passed": True},
        {"step": 1, "prompt": [{"role": "user", "content": "b"}], "completion": "cut \ud83d", "reward": float("nan"),
         "note": "why", "passed": False, "extra": 2},
    ]  # fmt: skip
    back = read_completions(write_completions(tmp_path / "new" / "step-000001.parquet", rows))
    assert back[0] == {**rows[0], "extra": None}
    assert json.loads(back[1]["prompt"]) == rows[1]["prompt"]
    assert back[1]["completion"] == "cut ?"
    assert back[1]["reward"] != back[1]["reward"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["step-000001.parquet"]
    assert read_completions(tmp_path / "new" / "step-000001.parquet", ["note", "gone"]) == [
        {"note": None},
        {"note": "why"},
    ]


def test_columns_of_mixed_types_and_no_rows_can_be_written(tmp_path):
    file = tmp_path / "step-000001.parquet"
    assert read_completions(write_completions(file, [{"a": 1}, {"a": 2.5}, {"a": None}])) == [
        {"a": 1.0},
        {"a": 2.5},
        {"a": None},
    ]
    assert read_completions(write_completions(file, [{"a": 1}, {"a": "x"}])) == [{"a": "1"}, {"a": "x"}]
    assert read_completions(write_completions(file, [])) == []


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path):
    file = write_completions(tmp_path / "step-000001.parquet", [{"a": 1}])
    (tmp_path / "blocked").write_text("a file where a folder should be")
    with pytest.raises(CheckpointError):
        write_completions(tmp_path / "blocked" / "step-000001.parquet", [{"a": 2}])
    assert read_completions(file) == [{"a": 1}]


def test_file_names_say_stage_and_step(tmp_path):
    assert stage_and_step(tmp_path / "step-000010.parquet") == ("hybrid", 10)
    assert stage_and_step(tmp_path / "eval-warmup-001200.parquet") == ("warmup", 1200)
    assert stage_and_step(tmp_path / "notes.parquet") is None


def test_a_completion_is_a_value():
    assert Completion("a", [1], 1, False) == Completion("a", [1], 1, False)
