"""What trains to its end and teaches nothing, or something else, is found before: by `plan` and by a smoke test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import pre_tokenizers
from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config

from posttrain.errors import ConfigError, DataError, RewardError
from posttrain.inputs.inputs import check_model, load_data, load_rewards
from posttrain.planning.machine import Machine
from posttrain.planning.plan import Plan, make_plan
from posttrain.planning.smoke.checks import check_rewards
from posttrain.recipe.recipe import load_recipe
from tests.gguf_files import byte_level_bpe
from tests.inputs.test_rendering import PLAIN, THINKS, THOUGHT

REWARDS = """
def forgets(completion, *, answer, **row):
    float(answer in completion)

def right(completion, *, answer, **row):
    return float(answer in completion)

def now_and_then(completion, *, answer, **row):
    return 1.0 if int(answer) % 2 else None

def fails(completion, **row):
    raise ValueError("no way")
"""
RECIPE = """
model: {init: {hidden_size: 16, layers: 2, heads: 2, max_position_embeddings: 64}}
task: {name: math, path: sums.jsonl, instruction: "", train: 40, demonstrations: 20, eval: 20}
warmup: {steps: 5, per_device_train_batch_size: 4}
hybrid:
  steps: 8
  per_device_train_batch_size: 8
  grpo: {num_generations: 4, max_completion_length: 12}
scoring: {workers: 0}
rollout: {engine: transformers}
run: {device: cpu}
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    sums = [
        {"question": f"{a} + {b}?", "answer": str(a + b), "solution": f"\\boxed{{{a + b}}}"}
        for a in range(10)
        for b in range(10)
    ]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sums))
    (tmp_path / "rewards.py").write_text(REWARDS)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


def reward(*names: str) -> str:
    return f"rewards=[{', '.join(f'{{path: rewards.py:{name}}}' for name in names)}]"


def planned(recipe: Path, *overrides: str) -> Plan:
    return make_plan(load_recipe(recipe, overrides), Machine(device="cpu", memory=8 << 30), offline=True)


def found(plan: Plan, kind: str) -> list[tuple[str, str]]:
    return [(each.level, each.evidence) for each in plan.findings if each.kind == kind]


# ---- rewards ----


@pytest.mark.parametrize("names", [("right",), ("now_and_then",), ("right", "now_and_then")])
def test_rewards_that_score_demonstrations_are_in_order(recipe, names):
    assert found(planned(recipe, reward(*names)), "rewards") == []


@pytest.mark.parametrize(
    ("names", "level", "said"),
    [
        (("forgets",), "problem", "it applies to none of 20 gold completions"),
        (("fails",), "problem", "it failed on all 4 gold completions"),
        (("right", "forgets"), "warning", "it applies to none of 20 gold completions"),
    ],
)
def test_rewards_that_score_none_are_told_by_plan(recipe, names, level, said):
    plan = planned(recipe, reward(*names))
    ((seen, evidence),) = found(plan, "rewards")
    assert (seen, plan.status) == (level, level)
    assert said in evidence
    assert plan.texts is not None, "the rest is told all the same"


@pytest.mark.parametrize("override", ["hybrid.controller={name: sft_only}", "hybrid.steps=0"])
def test_rewards_that_nothing_is_trained_on_are_not_called(recipe, override):
    assert found(planned(recipe, reward("forgets"), override), "rewards") == []


def test_a_smoke_test_refuses_a_reward_that_scores_nothing(recipe):
    def checked(*names):
        some = load_recipe(recipe, [reward(*names)])
        data = load_data(some)
        return check_rewards(some, load_rewards(some, data), data)

    with pytest.raises(RewardError, match=r"applies to none of 20 gold completions(.|\n)*forget `return`"):
        checked("forgets")
    assert any("'forgets': it applies to none of 20" in note for note in checked("right", "forgets"))
    assert not any("applies to none" in note for note in checked("right", "now_and_then"))


def test_a_task_of_a_mixture_without_a_reward_is_told_by_plan(recipe):
    task = (
        "task=[{name: math, path: sums.jsonl, instruction: '', train: 40, demonstrations: 20, eval: 20}, "
        "{name: knights_knaves, people: [2], split: content, train: 8, demonstrations: 4, eval: 2}]"
    )
    sized = ("model.init.max_position_embeddings=2048",)
    plan = planned(recipe, task, "rewards=[{path: rewards.py:right, tasks: [math]}]", *sized)
    ((level, evidence),) = found(plan, "rewards")
    assert (level, plan.status) == ("problem", "problem")
    assert "8 of the 48 prompts, those of knights_knaves" in evidence
    both = "rewards=[{path: rewards.py:right, tasks: [math]}, {name: knights_knaves}]"
    assert found(planned(recipe, task, both, *sized), "rewards") == []


# ---- chat templates ----


def model(folder: Path, template: str) -> str:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level_bpe(pre_tokenizers.ByteLevel(add_prefix_space=False), 300),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    tokenizer.chat_template = template.replace("<|end|>", "<|im_end|>")  # else none of it ends a completion
    tokenizer.save_pretrained(folder / "model")
    Qwen2Config(
        vocab_size=320, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=256, eos_token_id=2,
    ).save_pretrained(folder / "model")  # fmt: skip
    return f"model={folder / 'model'}"


@pytest.mark.parametrize("template", [THINKS, THOUGHT])
def test_plan_shows_what_the_sampler_is_given_and_where_a_demonstration_parts_from_it(recipe, template):
    override = model(recipe.parent, template)
    plan = planned(recipe, override)
    ((level, evidence),) = found(plan, "chat_template")
    assert level == "problem"
    assert "<think>" in evidence
    assert plan.texts
    assert plan.texts.samples[0].prompt.rstrip().endswith(("<think>", "</think>"))
    with pytest.raises(DataError, match="demonstrations_after"):
        check_model(load_recipe(recipe, [override]), load_data(load_recipe(recipe, [override])))


def test_demonstrations_behind_what_the_sampler_is_given_are_planned_as_such(recipe):
    override = model(recipe.parent, THOUGHT)
    after = "hybrid.demonstrations_after=generation_prompt"
    plan = planned(recipe, override, after)
    assert found(plan, "chat_template") == []
    assert plan.texts
    for sample in plan.texts.samples:
        assert sample.prompt.endswith("<assistant>\n<think></think>")
        assert sample.demonstration.startswith("\\boxed{")
    some = load_recipe(recipe, [override, after])
    check_model(some, load_data(some))


def test_a_template_whose_renderings_agree_is_no_matter(recipe):
    override = model(recipe.parent, PLAIN)
    assert found(planned(recipe, override), "chat_template") == []
    some = load_recipe(recipe, [override])
    check_model(some, load_data(some))


@pytest.mark.parametrize("template", ["{{ raise_exception('roles must alternate') }}", "{{ messages[9].content }}"])
def test_a_template_that_raises_is_one_problem(recipe, template):
    override = model(recipe.parent, template)
    plan = planned(recipe, override)
    ((level, evidence),) = found(plan, "model")
    assert level == "problem"
    assert "cannot render a conversation" in evidence
    with pytest.raises(DataError, match=r"cannot render(.|\n)*expected: (.|\n)*fix: "):
        check_model(load_recipe(recipe, [override]), load_data(load_recipe(recipe, [override])))


def test_a_model_that_is_only_warmed_up_or_only_sampled_is_looked_at_as_it_is_used(recipe):
    override = model(recipe.parent, THOUGHT)
    grpo = ("warmup.steps=0", "hybrid.controller={name: grpo_only}")
    assert found(planned(recipe, override, *grpo), "chat_template") == [], "no demonstration is trained on"
    only = load_recipe(recipe, [override, *grpo])
    check_model(only, load_data(only))
    assert found(planned(recipe, override, "hybrid.steps=0"), "chat_template"), "its evaluation samples"


# ---- what is trained is what is sampled ----

OTHER_END = PLAIN.replace("<|end|>", "<|endoftext|>")


def looked_at(recipe: Path, *overrides: str) -> None:
    some = load_recipe(recipe, overrides)
    data = load_data(some)
    check_model(some, data, load_rewards(some, data))


def test_demonstrations_that_end_otherwise_than_completions_are_refused_and_mended_by_the_setting(recipe):
    override = model(recipe.parent, OTHER_END)
    ((level, evidence),) = found(planned(recipe, override), "same_stream")
    assert level == "problem"
    assert "demonstrations end in" in evidence
    assert "what ends one is '<|im_end|>' (2)" in evidence
    with pytest.raises(DataError, match=r"set warmup.args.eos_token to '<\|endoftext\|>'"):
        looked_at(recipe, override)
    mended = "warmup.args.eos_token=<|endoftext|>"
    assert found(planned(recipe, override, mended), "same_stream") == []
    looked_at(recipe, override, mended)
    (recipe.parent / "model" / "generation_config.json").write_text('{"eos_token_id": [2, 0, 1]}')
    assert found(planned(recipe, override), "same_stream") == []
    looked_at(recipe, override)


def test_an_end_that_the_vocabulary_lacks_is_refused(recipe):
    override = model(recipe.parent, OTHER_END)
    with pytest.raises(ConfigError, match=r"warmup.args.eos_token: the model's vocabulary has no token '<eot>'"):
        looked_at(recipe, override, "warmup.args.eos_token=<eot>")


def test_a_reward_that_looks_for_what_rollouts_come_without_is_refused(recipe):
    override = model(recipe.parent, PLAIN)
    tokenizer = AutoTokenizer.from_pretrained(recipe.parent / "model")
    tokenizer.add_tokens([AddedToken("boxed", special=True)])
    tokenizer.save_pretrained(recipe.parent / "model")
    (recipe.parent / "rewards.py").write_text(
        "def boxed(completion, **row):\n    return float('\\\\boxed{' in completion)\n"
    )
    plan = planned(recipe, override, reward("boxed"))
    assert {level for level, _ in found(plan, "same_stream")} == {"problem"}
    assert "gives a demonstration 1 as text and 0 as a rollout of it comes" in found(plan, "same_stream")[0][1]
    with pytest.raises(DataError, match=r"'boxed' \(\d+\)"):
        looked_at(recipe, override, reward("boxed"))
