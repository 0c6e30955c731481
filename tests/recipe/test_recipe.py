from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from posttrain.controllers import SASR, Static
from posttrain.errors import ConfigError
from posttrain.evaluation.asked import asked
from posttrain.nearest import nearest
from posttrain.recipe.contradictions import contradictions
from posttrain.recipe.library_fields import SOURCES, library_fields
from posttrain.recipe.model_sections import LoraSection
from posttrain.recipe.recipe import Recipe, load_recipe
from posttrain.recipe.stage_sections import HybridSection, WarmupSection
from posttrain.tasks.knights_knaves import KnightsKnaves

SMALL = "model: some/model\ntask: knights_knaves\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text: str, *overrides: str) -> Recipe:
    Path("recipe.yaml").write_text(text)
    return load_recipe("recipe.yaml", overrides)


def problem(text: str, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(text, *overrides)
    return caught.value


def test_two_keys_make_a_recipe(folder: Path) -> None:
    recipe = load(SMALL)
    assert recipe.model.name == "some/model"
    assert recipe.task == KnightsKnaves()
    assert recipe.hybrid.controller == SASR()
    assert recipe.rewards == []
    assert recipe.run.dir == "runs/recipe"


def test_resolved_is_the_same_recipe_and_json(folder: Path) -> None:
    text = SMALL + "rewards: [{import: a.b:c, kwargs: {x: 1.0}}, {path: reward.py}]\nlora: {r: 4}\n"
    Path("reward.py").write_text("def score(completion): return 1.0\n")
    recipe = load(text + "hybrid: {controller: {name: static, sft_share: 0.25}}\n")
    assert Recipe.model_validate(recipe.resolved()).resolved() == recipe.resolved()
    assert recipe.resolved()["rewards"][0]["import"] == "a.b:c"
    assert recipe.hybrid.controller == Static(sft_share=0.25)


def test_shorthands(folder: Path) -> None:
    text = SMALL + "rewards: [format]\nhybrid: {controller: grpo_only, grpo: {scale_rewards: false}}\n"
    recipe = load(text + "run: {report_to: wandb}\n")
    assert recipe.rewards[0].name == "format"
    assert recipe.hybrid.controller.name == "grpo_only"
    assert recipe.hybrid.grpo.scale_rewards == "none"
    assert recipe.run.report_to == ["wandb"]


def test_another_controller_takes_no_keys_of_the_parents(folder: Path) -> None:
    Path("parent.yaml").write_text(SMALL + "hybrid: {steps: 7, controller: {name: sasr, gamma: 3.0}}\n")
    recipe = load("extends: parent.yaml\nhybrid: {controller: {name: static}}\n")
    assert recipe.hybrid.controller == Static()
    assert recipe.hybrid.steps == 7
    assert load("extends: parent.yaml\nhybrid: {controller: {kappa: 2}}\n").hybrid.controller == SASR(gamma=3, kappa=2)
    assert load("extends: parent.yaml\n", "hybrid.controller=static").hybrid.controller == Static()


def test_controller_without_a_name_is_the_default_one(folder: Path) -> None:
    recipe = load(SMALL, "hybrid.controller.gamma=2")
    assert recipe.hybrid.controller == SASR(gamma=2.0)
    assert recipe.origin("hybrid.controller.gamma") == "command line"
    assert recipe.origin("hybrid.controller.name") == "default"


def test_model_by_name_replaces_one_built_from_scratch(folder: Path) -> None:
    text = "model: {init: {layers: 2}, dtype: float32}\ntask: knights_knaves\n"
    assert load(text).model.init is not None
    assert load(text, "model=some/model").model.init is None
    assert load(SMALL, "model.dtype=bfloat16").model.name == "some/model"


def test_provenance_covers_every_key(folder: Path) -> None:
    Path("parent.yaml").write_text("hybrid:\n  steps: 5\n  kl: {sample: 0.5}\n")
    recipe = load("extends: parent.yaml\n" + SMALL + "hybrid: {kl: {sample: 0.1}}\n", "run.seed=3")
    origins = recipe.provenance()
    assert origins["model.name"] == "recipe.yaml:2"
    assert origins["hybrid.steps"] == "parent.yaml:2"
    assert origins["hybrid.kl.sample"] == "recipe.yaml:4"
    assert origins["run.seed"] == "command line"
    assert origins["warmup.steps"] == origins["run.dir"] == "default"
    assert set(origins) >= {"hybrid.grpo.num_generations", "evaluate.k.0", "task.people.0"}


def test_paths_start_at_the_file_that_says_them(folder: Path) -> None:
    Path("base").mkdir()
    Path("base/mine.py").write_text("")
    Path("other.py").write_text("")
    Path("base/parent.yaml").write_text("rewards: [{path: ./mine.py:score}]\n")
    inherited = load("extends: base/parent.yaml\n" + SMALL)
    assert inherited.rewards[0].path == f"{folder}/base/mine.py:score"
    typed = load("extends: base/parent.yaml\n" + SMALL, "rewards.0.path=other.py:score")
    assert typed.rewards[0].path == f"{folder}/other.py:score"


def test_task_files_start_at_the_recipe(folder: Path) -> None:
    Path("sub").mkdir()
    Path("sub/r.yaml").write_text("model: m\ntask: {name: knights_knaves, path: data/x.jsonl}\n")
    assert load_recipe("sub/r.yaml").task.path == [f"{folder}/sub/data/x.jsonl"]


@pytest.mark.parametrize(
    ("text", "where", "seen", "fix"),
    [
        ("hybird: {steps: 1}", "recipe.yaml:3: hybird", "unknown key 'hybird'", "did you mean hybrid?"),
        (
            "hybrid:\n  grpo: {num_generation: 4}",
            "recipe.yaml:4: hybrid.grpo.num_generation",
            "unknown key 'num_generation'",
            "did you mean num_generations?",
        ),
        (
            "hybrid: {num_generations: 4}",
            "recipe.yaml:3: hybrid.num_generations",
            "unknown key 'num_generations'",
            "it belongs at hybrid.grpo.num_generations",
        ),
        (
            "warmup: {bf16: true}",
            "recipe.yaml:3: warmup.bf16",
            "unknown key 'bf16'",
            "pass it on as warmup.args.bf16",
        ),
        ("output_dir: x", "recipe.yaml:3: output_dir", "unknown key 'output_dir'", "that is run.dir here"),
        ("warmup: {lr: 1}", "recipe.yaml:3: warmup.lr", "unknown key 'lr'", "did you mean learning_rate?"),
        (
            "hybrid: {controller: {name: static, gamma: 1}}",
            "recipe.yaml:3: hybrid.controller.gamma",
            "unknown key 'gamma'",
            "of its kinds only sasr has it",
        ),
        (
            "hybrid: {controller: {name: sasl}}",
            "recipe.yaml:3: hybrid.controller.name",
            "'sasl'",
            "did you mean sasr?",
        ),
        ("rewards:\n- format\n- {weight: 2}", "recipe.yaml:5: rewards.1", "the reward has no source", None),
        ("rewards: [{name: a, import: b:c}]", "recipe.yaml:3: rewards.0", "the reward has name and import", None),
        ("warmup: {steps: '10'}", "recipe.yaml:3: warmup.steps", "'10'", "write 10 without quotes"),
        ("warmup: {steps: 1e3}", "recipe.yaml:3: warmup.steps", "1000.0", "write 1000"),
        ("warmup: {steps: true}", "recipe.yaml:3: warmup.steps", "True", None),
        ("warmup: {steps: -1}", "recipe.yaml:3: warmup.steps", "-1", None),
        ("warmup: {save_steps: 0}", "recipe.yaml:3: warmup.save_steps", "0", None),
        ("warmup: {learning_rate: .nan}", "recipe.yaml:3: warmup.learning_rate", "nan", None),
        ("warmup: 3", "recipe.yaml:3: warmup", "3", None),
        ("evaluate: {at_start: no}", "recipe.yaml:3: evaluate.at_start", "'no'", "write false"),
        ("evaluate: {k: [0]}", "recipe.yaml:3: evaluate.k.0", "0", None),
        ("run: {report_to: [trakio]}", "recipe.yaml:3: run.report_to.0", "'trakio'", "did you mean trackio?"),
        ("rollout: {engine: vlm}", "recipe.yaml:3: rollout.engine", "'vlm'", "did you mean vllm?"),
        ("rollout: {mode: server}", "recipe.yaml:3: rollout", "mode: server with server_base_url: None", None),
        (
            "rollout: {server_base_url: 'http://localhost:8000'}",
            "recipe.yaml:3: rollout",
            "mode: colocate with server_base_url: http://localhost:8000",
            None,
        ),
        (
            "rollout: {engine: transformers, mode: server, server_base_url: 'http://localhost:8000'}",
            "recipe.yaml:3: rollout",
            "mode: server with engine: transformers",
            "set engine to vllm",
        ),
        ("scoring: {max_error_rate: 2}", "recipe.yaml:3: scoring.max_error_rate", "2", None),
        ("lora: {alpha: 3}", "recipe.yaml:3: lora.alpha", "unknown key 'alpha'", "did you mean lora_alpha?"),
        (
            "hybrid: {args: {optin: x}}",
            "recipe.yaml:3: hybrid.args.optin",
            "trl.GRPOConfig has no field 'optin'",
            "did you mean optim?",
        ),
        (
            "hybrid: {args: {temperature: 2}}",
            "recipe.yaml:3: hybrid.args.temperature",
            "temperature in args",
            "it is decided by temperature, outside args",
        ),
        ("hybrid: {args: {seed: 2}}", "recipe.yaml:3: hybrid.args.seed", "seed in args", "it is decided by run.seed"),
        (
            "hybrid: {args: {enable_jit_checkpoint: true}}",
            "recipe.yaml:3: hybrid.args.enable_jit_checkpoint",
            "enable_jit_checkpoint in args",
            "it is decided by the toolkit itself: a stop saves",
        ),
        *(
            (
                f"{stage}: {{args: {{save_only_model: true}}}}",
                f"recipe.yaml:3: {stage}.args.save_only_model",
                "save_only_model in args: a run that is resumed would start the optimizer and the learning rate's "
                "schedule anew",
                "leave it out",
            )
            for stage in ("warmup", "hybrid")
        ),
        ("lora: {args: {rnk: 2}}", "recipe.yaml:3: lora.args.rnk", "peft.LoraConfig has no field 'rnk'", None),
    ],
)
def test_one_wrong_key(folder: Path, text: str, where: str, seen: str, fix: str | None) -> None:
    error = problem(SMALL + text + "\n")
    assert error.seen == seen
    assert error.where == where
    assert fix is None or error.fix == fix
    assert error.expected or error.fix


def test_wrong_values_inside_the_task(folder: Path) -> None:
    error = problem("model: m\ntask:\n  name: knights_knaves\n  people: [2, 9]\n")
    assert error.where == "recipe.yaml:4: task.people"
    error = problem("model: m\ntask:\n  name: knights_knaves\n  names: 2\n")
    assert error.where == "recipe.yaml:4: task.names"
    error = problem("model: m\ntask: knight_knaves\n")
    assert error.where == "recipe.yaml:2: task.name"


def test_wrong_heads(folder: Path) -> None:
    error = problem("model: {init: {hidden_size: 100, heads: 8}}\ntask: knights_knaves\n")
    assert error.where == "recipe.yaml:1: model.init"
    assert error.fix == "set hidden_size to 96 or 112"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("task: knights_knaves\n", "'model' is missing"),
        ("model: m\n", "'task' is missing"),
        ("model: {dtype: auto}\ntask: knights_knaves\n", "the model has neither name nor gguf nor init"),
    ],
)
def test_missing_keys(folder: Path, text: str, seen: str) -> None:
    error = problem(text)
    assert error.seen == seen
    assert error.where is not None
    assert error.where.startswith("recipe.yaml")


def test_wrong_override_says_command_line(folder: Path) -> None:
    error = problem(SMALL, "hybrid.stpes=3")
    assert error.where == "command line: hybrid.stpes"
    assert error.fix == "did you mean steps?"


def test_all_problems_at_once_in_the_order_of_lines(folder: Path) -> None:
    error = problem(
        SMALL + "run: {sed: 1}\nhybrid: {steps: x}\nrewards: [{path: absent.py:score}]\n", "warmup.steps=-1"
    )
    text = str(error)
    assert error.seen.startswith("recipe.yaml has 4 problems")
    places = ["recipe.yaml:3: run.sed", "recipe.yaml:4: hybrid.steps", "recipe.yaml:5: rewards.0.path", "warmup.steps"]
    assert all(place in text for place in places)
    assert text.index(places[0]) < text.index(places[1])


def test_absent_reward_file_names_its_neighbour(folder: Path) -> None:
    Path("my_reward.py").write_text("")
    error = problem(SMALL + "rewards:\n- path: my_rewards.py:score\n")
    assert error.where == "recipe.yaml:4: rewards.0.path"
    assert error.fix == "did you mean my_reward.py?"


def test_python_recipes_are_checked_too() -> None:
    assert Recipe(model="m", task=KnightsKnaves()).model.name == "m"  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        Recipe(model="m", task=KnightsKnaves(), hybird={})  # type: ignore[arg-type, call-arg]


def test_a_task_by_itself() -> None:
    found = asked("some/model", "knights_knaves", ["task.people=2-3", "eval=7"]).recipe
    assert (found.task.people, found.task.eval, found.model.name) == ([2, 3], 7, "some/model")
    with pytest.raises(ConfigError, match="did you mean knights_knaves") as caught:
        asked("some/model", "knights_knave", [])
    assert caught.value.where == "--task"
    with pytest.raises(ConfigError, match="did you mean people"):
        asked("some/model", "knights_knaves", ["task.peple=2"])


@pytest.mark.parametrize(
    ("name", "legal", "expected"),
    [
        ("learning_rat", ["learning_rate", "lora_r"], ["learning_rate"]),
        ("lr", ["lora", "learning_rate"], ["learning_rate"]),
        ("heads", ["num_attention_heads", "hidden_size"], ["num_attention_heads"]),
        ("num-generations", ["num_generations"], ["num_generations"]),
        ("xyz", ["learning_rate", "steps"], []),
    ],
)
def test_nearest(name: str, legal: list[str], expected: list[str]) -> None:
    assert nearest(name, legal) == expected


def test_what_is_passed_on_has_fields_there() -> None:
    warmup, hybrid = WarmupSection(save_steps=None), HybridSection()
    assert set(warmup.trl_kwargs()) <= library_fields("trl.SFTConfig")
    assert set(hybrid.trl_kwargs()) <= library_fields("trl.GRPOConfig")
    assert set(LoraSection().peft_kwargs()) <= library_fields("peft.LoraConfig")
    assert HybridSection(args={"optim": "sgd"}).trl_kwargs()["optim"] == "sgd"


def test_library_fields_are_the_libraries_own() -> None:
    import dataclasses

    import peft
    import trl

    real = {f"trl.{config.__name__}": config for config in (trl.SFTConfig, trl.GRPOConfig)}
    real |= {f"peft.{config.__name__}": config for config in (peft.LoraConfig, peft.AdaLoraConfig)}
    assert set(real) == set(SOURCES)
    for name, config in real.items():
        assert {field.name for field in dataclasses.fields(config) if field.init} <= library_fields(name), name


def test_loading_a_recipe_imports_nothing_heavy(folder: Path) -> None:
    Path("recipe.yaml").write_text(SMALL + "hybrid: {args: {optim: sgd}}\n")
    code = (
        "import sys, posttrain.cli; from posttrain.recipe.recipe import load_recipe\n"
        "from posttrain.recipe.contradictions import check\n"
        "check(load_recipe('recipe.yaml'))\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & set(sys.argv[1:])))"
    )
    heavy = ["torch", "transformers", "trl", "peft", "accelerate", "datasets", "pyarrow"]
    done = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("model", ["gguf: w.gguf", "name: folder/w.GGUF"])
def test_a_gguf_file_in_4_bits_is_refused(folder: Path, model: str) -> None:
    error = problem(f"model: {{{model}, load_in_4bit: true}}\ntask: knights_knaves\nlora: {{r: 2}}\n")
    assert "GGUF file: its weights were rounded once" in str(error)


def test_4_bits_need_an_adapter(folder: Path) -> None:
    text = "model: {name: some/model, load_in_4bit: true}\ntask: knights_knaves\n"
    (found,) = [each for each in contradictions(load(text)) if "load_in_4bit" in (each.where or "")]
    assert "no adapter: weights in 4 bits cannot train" in found.seen
    assert contradictions(load(text + "lora: {r: 2}\n")) == []
    Path("adapter").mkdir()
    Path("adapter/adapter_config.json").write_text("{}")
    assert contradictions(load(text, "model.name=./adapter")) == []
