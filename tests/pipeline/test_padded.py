"""Rows that are padded although `packed` is true: a run, its directory, its report and a smoke test say so, and why."""

from __future__ import annotations

from tests.pipeline.runs import forked, lines
from tests.pipeline.test_stages import ended_well

WHY = "rows are padded, not packed: attention eager"


def test_a_run_says_once_a_stage_that_rows_are_padded(folder):
    said = ended_well(folder, "model.attn_implementation=eager", "warmup.steps=2", "hybrid.steps=3", "evaluate.every=0")
    assert said.count(f"warm-up: {WHY}") == said.count(f"hybrid: {WHY}") == 1
    steps = lines(folder / "run", "steps.jsonl")
    assert len(steps) == 5
    assert all(line["padded"].startswith("attention eager; packing stands in for sdpa") for line in steps)
    page = (folder / "run" / "report.html").read_text()
    assert page.count("Warm-up: rows were padded, not packed: attention eager") == 1
    assert page.count("Hybrid: rows were padded, not packed: attention eager") == 1


def test_a_run_whose_rows_are_packed_says_nothing(reference):
    run = reference()
    assert {line["padded"] for line in lines(run, "steps.jsonl")} == {None}
    assert "padded, not packed" not in (run / "report.html").read_text()


def test_a_smoke_test_says_it_of_what_its_tiny_model_leaves_out(folder):
    """An attention that needs a GPU is not tried: the smoke test packs where the run will not."""
    ended = forked(
        folder, "run", "recipe.yaml", "--smoke", "model.attn_implementation=flash_attention_2", "hybrid.steps=0"
    )
    assert ended.code == 0, ended.text
    assert "rows of the warm-up are padded, not packed: attention flash_attention_2" in ended.text
    assert {line["padded"] for line in lines(folder / "run-smoke/run", "steps.jsonl")} == {None}
