"""`posttrain doctor`: judging invented facts, gathering real ones, and one real run."""

from __future__ import annotations

import copy
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from rich.console import Console

from posttrain import cli
from posttrain.planning.doctor import facts as doctor_facts
from posttrain.planning.doctor.doctor import FEW_OPEN_FILES, GIB, judge, show, worst
from posttrain.planning.doctor.facts import _has_token, aside, driver, gather, memory, reachable

GOOD = {
    "python": "3.12.1",
    "requires_python": ">=3.11",
    "requirements": ["torch>=2.9", "trl<1.17,>=1.16", "ruamel.yaml>=0.18", 'vllm<0.32,>=0.22; extra == "vllm"'],
    "versions": {"torch": "2.13.0+cu129", "trl": "1.16.0", "ruamel-yaml": "0.19"},
    "torch": {
        "cuda_build": "12.9", "hip_build": None, "available": True, "count": 2, "gloo": True, "nccl": True,
        "threads": 8, "bf16": True, "seconds": 2.0,
    },
    "driver": {"driver": "580.1", "gpus": [{"name": "H100", "total_mib": 81559, "free_mib": 81000}] * 2},
    "vllm": {
        "installed": True, "range": {"version": "0.25.1", "oldest": [0, 22], "newest": [0, 31]},
        "import": {"seconds": 21.34},
    },
    "flash_attention": False,
    "shared_memory": 16 * GIB,
    "runs": {"path": "runs", "free": 900 * GIB, "writable": True},
    "hub": {"url": "https://hub", "offline": False, "token": True, "reachable": True},
    "cpus": 16,
    "memory": {"total": 128 * GIB, "available": 120 * GIB},
    "open_files": 65536,
    "environment": {"OMP_NUM_THREADS": None, "OMP_WAIT_POLICY": None},
}  # fmt: skip


def changed(**changes):
    """The good facts with some of them replaced: `torch__available=False` reaches inside."""
    facts = copy.deepcopy(GOOD)
    for name, value in changes.items():
        *path, last = name.split("__")
        place = facts
        for part in path:
            place = place[part]
        place[last] = value
    return facts


def test_a_good_machine_has_nothing_to_do():
    checks = judge(GOOD)
    assert {check.status for check in checks} == {"ok"}
    assert not any(check.fix for check in checks)
    assert worst(checks) == "ok"
    seen = {check.name: check.seen for check in checks}
    assert seen["trl"] == "1.16.0 (<1.17,>=1.16)"
    assert seen["GPU 1"] == "H100, 79.1 of 79.6 GiB free"
    assert seen["vllm"] == "0.25.1 (0.22 to 0.31)"
    assert seen["vllm import"] == "21.3 s"
    assert seen["bitsandbytes"].startswith("not installed; model.load_in_4bit")
    there = {check.name: check.seen for check in judge(changed(versions__bitsandbytes="0.50.2"))}
    assert there["bitsandbytes"] == "0.50.2 (>=0.46.1)"


GPU_IN_USE = {"name": "A", "total_mib": 80000, "free_mib": 30000}
BAD = [
    ({"python": "3.10.2"}, "python", "problem", "3.10.2", "use Python >=3.11"),
    ({"requirements": []}, "posttrain", "problem", "not installed", "pip install"),
    ({"versions__trl": "1.17.1"}, "trl", "problem", "1.17.1 (<1.17,>=1.16)", "pip install 'trl<1.17,>=1.16'"),
    ({"versions": {}}, "torch", "problem", "not installed", "pip install 'torch>=2.9'"),
    ({"versions__ruamel-yaml": "0.1"}, "ruamel.yaml", "problem", "0.1", "pip install 'ruamel.yaml>=0.18'"),
    ({"torch": {"error": "libcudart.so.12"}}, "torch import", "problem", "libcudart.so.12", "install it again"),
    ({"torch__cuda_build": None, "torch__available": False}, "CUDA", "problem", "CPUs only, driver 580.1", "build"),
    ({"torch__available": False}, "CUDA", "problem", "torch sees no GPU", "update the driver"),
    ({"driver": {"error": "no devices"}}, "GPU", "problem", "no devices", "driver"),
    ({"driver": None, "torch__available": False}, "GPU", "warning", "none", "tiny recipes"),
    ({"driver__gpus": [GPU_IN_USE]}, "GPU 0", "warning", "29.3 of", "using it"),
    ({"torch__bf16": False}, "bf16", "warning", "not by this GPU", "bf16: false"),
    ({"torch__nccl": False}, "processes", "problem", "gloo", "own build"),
    ({"torch__gloo": False, "torch__nccl": False, "torch__count": 1}, "processes", "problem", "neither", "own build"),
    ({"vllm": {"installed": False}}, "vllm", "warning", "not installed", "[vllm]"),
    ({"vllm__range__version": "0.32.0"}, "vllm", "problem", "0.32.0 (0.22 to 0.31)", "rollout.engine: transformers"),
    ({"vllm__range": {"error": "boom"}}, "vllm", "warning", "boom", "rollout.engine: transformers"),
    ({"vllm__import": {"error": "signal 11"}}, "vllm import", "problem", "signal 11", "built for this torch"),
    ({"versions__deepspeed": "0.18.2"}, "deepspeed", "warning", "0.18.2; loses gradients", "deepspeed>=0.19.0"),
    ({"versions__deepspeed": "0.18.9"}, "deepspeed", "warning", "with the optimizer on the CPU", "deepspeed>=0.19.0"),
    ({"versions__bitsandbytes": "0.45.5"}, "bitsandbytes", "warning", "0.45.5 (>=0.46.1)", "[qlora]"),
    ({"shared_memory": 64 * 2**20}, "shared memory", "warning", "64.0 MiB", "--shm-size"),
    ({"shared_memory": None}, "shared memory", "warning", "no /dev/shm", "--shm-size"),
    ({"memory__available": GIB}, "memory", "warning", "1.0 GiB of 128.0 GiB", "end what else"),
    ({"runs__writable": False}, "runs", "problem", "runs/ cannot be written", "set run.dir"),
    ({"runs__free": 2**29}, "runs", "problem", "512.0 MiB free", "free some"),
    ({"runs__free": 10 * GIB}, "runs", "warning", "10.0 GiB free", "free some"),
    ({"hub__offline": True}, "hub", "warning", "HF_HUB_OFFLINE", "in the cache"),
    ({"hub__reachable": False}, "hub", "warning", "https://hub does not answer", "HF_HUB_OFFLINE=1"),
    ({"hub__token": False}, "hub token", "warning", "none", "HF_TOKEN"),
    ({"driver": None, "torch__available": False}, "CPUs", "warning", "OMP_WAIT_POLICY not set", "PASSIVE"),
    ({"open_files": FEW_OPEN_FILES - 1}, "open files", "warning", "4095", "ulimit"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "name", "status", "seen", "fix"), BAD, ids=[f"{b[1]}-{b[3][:20]}" for b in BAD])
def test_each_fault_is_found_and_says_what_to_do(changes, name, status, seen, fix):
    checks = judge(changed(**changes))
    found = next(check for check in checks if check.name == name)
    assert found.status == status
    assert seen in found.seen
    assert fix in found.fix


def test_a_machine_for_cpu_runs_has_no_problem():
    facts = changed(driver=None, torch__available=False, torch__cuda_build=None, torch__count=0, torch__nccl=False)
    facts["environment"]["OMP_WAIT_POLICY"] = "passive"
    facts["vllm"] = {"installed": False}
    assert {check.name for check in judge(facts) if check.status != "ok"} == {"GPU"}
    assert worst(judge(facts)) == "warning"


def test_unlimited_files_and_unknown_gpu_memory_are_fine():
    gpu = {"name": "GB10", "total_mib": None, "free_mib": None}
    assert worst(judge(changed(open_files=-1, driver__gpus=[gpu]))) == "ok"


def test_the_table_has_a_line_a_check_and_counts_them(capsys):
    checks = judge(changed(versions__trl="2.0", hub__token=False))
    show(checks, Console(width=200))
    said = capsys.readouterr().out
    assert all(check.name in said for check in checks)
    assert "1 problem, 1 warning\n" in said


@pytest.mark.parametrize(("changes", "code"), [({}, 0), ({"hub__token": False}, 0), ({"python": "3.9"}, 1)])
def test_exit_code(changes, code, monkeypatch, capsys):
    monkeypatch.setattr(doctor_facts, "gather", lambda runs: changed(**changes))
    assert cli.main(["doctor", "--json"]) == code
    said = json.loads(capsys.readouterr().out)
    assert said["status"] == worst(judge(changed(**changes)))
    assert cli.main(["doctor"]) == code


def test_aside_says_what_went_wrong():
    assert aside("print('{\"a\": 1}')", 20)["a"] == 1
    assert aside("import absent_module", 20)["error"] == "ModuleNotFoundError: No module named 'absent_module'"
    assert aside("import os; os.kill(os.getpid(), 11)", 20)["error"] == "signal 11"
    assert aside("import time; time.sleep(60)", 0.3)["error"] == "no end after 0 s"
    assert "it said 'hello" in aside("print('hello')", 20)["error"]


def test_a_server_that_does_not_answer_costs_no_more_than_its_limit():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        assert not reachable(f"http://127.0.0.1:{silent.getsockname()[1]}", 0.3)
        assert time.monotonic() - start < 2
    assert not reachable("no url at all", 1)


def test_a_server_that_refuses_is_reachable():
    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(403)

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert reachable(f"http://127.0.0.1:{server.server_port}", 5)
        server.shutdown()


def test_a_token_is_found_where_the_hub_client_looks(tmp_path):
    assert not _has_token({"HF_HOME": str(tmp_path)})
    assert _has_token({"HF_HOME": str(tmp_path), "HF_TOKEN": "x"})
    (tmp_path / "token").write_text("hf_secret\n")
    assert _has_token({"HF_HOME": str(tmp_path)})
    assert _has_token({"HF_TOKEN_PATH": str(tmp_path / "token")})
    assert not _has_token({"HF_TOKEN_PATH": str(tmp_path / "absent")})


SMI = """#!/bin/sh
{}
"""


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'NVIDIA H100, 80GB, 81559, 81000, 580.95'", {"driver": "580.95", "gpus": [
            {"name": "NVIDIA H100, 80GB", "total_mib": 81559, "free_mib": 81000}]}),
        ("echo 'GB10, [N/A], [N/A], 580.1'", {"driver": "580.1", "gpus": [
            {"name": "GB10", "total_mib": None, "free_mib": None}]}),
        ("echo 'No devices were found' >&2; exit 6", {"error": "No devices were found"}),
        ("exit 9", {"error": "exit code 9"}),
    ],
)  # fmt: skip
def test_what_nvidia_smi_says(script, expected, tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(SMI.format(script))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert driver() == expected


def test_memory_is_what_this_process_may_use():
    seen = memory()
    assert 2**28 < seen["available"] <= seen["total"]


def test_a_real_run(tmp_path):
    """On whatever machine this is: it ends, its exit code is what its JSON says, and no token is printed."""
    secret = "hf_" + "s" * 20
    environ = {**os.environ, "HF_TOKEN": secret, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "posttrain", "doctor", "--json"],
        cwd=tmp_path, env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert secret not in done.stdout + done.stderr
    said = json.loads(done.stdout)
    seen = {check["name"]: check for check in said["checks"]}
    assert done.returncode == (1 if said["status"] == "problem" else 0)
    assert seen["transformers"]["status"] == seen["trl"]["status"] == seen["processes"]["status"] == "ok"
    assert seen["hub token"]["seen"] == "there is one"
    assert not list(tmp_path.iterdir())


def test_facts_are_plain_json(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_facts, "aside", lambda code, limit: {"error": "not asked"})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    facts = gather(tmp_path / "runs")
    assert json.loads(json.dumps(facts)) == facts
    assert facts["runs"]["writable"]
    assert not (tmp_path / "runs").exists()
    assert judge(facts)
