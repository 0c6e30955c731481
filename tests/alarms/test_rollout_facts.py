"""What the completions of a generation show, by hand-made ones."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from posttrain.alarms.rollout_facts import loops_at_end, rollout_facts


def row(completion="a b c", *, right=0.0, length=50, truncated=False, **more):
    return {"completion": completion, "reward/right": right, "length": length, "truncated": truncated, **more}


def test_dead_groups_by_what_they_are():
    rows = [
        *[row(right=1.0)] * 2, *[row()] * 2, row(right=1.0), row(), *[row(right=0.5)] * 2,
        *[row(right=math.nan)] * 2,
    ]  # fmt: skip
    facts = rollout_facts(rows, group=2, weights={"right": 2.0})
    assert (facts["dead_right"], facts["dead_wrong"]) == (0.2, 0.4), "half right is not right; not scored is neither"
    own_scale = [row(right=value) for value in (7.0, 7.0, 3.0, 3.0)]
    facts = rollout_facts(own_scale, group=2, weights={})
    assert (facts["dead_right"], facts["dead_wrong"]) == (0.5, 0.5)


def test_what_was_cut_off_scores_apart():
    rows = [row(right=1.0), row(right=0.5, truncated=True), row(), row(truncated=True)]
    facts = rollout_facts(rows, group=4, weights={"right": 1.0})
    assert (facts["truncated_reward"], facts["finished_reward"]) == (0.25, 0.5)


def test_the_correlation_is_that_of_residuals_within_groups():
    draw, rows, residuals = random.Random(0), [], []
    for mean in (20, 80, 200):
        lengths = [mean + draw.randrange(10) for _ in range(6)]
        scores = [0.02 * length - 0.02 * mean + draw.random() / 10 for length in lengths]
        rows += [row(right=score, length=length) for score, length in zip(scores, lengths, strict=True)]
        residuals.append(np.array([lengths, scores]) - np.mean([lengths, scores], axis=1, keepdims=True))
    rows += [row(right=1.0, length=draw.randrange(99)) for _ in range(6)]  # one score: says nothing
    facts = rollout_facts(rows, group=6, weights={})
    assert facts["length_r"] == pytest.approx(np.corrcoef(np.hstack(residuals))[0, 1], abs=1e-6)
    assert facts["length_n"] == 18 - 3 - 1
    cut = [row(right=n / 9, length=999 - 9 * n, truncated=True) for n in range(6)]
    again = rollout_facts([*rows, *cut], group=6, weights={})
    assert again["length_r"] == facts["length_r"], "what was cut off is another matter"


def test_copies_count_where_they_are_long_and_wrong():
    rows = [row("x y"), row("x y"), row("x z"), row("x y", right=1.0)]
    assert rollout_facts(rows, group=4, weights={})["identical"] == 0.25
    assert rollout_facts([each | {"length": 8} for each in rows], group=4, weights={})["identical"] == 0.0
    assert rollout_facts([each | {"reward/right": 1.0} for each in rows], group=4, weights={})["identical"] == 0.0
    other = [row("x y"), row("q"), row("r"), row("s")]
    facts = rollout_facts([*rows, *other, *[row(str(n)) for n in range(8)]], group=4, weights={})
    assert facts["common"] == 0.5, "of four prompts two got it"


def test_parts_are_means_over_the_rows_that_have_them():
    rows = [row(**{"part/kk.share": 0.5}), row(**{"part/kk.share": 1.0, "part/kk.rare": 3.0}), row()]
    assert rollout_facts(rows, group=3, weights={})["parts"] == {"kk.share": 0.75, "kk.rare": 3.0}


@pytest.mark.parametrize(
    "text",
    [
        "So x is a knight. " + "Then y is a knave and " * 6,
        "0." + "3" * 60,
        "The answer is 4." + "\n" * 80,
        "ab" * 30 + "a",
        "Wait, let me check that again. " * 5 + "\n",
    ],
)
def test_loops_are_seen(text):
    assert loops_at_end(text)
    assert rollout_facts([row(text), row("fine")], group=2, weights={})["looping"] == 0.5
    assert rollout_facts([row(text, right=1.0), row("fine")], group=2, weights={})["looping"] == 0.0, "right is right"


def test_a_loop_that_counts_is_seen_by_its_compression():
    text = "".join(f"Step {n}: check the next case again, it does not hold either, so go on.\n" for n in range(40))
    assert not loops_at_end(text)
    assert rollout_facts([row(text), row()], group=2, weights={})["looping"] == 0.5


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "No.", "1000000", "ha ha ha ha ha ha ha ha",
        "(1) Zoe is a knight\n(2) Bob is a knight\n(3) Ann is a knight",
        '{"items": [{"name": "a", "n": 1}, {"name": "b", "n": 1}, {"name": "c", "n": 1}]}',
        "| a | b |\n|---|---|\n| 1 | 2 |\n| 1 | 3 |\n| 2 | 2 |\n",
        "Natalia sold 48 / 2 = 24 clips in May. Altogether she sold 48 + 24 = 72 clips in April and May. " * 2,
    ],
)  # fmt: skip
def test_what_only_looks_like_a_loop_is_none(text):
    assert rollout_facts([row(text)] * 2, group=2, weights={})["looping"] == 0.0
