"""Keep the trainer's process as it was while a library that thinks it owns the process is at work in it.

Building a vLLM engine reseeds Python's, NumPy's and torch's generators, replaces `torch.set_num_threads` by a function
that does nothing, installs an excepthook, adds warning filters and writes environment variables, among them LD_PRELOAD,
which would reach every child process. Sampling draws from torch's generators. All of that is put back here.

What stays: the variables that begin with `VLLM_`, which the engine reads later; objects that the garbage collector no
longer looks at (`gc.freeze`); `torch.distributed`, initialised with one process where it was not (see
`posttrain.rollouts.vllm`); and, on a CPU, the process's memory bound to one NUMA node.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def untouched_generators() -> Iterator[None]:
    """Run the block; Python's, NumPy's and torch's random generators go on afterwards as if it had not run."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextlib.contextmanager
def untouched_process() -> Iterator[None]:
    """Run the block; settings of the process that it changed are put back, as the module's docstring lists them."""
    environment = dict(os.environ)
    set_num_threads, threads = torch.set_num_threads, torch.get_num_threads()
    dtype, precision = torch.get_default_dtype(), torch.get_float32_matmul_precision()
    hook, level = sys.excepthook, logging.getLogger().level
    with untouched_generators(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            torch.set_num_threads = set_num_threads
            if torch.get_num_threads() != threads:
                set_num_threads(threads)
            torch.set_default_dtype(dtype)
            torch.set_float32_matmul_precision(precision)
            sys.excepthook = hook
            logging.getLogger().setLevel(level)
            _restore_environment(environment)


def _restore_environment(environment: dict[str, str]) -> None:
    for name in set(os.environ) | set(environment):
        if name.startswith("VLLM_"):
            continue
        if name in environment:
            os.environ[name] = environment[name]
        else:
            del os.environ[name]
