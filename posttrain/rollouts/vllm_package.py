"""Whether vLLM is here, in a version that can be used, and what it must find when it is imported.

Apart from what builds an engine, which loads torch and PEFT: `posttrain doctor` asks, and needs neither.
"""

from __future__ import annotations

import logging
import os
import re
from importlib.metadata import distributions, packages_distributions, version
from importlib.util import find_spec

from posttrain.errors import ConfigError
from posttrain.extras import install

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process, where the tensors are
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the trainer's threads are not vLLM's to pin
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
"""Set where the user has not set them, before vLLM is imported."""

OLDEST, NEWEST = (0, 22), (0, 31)
"""The versions of vLLM that can be used: those that TRL supports."""

WORKER_EXTENSION = "posttrain.rollouts.weight_sync.WeightReceiver"
"""What vLLM's workers need to take weights from us."""


def is_installed() -> bool:
    """Whether vLLM can be imported, without importing it."""
    return find_spec("vllm") is not None


def set_environment() -> None:
    """What vLLM reads when it is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])  # for what it says before it sets itself up


def check_installed() -> None:
    """Raise ConfigError without vLLM, or with a version of it that cannot be used."""
    fix = f"{install('vllm')}, or set rollout.engine: transformers"
    if not is_installed():
        raise ConfigError("vLLM is not installed", where="rollout.engine", fix=fix)
    if installed := installed_version():
        check_version(installed, where="rollout.engine", fix=fix)


def installed_version() -> str | None:
    """Of vLLM, whatever the package that brought it is called; None where no package did."""
    for each in distributions():
        if "vllm" in (each.read_text("top_level.txt") or "").split():
            return each.version
    names = packages_distributions().get("vllm")  # goes through the files of all packages, which takes a while
    return version(names[0]) if names else None


def check_version(found: str, *, where: str, fix: str) -> None:
    """Raise ConfigError for a version of vLLM outside `OLDEST` to `NEWEST`; one that is no number passes."""
    numbers = re.match(r"(\d+)\.(\d+)", found)
    if numbers and not OLDEST <= (int(numbers[1]), int(numbers[2])) <= NEWEST:
        supported = " to ".join(f"{major}.{minor}" for major, minor in (OLDEST, NEWEST))
        raise ConfigError(f"vLLM {found}", expected=f"vLLM {supported}", where=where, fix=fix)
