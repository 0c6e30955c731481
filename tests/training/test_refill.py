"""Dead groups are replaced by groups of further prompts: which, until when, and that all else is as if drawn so."""

from __future__ import annotations

import random
import warnings

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, set_seed

from posttrain.controllers import GRPOOnly, SFTOnly, Static
from posttrain.errors import ConfigError
from posttrain.rollouts.for_trl import Place
from posttrain.rundir.completions import read_completions
from posttrain.scoring.pool import RewardPool
from posttrain.scoring.score import Reward
from posttrain.scoring.scorer import Scorer, trl_reward_functions
from posttrain.storage.files import read_lines
from posttrain.training.refill import Refill, expected, needed, settled
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import StopAt, hybrid_args, reward, sparse_reward
from tests.training.worker_rewards import alike

GROUPS, G = 4, 4
FOUR_GROUPS = {"per_device_train_batch_size": 16, "num_generations": G, "completions_every": 1}


def flat(model):
    return torch.cat([each.detach().flatten() for each in model.parameters()])


def never(completions, **columns):
    return [0.5] * len(completions)


# ---- which prompts ----


def test_dead_groups_give_way_in_the_order_of_their_places():
    o, x = False, True
    assert settled([o, o, o], 3) == [0, 1, 2]
    assert settled([o, x, o, x, o, o], 4) == [0, 4, 2, 5]
    assert settled([x, x, o, x, o], 3) == [3, 4, 2], "0 and 1 give way at once; then the limit is reached"
    assert settled([x, o, x, x, o, o], 3) == [5, 1, 4], "0 and 2 give way to 3 and 4, and 3 to 5"


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("ahead", [0, 1, 7, 40])
def test_the_prompts_are_the_first_of_the_stream_with_enough_alive_among_them(seed, ahead):
    """However they are cut into rounds: one by one would end at the same prompt."""
    rng = random.Random(seed)
    dead = [rng.random() < 0.6 for _ in range(100)]
    places, most = rng.randint(1, 12), rng.randint(13, 30)
    upto = min(places + ahead, most)
    sampled = 0
    while sampled < upto:
        sampled = upto
        upto = needed(dead[:sampled], places, most)
    one_by_one = next((n for n in range(places, most) if n - sum(dead[:n]) == places), most)
    assert upto == one_by_one <= sampled
    there = settled(dead[:upto], places)
    alive = {number for number in range(upto) if not dead[number]}
    assert alive <= set(there), "none that teaches something is thrown away"
    assert len(set(there)) == places
    assert sampled == upto or ahead


def test_the_first_round_has_what_is_likely_to_be_needed():
    refill = Refill(3)
    assert [refill.at_first(8, share) for share in (0.0, 0.4, 0.9, 1.0)] == [8, 8 + round(5.33 + 2.98), 24, 24]
    assert Refill(3, ahead=False).at_first(8, 0.4) == 8
    assert expected(None, [True, False]) == 0.5
    assert expected(0.5, [True, True]) == pytest.approx(0.65)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"max_batches": 1}, "max_batches: 1\n  expected: a whole number of 2 or more"),
        ({"max_batches": 2.5}, "max_batches: 2.5"),
        ({"max_batches": True}, "max_batches: True"),
        ({"max_batch": 3}, "refill with max_batch"),
        ({"ahead": False}, "refill without a limit"),
        ({"max_batches": 2, "ahead": 1}, "refill.ahead: 1"),
    ],
)
def test_a_limit_that_is_none_is_refused(given, says):
    with pytest.raises(ConfigError, match="refill") as refused:
        Refill.of(given)
    assert says in str(refused.value)
    assert Refill.of(None) is None
    assert Refill.of({"max_batches": 2}) == Refill(2)


# ---- in a trainer ----


@pytest.fixture
def build(model_folder, tokenizer, prompts, tmp_path):
    def make(function=sparse_reward, *, folder="run", rows=prompts, controller=None, more=None, seed=1234, **changes):
        set_seed(seed)
        return HybridTrainer(
            AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32),
            function,
            hybrid_args(tmp_path / folder, **{**FOUR_GROUPS, "refill": {"max_batches": 4}, **changes}),
            rows,
            processing_class=tokenizer,
            controller=controller or GRPOOnly(),
            **(more or {}),
        )

    return make


def recorded(trainer):
    return read_lines(trainer._recorder.folder / "steps.jsonl")


def test_no_group_of_a_window_is_dead_while_the_limit_allows_more(build):
    trainer = build()
    trainer.train()
    cursor = 0
    for line in recorded(trainer):
        seen = line["refill"]
        assert (seen["prompts"], seen["still_dead"]) == (GROUPS + seen["replaced"], 0)
        assert line["zero_std_share"] == 0.0
        cursor += seen["prompts"]
        assert line["prompt_cursor"] == cursor
        assert line["rollouts"] == line["step"] * GROUPS * G
    assert cursor > 2 * GROUPS * 4 // 2, "nothing was replaced"


def test_each_place_has_the_prompt_and_the_completions_of_its_number(build, tokenizer, prompts):
    start, trainer = build(max_steps=1).model, build(max_steps=1)
    trainer.train()
    order = trainer.prompts
    drawn = [prompts[order.row(number)] for number in range(order.cursor)]
    dead = [row["answer"] % 5 in (0, 2, 3) for row in drawn]  # and any other by chance, which is none here
    there = settled(dead, GROUPS)
    sampled = []
    for number in range(len(drawn)):  # each group by itself
        ids = tokenizer(drawn[number]["prompt"])["input_ids"]
        place = Place(0, number * G)
        sampled.append(trainer._seeded.sample(start, [ids] * G, place, group=G))
    rows = trainer.last_rollouts()
    for place, number in enumerate(there):
        group = rows[place * G : (place + 1) * G]
        assert {row["prompt"] for row in group} == {drawn[number]["prompt"]}
        texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in sampled[number]]
        assert [row["completion"] for row in group] == texts
        assert any(row["advantage"] for row in group)
    # Those thrown away are not in completions/, and count in the mean reward and in what was spent
    kept = read_completions(next((trainer._recorder.folder / "completions").iterdir()))
    assert [row["completion"] for row in kept] == [row["completion"] for row in rows]
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for some in sampled for ids in some]
    scored = sparse_reward(texts, [row["answer"] for row in drawn for _ in range(G)])
    (line,) = recorded(trainer)
    assert line["reward"] == pytest.approx(sum(scored) / len(scored), abs=1e-6)
    assert line["rewards"]["sparse_reward"] == line["reward"]
    tokens = sum(len(ids) for some in sampled for ids in some)
    assert line["spent"]["sampled_tokens"] == tokens
    assert line["completion_length"] == pytest.approx(sum(len(ids) for n in there for ids in sampled[n]) / len(rows))
    prompts_too = sum(G * len(tokenizer(row["prompt"])["input_ids"]) for row in drawn)
    assert trainer.state.num_input_tokens_seen == tokens + prompts_too


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo"])
def test_the_gradient_is_that_of_a_window_drawn_so(build, loss_type):
    """Its normaliser counts the groups that stay."""
    changes = {"max_steps": 1, "max_grad_norm": 0.0, "optim": "sgd", "learning_rate": 1.0, "loss_type": loss_type}
    start = build(**changes)
    filled = build(**changes)
    filled.train()
    rows = filled.last_rollouts()
    order = {row["prompt"]: row for row in filled.train_dataset}
    as_drawn = Dataset.from_list([order[row["prompt"]] for row in rows[::G]])

    def said(prompts, trainer):
        assert prompts == [row["prompt"] for row in rows]
        ids = [filled.processing_class(prompt)["input_ids"] for prompt in prompts]
        return {"prompt_ids": ids, "completion_ids": completions, "logprobs": None}

    share = filled._whole_share()
    sizes = share["completion_mask"].sum(dim=1).tolist()
    completions = [ids[:size] for ids, size in zip(share["completion_ids"].tolist(), sizes, strict=True)]
    plain = build(
        folder="plain", rows=as_drawn, refill=None, shuffle_dataset=False, more={"rollout_func": said}, **changes
    )
    plain.train()
    begun, *ended = (flat(each.model).clone() for each in (start, filled, plain))
    moved = [of - begun for of in ended]
    assert float(moved[1].norm()) > 1e-4
    assert float((moved[0] - moved[1]).norm() / moved[1].norm()) < 1e-5
    assert recorded(filled)[0]["grpo_norm"] == pytest.approx(recorded(plain)[0]["grpo_norm"], rel=1e-5)
    assert recorded(plain)[0]["refill"] is None


def test_what_is_sampled_ahead_changes_no_window(build):
    seen, rounds, unused = [], [], []
    for ahead in (True, False):
        trainer = build(folder=str(ahead), refill={"max_batches": 4, "ahead": ahead}, max_steps=6)
        sample, calls = trainer._seeded.sample, []
        trainer._seeded.sample = lambda *a, sample=sample, calls=calls, **k: (calls.append(len(a[1])), sample(*a, **k))[
            1
        ]
        trainer.train()
        lines = recorded(trainer)
        rounds.append(len(calls))
        unused.append(sum(line["refill"].pop("unused") for line in lines))
        more = ("seconds", "spent")
        seen.append([{key: value for key, value in line.items() if key not in more} for line in lines])
        seen[-1].append(flat(trainer.model).tolist())
        assert lines[-1]["spent"]["sampled_tokens"] > 0
        assert sum(calls) == (lines[-1]["prompt_cursor"] + unused[-1]) * G
    assert seen[0] == seen[1]
    assert rounds[0] < rounds[1]
    assert unused[0] > unused[1] == 0


def test_where_no_group_is_dead_nothing_is_changed(build):
    seen = []
    for name, refill in (("with", {"max_batches": 2}), ("without", None)):
        trainer = build(reward, folder=name, refill=refill)
        trainer.train()
        more = ("seconds", "spent", "refill")
        seen.append([{key: value for key, value in line.items() if key not in more} for line in recorded(trainer)])
        seen[-1].append([each.tolist() for each in trainer.model.parameters()])
    assert seen[0] == seen[1]


def test_what_is_dead_at_the_limit_stays(build):
    trainer = build(never, refill={"max_batches": 3}, max_steps=2)
    trainer.train()
    for line in recorded(trainer):
        assert line["refill"] == {"prompts": 12, "replaced": 8, "still_dead": 4, "unused": 0}
        assert (line["zero_std_share"], line["grpo_norm"], line["reward"]) == (1.0, 0.0, 0.5)
    assert trainer.prompts.cursor == 24


def test_steps_that_sample_nothing_replace_nothing(build, demonstrations):
    mix = Static(sft_share=0.5, mode="blend")
    trainer = build(
        controller=mix, per_device_train_batch_size=8, gradient_accumulation_steps=1, steps_per_generation=2,
        more={"demonstrations": demonstrations},
    )  # fmt: skip
    trainer.train()
    assert [line["refill"] is None for line in recorded(trainer)] == [False, True, False, True]


def test_several_windows_in_a_step_are_counted_together(build):
    trainer = build(never, per_device_train_batch_size=8, gradient_accumulation_steps=2, steps_per_generation=1,
                    refill={"max_batches": 2}, max_steps=1)  # fmt: skip
    trainer.train()
    assert recorded(trainer)[0]["refill"] == {"prompts": 8, "replaced": 4, "still_dead": 4, "unused": 0}


@pytest.mark.parametrize(("stop", "changes"), [(2, {}), (3, {"per_device_train_batch_size": 8,
                                                          "steps_per_generation": 2})])  # fmt: skip
def test_resuming_equals_never_stopping(build, stop, changes):
    changes = {"max_steps": 5, "kl_sample": 1.0, **changes}
    whole = build(folder="whole", **changes)
    whole.train()
    build(folder="cut", more={"callbacks": [StopAt(stop)]}, **changes).train()
    resumed = build(folder="cut", seed=99, **changes)
    resumed.train(resume_from_checkpoint=True)
    for (name, a), b in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b), name
    lines = [
        [{key: value for key, value in line.items() if key not in ("seconds", "spent")} for line in recorded(each)]
        for each in (whole, resumed)
    ]
    assert lines[0] == lines[1]
    assert sum(line["refill"]["replaced"] for line in lines[0] if line["refill"]) > 0
    tokens = [recorded(each)[-1]["spent"]["sampled_tokens"] for each in (whole, resumed)]
    assert tokens[0] == tokens[1]


def test_what_workers_score_ahead_is_the_same_and_each_completion_is_scored_once(build):
    rewards, seen = [Reward.from_callable(alike)], []
    with RewardPool(rewards, workers=2) as pool, warnings.catch_warnings():
        warnings.simplefilter("error")
        for ahead in (False, True):
            scorer = Scorer(rewards, pool=pool, max_error_rate=1.0)
            trainer = build(trl_reward_functions(scorer), folder=str(ahead), score_ahead=ahead)
            trainer.train()
            lines = recorded(trainer)
            assert all(("scored_ahead" in line["seconds"]) is ahead for line in lines)
            facts = [(line["refill"], line["reward"]) for line in lines]
            seen.append((facts, flat(trainer.model).tolist(), trainer.last_rollouts()))
            assert pool.begun() == []
    assert seen[0] == seen[1]
    assert sum(refill["replaced"] for refill, _ in seen[0][0]) > 0


def test_a_reward_is_asked_for_each_row_once(build):
    asked = []

    def counting(prompts, completions, answer, **columns):
        asked.append(len(completions))
        return sparse_reward(completions, answer)

    trainer = build(counting, max_steps=3)
    trainer.train()
    seen = [line["refill"] for line in recorded(trainer)]
    assert sum(asked) == sum(each["prompts"] + each["unused"] for each in seen) * G


# ---- what it does not go with ----


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"controller": SFTOnly()}, "refill, but the controller 'sft_only' takes no GRPO step"),
        ({"more": {"method": "hpt"}}, "refill with the method hpt, which makes something of groups without a spread"),
        ({"more": {"rollout_func": never}}, "refill with tools, environments or a rollout_func"),
        ({"refill": {"max_batches": 1}}, "refill.max_batches: 1"),
    ],
)
def test_what_it_does_not_go_with_is_refused(build, demonstrations, changes, says):
    changes = {**changes, "more": {"demonstrations": demonstrations, **changes.get("more", {})}}
    with pytest.raises(ConfigError) as refused:
        build(**changes)
    assert says in str(refused.value)
