"""TRL-style functions in `rewards check` and `rewards score`: called as a run calls them, whole groups at once."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from posttrain import cli
from posttrain.commands.rewards import batches
from posttrain.errors import ConfigError
from posttrain.models.load import train_tokenizer

GROUP, AT_ONCE = 4, 2
RECIPE = """
model: MODEL
task: {name: knights_knaves, people: [2], names: 6, split: statements, prompt: short, think_share: 0.0, train: 9,
       eval: 7, demonstrations: 5}
rewards: [{path: mine.py:FUNCTION}]
scoring: {workers: 0}
hybrid: {steps: 7, per_device_train_batch_size: 8, gradient_accumulation_steps: 1, grpo: {num_generations: 4}}
"""
FUNCTIONS = '''
import json


def shorter(completions, completion_ids, **columns):
    return [-len(ids) / 1000 for ids in completion_ids]


def texts(completions, prompts, **columns):
    return [float(len(text.split()) + len(prompt)) for text, prompt in zip(completions, prompts)]


def messages(completions, prompts, **columns):
    assert all([m["role"] for m in prompt] == ["user"] for prompt in prompts)
    return [float(len(completion[0]["content"])) for completion in completions]


def batch(completions, **columns):
    return [float(len(completions))] * len(completions)


def group(completions, prompts, **columns):
    """Each completion beside the best of its group, which is four in a row."""
    assert len(completions) % 4 == 0 and all(prompts[i] == prompts[i - i % 4] for i in range(len(prompts)))
    return [1.0 for _ in completions]


def state(completions, trainer_state, log_extra, log_metric, **columns):
    log_extra("length", [len(text) for text in completions])
    log_metric("mean", 1.0)
    return [trainer_state.global_step + trainer_state.max_steps / 100] * len(completions)


def everything(**arguments):
    return [1.0] * len(arguments["completions"])


def late(completions, **columns):
    return [columns["completion_ids"][i][-1] for i in range(len(completions))]


def fails(completions, **columns):
    raise KeyError("always")


def fails_on_hostile(completions, **columns):
    return [1.0 / (not text.startswith("[[")) for text in completions]


async def later(completions, completion_ids, **columns):
    return [None for _ in completions]


def solution_of(completions, solution, **columns):
    return [float(len(one)) for one in solution]
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tokenizer_in(folder: Path, *, chat: bool) -> str:
    tokenizer = train_tokenizer(["Ivy is a knight and Max is a knave."] * 3, 300)
    if chat:
        tokenizer.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    shutil.rmtree(folder / "model", ignore_errors=True)
    tokenizer.save_pretrained(folder / "model")
    return "./model"


def check(folder: Path, function: str, model: str, *arguments: str) -> int:
    (folder / "recipe.yaml").write_text(RECIPE.replace("MODEL", model).replace("FUNCTION", function))
    return cli.main(["rewards", "check", "recipe.yaml", "--json", "figures.json", *arguments])


def figures(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "figures.json").read_text())["rewards"][0]


def gold_mean(folder: Path) -> float:
    return figures(folder)["tries"][0]["mean"]


@pytest.mark.parametrize(
    ("function", "chat", "mean"),
    [
        ("batch", False, GROUP * AT_ONCE),  # what one process of the run samples at once
        ("batch", True, GROUP * AT_ONCE),
        ("group", False, 1.0),
        ("state", False, 0.07),
        ("solution_of", False, 2.0),
    ],
)
def test_check_calls_whole_groups_as_a_run_does(folder: Path, function: str, chat: bool, mean: float) -> None:
    assert check(folder, function, tokenizer_in(folder, chat=chat)) == 0
    assert gold_mean(folder) == pytest.approx(mean)
    assert figures(folder)["failures"] == 0
    assert figures(folder)["gold"] == "not judged"


def test_check_gives_messages_where_the_model_has_a_chat_template_and_text_where_not(folder: Path) -> None:
    assert check(folder, "messages", tokenizer_in(folder, chat=True)) == 0
    assert gold_mean(folder) > 10
    assert check(folder, "texts", "./model") == 1
    assert check(folder, "texts", tokenizer_in(folder, chat=False)) == 0
    assert check(folder, "messages", "./model") == 1


def test_check_has_the_tokenizers_ids_with_the_end_of_the_sequence(folder: Path) -> None:
    from transformers import AutoTokenizer

    assert check(folder, "late", tokenizer_in(folder, chat=False)) == 0
    assert gold_mean(folder) == AutoTokenizer.from_pretrained(folder / "model").eos_token_id
    assert check(folder, "shorter", "./model") == 0
    empty = next(line for line in figures(folder)["tries"] if line["name"] == "empty")
    assert empty["mean"] == pytest.approx(-0.001)  # nothing but the end
    assert gold_mean(folder) < -0.005


def test_check_of_a_model_from_scratch_makes_its_tokenizer(folder: Path) -> None:
    model = "{init: {vocab_size: 300, hidden_size: 16, layers: 1, heads: 2}}"
    assert check(folder, "shorter", model) == 0
    assert gold_mean(folder) < -0.005


def no_tokenizer(recipe: Any, texts: Any, *, offline: bool) -> None:
    raise ConfigError("the model cannot be loaded", where="model")


def test_check_without_a_tokenizer_says_what_is_lacking(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "tokenizer_of", no_tokenizer)
    assert check(folder, "texts", "no/such-model") == 0
    assert "TRL-style functions get text and no completion_ids" in capsys.readouterr().err
    assert check(folder, "shorter", "no/such-model") == 2
    error = capsys.readouterr().err
    assert "it takes completion_ids, and the model's tokenizer cannot be had" in error
    assert "reward 'shorter'" in error
    assert check(folder, "later", "no/such-model") == 2


def test_check_fails_where_gold_gets_no_number(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tokenizer_in(folder, chat=False)
    assert check(folder, "fails", model) == 1
    error = capsys.readouterr().err
    assert "fails: it fails on 5 of 5 gold completions, the first time by: KeyError: 'always'" in error
    assert figures(folder)["gold"] == "failed"
    assert check(folder, "fails", model, "--allow", "fails") == 0
    assert check(folder, "fails_on_hostile", model) == 0
    assert figures(folder)["failures"] > 0
    assert check(folder, "later", model) == 0


# ---- score ----


def score(folder: Path, function: str, *rows: dict[str, Any], stdin: pytest.MonkeyPatch | None = None) -> int:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = "rows.jsonl"
    if stdin:
        stdin.setattr(sys, "stdin", (folder / "rows.jsonl").open())
        source = "-"
    return cli.main(["rewards", "score", "--reward", f"mine.py:{function}", "--input", source, "--output", "out.jsonl"])


def scores(folder: Path) -> list[float | None]:
    return [json.loads(line)["score"] for line in (folder / "out.jsonl").read_text().splitlines()]


USER = [{"role": "user", "content": "q"}]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize("piped", [False, True])
def test_score_calls_whole_groups(folder: Path, monkeypatch: pytest.MonkeyPatch, piped: bool) -> None:
    stdin = monkeypatch if piped else None
    assert score(folder, "batch", {"completion": "a"}, {"completion": "b"}, stdin=stdin) == 0
    assert scores(folder) == [2.0, 2.0]
    rows = [{"prompt": f"p{i // 4}", "completion": "a"} for i in range(4 * 80)]
    rows[200:200] = [{"prompt": "p50", "completion": "b"}] * 100  # no batch's size ends at its end
    assert score(folder, "group", *rows, stdin=stdin) == 0


def test_score_gives_messages_where_the_rows_have_them(folder: Path) -> None:
    assert score(folder, "messages", {"prompt": USER, "completion": said("abc")}) == 0
    assert scores(folder) == [3.0]
    assert score(folder, "messages", {"prompt": USER, "completion": said("ab")[0]}) == 0
    assert scores(folder) == [2.0]
    assert score(folder, "texts", {"prompt": "12345", "completion": "a b"}) == 0
    assert scores(folder) == [7.0]
    assert score(folder, "state", {"completion": "a"}, {"completion": "b"}) == 0
    assert scores(folder) == [0.0, 0.0]


def test_score_takes_token_ids_from_the_rows_and_asks_for_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(folder, "shorter", {"completion": "abc", "completion_ids": [1, 2, 3]}) == 0
    assert scores(folder) == [-0.003]
    assert score(folder, "shorter", {"completion": "abc"}) == 2
    error = capsys.readouterr().err
    assert "'completion_ids' is missing" in error
    assert "rewards check RECIPE" in error
    assert score(folder, "texts", {"completion": "abc"}) == 2
    assert "'prompt' is missing" in capsys.readouterr().err
    assert score(folder, "everything", {"completion": "abc"}) == 2  # names no argument of a reward at all


def test_score_of_a_function_that_always_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score(folder, "fails", {"completion": "a"}, {"completion": "b"}) == 1
    assert "none of 2 completions could be scored: KeyError: 'always'" in capsys.readouterr().err
    assert score(folder, "late", {"completion": "a"}) == 1
    assert "completion_ids" in capsys.readouterr().err
    assert score(folder, "messages", {"prompt": USER, "completion": "text"}) == 1
    assert "TypeError" in capsys.readouterr().err
