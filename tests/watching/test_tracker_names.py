"""How a run is called at its trackers: what each integration is told, and by which way."""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace

import pytest

from posttrain.errors import ConfigError
from posttrain.recipe.tracking import HEEDED, TrackingSection
from posttrain.rundir.layout import Layout
from posttrain.watching import tracker_names
from posttrain.watching.trackers import Trackers

ALL = TrackingSection(project="puzzles", name="gamma 0.2", tags=["sasr", "small"])


def told(tracker: str, tracking: TrackingSection) -> set[str]:
    """All values that a tracker is told."""
    return {
        *tracker_names.arguments(tracking, "kk-ab12", tracker).values(),
        *tracker_names.variables(tracking, tracker).values(),
    }


@pytest.mark.parametrize("tracker", sorted({each for by in HEEDED.values() for each in by}))
def test_a_tracker_is_told_what_it_heeds(tracker):
    for key in HEEDED:
        if tracker in HEEDED[key]:
            only = TrackingSection(**{key: getattr(ALL, key)})
            word = getattr(ALL, key)[0] if key == "tags" else getattr(ALL, key)
            assert any(word in value for value in told(tracker, only)), key
            assert told(tracker, only) != told(tracker, TrackingSection()), key


def test_forms():
    assert tracker_names.variables(ALL, "wandb") == {"WANDB_PROJECT": "puzzles", "WANDB_TAGS": "sasr,small"}
    assert json.loads(tracker_names.variables(ALL, "mlflow")["MLFLOW_TAGS"]) == {"sasr": "true", "small": "true"}
    assert tracker_names.arguments(TrackingSection(), "kk-ab12", "wandb") == {"run_name": "kk-ab12"}
    assert tracker_names.arguments(ALL, "kk-ab12", "trackio") == {"run_name": "gamma 0.2-ab12", "project": "puzzles"}


def test_the_environment_is_as_before(monkeypatch):
    monkeypatch.setenv("A", "users")
    monkeypatch.setenv("B", "users")
    monkeypatch.delenv("C", raising=False)
    with tracker_names.environment({"A": "ours", "C": "ours"}, {"B": "recipe's"}):
        assert [os.environ[name] for name in "ABC"] == ["users", "recipe's", "ours"]
    assert [os.environ.get(name) for name in "ABC"] == ["users", "users", None]


@pytest.mark.parametrize("tags", [["a,b"], [""], [3]])
def test_tags_are_words(tags):
    with pytest.raises((ConfigError, ValueError)):
        TrackingSection(tags=tags)


def test_wandb_is_started_by_these_names(tmp_path, monkeypatch):
    """transformers' own integration, with a stand-in for the package that it calls."""
    from transformers.integrations import integration_utils

    seen: dict = {}

    def init(**arguments):
        seen.update(arguments, tags=os.environ["WANDB_TAGS"], id=os.environ["WANDB_RUN_ID"])
        fake.run = SimpleNamespace(_label=lambda **_: None)

    fake = SimpleNamespace(
        run=None,
        init=init,
        config=type("Config", (dict,), {"update": lambda self, *_, **__: None})(),
        log=lambda *_, **__: None,
        finish=lambda **_: None,
    )
    errors = SimpleNamespace(ConfigError=ValueError)
    for name, module in (("wandb", fake), ("wandb.sdk.lib.config_util", errors)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(integration_utils, "is_wandb_available", lambda: True)
    monkeypatch.setenv("WANDB_PROJECT", "of the machine")
    with Trackers(["wandb"], Layout(tmp_path), {"warmup": {"steps": 3}}, print, tracking=ALL):
        pass
    assert (seen["project"], seen["name"], seen["tags"]) == ("puzzles", "gamma 0.2", "sasr,small")
    assert seen["id"].startswith(tmp_path.name), "another run of this name is another one there"
    assert os.environ["WANDB_PROJECT"] == "of the machine"
