"""A sampling engine that hangs ends the run with an error that says so; it is never waited for in vain."""

from __future__ import annotations

import subprocess
import sys
import time

from tests.distributed.processes import output, ranks


def slow_and_then_stuck() -> None:
    """Two engines: after the first the process group is still there, the second is too slow and then hangs."""
    import torch.distributed as dist

    from posttrain.errors import TrainingError
    from posttrain.rollouts.vllm import InProcessEngine, Sampling
    from tests.vllm.conftest import ENDS, PROMPTS, tiny

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    with InProcessEngine(tiny(tied=True), eos_token_ids=ENDS, max_num_seqs=8):
        pass
    print("the trainer's group is there:", dist.is_initialized())

    engine = InProcessEngine(tiny(tied=True), eos_token_ids=ENDS, max_num_seqs=8)
    engine.load(tiny(tied=True))
    runner = engine._llm.llm_engine.model_executor.driver_worker.worker.model_runner
    execute = runner.execute_model
    engine.time_limit_s = 1.0

    runner.execute_model = lambda *args, **kwargs: (time.sleep(0.3), execute(*args, **kwargs))[1]
    try:
        engine.sample(PROMPTS, range(len(PROMPTS)), Sampling(max_tokens=100))
    except TrainingError as error:
        print("raised:", str(error).splitlines()[0], flush=True)

    runner.execute_model = lambda *args, **kwargs: time.sleep(300)
    engine._failed = False  # a second engine would show the same and take longer
    print("stuck", flush=True)
    engine.sample(PROMPTS, range(len(PROMPTS)), Sampling(max_tokens=100))


STUCK = """
import ctypes
from posttrain.rollouts.time_limit import time_limit

with time_limit(0.5, "computing", grace=0.5):
    ctypes.PyDLL(None).sleep(300)  # keeps Python's lock: no other thread runs
"""


def test_an_engine_that_is_slow_or_hangs_is_an_error_with_a_time_limit(tmp_path):
    ranks(1, slow_and_then_stuck, folder=tmp_path, expected=[1], time_limit_s=180)
    said = output(tmp_path, 0)
    assert [line for line in said.splitlines() if line.startswith(("the trainer", "raised", "stuck"))] == [
        "the trainer's group is there: True",
        "raised: rollout.time_limit_s: sampling 6 x 1 completions did not end within 1 s",
        "stuck",
    ]
    assert "posttrain: error: rollout.time_limit_s: sampling 6 x 1 completions did not end within 1 s" in said
    assert "in <lambda>" in said, "the stacks say where it hangs"


def test_code_that_never_lets_go_of_python_ends_too():
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert time.monotonic() - start < 30
