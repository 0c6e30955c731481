"""What a run says of its model anyone gets from it: by `posttrain eval`, and by the code on the exported card."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from transformers import GenerationConfig

from posttrain.cli import main
from posttrain.models.load import build_model, train_tokenizer
from tests.pipeline.runs import lines, train, write_recipe

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% if quiet %}{{ quiet }} {% endif %}{% endif %}"
)


@pytest.fixture(scope="module", params=[(), ("lora.r=4",)], ids=["whole", "adapter"])
def run(request, tmp_path_factory) -> Path:
    """Of a model whose template goes by an argument, and whose generation config has penalties and another end."""
    folder = write_recipe(tmp_path_factory.mktemp("card"))
    tokenizer = train_tokenizer(["user: assistant: Ann says Bob is a knave, a knight. " * 3], vocab_size=300)
    tokenizer.chat_template = TEMPLATE
    model = build_model(tokenizer, hidden_size=32, layers=2, heads=2, max_position_embeddings=512, seed=3)
    for weight in (each for each in model.parameters() if each.ndim == 2):
        weight.data.mul_(12)  # so that its answers differ
    model.generation_config = GenerationConfig(
        do_sample=True, repetition_penalty=1.9, min_new_tokens=9, no_repeat_ngram_size=2, suppress_tokens=[280],
        eos_token_id=[tokenizer.eos_token_id, 44],
    )  # fmt: skip
    model.bfloat16().save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    ended = train(
        folder, f"model={folder / 'base'}", "warmup.steps=0", "hybrid.steps=2", "hybrid.controller=grpo_only",
        "evaluate.every=0", "evaluate.at_start=false",
        "hybrid.args={chat_template_kwargs: {quiet: 'knave knave knight'}}",
        "evaluate.reward=[{path: rewards.py:score}]", "evaluate.threshold=0.3", "evaluate.max_completion_length=20",
        *request.param,
    )  # fmt: skip
    assert ended.code == 0, ended.text
    return folder / "run"


def recorded(run: Path) -> list[dict]:
    return pq.read_table(next((run / "completions").glob("eval-final-*"))).to_pylist()


def test_posttrain_eval(run, capsys):
    assert main(["eval", str(run / "model")]) == 0
    assert "every digit as the run recorded it" in capsys.readouterr().out
    settings = ["--task", "knights_knaves", "people=[2]", "split=statements", "names=4", "prompt=short", "train=10",
                "eval=8", "evaluate.threshold=0.3", "--max-completion-length=20", "--device=cpu",
                f"--reward={run.parent / 'rewards.py'}:score", "--out", str(run / "found.json")]  # fmt: skip
    assert main(["eval", str(run / "model"), *settings, "--allow-overlap"]) == 0
    assert 'chat_template_kwargs {"quiet": "knave knave knight"}' in capsys.readouterr().out
    found, final = json.loads((run / "found.json").read_text()), lines(run, "eval.jsonl")[-1]
    assert (found["pass@1"], found["mean_length"]) == (final["pass@1"], final["mean_length"])


def test_the_code_on_the_card(run, tmp_path, monkeypatch):
    name = "--base-model=somebody/base" if (run / "model" / "adapter_config.json").exists() else "--license=mit"
    assert main(["export", str(run), "--to", str(tmp_path / "out"), name]) == 0
    text = (tmp_path / "out" / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    config = tmp_path / "out" / "adapter_config.json"
    if config.exists():  # the base that its reader has
        config.write_text(config.read_text().replace("somebody/base", str(run.parent / "base")))
    monkeypatch.chdir(tmp_path)
    completions, differ = {}, 0
    for row in recorded(run):
        said: list[str] = []
        shown = next(line for line in code.splitlines() if line.startswith("messages = "))
        asked = code.replace(shown, f"messages = {json.loads(row['prompt'])!r}")
        exec(compile(asked, "card", "exec"), {"print": said.append})
        completions[row["completion"]] = said[0]
        own = code[code.index("model.generation_config") :].split("\n")[0]
        exec(compile(asked.replace(own, "").replace(", quiet=", ", loud="), "card", "exec"), {"print": said.append})
        differ += said[0] != said[1]
    assert all(own == other for own, other in completions.items())
    assert len(completions) > 1
    assert differ > 1, "else the test shows nothing"
