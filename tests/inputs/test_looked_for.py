"""What a plan, a run and its report say of held-out rows in what is trained on, and what it costs on large data."""

from __future__ import annotations

import json

import pytest

from posttrain.inputs.looked_for import in_words, look_for_leaks, spread
from posttrain.inputs.overlap import overlaps, summed_up, text_of
from posttrain.planning.machine import Machine
from posttrain.planning.plan import make_plan
from posttrain.recipe.recipe import Recipe
from posttrain.rundir.layout import Layout
from posttrain.rundir.reading import leaks_of
from posttrain.tasks import TaskData

STORY = "Ann has {0} apples and gives {1} of them to her brother before school begins, so how many of them remain now?"
OTHER = "Which word comes {0} places after the {1}th one of a page that somebody opened by chance at noon yesterday?"
WRITTEN = {"name": "rows", "path": "rows.jsonl"}


def recipe(*tasks) -> Recipe:
    task = tasks[0] if len(tasks) == 1 else {"name": "mixture", "tasks": list(tasks)}
    return Recipe.model_validate({"model": {"init": {"layers": 1}}, "task": task})


def rows(of: str, some) -> list[dict]:
    return [{"prompt": of.format(n, n + 1), "completion": str(n)} for n in some]


DATA = TaskData(train=rows(STORY, range(40)), demonstrations=rows(STORY, range(50, 60)),
                eval=[*rows(STORY, [71]), *rows("{0} and {1}", [1]), *rows(OTHER, range(18))])  # fmt: skip


def test_it_is_what_the_command_counts():
    found = look_for_leaks(recipe(WRITTEN), DATA)
    whole = overlaps([text_of({"prompt": row["prompt"]}) for row in DATA.eval],
                     [text_of(row) for row in [*DATA.train, *DATA.demonstrations]])  # fmt: skip
    expected = {key: value for key, value in summed_up(whole).items() if key != "buckets"}
    assert found == {
        **expected,
        "of_rows": 20,
        "trained": 50,
        "of_trained": 50,
        "short": found["short"],
        "generated": [],
    }
    assert (found["overlapping"], found["contaminated"]) == (1, True)
    said = in_words(found)
    assert said.startswith("leaks: 1 of 20 held-out rows (5.0%) share more than 50% of their tokens with one row")
    assert ", more than the 2% from which" in said
    assert "looked at" not in said


def test_of_large_data_evenly_spread_rows_are_looked_at_and_what_is_skipped_is_said():
    trained = sum(len(text_of(row)) for row in [*DATA.train, *DATA.demonstrations])
    found = look_for_leaks(recipe(WRITTEN), DATA, most=trained // 5, most_held_out=10**6)
    assert (found["trained"], found["of_trained"], found["rows"]) == (9, 50, 20)
    assert "(looked at 9 of 50 rows trained on; `posttrain data leaks` looks at all)" in in_words(found)
    found = look_for_leaks(recipe(WRITTEN), DATA, most_held_out=700)
    assert "looked at 7 of 20 held-out rows" in in_words(found)
    texts = ["x" * 10] * 100
    assert [len(spread(texts, most)) for most in (1000, 999, 500, 1)] == [100, 50, 50, 1]


def test_rows_that_a_generator_wrote_are_not_compared():
    assert in_words(look_for_leaks(recipe({"name": "knights_knaves"}), DATA)).startswith(
        "leaks: no held-out row is trained on; generated rows"
    )
    both = TaskData(*([{**row, "task": name} for name in ("rows", "countdown") for row in part]
                      for part in (DATA.train, DATA.demonstrations, DATA.eval)))  # fmt: skip
    found = look_for_leaks(recipe(WRITTEN, {"name": "countdown"}), both)
    assert (found["rows"], found["of_trained"], found["generated"]) == (20, 50, ["countdown"])
    assert in_words(None) == ""


def test_a_plan_warns_of_contaminated_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, some in (("rows", [*DATA.train, *DATA.demonstrations]), ("held", DATA.eval)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({**row, "answer": "1"}) + "\n" for row in some))
    planned = Recipe.model_validate({
        "model": {"init": {"layers": 1}}, "task": {**WRITTEN, "eval_path": "held.jsonl"}, "rewards": ["math_answer"],
        "warmup": {"steps": 1}, "hybrid": {"steps": 1, "controller": {"name": "sft_only"}},
    })  # fmt: skip
    plan = make_plan(planned, Machine(device="cpu", processes=1))
    (finding,) = [each for each in plan.findings if each.kind == "leaks"]
    assert finding.level == "warning"
    assert "1 of 20 held-out rows" in finding.evidence
    assert plan.leaks["contaminated"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"fingerprint": "f"}', '{"fingerprint": "f", "leaks": null}'])
def test_a_run_that_says_nothing_of_leaks(tmp_path, text):
    Layout(tmp_path).data_file.write_text(text)
    assert leaks_of(Layout(tmp_path)) is None
    Layout(tmp_path).data_file.write_text('{"fingerprint": "f", "leaks": {"rows": 0}}')
    assert leaks_of(Layout(tmp_path)) == leaks_of(Layout(tmp_path), "f") == {"rows": 0}
    assert leaks_of(Layout(tmp_path), "g") is None
