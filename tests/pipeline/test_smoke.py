"""`posttrain run --smoke`: what passes it has been through all of a run, and what would fail later fails in it."""

from __future__ import annotations

import json
import resource
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

from posttrain.cli import main
from posttrain.errors import ConfigError, DataError
from posttrain.planning.smoke.checks import check_rows
from posttrain.planning.smoke.model import shrunk
from posttrain.planning.smoke.recipe import few, only, scaled
from posttrain.planning.smoke.smoke import smoke_folder, stops
from posttrain.recipe.contradictions import contradictions
from posttrain.recipe.recipe import Recipe, load_recipe
from posttrain.tasks import TaskData
from tests.gguf_files import TEMPLATE, byte_level_bpe
from tests.pipeline.runs import forked, lines

RECIPES = Path(__file__).parents[2] / "recipes"
NOT_RECIPES = ("accelerate", "base", "studies")
SHIPPED = [path for path in sorted(RECIPES.rglob("*.yaml")) if path.parent.name not in NOT_RECIPES]
PROBLEMS = [
    {"question": f"Ann has {a} eggs and gets {b} more. How many?", "answer": f"{a} + {b} = {a + b}\n#### {a + b}"}
    for a in range(6)
    for b in range(5)
]


def model_folder(folder: Path, template: str | None = TEMPLATE) -> Path:
    """Configuration and tokenizer as a hub model's cache has them: real sizes, no weights."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level_bpe(pre_tokenizers.ByteLevel(add_prefix_space=False), 300),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    Qwen2Config(
        vocab_size=320, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True, eos_token_id=2,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def shipped(folder: Path, *overrides: str, template: str | None = TEMPLATE, rows: Sequence[dict] = PROBLEMS):
    """A recipe for GPUs with a model of the hub, of which the configuration and the tokenizer are here."""
    model_folder(folder / "qwen", template)
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return forked(
        folder, "run", str(RECIPES / "gsm8k-qwen2.5-0.5b.yaml"), "--smoke", "model=qwen", "task.dataset=null",
        "task.config=null", "task.eval_split=null", "task.path=problems.jsonl", "task.train=12",
        "task.demonstrations=8", "task.eval=6", "run.threads=1", *overrides,
    )  # fmt: skip


def result(folder: Path) -> dict:
    return json.loads((folder / "smoke.json").read_text())


def failed_part(folder: Path) -> str:
    return next(part["part"] for part in result(folder)["parts"] if part.get("failed"))


# ---- what passes ----


def test_every_part_of_a_run_is_tried(folder):
    (folder / "rewards.py").write_text("def score(completion):\n    return 0.0\n")  # as most are, of random weights
    (folder / "run").mkdir()
    (folder / "run" / "theirs").write_text("not to be touched")
    ended = forked(folder, "run", "recipe.yaml", "--smoke")
    assert ended.code == 0, ended.text
    assert [path.name for path in (folder / "run").iterdir()] == ["theirs"]
    smoke = folder / "run-smoke"
    steps = lines(smoke / "run", "steps.jsonl")
    assert [(line["stage"], line["step"]) for line in steps] == [
        ("warmup", 1), ("warmup", 2), ("hybrid", 1), ("hybrid", 2),
    ]  # fmt: skip
    assert len(json.loads((smoke / "run" / "environment.json").read_text())["sessions"]) == 3
    other = lines(smoke / "run-grpo", "steps.jsonl") if (smoke / "run-grpo").is_dir() else []
    other += lines(smoke / "run-sft", "steps.jsonl") if (smoke / "run-sft").is_dir() else []
    hybrid = [line for line in [*steps, *other] if line["stage"] == "hybrid"]
    grpo = [line for line in hybrid if line["mix"]["grpo"]]
    assert grpo
    assert any(line["mix"]["sft"] for line in hybrid)
    assert all(line["grpo_norm"] > 0 for line in grpo), "completions that all score the same try no backward pass"
    assert (smoke / "run" / "report.html").is_file()
    assert list((smoke / "run" / "model").glob("*.safetensors"))
    assert result(smoke)["passed"]
    assert "not tried: a GPU" in ended.text

    again = forked(folder, "run", "recipe.yaml", "--smoke", "warmup.steps=0", "hybrid.controller=grpo_only")
    assert again.code == 0, again.text
    assert {line["stage"] for line in lines(smoke / "run", "steps.jsonl")} == {"hybrid"}


def test_a_gpu_recipe_with_an_adapter_on_the_real_tokenizer(tmp_path):
    ended = shipped(tmp_path)
    assert ended.code == 0, ended.text
    smoke = tmp_path / "runs" / "gsm8k-qwen2.5-0.5b-smoke"
    assert (smoke / "run" / "model" / "adapter_model.safetensors").is_file()
    assert "<|im_start|>" in (smoke / "run" / "model" / "chat_template.jinja").read_text()
    tiny, real = (AutoConfig.from_pretrained(path) for path in (smoke / "tiny", tmp_path / "qwen"))
    assert tiny.architectures == ["Qwen2ForCausalLM"]
    assert tiny.num_key_value_heads < tiny.num_attention_heads
    assert (tiny.vocab_size, tiny.max_position_embeddings) == (real.vocab_size, real.max_position_embeddings)
    assert any(text.startswith("vLLM") for text in result(smoke)["not_tried"])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_a_shipped_recipe_is_scaled_to_is_a_recipe(path):
    recipe = load_recipe(path)
    small = scaled(recipe, model="/somewhere/tiny", folder="/somewhere/run").recipe
    for each in (small, only(small, "sft", "/elsewhere"), only(small, "grpo", "/elsewhere")):
        if each.hybrid.steps or each.warmup.steps:
            assert Recipe.model_validate(each.resolved()).resolved() == each.resolved()
    assert contradictions(small) == []
    assert (small.rollout.engine, small.run.device, small.run.dir) == ("transformers", "cpu", "/somewhere/run")
    assert (small.warmup.steps > 0, small.hybrid.steps > 0) == (recipe.warmup.steps > 0, recipe.hybrid.steps > 0)
    assert type(small.hybrid.controller) is type(recipe.hybrid.controller)
    assert (small.hybrid.gradient_accumulation_steps > 1) == (recipe.hybrid.gradient_accumulation_steps > 1)
    assert smoke_folder(recipe) != Path(recipe.run.dir)


@pytest.mark.parametrize(
    ("steps", "window", "size", "group"),
    [(1, None, 64, 8), (16, None, 4, 8), (8, 16, 2, 16), (8, 4, 4, 8), (4, 4, 2, 8)],
)
def test_the_structure_of_a_step_stays(folder, steps, window, size, group):
    recipe = load_recipe(
        folder / "recipe.yaml",
        [
            f"hybrid.gradient_accumulation_steps={steps}", f"hybrid.per_device_train_batch_size={size}",
            f"hybrid.grpo.num_generations={group}", f"hybrid.grpo.steps_per_generation={json.dumps(window)}",
        ],
    )  # fmt: skip
    small = scaled(recipe, model="tiny", folder="run").recipe
    assert contradictions(recipe) == [] == contradictions(small)
    before, now = (
        each.hybrid.grpo.steps_per_generation or each.hybrid.gradient_accumulation_steps for each in (recipe, small)
    )
    assert (before > steps, before < steps) == (
        now > small.hybrid.gradient_accumulation_steps, now < small.hybrid.gradient_accumulation_steps,
    )  # fmt: skip


def test_stops_once_within_each_stage(folder):
    for overrides, expected in (
        ([], [1, 2, None]),
        (["warmup.steps=0", "hybrid.controller=grpo_only"], [1, None]),
        (["hybrid.steps=0"], [1, None]),
        (["warmup.steps=1"], [2, None]),
    ):
        recipe = scaled(load_recipe(folder / "recipe.yaml", overrides), model="tiny", folder="run").recipe
        assert stops(recipe) == expected


def test_few_rows_are_the_longest_that_may_be_and_some_of_each_task():
    rows = [{"prompt": "x" * length, "task": "ab"[length % 2]} for length in range(1, 101)]
    chosen = few(TaskData(train=rows, eval=rows[:1]), most=60).train
    lengths = {task: [len(row["prompt"]) for row in chosen if row["task"] == task] for task in "ab"}
    assert (max(lengths["a"]), max(lengths["b"]), len(chosen)) == (60, 59, 8)
    assert [len(row["prompt"]) for row in few(TaskData(train=rows[50:]), most=10).train if row["task"] == "a"][-1] == 52


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("qwen3_moe", {"head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8}),
        ("gemma3_text", {"sliding_window": 32}),
        ("gpt2", {}),
        ("phi3", {"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0] * 48, "long_factor": [1.0] * 48}}),
    ],
)
def test_architectures_shrink(kind, settings):
    config = AutoConfig.for_model(kind, **settings)
    before = config.to_dict()
    small = shrunk(config)
    assert config.to_dict() == before
    small.vocab_size, small.pad_token_id = 64, None  # only the test's own: real vocabularies take their time
    model = AutoModelForCausalLM.from_config(small).eval()
    with torch.no_grad():
        assert model(input_ids=torch.arange(12)[None]).logits.shape == (1, 12, 64)
    assert sum(each.numel() for each in model.parameters()) < 2e6


# ---- what must fail ----


def test_a_reward_that_raises_on_a_real_row(folder):
    (folder / "rewards.py").write_text(
        "def score(completion, *, prompt, **row):\n"
        "    if completion and completion not in prompt and sum(map(ord, prompt)) % 3 == 0:\n"
        "        raise KeyError('a row that nobody thought of')\n"
        "    return 0.5\n"
    )
    ended = forked(folder, "run", "recipe.yaml", "--smoke")
    assert ended.code == 1, ended.text
    assert failed_part(folder / "run-smoke") == "rewards on real rows"
    assert "a row that nobody thought of" in ended.text
    assert "that row: {'prompt'" in ended.text
    assert not (folder / "run-smoke" / "run").exists()
    assert not result(folder / "run-smoke")["passed"]


def test_a_mistake_in_the_data(tmp_path):
    ended = shipped(tmp_path, rows=[*PROBLEMS, {"question": "And how many now?", "result": 3}])
    assert ended.code == 2, ended.text
    assert failed_part(tmp_path / "runs" / "gsm8k-qwen2.5-0.5b-smoke") == "data"
    assert "problems.jsonl" in ended.text


def test_a_chat_template_that_refuses_the_rows(tmp_path):
    ended = shipped(tmp_path, template="{{ raise_exception('a system message is required') }}")
    assert ended.code == 2, ended.text
    assert failed_part(tmp_path / "runs" / "gsm8k-qwen2.5-0.5b-smoke") == "tokenizer, chat template, lengths"
    assert "a system message is required" in ended.text


def test_conversations_without_a_chat_template_and_prompts_without_room(tmp_path, folder):
    from posttrain.models.load import load_tokenizer

    model = model_folder(tmp_path / "qwen", template=None)
    tokenizer, config = load_tokenizer(model), AutoConfig.from_pretrained(model)
    rows = [
        {"prompt": [{"role": "user", "content": "How many?"}], "completion": [{"role": "assistant", "content": "7"}]}
    ]
    with pytest.raises(DataError, match="no chat template"):
        check_rows(load_recipe(folder / "recipe.yaml"), TaskData(train=rows, eval=rows), tokenizer, config)
    arguments = load_recipe(folder / "recipe.yaml", ["hybrid.args={chat_template_kwargs: {enable_thinking: false}}"])
    with pytest.raises(ConfigError, match="arguments for a chat template"):
        check_rows(arguments, TaskData(), tokenizer, config)
    long = TaskData(train=[{"prompt": "x7" * 600}], eval=[{"prompt": "How many?"}])
    with pytest.raises(DataError, match="max_position_embeddings"):
        check_rows(load_recipe(folder / "recipe.yaml"), long, tokenizer, config)
    short = load_recipe(folder / "recipe.yaml", ["rollout={engine: vllm, max_model_length: 20}"])
    with pytest.raises(DataError, match=r"rollout\.max_model_length"):
        check_rows(short, TaskData(train=[{"prompt": "How many? " * 5}]), tokenizer, config)


def test_a_checkpoint_that_cannot_be_written(folder):
    ended = forked(folder, "run", "recipe.yaml", "--smoke", fault=room_for_a_model_only)
    assert ended.code == 1, ended.text
    assert failed_part(folder / "run-smoke") == "first steps, a stop"
    assert "checkpoint-1" in ended.text


def test_a_checkpoint_that_cannot_be_gone_on_from(folder):
    ended = forked(folder, "run", "recipe.yaml", "--smoke", fault=lose_what_was_written)
    assert ended.code == 1, ended.text
    assert failed_part(folder / "run-smoke") in ("first steps, a stop", "resumed, a stop")
    assert "checkpoint" in ended.text


def room_for_a_model_only() -> None:
    """The kernel lets no file grow to the size of the optimizer's state, which is twice that of the weights."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, resource.RLIM_INFINITY))


def lose_what_was_written() -> None:
    """A disk that says it has written a checkpoint's optimizer, and has not."""
    import posttrain.storage.checkpoints

    original = posttrain.storage.checkpoints.seal

    def seal(checkpoint: Path, *files) -> None:
        original(checkpoint, *files)
        for file in checkpoint.glob("optimizer.pt"):
            file.write_bytes(file.read_bytes()[:100])

    posttrain.storage.checkpoints.seal = seal


def test_a_model_that_cannot_be_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    from posttrain.planning.smoke.model import load_parts

    recipe = load_recipe(RECIPES / "gsm8k-qwen2.5-0.5b.yaml", ["model=nobody/has-this"])
    with pytest.raises(ConfigError, match=r"nobody/has-this.*tokenizer") as raised:
        load_parts(recipe, TaskData())
    assert "config.json" in str(raised.value.expected)
    assert "model=FOLDER" in str(raised.value.fix)


def test_what_it_has_no_meaning_for_is_refused_before_anything_is_done(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for flag in ("--resume", "--restart", "--accept-changes"):
        assert main(["run", "recipe.yaml", "--smoke", flag]) == 2
        assert f"{flag} with --smoke" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert main(["run", "recipe.yaml", "--smoke"]) == 2
    assert "2 processes" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    (folder / "run-smoke").mkdir()
    (folder / "run-smoke" / "thesis.txt").write_text("the only copy")
    assert main(["run", "recipe.yaml", "--smoke"]) == 1
    assert "thesis.txt" in capsys.readouterr().err
    assert (folder / "run-smoke" / "thesis.txt").read_text() == "the only copy"
