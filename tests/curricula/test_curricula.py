"""Curricula: the numbers of the papers and of the authors' code, and what holds for every one of them."""

from __future__ import annotations

import json
import time
from collections import Counter

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from posttrain.curricula import (
    BOTS,
    CURRICULA,
    DMT,
    DUMP,
    EXP3,
    GAINRL,
    RIF,
    STAT,
    UCB1,
    Aioli,
    DifficultyPools,
    EasyToHard,
    Human,
    MixedSources,
    Outcome,
    Sampler,
    SkillIt,
    Table,
)
from posttrain.curricula.base import outcomes_of, summed_up
from posttrain.curricula.dump import bonus, softmax
from posttrain.curricula.exp3 import chances, epsilon
from posttrain.curricula.gain_rl import chosen, shift, weight
from posttrain.curricula.order import permutation
from posttrain.curricula.packed import unpacked
from posttrain.curricula.rif import kept
from posttrain.curricula.ucb1 import bound
from posttrain.errors import ConfigError, DataError

ROWS = {
    "source": ["a", "b", "b", "c", "c", "c"] * 5,
    "level": [3, 1, 2, 1, 3, 2] * 5,
    "topic": ["x", "y"] * 15,
    "skills": [["add"], ["add", "carry"], [], ["carry"], "sort", ["add", "add"]] * 5,
    "weak": [0.1, 0.4, 0.2] * 10,
    "strong": [0.5, 1.0, 0.2] * 10,
}
RATES = [0.0, 0.25, 0.5, 1.0, 0.5, 0.75] * 5
ANGLES = [[row % 7 / 10, row % 3 / 100, 0.3] for row in range(30)]
NEEDY = ("dmt", "mixed_sources", "skill_it", "aioli", "gain_rl", "exp3", "ucb1")
SETTINGS = {
    "easy_to_hard by a column": EasyToHard(by="level"),
    "bots with anchors": BOTS(anchors=("weak", "strong")),
    "half of the pools": DifficultyPools(easy_fraction=0.25, hard_fraction=0.25),
    "dmt": DMT(special=("a", "c"), k=0.2),
    "mixed by size": MixedSources(caps={"c": 4}),
    "skill_it": SkillIt(graph={"a": ("b",)}, update_steps=2, held_out=2, eta=0.3),
    "skill_it with targets": SkillIt(target=("b",), update_steps=1, held_out=1),
    "aioli": Aioli(sweeps=1, probe_steps=1, update_steps=4, held_out=2),
    "aioli without an average": Aioli(sweeps=2, probe_steps=1, update_steps=7, held_out=3, ema=None),
    "mixed by shares": MixedSources(caps={"b": 3}, shares={"a": 1, "b": 2, "c": 1}),
    "gain_rl": GAINRL(std=8, n=4, adj_max=8, round=10),
    "exp3": EXP3(held_out=2),
    "ucb1 beside a target": UCB1(target=("a",), held_out=9, batch=2),
    **{name: kind() for name, kind in CURRICULA.items() if name not in NEEDY},
}


def sampler(curriculum) -> Sampler:
    return Sampler(curriculum, curriculum.table(ROWS, list(ROWS), RATES, ANGLES))


def gave(rows, of=lambda row: row % 5) -> list[Outcome]:
    """Four rollouts of each prompt, of which as many are right as the row says."""
    return [Outcome(row, tuple(float(number < of(row)) for number in range(4))) for row in rows]


# ---- what holds for every one ----


@pytest.fixture(params=SETTINGS)
def some(request) -> Sampler:
    return sampler(SETTINGS[request.param])


def test_a_draw_begins_with_a_shorter_one_and_changes_nothing(some):
    state = some.start(3)
    for _ in range(4):
        before = json.dumps(state)
        rows = some.draw(state, 70)
        assert [some.draw(state, count) for count in (1, 7, 30, 69)] == [rows[:count] for count in (1, 7, 30, 69)]
        assert all(0 <= row < some.size for row in rows)
        state = some.observe(state, gave(rows[:9]))
        assert json.dumps(json.loads(before)) == before


def test_a_state_is_json_and_goes_on_from_it(some):
    states = [some.start(5)]
    for _ in range(6):
        states.append(some.observe(states[-1], gave(some.draw(states[-1], 8))))
    read = json.loads(json.dumps(states[3]))
    for state in states[3:]:
        assert read == state
        rows = some.draw(read, 8)
        assert rows == some.draw(state, 8)
        read = json.loads(json.dumps(some.observe(read, gave(rows))))
    assert states[-1]["drawn"] == 48


def test_another_seed_draws_others(some):
    rows = [some.draw(some.start(seed), 12) for seed in (1, 2)]
    assert len(set(map(tuple, rows))) == (1 if some.curriculum.name == "easy_to_hard" else 2)


def test_the_record_of_a_window_says_why_and_gives_the_outcomes_again(some):
    state = some.start(1)
    for _ in range(3):
        outcomes = gave(some.draw(state, 6))
        window = json.loads(json.dumps(some.window(state, outcomes)))
        assert outcomes_of(window) == outcomes
        assert window["drawn"] == state["drawn"]
        for place in range(6):
            assert len(some.curriculum.reason(window, place)) > 10
        state = some.observe(state, outcomes)


def test_nothing_scored_teaches_nothing(some):
    state = some.start(1)
    after = some.observe(state, [Outcome(2, (None, None)), Outcome(3, (None, 1.0), 0.0)])
    assert after["drawn"] == 2


def test_settings_go_through_a_recipe_and_unknown_ones_are_refused():
    for curriculum in SETTINGS.values():
        adapter = TypeAdapter(type(curriculum))
        given = json.loads(json.dumps(adapter.dump_python(curriculum)))
        assert adapter.validate_python(given) == curriculum
        with pytest.raises(ValidationError):
            adapter.validate_python({**given, "gain": 1})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: EasyToHard(by="level", samples=4), "by: level, and model: base, samples: 4"),
        (lambda: BOTS(rho=0.5), "rho: 0.5, and no anchors"),
        (lambda: DifficultyPools(easy_fraction=0.6, hard_fraction=0.5), "no more than 1 together"),
        (lambda: DifficultyPools(easy_threshold=0.2, hard_threshold=0.2), "the former below the latter"),
        (lambda: GAINRL(adj_min=2000), "adj_min: 2000, and adj_max: 1000"),
    ],
)
def test_settings_without_effect_are_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


@pytest.mark.parametrize(
    ("curriculum", "columns", "says"),
    [
        (DUMP(), {"people": [1, 2]}, "no column 'source'(.|\n)*name another with `source:`"),
        (DUMP(source="sources"), {"source": ["a"]}, "no column 'sources', did you mean 'source'|no column 'sources'"),
        (BOTS(source="skill"), {"source": ["a"]}, "no column 'skill'"),
        (EasyToHard(by="level"), {"people": [1, 2]}, "no column 'level'(.|\n)*`by:`"),
        (EasyToHard(by="level"), {"level": ["low", "high"]}, "values of the kind str"),
        (EasyToHard(by="level"), {"level": [1, None]}, "1 of 2 prompts have no value"),
        (BOTS(anchors=("weak", "strong")), {"weak": [0.1], "strong": [1.5]}, "'strong' is not of rates"),
        (DMT(), {"source": ["a", "b"]}, "special: none, of the sources a, b"),
        (DMT(special=("a", "b")), {"source": ["a", "b"]}, "but not all"),
        (MixedSources(caps={"d": 1}), {"source": ["a", "b"]}, "no prompt is of the source 'd'"),
        (MixedSources(shares={"a": 1}), {"source": ["a", "b"]}, "shares for a, and prompts of a, b"),
        (Human(), {"source": ["a"], "level": ["low"]}, "'level' is not of numbers"),
        (EasyToHard(), {"prompt": ["x"]}, "pass rates of the prompts are not known"),
        (EXP3(), {"source": ["a", "b", "a", "b"]}, r"sources a \(2\), b \(2\), of which held_out: 16 holds back the"),
        (UCB1(target=("c",)), {"source": ["a", "b"]}, "no demonstration is of the source 'c'"),
        (RIF(), {"prompt": ["x"]}, "pass rates of the prompts are not known"),
        (GAINRL(), {"prompt": ["x"]}, "angles of the prompts' hidden states are not known"),
    ],
)
def test_columns_that_are_needed_and_lacking_are_named(curriculum, columns, says):
    with pytest.raises(DataError, match=says):
        curriculum.table(columns, list(columns))


def test_none_solved_is_refused():
    for curriculum in (EasyToHard(), RIF()):
        with pytest.raises(DataError, match=r"none of the 2 prompts was ever solved(.|\n)*curriculum\.model=warmup"):
            curriculum.table({"prompt": ["x", "y"]}, ["prompt"], [0.0, 0.0])


# ---- outcomes ----


def test_a_solve_rate_is_a_share_of_the_best_and_an_advantage_grpos():
    outcome = Outcome(0, (2.0, 0.0, None, 1.0), 2.0)
    assert outcome.shares == [1.0, 0.0, 0.5]
    assert outcome.rate == 0.5
    assert outcome.advantages == pytest.approx([1 / 1.0001, -1 / 1.0001, 0.0])
    assert Outcome(0, (3.0, -1.0), 1.0).shares == [1.0, 0.0]
    assert Outcome(0, (1.0,)).advantages == [0.0]


def test_a_step_in_numbers():
    window = {"rows": [4, 1, 2], "best": [1.0, 2.0, 1.0], "sources": ["b", "a", "b"]}
    window["rewards"] = [[1.0, 0.0], [2.0, 2.0], [None, None]]
    told = summed_up([window])
    assert told["solve_rate"] == 0.75
    assert told["with_signal"] == pytest.approx(1 / 3)
    assert told["sources"] == {"a": {"prompts": 1, "solve_rate": 1.0}, "b": {"prompts": 2, "solve_rate": 0.5}}


# ---- easy_to_hard, rif ----


def test_easy_to_hard_as_in_sari():
    table = EasyToHard().table({"prompt": list("abcd")}, ["prompt"], [0.0, 0.25, 0.5, 1.0])
    order = Sampler(EasyToHard(), table)
    assert order.draw(order.start(0), 5) == [3, 2, 1, 3, 2]
    ties = EasyToHard().table({"prompt": list("abcd")}, ["prompt"], [0.5, 1.0, 0.5, 1.0])
    assert EasyToHard().order(ties) == [1, 3, 0, 2]
    by = sampler(EasyToHard(by="level"))
    levels = [ROWS["level"][row] for row in by.draw(by.start(0), 30)]
    assert levels == sorted(levels)


def test_rif_keeps_what_was_ever_solved():
    rewards = [[0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 1]]
    assert kept([sum(some) / len(some) for some in rewards]) == [1, 2]
    some = sampler(RIF())
    rows = some.draw(some.start(7), 25)
    assert sorted(rows) == [row for row in range(30) if RATES[row]]
    assert rows == [kept(RATES)[place] for place in permutation("prompts:7:0", 25)]


# ---- stat ----


def test_stat_draws_five_for_each_time_that_a_skill_is_missing():
    columns = {"skills": [["a"], ["a", "b"], ["b"], ["c"], ["a"]]}
    curriculum = STAT(difficult=0.2)
    table = curriculum.table(columns, ["skills"], [0.0, 0.2, 0.5, 1.0, 0.9])
    assert curriculum.profile(table) == {"a": 2, "b": 1}
    chosen = curriculum.chosen(table, 3, 0)
    assert Counter(skill for _, skill in chosen) == {"a": 10, "b": 5}
    assert all(skill in columns["skills"][row] for row, skill in chosen)
    assert {row for row, _ in chosen} == {0, 1, 2, 4}, "whoever has the skill, also where the model solved it"
    some = Sampler(curriculum, table)
    assert some.draw(some.start(3), 40)[:15] == [row for row, _ in chosen]
    assert some.draw(some.start(3), 40)[15:30] == [row for row, _ in curriculum.chosen(table, 3, 1)]
    assert curriculum.completions == 8


def test_stat_without_failures_is_refused():
    columns = {"skills": [["a"], []]}
    with pytest.raises(DataError, match=r"no prompt with a pass rate of 0\.5 or less has a skill in the column"):
        STAT().table(columns, ["skills"], [1.0, 0.0])
    with pytest.raises(DataError, match="pass rates of the prompts are not known"):
        STAT().table(columns, ["skills"])


# ---- dump ----


def test_dump_has_the_numbers_of_the_paper():
    assert softmax([0.5, 0.1], 0.1)[0] == pytest.approx(0.982014, abs=1e-6)
    assert bonus(200, 100) == pytest.approx(0.324062, abs=1e-6)
    table = Table(2, {"source": ["a", "b"]})
    state = {"drawn": 0, "seed": 0, "sources": {"a": {"n": 100, "seen": [0.5]}, "b": {"n": 100, "seen": [0.1]}}}
    chances = DUMP().chances(table, state)
    assert chances["a"]["p"] == pytest.approx(0.982014, abs=1e-6)
    assert chances["b"]["bonus"] == pytest.approx(0.324062, abs=1e-6)


def test_dump_takes_the_absolute_value_of_each_rollout():
    some = sampler(DUMP(window=6))
    state = some.observe(some.start(0), [Outcome(0, (1.0, 0.0)), Outcome(1, (1.0, 1.0))])
    assert state["sources"]["a"]["seen"] == pytest.approx([0.5 / (0.5**0.5 + 1e-4)] * 2, abs=1e-6)
    assert state["sources"]["b"] == {"n": 2, "seen": [0.0, 0.0]}
    for _ in range(5):
        state = some.observe(state, [Outcome(0, (1.0, 0.0))])
    assert len(state["sources"]["a"]["seen"]) == 6
    assert state["sources"]["a"]["n"] == 12


def test_dump_goes_to_the_source_that_teaches():
    some = sampler(DUMP())
    state = some.start(0)
    for _ in range(60):
        rows = some.draw(state, 4)
        outcomes = gave(rows, of=lambda row: 2 if ROWS["source"][row] == "b" else 4)
        state = some.observe(state, outcomes)
    counts = Counter(ROWS["source"][row] for row in some.draw(state, 200))
    assert counts["b"] > 150
    assert Counter(some.draw(state, 3000)).keys() >= {row for row in range(30) if ROWS["source"][row] == "b"}


# ---- gain_rl ----


def test_gain_rl_has_the_numbers_of_the_code():
    own = {name: getattr(GAINRL(), name) for name in ("n", "alpha", "beta", "adj_min", "adj_max")}
    assert own == {"n": 500, "alpha": 2, "beta": 0.5, "adj_min": 0, "adj_max": 1000}
    assert shift(1.0, 0.3, **own) == pytest.approx(649.32, abs=0.005)
    assert shift(0.0, 0.0, **own) == 0.0
    assert shift(1.0, 5.0, **{**own, "n": 5000}) == 1000.0
    assert weight(7, 7, 1000) == 1.0
    assert weight(1007, 7, 1000) == pytest.approx(0.606531, abs=1e-6)


def test_gain_rl_orders_by_what_the_context_counts():
    table = Table(3, angles=[[0.9, 0.0, 0.5], [0.2, 0.1, 0.5], [0.9, 0.0, 0.5]])
    assert GAINRL().order(table).tolist() == [1, 0, 2], "0.2 + 8 * 0.1 is more than 0.9"
    assert GAINRL(context=1).order(table).tolist() == [0, 2, 1]


def test_a_round_is_drawn_by_weights_and_without_replacement():
    size, std, counts = 60, 6.0, Counter()
    for key in range(4000):
        ranks = chosen(size, 1, 20.0, std, (key,))
        counts.update(ranks)
    p = np.array([weight(rank, 20.0, std) for rank in range(size)])
    p /= p.sum()
    seen = np.array([counts[rank] for rank in range(size)])
    assert np.abs(seen - 4000 * p).max() < 5 * np.sqrt(4000 * p.max()), "5 standard deviations"
    ranks = chosen(size, 25, 20.0, std, (1,))
    assert len(set(ranks)) == 25
    assert list(ranks) == sorted(ranks)
    assert chosen(100, 10, 99.0, 0.01, (1,)) == tuple(range(90, 100)), "weights that no float holds"


def test_the_window_moves_after_a_round_by_its_accuracy():
    curriculum = GAINRL(std=5, n=4, adj_max=8, round=6)
    table = Table(40, angles=[[1 - row / 40, 0.0, row / 40] for row in range(40)])
    state, rows = curriculum.start(table, 3), []
    for solved in (4, 2):
        drawn = curriculum.draw(table, state, 4)
        rows.append(drawn)
        assert (state["mean"], state["rounds"]) == (0.0, 0)
        state = curriculum.observe(table, state, gave(drawn, of=lambda row, solved=solved: solved))
    assert rows[0] == sorted(rows[0]), "the highest concentration first"
    accuracy = (4 * 1.0 + 4 * 0.5) / 8
    moved = 4 * np.tanh(2 * (accuracy - 0.5)) + 4 * np.tanh(2 * np.mean([*rows[0], *rows[1]]) / 40)
    assert state["mean"] == pytest.approx(moved, abs=1e-5)
    assert (state["rounds"], state["began"], state["scored"]) == (1, 8, 0)
    for _ in range(60):
        drawn = curriculum.draw(table, state, 6)
        state = curriculum.observe(table, state, gave(drawn, of=lambda row: 4))
    assert state["mean"] == 39.0, "past the last prompt nothing is left"
    assert min(curriculum.draw(table, state, 6)) > 15
    unscored = curriculum.observe(table, state, [Outcome(row, (None,)) for row in range(6)])
    assert unscored["mean"] == state["mean"]


# ---- bots ----


def posterior(state, row):
    return tuple(float(unpacked(state[name], "f4")[row]) for name in ("alpha", "beta"))


def test_bots_updates_as_trinity_does():
    some = sampler(BOTS())
    state = some.observe(some.start(0), [Outcome(4, (1.0,) * 6 + (0.0,) * 2)])
    assert posterior(state, 4) == pytest.approx((7.0, 3.0))  # 0.8 + 0.2 + 6, and 2
    assert posterior(state, 5) == pytest.approx((1.0, 1.0))
    state = some.observe(state, [Outcome(5, (0.0, 0.5))])
    assert posterior(state, 4) == pytest.approx((5.8, 2.6))
    assert posterior(state, 5) == pytest.approx((1.5, 2.5))


def test_bots_knows_of_prompts_that_were_not_drawn_by_two_models():
    some = sampler(BOTS(anchors=("weak", "strong"), rho=0.2))
    # rows 0 and 1: weak 0.1 and 0.4, strong 0.5 and 1.0; rates 0.25 and 0.75 lie halfway
    state = some.observe(some.start(0), [Outcome(0, (1.0, 0, 0, 0)), Outcome(1, (1.0, 1.0, 1.0, 0))])
    c = (0.5 - 0.25) / (0.75 - 0.25 + 1e-6)
    assert state["place"] == pytest.approx(c)
    assert posterior(state, 0) == pytest.approx((1 + 0.8 * 1 + 0.2 * 0.25 * 4, 1 + 0.8 * 3 + 0.2 * 0.75 * 4))
    q = 0.1 + c * 0.4
    assert posterior(state, 3) == pytest.approx((1 + 0.2 * q * 4, 1 + 0.2 * (1 - q) * 4))
    after = some.observe(state, [Outcome(0, (0.0,) * 4)])
    assert after["place"] == pytest.approx(0.9 * c + 0.1 * (0.0 - 0.1) / (0.4 + 1e-6))


def test_bots_learns_no_place_between_models_that_are_alike():
    columns = {"weak": [0.5, 0.1, 0.2], "strong": [0.5, 0.9, 0.6]}
    curriculum = BOTS(anchors=("weak", "strong"))
    some = Sampler(curriculum, curriculum.table(columns, list(columns)))
    state = some.observe(some.start(0), [Outcome(0, (1.0, 1.0, 1.0, 0.0))])
    assert state["place"] is None
    assert posterior(state, 0) == pytest.approx((1 + 3, 1 + 1)), "all evidence is the prompt's own"
    assert posterior(state, 2) == pytest.approx((1, 1))
    state = some.observe(state, [Outcome(1, (1.0, 0.0))])
    assert state["place"] == pytest.approx(0.5, abs=1e-5)
    assert some.observe(state, [Outcome(0, (1.0,) * 4)])["place"] == state["place"]


def test_bots_draws_what_is_likely_near_the_target():
    some = sampler(BOTS(target=0.5, decay=0.0))
    state = some.start(0)
    for _ in range(30):
        state = some.observe(state, gave(range(30), of=lambda row: 2 if row in (3, 8) else 4 * (row % 2)))
    assert set(some.draw(state, 2)) == {3, 8}


# ---- difficulty pools ----


def test_pools_are_by_the_last_rollouts():
    some = sampler(DifficultyPools())
    state = some.observe(some.start(0), gave([4, 5, 6]))
    assert unpacked(state["pools"], "u1")[[4, 5, 6, 7]].tolist() == [1, 2, 0, 0]
    state = some.observe(state, gave([4, 5], of=lambda row: 1))
    assert not unpacked(state["pools"], "u1").any()
    graded = DifficultyPools(easy_threshold=0.8, hard_threshold=0.2)
    assert [graded.pool(rate) for rate in (0.0, 0.2, 0.21, 0.79, 0.8, 1.0)] == [2, 2, 0, 0, 1, 1]


def test_each_pool_has_its_share_of_any_stretch_of_draws():
    curriculum = DifficultyPools(easy_fraction=0.1, hard_fraction=0.2)
    table = Table(400)
    state = curriculum.observe(table, curriculum.start(table, 9), gave(range(200), of=lambda row: 4 * (row % 2)))
    for drawn in (0, 17, 333):
        rows = curriculum.draw(table, {**state, "drawn": drawn}, 100)
        pools = Counter(unpacked(state["pools"], "u1")[rows].tolist())
        assert pools[1] == pytest.approx(10, abs=2)
        assert pools[2] == pytest.approx(20, abs=2)
        assert len(set(rows)) == 100


def test_an_empty_pool_gives_way_and_a_large_window_goes_round():
    curriculum, table = DifficultyPools(easy_fraction=1.0, hard_fraction=0.0), Table(5)
    state = curriculum.observe(table, curriculum.start(table, 1), gave([0], of=lambda row: 4))
    rows = curriculum.draw(table, state, 12)
    assert rows[0] == 0
    assert sorted(rows[:5]) == sorted(rows[5:10]) == list(range(5))


# ---- by order alone ----


def test_dmt_mixes_in_a_share_of_each_specialised_source():
    table = Table(130_100, {"source": ["maths"] * 110_000 + ["code"] * 20_000 + ["chat"] * 100})
    for k, again in ((1 / 256, (429, 78)), (0.0, (0, 0))):
        first, second = DMT(special=("maths", "code"), k=k).stages(table, 4)
        assert len(first) == 130_000
        counts = Counter(table.columns["source"][row] for row in second)
        assert (counts["maths"], counts["code"], counts["chat"]) == (*again, 100)
    hundred = Table(101, {"source": ["maths"] * 100 + ["chat"]})
    assert len(DMT(special=("maths",), k=0.29).stages(hundred, 4)[1]) == 30, "29, which binary fractions fall short of"
    assert DMT(special=("maths",)).stages(table, 4)[1] == DMT(special=("maths",)).stages(table, 4)[1]


def test_dmt_goes_from_one_stage_to_the_other():
    some = sampler(DMT(special=("a",), k=0.4, epochs=2))
    rows = some.draw(some.start(1), 37)
    assert Counter(ROWS["source"][row] for row in rows[:10]) == {"a": 10}
    assert len(set(rows[:5])) == len(set(rows[5:10])) == 5
    assert Counter(ROWS["source"][row] for row in rows[10:]) == {"a": 2, "b": 10, "c": 15}
    state = some.observe(some.start(1), gave(rows[:7]))
    assert some.draw(state, 30) == rows[7:]


def test_human_goes_by_levels_and_takes_topics_by_turns():
    some = sampler(Human(source="topic"))
    rows = some.draw(some.start(1), 30)
    levels = [ROWS["level"][row] for row in rows]
    assert levels == sorted(levels)
    assert sorted(rows) == list(range(30))
    for level in (1, 2, 3):
        own = [ROWS["topic"][row] for row in rows if ROWS["level"][row] == level]
        turns = min(own.count("x"), own.count("y"))
        assert own[: 2 * turns] == ["x", "y"] * turns or own[: 2 * turns] == ["y", "x"] * turns


def test_mixed_sources_hold_caps_and_shares():
    some = sampler(MixedSources(caps={"c": 4, "a": 0}))
    rows = some.draw(some.start(1), 14)
    assert Counter(ROWS["source"][row] for row in rows) == {"b": 10, "c": 4}
    assert len(set(rows)) == 14
    shared = sampler(MixedSources(shares={"a": 1, "b": 2, "c": 1}))
    state, counts = shared.start(1), Counter()
    for count in (1, 2, 3, 5, 30, 9):
        drawn = shared.draw(state, count)
        counts.update(ROWS["source"][row] for row in drawn)
        state = shared.observe(state, gave(drawn))
        for name, share in {"a": 0.25, "b": 0.5, "c": 0.25}.items():
            assert counts[name] == pytest.approx(share * counts.total(), abs=1.0)
    assert state["taken"] == counts
    later = Counter(ROWS["source"][row] for row in shared.draw({**shared.start(1), "drawn": 400}, 40))
    assert later == {"a": 10, "b": 20, "c": 10}, "a stage that was without it until here has nothing to make up for"


# ---- exp3, ucb1 ----


def test_exp3_has_the_numbers_of_the_code():
    assert [epsilon(3, plays) for plays in (0, 1, 10)] == pytest.approx([1 / 3, 0.182459, 0.060214], abs=1e-6)
    assert chances([1.5, 0.3, -0.6], 1 / 3, epsilon(3, 1)) == pytest.approx([0.391339, 0.322475, 0.286186], abs=1e-6)
    assert sum(chances([5000.0, -3.0], 0.3, 0.1)) == pytest.approx(1.0), "sums that no exponential holds"
    table = Table(30, {"source": ROWS["source"]})
    curriculum = EXP3(held_out=2, batch=3)
    state = curriculum.start(table, 0)
    assert [of["p"] for of in state["sources"].values()] == pytest.approx([1 / 3] * 3)
    assert curriculum.ask(table, state) is None
    kept = curriculum.kept(table, 0)
    state = curriculum.observe(table, state, [Outcome(kept[name][0], ()) for name in "abc"])
    asked = curriculum.ask(table, state)
    assert (asked.kind, asked.rows) == ("gradients", {name: [kept[name][0]] for name in "abc"})
    assert len(asked.target) == 6
    assert not {*asked.target} & {row for rows in kept.values() for row in rows}
    state = curriculum.take(table, state, {"a": 0.5, "b": 0.1, "c": -0.2})
    assert [of["reward"] for of in state["sources"].values()] == pytest.approx([1.5, 0.3, -0.6])
    assert [of["p"] for of in state["sources"].values()] == pytest.approx([0.391339, 0.322475, 0.286186], abs=1e-6)
    assert curriculum.ask(table, state) is None
    state = curriculum.observe(table, state, [Outcome(kept["c"][0], ())])
    after = curriculum.take(table, state, {"c": 0.1})
    assert after["sources"]["a"]["reward"] == 1.5, "no row, no reward"
    assert after["sources"]["c"]["reward"] == pytest.approx(-0.6 + 0.1 / state["sources"]["c"]["p"])


def test_exp3_draws_by_its_chances_and_never_the_targets_rows():
    table = Table(30, {"source": ROWS["source"]})
    curriculum = EXP3(held_out=2)
    state = curriculum.start(table, 1)
    for name, p in (("a", 0.7), ("b", 0.2), ("c", 0.1)):
        state["sources"][name]["p"] = p
    rows = curriculum.draw(table, state, 2000)
    counts = Counter(ROWS["source"][row] for row in rows)
    assert counts["a"] == pytest.approx(1400, abs=5 * (2000 * 0.21) ** 0.5)
    assert not {*rows} & {*curriculum.held(table, 1)}
    own = [row for row in rows if ROWS["source"][row] == "b"]
    assert sorted(own[:8]) == sorted(curriculum.kept(table, 1)["b"]), "each once before one comes again"


def test_ucb1_has_the_numbers_of_the_code():
    bounds = [bound(value, 12, n) for value, n in ((0.5, 5), (0.1, 3), (-0.2, 1))]
    assert bounds == pytest.approx([1.496977, 1.387091, 2.029308], abs=1e-6)
    table = Table(30, {"source": ROWS["source"]})
    curriculum = UCB1(held_out=1, batch=2)
    state = curriculum.start(table, 0)
    asked = curriculum.ask(table, state)
    kept = curriculum.kept(table, 0)
    assert asked.rows == {name: kept[name][:2] for name in "abc"}, "before the first step some rows of each"
    state = curriculum.take(table, state, {"a": 0.5, "b": 0.1, "c": -0.2})
    assert curriculum.ask(table, state) is None
    taken = {"a": 8, "b": 4, "c": 0}  # 4, 2 and 0 plays of 9: t is 12 with the 3 that each begins with
    assert curriculum.choose(state, {**taken, "c": 6}, 0) == "a"
    assert curriculum.choose(state, taken, 0) == "c"
    drawn = Counter(ROWS["source"][row] for row in curriculum.draw(table, state, 400))
    assert drawn["a"] > drawn["b"] > drawn["c"] > 0
    state = curriculum.observe(table, state, [Outcome(kept["a"][0], ())])
    assert curriculum.take(table, state, {"a": 1.0})["sources"]["a"]["value"] == pytest.approx(0.55)


def test_a_target_source_may_be_nothing_but_the_target():
    table = Table(30, {"source": ROWS["source"]})
    curriculum = UCB1(target=("a",), held_out=5)
    assert curriculum.held(table, 0) == [0, 6, 12, 18, 24]
    assert list(curriculum.kept(table, 0)) == ["b", "c"]
    state = curriculum.start(table, 0)
    assert list(state["sources"]) == ["b", "c"]
    state = curriculum.observe(table, state, [Outcome(row, ()) for row in (0, 1, 3)])
    assert state["last"] == {"b": [1], "c": [3]}, "a row that other settings drew is nothing to it"


# ---- what it costs ----


@pytest.mark.parametrize("curriculum", [BOTS(), DifficultyPools()], ids=lambda each: each.name)
def test_a_state_of_a_million_prompts_is_small(curriculum):
    table = Table(1_000_000)
    state = curriculum.observe(table, curriculum.start(table, 1), gave(range(64)))
    before = time.process_time()
    text = json.dumps(state)
    assert time.process_time() - before < 1.0  # some milliseconds; a busy machine is no fault
    assert len(text) < 20_000_000
    assert np.isfinite(curriculum.draw(table, state, 8)).all()
