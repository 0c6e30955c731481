"""What `posttrain doctor` looks at: plain facts about this machine, gathered without judging them.

torch and vLLM are imported in processes of their own, with a time limit: on the machine that needs a doctor either may
crash, hang, or take the driver down with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from posttrain.storage.files import free_space

TORCH_LIMIT_S = 120.0
VLLM_LIMIT_S = 300.0
HUB_LIMIT_S = 3.0

TORCH_FACTS = """
import json, torch, torch.distributed as dist
facts = {
    "cuda_build": torch.version.cuda, "hip_build": torch.version.hip, "available": torch.cuda.is_available(),
    "count": torch.cuda.device_count(), "gloo": dist.is_available() and dist.is_gloo_available(),
    "nccl": dist.is_available() and dist.is_nccl_available(), "threads": torch.get_num_threads(),
}
facts["bf16"] = facts["available"] and torch.cuda.is_bf16_supported(including_emulation=False)
print("\\n" + json.dumps(facts))
"""
VLLM_RANGE = """
import json
from posttrain.rollouts import vllm_package
vllm = {"version": vllm_package.installed_version(), "oldest": vllm_package.OLDEST, "newest": vllm_package.NEWEST}
print("\\n" + json.dumps(vllm))
"""
VLLM_IMPORT = """
from posttrain.rollouts.vllm_package import set_environment
set_environment()
from vllm import LLM, SamplingParams
print("\\n{}")
"""


def gather(runs: Path) -> dict[str, Any]:
    """All facts that `doctor.judge` takes, as plain JSON. `runs` is where runs would be written."""
    environ = os.environ
    return {
        "python": platform.python_version(),
        "requires_python": _distribution().get("Requires-Python") or "",
        "requirements": metadata.requires("posttrain") or [],
        "versions": _versions(),
        "torch": aside(TORCH_FACTS, TORCH_LIMIT_S),
        "driver": driver(),
        "vllm": _vllm(),
        "flash_attention": find_spec("flash_attn") is not None,
        "shared_memory": _size("/dev/shm"),
        "runs": {"path": str(runs), "free": free_space(runs), "writable": _writable(runs)},
        "hub": _hub(environ),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory": memory(),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "environment": {name: environ.get(name) for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")},
    }


def aside(code: str, time_limit_s: float) -> dict[str, Any]:
    """Run Python code in a process of its own.

    Args:
        code: Ends with printing a JSON object on a line of its own.
        time_limit_s: After which the process is killed.

    Returns:
        What it printed, and `seconds`; or `error` in words.
    """
    start = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=time_limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no end after {time_limit_s:.0f} s"}
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        return {"error": said[-1].strip()[:300] if said else how}
    try:
        return {**json.loads(done.stdout.splitlines()[-1]), "seconds": time.monotonic() - start}
    except (ValueError, IndexError, TypeError):
        return {"error": f"it said {done.stdout[-200:]!r}"}


def driver() -> dict[str, Any] | None:
    """What nvidia-smi shows: `gpus` with name and MiB, `driver`; `error` where it fails; None without it."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free,driver_version", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return {"error": str(error)}
    if done.returncode:
        return {"error": (done.stdout + done.stderr).strip()[:300] or f"exit code {done.returncode}"}
    gpus, version = [], None
    for line in done.stdout.splitlines():
        name, total, free, version = (part.strip() for part in line.rsplit(",", 3))
        gpus.append({"name": name, "total_mib": _number(total), "free_mib": _number(free)})
    return {"gpus": gpus, "driver": version}


def memory() -> dict[str, int]:
    """Bytes of memory: `total` and `available`, within the limit of this process's control group."""
    sizes = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            sizes[name] = int(rest.split()[0]) * 1024
    total, available = sizes.get("MemTotal", 0), sizes.get("MemAvailable", 0)
    with contextlib.suppress(OSError, ValueError):
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        total, available = min(total, limit), min(available, max(0, limit - used))
    return {"total": total, "available": available}


def reachable(url: str, time_limit_s: float = HUB_LIMIT_S) -> bool:
    """Whether a web server answers, whatever it says. Looking up its name counts towards the limit."""
    answered: list[bool] = []
    ended = threading.Event()

    def ask() -> None:
        try:
            with contextlib.suppress(OSError, ValueError):
                with contextlib.suppress(urllib.error.HTTPError):
                    urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=time_limit_s).close()
                answered.append(True)
        finally:
            ended.set()  # where nobody can be asked there is nothing to wait for

    threading.Thread(target=ask, daemon=True).start()
    return ended.wait(time_limit_s) and bool(answered)


def _hub(environ: Mapping[str, str]) -> dict[str, Any]:
    url = environ.get("HF_ENDPOINT") or "https://huggingface.co"
    offline = environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    return {"url": url, "offline": offline, "token": _has_token(environ), "reachable": not offline and reachable(url)}


def _has_token(environ: Mapping[str, str]) -> bool:
    """Whether the hub's client would find a token; the token itself is not kept."""
    if any(environ.get(name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")):
        return True
    cache = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    file = Path(environ.get("HF_TOKEN_PATH") or Path(environ.get("HF_HOME") or cache) / "token")
    try:
        return bool(file.expanduser().read_text().strip())
    except OSError:
        return False


def _vllm() -> dict[str, Any]:
    if find_spec("vllm") is None:
        return {"installed": False}
    return {"installed": True, "range": aside(VLLM_RANGE, TORCH_LIMIT_S), "import": aside(VLLM_IMPORT, VLLM_LIMIT_S)}


def _distribution() -> Any:
    try:
        return metadata.metadata("posttrain")
    except metadata.PackageNotFoundError:
        return {}


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for each in metadata.distributions():
        name = each.metadata["Name"]
        if name:
            found.setdefault(name.lower().replace("_", "-").replace(".", "-"), each.version)
    return found


def _size(path: str) -> int | None:
    return shutil.disk_usage(path).total if Path(path).is_dir() else None


def _writable(path: Path) -> bool:
    path = path.absolute()
    return os.access(next(place for place in (path, *path.parents) if place.exists()), os.W_OK | os.X_OK)


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None
