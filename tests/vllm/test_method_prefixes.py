"""Rollouts that go on from a demonstration's beginning: sampled from token ids, and scored as they were sampled.

By an engine in this process and by a server, whose context is no longer than the longest prompt and a completion: what
a completion begins with counts in its length.
"""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, set_seed

from posttrain.methods import HPT, UFT, Escalate, PrefixRFT
from posttrain.rollouts.vllm_server import ServerEngine
from posttrain.storage.files import read_lines
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import hybrid_args, reward
from tests.vllm.training import Watched

FLOAT32 = 1e-4
"""How far apart two implementations of the same float32 model may be, per token, as a log-probability."""

METHODS = {
    "prefix_rft": PrefixRFT(shortest=0.9),
    "uft": UFT(hinted=1.0),
    "hpt": HPT(gate=4),
    "trapo": Escalate(blocks=(2, 1, 1), below=(2, 3), shares=(0.5, 1.0), passing=1.0),
    "ghpo": Escalate(form="ghpo", passing=1.2, below=(1, 1, 2)),
}


class Trained:
    """A few steps of a method with an engine, its completions noted as they were sampled and trained on."""

    def __init__(self, method, engine, model_folder, tokenizer, prompts, demonstrations, folder):
        set_seed(3)
        args = {"max_steps": 3, "per_device_train_batch_size": 16, "learning_rate": 1e-2}
        self.trainer = HybridTrainer(
            AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32),
            reward,
            hybrid_args(folder, use_vllm=True, vllm_probe_every=1, **args),
            prompts,
            processing_class=tokenizer,
            demonstrations=demonstrations,
            method=method,
            engine=Watched(engine),
        )
        self.watched = self.trainer.vllm_generation.engine
        self.rows: list[tuple[list[int], list[int], int, bool]] = []
        arrange = self.trainer._arrange

        def noted(method, inputs, output):
            arrange(method, inputs, output)
            ids, mask = output["completion_ids"], output["completion_mask"].bool()
            given = output["demonstrated"].sum(dim=1).tolist()
            for place, number in enumerate(output["demonstration"].tolist()):
                row = ids[place][mask[place]].tolist()
                self.rows.append((row, self.trainer.pairs.ids[number], given[place], bool(output["credit"][place])))

        self.trainer._arrange = noted
        self.trainer.train()
        self.records = read_lines(folder / "steps.jsonl")


def check(trained, method, longest):
    """The log-probabilities are the trainer's, and what is given is the demonstration's beginning, token by token."""
    assert len(trained.records) == 3
    for record in trained.records:
        assert record["sampling"]["logp_difference_max"] < FLOAT32
        assert record["sampling"]["probe_max"] < FLOAT32
        assert record["sampling"]["ratio_min"] == pytest.approx(1.0, abs=FLOAT32)
    tokens = "begun_tokens" if method.begins_rollouts else "demonstration_tokens"
    assert sum(record["method"][tokens] for record in trained.records) > 0
    for row, demonstration, given, _ in trained.rows:
        assert row[:given] == demonstration[:given]
        assert given < len(row) <= longest
    if not method.begins_rollouts:
        return
    assert max(len(row) for row, _, given, _ in trained.rows if given) == longest  # not ended before the limit
    if method.escalates:
        again = sum(record["method"]["sampled_again"] for record in trained.records)
        assert (again > 0) == (method.form == "ghpo")
        assert any(of for *_, of in trained.rows) == (method.form == "trapo")


@pytest.mark.parametrize("name", METHODS)
def test_the_sampler_and_the_trainer_agree(name, engine, model_folder, tokenizer, prompts, demonstrations, tmp_path):
    trained = Trained(METHODS[name], engine, model_folder, tokenizer, prompts, demonstrations, tmp_path)
    check(trained, METHODS[name], 6)
    if METHODS[name].begins_rollouts:
        known = [trained.trainer._tokenize_prompts([row["prompt"]])[0][0] for row in prompts]
        asked = [ids for request in trained.watched.requests for ids in request[0] if ids not in known]
        ends = [ids[len(start) :] for ids in asked for start in known if ids[: len(start)] == start]
        assert ends
        assert all(any(ids[: len(end)] == end for ids in trained.trainer.pairs.ids) for end in ends)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prefix_rft", "uft", "trapo", "ghpo"])
def test_a_server_goes_on_from_the_same_beginnings(
    name, server, engine, model_folder, tokenizer, prompts, demonstrations, tmp_path
):
    longest = max(len(tokenizer(row["prompt"])["input_ids"]) for row in prompts) + 6
    ends = [tokenizer.eos_token_id]
    with ServerEngine(server.url, eos_token_ids=ends, max_model_length=longest, time_limit_s=60) as served:
        trained = Trained(METHODS[name], served, model_folder, tokenizer, prompts, demonstrations, tmp_path / "served")
    check(trained, METHODS[name], 6)
    here = Trained(METHODS[name], engine, model_folder, tokenizer, prompts, demonstrations, tmp_path / "here")
    assert trained.rows[:16] == here.rows[:16]  # before a step has changed the weights by rounding
