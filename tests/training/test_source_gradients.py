"""Curricula by gradients: the cosines against gradients by hand, and warm-ups that draw by them."""

from __future__ import annotations

import json
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, set_seed
from trl import SFTConfig

from posttrain.curricula import EXP3, UCB1, Sampler
from posttrain.curricula.base import outcomes_of
from posttrain.errors import ConfigError
from posttrain.inputs.data import IGNORED, tokenize_demonstrations
from posttrain.training.drawn_demonstrations import gradients
from posttrain.training.source_gradients import check_whole_weights, compared_by, cosine, cosines, gradient
from posttrain.training.warmup import WarmupTrainer, warm_up
from tests.training.conftest import COMMON, ROWS, StopAt

LOOKED = ("step", "sft_loss", "sft_norm", "learning_rate", "demonstration_cursor", "curriculum")
SOURCES = ["even" if row["answer"] % 2 == 0 else "odd" for row in ROWS]
EVERY = {"exp3": EXP3(held_out=3, batch=4), "ucb1": UCB1(held_out=3, batch=4)}


@pytest.fixture(scope="module")
def rows(tokenizer) -> Dataset:
    """Of unequal length, so that there is padding."""
    longer = [{**row, "completion": str(row["completion"]) * (1 + i % 3)} for i, row in enumerate(ROWS)]
    return tokenize_demonstrations(longer, tokenizer)


def loaded(model_folder, *, tied=False, adapter=False) -> Any:
    set_seed(5)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32, tie_word_embeddings=tied)
    if tied:
        assert model.lm_head.weight is model.model.embed_tokens.weight
    if adapter:
        return get_peft_model(model, LoraConfig(target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    return model


def trainer_of(model, rows, tokenizer, folder, *, packed=True, **own: Any) -> WarmupTrainer:
    args = SFTConfig(str(folder), max_steps=1, **{"per_device_train_batch_size": 2, **COMMON, **own})
    return WarmupTrainer(model, args, packed=packed, train_dataset=rows, processing_class=tokenizer)


def by_hand(model, rows, some, over) -> torch.Tensor:
    """Row by row, through the logits."""
    losses = []
    for row in some:
        ids, labels = torch.tensor([rows[row]["input_ids"]]), torch.tensor(rows[row]["labels"])
        logits = model(ids).logits[0, :-1]
        losses.append(F.cross_entropy(logits, labels[1:], ignore_index=IGNORED, reduction="sum"))
    return torch.cat([part.flatten() for part in torch.autograd.grad(sum(losses), over)]).double()


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
def test_a_gradient_is_that_of_the_head_alone(packed, tied, rows, model_folder, tokenizer, tmp_path):
    trainer = trainer_of(loaded(model_folder, tied=tied), rows, tokenizer, tmp_path, packed=packed)
    policy = trainer.model
    before = {name: (parameter, parameter.requires_grad) for name, parameter in policy.named_parameters()}
    policy.eval()
    with compared_by(policy) as over:
        assert len(over) == 1
        found = gradient(trainer, rows, [4, 0, 9], policy, over)
        assert not policy.model.embed_tokens.weight.requires_grad
    assert {name: (of, of.requires_grad) for name, of in policy.named_parameters()} == before
    other = loaded(model_folder, tied=False).eval()
    other.lm_head.weight.data.copy_(policy.lm_head.weight)
    torch.testing.assert_close(found, by_hand(other, rows, [4, 0, 9], [other.lm_head.weight]), rtol=1e-4, atol=1e-5)
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_of_an_adapter_it_is_over_all_that_trains(rows, model_folder, tokenizer, tmp_path):
    trainer = trainer_of(loaded(model_folder, adapter=True), rows, tokenizer, tmp_path)
    with compared_by(trainer.model.eval()) as over:
        assert over == [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
        found = gradient(trainer, rows, [4, 0, 9], trainer.model, over)
    other = loaded(model_folder, adapter=True).eval()
    trained = [parameter for parameter in other.parameters() if parameter.requires_grad]
    torch.testing.assert_close(found, by_hand(other, rows, [4, 0, 9], trained), rtol=1e-4, atol=1e-5)


def test_cosines_do_not_depend_on_the_cut_and_change_nothing(rows, model_folder, tokenizer, tmp_path):
    asked = {"a": [0, 1, 2], "b": [3, 4], "target": [7, 8, 9, 10]}
    target = asked["target"]
    seen = []
    for size in (1, 3, 8):
        trainer = trainer_of(loaded(model_folder), rows, tokenizer, tmp_path, per_device_train_batch_size=size)
        trainer.model.train()
        state = torch.get_rng_state()
        seen.append(cosines(trainer, rows, asked, target))
        assert torch.equal(torch.get_rng_state(), state)
        assert trainer.model.training
    for found in seen:
        assert found == pytest.approx(seen[0], abs=2e-6)
        assert found["target"] == pytest.approx(1.0)
        assert -1.0 <= found["a"] < 0.999
    told = gradients(trainer, rows, asked, *target)
    assert told.values == pytest.approx(seen[0], abs=2e-6)
    assert told.rows == 3 + 2 + 4 + 4
    assert told.tokens == sum(len(rows[row]["labels"]) for some in (*asked.values(), target) for row in some)
    assert cosine(torch.zeros(3), torch.ones(3)) == 0.0


# ---- warm-ups ----


class Steps(list[dict[str, Any]]):
    def step(self, record: dict[str, Any]) -> None:
        self.append(json.loads(json.dumps(record)))


@pytest.fixture
def warmed(model_folder, tokenizer, rows, tmp_path):
    """The steps that a warm-up recorded, and its weights."""

    def train(curriculum, folder="run", *, sources=SOURCES, data=rows, steps=6, stop=None, resume=None, **own: Any):
        model = loaded(model_folder, adapter=own.pop("adapter", False))
        own = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, **own}
        args = SFTConfig(str(tmp_path / folder), max_steps=steps, **COMMON | own)
        recorder = Steps()
        sampler = Sampler(curriculum, curriculum.table({"source": sources}, ["source"], of="demonstrations"))
        warm_up(
            model, tokenizer, data, args, norm_window=1, recorder=recorder, curriculum=sampler,
            callbacks=[StopAt(stop)] if stop else [],
            checkpoint=tmp_path / folder / f"checkpoint-{resume}" if resume else None,
        )  # fmt: skip
        lines = [{name: line.get(name) for name in LOOKED} for line in recorder]
        return lines, torch.cat([p.detach().flatten() for p in model.parameters()]), sampler

    return train


@pytest.mark.parametrize("name", EVERY)
def test_a_warm_up_by_gradients_stops_and_goes_on_and_is_drawn_again_from_its_record(name, warmed):
    whole, weights, sampler = warmed(EVERY[name], "whole", adapter=name == "ucb1")
    first, *_ = warmed(EVERY[name], "cut", stop=4, adapter=name == "ucb1")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the checkpoint")
        rest, other, _ = warmed(EVERY[name], "cut", resume=4, adapter=name == "ucb1")
    assert torch.equal(weights, other)
    assert first[:4] + rest == whole

    state, target, measured = sampler.start(COMMON["seed"]), set(), 0
    for line in whole:
        (window,) = line["curriculum"]["windows"]
        if (asked := sampler.ask(state)) is not None:
            (told,) = window["measured"]
            assert told["kind"] == asked.kind == "gradients"
            assert told["values"].keys() == asked.rows.keys()
            assert told["rows"] == sum(map(len, asked.rows.values())) + len(asked.target)
            state, target, measured = sampler.take(state, told["values"]), {*asked.target}, measured + 1
        assert sampler.draw(state, 4) == window["rows"]
        assert not {*window["rows"]} & target
        again = json.loads(json.dumps(sampler.window(state, outcomes_of(window))))
        assert again == {key: value for key, value in window.items() if key != "measured"}
        assert len(sampler.curriculum.reason(window, 0)) > 40
        state = sampler.observe(state, outcomes_of(window))
    assert measured == (5 if name == "exp3" else 6), "before each step that there is something to compare for"


@pytest.mark.parametrize("name", EVERY)
def test_any_cut_of_a_step_draws_and_measures_alike(name, warmed):
    one, weights, _ = warmed(EVERY[name], "one", per_device_train_batch_size=4, gradient_accumulation_steps=1)
    for at, size in enumerate((1, 2)):
        cut = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size}
        other, others, _ = warmed(EVERY[name], f"cut-{at}", **cut)
        for mine, theirs in zip(one, other, strict=True):
            (window,), (also,) = mine["curriculum"]["windows"], theirs["curriculum"]["windows"]
            assert window["rows"] == also["rows"]
            for told, seen in zip(window.get("measured", ()), also.get("measured", ()), strict=True):
                assert told["values"] == pytest.approx(seen["values"], abs=1e-4)
        assert torch.linalg.norm(weights - others) <= 1e-4 * torch.linalg.norm(weights)


@pytest.mark.parametrize("name", EVERY)
def test_the_source_that_agrees_with_the_target_is_drawn_more(name, warmed, tokenizer):
    """Half of the sums are wrong, all with the same answer; the target's are right."""
    wrong = [{**row, "completion": " 9 9 9"} for row in ROWS]
    data = tokenize_demonstrations([*ROWS, *wrong, *ROWS], tokenizer)
    sources = ["right"] * 25 + ["wrong"] * 25 + ["target"] * 25
    curriculum = type(EVERY[name])(target=("target",), held_out=25, batch=1)
    lines, *_ = warmed(curriculum, sources=sources, data=data, steps=16, learning_rate=3e-3)
    drawn = [row for line in lines[6:] for window in line["curriculum"]["windows"] for row in window["rows"]]
    right = sum(row < 25 for row in drawn)
    assert right > 0.6 * len(drawn), (right, len(drawn))
    told = lines[-1]["curriculum"]["windows"][0]["chances"]
    assert told.keys() == {"right", "wrong"}
    assert told["right"]["value"] > told["wrong"]["value"] + 0.2


def test_weights_that_are_cut_up_are_refused():
    for kind in ("FSDP", "DEEPSPEED"):
        with pytest.raises(ConfigError, match="exp3 compares gradients, and this start cuts weights up"):
            check_whole_weights(SimpleNamespace(distributed_type=kind), "exp3")
    check_whole_weights(SimpleNamespace(distributed_type="MULTI_CPU"), "exp3")
