"""Agreement between processes, and errors of one that reach all."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from posttrain.errors import ConfigError, PosttrainError, TrainingError
from posttrain.processes.ranks import Ranks
from tests.distributed.processes import ranks


def joined() -> Ranks:
    return Ranks.join(on_cpu=True, time_limit_s=60)


def everything() -> dict:
    us = joined()
    seen: dict = {"number": us.number, "count": us.count, "local": us.local_count, "main": us.is_main}
    seen["gathered"] = us.gathered(us.number * 10)
    seen["any"] = any(us.gathered(us.number == 1)), any(us.gathered(False))
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


def beside_other_work(folder: Path) -> dict:
    """Agreement while a collective of the default group is under way on one process, and over a second group."""
    us, seen = joined(), {}
    total = torch.ones(3)
    if us.is_main:
        work = dist.all_reduce(total, async_op=True)
        seen["gathered"], seen["decided"] = us.gathered("a"), us.decided(lambda: "by 0")
        work.wait()
    else:
        seen["gathered"], seen["decided"] = us.gathered("b"), us.decided(lambda: "by 1")
        dist.all_reduce(total)
    seen["total"], seen["limit"] = total.tolist(), _limit(us)
    dist.destroy_process_group()
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=us.number, world_size=2, timeout=timedelta(seconds=33))
    seen["again"], seen["limit again"] = Ranks.joined().gathered(us.number), _limit(us)
    return seen


def _limit(us: Ranks) -> float:
    """How long an agreement that the other process takes no part in would wait, in seconds."""
    limits, original = [], dist.all_gather_object

    def noted(values, value, group=None):
        limits.append(group._get_backend(torch.device("cpu")).options._timeout.total_seconds())
        return original(values, value, group=group)

    dist.all_gather_object = noted
    us.wait()
    dist.all_gather_object = original
    return limits[0]


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


def test_agreement_is_apart_from_other_collectives(tmp_path):
    for seen in ranks(2, beside_other_work, tmp_path, folder=tmp_path, time_limit_s=90):
        assert (seen["gathered"], seen["decided"]) == (["a", "b"], "by 0")
        assert seen["total"] == [2.0] * 3
        assert seen["again"] == [0, 1], "the group that is gone is not asked"
        assert (seen["limit"], seen["limit again"]) == (60, 33), "those of the default groups"


def test_a_process_by_itself_needs_no_group(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    us = joined()
    assert us == Ranks() == Ranks(0, 1, 1)
    assert us.gathered(3) == [3]
    assert any(us.gathered(True))
    assert us.decided(lambda: 5) == us.together(lambda: 5) == 5
    us.agree({"a": 1}, at="here")
    with pytest.raises(TrainingError):
        us.decided(lambda: (_ for _ in ()).throw(TrainingError("x")))
