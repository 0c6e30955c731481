"""Models added up: by hand, bit for bit where one has the ratio 1, adapters as models, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from posttrain.cli import main
from posttrain.errors import ConfigError
from posttrain.models.averaging import _values, average
from posttrain.models.load import build_model, train_tokenizer
from posttrain.recipe.model_sections import ModelSection
from posttrain.recipe.ratios import bai_ratios, ema_ratios
from posttrain.recipe.stage_sections import AverageSection, HybridSection

TOKENIZER = train_tokenizer(["one two three"] * 3, 270)


def saved(folder, *, fill=None, seed=0, tokenizer=TOKENIZER, **sizes):
    model = build_model(tokenizer, **{"hidden_size": 8, "layers": 1, "heads": 2, "seed": seed, **sizes})
    if fill is not None:
        with torch.no_grad():
            for p in model.parameters():
                p.fill_(fill)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_balanced_ratios_by_hand(tmp_path):
    folders = [saved(tmp_path / str(value), fill=float(value)) for value in (1, 3, 5)]
    assert bai_ratios(0.5, 0.5) == [0.25, 0.25, 0.5]
    average(folders, bai_ratios(0.5, 0.5), tmp_path / "out")
    values = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(value, torch.full_like(value, 3.5)) for value in values.values())
    assert "lm_head.weight" not in values  # tied, and added once
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.tie_word_embeddings


def test_a_ratio_of_one_gives_the_first_bit_for_bit(tmp_path):
    folders = [saved(tmp_path / str(seed), seed=seed) for seed in range(3)]
    average(folders, bai_ratios(1.0, 1.0), tmp_path / "out")
    before, after = (load_file(folder / "model.safetensors") for folder in (folders[0], tmp_path / "out"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_buffers_that_are_saved_are_added_once_and_others_not():
    model = build_model(TOKENIZER, hidden_size=8, layers=1, heads=2)
    model.model.register_buffer("kept", torch.ones(2))
    model.model.register_buffer("made", torch.ones(2), persistent=False)
    names = [name for name, _ in _values(model)]
    assert names.count("model.kept") == 1
    assert "model.made" not in names
    assert sum("embed" in name or "lm_head" in name for name in names) == 1


def test_adapters_are_averaged_as_models_and_not_by_their_factors(tmp_path):
    base = saved(tmp_path / "base")
    merged = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(base),
            LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"),
        )
        with torch.no_grad():
            for name, p in model.named_parameters():
                if "lora_B" in name:
                    p.copy_(torch.randn_like(p))
        model.save_pretrained(tmp_path / f"adapter{seed}")
        TOKENIZER.save_pretrained(tmp_path / f"adapter{seed}")
        merged.append(copy.deepcopy(model).merge_and_unload().state_dict()["model.layers.0.self_attn.q_proj.weight"])
    average([tmp_path / "adapter1", tmp_path / "adapter2"], [0.25, 0.75], tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"]
    torch.testing.assert_close(found, 0.25 * merged[0] + 0.75 * merged[1])


def test_models_that_cannot_be_added_are_refused(tmp_path):
    one = saved(tmp_path / "one")
    other_words = train_tokenizer(["four five six"] * 3, 270)
    cases = {
        "vocabulary": saved(tmp_path / "words", tokenizer=other_words),
        "num_hidden_layers 2, not 1": saved(tmp_path / "deep", layers=2),
        "num_attention_heads": saved(tmp_path / "heads", heads=4),
    }
    for seen, other in cases.items():
        with pytest.raises(ConfigError, match=seen):
            average([one, other], [0.5, 0.5], tmp_path / "out")
    with pytest.raises(ConfigError, match=r"sum 0\.9"):
        average([one, one], [0.5, 0.4], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_not_a_number_is_refused_or_not_read(tmp_path, capsys):
    one = saved(tmp_path / "one", fill=1.0)
    model = AutoModelForCausalLM.from_pretrained(one)
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    model.save_pretrained(tmp_path / "nan")
    TOKENIZER.save_pretrained(tmp_path / "nan")
    with pytest.raises(ConfigError, match=r"model\.norm\.weight has values that are NaN"):
        average([one, tmp_path / "nan"], [0.5, 0.5], tmp_path / "out")
    average([tmp_path / "nan", one], [0.0, 1.0], tmp_path / "out")
    assert load_file(tmp_path / "out" / "model.safetensors")["model.norm.weight"].tolist() == [1.0] * 8
    with pytest.raises(ConfigError, match="ratios nan, nan"):
        average([one, one], [float("nan")] * 2, tmp_path / "out")
    for given, seen in (("0.5,0.5", "bai of 2 models"), ("1.5,0.5", "bai 1.5"), ("0.5", "bai 0.5")):
        models = [str(one)] * (2 if "2" in seen else 3)
        assert main(["merge", *models, "--bai", given, "--to", str(tmp_path / "new")]) == 2
        assert seen in capsys.readouterr().err


def test_the_model_that_cannot_be_loaded_is_the_one_that_is_named(tmp_path, capsys):
    one, bare, torn = (saved(tmp_path / name) for name in ("one", "bare", "torn"))
    (bare / "model.safetensors").unlink()
    (torn / "model.safetensors").write_bytes(b"torn")
    for other in (bare, torn):
        assert main(["merge", str(one), str(other), "--to", str(tmp_path / "new")]) == 2
        assert f"the model '{other}' cannot be loaded" in capsys.readouterr().err


def test_an_adapter_that_cannot_be_added_is_told_what_to_do(tmp_path):
    base = saved(tmp_path / "base")
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", use_dora=True)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(tmp_path / "dora")
    TOKENIZER.save_pretrained(tmp_path / "dora")
    with pytest.raises(ConfigError) as caught:
        average([base, tmp_path / "dora"], [0.5, 0.5], tmp_path / "out")
    assert (caught.value.where, "merge_and_unload" in caught.value.fix) == (str(tmp_path / "dora"), True)


def test_weights_of_checkpoints():
    assert ema_ratios(3, 0.5) == [0.25, 0.25, 0.5]
    assert sum(ema_ratios(7, 0.9)) == pytest.approx(1.0)
    assert AverageSection(last=4, weights="linear").ratios(4) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert AverageSection(last=3, weights=[0.2, 0.3, 0.5]).ratios(2) == pytest.approx([0.375, 0.625])
    enough = {"steps": 100, "save_steps": 20, "save_total_limit": 5}
    assert HybridSection(**enough, average={"last": 5}).average
    for change, seen in (
        ({"save_total_limit": 2}, "save_total_limit: 2"),
        ({"save_steps": 50}, "2 checkpoints in 100 steps"),
        ({"save_steps": None}, "save_steps: null"),
    ):
        with pytest.raises(ValueError, match=seen):
            HybridSection(**{**enough, **change}, average={"last": 5})
    with pytest.raises(ValueError, match="the last 2 have the sum 0"):
        AverageSection(last=3, weights=[1.0, -0.5, 0.5])
    with pytest.raises(ValueError, match="without decay"):
        AverageSection(last=3, weights="ema")


def test_the_section_of_a_recipe(tmp_path):
    section = ModelSection(merge={"models": ["a", "b", "c"], "bai": [0.5, 0.5]})
    assert section.merge.shares() == [0.25, 0.25, 0.5]
    assert section.name == "a"
    assert ModelSection.model_validate(section.model_dump(mode="json")) == section
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    for wrong, seen in (
        ({"merge": {"models": ["a", "b"]}}, "neither ratios nor bai"),
        ({"merge": {"models": ["a", "b"], "bai": [0.5, 0.5]}}, "bai of 2 models"),
        ({"merge": {"models": ["a", "b"], "ratios": [0.5, 0.6]}}, "sum 1.1"),
        ({"name": "d", "merge": {"models": ["a", "b"], "ratios": [0.5, 0.5]}}, "name: d"),
        ({"merge": {"models": ["a", str(adapter)], "ratios": [0.5, 0.5]}}, "an adapter"),
    ):
        with pytest.raises(ValueError, match=seen):
            ModelSection.model_validate(wrong)


def test_the_command(tmp_path, capsys):
    one, other = (saved(tmp_path / str(value), fill=float(value)) for value in (1, 2))
    out = tmp_path / "out"
    assert main(["merge", str(one), str(other), "--to", str(out), "--dtype", "bfloat16"]) == 0
    assert "0.5 * " in capsys.readouterr().out
    with safe_open(out / "model.safetensors", "pt") as file:
        assert file.get_tensor("model.norm.weight").tolist() == [1.5] * 8
        assert file.get_tensor("model.norm.weight").dtype == torch.bfloat16
    assert main(["merge", str(one), str(other), "--to", str(out)]) == 2
    assert "not empty" in capsys.readouterr().err
