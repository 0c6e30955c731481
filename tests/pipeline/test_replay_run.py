"""A run with an old task's rows beside the new one's, killed and resumed, and what `plan` says of them."""

from __future__ import annotations

from posttrain.cli import main
from tests.pipeline.runs import assert_same_run, at_step, lines, train

NEW = (
    "{name: knights_knaves, people: [2], names: 4, prompt: short, split: content, train: 6, eval: 4, demonstrations: 9}"
)
OLD = "{name: json_structure, label: old, difficulty: [1], train: 8, eval: 4, demonstrations: 12}"
REPLAYING = (
    f"task={{name: mixture, tasks: [{NEW}, {OLD}], replay: {{old: 0.25}}}}", "rewards=[]", "hybrid.steps=4",
    "hybrid.controller={name: static, sft_share: 0.5}", "model.init.max_position_embeddings=600",
)  # fmt: skip


def test_old_rows_are_trained_on_and_a_killed_run_goes_on_with_them(folder, capsys, monkeypatch):
    ended = train(folder, *REPLAYING, "run.dir=whole")
    assert ended.code == 0, ended.text
    told = "old: 3 of 12 demonstrations are replayed, 0.25 of all 12"
    assert told in ended.text
    assert set(lines(folder / "whole", "eval.jsonl")[-1]["by"]["task"]) == {"knights_knaves", "old"}
    assert train(folder, *REPLAYING, "run.dir=cut", fault=at_step("hybrid", 3)).code != 0
    assert train(folder, *REPLAYING, "run.dir=cut").code == 0
    assert_same_run(folder / "whole", folder / "cut")
    monkeypatch.chdir(folder)
    assert main(["plan", "recipe.yaml", *REPLAYING]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "8 prompts, 12 demonstrations, 8 held-out rows" in said
    assert told in said
