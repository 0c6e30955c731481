"""A run whose warm-up draws demonstrations by a curriculum: killed and resumed, explained, replayed and reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from posttrain.cli import main
from tests.pipeline.runs import at_step, lines, train

RECIPE = """
model: {init: {hidden_size: 32, layers: 1, heads: 2, vocab_size: 300, max_position_embeddings: 96}}
task: {name: rows, path: sums.jsonl, eval_path: held_out.jsonl, train: 4, demonstrations: 40, eval: 2}
warmup:
  {steps: 9, learning_rate: 1.0e-2, per_device_train_batch_size: 4, save_steps: 2,
   curriculum: {name: skill_it, source: kind, update_steps: 2, held_out: 4, eta: 2}}
hybrid:
  {steps: 1, per_device_train_batch_size: 4, controller: grpo_only,
   grpo: {num_generations: 4, max_completion_length: 8}}
rewards: [{path: rewards.py:score}]
rollout: {engine: transformers}
scoring: {workers: 0}
evaluate: {batch_size: 16, at_start: false}
run: {dir: run, device: cpu, threads: 1}
"""


def write(folder: Path) -> Path:
    """One kind that says the same in every row, and one that nobody can foresee."""
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "rewards.py").write_text(
        "def score(completion, **row):\n    return min(1.0, len(set(completion)) / 20)\n"
    )
    plain = [{"prompt": f"Say {i}", "completion": "yes yes yes", "kind": "same", "level": i} for i in range(22)]
    hard = [
        {"prompt": f"Mix {i}", "completion": f"{i * 7919 % 1009:x} {i * 104729 % 997:x}", "kind": "other", "level": 1}
        for i in range(22)
    ]
    rows = [row for pair in zip(plain, hard, strict=True) for row in pair]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "held_out.jsonl").write_text("".join(json.dumps({"prompt": f"Now {i}"}) + "\n" for i in range(2)))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("demonstrations"))
    killed = train(folder, fault=at_step("warmup", 6))
    assert killed.code == -9, killed.text
    ended = train(folder)
    assert ended.code == 0, ended.text
    return folder / "run"


def said_by(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return " ".join(capsys.readouterr().out.split())


def test_the_mix_goes_to_what_is_not_learned_yet(finished):
    """One kind is learned sooner than the other, which is most of the mix after a few measurements."""
    seen = [line["curriculum"] for line in lines(finished, "steps.jsonl") if line["stage"] == "warmup"]
    mixes = [each["windows"][0]["mix"]["other"] for each in seen]
    assert mixes[:2] == [0.5, 0.5]
    assert mixes[-1] > 0.8
    counts = [each["sources"].get("other", {"demonstrations": 0})["demonstrations"] for each in seen]
    assert sum(counts[:2]) == 4
    assert sum(counts[-2:]) >= 6
    measured = [m for each in seen for m in each["windows"][0].get("measured", ())]
    assert [m["rows"] for m in measured] == [8] * 4
    assert measured[-1]["values"]["same"] < measured[-1]["values"]["other"] - 0.3


def test_it_is_explained_replayed_and_reported(finished, capsys):
    run = str(finished)
    said = said_by(capsys, "explain", run)
    assert "In the warm-up the curriculum skill_it drew 36 demonstrations" in said
    assert "Shares of the sources by quarter: other: " in said
    assert "It measured losses 4 times, which took 32 passes of a demonstration" in said
    said = said_by(capsys, "explain", run, "--warmup-step", "9")
    assert "of the mix, by 3 measurements of validation losses" in said
    assert "SFT: loss " in said
    assert "all 36 demonstrations of 9 steps are drawn as in the run" in said_by(capsys, "replay", run)
    other = json.loads(said_by(capsys, "replay", run, "warmup.curriculum.eta=0.01", "--json"))
    assert other["demonstrations"] == 36
    assert abs(other["sources"]["other"]["replay"] - 18) <= 1
    assert other["sources"]["other"]["run"] > 22
    by_level = said_by(capsys, "replay", run, "warmup.curriculum={name: mixed_sources, source: kind}")
    assert "36 demonstrations of 9 steps are drawn as in the run" in by_level
    assert main(["replay", run, "warmup.curriculum={name: dump, source: kind}"]) == 2
    assert "goes by what rollouts gave" in capsys.readouterr().err
    assert main(["replay", run, "curriculum.eta=1"]) == 2
    assert main(["explain", run, "--warmup-step", "90"]) == 2
    assert "one of 1 to 9" in capsys.readouterr().err
    page = (finished / "report.html").read_text()
    assert "Share of each source in the warm-up" in page
    assert "Validation loss of each source" in page


def test_a_record_that_was_changed_is_seen(finished, capsys):
    file = finished / "steps.jsonl"
    whole = file.read_text()
    changed = [json.loads(line) for line in whole.splitlines()]
    changed[4]["curriculum"]["windows"][0]["measured"][0]["values"]["same"] += 9
    file.write_text("".join(json.dumps(line) + "\n" for line in changed))
    try:
        assert main(["replay", str(finished)]) == 1
        assert "does NOT draw as recorded" in capsys.readouterr().out
    finally:
        file.write_text(whole)


@pytest.mark.parametrize(
    ("override", "says", "key"),
    [
        ("{name: human, source: kind, level: grade}", "the demonstrations have no column 'grade'", "curriculum"),
        ("{name: dmt, source: kind}", "special: none, of the sources", "curriculum.special"),
        ("{name: skill_it, source: kind, held_out: 25}", "demonstrations, and 25 are to be held", "held_out"),
        (
            "{name: skill_it, source: kind, update_steps: 100}",
            "moves after step 100, and the stage has 9",
            "update_steps",
        ),
        ("{name: bots}", "goes by what rollouts gave, and a warm-up has none", "warmup.curriculum"),
        ("{name: easy_to_hard, samples: 4}", "easy_to_hard measures pass rates by rollouts", "warmup.curriculum"),
    ],
)
def test_what_cannot_be_is_said_before_a_model_loads(override, says, key, tmp_path, capsys):
    assert main(["plan", str(write(tmp_path) / "recipe.yaml"), "--cpu", f"warmup.curriculum={override}"]) != 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert says in said
    assert key in said


def test_the_plan_counts_what_is_measured(tmp_path, capsys):
    recipe = str(write(tmp_path) / "recipe.yaml")
    main(["plan", recipe, "--cpu"])
    said = " ".join("".join(capsys.readouterr()).split())
    assert "curriculum skill_it, with 32 passes of demonstrations that are held out, for their losses" in said
    assert "sources by the column kind: " in said
    assert main(["plan", recipe, "--cpu", "warmup.curriculum=null", "hybrid.curriculum=skill_it"]) != 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert "skill_it goes by losses of demonstrations, measured while they train, and draws no prompts" in said
    assert "set it as warmup.curriculum" in said
