"""AdaLoRA's budget by its formula and against PEFT's own, and the penalty's gradient against PEFT's loss."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from peft import AdaLoraConfig, get_peft_model

from posttrain.training.rank_budget import RankBudget, add_penalty, budget_at

IDS = torch.tensor([[5, 9, 2, 40, 7]])
STEPS = 6


def adalora(model, **more):
    torch.manual_seed(0)
    settings = {"init_r": 4, "target_r": 2, "tinit": 1, "total_step": STEPS, "orth_reg_weight": 0.0, **more}
    return get_peft_model(model, AdaLoraConfig(target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", **settings))


def test_the_budget_of_ten_modules():
    told = {"steps": 100, "tinit": 0, "tfinal": 0, "first": 120, "last": 80}
    assert [budget_at(100 * t, **told) for t in (0, 0.25, 0.5, 0.75, 1)] == [120, 96, 85, 80, 80]
    assert budget_at(10, **{**told, "tinit": 10, "tfinal": 20}) == 120
    assert budget_at(90, **{**told, "tinit": 10, "tfinal": 20}) == 80


def test_the_callback_does_what_pefts_own_loop_does(tiny_model):
    ours, theirs = adalora(copy.deepcopy(tiny_model)), adalora(copy.deepcopy(tiny_model))
    callback = RankBudget(STEPS, orth_reg_weight=0.0)
    state = SimpleNamespace(global_step=0)
    Accelerator(cpu=True)  # as a trainer has made it by then
    callback.on_train_begin(None, state, None, model=ours)
    optimizers = [torch.optim.AdamW((p for p in m.parameters() if p.requires_grad), lr=0.05) for m in (ours, theirs)]
    for step in range(STEPS):
        state.global_step = step
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            model(input_ids=IDS, labels=IDS).loss.backward()
            optimizer.step()
            if model is ours:
                callback.on_optimizer_step(None, state, None, model=model, optimizer=optimizer)
            else:
                model.base_model.update_and_allocate(step + 1)
            optimizer.zero_grad()
        for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b), (step, name)
    values = [p for name, p in ours.named_parameters() if "lora_E" in name]
    assert sum(int((p != 0).sum()) for p in values) == 2 * len(values)


def trained(model, clock, steps: range, optimizer=None, anew=False):
    """An adapter after steps whose budget stands where `clock` says, with a new callback before each if `anew`."""
    optimizer = optimizer or torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=0.05)
    state, callback = SimpleNamespace(global_step=0), None
    for step in steps:
        state.global_step = step
        if anew or callback is None:
            callback = RankBudget(STEPS, orth_reg_weight=0.0, clock=clock)
            callback.on_train_begin(None, state, None, model=model)
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        callback.on_optimizer_step(None, state, None, model=model, optimizer=optimizer)
        optimizer.zero_grad()
        state.global_step = step + 1
        callback.on_step_end(None, state, None, model=model, optimizer=optimizer)
    return model


def left(model):
    return [int((p != 0).sum()) for name, p in model.named_parameters() if "lora_E" in name]


@pytest.mark.parametrize("tfinal", [0, 2])
def test_a_budget_of_as_many_steps_is_as_none(tiny_model, tfinal):
    none, budget = (adalora(copy.deepcopy(tiny_model), tfinal=tfinal) for _ in range(2))
    trained(none, None, range(STEPS))
    trained(budget, lambda steps: steps, range(STEPS))
    assert all(torch.equal(a, b) for a, b in zip(none.parameters(), budget.parameters(), strict=True))
    assert sum(left(none)) == 2 * len(left(none))


def test_a_budget_ends_with_the_last_ranks_and_goes_on_where_it_stood(tiny_model):
    """Of 12 steps that spend it, six are past the steps that schedules are written for; two of few are its end."""
    whole, resumed = (adalora(copy.deepcopy(tiny_model), tfinal=1) for _ in range(2))
    trained(whole, lambda steps: steps / 2, range(2 * STEPS))
    trained(resumed, lambda steps: steps / 2, range(2 * STEPS), anew=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert sum(left(whole)) == 2 * len(left(whole))
    dear = trained(adalora(copy.deepcopy(tiny_model), tfinal=1), lambda steps: 3 * steps, range(3), anew=True)
    assert sum(left(dear)) == 2 * len(left(dear))


def test_the_last_ranks_are_left_though_the_last_step_was_skipped(tiny_model):
    model = adalora(copy.deepcopy(tiny_model))
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=0.05)
    trained(model, None, range(STEPS - 1), optimizer)
    callback = RankBudget(STEPS)
    callback.on_optimizer_step(None, SimpleNamespace(global_step=STEPS - 1), None, model=model, optimizer=optimizer)
    assert sum(left(model)) == 2 * len(left(model))


def test_the_penalty_is_pefts(tiny_model):
    model = adalora(copy.deepcopy(tiny_model), orth_reg_weight=0.5)
    plain = adalora(copy.deepcopy(tiny_model))
    for each in (model, plain):
        each(input_ids=IDS, labels=IDS).loss.backward()
    add_penalty(plain, 0.5)
    for (name, a), b in zip(model.named_parameters(), plain.parameters(), strict=True):
        if a.requires_grad:
            torch.testing.assert_close(a.grad, b.grad, msg=name)
