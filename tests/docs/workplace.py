"""The folder that a page's blocks are run in: the recipes of the repository, of which those for a CPU are made small,
and two finished runs of one. A page is a session: what a block writes, the blocks after it find.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import traceback
from pathlib import Path

from tests.docs.pages import REPOSITORY
from tests.pipeline.runs import ONE_THREAD, Ended, forked
from tests.sparing import spare

SMALL = {
    "quickstart": """
extends: shipped/quickstart.yaml
model: {init: {hidden_size: 32, layers: 2, heads: 2, vocab_size: 300, max_position_embeddings: 256}}
task: {train: 24, eval: 6, demonstrations: 12}
warmup: {steps: 2, per_device_train_batch_size: 4, warmup_steps: 0}
hybrid:
  steps: 6
  warmup_steps: 0
  per_device_train_batch_size: 8
  demonstration_batch_size: 4
  save_steps: 2
  controller: {name: sasr, gamma: 2.0}
  grpo: {num_generations: 4, max_completion_length: 8}
evaluate: {every: 3}
run: {threads: 1, save_completions_every: 1}
""",
    "json_structure-tiny": """
extends: shipped/json_structure-tiny.yaml
task: {train: 24, eval: 6, demonstrations: 12}
""",
}
"""Recipes that are run under their own names with fewer rows and steps; how they are written stays as it is."""


def furnish(folder: Path) -> Path:
    """Put the recipes into a folder."""
    shutil.copytree(REPOSITORY / "recipes", folder / "recipes")
    shutil.copytree(REPOSITORY / "recipes", folder / "recipes" / "shipped")
    for name, text in SMALL.items():
        (folder / "recipes" / f"{name}.yaml").write_text(text)
    return folder


def posttrain(folder: Path, *arguments: str) -> Ended:
    """`posttrain ARGUMENTS` in a folder, in a process of its own."""
    return forked(folder, *arguments)


def python(folder: Path, code: str, name: str) -> Ended:
    """Python code in a folder, as a script in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    log = folder / "python.txt"
    process = context.Process(target=_script, args=(folder, code, name, log))
    process.start()
    process.join()
    return Ended(process.exitcode or 0, log.read_text())


def _script(folder: Path, code: str, name: str, log: Path) -> None:
    import sys

    spare()
    os.chdir(folder)
    os.environ.update(ONE_THREAD)
    sys.path.insert(0, str(folder))
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    status = 0
    try:
        exec(compile(code, name, "exec"), {"__name__": "__main__"})
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def shell(folder: Path, command: str) -> Ended:
    """Any other command."""
    done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, timeout=60)
    return Ended(done.returncode, done.stdout + done.stderr)
