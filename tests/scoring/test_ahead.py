"""Scoring beside sampling, with real worker processes: the same scores and the same errors, only sooner."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import RewardError
from posttrain.scoring.ahead import ScoringAhead
from posttrain.scoring.pool import RewardPool
from posttrain.scoring.score import Reward
from posttrain.scoring.scorer import Scorer, trl_reward_functions
from tests.scoring.test_pool import pids_of, wait_until
from tests.scoring.troubled import noted, sometimes, troubled

TEXTS = ["good", "loop", "_exit", "exception", "good", "print", "good", "good", "exception", "good"]


class Characters:
    """A tokenizer whose tokens are characters; 0 is special."""

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return "".join(chr(each) for each in ids if each or not skip_special_tokens)


def ids_of(text: str) -> list[int]:
    return [*map(ord, text), 0]


def batch_style(completions: list[Any], **columns: Any) -> list[float]:
    return [float(len(completions))] * len(completions)


def trainers_rows(texts: list[str], **more: Any) -> list[dict[str, Any]]:
    """The rows of a batch, as a trainer draws them; it keeps some columns from reward functions."""
    return [
        {"prompt": [{"role": "user", "content": f"p{n // 4}"}], "n": n, "completion": "gold", **more}
        for n, _ in enumerate(texts)
    ]


def as_trl_asks(functions: list[Any], rows: list[dict[str, Any]], texts: list[str]) -> list[list[float | None]]:
    """Call reward functions as GRPOTrainer does."""
    keys = [key for key in rows[0] if key not in ("prompt", "completion", "completion_ids")]
    return [
        function(
            prompts=[row["prompt"] for row in rows],
            completions=[[{"role": "assistant", "content": text}] for text in texts],
            completion_ids=[ids_of(text) for text in texts],
            **{key: [row[key] for row in rows] for key in keys},
            trainer_state=None,
            log_extra=print,
        )
        for function in functions
    ]


def scored_so_far(pool: RewardPool) -> int:
    return sum(job.outcome is not None for job in pool.begun())


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "scoring-ahead"]


def without_seconds(functions: list[Any]) -> list[list[Any]]:
    return [[(each.score, each.error) for each in function.last_outcomes] for function in functions]


@pytest.mark.parametrize("arrived", [4, len(TEXTS)])
def test_scores_errors_and_their_order_are_as_without(arrived):
    """Whatever part of the batch was scored when sampling ended."""
    rewards = [Reward.from_callable(each) for each in (troubled, batch_style, sometimes)]
    seen = []
    for ahead in (False, True):
        with RewardPool(rewards, workers=2, time_limit_s=0.4) as pool:
            scorer = Scorer(rewards, pool=pool, max_error_rate=0.9)
            functions = trl_reward_functions(scorer)
            scoring = ScoringAhead(functions, Characters(), enabled=ahead)
            rows = trainers_rows(TEXTS)
            with scoring.batch(rows):
                order = random.Random(arrived).sample(range(len(TEXTS)), arrived)
                for number in order:
                    if scoring.on_row is not None:
                        scoring.on_row(number, ids_of(TEXTS[number]))
                if ahead:
                    assert wait_until(lambda: scored_so_far(pool) > 0, 20)
                scoring.finish()
                values = as_trl_asks(functions, rows, TEXTS)
            windows = [list(failed) for failed in scorer._failed]
            seen.append((values, without_seconds(functions), scorer.errors, scorer.error_count, windows))
            assert pool.begun() == []
    assert seen[0] == seen[1]
    assert seen[0][3] == 8
    assert not threads()


def test_what_ended_early_is_scored_while_the_rest_is_sampled_and_only_once(tmp_path):
    log = str(tmp_path / "log")
    texts = [f"text {n % 10}" for n in range(30)]
    rows = [row | {"n": n % 10, "log": log, "seconds": 0.05} for n, row in enumerate(trainers_rows(texts))]
    reward = Reward.from_callable(noted)
    with RewardPool([reward], workers=2) as pool:
        functions = trl_reward_functions(Scorer([reward], pool=pool))
        ahead = ScoringAhead(functions, Characters())
        with ahead.batch(rows):
            for number in range(20):
                ahead.row(number, ids_of(texts[number]))
            assert wait_until(lambda: scored_so_far(pool) == 20, 20)
            assert len(Path(log).read_text().splitlines()) == 20
            ahead.row(20, ids_of(texts[20]))
            assert ahead.finish() >= 20 * 0.05
            as_trl_asks(functions, rows, texts)
        outcomes = functions[0].last_outcomes
    different = {(row["prompt"][0]["content"], row["n"]) for row in rows}
    assert len(Path(log).read_text().splitlines()) == len(different) > 20
    assert [outcome.score.note for outcome in outcomes] == [f"p{n // 4} {n % 10} []" for n in range(30)]


@pytest.mark.parametrize("changed", ["completion", "prompt", "column"])
def test_what_is_not_the_same_is_scored_again(tmp_path, changed):
    log = tmp_path / "log"
    texts = ["a", "b", "c", "d"]
    rows = trainers_rows(texts, log=str(log))
    reward = Reward.from_callable(noted)
    with RewardPool([reward], workers=1) as pool:
        functions = trl_reward_functions(Scorer([reward], pool=pool))
        ahead = ScoringAhead(functions, Characters())
        with ahead.batch(rows):
            for number, text in enumerate(texts):
                ahead.row(number, ids_of(text))
            assert wait_until(lambda: scored_so_far(pool) == 4, 20)
            ahead.finish()
            asked, texts_asked = [dict(row) for row in rows], list(texts)
            if changed == "completion":
                texts_asked[2] = "other"
            elif changed == "prompt":
                asked[2]["prompt"] = [{"role": "user", "content": "other"}]
            else:
                asked[2]["n"] = 77
            as_trl_asks(functions, asked, texts_asked)
        outcomes = functions[0].last_outcomes
    wanted = [f"{row['prompt'][0]['content']}/{text}/{row['n']}" for row, text in zip(asked, texts_asked, strict=True)]
    assert [f"{outcome.score.note.split(' [')[0]}" for outcome in outcomes] == [
        f"{row['prompt'][0]['content']} {row['n']}" for row in asked
    ]
    assert log.read_text().splitlines() == ["p0/a/0", "p0/b/1", "p0/c/2", "p0/d/3", wanted[2]]


def test_workers_killed_meanwhile_cost_nothing_but_the_completions_they_were_at(tmp_path):
    texts = ["good"] * 40
    rows = trainers_rows(texts)
    reward = Reward.from_callable(troubled)
    with RewardPool([reward], workers=2) as pool:
        functions = trl_reward_functions(Scorer([reward], pool=pool))
        ahead = ScoringAhead(functions, Characters())
        with ahead.batch(rows):
            for number in range(20):
                ahead.row(number, ids_of("good"))
            assert wait_until(lambda: scored_so_far(pool) == 20, 20)
            for pid in pids_of(os.getpid()):
                os.kill(pid, signal.SIGKILL)
            for number in range(20, 40):
                ahead.row(number, ids_of("good"))
            assert wait_until(lambda: scored_so_far(pool) == 40, 20)
            ahead.finish()
            (values,) = as_trl_asks(functions, rows, texts)
    assert values == [n / 100 for n in range(40)]


def test_an_error_in_sampling_leaves_nothing_behind():
    rows = trainers_rows(["loop"] * 8)
    reward = Reward.from_callable(troubled)
    with RewardPool([reward], workers=2, time_limit_s=60) as pool:
        ahead = ScoringAhead(trl_reward_functions(Scorer([reward], pool=pool)), Characters())

        def samples() -> None:
            with ahead.batch(rows):
                for number in range(8):
                    ahead.row(number, ids_of("loop"))
                assert wait_until(lambda: any(worker.current() is not None for worker in pool._processes), 20)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            samples()
        ahead.row(3, ids_of("loop"))  # of an engine that has not noticed
        assert pool.begun() == []
        assert not threads()
        began = time.monotonic()
        assert [each.value for each in pool.score(0, ["good"] * 3, [{"n": n} for n in range(3)])] == [0, 0.01, 0.02]
        assert time.monotonic() - began < 30


@pytest.mark.filterwarnings("error")
def test_a_pool_that_is_closed_meanwhile():
    rows = trainers_rows(["loop"] * 8)
    reward = Reward.from_callable(troubled)
    with RewardPool([reward], workers=2, time_limit_s=60) as pool:
        functions = trl_reward_functions(Scorer([reward], pool=pool))
        ahead = ScoringAhead(functions, Characters())
        with ahead.batch(rows):
            for number in range(8):
                ahead.row(number, ids_of("loop"))
            assert wait_until(lambda: any(worker.current() is not None for worker in pool._processes), 20)
            pool.close()
            ahead.row(1, ids_of("good"))
            ahead.finish()
            with pytest.raises(RewardError, match="closed"):
                as_trl_asks(functions, rows, ["loop"] * 8)
    assert not threads()


def test_a_pool_that_cannot_go_on_says_so_once_the_trainer_asks(monkeypatch):
    reward = Reward.from_callable(troubled)
    with RewardPool([reward], workers=1) as pool:
        functions = trl_reward_functions(Scorer([reward], pool=pool))
        ahead = ScoringAhead(functions, Characters())
        rows = trainers_rows(["good"] * 3)

        def steps() -> None:
            with ahead.batch(rows):
                ahead.row(0, ids_of("good"))
                assert wait_until(lambda: not threads(), 20)
                assert pool.begun() == []
                ahead.finish()
                as_trl_asks(functions, rows, ["good"] * 3)

        with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            patch.setattr(pool._work, "turn", fails)
            with pytest.raises(OSError, match="no disk"):
                steps()
        assert [str(each.message) for each in warned] == ["scoring while sampling ended: no disk"]
        with ahead.batch(rows):
            ahead.row(0, ids_of("good"))
            assert wait_until(lambda: scored_so_far(pool) == 1, 20)
            ahead.finish()
            assert as_trl_asks(functions, rows, ["good"] * 3) == [[0.0, 0.01, 0.02]]


def fails(*_: Any, **__: Any) -> None:
    raise OSError("no disk")


def test_it_stops_where_it_is_of_no_use():
    reward = Reward.from_callable(troubled)
    with RewardPool([reward], workers=1) as pool:
        functions = trl_reward_functions(Scorer([reward], pool=pool))
        ahead = ScoringAhead(functions, Characters())
        rows = trainers_rows(["good"] * 3)

        def steps() -> None:
            with ahead.batch(rows):
                ahead.row(0, ids_of("what the trainer makes something else of"))
                assert wait_until(lambda: scored_so_far(pool) == 1, 20)
                ahead.finish()
                as_trl_asks(functions, rows, ["good"] * 3)

        with pytest.warns(UserWarning, match="not scoring ahead any more"):
            steps()
        assert ahead.on_row is None


def test_the_thread_ends_when_nothing_comes_and_starts_again(monkeypatch):
    monkeypatch.setattr("posttrain.scoring.ahead._LINGER_S", 0.05)
    reward = Reward.from_callable(troubled)
    with RewardPool([reward], workers=1) as pool:
        ahead = ScoringAhead(trl_reward_functions(Scorer([reward], pool=pool)), Characters())
        ahead.begin(trainers_rows(["good"] * 3))
        for number in range(3):
            ahead.row(number, ids_of("good"))
            assert wait_until(lambda: scored_so_far(pool) == number + 1, 20)  # noqa: B023
            assert wait_until(lambda: not threads())


def test_there_is_nothing_to_do_without_workers_or_for_whole_batches():
    one, whole = Reward.from_callable(troubled), Reward.from_callable(batch_style)
    parses = Characters()
    parses.response_template = "..."  # type: ignore[attr-defined]
    with RewardPool([one], workers=1) as pool, RewardPool([one], workers=0) as here, RewardPool([whole]) as batches:
        for rewards, of, tokenizer, enabled, active in [
            ([one, whole], pool, Characters(), True, True),
            ([one], pool, Characters(), False, False),
            ([one], pool, parses, True, False),
            ([one], here, Characters(), True, False),
            ([one], None, Characters(), True, False),
            ([whole], batches, Characters(), True, False),
        ]:
            functions = [*trl_reward_functions(Scorer(rewards, pool=of)), batch_style]
            ahead = ScoringAhead(functions, tokenizer, enabled=enabled)
            assert (ahead.on_row is not None) == active
            with ahead.batch(trainers_rows(["good"])), warnings.catch_warnings():
                assert ahead.finish() == 0.0
