"""A stage that ends with a budget: when it ends, what schedules go by, and what a checkpoint keeps of it."""

from __future__ import annotations

import json

import pytest
import torch

from posttrain.controllers import GRPOOnly, SFTOnly, Static, Switch
from posttrain.errors import ConfigError
from posttrain.models.cost_counts import ModelShape
from posttrain.training.budget import Budget
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import StopAt, hybrid_args, reward


def trained(folder, model, tokenizer, prompts, demonstrations, controller, *, stop=None, resume=None, **changes):
    trainer = HybridTrainer(
        model, reward, hybrid_args(folder, **changes), prompts,
        processing_class=tokenizer, demonstrations=demonstrations, controller=controller, g_warmup=1.0,
    )  # fmt: skip
    if stop:
        trainer.add_callback(StopAt(stop))
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def lines(folder):
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


def test_a_budget_is_one_kind_with_an_amount_above_zero():
    assert Budget.of({"seconds": 240, "tokens": None}) == Budget("seconds", 240)
    assert Budget.of(None) is None
    for wrong, seen in [
        ({}, "nothing"), ({"seconds": 1, "steps": 2}, "seconds, steps"), ({"second": 1}, "did you mean"),
        ({"steps": 2.5}, "2.5"), ({"seconds": 0}, "0"), ({"seconds": float("inf")}, "inf"),
    ]:  # fmt: skip
        with pytest.raises(ConfigError, match=seen):
            Budget.of(wrong)
    spent = {"seconds": 3.0, "sampled_tokens": 10, "trained_tokens": 30, "flops": 1e9}
    assert Budget("seconds", 12).clock(spent, 7, 100) == 25.0
    assert Budget("tokens", 80).clock(spent, 7, 100) == 50.0
    assert Budget("seconds", 2).clock(spent, 7, 100) == 100.0  # not beyond its end
    assert Budget("tokens", 40).is_over(spent, 7)
    assert not Budget("tokens", 41).is_over(spent, 7)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_budget_of_as_many_steps_changes_nothing(
    schedule, tmp_path, model_folder, tokenizer, prompts, demonstrations
):
    import copy

    from transformers import AutoModelForCausalLM

    weights, rates = [], []
    for name, budget in (("without", None), ("with", {"steps": 6})):
        model = copy.deepcopy(AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32))
        trainer = trained(
            tmp_path / name, model, tokenizer, prompts, demonstrations, Switch(at=0.5),
            max_steps=6, lr_scheduler_type=schedule, warmup_steps=1, budget=budget,
        )  # fmt: skip
        weights.append(torch.cat([value.flatten() for value in trainer.model.state_dict().values()]))
        rates.append([(line["learning_rate"], line["mix"]) for line in lines(tmp_path / name)])
    assert torch.equal(*weights)
    assert rates[0] == rates[1]


def test_schedules_go_by_the_share_of_the_budget_that_is_spent(tmp_path, model, tokenizer, prompts, demonstrations):
    # 8 steps where schedules are written for 4: each goes half as far
    trained(
        tmp_path, model, tokenizer, prompts, demonstrations, Switch(at=0.5),
        max_steps=4, lr_scheduler_type="linear", budget={"steps": 8},
    )  # fmt: skip
    found = lines(tmp_path)
    assert [line["learning_rate"] for line in found] == pytest.approx([1e-3 * (1 - k / 8) for k in range(8)])
    assert [line["mix"]["sft"] for line in found] == [1.0] * 4 + [0.0] * 4
    assert found[2]["controller"]["clock"] == 1.5
    assert found[2]["controller"]["total_steps"] == 4


def test_a_schedule_of_ours_goes_by_the_share_that_is_spent(tmp_path, model, tokenizer, prompts, demonstrations):
    trained(
        tmp_path, model, tokenizer, prompts, demonstrations, SFTOnly(), max_steps=4, lr_scheduler_type="wsd_s",
        lr_scheduler_kwargs={"num_decay_steps": 2, "min_lr_ratio": 0.1}, budget={"steps": 8},
    )  # fmt: skip
    rates = [line["learning_rate"] for line in lines(tmp_path)]
    decay = [1e-3 / ((1 - u) + u / 0.1) for u in (0.25, 0.5, 0.75)]
    assert rates == pytest.approx([1e-3] * 5 + decay)


def test_a_budget_of_tokens_ends_with_the_step_that_spends_it(tmp_path, model, tokenizer, prompts, demonstrations):
    trainer = trained(tmp_path, model, tokenizer, prompts, demonstrations, Static(), budget={"tokens": 300})
    found = [line["spent"] for line in lines(tmp_path)]
    total = [spent["sampled_tokens"] + spent["trained_tokens"] for spent in found]
    assert total[-2] < 300 <= total[-1]
    assert trainer.budget_is_over
    assert trainer.clock == 4  # the horizon


def test_seconds_are_cpu_time_of_steps(tmp_path, model, tokenizer, prompts, demonstrations):
    trained(tmp_path, model, tokenizer, prompts, demonstrations, SFTOnly(), max_steps=3, budget={"seconds": 0.5})
    found = lines(tmp_path)
    seconds = [line["spent"]["seconds"] for line in found]
    assert seconds[-2] < 0.5 <= seconds[-1]
    assert seconds == sorted(seconds)
    assert len(found) > 3  # beyond the steps that schedules are written for
    assert found[-1]["learning_rate"] == 1e-3


def test_tokens_and_operations_by_hand(tmp_path, model, tokenizer, prompts, demonstrations):
    trainer = trained(
        tmp_path, model, tokenizer, prompts, demonstrations, SFTOnly(), max_steps=1, packed=True, kl_sample=0.0
    )
    (spent,) = [line["spent"] for line in lines(tmp_path)]
    rows = [trainer.sft._rows[trainer.sft.stream.row(place)] for place in range(8)]
    lengths = [len(row["input_ids"]) for row in rows]
    labels = [sum(label != -100 for label in row["labels"]) for row in rows]
    assert (spent["sampled_tokens"], spent["trained_tokens"]) == (0, sum(labels))
    shape = ModelShape.of(trainer.model.config)
    matrix = 6 * shape.linear_weights * sum(lengths) + 8 * shape.hidden * shape.vocab * sum(labels)
    pairs = sum(length**2 / 2 for length in lengths)
    attention = 12 * shape.layers * shape.heads * shape.head_dim * pairs
    assert spent["flops"] == pytest.approx(matrix + attention, rel=1e-6)


def test_rollouts_count_as_sampled_and_as_trained_on(tmp_path, model, tokenizer, prompts):
    trained(
        tmp_path, model, tokenizer, prompts, None, GRPOOnly(), max_steps=2, drop_zero_advantage=False, kl_sample=0.0
    )
    found = lines(tmp_path)
    for line in found:
        tokens = round(line["completion_length"] * 8) * line["step"] if line["step"] == 1 else None
        if tokens:
            assert line["spent"]["sampled_tokens"] == line["spent"]["trained_tokens"] == tokens
    assert found[1]["spent"]["flops"] > found[0]["spent"]["flops"] > 0


def test_resuming_goes_on_with_what_was_spent(tmp_path, model_folder, tokenizer, prompts, demonstrations):
    from transformers import AutoModelForCausalLM

    def load():
        return AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)

    settings = {"max_steps": 4, "lr_scheduler_type": "linear", "budget": {"tokens": 400}}
    whole = trained(tmp_path / "whole", load(), tokenizer, prompts, demonstrations, Switch(at=0.5), **settings)
    half = tmp_path / "half"
    trained(half, load(), tokenizer, prompts, demonstrations, Switch(at=0.5), stop=3, **settings)
    state = json.loads((half / "checkpoint-3" / "posttrain.json").read_text())
    assert state["spent"] == lines(half)[2]["spent"]
    again = trained(
        half, load(), tokenizer, prompts, demonstrations, Switch(at=0.5), resume=str(half / "checkpoint-3"), **settings
    )

    def told(folder):
        kept = ("step", "mix", "learning_rate", "controller", "grad_norm")
        tokens = ("sampled_tokens", "trained_tokens", "flops")
        return [
            {key: line[key] for key in kept} | {key: line["spent"][key] for key in tokens} for line in lines(folder)
        ]

    assert told(half) == told(tmp_path / "whole")
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
