"""Rewards that are routed by the sources of rows: what is refused, what is scored, and what a plan says of it."""

from __future__ import annotations

import json

import pytest

from posttrain.errors import ConfigError, RewardError
from posttrain.inputs.gathering import gather
from posttrain.planning.routes import routes_in_words
from posttrain.recipe.recipe import load_recipe
from posttrain.scoring.calling import score_batch, score_completion
from posttrain.scoring.score import Reward

ROWS = [
    {"prompt": f"{n} + {n} = ?", "source": "sums", "answer": str(2 * n), "word": None} for n in range(8)
] + [{"prompt": f"Say w{n}.", "source": "words", "answer": None, "word": f"w{n}"} for n in range(4)]  # fmt: skip
REWARD = """def sums(completion, *, answer):
    return float(answer in completion)


def words(completion, *, word):
    return float(word in completion)
"""
ROUTED = "{path: own.py:sums, sources: [sums]}, {path: own.py:words, sources: [words], weight: 0.5}"
BOTH = f"[{ROUTED}, {{name: format, weight: 0.1}}]"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    held = [{**row, "prompt": row["prompt"] + " Again."} for row in ROWS]
    (tmp_path / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held))
    (tmp_path / "own.py").write_text(REWARD)
    (tmp_path / "r.yaml").write_text(
        "model: {init: {layers: 1}}\ntask: {name: rows, path: rows.jsonl, eval_path: held.jsonl}\n"
        "warmup: {steps: 0}\nhybrid: {steps: 2, controller: {name: grpo_only}}\nrewards: []\n"
    )
    return lambda *changes: load_recipe(tmp_path / "r.yaml", list(changes))


def test_each_source_has_its_reward_and_a_plan_says_which(recipe):
    made = gather(recipe(f"rewards={BOTH}"))
    assert [reward.sources for reward in made.rewards] == [frozenset({"sums"}), frozenset({"words"}), None]
    rows = {row["source"]: row for row in made.data.train}
    applies = {name: [reward.applies_to(row) for reward in made.rewards] for name, row in rows.items()}
    assert applies == {"sums": [True, False, True], "words": [False, True, True]}
    said = routes_in_words(made.rewards, made.data)
    assert sorted(said) == [
        "rewards of the source sums (8): sums, format x 0.1",
        "rewards of the source words (4): words x 0.5, format x 0.1",
    ]


@pytest.mark.parametrize(
    ("rewards", "said"),
    [
        (
            "[{path: own.py:sums, sources: [sum]}, {name: format}]",
            r"rewards\.0\.sources: .*'sum', which no row has \(nearest: 'sums'\)",
        ),
        (
            "[{path: own.py:sums, sources: [sums]}]",
            r"(?s)no reward applies to the source 'words' \(4 of the 12 prompts\)",
        ),
        ("[{path: own.py:sums, sources: [sums]}, {name: format, weight: 0}]", "the source 'words'"),
        (f"{BOTH[:-1]}, {{name: format, tasks: [math], sources: [sums]}}]", "the reward applies to 'math'"),
    ],
)
def test_a_source_without_a_reward_and_a_name_without_rows_are_refused(recipe, rewards, said):
    with pytest.raises(ConfigError, match=said):
        gather(recipe(f"rewards={rewards}"))


def test_a_reward_needs_the_columns_of_its_sources_alone(recipe):
    with pytest.raises(RewardError, match="no column 'word'"):
        gather(recipe("rewards=[{path: own.py:words, sources: [sums]}, {path: own.py:words, sources: [words]}]"))


def test_rows_that_say_no_source_are_told_how_to(recipe, tmp_path):
    for name in ("rows", "held"):
        rows = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for row in rows:
            row["set"] = row.pop("source")
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ConfigError, match=r"(?s)no row has a column 'source'.*task.columns: \{source: COLUMN\}"):
        gather(recipe(f"rewards={BOTH}"))
    assert gather(recipe(f"rewards={BOTH}", "task.columns={source: set}")).rewards[0].sources == {"sums"}


def test_held_out_rows_of_a_source_that_no_judge_is_for_are_refused(recipe):
    judge = "evaluate.reward=[{path: own.py:sums, sources: [sums]}]"
    with pytest.raises(ConfigError, match=r"(?s)the source 'words' \(4 of the 12 held-out rows\).*evaluate\.reward"):
        gather(recipe(f"rewards={BOTH}", judge))


def test_rows_of_other_sources_are_not_scored_and_not_called_on():
    seen = []

    def trl(completions, source, **columns):
        seen.append(source)
        return [1.0] * len(completions)

    def one(completion, **row):
        return 1.0

    batch = Reward.from_callable(trl, sources=["a"])
    found = score_batch(batch, ["p"] * 3, ["c"] * 3, {"source": ["a", "b", "a"]})
    assert ([each.value for each in found], seen) == ([1.0, None, 1.0], [["a", "a"]])
    single = Reward.from_callable(one, sources=["a"])
    rows = [{"source": "a"}, {"source": "b"}, {"source": None}, {}]
    assert [score_completion(single, "c", row).value for row in rows] == [1.0, None, None, 1.0], (
        "a worker is sent what the function takes alone"
    )
