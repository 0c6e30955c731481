"""How a process of a run ends: with its code, what was registered for the end done, and nothing after it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import atexit, os
from posttrain.processes.launched import end

class Late:
    def __del__(self):
        os.abort()  # as a thread of gloo does that is still there when its objects are torn down

kept = Late()
atexit.register(print, "registered")
print("said", end=", ")
end(3)
"""


@pytest.mark.parametrize(("processes", "code"), [("2", 3), ("1", -6)])
def test_what_is_torn_down_late_cannot_change_the_code_of_several(processes, code, tmp_path):
    environment = {**os.environ, "WORLD_SIZE": processes, "LOCAL_RANK": "1", "POSTTRAIN_EXIT_CODES": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == "said, registered\n", done.stderr
    assert done.returncode == code, done.stderr
    assert (tmp_path / "1").read_text() == "3"
