"""`posttrain doctor`: whether this machine can run recipes, and what to do where it cannot.

`judge` is pure: facts in, a line for each check out. The facts come from `facts`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from posttrain.extras import install
from posttrain.models.bitsandbytes_package import OLDEST, is_new_enough
from posttrain.processes.deepspeed_releases import OFFLOADS_FROM, sound_from
from posttrain.storage.files import size_in_words

Status = Literal["ok", "warning", "problem"]
Facts = Mapping[str, Any]

SHOWN = ("torch", "transformers", "trl", "accelerate", "peft", "datasets")
"""Packages that have a line of their own; the others have one where something is wrong with them."""

GIB = 2**30
LITTLE_DISK, NO_DISK = 20 * GIB, GIB
LITTLE_SHARED_MEMORY = GIB
LITTLE_MEMORY = 4 * GIB
FEW_OPEN_FILES = 4096
BUSY_GPU = 0.5
"""Share of a GPU's memory below which something else must be using it."""

STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        name: What was looked at.
        status: `problem`: recipes will fail. `warning`: some will, or they will be slow.
        seen: What was found.
        fix: What to do about it; empty where all is well.
    """

    name: str
    status: Status
    seen: str
    fix: str = ""


def doctor(*, as_json: bool = False) -> int:
    """Print the checks; returns 0, or 1 if there is a problem."""
    from posttrain.planning.doctor.facts import gather

    if not as_json and Console(stderr=True).is_terminal:
        Console(stderr=True).print("looking; importing vLLM can take a minute", style="dim")
    checks = judge(gather(Path("runs")))
    if as_json:
        print(json.dumps({"status": worst(checks), "checks": [asdict(check) for check in checks]}, indent=2))
    else:
        show(checks)
    return 1 if worst(checks) == "problem" else 0


def judge(facts: Facts) -> list[Check]:
    """Every check of `facts`, which are as `facts.gather` returns them."""
    judges: tuple[Callable[[Facts], Iterator[Check]], ...] = (
        _versions, _gpus, _processes, _vllm, _attention, _four_bits, _deepspeed, _memory, _disk, _hub, _cpu,
    )  # fmt: skip
    return [check for one in judges for check in one(facts)]


def worst(checks: list[Check]) -> Status:
    """The status of the worst check."""
    order: tuple[Status, ...] = ("problem", "warning", "ok")
    return next(status for status in order if status == "ok" or any(check.status == status for check in checks))


def show(checks: list[Check], console: Console | None = None) -> None:
    """Print a table of the checks, and how many of them are bad."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=140)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for heading in ("check", "", "seen", "what to do"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        status = Text(check.status, style=STYLES[check.status])
        table.add_row(Text(check.name), status, Text(check.seen), Text(check.fix))
    console.print(table)
    counts = {status: sum(check.status == status for check in checks) for status in ("problem", "warning")}
    console.print(Text(", ".join(f"{count} {status}{'' if count == 1 else 's'}" for status, count in counts.items())))


def _versions(facts: Facts) -> Iterator[Check]:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    wanted, python = facts["requires_python"], facts["python"]
    if not facts["requirements"]:
        yield Check("posttrain", "problem", "it is not installed", "pip install it, or pip install -e . in its folder")
    fits = SpecifierSet(wanted).contains(python, prereleases=True)
    yield Check("python", "ok" if fits else "problem", python, "" if fits else f"use Python {wanted}")
    for text in facts["requirements"]:
        need = Requirement(text)
        if need.marker and not need.marker.evaluate({"extra": ""}):
            continue
        found = facts["versions"].get(need.name.lower().replace("_", "-").replace(".", "-"))
        fits = found is not None and need.specifier.contains(found, prereleases=True)
        if need.name in SHOWN or not fits:
            seen = f"{found or 'not installed'} ({need.specifier})"
            yield Check(need.name, "ok" if fits else "problem", seen, "" if fits else f"pip install '{text}'")


def _gpus(facts: Facts) -> Iterator[Check]:
    torch, driver = facts["torch"], facts["driver"]
    if "error" in torch:
        yield Check(
            "torch import", "problem", f"cannot be imported: {torch['error']}", "install it again, for this machine"
        )
        return
    if driver is None and not torch["available"]:
        fix = "fine for the tiny recipes; the others need a GPU"
        yield Check("GPU", "warning", "none (no nvidia-smi)", fix)
        return
    if driver is not None and "error" in driver:
        yield Check("GPU", "problem", f"nvidia-smi fails: {driver['error']}", "look at the driver; a restart may help")
        return
    for number, gpu in enumerate(driver["gpus"] if driver else []):
        total, free = gpu["total_mib"], gpu["free_mib"]
        if total is None or free is None:
            yield Check(f"GPU {number}", "ok", f"{gpu['name']}, memory unknown")
            continue
        busy = free < BUSY_GPU * total
        fix = "something else is using it: nvidia-smi shows what" if busy else ""
        seen = f"{gpu['name']}, {free / 1024:.1f} of {total / 1024:.1f} GiB free"
        yield Check(f"GPU {number}", "warning" if busy else "ok", seen, fix)
    yield from _cuda(torch, driver)


def _cuda(torch: Facts, driver: Facts | None) -> Iterator[Check]:
    build = torch["cuda_build"] or torch["hip_build"]
    name = driver["driver"] if driver else None
    seen = f"torch is built for {build or 'CPUs only'}" + (f", driver {name}" if name else "")
    if not build:
        fix = "install torch's CUDA build: see pytorch.org/get-started"
        yield Check("CUDA", "problem", seen, fix)
    elif not torch["available"]:
        fix = "update the driver, or install a torch built for an older CUDA; is CUDA_VISIBLE_DEVICES empty?"
        yield Check("CUDA", "problem", f"{seen}, and torch sees no GPU", fix)
    else:
        yield Check("CUDA", "ok", f"{seen}; torch sees {torch['count']}")
        fix = "" if torch["bf16"] else "set bf16: false under warmup.args and hybrid.args: float32, and slower"
        yield Check("bf16", "ok" if torch["bf16"] else "warning", "yes" if torch["bf16"] else "not by this GPU", fix)


def _processes(facts: Facts) -> Iterator[Check]:
    torch = facts["torch"]
    if "error" in torch:
        return
    has = [name for name in ("nccl", "gloo") if torch[name]]
    several = torch["count"] > 1 and not torch["nccl"]
    status: Status = "problem" if several or not torch["gloo"] else "ok"
    fix = "install torch's own build: one without it cannot run several processes" if status == "problem" else ""
    yield Check("processes", status, ", ".join(has) or "neither nccl nor gloo", fix)


def _vllm(facts: Facts) -> Iterator[Check]:
    vllm, torch = facts["vllm"], facts["torch"]
    if not vllm["installed"]:
        on_gpu = bool(torch.get("available"))
        fix = f"{install('vllm')}: rollouts take most of a step without it" if on_gpu else ""
        yield Check("vllm", "warning" if on_gpu else "ok", "not installed; transformers samples", fix)
        return
    known, imported = vllm["range"], vllm["import"]
    turn_off = "or set rollout.engine: transformers"
    if "error" in known or not known["version"]:
        yield Check("vllm", "warning", f"version unknown: {known.get('error', 'no package brought it')}", turn_off)
    else:
        oldest, newest = (tuple(known[end]) for end in ("oldest", "newest"))
        numbers = tuple(int(part) for part in known["version"].split(".")[:2] if part.isdigit())
        fits = len(numbers) < 2 or oldest <= numbers <= newest
        wanted = " to ".join(".".join(map(str, end)) for end in (oldest, newest))
        fix = "" if fits else f"{install('vllm')}, {turn_off}"
        yield Check("vllm", "ok" if fits else "problem", f"{known['version']} ({wanted})", fix)
    if "error" in imported:
        fix = f"install a vLLM built for this torch and CUDA, {turn_off}"
        yield Check("vllm import", "problem", imported["error"], fix)
    else:
        yield Check("vllm import", "ok", f"{imported['seconds']:.1f} s")


def _attention(facts: Facts) -> Iterator[Check]:
    seen = "installed" if facts["flash_attention"] else "not installed; torch's own attention (sdpa) is used"
    yield Check("flash attention", "ok", seen)


def _four_bits(facts: Facts) -> Iterator[Check]:
    found = facts["versions"].get("bitsandbytes")
    if found is None:
        seen = f"not installed; model.load_in_4bit needs it ({install('qlora')})"
        yield Check("bitsandbytes", "ok", seen)
        return
    fits = is_new_enough(found)
    fix = "" if fits else f"{install('qlora')}, or leave model.load_in_4bit out"
    yield Check("bitsandbytes", "ok" if fits else "warning", f"{found} (>={OLDEST})", fix)


def _deepspeed(facts: Facts) -> Iterator[Check]:
    found = facts["versions"].get("deepspeed")
    if found is None:
        yield Check("deepspeed", "ok", "not installed; --config zero2 and zero3 need it")
        return
    names = {"ZeRO-2": False, "ZeRO-1 and -2 with the optimizer on the CPU": True}
    wrong = [name for name, offloads in names.items() if sound_from(found, 2, offloads=offloads)]
    seen = f"{found}; loses gradients of accumulated steps under {' and '.join(wrong)}" if wrong else found
    fix = f"pip install 'deepspeed>={OFFLOADS_FROM}'" if wrong else ""
    yield Check("deepspeed", "warning" if wrong else "ok", seen, fix)


def _memory(facts: Facts) -> Iterator[Check]:
    memory, shared = facts["memory"], facts["shared_memory"]
    little = memory["available"] < LITTLE_MEMORY
    seen = f"{size_in_words(memory['available'])} of {size_in_words(memory['total'])} available"
    fix = "a model is loaded into it first; end what else is running" if little else ""
    yield Check("memory", "warning" if little else "ok", seen, fix)
    little = shared is None or shared < LITTLE_SHARED_MEMORY
    seen = "no /dev/shm" if shared is None else size_in_words(shared)
    fix = "weights for a vLLM server and NCCL use it; in a container: docker run --shm-size=16g" if little else ""
    yield Check("shared memory", "warning" if little else "ok", seen, fix)


def _disk(facts: Facts) -> Iterator[Check]:
    runs = facts["runs"]
    if not runs["writable"]:
        yield Check(
            "runs", "problem", f"{runs['path']}/ cannot be written", "start from another folder, or set run.dir"
        )
        return
    status: Status = "problem" if runs["free"] < NO_DISK else "warning" if runs["free"] < LITTLE_DISK else "ok"
    fix = "" if status == "ok" else "checkpoints need three times the model, each; free some, or set run.dir"
    yield Check("runs", status, f"{size_in_words(runs['free'])} free for {runs['path']}/", fix)


def _hub(facts: Facts) -> Iterator[Check]:
    hub = facts["hub"]
    if hub["offline"]:
        yield Check(
            "hub", "warning", "offline, as HF_HUB_OFFLINE says", "only models and data in the cache can be used"
        )
    elif not hub["reachable"]:
        fix = "models and data must be in the cache, or folders; HF_HUB_OFFLINE=1 saves the waiting"
        yield Check("hub", "warning", f"{hub['url']} does not answer within 3 s", fix)
    else:
        yield Check("hub", "ok", f"{hub['url']} answers")
    fix = "" if hub["token"] else "`hf auth login`, or set HF_TOKEN, for gated and private models"
    yield Check("hub token", "ok" if hub["token"] else "warning", "there is one" if hub["token"] else "none", fix)


def _cpu(facts: Facts) -> Iterator[Check]:
    environment, on_gpu = facts["environment"], bool(facts["torch"].get("available"))
    threads, policy = environment["OMP_NUM_THREADS"], environment["OMP_WAIT_POLICY"]
    seen = f"{facts['cpus']} cores, OMP_NUM_THREADS {threads or 'not set'}, OMP_WAIT_POLICY {policy or 'not set'}"
    spins = not on_gpu and (policy or "").upper() != "PASSIVE"
    fix = "export OMP_WAIT_POLICY=PASSIVE: threads that spin while they wait slow small CPU runs down" if spins else ""
    yield Check("CPUs", "warning" if spins else "ok", seen, fix)
    few = 0 <= facts["open_files"] < FEW_OPEN_FILES
    fix = "ulimit -n 65536: data workers, reward workers and vLLM hold many" if few else ""
    seen = "no limit" if facts["open_files"] < 0 else str(facts["open_files"])
    yield Check("open files", "warning" if few else "ok", seen, fix)
