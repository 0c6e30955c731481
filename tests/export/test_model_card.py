"""What a model card says of how the model came to be, for runs of every kind; nothing of this machine is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import save_file

from posttrain.errors import CheckpointError
from posttrain.export.model_card import Subject, write_card
from posttrain.export.origin import Origin
from posttrain.models.merging import cast
from posttrain.rundir.layout import Layout
from posttrain.rundir.rundir import RunDir

PROGRAMS = "Rewards come from programs that check the answer"
GRPO, SFT, BOTH = ({"sft": sft, "grpo": grpo} for sft, grpo in ((0.0, 1.0), (1.0, 0.0), (0.5, 0.5)))


def card(
    tmp_path, recipe: dict[str, Any], *mixes: dict[str, float], warmup: int = 0, fingerprints=None, **line: Any
) -> ModelCard:
    """The card of a run with these hybrid steps, and more fields of its final evaluation."""
    with RunDir.open(tmp_path / "run", {"task": {"name": "math"}} | recipe, fingerprints or {}) as run:
        for step in range(1, warmup + 1):
            run.step({"stage": "warmup", "step": step, "mix": SFT})
        for step, mix in enumerate(mixes, 1):
            run.step({"stage": "hybrid", "step": step, "mix": mix})
        rows = [{"row": 0, "sample": None, "prompt": "p", "passed": True}]
        final = {"stage": "final", "step": len(mixes), "n": 1, "pass@1": 1.0, "ci95": [1.0, 1.0]}
        run.evaluation(final | line, rows)
    folder = tmp_path / "out"
    folder.mkdir()
    subject = Subject(Layout(run.path), run.path, "the final model")
    write_card(folder, subject, name="org/model", origin=Origin(None, None, "a model"), kind="whole")
    return ModelCard.load(folder / "README.md")


@pytest.mark.parametrize(
    ("mixes", "warmup", "tags"),
    [
        ([GRPO, GRPO], 0, {"grpo"}),
        ([GRPO], 1, {"sft", "grpo"}),
        ([SFT], 1, {"sft"}),
        ([BOTH], 0, {"sft", "grpo"}),
        ([], 2, {"sft"}),
    ],
    ids=["grpo", "warm-up", "sft", "blend", "warm-up-only"],
)
def test_it_tells_what_the_steps_did(tmp_path, mixes, warmup, tags):
    found = card(tmp_path, {}, *mixes, warmup=warmup)
    assert set(found.data.tags) & {"sft", "grpo"} == tags
    assert (PROGRAMS in " ".join(found.text.split())) == ("grpo" in tags)
    assert "graded by `math_answer`, which passes a problem at a score of 1." in " ".join(found.text.split())


REWARDS = [{"name": "math_answer"}, {"path": "/srv/me/judge.py:ask"}, {"import": "mine.rewards:like"}]


def test_what_graded_is_named_not_what_trained(tmp_path):
    """Lines of before the judge was recorded are of evaluations by the task's own reward."""
    found = card(tmp_path, {"rewards": REWARDS[1:]}, GRPO, fingerprints={"reward /srv/me/judge.py:ask": "ab" * 32})
    text = " ".join(found.text.split())
    assert PROGRAMS not in text
    assert "graded by `math_answer`, which passes a problem at a score of 1." in text
    assert found.data.eval_results[0].metric_name == "pass@1, greedy, by math_answer"
    assert "- reward judge.py:ask: `abababababababab`" in text
    assert "/srv" not in found.content


@pytest.mark.parametrize(
    ("rewards", "threshold", "said", "metric"),
    [
        (
            [{"name": "/srv/me/judge.py:ask", "weight": 0.3}],
            1.0,
            "`judge.py:ask`, which passes a problem at a score of 1.",
            "judge.py:ask",
        ),
        (
            [{"name": "a", "weight": 1.0}, {"name": "b`</x>", "weight": 0.5}],
            0.75,
            "`a` (weight 1) and `b /x ` (weight 0.5), which pass a problem at a weighed mean of 0.75 or more.",
            "a and b /x , at 0.75",
        ),
        (
            [{"name": "a", "weight": 1.0, "tasks": ["math"]}, {"name": "b", "weight": 1.0, "tasks": ["rows"]}],
            1.0,
            "`a` on math and `b` on rows, which pass a problem at a score of 1.",
            "a and b",
        ),
    ],
)
def test_the_recorded_judge_is_named(tmp_path, rewards, threshold, said, metric):
    judge = {"rewards": rewards, "threshold": threshold}
    found = card(tmp_path, {"rewards": REWARDS}, GRPO, judge=judge)
    assert f"graded by {said}" in " ".join(found.text.split())
    assert found.data.eval_results[0].metric_name == f"pass@1, greedy, by {metric}"
    assert "/srv" not in found.content


def test_slices_that_say_no_more_than_the_table_are_left_out(tmp_path):
    by = {"level": {"None": {"n": 1, "pass@1": 1.0}}, "kind": {"sum": {"n": 1, "pass@1": 1.0}}}
    assert "at the last evaluation" not in card(tmp_path, {}, GRPO, by=by).text


def test_built_in_rewards_that_the_recipe_names_are_programs(tmp_path):
    assert PROGRAMS in " ".join(card(tmp_path, {"rewards": ["math_answer"]}, GRPO).text.split())


def test_only_data_sets_of_the_hub_are_in_the_front_matter(tmp_path, monkeypatch):
    (tmp_path / "mine" / "data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    tasks = [{"name": "math", "dataset": each} for each in ("openai/gsm8k", "mine/data", "/srv/me/rows", "./rows")]
    assert card(tmp_path, {"task": {"tasks": tasks}}, GRPO).data.datasets == ["openai/gsm8k"]


# -- weights in another dtype ------------------------------------------------------------------------------------------


def weights(folder: Path, **tensors: torch.Tensor) -> Path:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_weight_that_float16_cannot_hold(tmp_path):
    folder = weights(tmp_path / "out", fine=torch.ones(2, 2), big=torch.tensor([1.0, -70000.0]))
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=r"big(.|\n)*70000(.|\n)*bfloat16"):
        cast(folder, "float16")
    assert (folder / "model.safetensors").read_bytes() == before
    cast(folder, "bfloat16")


def test_a_weight_that_is_not_finite_already_is_not_the_dtypes_doing(tmp_path):
    cast(weights(tmp_path / "out", odd=torch.tensor([float("inf"), 1.0])), "float16")
