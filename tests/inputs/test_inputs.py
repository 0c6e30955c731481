"""What is checked before a run directory exists."""

from __future__ import annotations

import json

import pytest
from peft import LoraConfig, get_peft_model

from posttrain.errors import ConfigError, DataError
from posttrain.inputs.four_bit import check_unsharded
from posttrain.inputs.gathering import gather
from posttrain.inputs.inputs import check_model, policy_options
from posttrain.models import bitsandbytes_package
from posttrain.models.load import build_model, load_policy
from posttrain.planning.machine import Machine
from posttrain.planning.plan import make_plan
from posttrain.recipe.recipe import Recipe, load_recipe


@pytest.fixture
def adapter(tmp_path, tiny_tokenizer):
    build_model(tiny_tokenizer, hidden_size=8, layers=1, heads=2).save_pretrained(tmp_path / "base")
    base = load_policy(tmp_path / "base")
    get_peft_model(base, LoraConfig(r=2, task_type="CAUSAL_LM")).save_pretrained(tmp_path / "adapter")
    tiny_tokenizer.save_pretrained(tmp_path / "adapter")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"model: {tmp_path / 'adapter'}\ntask: knights_knaves\nlora: {{r: 2}}\n")
    return recipe


def test_an_adapter_on_an_adapter_is_refused(adapter):
    with pytest.raises(ConfigError, match=r"r\.yaml:3: lora: .* is an adapter(.|\n)*lora=null"):
        check_model(load_recipe(adapter))


def test_an_adapter_alone_goes_on_being_trained(adapter):
    assert check_model(load_recipe(adapter, ["lora=null"])) == {}


def test_a_model_from_scratch_has_nothing_to_check(adapter):
    assert check_model(load_recipe(adapter, ["model={init: {layers: 1}}"])) == {}


def quantised(**sections) -> Recipe:
    model = {"name": "some/model", "load_in_4bit": True} | sections.pop("model", {})
    return Recipe.model_validate({"model": model, "task": {"name": "knights_knaves"}, "lora": {"r": 2}, **sections})


def test_a_base_in_4_bits_is_loaded_as_the_recipe_says():
    recipe = quantised(model={"bnb_4bit_quant_type": "fp4", "use_bnb_nested_quant": True})
    options = policy_options(recipe, on_gpu=True)
    assert options["four_bit"] == {
        "bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": True, "on_gpu": True,
    }  # fmt: skip
    assert options["dtype"] == "bfloat16"
    assert "four_bit" not in policy_options(quantised(model={"load_in_4bit": False}), on_gpu=True)


def test_without_bitsandbytes_4_bits_are_refused_before_any_rows_are_read(monkeypatch):
    monkeypatch.setattr(bitsandbytes_package, "_installed_version", lambda: None)
    recipe = quantised(task={"name": "math", "dataset": "no/such/folder"})
    for check in (gather, check_model):
        with pytest.raises(ConfigError, match="not installed") as caught:
            check(recipe)
        assert "model.load_in_4bit" in caught.value.where
        assert "[qlora]" in caught.value.fix


def test_a_packaged_gguf_file_is_not_rounded_twice():
    with pytest.raises(ConfigError, match="is a GGUF file: its weights were rounded once"):
        gather(quantised(model={"name": "smollm2-135m-instruct"}))


@pytest.mark.parametrize("how", ["FSDP", "DeepSpeed"])
def test_4_bits_in_shards_are_refused(how):
    with pytest.raises(ConfigError, match=f"under {how}, which has not been tested(.|\n)*--config ddp"):
        check_unsharded(quantised(), how)
    check_unsharded(quantised(), None)
    check_unsharded(quantised(model={"load_in_4bit": False}), how)


@pytest.fixture
def saved_in_4_bits(tmp_path, tiny_tokenizer):
    build_model(tiny_tokenizer, hidden_size=64, layers=1, heads=2).save_pretrained(tmp_path / "whole")
    four_bit = {"bnb_4bit_quant_type": "nf4", "on_gpu": False}
    load_policy(tmp_path / "whole", four_bit=four_bit).save_pretrained(tmp_path / "saved")
    tiny_tokenizer.save_pretrained(tmp_path / "saved")
    return str(tmp_path / "saved")


def test_weights_that_were_saved_in_4_bits(saved_in_4_bits, monkeypatch):
    recipe = quantised(model={"name": saved_in_4_bits, "load_in_4bit": False})
    assert check_model(recipe) == {}
    with pytest.raises(ConfigError, match=r"quantised already \(bitsandbytes\)(.|\n)*leave it out"):
        check_model(quantised(model={"name": saved_in_4_bits}))
    with pytest.raises(ConfigError, match="quantised weights cannot train"):
        check_model(recipe.model_copy(update={"lora": None}))
    monkeypatch.setattr(bitsandbytes_package, "_installed_version", lambda: None)
    with pytest.raises(ConfigError, match="not installed"):
        check_model(recipe)


@pytest.mark.parametrize(
    ("kind", "beta", "said"),
    [
        ({"bias": "all"}, 0.04, "its bias: 'all', and hybrid.grpo.beta 0.04"),
        ({"target_modules": ["lm_head"]}, 0, "its target_modules: an adapter on lm_head"),
        ({"trainable_token_indices": [3]}, 0, "its trainable_token_indices: "),
        ({"init_lora_weights": "pissa"}, 0, "an adapter with init_lora_weights 'pissa'"),
    ],
)
def test_an_adapter_that_cannot_go_on_is_refused_before_any_weights_are_read(adapter, tmp_path, kind, beta, said):
    check_model(load_recipe(adapter, ["lora=null", "hybrid.grpo.beta=0.04"]))
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | kind))
    with pytest.raises(ConfigError) as caught:
        check_model(load_recipe(adapter, ["lora=null", f"hybrid.grpo.beta={beta}"]))
    assert said in str(caught.value)


# ---- a model from scratch ----

SCRATCH = """
model: {{init: {{hidden_size: 16, layers: 1, heads: 2, max_position_embeddings: 1024}}}}
task: {{name: rows, path: {path}, train: 4, demonstrations: 4, eval: 2}}
rewards: [{{path: {reward}}}]
warmup: {{steps: 2, per_device_train_batch_size: 2}}
hybrid: {{steps: 2, per_device_train_batch_size: 4, grpo: {{num_generations: 2}}}}
scoring: {{workers: 0}}
run: {{device: cpu}}
"""


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """`scratch(before)` is a recipe whose demonstrations have `before` in front of the answer."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "right.py").write_text("def score(completion, *, answer, **row): return str(answer) in completion")

    def made(before: str, *overrides: str) -> Recipe:
        sums = [{"prompt": f"{a} + 1?", "completion": f"{before}{a + 1}", "answer": a + 1} for a in range(10)]
        (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sums))
        text = SCRATCH.format(path=tmp_path / "sums.jsonl", reward=f"{tmp_path / 'right.py'}:score")
        (tmp_path / "r.yaml").write_text(text)
        return load_recipe(tmp_path / "r.yaml", overrides)

    return made


def check(recipe: Recipe) -> dict[str, str]:
    """As a run does before it starts."""
    given = gather(recipe)
    return check_model(recipe, given.data, [*given.rewards, *given.judges])


def problems(recipe: Recipe) -> list[str]:
    """What `plan` tells."""
    plan = make_plan(recipe, Machine(device="cpu", memory=8 << 30), offline=True)
    return [found.evidence for found in plan.findings if found.level == "problem"]


def test_a_model_from_scratch_is_looked_at_as_others_are(scratch):
    sound = scratch("it is ")
    assert (check(sound), problems(sound)) == ({}, [])
    ends_early = scratch("it is <|end|>")
    with pytest.raises(DataError, match="gives a demonstration 1 as text and 0 as a rollout") as caught:
        check(ends_early)
    assert problems(ends_early) == [caught.value.seen]


def test_a_model_from_scratch_may_end_by_another_token_of_its_vocabulary(scratch):
    own = scratch("it is ", "warmup.args.eos_token=<|pad|>")
    assert (check(own), problems(own)) == ({}, [])
    none = scratch("it is ", "warmup.args.eos_token=<|stop|>")
    with pytest.raises(ConfigError, match=r"has no token '<\|stop\|>'") as caught:
        check(none)
    assert problems(none) == [caught.value.seen]
