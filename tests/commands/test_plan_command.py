"""`posttrain plan` as it is typed: on the recipes that ship, on what is missing, on what is wrong."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import pre_tokenizers
from transformers import Qwen2Config

from posttrain.cli import main, parse
from posttrain.models.load import train_tokenizer
from posttrain.recipe.recipe import load_recipe
from posttrain.rundir.facts import write_recipe
from tests.gguf_files import byte_level_bpe, tiny_llama, write_gguf

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
POINTS = ROOT / "benchmarks" / "results" / "scaling.json"
KEYS = {
    "status", "recipe", "machine", "settings", "data", "step", "amounts", "model", "lengths", "samples", "memory",
    "time", "launch", "rates", "findings", "missing",
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path_factory):
    """As HF_HUB_OFFLINE would have it, had it been set before the libraries were loaded; and no run of before."""
    import datasets
    import huggingface_hub

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path_factory.mktemp("work"))


@pytest.fixture
def planned(capsys):
    """Runs `posttrain plan ... --json`; gives the exit status and what was printed."""

    def run(*words: object) -> tuple[int, dict[str, Any]]:
        status = main(["plan", *map(str, words), "--json"])
        return status, json.loads(capsys.readouterr().out)

    return run


SUMS = "".join(
    json.dumps({"question": f"{a} + {b}?", "answer": str(a + b), "solution": f"\\boxed{{{a + b}}}"}) + "\n"
    for a in range(10)
    for b in range(10)
)
RECIPE = """
extends: parent.yaml
task: {name: math, path: sums.jsonl, instruction: "", train: 40, demonstrations: 20, eval: 20}
hybrid:
  steps: 8
  per_device_train_batch_size: 8
  grpo: {num_generations: 4, max_completion_length: 12}
"""
PARENT = """
model: {init: {hidden_size: 16, layers: 2, heads: 2, max_position_embeddings: 64}}
warmup: {steps: 5, per_device_train_batch_size: 4}
rollout: {engine: transformers}
scoring: {workers: 0}
run: {device: cpu}
"""


@pytest.fixture
def recipe(tmp_path) -> Path:
    for name, text in (("sums.jsonl", SUMS), ("recipe.yaml", RECIPE), ("parent.yaml", PARENT)):
        (tmp_path / name).write_text(text)
    return tmp_path / "recipe.yaml"


def kinds(plan: dict[str, Any], level: str) -> list[str]:
    return [each["kind"] for each in plan["findings"] if each["level"] == level]


# ---- the recipes that ship ----


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("quickstart.yaml", []),
        ("json_structure-tiny.yaml", ["task.train=400"]),
        ("custom_reward/recipe.yaml", []),
        ("quickstart-vllm.yaml", ["task.train=400"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_recipe_that_needs_no_network_is_planned_whole(planned, name, overrides) -> None:
    status, plan = planned(RECIPES / name, *overrides)
    assert (status, plan["missing"], kinds(plan, "problem"), set(plan)) == (0, [], [], KEYS)
    assert plan["data"]["counted"]
    assert plan["memory"]["fits"]
    if name == "quickstart-vllm.yaml":
        assert plan["time"]["phases"]["grpo"]["source"] == "unknown"  # vLLM's sampling was not measured
    else:
        assert plan["time"]["begun"] > 0
    assert len(plan["samples"]) == 3
    assert all(plan["lengths"][name]["over"] == 0 for name in ("prompts", "demonstrations", "completions"))


HUB = sorted(
    path for path in RECIPES.rglob("*.yaml")
    if not {"base", "accelerate"} & set(path.parts) and ("qwen" in path.name or path.parent.name == "protocols")
)  # fmt: skip


@pytest.mark.parametrize("path", HUB, ids=lambda path: path.stem)
def test_without_the_hub_what_is_missing_is_named_and_the_rest_is_told(planned, path) -> None:
    eight = path.stem.endswith("-8gpu")
    fewer = [] if path.stem.startswith(("gsm8k", "sasr", "warm-up-first-2")) else ["task.train=40", "task.eval=20"]
    if path.stem == "warm-up-first-1":
        fewer = ["task.eval=20", "task.demonstrations=40"]
    status, plan = planned(path, *fewer, *(["--gpus", 8] if eight else []))
    assert (status, plan["status"], kinds(plan, "problem")) == (0, "warning", [])
    assert set(plan) == KEYS
    from_hub = [] if fewer else ["data"]
    assert [each["what"] for each in plan["missing"]] == [*from_hub, "model"]
    assert all(each["why"] and each["without"] for each in plan["missing"])
    assert plan["data"]["counted"] is (not from_hub)
    assert plan["memory"] is plan["lengths"] is plan["time"]["begun"] is None
    assert plan["amounts"]["warmup_steps"] + plan["amounts"]["hybrid_steps"] > 0
    assert plan["machine"]["processes"] == (8 if eight else 1)
    assert parse(shlex.split(plan["launch"]["command"])[1:]).recipe == str(path)


# ---- where values come from, and what they come to ----


def test_a_value_from_each_of_four_sources(planned, recipe) -> None:
    _, plan = planned(recipe, "run.seed=7", "hybrid.steps=9")
    found = {each["key"]: (each["value"], each["source"], Path(each["at"]).name) for each in plan["settings"]}
    assert found["evaluate.samples"] == (1, "default", "")
    assert found["warmup.steps"] == (5, "parent", "parent.yaml:3")
    assert found["hybrid.grpo.num_generations"] == (4, "recipe", "recipe.yaml:7")
    assert found["hybrid.steps"] == (9, "command line", "")
    assert found["run.seed"] == (7, "command line", "")
    assert found["hybrid.args"] == ({}, "default", "")


def test_answers_that_the_reward_cannot_read_are_told(planned, recipe) -> None:
    with (recipe.parent / "sums.jsonl").open("a") as file:
        file.write("".join(json.dumps({"question": f"Why {n}?", "answer": "see the figure"}) + "\n" for n in range(3)))
    _, plan = planned(recipe)
    counts, told = plan["data"]["notes"]
    assert counts.startswith("103 rows: 3 with an unreadable answer (3 sentence), 20 held out")
    assert told.startswith("3 of 103 rows are left out: math_answer cannot read their answer\n  3 sentence: ")
    (recipe.parent / "mine.py").write_text("def score(completion, *, answer):\n    return 1.0\n")
    _, plan = planned(recipe, f"rewards=[{{path: '{recipe.parent / 'mine.py'}'}}]")
    assert "3 of 103 rows have an answer that math_answer cannot read; they are kept" in plan["data"]["notes"][1]


def test_numbers_of_a_small_recipe(planned, recipe) -> None:
    status, plan = planned(recipe)
    assert status == 0
    notes = ["100 rows: 20 held out, 40 prompts, 20 demonstrations, 20 not asked for"]
    leaks = plan["data"].pop("leaks")
    assert (leaks["contaminated"], leaks["of_rows"], leaks["of_trained"]) == (False, 20, 60)
    assert plan["data"] == {
        "train": 40,
        "demonstrations": 20,
        "eval": 20,
        "counted": True,
        "notes": notes,
        "paired": None,
    }
    assert plan["step"]["completions_per_step"] == 8
    much = plan["amounts"]
    assert (much["warmup_demonstrations"], much["warmup_passes"]) == (20, 1.0)
    assert much["sft_steps"] == {"least": 0, "most": 8, "begun": 4.0}
    assert much["prompt_passes"] == [0.0, 8 * 2 / 40, 4 * 2 / 40]
    assert (much["p_at_start"], much["evaluations"], much["evaluation_completions"]) == (0.5, 3, 20)
    parts, trained = plan["memory"]["moments"]["warmup"], plan["model"]["parameters"]
    assert (parts["weights"], parts["gradients"], parts["optimizer"]) == (4 * trained, 4 * trained, 8 * trained)
    assert plan["memory"]["moments"]["grpo"]["KL snapshot"] == 4 * trained
    assert plan["launch"] == {"command": f"posttrain run {recipe}", "accelerate": "", "server": ""}
    assert not list(Path.cwd().iterdir())  # nothing is written


def test_several_processes(planned, recipe) -> None:
    _, plan = planned(recipe, "--cpu", "--processes", 2)
    assert plan["step"]["completions_per_step"] == 16
    assert plan["memory"]["moments"]["grpo"]["gradient buckets"] == 4 * plan["model"]["parameters"]
    assert "shared by 2" in plan["memory"]["of"]
    words = shlex.split(plan["launch"]["accelerate"])
    assert "python" in words
    assert sys.executable not in words  # to be typed elsewhere
    assert words[words.index("--num_processes") + 1] == "2"
    assert "ACCELERATE_USE_CPU=true" in words
    args = parse(shlex.split(plan["launch"]["command"])[1:])
    assert (args.cpu, args.processes) == (True, 2)


# ---- what is wrong ----


def test_contradictions_are_listed_all_at_once(planned, recipe) -> None:
    status, plan = planned(recipe, "hybrid.grpo.num_generations=3", "warmup.norm_window=9", "evaluate.k=[4]")
    assert (status, plan["status"]) == (1, "problem")
    problems = [each for each in plan["findings"] if each["level"] == "problem"]
    assert [each["kind"] for each in problems] == ["contradiction"] * 3
    said = " ".join(each["where"] for each in problems)
    assert all(key in said for key in ("num_generations", "norm_window", "evaluate.k"))
    assert plan["time"]["begun"] > 0  # the rest is told all the same


@pytest.mark.parametrize(
    ("override", "kind"),
    [
        ("task.path=none.jsonl", "data"),
        ("task.eval=0", "data"),
        ("rewards=[{import: 'no_such_module:score'}]", "rewards"),
        ("model={name: ./, trust_remote_code: false}", "model"),
        ("lora.target_modules=[nothing]", "model"),
    ],
)
def test_what_the_run_would_refuse(planned, recipe, override, kind) -> None:
    status, plan = planned(recipe, override)
    assert status == 1
    assert kinds(plan, "problem") == [kind]
    assert plan["amounts"]["hybrid_steps"] == 8


def test_a_model_that_is_not_there_yet(planned, recipe) -> None:
    status, plan = planned(recipe, "model=runs/first/model")
    assert (status, [each["what"] for each in plan["missing"]]) == (0, ["model"])


def test_likely_mistakes_end_with_0(planned, recipe) -> None:
    status, plan = planned(recipe, "hybrid.grpo.max_completion_length=3")
    assert (status, plan["status"]) == (0, "warning")
    assert kinds(plan, "warning") == ["truncated_completions", "few_held_out"]
    assert plan["lengths"]["completions"]["over"] == 1.0


def test_too_little_memory_names_settings_that_need_less(planned, recipe, monkeypatch) -> None:
    monkeypatch.setattr("posttrain.planning.machine.memory", lambda: {"total": 20 << 20, "available": 0})
    status, plan = planned(recipe)
    found = next(each for each in plan["findings"] if each["kind"] == "memory")
    assert (status, plan["memory"]["fits"], found["level"]) == (0, False, "warning")
    assert "hybrid.per_device_train_batch_size=4 hybrid.gradient_accumulation_steps=2" in found["advice"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--processes", "2"], "--processes without --cpu"),
        (["--gpus", "0"], "at least 1"),
        (["--gpus", "2", "--config", "fsdp3"], "fsdp3"),
        (["--measured", "none.json"], "none.json"),
    ],
)
def test_arguments_that_mean_nothing(capsys, recipe, words, said) -> None:
    assert main(["plan", str(recipe), *words]) == 2
    assert said in capsys.readouterr().err


def test_a_run_that_is_there_already(planned, recipe) -> None:
    folder = Path("runs/recipe")
    folder.mkdir(parents=True)
    write_recipe(folder / "recipe.yaml", load_recipe(recipe).resolved())
    line = {"stage": "warmup", "step": 1, "mix": {"sft": 1.0, "grpo": 0.0}, "seconds": {"total": 2.0}}
    (folder / "steps.jsonl").write_text(json.dumps(line) + "\n")
    found = {}
    for override in ("run.log_every=1", "hybrid.steps=20", "warmup.per_device_train_batch_size=2"):
        _, plan = planned(recipe, override)
        found[override] = (plan["time"]["phases"]["warmup"]["source"], "other_run" in kinds(plan, "warning"))
        assert plan["time"]["phases"]["sft"]["source"] == "model"
    assert list(found.values()) == [("recorded", False), ("recorded", True), ("model", True)]


def test_an_engine_that_is_not_installed(planned, recipe, monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "vllm" else find(name, *more))
    _, plan = planned(recipe, "rollout.engine=vllm")
    assert "vllm_missing" in kinds(plan, "warning")
    _, plan = planned(recipe)
    assert "vllm_missing" not in kinds(plan, "warning")


# ---- models ----


def qwen(folder: Path) -> Path:
    """A folder of a model that is too large for this machine, without its weights."""
    config = Qwen2Config(
        vocab_size=600, hidden_size=2048, intermediate_size=8192, num_hidden_layers=24, num_attention_heads=16,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    config.save_pretrained(folder)
    tokenizer = train_tokenizer([SUMS, "user assistant"], 300)
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n"
        "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    tokenizer.save_pretrained(folder)
    return folder


def test_a_gpu_that_is_not_here(planned, recipe, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("posttrain.planning.machine.driver", lambda: None)
    words = (recipe, f"model={qwen(tmp_path / 'qwen')}", "lora.r=8", "run.device=auto", "--gpus", 1)
    status, plan = planned(*words)
    model, memory = plan["model"], plan["memory"]
    assert status == 0
    assert model["parameters"] == pytest.approx(1.46e9, rel=0.02)
    assert model["trained"] == 24 * 8 * (2 * (2048 + 2048) + 2 * (2048 + 256) + 3 * (2048 + 8192))
    parts = memory["moments"]["grpo"]
    assert parts["weights"] == 2 * model["parameters"] + 4 * model["trained"]
    assert (memory["fits"], memory["smallest_gpu"]) == (None, 16)
    assert plan["time"]["begun"] is None  # no coefficients of a GPU ship
    assert plan["samples"][0]["prompt"].startswith("[user] ")
    assert plan["samples"][0]["prompt"].endswith("?\n[assistant] ")
    _, plan = planned(*words, "--measured", POINTS)
    assert plan["time"]["begun"] > 0
    assert plan["time"]["machine"]


def test_visible_gpus_are_what_it_must_fit(planned, recipe, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpus = [{"name": "one", "total_mib": 6 << 10, "free_mib": 0}]
    monkeypatch.setattr("posttrain.planning.machine.driver", lambda: {"gpus": gpus, "driver": "1"})
    model = qwen(tmp_path / "qwen")
    _, plan = planned(recipe, f"model={model}", "run.device=auto", "--gpus", 2)
    assert (plan["memory"]["fits"], plan["memory"]["available"]) == (False, 6 << 30)
    assert {"gpus", "memory"} <= set(kinds(plan, "warning"))
    _, plan = planned(recipe, f"model={model}", "run.device=auto", "lora.r=8", "--gpus", 1)
    assert plan["memory"]["fits"]
    assert not {"gpus", "memory"} & set(kinds(plan, "warning"))


def test_the_header_of_a_gguf_file(planned, recipe, tmp_path) -> None:
    tokenizer = byte_level_bpe(pre_tokenizers.ByteLevel(add_prefix_space=False))
    write_gguf(tmp_path / "model.gguf", tokenizer, tiny_llama(tokenizer.get_vocab_size()), pre="gpt-2")
    _, plan = planned(recipe, f"model={tmp_path / 'model.gguf'}")
    assert plan["missing"] == []
    assert plan["model"]["kind"] == "llama"
    assert plan["model"]["parameters"] == tiny_llama(tokenizer.get_vocab_size()).num_parameters()
    assert plan["memory"]["fits"]


# ---- how it is shown ----


def test_text_of_rows_is_shown_as_text(capsys, recipe) -> None:
    rows = SUMS.replace('"solution": "', '"solution": "[bold]\\u001b[31m\\u202e\\u0007')
    (recipe.parent / "sums.jsonl").write_text(rows)
    assert main(["plan", str(recipe)]) == 0
    out = capsys.readouterr().out
    assert "[bold]" in out
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", out)


def test_what_is_said(capsys, recipe) -> None:
    assert main(["plan", str(recipe)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for text in (
        "warm-up: 5 SFT steps of 4 demonstrations: 20 rows, 1 passes over them",
        "p begins at 0.5 (1 / (1 + gamma), gamma 1) and follows what training shows, so that only bounds are known",
        "SFT steps: 0 to 8 (4 if p stayed), of 4 demonstrations: 0 to 1.6 passes over the demonstrations",
        "GRPO steps: 0 to 8 (4 if p stayed), of 2 new prompts and 8 completions (4 a prompt)",
        "within 31 % there",
        "fits this machine's memory",
        "defaults: --all shows them",
        "planned for 1 process on the CPU; --cpu --processes N plans for N",
        "groups of 4: more than half have something to learn from where the policy solves",
        "by how many of the hybrid steps are SFT and how long completions become; about",
        f"To start it posttrain run {recipe}",
    ):
        assert text in said
    assert "save_completions_every" not in said
    assert main(["plan", str(recipe), "--all"]) == 0
    assert "save_completions_every" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [None, 60, 300])
def test_settings_at_any_width(capsys, recipe, monkeypatch, columns) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["plan", str(recipe), "task.instruction=" + "why " * 14]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = next(line for line in lines if line.split()[:1] == ["per_device_train_batch_size"])
    assert re.search(r"/parent\.yaml:3\b", found)  # whole, on the line of its key
    value = next(line for line in lines if line.split()[:1] == ["instruction"])
    assert ("why " * 13 in value) is (columns == 300)  # else it goes on below
    longest = max(len(line.rstrip()) for line in lines if line.startswith(("  warm-up: ", "  counted: ", "  Python ")))
    assert longest <= (columns or 120)
    assert columns == 60 or longest > 80


def test_what_stops_a_run_is_said(capsys, recipe) -> None:
    assert main(["plan", str(recipe), "model=runs/first/model"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "token counts and truncation (a run here would stop at this)" in out
    assert "To start it" in out
    assert main(["plan", str(recipe), "hybrid.grpo.num_generations=3"]) == 1
    out = capsys.readouterr().out
    assert out.rstrip().endswith("It would be refused: see the problems above")
    assert "To start it" not in out
    assert "posttrain run" not in out


def test_several_processes_in_words(capsys, recipe) -> None:
    assert main(["plan", str(recipe), "--cpu", "--processes", "2"]) == 0
    out = capsys.readouterr().out
    assert "planned for 2 processes on the CPU (ddp)" in out
    commands = out[out.index("To start it") :].splitlines()[1:]
    assert commands[0].startswith("  posttrain launch ")
    assert commands[1].startswith("  which runs: ")
    assert "--num_processes 2" in commands[1]


def test_a_long_demonstration_is_not_taken_for_a_truncated_one(capsys, recipe) -> None:
    (recipe.parent / "sums.jsonl").write_text(SUMS.replace('"solution": "', '"solution": "' + "so " * 600))
    assert main(["plan", str(recipe)]) == 0
    out = capsys.readouterr().out
    assert out.count("(shown up to here)") == 3
    assert "…" not in out[out.index("Row 1") :]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no GPU is visible: this plan is for a GPU; `posttrain run` here would train on the CPU"),
        (["--gpus", "8"], "no GPU is visible: this plan is for 8 GPUs; `posttrain launch` here would refuse to start"),
    ],
)
def test_without_a_gpu_it_is_said_first(capsys, recipe, tmp_path, monkeypatch, words, said) -> None:
    monkeypatch.setattr("posttrain.planning.machine.driver", lambda: None)
    monkeypatch.setattr("posttrain.planning.machine.visible_gpus", lambda: 0)
    plan = ["plan", str(recipe), f"model={qwen(tmp_path / 'qwen')}", "run.device=auto", *words]
    assert main(plan) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert said in out
    assert out.index(said) < out.index("few_held_out" if "few_held_out" in out else "held-out rows:")
    assert "this GPU" not in out
    assert "the GPU that it is for is not in the cost model" in out
    assert ("planned for 8 processes, a GPU each (ddp)" if words else "1 process on a GPU; --gpus N plans for N") in out
    # One that torch sees, and nvidia-smi does not tell of
    monkeypatch.setattr("posttrain.planning.machine.visible_gpus", lambda: 8)
    assert main(plan) == 0
    assert "no GPU is visible" not in capsys.readouterr().out


def test_the_folder_of_a_run_is_no_recipe(capsys, recipe) -> None:
    folder = Path("runs/recipe")
    folder.mkdir(parents=True)
    write_recipe(folder / "recipe.yaml", load_recipe(recipe).resolved())
    for name, expected in (
        (
            "runs/recipe",
            "error: runs/recipe is a folder\n  expected: a YAML file\n  fix: did you mean runs/recipe/recipe.yaml?",
        ),
        ("runs/none.yaml", "error: runs/none.yaml does not exist\n"),
    ):
        assert main(["plan", name]) == 2
        assert expected in capsys.readouterr().err


def test_help_loads_no_torch() -> None:
    code = (
        "import sys\nfrom posttrain.cli import main\n"
        "try:\n    main(['plan', '--help'])\nexcept SystemExit: pass\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "without loading weights" in " ".join(done.stdout.split())


# ---- rows that will be padded ----


def test_rows_that_will_be_padded_are_said_and_planned_for(planned, recipe, capsys) -> None:
    _, packed = planned(recipe)
    assert packed["model"]["padded"] == {}
    assert "padded" not in kinds(packed, "note")
    status, padded = planned(recipe, "model.attn_implementation=flash_attention_2")
    assert status == 0
    why = padded["model"]["padded"]
    assert set(why) == {"warmup", "sft", "grpo"}
    assert all(said.startswith("attention flash_attention_2; packing stands in for sdpa") for said in why.values())
    found = next(each for each in padded["findings"] if each["kind"] == "padded")
    assert "rows of the warm-up, SFT half and GRPO half will be padded, not packed: attention" in found["evidence"]
    for phase in ("warmup", "sft", "grpo"):
        assert padded["time"]["phases"][phase]["seconds"] > packed["time"]["phases"][phase]["seconds"], phase
        assert padded["memory"]["moments"][phase]["activations"] > packed["memory"]["moments"][phase]["activations"]
    main(["plan", str(recipe), "model.attn_implementation=flash_attention_2"])
    said = " ".join(capsys.readouterr().out.split())
    assert "are padded, not packed: attention flash_attention_2" in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["hybrid.packed=false"], {"sft": "packed: false", "grpo": "packed: false"}),
        (["warmup.args={label_smoothing_factor: 0.1}", "hybrid.controller=static"], {"warmup": "label_smoothing"}),
        (["hybrid.args={torch_compile: true}", "hybrid.controller=grpo_only"], {"grpo": "torch_compile: compiled"}),
        (["lora={r: 4, lora_dropout: 0.1}", "hybrid.args={disable_dropout: true}"], {"warmup": "dropout"}),
    ],
    ids=["asked for", "another loss", "compiled", "dropout in one stage"],
)  # fmt: skip
def test_each_stage_is_padded_for_its_own_reason(planned, recipe, words, expected) -> None:
    _, plan = planned(recipe, *words)
    padded = plan["model"]["padded"]
    assert set(padded) == set(expected)
    assert all(padded[moment].startswith(why) for moment, why in expected.items())
    told = [each for each in plan["findings"] if each["kind"] == "padded"]
    assert bool(told) == ("packed: false" not in expected.values())
