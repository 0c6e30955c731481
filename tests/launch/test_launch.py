"""`posttrain launch`: the configurations that ship, the command that is printed, and what is refused before it runs."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest

from posttrain import cli
from posttrain.errors import ConfigError
from posttrain.launch import launch
from posttrain.launch.end import exit_code, how_it_ended
from posttrain.launch.launch import NAMES, arguments, config_file, environment, kind_of
from posttrain.launch.nodes import Nodes, nodes_of, slurm_host_names
from posttrain.processes.launched import COMMAND, resuming
from posttrain.recipe.recipe import load_recipe
from posttrain.rundir.facts import write_recipe
from posttrain.running.callbacks import how_to_go_on
from posttrain.storage.lock import Lock

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "recipes" / "accelerate"
RECIPE = "model: m\ntask: knights_knaves\nhybrid: {per_device_train_batch_size: 4, grpo: {num_generations: 8}}\n"


@pytest.fixture(autouse=True)
def same_environment():
    """A launch changes the variables of its process, which ends with it."""
    with patch.dict(os.environ):
        yield


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> Path:
    for name in [name for name in os.environ if name.startswith(("SLURM_", "CUDA_", "OMP_", "TORCH_ELASTIC"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "visible_gpus", lambda: 8)
    file = tmp_path / "r.yaml"
    file.write_text(RECIPE)
    return file


# ---- the configurations ----


def given_to_accelerate(file: Path, *more: str):
    """What `accelerate launch` makes of a configuration."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    given = ["--config_file", str(file), *more, "-m", "posttrain", "run", "r.yaml"]
    return _validate_launch_command(launch_command_parser().parse_args(given))


def test_every_configuration_has_a_name():
    assert {path.stem for path in CONFIGS.iterdir()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_accelerate_loads_it_and_knows_every_key(name, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    from accelerate.commands.launch import launch_command_parser

    args, defaults, _ = given_to_accelerate(config_file(name))
    assert args.mixed_precision == defaults.mixed_precision == "bf16"
    assert args.num_processes == (1 if name == "single" else 8)
    assert given_to_accelerate(config_file(name), "--num_processes", "3")[0].num_processes == 3
    known = vars(launch_command_parser().parse_args(["x"]))
    assert {*defaults.fsdp_config, *defaults.deepspeed_config} <= set(known)
    assert (args.multi_gpu, args.use_fsdp, args.use_deepspeed) == (name == "ddp", name == "fsdp2", name[:4] == "zero")


@pytest.mark.parametrize("name", NAMES)
def test_its_head_says_how_to_use_it(name):
    head = [line for line in config_file(name).read_text().splitlines() if line.startswith("#")]
    said = "\n".join(head)
    assert f"accelerate launch --config_file recipes/accelerate/{name}.yaml" in said
    assert "posttrain launch RECIPE --gpus 8" in said or name == "single"


def test_what_fsdp2_is_told():
    """Read back from the plugin that the processes build, not from the file."""
    code = (
        "import json, sys; from accelerate.utils import FullyShardedDataParallelPlugin as Plugin; plugin = Plugin();"
        "print(json.dumps([plugin.fsdp_version, plugin.reshard_after_forward, plugin.cpu_ram_efficient_loading,"
        "plugin.activation_checkpointing, str(plugin.state_dict_type), plugin.auto_wrap_policy.__name__,"
        "plugin.transformer_cls_names_to_wrap]))"
    )
    from accelerate.utils.launch import prepare_multi_gpu_env

    variables = prepare_multi_gpu_env(given_to_accelerate(config_file("fsdp2"), "--main_process_port", "0")[0])
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    kind = "StateDictType.SHARDED_STATE_DICT"
    assert json.loads(done.stdout) == [2, True, False, False, kind, "transformer_auto_wrap_policy", None]


@pytest.mark.parametrize(("name", "stage"), [("zero2", 2), ("zero3", 3)])
def test_what_deepspeed_is_told(name, stage):
    settings = given_to_accelerate(config_file(name))[1].deepspeed_config
    assert settings["zero_stage"] == stage
    assert settings["gradient_accumulation_steps"] == settings["gradient_clipping"] == "auto"
    assert settings.get("zero3_save_16bit_model", False) == (stage == 3)
    assert not settings.get("zero3_init_flag", False)
    # pdsh, its default, would start the other nodes itself
    assert settings["deepspeed_multinode_launcher"] == "standard"


def test_a_wheel_has_them(tmp_path):
    """And `config_file` finds them there, where there is no recipes/."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "posttrain", "rewards", "recipes"):
        (source / name).symlink_to(ROOT / name)
    build = "import setuptools.build_meta as backend, sys; print(backend.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    shipped = tmp_path / "installed" / "posttrain" / "shipped_recipes"
    assert (shipped / "custom_reward" / "my_reward.py").is_file()
    assert {path.relative_to(shipped) for path in shipped.rglob("*.yaml")} == {
        path.relative_to(ROOT / "recipes") for path in (ROOT / "recipes").rglob("*.yaml")
    }
    ask = "from posttrain.launch import launch; print(*(launch.config_file(name) for name in launch.NAMES), sep='\\n')"
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", ask], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    )
    found = [Path(line) for line in done.stdout.splitlines()]
    assert all(path.is_relative_to(tmp_path / "installed") for path in found)
    assert [path.read_bytes() for path in found] == [(CONFIGS / f"{name}.yaml").read_bytes() for name in NAMES]


def test_configurations_of_ones_own(tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text("distributed_type: NO\n")
    assert config_file(str(own)) == own
    assert kind_of(own) == "NO"
    with pytest.raises(ConfigError, match=r"--config: fsdp is no file\n.*one of single.*\n.*did you mean fsdp2\?"):
        config_file("fsdp")
    for text in ("steps: 3\n", "- a\n", "a: [\n", "\0"):
        own.write_text(text)
        with pytest.raises(ConfigError, match=r"mine\.yaml: (no accelerate configuration|cannot be read)"):
            kind_of(own)


# ---- nodes ----


def asked(**given):
    return SimpleNamespace(**{name: given.get(name) for name in ("nodes", "node_rank", "main_address", "main_port")})


IN_A_STEP = {
    "SLURM_STEP_ID": "0", "SLURM_NNODES": "3", "SLURM_STEP_NUM_NODES": "3", "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_NODEID": "2", "SLURM_JOB_ID": "71234", "SLURM_JOB_NODELIST": "gpu[1-3]",
}  # fmt: skip


def names(node_list: str) -> list[str]:
    return {"gpu[1-3]": ["gpu1", "gpu2", "gpu3"], "gpu[2-3]": ["gpu2", "gpu3"]}.get(node_list, [])


@pytest.mark.parametrize(
    ("given", "environ", "expected"),
    [
        ({}, {}, Nodes()),
        ({"main_port": 1234}, {}, Nodes(port=1234)),
        ({"nodes": 2, "node_rank": 1, "main_address": "a"}, {}, Nodes(2, 1, "a", 29500)),
        ({"nodes": 2, "main_address": "a", "main_port": 7}, {}, Nodes(2, 0, "a", 7)),
        ({}, IN_A_STEP, Nodes(3, 2, "gpu1", 21234)),
        ({"main_port": 7, "main_address": "b"}, IN_A_STEP, Nodes(3, 2, "b", 7)),
        ({}, {**IN_A_STEP, "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NODEID": "1",
              "SLURM_STEP_NODELIST": "gpu[2-3]"}, Nodes(2, 1, "gpu2", 21234)),
        ({"nodes": 1}, IN_A_STEP, Nodes()),
        ({}, {"SLURM_NNODES": "1", "SLURM_JOB_ID": "5"}, Nodes()),
    ],
)  # fmt: skip
def test_nodes(given, environ, expected):
    assert nodes_of(asked(**given), environ, names) == expected


@pytest.mark.parametrize(
    ("given", "environ", "said"),
    [
        ({"nodes": 2}, {}, "--main-address: 2 nodes, and no place to meet at"),
        ({"nodes": 2, "node_rank": 2, "main_address": "a"}, {}, "--node-rank: node 2 of 2"),
        ({"nodes": 0}, {}, "--node-rank: node 0 of 0"),
        ({"node_rank": 1}, {}, "--node-rank: node 1 of 1"),
        (
            {},
            {"SLURM_NNODES": "3"},
            r"Slurm gave 3 nodes[\s\S]*srun --ntasks-per-node=1 posttrain launch",
        ),
        ({}, {**IN_A_STEP, "SLURM_STEP_NUM_TASKS": "24"}, "24 tasks on 3 nodes"),
        ({}, {**IN_A_STEP, "SLURM_JOB_NODELIST": "?"}, "--main-address: 3 nodes"),
    ],
)
def test_nodes_refused(given, environ, said):
    with pytest.raises(ConfigError, match=said):
        nodes_of(asked(**given), environ, names)


def test_host_names_come_from_scontrol(tmp_path, monkeypatch):
    assert slurm_host_names("") == []
    tool = tmp_path / "scontrol"
    tool.write_text('#!/bin/sh\n[ "$*" = "show hostnames gpu[1-2]" ] && printf "gpu1\\ngpu2\\n"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert slurm_host_names("gpu[1-2]") == ["gpu1", "gpu2"]
    assert slurm_host_names("other") == []


# ---- the command ----


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "zero2", "zero3"])
@pytest.mark.parametrize("nodes", [Nodes(), Nodes(2, 1, "gpu1", 29500)], ids=["one", "two"])
def test_accelerate_understands_the_command(name, nodes):
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    file = config_file(name)
    given = arguments(file, kind_of(file), 8, nodes, ["run", "r.yaml", "a=1", "--resume"], cpu=False)
    args = _validate_launch_command(launch_command_parser().parse_args(given))[0]
    assert (args.num_processes, args.num_machines, args.machine_rank) == (8 * nodes.count, nodes.count, nodes.rank)
    assert (args.main_process_ip, args.main_process_port) == (nodes.address, nodes.port)
    assert (args.module, args.training_script) == (True, "posttrain")
    assert args.training_script_args == ["run", "r.yaml", "a=1", "--resume"]
    assert args.mixed_precision == "bf16"


def dry_run(capsys, *given: str) -> list[str]:
    assert cli.main(["launch", "r.yaml", *given, "--dry-run"]) == 0
    return capsys.readouterr().out.splitlines()


def test_one_node(recipe, capsys):
    (line,) = dry_run(capsys, "--gpus", "2", "hybrid.steps=7", "--accept-changes")
    assert line == (
        f"PYTHONSAFEPATH=1 TORCH_ELASTIC_SHUTDOWN_TIMEOUT=120 {sys.executable} -m accelerate.commands.launch "
        f"--config_file {config_file('ddp')} --num_processes 2 --num_machines 1 --main_process_port 0 "
        "-m posttrain run r.yaml hybrid.steps=7 --accept-changes"
    )
    assert "--num_processes 8" in dry_run(capsys)[0]  # all that are visible
    assert f"--config_file {config_file('fsdp2')} " in dry_run(capsys, "--config", "fsdp2")[0]


@pytest.mark.parametrize("config", ["fsdp2", "zero2"])
def test_a_base_in_4_bits_is_not_cut_up(recipe, capsys, monkeypatch, config):
    monkeypatch.setattr("posttrain.launch.launch.find_spec", lambda name: True)
    given = ["launch", "r.yaml", "model.load_in_4bit=true", "lora.r=2", "--gpus", "2", "--dry-run"]
    assert cli.main([*given, "--config", config]) == 2
    assert "which has not been tested" in capsys.readouterr().err
    assert cli.main(given) == 0


def test_what_is_printed_can_be_copied(recipe, capsys):
    (line,) = dry_run(capsys, "--gpus", "2", "task.people=[2, 3]", "run.dir=a'b $c")
    assert shlex.split(line)[-2:] == ["task.people=[2, 3]", "run.dir=a'b $c"]


def test_every_node_has_its_command(recipe, capsys):
    lines = dry_run(capsys, "--gpus", "4", "--nodes", "3", "--node-rank", "1", "--main-address", "n0")
    assert lines[0] == "# node 1 of 3, this one"
    assert lines[2::2] == ["# on node 0", "# on node 2"]
    parts = "--num_processes 12 --num_machines 3 --machine_rank {} --main_process_ip n0 --main_process_port 29500"
    assert [parts.format(rank) in line for rank, line in zip((1, 0, 2), lines[1::2], strict=True)] == [True] * 3


def test_slurm_tells_each_node_its_own(recipe, capsys, monkeypatch):
    monkeypatch.setattr(launch, "slurm_host_names", names)
    for name, value in IN_A_STEP.items():
        monkeypatch.setenv(name, value)
    lines = dry_run(capsys, "--gpus", "4")
    assert len(lines) == 2
    assert "--machine_rank 2 --main_process_ip gpu1 --main_process_port 21234" in lines[1]


def test_one_process_is_run_and_not_launched(recipe, capsys, monkeypatch):
    own = f"{sys.executable} -m posttrain run r.yaml"
    more = "hybrid.per_device_train_batch_size=8"
    assert dry_run(capsys, "--gpus", "1", more) == [f"PYTHONSAFEPATH=1 CUDA_VISIBLE_DEVICES=0 {own} {more}"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    assert dry_run(capsys, "--gpus", "1", more) == [f"PYTHONSAFEPATH=1 CUDA_VISIBLE_DEVICES=5 {own} {more}"]
    monkeypatch.setattr(launch, "visible_gpus", lambda: 1)
    assert dry_run(capsys, more) == [f"PYTHONSAFEPATH=1 {own} {more}"]


def test_cpus(recipe, capsys):
    (line,) = dry_run(capsys, "--cpu", "--processes", "2")
    assert f"ACCELERATE_USE_CPU=true CUDA_VISIBLE_DEVICES='' {sys.executable} -m accelerate" in line
    assert "--num_processes 2 " in line
    assert "--mixed_precision no " in line


def test_what_the_user_set_stays():
    user = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "600", "OMP_NUM_THREADS": "3", "PYTHONSAFEPATH": ""}
    assert environment(2, user, cpu=True) == {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    assert environment(2, {}, cpu=False) == {"PYTHONSAFEPATH": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "120"}
    assert environment(0, {}, cpu=False) == {"PYTHONSAFEPATH": "1"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["absent.yaml"], "absent.yaml does not exist"),
        (["r.yaml", "--gpus", "3"], "(per_device_train_batch_size 4 x gradient_accumulation_steps 1 x 3 processes)"),
        (["r.yaml", "--gpus", "16"], "--gpus: 16 GPUs, but 8 are visible here"),
        (["r.yaml", "--gpus", "0"], "--gpus: 0"),
        (["r.yaml", "--gpus", "2", "--config", "fspd2"], "did you mean fsdp2?"),
        (["r.yaml", "--gpus", "2", "--config", "single"], "2 processes with single.yaml, which is for one"),
        (["r.yaml", "--cpu", "--processes", "2", "--config", "fsdp2"], "--cpu with fsdp2.yaml (FSDP)"),
        (["r.yaml", "--cpu", "--gpus", "2"], "--gpus with --cpu"),
        (["r.yaml", "--processes", "2"], "--processes without --cpu"),
        (["r.yaml", "--gpus", "2", "--nodes", "2"], "--main-address"),
    ],
)
def test_refused_before_anything_starts(given, said, recipe, capsys, monkeypatch):
    monkeypatch.setattr(launch, "run_accelerate", never)
    assert cli.main(["launch", *given]) == 2
    assert said in capsys.readouterr().err


def never(*args, **how):
    pytest.fail("it was launched")


def test_deepspeed_must_be_there(recipe, capsys, monkeypatch):
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    monkeypatch.setattr(launch, "run_accelerate", never)
    assert cli.main(["launch", "r.yaml", "--gpus", "2", "--config", "zero2"]) == 2
    assert "zero2.yaml needs DeepSpeed, which is not installed" in capsys.readouterr().err


def test_a_login_node_may_lack_what_a_dry_run_is_for(recipe, capsys, monkeypatch):
    """No GPU, no DeepSpeed: said, and the command is printed. Nobody asks the server."""
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    monkeypatch.setattr(launch, "visible_gpus", lambda: 0)
    monkeypatch.setattr(launch, "answers", never)
    server = ("rollout.mode=server", "rollout.server_base_url=http://192.0.2.1:8000")
    *warnings, line = dry_run(capsys, "--gpus", "2", "--config", "zero2", *server)
    assert warnings == [
        "warning: --config: zero2.yaml needs DeepSpeed, which is not installed",
        "warning: --gpus: 2 GPUs, but 0 are visible here",
    ]
    assert "--num_processes 2 " in line


# ---- the run directory ----


def launched(capsys, monkeypatch, *given: str) -> str:
    """What `posttrain launch` refuses a run directory with, before anything is started; empty if it does not."""
    monkeypatch.setattr(launch, "run_accelerate", lambda *args, **how: 0)
    code = cli.main(["launch", "r.yaml", "--gpus", "2", *given])
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines(keepends=True) if "looking at rows and rewards" not in line]
    assert (code == 0) == (lines == [])
    return "".join(lines)


def test_a_run_directory_in_use_is_refused_and_left_unlocked(recipe, capsys, monkeypatch):
    folder = recipe.parent / "runs" / "r"
    folder.mkdir(parents=True)
    assert launched(capsys, monkeypatch) == ""
    code = "import sys, pathlib; from posttrain.storage.lock import Lock;"
    code += f"lock = Lock(pathlib.Path({str(folder)!r}));"
    code += "print('locked', flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        assert f"another process (pid {other.pid}) is at work" in launched(capsys, monkeypatch)
        assert launched(capsys, monkeypatch, "--dry-run") == ""
    finally:
        other.communicate()
    for _ in range(2):
        assert launched(capsys, monkeypatch) == ""
    Lock(folder).release()


def test_another_recipe_in_the_run_directory_is_told_at_once(recipe, capsys, monkeypatch):
    assert "there is no run to resume" in launched(capsys, monkeypatch, "--resume")
    resolved = load_recipe("r.yaml", ["hybrid.steps=9"]).resolved()
    resolved["rollout"]["engine"] = "vllm"  # what `auto` was on the machine that trained
    (recipe.parent / "runs" / "r").mkdir(parents=True)
    write_recipe(recipe.parent / "runs" / "r" / "recipe.yaml", resolved)
    (recipe.parent / "runs" / "r" / "environment.json").write_text('{"processes": 2}')
    assert launched(capsys, monkeypatch, "hybrid.steps=8") == "", "no step was taken: it begins anew"
    (recipe.parent / "runs" / "r" / "steps.jsonl").write_text("{}\n")
    said = launched(capsys, monkeypatch, "hybrid.steps=8")
    assert "was started differently" in said
    assert "\n    hybrid.steps: 9 -> 8\n" in said
    assert "rollout.engine" not in said
    assert launched(capsys, monkeypatch, "hybrid.steps=9") == ""
    assert launched(capsys, monkeypatch, "hybrid.steps=8", "--accept-changes") == ""
    assert launched(capsys, monkeypatch, "hybrid.steps=8", "--restart") == ""


def test_a_run_directory_that_cannot_be_written(recipe, capsys, monkeypatch):
    (recipe.parent / "file").touch()
    said = launched(capsys, monkeypatch, "run.dir=file/run")
    assert f"the run directory cannot be written: {recipe.parent}/file is no folder" in said
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert f"{recipe.parent} is read-only" in launched(capsys, monkeypatch)


def test_what_zero_lacks_is_said_before_the_warm_up(recipe, capsys, monkeypatch):
    monkeypatch.setattr(launch, "find_spec", lambda name: True)
    given = ["launch", "r.yaml", "--gpus", "2", "--dry-run", "--config"]
    assert cli.main([*given, "zero3"]) == 2
    assert "hybrid.kl.sample (default): the KL to the starting policy under ZeRO-3" in capsys.readouterr().err
    assert cli.main([*given, "zero2"]) == 0
    assert cli.main([*given, "zero2", "hybrid.controller={name: static, mode: blend}"]) == 2
    assert "hybrid.controller.mode: blend, under DeepSpeed" in capsys.readouterr().err


def test_a_machine_without_a_gpu(recipe, capsys, monkeypatch):
    monkeypatch.setattr(launch, "visible_gpus", lambda: 0)
    assert cli.main(["launch", "r.yaml"]) == 2
    assert "--gpus: no GPU is visible" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_a_warning(recipe, capsys, monkeypatch):
    monkeypatch.setattr(launch, "run_accelerate", lambda *args, **how: 0)

    def said(*given: str) -> list[str]:
        assert cli.main(["launch", "r.yaml", *given]) == 0
        return capsys.readouterr().out.splitlines()

    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        given = ("--gpus", "2", "rollout.mode=server", f"rollout.server_base_url={url}")
        assert len(said(*given)) == 1
        server.shutdown()
    warning, _ = said(*given)
    assert warning.startswith(f"warning: {url} does not answer")


def test_quick_errors_load_no_torch(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE)
    command = [sys.executable, "-X", "importtime", "-m", "posttrain", "launch", "r.yaml", "--gpus", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert not imported & {"torch", "transformers", "trl", "accelerate"}


# ---- the end ----


@pytest.mark.parametrize(
    ("codes", "stopped_by", "expected"),
    [
        ([0, 0], signal.SIGTERM, 0),
        ([130, 130], signal.SIGINT, 130),
        ([0, 1], signal.SIGTERM, 1),
        ([0, None], signal.SIGTERM, 143),
        ([None, None], signal.SIGINT, 130),
        ([2], None, 2),
        ([-9], None, 137),
    ],
)
def test_exit_codes(codes, stopped_by, expected):
    assert exit_code(codes, stopped_by) == expected


def test_how_a_process_ended(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["posttrain", "launch", "r.yaml"])
    checkpoint = Path("run/checkpoints/hybrid/checkpoint-4")
    assert how_it_ended(-9, checkpoint) == (
        f"by SIGKILL (often the kernel's, out of memory: see dmesg); the same command goes on from {checkpoint}"
    )
    assert how_it_ended(-11, None) == "by SIGSEGV"
    assert how_it_ended(1, None) == "with exit code 1"
    monkeypatch.setattr(sys, "argv", ["posttrain", "launch", "r.yaml", "--restart"])
    assert how_it_ended(-11, checkpoint) == f"by SIGSEGV; the same command without --restart goes on from {checkpoint}"


def test_the_way_to_go_on_is_the_launch(monkeypatch):
    argv = ["/bin/posttrain", "launch", "r.yaml", "--gpus", "8", "--restart", "run.dir=a b"]
    again = resuming(argv[1:])
    assert again == "posttrain launch r.yaml --gpus 8 'run.dir=a b' --resume"
    monkeypatch.setenv(COMMAND, again)
    assert how_to_go_on() == again


def test_rows_and_rewards_are_looked_at_before_any_process_starts(recipe, capsys, monkeypatch):
    said = launched(capsys, monkeypatch, "rewards=[{path: absent.py}]")
    assert "absent.py" in said
