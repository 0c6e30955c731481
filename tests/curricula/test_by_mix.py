"""Curricula by validation losses: the numbers of the papers and of the authors' code, and how a mix moves."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from posttrain.curricula import Aioli, Outcome, Sampler, SkillIt, Table
from posttrain.curricula.aioli import column_sums, normalised, solved
from posttrain.curricula.by_mix import softmax
from posttrain.curricula.skill_it import scores
from posttrain.errors import DataError

TWO = Table(40, {"source": ["a", "b"] * 20})
THREE = Table(60, {"source": ["a", "b", "c"] * 20})


def shares(sampler: Sampler, state) -> list[float]:
    return list(sampler.curriculum.weights(sampler.table, state).values())


def after(sampler: Sampler, state, steps: int, losses, size: int = 4):
    """The state after some steps, with the losses that `losses(step, state)` gives where they are asked for; how often
    that was, and what was drawn."""
    asked, drawn = [], []
    for _ in range(steps):
        if (wanted := sampler.ask(state)) is not None:
            assert wanted.kind == "losses"
            asked.append(state["steps"])
            given = losses(state["steps"], state)
            state = sampler.take(state, {name: given[name] for name in wanted.rows})
            assert sampler.ask(state) is None
        rows = sampler.draw(state, size)
        drawn.append(rows)
        state = json.loads(json.dumps(sampler.observe(state, [Outcome(row, ()) for row in rows])))
    return state, asked, drawn


# ---- Skill-It ----


def test_skill_its_weights_are_the_papers():
    graph = {"a": {"a": 1.0, "b": 0.5}, "b": {"b": 1.0}}
    begun = softmax(scores(graph, {"a": 1.0, "b": 1.0}, 0.5))
    assert list(begun.values()) == pytest.approx([0.562177, 0.437823], abs=1e-6)
    moved = softmax(scores(graph, {"a": 5.4, "b": 2.7}, 0.5))
    assert list(moved.values()) == pytest.approx([0.883397, 0.116603], abs=1e-6)


def test_skill_it_sums_the_last_three_measurements():
    sampler = Sampler(SkillIt(graph={"a": ("b",)}, update_steps=5, held_out=4), TWO)
    seen = {5: (9.0, 9.0), 10: (2.0, 1.0), 15: (1.8, 0.9), 20: (1.6, 0.8)}  # the last three add up to 5.4 and 2.7
    state, asked, _ = after(sampler, sampler.start(3), 5, None)
    assert asked == []
    assert shares(sampler, state) == pytest.approx([0.562177, 0.437823], abs=1e-6)
    state, asked, _ = after(sampler, state, 20, lambda step, _: dict(zip("ab", seen[step], strict=True)))
    assert asked == [5, 10, 15, 20]
    assert shares(sampler, state) == pytest.approx([0.883397, 0.116603], abs=1e-6)
    assert sampler.curriculum.passes(TWO, 25) == 4 * 4 * 2


def test_with_targets_the_window_is_averaged_and_other_columns_do_not_count():
    sampler = Sampler(SkillIt(graph={"a": ("b",)}, target=("b",), update_steps=1, held_out=4, eta=1.0), TWO)
    state = sampler.start(0)
    assert shares(sampler, state) == pytest.approx(list(softmax({"a": 0.5, "b": 1.0}).values()))
    state, asked, _ = after(sampler, state, 3, lambda step, _: {"b": {1: 1.0, 2: 3.0}[step]})
    assert asked == [1, 2]
    assert shares(sampler, state) == pytest.approx(list(softmax({"a": 0.5 * 2.0, "b": 2.0}).values()))


# ---- Aioli ----

DROPS = [[0.5, 0.1], [0.3, 0.4]]


@pytest.mark.parametrize(
    ("h", "matrix", "mix"),
    [(0.75, [[0.7, -0.1], [0.25, 0.45]], (0.587331, 0.412669)), (1.0, DROPS, (0.557438, 0.442562))],
)
def test_aiolis_matrix_and_mix_are_the_codes(h, matrix, mix):
    assert np.allclose(solved(DROPS, h), matrix)
    sums = column_sums(normalised(solved(DROPS, h)))
    assert list(softmax(dict(zip("ab", sums, strict=True))).values()) == pytest.approx(mix, abs=1e-6)
    if h == 0.75:
        assert sums == pytest.approx((0.676471, 0.323529), abs=1e-6)


def test_the_closed_form_solves_the_mixes():
    drops, h = [[0.3, -0.1, 0.2], [0.0, 0.5, 0.1], [0.4, 0.2, 0.9]], 0.625
    mixes = np.full((3, 3), (1 - h) / 2) + np.eye(3) * (h - (1 - h) / 2)
    assert np.allclose(solved(drops, h), np.stack([np.linalg.solve(mixes, row) for row in np.array(drops)]))
    assert normalised([[0.0, 0.0], [0.0, 0.0]]) == [[0.25] * 2] * 2


def falling(sampler: Sampler, drops):
    """Losses that fall by drops[i][j] in each probe of source j."""
    names, level = list(sampler.curriculum.sources(sampler.table)), {}

    def losses(step, state):
        if step % sampler.curriculum.update_steps:
            probed = names.index(sampler.curriculum.probe(sampler.table, {**state, "steps": step - 1}))
            for number, name in enumerate(names):
                level[name] -= drops[number][probed]
        else:
            level.update(dict.fromkeys(names, 100.0))
        return dict(level)

    return losses


@pytest.mark.parametrize(("h", "mix"), [(0.75, (0.587331, 0.412669)), (1.0, (0.557438, 0.442562))])
def test_a_round_of_probes_gives_the_mix_of_the_drops_that_it_measured(h, mix):
    curriculum = Aioli(one_hot_factor=h, eta=1.0, sweeps=3, probe_steps=2, update_steps=20, held_out=4)
    sampler = Sampler(curriculum, TWO)
    curriculum.check(TWO)
    state, asked, drawn = after(sampler, sampler.start(1), 13, falling(sampler, DROPS))
    assert asked == [0, 2, 4, 6, 8, 10, 12]
    assert shares(sampler, state) == pytest.approx(mix, abs=1e-6)
    assert curriculum.first_change(TWO) == 12
    assert curriculum.passes(TWO, 20) == 7 * 4 * 2
    for begin in range(0, 12, 2):  # 8 rows of a probe, 6 of them or all of its source
        column = Counter(TWO.columns["source"][row] for rows in drawn[begin : begin + 2] for row in rows)
        assert sorted(column.values()) == ([2, 6] if h == 0.75 else [8])
    state, asked, _ = after(sampler, state, 20, falling(sampler, DROPS))
    assert asked[0] == 20
    assert shares(sampler, state) == pytest.approx(mix, abs=1e-6), "the average of alike rounds"


def test_without_an_average_the_mix_moves_on():
    curriculum = Aioli(one_hot_factor=0.75, eta=1.0, ema=None, sweeps=1, probe_steps=1, update_steps=3, held_out=4)
    sampler = Sampler(curriculum, TWO)
    state, *_ = after(sampler, sampler.start(1), 9, falling(sampler, DROPS))  # three rounds
    first, second = 0.587331, 0.412669
    moved = first**3 / (first**3 + second**3)
    assert list(state["mix"].values()) == pytest.approx((moved, 1 - moved), abs=1e-5)


# ---- both ----

BOTH = [SkillIt(update_steps=2, held_out=4), Aioli(sweeps=1, probe_steps=1, update_steps=9, held_out=4)]


@pytest.mark.parametrize("curriculum", BOTH, ids=["skill_it", "aioli"])
def test_what_is_held_out_is_never_drawn_and_shares_are_kept_to_within_one(curriculum):
    sampler = Sampler(curriculum, THREE)
    state, due, drawn = sampler.start(5), Counter(), Counter()
    held = {row for rows in curriculum.held(THREE, 5).values() for row in rows}
    assert len(held) == 12
    for step in range(40):
        if sampler.ask(state) is not None:
            state = sampler.take(state, {"a": 2.0 + step % 3, "b": 1.0, "c": 0.5})
        due.update(dict(zip("abc", (7 * share for share in shares(sampler, state)), strict=True)))
        rows = sampler.draw(state, 7)
        assert not held & set(rows)
        drawn.update(THREE.columns["source"][row] for row in rows)
        assert all(abs(drawn[name] - due[name]) <= 2 for name in "abc")
        state = sampler.observe(state, [Outcome(row, ()) for row in rows])
    assert state["taken"] == dict(drawn)


@pytest.mark.parametrize(
    ("curriculum", "table", "says"),
    [
        (SkillIt(held_out=20), TWO, "the source a has 20 demonstrations, and 20 are to be held out"),
        (SkillIt(), Table(40, {"source": ["a"] * 40}), "all demonstrations are of the source a"),
        (SkillIt(graph={"a": ("z",)}, held_out=2), TWO, "no demonstration is of the source 'z'"),
        (SkillIt(target=("y",), held_out=2), TWO, "no demonstration is of the source 'y'"),
        (Aioli(one_hot_factor=0.5, held_out=2), TWO, "one_hot_factor: 0.5, of 2 sources"),
        (Aioli(update_steps=32, held_out=2), TWO, "update_steps: 32, and the probes of 2 sources take 32 steps"),
    ],
)
def test_what_cannot_work_is_refused(curriculum, table, says):
    with pytest.raises(DataError, match=says):
        curriculum.table(table.columns, list(table.columns), of="demonstrations")
