"""Prompts as a curriculum draws them: the stream, training by it, resuming, refilling, and what the record says."""

from __future__ import annotations

import warnings

import pytest
import torch
from transformers import AutoModelForCausalLM, set_seed

from posttrain.controllers import Alternate, GRPOOnly, SFTOnly
from posttrain.curricula import BOTS, DUMP, RIF, DifficultyPools, EasyToHard, MixedSources, Outcome, Sampler
from posttrain.curricula.base import outcomes_of, summed_up
from posttrain.errors import ConfigError, DataError
from posttrain.methods import HPT, UFT
from posttrain.rundir.completions import read_completions
from posttrain.storage.files import read_lines
from posttrain.training.drawn import Drawn, outcomes_of_window
from posttrain.training.streams import Stream
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import ROWS, StopAt, hybrid_args, sparse_reward

STEPS, GROUPS, G = 6, 4, 4
SETTINGS = {"per_device_train_batch_size": 16, "num_generations": G, "completions_every": 1, "max_steps": STEPS}
RATES = [(row % 6) / 5 for row in range(len(ROWS))]


@pytest.fixture
def data(prompts):
    return prompts.add_column("people", [2 + row % 3 for row in range(len(prompts))])


@pytest.fixture
def build(model_folder, tokenizer, data, demonstrations, tmp_path):
    def make(curriculum, folder="run", *, controller=None, stop=None, seed=1234, method=None, **changes):
        set_seed(seed)
        controller = controller or GRPOOnly()
        return HybridTrainer(
            AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32),
            sparse_reward,
            hybrid_args(tmp_path / folder, **{**SETTINGS, **changes}),
            data,
            processing_class=tokenizer,
            demonstrations=demonstrations if controller.shares()[0] or method else None,
            controller=controller,
            method=method,
            curriculum=curriculum,
            callbacks=[StopAt(stop)] if stop else None,
        )

    return make


def recorded(trainer):
    lines = read_lines(trainer._recorder.folder / "steps.jsonl")
    return [{k: v for k, v in line.items() if k not in ("seconds", "spent")} for line in lines]


def replayed(trainer) -> list[list[int]]:
    """The draws of a recorded run, from its record alone, each checked; what each window took."""
    sampler, taken = trainer.prompts.sampler, []
    state = sampler.start(7)
    for line in recorded(trainer):
        for window in (line["curriculum"] or {}).get("windows", ()):
            assert state["drawn"] == window["drawn"]
            assert sampler.draw(state, len(window["rows"])) == window["rows"]
            outcomes = outcomes_of(window)
            again = sampler.window(state, outcomes)
            assert {name: again[name] for name in window} == window
            taken.append(window["rows"])
            state = sampler.observe(state, outcomes)
    assert state == trainer.prompts.state
    return taken


def measured(curriculum, data):
    return Sampler(curriculum, curriculum.table(data, data.column_names, RATES))


CASES = {
    "dump": DUMP(source="people"),
    "bots": BOTS(),
    "difficulty_pools": DifficultyPools(easy_fraction=0.3, hard_fraction=0.3),
    "rif": RIF(),
    "easy_to_hard": EasyToHard(by="answer"),
}


@pytest.mark.parametrize(
    ("name", "controller", "stop", "changes"),
    [
        ("dump", GRPOOnly(), 3, {}),
        ("bots", Alternate(sft_steps=1, grpo_steps=2), 4, {}),
        ("bots", GRPOOnly(), 3, {"refill": {"max_batches": 3}}),
        ("difficulty_pools", GRPOOnly(), 3, {"per_device_train_batch_size": 4, "steps_per_generation": 4}),
        ("rif", GRPOOnly(), 3, {}),
        ("easy_to_hard", GRPOOnly(), 3, {}),
    ],
    ids=["dump", "bots-sft", "bots-refill", "pools-inside-window", "rif", "easy_to_hard"],
)
def test_a_run_that_stops_and_goes_on_is_one_that_never_stopped(build, data, name, controller, stop, changes):
    given = measured(CASES[name], data) if name == "rif" else CASES[name]
    whole = build(given, "whole", controller=controller, **changes)
    whole.train()
    build(given, "cut", controller=controller, stop=stop, **changes).train()
    resumed = build(given, "cut", controller=controller, seed=99, **changes)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("default", module="torch|transformers|trl|accelerate")
        resumed.train(resume_from_checkpoint=True)
    for (parameter, a), b in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b), parameter
    assert recorded(whole) == recorded(resumed)
    assert whole.prompts.state == resumed.prompts.state
    taken = replayed(resumed)
    assert sum(map(len, taken)) == resumed.prompts.cursor == resumed.prompts.state["drawn"] > 0
    if "refill" in changes:
        assert any(len(rows) > GROUPS for rows in taken), "dead groups are told of, too"


def test_the_record_is_of_what_was_sampled(build):
    trainer = build(CASES["dump"], max_steps=2)
    trainer.train()
    (windows, shares) = zip(
        *((line["curriculum"]["windows"], line["curriculum"]["sources"]) for line in recorded(trainer)), strict=True
    )
    for step, (window,) in enumerate(windows, start=1):
        rows = read_completions(trainer._recorder.folder / "completions" / f"step-{step:06d}.parquet")
        assert [row["prompt"] for row in rows] == [
            ROWS[number]["prompt"] for number in window["rows"] for _ in range(G)
        ]
        rewards = [reward for group in window["rewards"] for reward in group]
        assert rewards == pytest.approx([row["reward/sparse_reward"] for row in rows], abs=1e-6)
        assert window["sources"] == [str(2 + number % 3) for number in window["rows"]]
        assert sum(each["prompts"] for each in shares[step - 1].values()) == GROUPS
    assert all("curriculum" in line["seconds"] for line in read_lines(trainer._recorder.folder / "steps.jsonl"))


def test_rif_and_no_curriculum_over_the_same_prompts_draw_alike(build, data):
    sampler = measured(RIF(), data)
    solved = [row for row, rate in enumerate(RATES) if rate]
    plain, drawn = Stream(len(solved), seed=7, name="prompts"), Drawn(sampler, seed=7)
    assert drawn.peek(50) == [solved[place] for place in plain.peek(50)]


def test_without_a_curriculum_nothing_is_recorded(build):
    trainer = build(None, max_steps=1)
    trainer.train()
    (line,) = recorded(trainer)
    assert "curriculum" not in line
    assert type(trainer.prompts) is Stream


def test_a_checkpoint_of_another_curriculum_begins_anew_and_says_so(build):
    build(CASES["dump"], stop=2).train()
    trainer = build(BOTS(), max_steps=3)
    with pytest.warns(UserWarning, match="the checkpoint was of the curriculum dump: bots begins anew at prompt 8"):
        trainer.train(resume_from_checkpoint=True)
    assert trainer.prompts.state["drawn"] == 12


def test_outcomes_are_by_prompt_and_of_the_rewards_that_apply():
    nan = float("nan")
    rewards = torch.tensor([[1.0, 0.5], [0.0, nan], [nan, nan], [nan, 1.0]])
    weights = torch.tensor([1.0, 0.2])

    def summed(some):
        return (some * weights).nansum(dim=1).masked_fill(some.isnan().all(dim=1), nan)

    first, second = outcomes_of_window([5, 9], rewards, weights, summed)
    assert (first.row, first.rewards, first.best) == (5, (1.1, 0.0), 1.2)
    assert (second.row, second.rewards, second.best) == (9, (None, 0.2), 0.2)


def test_a_reward_without_bounds_is_none():
    rewards = torch.tensor([[float("inf")], [1.0], [0.0], [-float("inf")]])
    (outcome,) = outcomes_of_window([3], rewards, torch.ones(1), lambda some: some[:, 0])
    assert outcome.rewards == (None, 1.0, 0.0, None)
    assert summed_up([{"rows": [3], "rewards": [list(outcome.rewards)], "best": 1.0}])["with_signal"] == 1.0


def test_a_state_of_other_sources_begins_anew():
    def stream(sources):
        curriculum = MixedSources(shares=dict.fromkeys(sources, 1.0))
        rows = {"source": sources * 4}
        return Drawn(Sampler(curriculum, curriculum.table(rows, ["source"])), seed=1)

    before, after = stream(["a", "b"]), stream(["a", "b", "c"])
    before.observe([Outcome(row, (1.0, 0.0)) for row in before.take(6)])
    after.go_on(before.saved(), 6)
    assert sorted(row % 3 for row in after.take(6)) == [0, 0, 1, 1, 2, 2]


def test_a_stream_does_not_go_back_to_what_was_scored():
    stream = Drawn(Sampler(BOTS(), BOTS().table(range(6), [])), seed=1)
    taken = stream.take(3)
    assert taken == [stream.row(index) for index in range(3)]
    stream.observe([Outcome(row, (1.0, 0.0)) for row in taken])
    with pytest.raises(ValueError, match="row 2 was drawn from an earlier state: 3 prompts were scored"):
        stream.row(2)
    with pytest.raises(ValueError, match="3 prompts were taken, and 4 were scored"):
        stream.observe([Outcome(0, (1.0,))])


@pytest.mark.parametrize(
    ("given", "more", "error", "says"),
    [
        ("dumb", {}, ConfigError, "no curriculum named 'dumb', did you mean 'dump'|no curriculum named 'dumb'"),
        (DUMP, {}, ConfigError, "curriculum is <class"),
        (BOTS(), {"controller": SFTOnly()}, ConfigError, "sft_only takes no GRPO step"),
        (BOTS(), {"method": UFT()}, ConfigError, "the method uft begins them with demonstrations"),
        (DUMP(), {}, DataError, "no column 'source'"),
        (EasyToHard(), {}, DataError, "pass rates of the prompts are not known"),
        (Sampler(BOTS(), BOTS().table(range(3), [])), {}, ConfigError, "a curriculum over 3 rows"),
    ],
)
def test_what_does_not_go_together_is_refused(build, given, more, error, says):
    with pytest.raises(error, match=says):
        build(given, **more)


def test_a_method_that_begins_no_rollouts_goes_with_any(build):
    trainer = build(BOTS(), method=HPT(), max_steps=2)
    trainer.train()
    assert len(replayed(trainer)) == 2
