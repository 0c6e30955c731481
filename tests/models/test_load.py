"""Tokenizers and models from scratch, and loading them back."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from posttrain.inputs.data import fit_to_model, tokenize_demonstrations
from posttrain.models.load import build_model, load_policy, load_tokenizer, tokenizer_from_rows, train_tokenizer

PUZZLES = [
    f"Is {a} a knight or a knave? {b} said that {a} is lying.\n"
    f"<think>\n{a} is a knave, for {b} is a knight.\n</think>\n"
    f"<answer>(1) {a} is a knave\n(2) {b} is a knight</answer>"
    for a in ("Ann", "Bob", "Cat")
    for b in ("Dan", "Eve", "Flo")
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(PUZZLES, vocab_size=600)


@pytest.mark.parametrize(
    "text",
    [
        *PUZZLES[:1],
        "",
        " ",
        "  two  spaces , a full stop . and a ' ",
        "tab\t newline\n\r\n\x00\x7f end ",
        "naïve café — Ωmega Здравствуй 日本語 עברית",
        "👩‍👩‍👧‍👦🤷🏽‍♀️ e\u0301 \u00a0\u2028\u200b\ufeff\ufffd",
        "<think><|end|> <|pad|>< think ></</think>>",
        "1234567890 3.14e-5 x<y>z a_b\\n {'k': [1, 2]}",
        "".join(map(chr, range(0x250))),
    ],
)
def test_any_text_comes_back_exactly(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_about_a_token_a_word_on_its_own_texts(tokenizer):
    text = PUZZLES[4]
    tokens = tokenizer.tokenize(text)
    assert len(tokens) <= 1.7 * len(text.split())  # signs, tags and line breaks are tokens of their own
    for word in ("Ġknight", "Ġknave", "Ġlying", "Ġsaid"):
        assert word in tokens


@pytest.mark.parametrize(
    "text",
    [
        "<think>\nAnn is a knave",
        "a knight\n</think>\n<answer>(1)",
        "a knight</think><answer>(1)",
        "a knight.</think>\n<answer>(1)",
        "between <think> and </think>. Then <answer>",
        "(<answer>)",
    ],
    ids=["start", "own-line", "after-letter", "after-full-stop", "after-space", "after-bracket"],
)
def test_a_tag_is_one_token_wherever_it_stands(text):
    tokenizer = train_tokenizer([*PUZZLES, *(f"{text} <answer>(1)</answer>" for _ in range(3))] * 3, vocab_size=700)
    tags = [tag for tag in ("<think>", "</think>", "<answer>") if tag in text]
    tokens = tokenizer.tokenize(text)
    assert [token for token in tokens if token in tags] == sorted(tags, key=text.index)


def test_numbers_are_read_digit_by_digit_however_common_they_are():
    tokenizer = train_tokenizer(["it was 2048 again"] * 20, vocab_size=400)
    assert tokenizer.tokenize("2048") == ["2", "0", "4", "8"]


def test_the_ends_are_special_and_padding_is_on_the_left(tokenizer):
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.padding_side) == ("<|end|>", "<|pad|>", "left")
    ids = tokenizer(["Ann", "Ann is a knight"], padding=True)["input_ids"]
    assert ids[0][0] == tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.decode(tokenizer("Ann<|end|>")["input_ids"], skip_special_tokens=True) == "Ann"


@pytest.mark.parametrize("size", [300, 400])
def test_vocab_size_is_an_upper_bound(size):
    assert 258 < len(train_tokenizer(PUZZLES, vocab_size=size)) <= size


def test_weights_depend_on_the_seed_only_and_the_global_random_state_stays(tokenizer):
    def weights(seed):
        return build_model(tokenizer, hidden_size=16, layers=1, heads=2, seed=seed).state_dict()

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = weights(0)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(77)
    again, other = weights(0), weights(1)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert any(not torch.equal(value, other[name]) for name, value in first.items())


def test_a_built_model_has_the_shape_and_the_ends_it_was_given(tokenizer):
    model = build_model(tokenizer, hidden_size=24, layers=3, heads=2, intermediate_size=40, max_position_embeddings=99)
    config = model.config
    assert (config.vocab_size, config.hidden_size, config.intermediate_size) == (len(tokenizer), 24, 40)
    assert (config.num_hidden_layers, config.max_position_embeddings) == (3, 99)
    assert (config.eos_token_id, config.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert build_model(tokenizer, hidden_size=24, layers=1, heads=2).config.intermediate_size == 96


@pytest.fixture
def saved(tiny_model, tiny_tokenizer, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([[3, 50, 12]])).logits


@pytest.mark.parametrize("as_text", [False, True])
def test_a_saved_model_and_tokenizer_come_back(tiny_model, tiny_tokenizer, saved, as_text):
    source = str(saved) if as_text else saved
    loaded, tokenizer = load_policy(source), load_tokenizer(source)
    assert torch.equal(logits(loaded), logits(tiny_model))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert {p.dtype for p in load_policy(source, dtype="bfloat16").parameters()} == {torch.bfloat16}
    text = "3 plus 4 is 7.\t<x>"
    assert tokenizer(text)["input_ids"] == tiny_tokenizer(text)["input_ids"]
    assert (tokenizer.padding_side, tokenizer.pad_token, tokenizer.eos_token) == ("left", "<|pad|>", "<|end|>")


def test_a_tokenizer_without_padding_pads_with_its_end(tiny_tokenizer, tmp_path):
    tiny_tokenizer.pad_token = None
    tiny_tokenizer.padding_side = "right"
    tiny_tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert (loaded.pad_token, loaded.padding_side) == ("<|end|>", "left")


@pytest.mark.parametrize("trainable", [True, False])
def test_an_adapter_folder_gives_its_base_model_with_the_adapter_on_top(saved, tmp_path, trainable):
    adapted = get_peft_model(load_policy(saved), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    torch.manual_seed(0)
    for name, p in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p)  # an adapter starts as a no-op
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = load_policy(tmp_path / "adapter", trainable=trainable)
    assert isinstance(loaded, PeftModel)
    assert torch.equal(logits(loaded), logits(adapted))
    assert not torch.allclose(logits(loaded), logits(load_policy(saved)))
    training = {name for name, p in loaded.named_parameters() if p.requires_grad}
    assert bool(training) == trainable
    assert all("lora" in name for name in training)


def test_a_model_from_scratch_takes_conversations(tmp_path):
    said = {"role": "assistant", "content": "4"}
    rows = [
        {"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]},
        {"prompt": "1 + 3?", "completion": "4"},
    ]
    rows[0]["completion"] = [said]
    made = tokenizer_from_rows(rows, 400)
    made.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    learned = tokenize_demonstrations(fit_to_model(rows, tokenizer), tokenizer)
    assert [tokenizer.decode(ids) for ids in learned["input_ids"]] == [
        "<|system|>Be brief.<|end|><|user|>2 + 2?<|end|><|assistant|>4<|end|>",
        "<|user|>1 + 3?<|end|><|assistant|>4<|end|>",
    ]
    for ids, labels in zip(learned["input_ids"], learned["labels"], strict=True):
        assert [label for label in labels if label != -100] == ids[-2:]  # the answer and the end, which is learned too
    assert tokenizer_from_rows(rows[1:], 400).chat_template is None
