"""Prompts shared out among threads: the same completions, each told of once; what fails in one thread ends all."""

from __future__ import annotations

import threading

import pytest
import torch

from posttrain.errors import TrainingError
from posttrain.models.inference import inference
from posttrain.processes.side_by_side import set_num_threads
from posttrain.rollouts import drafted as module
from posttrain.rollouts import fused
from posttrain.rollouts.choice import Choice, sampler
from posttrain.rollouts.drafts import Drafts, Texts
from posttrain.rollouts.sampling import Sampling
from tests.rollouts.test_decode import CONFIGS, build, ours, prompts, seeds
from tests.rollouts.test_drafted import drafted

GROUPS = [(3 + number, 1 + number % 5) for number in range(11)]
SAMPLING = Sampling(max_tokens=40)
ENDS = (1, 5, 9)


@pytest.fixture(params=[2, 3])
def threads(request, monkeypatch):
    monkeypatch.setattr(module, "PROMPTS", 3)
    before = torch.get_num_threads()
    set_num_threads(request.param)
    yield request.param
    set_num_threads(before)


@pytest.fixture
def said(monkeypatch):
    """Threads and prompts of each part of a call."""
    parts = []
    said = module._said

    def spy(lanes, *args, **more):
        parts.append((threading.get_ident(), [lane.text[: lane.first] for lane in lanes]))
        return said(lanes, *args, **more)

    monkeypatch.setattr(module, "_said", spy)
    return parts


def test_completions_are_those_of_one_thread(threads, said):
    model, rows = build(CONFIGS["llama-gqa"]).float(), prompts(GROUPS)[::-1]
    plain = ours(model, rows, SAMPLING, ENDS)
    texts = Texts([([*ids, *more], len(ids)) for ids, more in zip(rows, plain, strict=True)])
    for drafts in (Drafts(), Drafts(texts)):
        told = {}
        found = drafted(
            model, rows, SAMPLING, ENDS, drafts, on_row=lambda row, ids, told=told: told.setdefault(row, []).append(ids)
        )
        assert sum(a == b for a, b in zip(found, plain, strict=True)) >= len(rows) - 1, "the last bits can tip a token"
        assert told == {row: [ids] for row, ids in enumerate(found)}
    assert len(said) == 2 * threads
    assert len({thread for thread, _ in said[:threads]}) == threads
    assert sorted(each for _, some in said[:threads] for each in some) == sorted(
        map(list, dict.fromkeys(map(tuple, rows)))
    )


def test_guesses_do_not_depend_on_who_is_first(threads, monkeypatch):
    """Each thread learns from its own prompts: the passes of a call are the same every time."""
    model, rows = build(CONFIGS["llama-gqa"]).float(), prompts(GROUPS)
    passes = []
    logits = fused.Fused.logits
    monkeypatch.setattr(
        fused.Fused, "logits", lambda self, ids, *args: passes.append(ids.tolist()) or logits(self, ids, *args)
    )
    drafted(model, rows, SAMPLING, ENDS)
    first = sorted(passes)
    for _ in range(3):
        passes.clear()
        drafted(model, rows, SAMPLING, ENDS)
        assert sorted(passes) == first


@pytest.mark.parametrize("why", ["large", "other", "few"])
def test_torch_has_its_threads_for_itself_where_passes_are_long_or_prompts_few(threads, said, monkeypatch, why):
    model, rows = build(CONFIGS["llama-gqa"]).float(), prompts(GROUPS if why != "few" else GROUPS[:5])
    if why == "large":
        monkeypatch.setattr(fused, "COPIED", 0)
    if why == "other":
        model = build(CONFIGS["qwen3"])
    drafted(model, rows, SAMPLING, ENDS)
    assert len(said) == 1


@pytest.mark.parametrize("row", [0, 1])
def test_what_fails_for_one_prompt_ends_the_call(threads, row):
    model, rows = build(CONFIGS["llama-gqa"]).float(), prompts([(3 + n, 1) for n in range(11)])

    def fails(number, ids):
        if number % 3 == row:
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        drafted(model, rows, SAMPLING, ENDS, on_row=fails)
    assert torch.get_num_threads() == threads
    assert not [each for each in threading.enumerate() if each.name.startswith("side-by-side")]


def test_logits_that_are_not_finite_are_said_so_in_whatever_thread(threads):
    model, rows = build(CONFIGS["llama-gqa"]).float(), prompts(GROUPS)
    with torch.no_grad():
        model.model.embed_tokens.weight[rows[-1][-1]] = torch.nan  # of some prompts alone
    choice = Choice(sampler(seeds(rows), SAMPLING, "cpu"))
    with inference(model), pytest.raises(TrainingError, match="not finite"):
        module.decode_drafted(model, rows, choice, Drafts(), max_new_tokens=40, eos_ids=ENDS)
