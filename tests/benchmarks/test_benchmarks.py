"""The comparison with TRL runs, in small, and what it compares are the same gradients."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks_importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(BENCHMARKS)):
            del sys.modules[name]


SMALL = ["--model", "mini", "--completions", "16", "--group", "4", "--micro-batch", "4", "--tokens", "12",
         "--threads", "1", "--repeats", "1", "--more-repeats", "1"]  # fmt: skip


def test_the_training_rows_compare_equal_gradients(tmp_path, capsys):
    import vs_trl

    vs_trl.main(
        [
            "training",
            *SMALL,
            "--loads",
            "realistic",
            "plain",
            "sampler",
            "--no-memory",
            "--json",
            str(tmp_path / "out.json"),
        ]
    )

    written = json.loads((tmp_path / "out.json").read_text())
    assert [row["load"] for row in written["rows"]] == ["realistic", "plain", "sampler"]
    for row in written["rows"]:
        assert row["name"] == "training"
        assert row["ratio"] == pytest.approx(row["trl_s"] / row["ours_s"])
        assert 0 < row["gradient_rel_l2"] <= 1e-5, row["load"]  # 0 were a gradient compared with itself
    realistic, plain, *_ = written["rows"]
    assert realistic["completion_cv"] > 0.45  # of 16 rows; of 120 it is above 0.5, as another test sees to
    assert realistic["positions_needed"] < 0.5 * realistic["positions_padded"]
    assert plain["completion_cv"] == plain["zero_variance_share"] == 0
    assert {"cpu", "cores", "threads", "torch", "trl", "transformers", "date"} <= set(written["machine"])
    assert capsys.readouterr().out.count("| training |") == 3


def test_the_peak_is_taken_in_a_process_of_its_own():
    import vs_trl
    from vs_trl_training import peak_mib

    args = vs_trl.parsed(["training", *SMALL])
    assert 0 < peak_mib("ours", "realistic", args, []) < 2000


def test_a_load_has_the_shape_that_was_asked_for():
    from bench_models import word_tokenizer
    from rollout_loads import Shape, make_load

    load = make_load(Shape(), word_tokenizer(512))
    facts = load.facts()
    assert facts["completions"] == 120
    assert facts["completion_cv"] >= 0.5
    assert facts["prompt_mean"] == pytest.approx(facts["completion_mean"], rel=0.05)
    assert facts["zero_variance_share"] == 6 / 15
    assert len(set(load.prompts)) == 15
    assert [len(ids) for ids in load.prompt_ids] == [len(text.split()) for text in load.prompts]
    plain = make_load(Shape().plain(), word_tokenizer(512)).facts()
    assert (plain["prompt_max"], plain["completion_cv"], plain["zero_variance_share"]) == (8, 0, 0)


def test_a_difference_between_the_gradients_shows(monkeypatch):
    """What the rows say of gradients is measured: another reward on one side changes it."""
    import two_sides
    import vs_trl
    import vs_trl_training

    replayed = two_sides.replayed
    sides = []

    def otherwise(load):
        rollouts, reward = replayed(load)
        sides.append(load)
        return rollouts, reward if len(sides) == 1 else lambda **given: reward(**given)[::-1]

    monkeypatch.setattr(two_sides, "replayed", otherwise)
    row = vs_trl_training.measured("realistic", vs_trl.parsed(["training", *SMALL, "--no-memory"]), 1)
    assert row["gradient_rel_l2"] > 1e-2


def test_the_step_row_has_both_sides_sample_and_score(tmp_path):
    import vs_trl

    written = vs_trl.main(["step", *SMALL, "--policy-steps", "2", "--longest", "8"])
    (row,) = written["rows"]
    assert (row["name"], row["gradient_rel_l2"]) == ("step", None)
    assert row["trl_tokens"] > 16
    assert row["ours_tokens"] > 16
    assert row["ratio"] == pytest.approx(row["trl_s"] / row["ours_s"])


def test_scoring_and_overhead_are_parts_of_a_step():
    import overhead

    seen = overhead.Overhead()
    seen.counting = True

    class Clocked:
        def inner(self):
            return statistics.mean(range(400_000))

        def outer(self):
            return self.inner()

    seen.wrap(Clocked, "inner", "KL")
    seen.wrap(Clocked, "outer", "record")
    Clocked().outer()
    seen.totals["grpo"], seen.cpu_totals["grpo"] = [1.0], [1.0]
    row = overhead.hybrid_row("tiny", "grpo", seen)
    assert row["apart"]["KL"] > row["parts"]["record"] > 0  # what the inner one took is not the outer one's
    assert row["overhead"] == pytest.approx(row["parts"]["record"])


def test_the_sft_step_compares_the_same_training(tmp_path, capsys, monkeypatch):
    import sft_step

    monkeypatch.setattr(sys, "argv", ["sft_step.py", "--models", "mini", "--steps", "3", "--repeats", "1",
                                      "--json", str(tmp_path / "sft.json")])  # fmt: skip
    sft_step.main()
    (row,) = json.loads((tmp_path / "sft.json").read_text())["rows"]
    assert row["logged_apart"] < 1e-5
    assert min(row["trl_s"], row["ours_s"]) > 0
    assert "| mini |" in capsys.readouterr().out
