"""A run that an earlier version began goes on: keys that came after it are as they are where nobody sets them."""

from __future__ import annotations

import pytest

from posttrain.recipe.recipe import load_recipe
from posttrain.rundir.added_keys import added_since
from posttrain.rundir.facts import flatten, named
from posttrain.rundir.refusals import serious_differences

LATER = ["rollout.ahead", "hybrid.refill", "hybrid.tokens", "run.threads", "hybrid.controller.kappa"]


@pytest.fixture
def now() -> dict:
    recipe = load_recipe("posttrain:quickstart", ["run.threads=null"])
    return {**flatten(recipe.resolved()), **named({"data": "abc"})}


def test_what_was_added_and_is_not_set_is_no_difference(now):
    was = {key: value for key, value in now.items() if key not in LATER}
    assert added_since(was, now) == set(LATER)
    assert serious_differences(was, now) == []


def test_what_was_added_and_is_set_is_one(now):
    was = {key: value for key, value in now.items() if key not in LATER}
    changed = {**now, "hybrid.controller.kappa": 2.0}
    assert serious_differences(was, changed) == ["hybrid.controller.kappa: (absent) -> 2.0"]


def test_what_has_no_default_and_fingerprints_are_differences(now):
    was = {key: value for key, value in now.items() if key not in ("task.name", "fingerprint of data")}
    found = serious_differences(was, now)
    assert [line.partition(":")[0] for line in found] == ["task.name", "fingerprint of data"]


def test_a_key_that_is_gone_is_a_difference(now):
    assert serious_differences({**now, "hybrid.old": 1}, now) == ["hybrid.old: 1 -> (absent)"]
