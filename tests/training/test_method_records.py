"""What a method's decisions leave behind: numbers by hand, and the files of real steps."""

from __future__ import annotations

import json
import math

import pyarrow.parquet as pq
import pytest

from posttrain.controllers import GRPOOnly
from posttrain.methods import HPT, LUFFY
from posttrain.methods.base import Arranged, Group
from posttrain.training.method_records import begun_characters, facts_of, with_rows
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import hybrid_args
from tests.training.test_methods import METHODS, reward_for, solved, trained

NAN = float("nan")


def test_facts_by_hand():
    groups = [Group((0.0, 1.0), (-0.5, 0.5), NAN), Group((1.0, 1.0), (0.0, 0.0), NAN), Group((0.5, NAN), (0, 0), None)]
    arranged = [HPT(gate=1).arrange(group) for group in groups]
    facts = facts_of(groups, arranged, [[0, 3], [0, 6], [0, 0]], [12, 8, 0])
    assert facts == {
        "groups": {
            "at most 1 of 2 solved: demonstration": 1,
            "more than 1 of 2 solved: GRPO": 1,
            "no demonstration: GRPO": 1,
        },
        "paired": 2,
        "gate_open": 0.5,
        "demonstrations": 1,
        "demonstration_tokens": 12,
        "begun_rows": 2,
        "begun_tokens": 9,
        "begun_share": (3 / 12 + 6 / 8) / 2,
        "begun_reward": 1.0,
        "alone_reward": 0.5,
        "rewards": [[0, 1], [1, 1], [0.5, None]],
        "demonstration_rewards": [None, None, None],
        "demonstration_lengths": [12, 8, 0],
    }
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_without_a_gate_and_without_beginnings_there_is_nothing_to_say_of_them():
    group = Group((0.0, 1.0), (-0.5, 0.5), 1.0)
    facts = facts_of([group], [LUFFY().arrange(group)], [[0, 0]], [4])
    assert facts["gate_open"] is facts["begun_share"] is facts["begun_reward"] is None
    assert facts["demonstration_rewards"] == [1]
    assert facts["alone_reward"] == 0.5


def test_characters_of_a_beginning_end_before_a_character_that_is_cut_in_two():
    def decode(ids, skip_special_tokens):
        return bytes(ids).decode("utf-8", errors="replace")

    ids = list("aé!".encode())
    assert [begun_characters(ids, begun, decode) for begun in range(5)] == [0, 1, 1, 2, 3]


def test_a_demonstration_stands_behind_its_group_as_a_message_in_a_conversation():
    said = [{"role": "assistant", "content": "x"}]
    rows = [{"step": 3, "prompt": f"p{n // 2}", "completion": said} for n in range(4)]
    found = with_rows(rows, {1: {"completion": "right", "source": "demonstration"}}, group=2)
    assert found[:4] == rows
    assert found[4] == {
        "step": 3,
        "prompt": "p1",
        "completion": [{"role": "assistant", "content": "right"}],
        "source": "demonstration",
    }


@pytest.mark.parametrize("name", METHODS)
def test_completions_hold_what_the_step_trained_on(name, model, tokenizer, prompts, demonstrations, tmp_path):
    method = METHODS[name]
    reward = f"reward/{reward_for(method).__name__}"
    trainer, _ = trained(model, tokenizer, prompts, demonstrations, tmp_path, method, completions_every=1)
    (file,) = (tmp_path / "completions").glob("*.parquet")
    rows = pq.read_table(file).to_pylist()
    (line,) = [json.loads(text) for text in (tmp_path / "steps.jsonl").read_text().splitlines()]
    seen = line["method"]
    rollouts = [row for row in rows if row["source"] != "demonstration"]
    assert len(rollouts) == line["rollouts"]
    group = trainer.num_generations
    rewards = [row[reward] for row in rollouts]
    assert rewards == [value for of_group in seen["rewards"] for value in of_group]
    assert [row["advantage"] for row in rollouts] == pytest.approx(trainer._share["advantages"].tolist())
    for at in range(0, len(rollouts), group):  # TRL's: of the group alone
        mean = sum(row[reward] for row in rollouts[at : at + group]) / group
        signs = [math.copysign(1, row[reward] - mean) for row in rollouts[at : at + group]]
        for row, sign in zip(rollouts[at : at + group], signs, strict=True):
            assert row["grpo_advantage"] == 0 or math.copysign(1, row["grpo_advantage"]) == sign
    begun = [row for row in rollouts if row["source"] == "begun"]
    assert len(begun) == seen["begun_rows"]
    assert sum(row["begun_tokens"] for row in begun) == seen["begun_tokens"]
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in trainer.pairs.ids]
    for row in begun:
        assert any(text.startswith(row["completion"][: row["begun_characters"]]) for text in texts)
        assert 0 < row["begun_characters"] <= len(row["completion"])
        assert row["credit"] == pytest.approx(method.prefix_credit) or (method.escalates and row["credit"] == 0.0)
    whole = [row for row in rows if row["source"] == "demonstration"]
    assert len(whole) == seen["demonstrations"]
    assert sum(row["length"] for row in whole) == seen["demonstration_tokens"]
    assert all(
        row["completion"] in texts and (row["credit"] or row["nll"]) and row["advantage"] is None for row in whole
    )
    if method.scores_demonstrations:
        assert {row[reward] for row in whole} == {1.0}


def test_what_is_told_of_demonstrations_does_not_depend_on_the_cut(model, tokenizer, prompts, demonstrations, tmp_path):
    """All groups on their demonstrations: some micro-batches have no row, and no rollout is trained on in any."""
    told = []
    for rows, micro_batches in ((16, 1), (4, 4), (2, 8)):
        cut = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": micro_batches}
        settings = {**cut, "steps_per_generation": micro_batches, "kl_sample": 0.0}
        folder = tmp_path / str(rows)
        trainer, _ = trained(model, tokenizer, prompts, demonstrations, folder, HPT(passing=9.0), **settings)
        told.append(trainer.last_record)
    assert {record["entropy"] for record in told} == {None}
    losses = [record["method"]["demonstration_loss"] for record in told]
    assert losses == pytest.approx([told[0]["method"]["demonstration_nll"]] * 3, rel=1e-5)


def test_a_run_without_a_method_has_no_more_columns(model, tokenizer, prompts, demonstrations, tmp_path):
    settings = hybrid_args(tmp_path, completions_every=1, max_steps=1)
    parts = {"processing_class": tokenizer, "demonstrations": demonstrations, "controller": GRPOOnly()}
    HybridTrainer(model, solved, settings, prompts, **parts).train()
    file, *_ = (tmp_path / "completions").glob("*.parquet")
    assert not {"source", "grpo_advantage", "begun_tokens", "credit"} & set(pq.read_schema(file).names)


def test_arranged_has_no_gate_by_itself():
    assert Arranged((0.0,)).opened is None
