"""The reward pool with real processes: what kills a worker in these tests kills it for real."""

from __future__ import annotations

import gc
import math
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import RewardError
from posttrain.recipe.sections import RewardConfig
from posttrain.scoring.loading import load_reward
from posttrain.scoring.pool import RewardPool, default_workers
from posttrain.scoring.score import Reward, Score
from posttrain.scoring.scorer import Scorer
from tests.scoring.troubled import GARBAGE, Deadly, OnlyHere, reads_group, slow_to_load, troubled, writes_when_loaded

LIMIT_S = 0.4


def pool_of(*functions: Any, **options: Any) -> RewardPool:
    return RewardPool([Reward.from_callable(function) for function in functions], **({"workers": 2} | options))


def pids_of(parent: int) -> list[int]:
    """The direct children of a process."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in children]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(condition: Any, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


EXPECTED = {
    "loop": "took longer than 0.4 s (time limit)",
    "power": "took longer than 0.4 s (time limit)",
    "regex": "took longer than 0.4 s (time limit)",
    "sleep": "took longer than 0.4 s (time limit)",
    "_exit": "ended its worker process (exit code 3)",
    "segfault": "ended its worker process (SIGSEGV)",
    "killed": "ended its worker process (SIGKILL, perhaps for lack of memory)",
    "exit": "SystemExit: enough",
    "interrupt": "KeyboardInterrupt",
    "memory": "MemoryError",
    "exception": "KeyError: 'gold'",
    "print": None,
    "closed": "ended its worker process",
    "fork": None,
    "fork and leave": "ended its worker process (exit code 0)",
    "garbage of text": "what its worker process sent is no answer",
}


def test_a_completion_that_does_its_worst_costs_only_itself(capfd):
    texts = [text for bad in EXPECTED for text in ("good", "good", bad)] + ["good"] * 30
    rows = [{"n": n} for n in range(len(texts))]
    with pool_of(troubled, time_limit_s=LIMIT_S, memory_limit_mb=300) as pool:
        outcomes = pool.score(0, texts, rows)
        again = pool.score(0, ["good"] * 5, rows[:5])
    assert {
        text: (outcome.error or "")[: len(EXPECTED[text] or "")] or None
        for text, outcome in zip(texts, outcomes, strict=True)
        if text in EXPECTED
    } == EXPECTED
    for n, (text, outcome) in enumerate(zip(texts, outcomes, strict=True)):
        if text in ("good", "print", "fork"):
            assert outcome.value == n / 100
        if text == "loop":
            assert LIMIT_S <= outcome.seconds < LIMIT_S + 1
    assert [outcome.value for outcome in again] == [0, 0.01, 0.02, 0.03, 0.04]
    captured = capfd.readouterr()
    assert "flood" not in captured.out + captured.err


def test_a_group_has_the_time_of_all_its_completions_and_is_read_for_ever_by_one_of_them_alone():
    slow, stuck = ["a", "b", "c", "d"], ["hang", "f", "g"]
    texts, groups = [*slow, *stuck, "alone"], [*[slow] * 4, *[stuck] * 3, ["alone"]]
    rows = [{"group_completions": group} for group in groups]
    with pool_of(reads_group, workers=1, time_limit_s=LIMIT_S) as pool:
        outcomes = pool.score(0, texts, rows)
    assert [outcome.value for outcome in outcomes] == [0.0, 0.1, 0.2, 0.3, None, None, None, 0.0]
    assert [outcome.error for outcome in outcomes[4:7]] == ["its group of 3 took longer than 1.2 s (time limit)"] * 3
    assert sum(outcome.seconds > 0 for outcome in outcomes[4:7]) == 1, "the others did not wait as long again"


@pytest.mark.parametrize("workers", [1, 2])
def test_garbage_written_to_foreign_files_costs_its_writer_alone(workers):
    texts = [text for bad in GARBAGE for text in ("good", bad, "good")] + ["good"] * 20
    rows = [{"n": n} for n in range(len(texts))]
    began = time.monotonic()
    with pool_of(troubled, workers=workers, time_limit_s=5) as pool:
        outcomes = pool.score(0, texts, rows)
        assert [outcome.value for outcome in pool.score(0, ["good"] * 5, rows[:5])] == [0, 0.01, 0.02, 0.03, 0.04]
    assert time.monotonic() - began < 60
    for n, (text, outcome) in enumerate(zip(texts, outcomes, strict=True)):
        if text == "good":
            assert outcome.value == n / 100, outcome.error
        else:
            assert (outcome.error or "").startswith("what its worker process sent is no answer"), text


def test_both_processes_of_a_reward_that_forks_return_and_one_of_them_answers():
    texts = ["fork", "good"] * 20
    with pool_of(troubled, workers=1) as pool:
        for _ in range(3):
            outcomes = pool.score(0, texts, [{"n": n} for n in range(40)])
            assert [outcome.value for outcome in outcomes] == [n / 100 for n in range(40)]


def test_a_reward_that_writes_to_foreign_files_as_it_is_loaded_is_an_error():
    with pytest.raises(RewardError, match="did not start: what its worker process sent is no answer"):
        pool_of(writes_when_loaded)


def test_memory_that_fills_up_slowly_is_an_error_too():
    with pool_of(troubled, workers=1, time_limit_s=20, memory_limit_mb=100) as pool:
        outcomes = pool.score(0, ["list", "good", "good"], [{"n": 1}, {"n": 2}, {"n": 3}])
    assert (outcomes[0].error or "").startswith("MemoryError")
    assert [outcome.value for outcome in outcomes[1:]] == [0.02, 0.03]


def test_no_memory_limit_when_none_is_wanted():
    def takes(completion: str) -> float:
        return len(bytearray(400 * 2**20)) / 2**30

    with pool_of(takes, workers=1, memory_limit_mb=None) as pool:
        assert pool.score(0, ["x"], [{}])[0].value == 400 / 1024
    with pool_of(takes, workers=1, memory_limit_mb=200) as pool:
        assert pool.score(0, ["x"], [{}])[0].error == "MemoryError"


def test_what_a_hung_reward_started_ends_with_it(tmp_path):
    note = tmp_path / "pid"

    def starts_a_program(completion: str) -> float:
        program = subprocess.Popen(["sleep", "60"])
        note.write_text(str(program.pid))
        return float(program.wait())

    with pool_of(starts_a_program, workers=1, time_limit_s=LIMIT_S) as pool:
        assert "took longer" in (pool.score(0, ["x"], [{}])[0].error or "")
    assert wait_until(lambda: not is_running(int(note.read_text())))


def test_order_is_kept_whatever_takes_how_long():
    def dawdles(completion: str, *, n: int) -> float:
        time.sleep(random.random() * 0.01)
        return n / 1000

    with pool_of(dawdles, workers=4) as pool:
        outcomes = pool.score(0, [f"text {n}" for n in range(200)], [{"n": n} for n in range(200)])
    assert [outcome.value for outcome in outcomes] == [n / 1000 for n in range(200)]
    assert all(outcome.seconds < 1 for outcome in outcomes)


def test_equal_completions_of_equal_rows_are_scored_once(tmp_path):
    calls = tmp_path / "calls"

    def counted(completion: str, *, answer: int, scale: float = 1.0) -> float:
        with calls.open("a") as file:
            file.write(f"{completion} {answer}\n")
        return float(completion == str(answer)) * scale

    texts = ["1", "2", "1", "1", "2", "1"]
    rows = [{"answer": answer, "unused": n, "scale": n} for n, answer in enumerate([1, 1, 1, 2, 1, 1])]
    reward = Reward.from_callable(counted, kwargs={"scale": 0.5})
    with RewardPool([reward], workers=2) as pool:
        outcomes = pool.score(0, texts, rows)
        assert sorted(calls.read_text().splitlines()) == ["1 1", "1 2", "2 1"]
        pool.score(0, texts, rows)
    assert [outcome.value for outcome in outcomes] == [0.5, 0, 0.5, 0, 0, 0.5]
    assert len(calls.read_text().splitlines()) == 6


def test_a_score_comes_back_whole_and_its_parsed_as_plain_data_or_as_text():
    def detailed(completion: str, *, n: int) -> Score:
        parsed = [{"a": [1, None, 2.5], "b": ("x", True)}, lambda: 0, threading.Lock(), math][n]
        return Score(0.5, parts={"p": 1}, parsed=parsed, note="why")

    with pool_of(detailed) as pool:
        outcomes = pool.score(0, ["x"] * 4, [{"n": n} for n in range(4)])
    scores = [outcome.score for outcome in outcomes if outcome.score]
    assert scores[0] == Score(0.5, {"p": 1.0}, {"a": [1, None, 2.5], "b": ("x", True)}, "why")
    assert [type(score.parsed) for score in scores[1:]] == [str, str, str]
    assert "<lambda>" in scores[1].parsed
    assert scores[3].parsed == repr(math)


def test_a_row_that_cannot_be_sent_is_an_error_of_its_own():
    with pool_of(lambda completion, **row: 1.0) as pool:
        first, second = pool.score(0, ["x", "y"], [{"lock": threading.Lock()}, {}])
    assert "cannot be sent to a worker" in (first.error or "")
    assert second.value == 1.0


def test_a_worker_imports_no_torch_and_one_thread_is_enough():
    def asks(completion: str) -> Score:
        heavy = {"torch", "transformers", "trl", "datasets", "numpy"} & set(sys.modules)
        return Score(1.0, note=f"{sorted(heavy)} {os.environ['OMP_NUM_THREADS']}")

    # By value, so that this module, which imports more, is not what it loads
    asks.__module__ = "__main__"
    with pool_of(asks, workers=1) as pool:
        (outcome,) = pool.score(0, ["x"], [{}])
    assert outcome.score
    assert outcome.score.note == "[] 1"


def test_functions_of_a_script_travel_and_the_script_does_not_run_again(tmp_path):
    (tmp_path / "train.py").write_text(
        textwrap.dedent("""
            import math
            from posttrain.scoring.pool import RewardPool
            from posttrain.scoring.score import Reward

            print("the script runs")
            SCALE = 0.25

            def scaled(completion, *, n):
                return math.floor(n) * SCALE

            def made(step):
                return lambda completion, *, n: n * step

            rewards = [Reward.from_callable(f) for f in (scaled, made(0.5), lambda completion: len(completion) / 10)]
            with RewardPool(rewards, workers=2) as pool:
                for index in range(3):
                    print([outcome.value for outcome in pool.score(index, ["a", "bb"], [{"n": 1}, {"n": 2}])])
            """)
    )
    done = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["the script runs", "[0.25, 0.5]", "[0.5, 1.0]", "[0.1, 0.2]"]
    assert done.stderr == ""


def test_a_file_beside_the_recipe_brings_its_neighbours(tmp_path):
    (tmp_path / "pool_neighbour.py").write_text(
        "def half(n):\n    return n / 2\ndef score(completion):\n    return 0.75\n"
    )
    file = tmp_path / "mine.py"
    file.write_text("import pool_neighbour\ndef score(completion, *, n):\n    return pool_neighbour.half(n)\n")
    (tmp_path / "passes_on.py").write_text("from pool_neighbour import score\n")
    rewards = [load_reward(RewardConfig(path=name), tmp_path) for name in ("mine.py", "passes_on.py")]
    with RewardPool(rewards, workers=1, time_limit_s=LIMIT_S) as pool:
        file.write_text("half a reward, as an edi")  # a worker started from now on still scores as the first did
        pool._processes[0].kill()
        assert [outcome.value for outcome in pool.score(0, ["a", "b"], [{"n": 1}, {"n": 2}])] == [0.5, 1.0]
        assert pool.score(1, ["a"], [{}])[0].value == 0.75


def test_a_reward_that_cannot_be_sent_is_refused_with_a_way_out():
    lock = threading.Lock()

    def holds_a_lock(completion: str) -> float:
        return float(lock.locked())

    with pytest.raises(RewardError, match="workers: 0") as error:
        pool_of(holds_a_lock)
    assert "'holds_a_lock'" in str(error.value)
    with pool_of(holds_a_lock, workers=0) as pool:
        assert pool.score(0, ["x"], [{}])[0].value == 0.0


def test_a_reward_that_a_worker_cannot_load_is_an_error_at_once():
    before = pids_of(os.getpid())
    with pytest.raises(RewardError, match="cannot load reward 'OnlyHere': ImportError: no such thing in a worker"):
        pool_of(OnlyHere())
    with pytest.raises(RewardError, match="did not start: exit code 7\nsome last words"):
        pool_of(Deadly())
    assert pids_of(os.getpid()) == before


def test_nothing_is_left_after_close():
    children, fds = pids_of(os.getpid()), len(list(Path("/proc/self/fd").iterdir()))
    pool = pool_of(troubled, workers=3, time_limit_s=LIMIT_S)
    pool.score(0, ["loop", "_exit", "good"], [{}, {}, {}])
    workers = set(pids_of(os.getpid())) - set(children)
    assert len(workers) == 3
    pool.close()
    pool.close()
    assert pids_of(os.getpid()) == children
    assert len(list(Path("/proc/self/fd").iterdir())) == fds
    with pytest.raises(RewardError, match="closed"):
        pool.score(0, ["good"], [{}])


SCRIPT = """
import sys, time
from posttrain.scoring.pool import RewardPool
from posttrain.scoring.score import Reward

def hangs(completion):
    while True:
        9**9**9 if completion == "power" else None

pool = RewardPool([Reward.from_callable(hangs)], workers=2, time_limit_s={limit})
if {idle}:
    print("ready", flush=True)
    {then}
print("ready", flush=True)
try:
    print([o.error for o in pool.score(0, ["loop", "power"], [{{}}, {{}}])])
except KeyboardInterrupt:
    print("interrupted", flush=True)
    time.sleep(60)
"""


def started(**values: Any) -> tuple[subprocess.Popen[str], list[int]]:
    """A script with a pool, and its workers."""
    code = SCRIPT.format(**{"limit": 60, "idle": False, "then": "pass"} | values)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process, pids_of(process.pid)


def test_workers_end_with_an_owner_that_is_killed_even_inside_c_code():
    process, workers = started()
    time.sleep(0.3)  # both hang by now
    assert len(workers) == 2
    process.kill()
    process.communicate()
    assert wait_until(lambda: not any(map(is_running, workers)))


def test_workers_end_with_an_owner_that_forgets_to_close():
    process, workers = started(idle=True, then="sys.exit(0)")
    assert process.wait(10) == 0
    process.communicate()
    assert wait_until(lambda: not any(map(is_running, workers)))


def test_ctrl_c_reaches_the_owner_alone():
    process, workers = started()
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.stdout
    assert process.stdout.readline() == "interrupted\n"
    # They were at a batch that nobody waits for any more
    assert wait_until(lambda: pids_of(process.pid) == [])
    process.kill()
    process.communicate()
    assert wait_until(lambda: not any(map(is_running, workers)))


def test_a_batch_after_an_interrupted_one_gets_its_own_answers():
    def slow(completion: str, *, n: int) -> float:
        time.sleep(0.3 if completion == "old" else 0)
        return n / 10

    with pool_of(slow) as pool:
        timer = threading.Timer(0.1, lambda: signal.raise_signal(signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            pool.score(0, ["old"] * 8, [{"n": 9}] * 4 + [{"n": n} for n in range(4)])
        outcomes = pool.score(0, ["new"] * 4, [{"n": n} for n in range(4)])
    assert [outcome.value for outcome in outcomes] == [0, 0.1, 0.2, 0.3]


def test_workers_that_were_killed_between_batches_are_replaced():
    with pool_of(troubled, workers=2) as pool:
        pool.score(0, ["good"], [{"n": 1}])
        for pid in set(pids_of(os.getpid())):
            os.kill(pid, signal.SIGKILL)
        assert [outcome.value for outcome in pool.score(0, ["good"] * 3, [{"n": n} for n in range(3)])] == [
            0,
            0.01,
            0.02,
        ]


def test_a_pool_serves_several_threads():
    found: dict[int, list[float | None]] = {}

    def ask(pool: RewardPool, thread: int) -> None:
        rows = [{"n": thread * 10 + n} for n in range(10)]
        found[thread] = [outcome.value for outcome in pool.score(0, ["good"] * 10, rows)]

    with pool_of(troubled) as pool:
        threads = [threading.Thread(target=ask, args=(pool, number)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {thread: [(thread * 10 + n) / 100 for n in range(10)] for thread in range(4)}


def test_the_scorer_scores_in_the_pool_and_shows_time_outs_among_the_worst():
    def lengths(completions: list[str], **columns: Any) -> list[float]:
        return [float(os.getpid())] * len(completions)

    def where(completion: str) -> float:
        while completion == "loop":
            pass
        return os.getpid() / 2**32

    rewards = [Reward.from_callable(where), Reward.from_callable(lengths)]
    with RewardPool(rewards, workers=2, time_limit_s=0.3) as pool:
        scorer = Scorer(rewards, pool=pool, max_error_rate=0.4)
        first, second = scorer(["p"] * 3, ["a", "loop", "b"], {})
        assert {outcome.value for outcome in second} == {os.getpid()}
        assert all(outcome.value != os.getpid() / 2**32 for outcome in first)
        assert [entry["completion"] for entry in scorer.errors] == ["loop"]
        with pytest.raises(RewardError, match=r"20x took longer than 0.3 s \(time limit\)\n     on 'loop'"):
            scorer(["p"] * 30, ["loop"] * 19 + ["a"] * 11, {})


def test_a_reward_of_one_task_is_not_asked_about_others():
    def batch(completions: list[str], completion_ids: list[Any], **columns: Any) -> list[float]:
        assert columns["task"] == ["b"] * len(completions) == columns["task"]
        return [float(ids[0]) for ids in completion_ids]

    def one(completion: str, *, task: str, prompt: str) -> Score:
        return Score(float(task == "a"), note=prompt)

    rewards = [
        load_reward(Reward.from_callable(one, tasks=["a"])),
        Reward.from_callable(batch, tasks=["b"]),
        Reward.from_callable(batch, name="never", tasks=["c"]),
    ]
    with RewardPool(rewards, workers=1) as pool:
        for scorer in (Scorer(rewards), Scorer(rewards, pool=pool)):
            found = scorer(["p", "q", "r"], ["x", "y", "z"], {"task": ["a", "b", "a"]}, [[1], [2], [3]])
            assert [[outcome.value for outcome in outcomes] for outcomes in found] == [
                [1.0, None, 1.0],
                [None, 2.0, None],
                [None, None, None],
            ]
            assert scorer.error_count == 0


def test_how_many_workers_there_are_by_default(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert default_workers() == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert default_workers() == 4
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert default_workers() == 1


def test_the_pool_knows_its_rewards_by_what_they_are():
    """What the pool sends holds no cached signature, which may hold what can't be pickled."""
    reward = Reward.from_callable(troubled)
    assert reward.required_columns() == []
    with RewardPool([reward], workers=1) as pool:
        assert pool.index(pickle.loads(pickle.dumps(reward))) == 0
        assert pool.score(0, ["good"], [{"n": 50}])[0].value == 0.5


def test_what_a_reward_prepares_costs_no_completion_its_time() -> None:
    with pool_of(slow_to_load, time_limit_s=LIMIT_S) as pool:
        assert [outcome.value for outcome in pool.score(0, ["a", "b", "c"], [{}] * 3)] == [1.0] * 3


def test_completions_that_share_their_columns_share_no_changes_to_them() -> None:
    def grows(completion: str, items: list[str]) -> float:
        items.append(completion)
        return len(items) / 10

    row = {"items": ["one"]}
    with pool_of(grows, workers=1) as pool:
        assert [outcome.value for outcome in pool.score(0, ["a", "b", "c", "d"], [row] * 4)] == [0.2] * 4


def test_a_pool_that_is_closed_before_its_workers_are_ready_leaves_no_file_open():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        RewardPool([Reward.from_callable(troubled)], workers=2).close()
        gc.collect()
    assert [warning for warning in seen if warning.category is ResourceWarning] == []


CACHED = """
import functools

runs = [0]


@functools.cache
def half(n):
    runs[0] += 1
    return n / 2


def first(completion, *, n):
    return half(n)


def second(completion, *, n):
    return half(n) / 2


@functools.lru_cache
def third(completion, *, n):
    return n / 8
"""


def test_rewards_of_one_file_share_what_it_holds(tmp_path):
    (tmp_path / "mine.py").write_text(CACHED)
    (tmp_path / "link.py").symlink_to(tmp_path / "mine.py")
    named = ("mine.py:first", "./mine.py:second", "mine.py:third", "link.py:first", f"{tmp_path}/mine.py:first")
    rewards = [load_reward(RewardConfig(path=name), tmp_path) for name in named]
    with RewardPool(rewards, workers=1, time_limit_s=LIMIT_S) as pool:
        said = [pool.score(index, ["a"], [{"n": 1}])[0].value for index in range(len(rewards))]
    assert said == [0.5, 0.25, 0.125, 0.5, 0.5]
    with RewardPool(rewards, workers=0) as pool:
        for index in (0, 1, 3, 4):
            pool.score(index, ["a"], [{"n": 1}])
    assert rewards[0].function.__globals__["runs"] == [1]


def test_files_of_one_name_in_two_folders_are_two(tmp_path):
    for folder, factor in (("one", 0.5), ("two", 0.25)):
        (tmp_path / folder / "package_beside").mkdir(parents=True)
        (tmp_path / folder / "package_beside" / "__init__.py").write_text("from package_beside.deep import FACTOR\n")
        (tmp_path / folder / "package_beside" / "deep.py").write_text(f"FACTOR = {factor}\n")
        (tmp_path / folder / "beside.py").write_text(
            "import functools\nfrom package_beside import FACTOR\ndef times(n):\n    return FACTOR * n\n"
        )
        (tmp_path / folder / "mine.py").write_text(
            "import functools\nfrom beside import times\n@functools.cache\ndef kept(n):\n    return times(n)\n"
            "def score(completion, *, n):\n    return kept(n)\n"
        )
    rewards = [load_reward(RewardConfig(path=f"{folder}/mine.py"), tmp_path) for folder in ("one", "two")]
    for workers in (0, 1):
        with RewardPool(rewards, workers=workers, time_limit_s=LIMIT_S) as pool:
            assert [pool.score(index, ["a"], [{"n": 1}])[0].value for index in (0, 1)] == [0.5, 0.25]
