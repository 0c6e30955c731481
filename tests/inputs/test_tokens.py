"""Demonstrations token by token: the prompt that rollouts start from, and the completion behind it."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from posttrain.inputs.data import IGNORED, tokenize_demonstrations
from posttrain.inputs.rendering import tokenize_prompts
from posttrain.inputs.tokens import continuation

HALF_CHAT = "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}</s>{% endif %}{% endfor %}"


def demonstration(tokenizer, prompt, completion):
    """Ids of the context and of what is trained on; the context is what rollouts start from."""
    rows = [{"prompt": prompt, "completion": completion}]
    if tokenizer.chat_template:
        rows = [
            {
                "prompt": [{"role": "user", "content": prompt}],
                "completion": [{"role": "assistant", "content": completion}],
            }
        ]
    (row,) = tokenize_demonstrations(rows, tokenizer)
    labels = [label for label in row["labels"] if label != IGNORED]
    start = len(row["input_ids"]) - len(labels)
    assert row["input_ids"][start:] == labels
    assert [row["input_ids"][:start]] == tokenize_prompts(tokenizer, [rows[0]["prompt"]])
    return row["input_ids"][:start], labels


def spoken(tokenizer, ids):
    return tokenizer.convert_ids_to_tokens(ids)


@pytest.fixture
def gpt2_like():
    """Splits as GPT-2 does, and has `.<` as one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    signs = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=257 + 1, special_tokens=["</s>"], initial_alphabet=signs)
    tokenizer.train_from_iterator([".<"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>")


def words(scheme, *, end=False):
    """A tokenizer of the sentencepiece kind: a space before a text of its own, `<s>` in front, and perhaps an end."""
    pieces = ["<unk>", "<s>", "</s>", "▁", "▁a", "a", "b", "▁b", ".", "<", "▁<", ".<", "\n", "1"]
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0 * (len(piece) == 1) - 2.0) for piece in pieces], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    ends = [("<s>", 1), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"<s> $A{' </s>' * end}", special_tokens=ends)
    tokenizer.add_special_tokens([AddedToken("<s>", normalized=False), AddedToken("</s>", normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def llama_like():
    """Llama's first tokenizer: the space is put before a text by a normalizer, and taken away again by the decoder."""
    vocabulary = {piece: index for index, piece in enumerate(["<unk>", "<s>", "</s>", "▁", "a", "b", ".", "<", ".<"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[(".", "<")], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(content=" ", left=1)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def test_a_sign_of_the_prompt_stays_with_the_prompt(gpt2_like):
    assert spoken(gpt2_like, gpt2_like("b.<1")["input_ids"]) == ["b", ".<", "1"]
    prompt, labels = demonstration(gpt2_like, "b.", "<1")
    assert spoken(gpt2_like, prompt) == ["b", "."]
    assert spoken(gpt2_like, labels) == ["<", "1", "</s>"]


def test_so_it_does_behind_a_chat_template(gpt2_like):
    gpt2_like.chat_template = HALF_CHAT
    prompt, labels = demonstration(gpt2_like, "b.", "<1")
    assert spoken(gpt2_like, prompt) == ["b", "."]
    assert spoken(gpt2_like, labels) == ["<", "1", "</s>"]


@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("scheme", ["always", "first"])
@pytest.mark.parametrize(
    ("prompt", "completion", "context", "learnt"),
    [
        ("a", " b", ["▁a"], ["▁b"]),
        ("a.", "b", ["▁a", "."], ["b"]),
        ("a.", "<b", ["▁a", "."], ["<", "b"]),  # as one text `.<` is a token
        ("a.", "<b</s>", ["▁a", "."], ["<", "b"]),
        ("a.", "", ["▁a", "."], []),
    ],
)
def test_no_space_is_put_before_a_completion(scheme, end, prompt, completion, context, learnt):
    tokenizer = words(scheme, end=end)
    assert spoken(tokenizer, tokenizer("a.<b")["input_ids"])[:4] == ["<s>", "▁a", ".<", "b"]
    seen, labels = demonstration(tokenizer, prompt, completion)
    assert spoken(tokenizer, seen) == ["<s>", *context], "a prompt has no end"
    assert spoken(tokenizer, labels) == [*learnt, "</s>"], "a demonstration has one"
    assert tokenizer.decode(seen + labels, skip_special_tokens=True) == prompt + completion.removesuffix("</s>")


@pytest.mark.parametrize(
    ("prompt", "completion", "learnt"),
    [("a", " b", ["▁", "b"]), ("a.", "b", ["b"]), ("a.", "<b", ["<", "b"]), ("a. ", "<b", ["<", "b"])],
)
def test_a_space_that_a_normalizer_puts_there_is_left_out(prompt, completion, learnt):
    tokenizer = llama_like()
    assert spoken(tokenizer, tokenizer("<b", add_special_tokens=False)["input_ids"]) == ["▁", "<", "b"]
    seen, labels = demonstration(tokenizer, prompt, completion)
    assert spoken(tokenizer, labels) == [*learnt, "</s>"]
    assert tokenizer.decode(seen + labels, skip_special_tokens=True) == prompt + completion


def test_an_end_of_the_prompts_own_stays():
    tokenizer = words("first", end=True)
    assert spoken(tokenizer, tokenize_prompts(tokenizer, ["a</s>"])[0]) == ["<s>", "▁a", "</s>"]
    assert spoken(tokenizer, tokenize_prompts(tokenizer, ["a"])[0]) == ["<s>", "▁a"]


def test_a_prompt_of_nothing_but_an_added_end_is_refused():
    from posttrain.errors import DataError

    tokenizer = words("first", end=True)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 2)]
    )
    with pytest.raises(DataError, match="prompt 1 has no tokens"):
        tokenize_prompts(tokenizer, ["a", ""])


def test_a_tokenizer_without_an_end_adds_none(gpt2_like):
    gpt2_like.eos_token = None
    assert spoken(gpt2_like, demonstration(gpt2_like, "b.", "<1")[1]) == ["<", "1"]


def test_smollm2s_own_vocabulary():
    from posttrain.models.gguf_files import gguf_file
    from posttrain.models.load import load_tokenizer

    tokenizer = load_tokenizer(gguf_file("smollm2-135m-instruct"))
    tokenizer.chat_template = None
    prompt, completion = "Ann is a knave.", "<answer>Ann</answer>"
    assert spoken(tokenizer, tokenizer(prompt + completion)["input_ids"])[4:6] == ["ave", ".<"]
    seen, labels = demonstration(tokenizer, prompt, completion)
    assert spoken(tokenizer, seen) == ["Ann", "Ġis", "Ġa", "Ġkn", "ave", "."]
    assert spoken(tokenizer, labels) == ["<", "answer", ">", "Ann", "</", "answer", ">", "<|im_end|>"]


def test_a_text_behind_nothing(gpt2_like):
    assert continuation(gpt2_like, "", ".<") == gpt2_like(".<")["input_ids"]
