"""What a run ran on: versions, code, machine. Asks no deep-learning library, so that it costs milliseconds."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from posttrain.rundir.masking import command_without_secrets

PACKAGES = (
    "posttrain", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "vllm", "bitsandbytes",
)  # fmt: skip


def now() -> str:
    """The time as ISO 8601, to the second, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def describe() -> dict[str, Any]:
    """Versions, git state of the working folder, platform, CPUs and GPUs, and the command line, as plain JSON.

    `git` is None outside a repository; `dirty` counts untracked files too. `gpus` lists what the driver shows, of
    which CUDA_VISIBLE_DEVICES may have left the run fewer. Passwords and tokens in the command are hidden; of the
    environment's variables there are no others.
    """
    return {
        "command": [Path(sys.argv[0]).name, *command_without_secrets(sys.argv[1:])],
        "versions": {"python": platform.python_version(), **_versions()},
        "git": _git(Path.cwd()),
        "platform": platform.platform(),
        "cpu_count": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpus": _gpus(),
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git(folder: Path) -> dict[str, Any] | None:
    commit = _output("git", "-C", str(folder), "rev-parse", "HEAD")
    if not commit:
        return None
    changes = _output("git", "-C", str(folder), "status", "--porcelain")
    return {"commit": commit, "dirty": bool(changes)}


def _gpus() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    listed = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return listed.splitlines() if listed else []


def _output(*command: str) -> str | None:
    """What a command prints, None when it is absent, fails, or takes over ten seconds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
