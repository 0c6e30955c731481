"""Agreement between processes, and errors of one that reach all."""

from __future__ import annotations

import pytest

from posttrain.errors import ConfigError, PosttrainError, TrainingError
from posttrain.ranks import Ranks
from tests.distributed.processes import ranks


def joined() -> Ranks:
    return Ranks.join(on_cpu=True, time_limit_s=60)


def everything() -> dict:
    us = joined()
    seen: dict = {"number": us.number, "count": us.count, "local": us.local_count, "main": us.is_main}
    seen["gathered"] = us.gathered(us.number * 10)
    seen["any"] = us.any(us.number == 1), us.any(False)
    seen["decided"] = us.decided(lambda: f"by {us.number}")
    seen["together"] = us.together(lambda: us.number)
    us.agree({"p": 0.5, "cursor": 3}, at="step 1")
    for name, call in {
        "decided": lambda: us.decided(_refuse),
        "one": lambda: us.together(_refuse if us.number == 1 else int),
        "all": lambda: us.together(_refuse),
        "bug": lambda: us.together(lambda: 1 / (1 - us.number)),
        "drift": lambda: us.agree({"p": 0.5, "cursor": us.number}, at="step 20"),
    }.items():
        try:
            call()
        except (PosttrainError, ZeroDivisionError) as error:
            seen[f"error {name}"] = (type(error).__name__, str(error), getattr(error, "shared", None))
    return seen


def _refuse():
    raise ConfigError("no", where="there")


def test_two_processes_agree_and_fail_together(tmp_path):
    one, two = ranks(2, everything, folder=tmp_path)
    assert (one["number"], two["number"]) == (0, 1)
    assert (one["main"], two["main"]) == (True, False)
    for seen in (one, two):
        assert (seen["count"], seen["local"]) == (2, 2)
        assert seen["gathered"] == [0, 10]
        assert seen["any"] == (True, False)
        assert seen["decided"] == "by 0"
        for name in ("decided", "one", "all"):
            assert seen[f"error {name}"] == ("ConfigError", "there: no", True)
        kind, text, shared = seen["error drift"]
        assert (kind, shared) == ("TrainingError", True)
        assert "step 20: the processes have drifted apart:\n    cursor: 0 (rank 0), 1 (rank 1)\n" in text
        assert "p:" not in text
    assert (one["together"], two["together"]) == (0, 1)
    assert one["error bug"][:2] == ("TrainingError", "rank 1: ZeroDivisionError: division by zero")
    assert two["error bug"][0] == "ZeroDivisionError"


def test_a_process_by_itself_needs_no_group(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    us = joined()
    assert us == Ranks() == Ranks(0, 1, 1)
    assert us.gathered(3) == [3]
    assert us.any(True)
    assert us.decided(lambda: 5) == us.together(lambda: 5) == 5
    us.agree({"a": 1}, at="here")
    with pytest.raises(TrainingError):
        us.decided(lambda: (_ for _ in ()).throw(TrainingError("x")))
