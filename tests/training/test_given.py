"""`HybridTrainer` as a library: rewards of one completion beside TRL's, and mistakes that are named at once."""

from __future__ import annotations

import copy
import threading
import warnings
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import Qwen2Config

import posttrain
from posttrain.controllers import SASR, GRPOOnly, SFTOnly, Static
from posttrain.errors import ConfigError, DataError, PosttrainError, RewardError
from posttrain.models.load import load_tokenizer
from posttrain.storage.files import read_lines
from posttrain.training.given import check_alike, check_prompts, controller_of, rewards_of
from posttrain.training.trainer import HybridTrainer
from tests.inputs.test_rendering import PLAIN, THINKS
from tests.training.conftest import ROWS, hybrid_args, reward
from tests.training.scores import score, sometimes, trl_style

COLUMNS = ["prompt", "answer"]


@pytest.fixture
def build(model, tokenizer, prompts, demonstrations, tmp_path):
    def make(reward_funcs=reward, **changes):
        more = {"processing_class": tokenizer, "demonstrations": demonstrations, "train_dataset": prompts, **changes}
        of = more.pop("model", model)
        args = hybrid_args(tmp_path / "run", **{"max_steps": 2, "kl_sample": 0.0, "completions_every": 1})
        return HybridTrainer(of, reward_funcs, args, **more)

    return make


# ---- rewards ----


def test_a_reward_of_one_completion_trains_beside_one_of_trls(build, tmp_path):
    trainer = build([score, trl_style], controller=GRPOOnly())
    assert trainer.reward_func_names == ["score", "trl_style"]
    trainer.train()
    for line in read_lines(tmp_path / "run" / "steps.jsonl"):
        assert set(line["rewards"]) == {"score", "trl_style"}
        assert 0.0 < line["rewards"]["score"] <= 1.0
        assert line["unscored_share"] == 0.0
        assert "score.right" in line["sampled"]["parts"], "parts arrive as in a run"


def test_alone_it_gives_what_the_same_in_trls_style_gives(build, model, tmp_path):
    def batch(completions, **columns):
        return [0.1 * min(len(set(text)), 10) for text in completions]

    found = []
    for function in (score, batch):
        trainer = build(function, controller=GRPOOnly(), model=copy.deepcopy(model))
        trainer.train()
        found.append([line["reward"] for line in read_lines(tmp_path / "run" / "steps.jsonl")])
    assert found[0] == pytest.approx(found[1])


def test_a_function_that_cannot_be_sent_is_scored_here_and_that_is_said():
    lock = threading.Lock()

    def locked(completion, *, answer, **row):
        with lock:
            return float(str(answer) in completion)

    with pytest.warns(UserWarning, match="scored in this process"):
        functions, scorer = rewards_of(locked, COLUMNS, {})
    assert scorer.pool is None
    assert functions[0](prompts=["a"], completions=["it is 3"], answer=[3]) == [1.0]


def test_a_failure_costs_its_completion_and_is_said_once(build, tmp_path):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trainer = build(sometimes, controller=GRPOOnly(), train_dataset=Dataset.from_list(ROWS[4:5] + ROWS[:1]))
        trainer.train()
    assert len([each for each in said if "failed on a completion (ValueError: four)" in str(each.message)]) == 1
    lines = read_lines(tmp_path / "run" / "steps.jsonl")
    assert [line["unscored_share"] for line in lines] == [0.5, 0.5]


def anything(*args, **kwargs):
    return [0.0]


def test_functions_of_trls_are_left_as_they_are():
    for given in (reward, [reward, trl_style], anything, [anything]):
        assert rewards_of(given, COLUMNS, {}) == (given, None)
    brought = lambda completions, brought, **columns: []  # noqa: E731
    assert rewards_of(brought, COLUMNS, {"rollout_func": print}) == (brought, None), "a rollout brings columns"


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda completion, *, answr, **row: 0.0, r"no column 'answr' \(nearest: 'answer'\)"),
        (lambda completions, answr, **columns: [], r"no column 'answr' \(nearest: 'answer'\)"),
        (lambda text, answer: 0.0, r"arguments \(text, answer\)"),
    ],
)
def test_a_reward_that_cannot_be_called_is_refused_before_anything_is_trained(build, function, said):
    with pytest.raises(RewardError, match=said) as raised:
        build(function)
    assert all((raised.value.expected, raised.value.where, raised.value.fix))


# ---- controllers ----


@pytest.mark.parametrize(
    ("given", "controller"),
    [(None, SASR()), ("sasr", SASR()), ("sft_only", SFTOnly()), (Static(sft_share=0.3), Static(sft_share=0.3))],
)
def test_a_controller_has_a_name(given, controller):
    assert controller_of(given) == controller


@pytest.mark.parametrize(
    ("given", "said"),
    [("sassr", "nearest: 'sasr'"), (SASR, "the class SASR"), ({"name": "sasr"}, "a dict"), (0.5, "a float")],
)
def test_what_is_no_controller_is_refused_with_what_to_write(given, said):
    with pytest.raises(ConfigError, match=said) as raised:
        controller_of(given)
    assert raised.value.where == "controller"
    assert "sasr" in raised.value.expected
    assert raised.value.fix == "controller=SASR()"


# ---- rows ----


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train_dataset": Dataset.from_list([{"promt": "a", "answer": 1}])}, r"no column 'prompt' \(nearest: 'promt'"),
        ({"train_dataset": Dataset.from_list([{"prompt": None, "answer": 1}])}, "the first prompt is None"),
        ({"demonstrations": []}, "there are no demonstrations"),
        ({"demonstrations": [{"prompt": "a", "completion": None}]}, "a completion of kind NoneType"),
        ({"demonstrations": [{"prompt": "a"}]}, "row 0 has no column 'completion'"),
        (
            {"demonstrations": [{"prompt": [{"role": "user", "content": "a"}], "completion": []}]},
            "prompts of train_dataset are text, and those of the demonstrations conversations",
        ),
    ],
)
def test_rows_that_are_amiss_are_named_without_a_recipes_keys(build, changes, said):
    with pytest.raises(PosttrainError, match=said) as raised:
        build(**changes)
    error = raised.value
    assert all((error.expected, error.where, error.fix))
    assert "task." not in str(error)


CHATS = Dataset.from_list([{"prompt": [{"role": "user", "content": row["prompt"]}], "answer": 1} for row in ROWS])
TEXTS = [{"prompt": row["prompt"], "completion": row["completion"]} for row in ROWS]


def test_prompts_and_demonstrations_are_rendered_alike_or_refused(tokenizer):
    tokenizer.chat_template = PLAIN
    try:
        check_prompts(CHATS, tokenizer, {})
        with pytest.raises(DataError, match="train_dataset are conversations, and those of the demonstrations text"):
            check_alike(CHATS, TEXTS)
        check_alike(CHATS, [{"prompt": CHATS[0]["prompt"], "completion": [{"role": "assistant", "content": "3"}]}])
        check_alike(Dataset.from_list(TEXTS), TEXTS)
        check_alike(CHATS, [{"input_ids": [1], "labels": [1]}])
        tokenizer.chat_template = "{{ raise_exception('no user') }}"
        with pytest.raises(DataError, match="cannot render a conversation: TemplateError: no user"):
            check_prompts(CHATS, tokenizer, {})
    finally:
        tokenizer.chat_template = None


def test_demonstrations_of_another_prompt_are_refused_or_put_behind_it(build, tokenizer):
    chats = [
        {"prompt": CHATS[0]["prompt"], "completion": [{"role": "assistant", "content": "so\n</think>\n3"}]}
    ] * 4  # fmt: skip
    tokenizer.chat_template = THINKS
    try:
        with pytest.raises(DataError, match="demonstrations_after"):
            build(train_dataset=CHATS, demonstrations=chats)
    finally:
        tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="demonstrations_after"):
        hybrid_args(Path("nowhere"), demonstrations_after="prompt")


@pytest.mark.parametrize("given", [True, False])
def test_a_model_folder_without_a_tokenizer_is_named(build, tmp_path, given):
    folder = tmp_path / "bare"
    Qwen2Config(vocab_size=320, hidden_size=16, num_hidden_layers=1, num_attention_heads=2).save_pretrained(folder)
    load = (lambda: build(model=str(folder), processing_class=None)) if given else (lambda: load_tokenizer(folder))
    with pytest.raises(ConfigError, match="has no tokenizer") as raised:
        load()
    assert "save_pretrained" in raised.value.fix


# ---- names ----


def test_the_package_shows_what_is_meant_to_be_used():
    shown = [name for name in dir(posttrain) if not name.startswith("__")]
    assert sorted(shown) == sorted(posttrain.__all__)
    assert {"HybridTrainer", "SASR", "run"} <= set(shown)
    assert all(getattr(posttrain, name) is not None for name in shown)


# ---- optimizers whose model is an average ----


class Averaging(torch.optim.SGD):
    """As schedulefree's: `eval` exchanges the weights for their average."""

    def train(self): ...

    def eval(self): ...


def test_an_optimizer_that_keeps_its_model_as_an_average_is_refused(build, model, prompts, tmp_path):
    with pytest.raises(ConfigError, match="rollouts would be of another policy") as caught:
        build(optimizers=(Averaging(model.parameters(), lr=0.1), None))
    assert caught.value.where == "optimizers"
    args = hybrid_args(tmp_path, optim="schedule_free_adamw")
    with pytest.raises(ConfigError, match="schedule_free_adamw, which trains at other weights"):
        HybridTrainer(model, reward, args, prompts, controller=GRPOOnly())
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    assert build(optimizers=(plain, None)).optimizer is plain


# ---- models that could not be saved or loaded again ----


@pytest.mark.parametrize("by_path", [False, True])
def test_a_pad_token_beyond_the_embedding_is_refused(build, model, tokenizer, model_folder, by_path):
    tokenizer, size = copy.deepcopy(tokenizer), len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    given = {"processing_class": tokenizer, "controller": GRPOOnly(), "model": str(model_folder) if by_path else model}
    with pytest.raises(ConfigError, match=rf"'<pad>', {size} \(pad_token\); the model has {size}"):
        build(**given)
    adapted = get_peft_model(copy.deepcopy(model), LoraConfig(r=2, task_type="CAUSAL_LM"))
    with pytest.raises(ConfigError, match="has no embedding for"):
        build(**given | {"model": adapted})
    model.resize_token_embeddings(len(tokenizer))
    assert build(**given | {"model": model})


def test_placeholders_of_images_beyond_it_are_no_matter(build, model, tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image_soft_token>"]})
    assert build(processing_class=tokenizer, controller=GRPOOnly())
    tokenizer.add_tokens("<think>")
    with pytest.raises(ConfigError, match="'<think>'"):
        build(processing_class=tokenizer, controller=GRPOOnly())


def test_a_generation_config_that_could_not_be_saved_is_mended_or_refused(build, model, tmp_path):
    model.generation_config.temperature = 0.7
    with pytest.raises(ValueError, match="do_sample"):
        copy.deepcopy(model).save_pretrained(tmp_path / "before")
    trainer = build(controller=GRPOOnly())
    trainer.train()
    trainer.save_model(tmp_path / "after")
    model.generation_config.output_scores = True
    with pytest.raises(ConfigError, match="output_scores"):
        build(controller=GRPOOnly())
    build(controller=GRPOOnly(), model=get_peft_model(model, LoraConfig(r=2, task_type="CAUSAL_LM")))
