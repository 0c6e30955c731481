"""Runs against each other: problems matched, differences, flips, weights; the tables and the page, hostile runs too."""

from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from rich.console import Console
from safetensors.torch import load_file, save_file

from posttrain.cli import main
from posttrain.commands.compare import show, weights_in_words
from posttrain.errors import ConfigError, DataError
from posttrain.evaluation.statistics import holm, mcnemar, paired_difference
from posttrain.models.load import load_policy
from posttrain.reading.compare import compare, difference, names, problems, settings
from posttrain.reading.compare_layers import by_layer, layers_in_words, rank_share
from posttrain.reading.compare_spending import spent
from posttrain.reading.compare_weights import adapter_change, run_changes, weights_change
from posttrain.report.compare_page import compare_page
from posttrain.rundir.layout import Layout
from posttrain.rundir.rundir import RunDir
from tests.report.runs import HOSTILE, UNSEEN, hostile_run
from tests.report.test_report import Page

WARM = [True, True, True, False, False, False, False, False]
MIX = [True, False, True, True, True, False, True, False]
SFT = [False, False, True, False, False, True, False, False]


def step(stage: str, number: int, **more) -> dict:
    sft = stage == "warmup" or number % 2 == 1
    line = {"stage": stage, "step": number, "mix": {"sft": float(sft), "grpo": float(not sft)}, "reason": "because"}
    if stage == "warmup":
        return line | {"seconds": {"total": 2.0}, "demonstration_cursor": 4 * number} | more
    line |= {"tokens": {"sft": 100 if sft else 0}, "rollouts": 16 * (number // 2)}
    seconds = {"total": 3.0, "sft" if sft else "generate": 1.5}
    grpo = {} if sft else {"completion_length": 10.0, "trained_rows": 0.5}
    return line | {"seconds": seconds} | grpo | more


def a_run(
    folder: Path, final: list[bool], *, warm=WARM, controller="sasr", length=64, extra=(), steps=4, stages=None
) -> Path:
    recipe = {"task": {"name": "knights_knaves"}, "hybrid": {"controller": {"name": controller}, "grpo": {
        "max_completion_length": length}}, "run": {"dir": str(folder), "seed": 0}}  # fmt: skip
    with RunDir.open(folder, recipe, {"reward knights_knaves": "abc"}) as run:
        for number in (1, 2):
            run.step(step("warmup", number))
        for number in range(1, steps + 1):
            run.step(step("hybrid", number))
        for stage, at, passed in (("warmup", 2, warm), ("final", steps, final)):
            if stages is not None and stage not in stages:
                continue
            rows = [
                {"row": row, "sample": None, "prompt": prompt, "completion": f"{folder.name} on {row}", "passed": good,
                 "score": float(good), "note": f"note {row}", "error": None, "people": 2 + row % 2}
                for row, (prompt, good) in enumerate([*_numbered(passed), *extra])
            ]  # fmt: skip
            share = sum(row["passed"] for row in rows) / len(rows)
            by = {"people": {"2": {"n": 4, "pass@1": 0.5}, "3": {"n": 4, "pass@1": 0.5}}}
            record = {"stage": stage, "step": at, "n": len(rows), "pass@1": share, "ci95": [0.1, 0.9], "seconds": 1.0}
            run.evaluation({**record, "by": by, "pass@k": {"4": 0.75}}, rows)
    return folder


def _numbered(passed: list[bool]) -> list[tuple[str, bool]]:
    return [(f"problem {row}", good) for row, good in enumerate(passed)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return a_run(folder / "mix", MIX), a_run(folder / "sft", SFT, controller="sft_only")


def test_a_difference_is_the_one_counted_by_hand(runs):
    compared = compare(runs)
    (found,) = compared["differences"]
    # mix: 0 2 3 4 6; sft: 2 5
    assert (found["n"], found["wins"], found["regressions"]) == (8, 1, 4)
    assert (found["before"], found["after"], found["difference"]) == (5 / 8, 2 / 8, -3 / 8)
    assert found["negative_flip_rate"] == 4 / 8  # of all problems
    assert found["lost_share"] == 4 / 5  # of those that were right
    assert (found["lo"], found["hi"]) == paired_difference(MIX, SFT)[1:]
    assert found["p"] == pytest.approx(2 * (1 + 5) / 2**5)
    assert [(flip["row"], flip["kind"]) for flip in found["flips"]] == [
        (0, "regression"), (3, "regression"), (4, "regression"), (5, "win"), (6, "regression")
    ]  # fmt: skip
    assert found["flips"][3]["before"]["completion"] == "mix on 5"
    assert found["flips"][3]["after"] == {"completion": "sft on 5", "score": 1.0, "why": "note 5"}


@pytest.mark.parametrize(
    ("old", "new", "gold", "rates"),
    [
        ("AABB", "ABAB", "AAAA", (0.25, 0.25)),
        ("AB", "AC", "DD", (0.0, 0.5)),  # of the notes: from one wrong answer to another
        ("A-", "-A", "DD", (0.0, 1.0)),  # none is an answer, too
    ],
)
def test_muscles_rates_by_hand(old, new, gold, rates):
    def answered(answers):
        return {
            (str(row), 0): {"row": row, "prompt": str(row), "passed": said == right, "parsed": said.strip("-") or None}
            for row, (said, right) in enumerate(zip(answers, gold, strict=True))
        }

    found = difference(answered(old), answered(new))
    assert (found["negative_flip_rate"], found["negative_flip_rate_mc"]) == rates


def test_runs_without_answers_have_no_rate_of_multiple_choice(runs):
    assert compare(runs)["differences"][0]["negative_flip_rate_mc"] is None


def test_by_difficulty_and_since_the_own_warm_up(runs):
    compared = compare(runs)
    by = compared["differences"][0]["by"]["people"]
    assert list(by) == ["2", "3"]
    assert [(part["n"], part["wins"], part["regressions"]) for part in by.values()] == [(4, 0, 3), (4, 1, 1)]
    own = [run["since_warmup"] for run in compared["runs"]]
    assert [(each["wins"], each["regressions"], each["negative_flip_rate"]) for each in own] == [
        (3, 1, 1 / 8), (1, 2, 2 / 8)
    ]  # fmt: skip
    assert [run["pass@1"] for run in compared["runs"]] == [5 / 8, 2 / 8]
    assert compared["runs"][0]["pass@k"] == {"4": 0.75}


def test_only_what_differs_in_the_recipes(runs):
    assert compare(runs)["settings"] == {"hybrid.controller.name": ["sasr", "sft_only"]}
    assert settings([{"a": {"b": 1}, "c": [1]}, {"a": {}, "c": [1]}]) == {"a.b": [1, None], "a": [None, {}]}


def test_the_warm_ups_themselves(runs):
    compared = compare(runs, "warmup")
    assert compared["differences"][0]["difference"] == 0.0
    assert compared["differences"][0]["p"] == 1.0
    assert [run["since_warmup"] for run in compared["runs"]] == [None, None]


def test_problems_are_matched_by_prompt_however_often_it_comes(runs, tmp_path):
    again = [("problem 3", True), ("problem 3", False), ("new", True)]
    other = a_run(tmp_path / "other", MIX, extra=again)
    compared = compare([runs[0], other])
    assert compared["differences"][0]["n"] == 8
    assert compared["differences"][0]["flips"] == []
    assert "8 of 11 problems are in both mix and other; the rest are left out" in compared["warnings"]
    third = a_run(tmp_path / "third", MIX, extra=[("problem 3", False)])
    (found,) = compare([other, third])["differences"]
    assert (found["n"], found["regressions"]) == (9, 1)
    found = problems({(5, "x"): {"row": 5}, (2, "x"): {"row": 2}, (3, "y"): {"row": 3}})
    assert found == {("x", 0): {"row": 2}, ("y", 0): {"row": 3}, ("x", 1): {"row": 5}}


def test_runs_without_a_problem_in_common(runs, tmp_path):
    other = a_run(tmp_path / "other", MIX)
    for file in (other / "completions").glob("*.parquet"):
        from posttrain.rundir import completions as records

        rows = [row | {"prompt": f"another {row['row']}"} for row in records.read_completions(file)]
        records.write_completions(file, rows)
    with pytest.raises(DataError, match=r"other and mix share no problem: 8 and 8 prompts(.|\n)*run\.seed"):
        compare([runs[0], other])


def test_several_comparisons_are_adjusted_and_said(runs, tmp_path):
    third = a_run(tmp_path / "third", [not good for good in MIX])
    compared = compare([*runs, third])
    p, adjusted = ([each[key] for each in compared["differences"]] for key in ("p", "p_holm"))
    assert adjusted == holm(p)
    assert any("2 comparisons with one baseline" in said for said in compared["warnings"])
    assert not any("comparisons" in said for said in compare(runs)["warnings"])


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_mcnemar_is_the_sign_test():
    assert mcnemar(0, 0) == mcnemar(3, 3) == 1.0
    assert mcnemar(8, 0) == mcnemar(0, 8) == 2 / 2**8
    assert mcnemar(10, 3) == pytest.approx(0.09228515625)  # R: binom.test(3, 13)$p.value


def test_an_unfinished_run_is_compared_as_far_as_it_is(runs, tmp_path):
    young = a_run(tmp_path / "young", MIX, stages=("warmup",), steps=1)
    compared = compare([runs[0], young])
    assert compared["runs"][1]["stage"] == "warmup"
    said = "\n".join(compared["warnings"])
    assert "young is not finished: its last evaluation is that of the stage warmup, step 2" in said
    assert "evaluations of different stages are compared: mix final, young warmup" in said
    with pytest.raises(ConfigError, match=r"no evaluation of the stage final\n  expected: one of warmup"):
        compare([runs[0], young], "final")
    newborn = a_run(tmp_path / "newborn", MIX, stages=(), steps=0)
    with pytest.raises(ConfigError, match="newborn: the run has not been evaluated yet"):
        compare([runs[0], newborn])


def test_what_cannot_be_compared_is_refused(runs, tmp_path):
    with pytest.raises(ConfigError, match="1 run"):
        compare(runs[:1])
    with pytest.raises(ConfigError, match="mix is named twice"):
        compare([runs[0], runs[0].parent / "sft" / ".." / "mix"])
    with pytest.raises(ConfigError, match="is no run"):
        compare([runs[0], tmp_path])
    shutil.copytree(runs[1], tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare" / "completions")
    with pytest.raises(ConfigError, match=r"bare: the completions .* are not there\n.*eval-final-000004.parquet"):
        compare([runs[0], tmp_path / "bare"])


def test_other_limits_and_other_rewards_are_said(runs, tmp_path):
    other = a_run(tmp_path / "other", MIX, length=128)
    environment = json.loads((other / "environment.json").read_text())
    environment["fingerprints"]["reward knights_knaves"] = "other code"
    (other / "environment.json").write_text(json.dumps(environment))
    said = "\n".join(compare([runs[0], other])["warnings"])
    assert "limits on the length of a completion: 128, 64" in said
    assert "code of the reward knights_knaves differs" in said


def test_names_are_as_short_as_they_can_be():
    assert names([Path("/a/x/run"), Path("/a/y/run")]) == ["x/run", "y/run"]
    assert names([Path("/a/x"), Path("/b/y")]) == ["x", "y"]


def test_time_and_tokens(runs):
    found = spent(Layout(runs[0]), {})
    assert found["seconds"]["warmup"] == {"total": 4.0}
    assert found["seconds"]["hybrid"] == {"total": 12.0, "sft": 3.0, "generate": 3.0}
    assert found["total_seconds"] == 4 + 12 + 2
    assert (found["sampled"], found["trained_sft"], found["trained_grpo"]) == (2 * 16 * 10, 200, 160)
    assert (found["warmup_demonstrations"], found["steps"]) == (8, {"warmup": 2, "hybrid": 4})


# -- weights -----------------------------------------------------------------------------------------------------------


def test_the_share_of_weights_that_changed(tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    old = {"a": torch.ones(4, 5), "b": torch.full((10,), 2.0), "gone": torch.ones(1)}
    new = {"a": old["a"].clone(), "b": old["b"].clone()}
    new["a"][0, :3] += 1.0
    new["b"][:2] += 1e-6  # nothing in bfloat16
    for folder, tensors in ((before, old), (after, new)):
        folder.mkdir()
        save_file(tensors, folder / "model.safetensors")
    found = weights_change(before, after)
    assert (found.parameters, found.changed, found.changed_bf16) == (30, 5 / 30, 3 / 30)
    assert found.relative_l2 == pytest.approx(math.sqrt(3 / (20 + 40)), rel=1e-5)
    assert "gone" in found.note
    same = weights_change(after, after)
    assert (same.changed, same.relative_l2) == (0.0, 0.0)
    save_file({"a": torch.ones(2, 2)}, after / "model.safetensors")
    with pytest.raises(DataError, match=r"a has the shape \[2, 2\]"):
        weights_change(before, after)


def test_what_moved_by_less_than_1e_5_is_told_apart(tmp_path):
    for folder, value in (("before", [0.0] * 4), ("after", [0.0, 5e-6, 1e-4, 1.0])):
        (tmp_path / folder).mkdir()
        save_file({"a": torch.tensor(value)}, tmp_path / folder / "model.safetensors")
    found = weights_change(tmp_path / "before", tmp_path / "after")
    assert (found.beyond, found.changed) == (0.5, 0.75)


def test_the_rank_of_a_change_by_layer(tmp_path):
    torch.manual_seed(0)
    old = {f"model.layers.{layer}.w.weight": torch.randn(6, 8) for layer in range(2)}
    new = {name: value.clone() for name, value in old.items()}
    new["model.layers.0.w.weight"] += torch.outer(torch.randn(6), torch.randn(8))
    new["model.layers.1.w.weight"][0, 0] += 1e-6
    new["lm_head.weight"] = torch.ones(2, 2)
    for folder, tensors in (("before", old), ("after", new)):
        (tmp_path / folder).mkdir()
        save_file(tensors, tmp_path / folder / "model.safetensors")
    found = by_layer(tmp_path / "before", tmp_path / "after")
    assert {number: round(layer.rank * 6) for number, layer in found.items()} == {0: 1, 1: 1}
    assert {number: layer.beyond for number, layer in found.items()} == {0: 1.0, 1: 0.0}
    assert rank_share(torch.zeros(3, 4)) == 0.0
    assert rank_share(torch.randn(3, 4)) == 1.0
    assert "16.7% of the full rank" in layers_in_words(found)


def test_sharded_weights_in_pieces_are_the_same(tmp_path, tiny_model, monkeypatch):
    """Other shards and other pieces, and a start that was saved in bfloat16."""
    monkeypatch.setattr("posttrain.reading.compare_weights.PIECE", 100)
    tiny_model.save_pretrained(tmp_path / "one")
    tiny_model.to(torch.bfloat16).save_pretrained(tmp_path / "many", max_shard_size="10KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    found = weights_change(tmp_path / "many", tmp_path / "one")
    whole = load_file(tmp_path / "one" / "model.safetensors")
    values = torch.cat([tensor.flatten() for tensor in whole.values()])
    assert found.parameters == values.numel()
    assert found.changed == int((values != values.bfloat16().float()).sum()) / values.numel()
    assert found.changed_bf16 == 0.0


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"modules_to_save": ["lm_head"]},
                                     {"target_modules": ["q_proj", "embed_tokens"], "alpha_pattern": {"q_proj": 9}}],
                         ids=["plain", "rslora", "whole-head", "embedding"])  # fmt: skip
def test_what_an_adapter_does_is_measured_without_the_product(tmp_path, tiny_model, options):
    tiny_model.save_pretrained(tmp_path / "base")
    settings = {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": False}
    torch.manual_seed(0)
    base = load_policy(tmp_path / "base")
    base.lm_head.weight = torch.nn.Parameter(base.lm_head.weight.clone())  # parted from the embedding
    base.config.tie_word_embeddings = False
    base.save_pretrained(tmp_path / "base")
    states = []
    model = get_peft_model(base, LoraConfig(**(settings | options), task_type="CAUSAL_LM"))
    for name in ("early", "late"):
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(tmp_path / name, save_embedding_layers=False)
        merged = load_policy(tmp_path / name).merge_and_unload()
        states.append({key: value.double() for key, value in merged.state_dict().items()})
    start = {key: value.double() for key, value in load_policy(tmp_path / "base").state_dict().items()}

    def norm(one, other=None):
        return math.sqrt(sum(float((one[key] - (other[key] if other else 0)).square().sum()) for key in start))

    since_start = adapter_change(None, tmp_path / "late", tmp_path / "base")
    assert since_start.relative_l2 == pytest.approx(norm(states[1], start) / norm(start), rel=1e-4)
    touched = sum(start[key].numel() for key in start if not torch.equal(states[1][key], start[key]))
    assert since_start.adapted == since_start.changed == touched / since_start.parameters
    since_early = adapter_change(tmp_path / "early", tmp_path / "late", tmp_path / "base")
    assert since_early.relative_l2 == pytest.approx(norm(states[1], states[0]) / norm(start), rel=1e-4)
    assert adapter_change(tmp_path / "late", tmp_path / "late", tmp_path / "base").relative_l2 < 1e-6


def test_no_weights_to_compare_is_said(runs, tmp_path):
    assert run_changes(Layout(runs[0])) == dict.fromkeys(("start", "warmup"), "there is no final model yet")
    run = shutil.copytree(runs[0], tmp_path / "run")
    (run / "model").mkdir()
    save_file({"a": torch.ones(3)}, run / "model" / "model.safetensors")
    found = run_changes(Layout(run))
    assert found == {"start": "the recipe names no model", "warmup": "there is no warm-up"}
    shutil.copytree(run / "model", run / "init")
    assert run_changes(Layout(run))["start"].changed == 0.0


# -- the command and its page ------------------------------------------------------------------------------------------


def test_the_command(runs, capsys, tmp_path):
    page = tmp_path / "page.html"
    assert main(["compare", *map(str, runs), "--html", str(page)]) == 0
    shown = capsys.readouterr().out
    assert "-37.5 (" in shown
    assert "62.5 %" in shown
    assert "hybrid.controller.name" in shown
    assert "320" in shown
    assert "\x1b" not in shown
    text = Page(page.read_text(encoding="utf-8")).text
    assert "\N{MINUS SIGN}37.5 points" in text
    assert "sft on 5" in text
    assert "note 5" in text
    assert main(["compare", *map(str, runs), "--json", "--no-weights"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["differences"][0]["regressions"] == 4
    assert main(["compare", *map(str, runs)]) == 0
    assert main(["compare", str(runs[0]), str(tmp_path)]) == 2


def test_hostile_runs_are_text(tmp_path):
    """Completions, prompts, notes, recipe, environment and names that try to be markup, and control codes."""
    bad = hostile_run(tmp_path / "<b>run & 'co'[red]x[bold]\x1b[31m")
    (bad / "recipe.yaml").write_text("task: '<b>'\n")  # its long texts take seconds to read
    other = shutil.copytree(bad, tmp_path / "other")
    shutil.copy(bad / "completions" / "eval-start-000000.parquet", other / "completions" / "eval-final-000040.parquet")
    compared = compare([bad, other])
    assert len(compared["differences"][0]["flips"]) == 16
    compared |= {"settings": {HOSTILE: [UNSEEN, HOSTILE]}, "warnings": [HOSTILE]}
    runs = [run | {"weights": weights_in_words({"start": HOSTILE})} for run in compared["runs"]]
    page = Page(compare_page(compared | {"runs": runs}))
    assert not {"script", "img", "iframe", "a href", "b"} & set(page.tags)
    assert all(name not in ("onerror", "onload") for name, _ in page.attributes)
    assert HOSTILE in page.text
    assert "\x1b" not in page.text
    assert "<U+202E>" in page.text
    written = io.StringIO()
    show(compared, Console(file=written, width=200, color_system=None))
    assert "[red]x[bold]" in written.getvalue()
    assert "\x1b" not in written.getvalue()


def test_a_library_run_without_a_recipe(runs, tmp_path):
    run = shutil.copytree(runs[0], tmp_path / "library")
    (run / "recipe.yaml").unlink()
    (run / "environment.json").unlink()
    compared = compare([runs[1], run])
    assert compared["differences"][0]["n"] == 8
    assert compared["settings"]["task.name"] == ["knights_knaves", None]


def test_intervals_do_not_depend_on_anything_but_the_results(runs):
    np.random.default_rng(5)
    assert compare(runs)["differences"] == compare(runs)["differences"]
    assert difference({("x", 0): {}}, {("y", 0): {}}) == {"n": 0}


def test_without_flips_there_is_no_interval_and_a_tiny_p_is_said_as_such(runs, tmp_path):
    same = a_run(tmp_path / "same", MIX)
    better = a_run(tmp_path / "better", [True] * 30, warm=[False] * 30)
    worse = a_run(tmp_path / "worse", [False] * 30, warm=[False] * 30)
    shown = []
    for pair in ((runs[0], same), (worse, better)):
        console = Console(width=160, file=io.StringIO())
        compared = compare(pair)
        show(compared, console)
        page = " ".join(
            Page(compare_page(compared | {"runs": [r | {"weights": {}} for r in compared["runs"]]})).text.split()
        )
        shown.append((" ".join(console.file.getvalue().split()), page))
    assert "+0.0 (no flips: no interval)" in shown[0][0]
    assert "no flips: no interval" in shown[0][1]
    assert "no interval over 8 problems; p 1" in shown[0][1]
    assert "negative flip rate McNemar p" in shown[1][0]
    assert "+100.0 (all flipped: no interval) 30 0 0.0 % <0.0001" in shown[1][0]
    assert "p <0.0001" in shown[1][1]
    assert "note: differences are in points" in shown[1][0]
    assert "exact test of the flips" in shown[1][0], "not cut"
