"""What a process of a run imports: no vLLM where transformers sample; the garbage collector leaves it alone."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

LOADED = """
import gc, sys
from posttrain.running.loading import load_libraries
load_libraries(vllm=False)
from trl.import_utils import is_vllm_available
from posttrain.training.trainer import HybridTrainer
assert not [name for name in sys.modules if name.partition(".")[0] == "vllm"]
assert is_vllm_available()
assert gc.get_freeze_count() > 100_000
"""


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_a_run_without_vllm_does_not_import_it_and_ends_without_a_word():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", LOADED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "nanobind" not in done.stderr + done.stdout
