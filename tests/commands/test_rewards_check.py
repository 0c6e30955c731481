"""`posttrain rewards check`: gold that fails, texts that pass, rewards that hang, and tasks side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posttrain import cli
from posttrain.commands.rewards.variants import NUMBER_OF_TRIES, Example, tries
from posttrain.scoring.score import Reward

RECIPE = """
model: no/such-model
task: {name: knights_knaves, people: [2], names: 6, split: statements, prompt: short, think_share: 0.0, train: 9,
       eval: 7, demonstrations: 8}
rewards: [REWARDS]
scoring: {workers: 0}
"""
REWARDS = """
import time

from posttrain import Score


def half(completion, *, solution):
    return Score(0.5, note="only half is right")


def one(completion, *, solution):
    return 1.0


def shape(completion):
    return completion.count("<answer>(1)") == 1 and completion.endswith("</answer>")


def none(completion, *, solution):
    return None


def hangs(completion, *, solution):
    if "\\x00" in completion:
        time.sleep(30)
    return completion.startswith("<answer>(1)") and completion.endswith("</answer>")


def trl(completions, **columns):
    return [2.0 for text in completions]


def absent(completion, *, sollution):
    return 1.0
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(REWARDS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(folder: Path, *functions: str, arguments: tuple[str, ...] = (), recipe: str = RECIPE) -> int:
    named = ", ".join(f"{{path: mine.py:{name}}}" for name in functions)
    (folder / "recipe.yaml").write_text(recipe.replace("[REWARDS]", f"[{named}]"))
    return cli.main(["rewards", "check", "recipe.yaml", "--json", "figures.json", *arguments])


def figures(folder: Path) -> dict[str, dict[str, Any]]:
    return {record["reward"]: record for record in json.loads((folder / "figures.json").read_text())["rewards"]}


def line(record: dict[str, Any], name: str) -> dict[str, Any]:
    return next(line for line in record["tries"] if line["name"] == name)


def test_the_tasks_own_reward_holds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(folder) == 0
    record = figures(folder)["knights_knaves"]
    assert (record["gold"], record["false_negatives"], record["false_positives"]) == ("ok", 0, 0)
    forms = {line["name"] for line in record["tries"] if line["kind"] in ("equal", "near")}
    assert len(record["tries"]) == NUMBER_OF_TRIES + len(forms) == 44
    assert {"equal: a table", "near: a hedge"} <= forms
    gold = line(record, "gold")
    assert (gold["n"], gold["mean"], gold["ones"], gold["none"], gold["failures"]) == (8, 1.0, 1.0, 0, 0)
    assert 0 < gold["ms_median"] <= gold["ms_max"]
    assert line(record, "the prompt echoed")["n"] == 8 + 16
    assert line(record, "another row's gold")["n"] == 8
    assert line(record, "a million digits")["n"] == 3
    out, err = capsys.readouterr()
    assert "gold, white space around" in out
    assert "knights_knaves: every gold completion gets 1.0; 0 false positives, 0 failures" in out
    assert "knights_knaves 44/44" in err


def test_fewer_rows_and_overrides(folder: Path) -> None:
    assert check(folder, arguments=("--rows", "3", "task.demonstrations=5")) == 0
    record = figures(folder)["knights_knaves"]
    assert line(record, "gold")["n"] == 3
    assert line(record, "empty")["n"] == 3 + 3


def test_gold_below_one_fails_unless_allowed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(folder, "half", "shape") == 1
    out, err = capsys.readouterr()
    assert "half: 8 of 8 gold completions below 1.0" in err
    assert "--allow" in err
    assert "8 false negatives" in out
    assert "demonstrations row 0: score 0.5: only half is right" in out
    assert "half: FAILED" in out
    assert figures(folder)["half"]["gold"] == "failed"
    assert line(figures(folder)["half"], "gold")["examples"][0]["note"] == "only half is right"
    assert len(line(figures(folder)["half"], "gold")["examples"]) == 3

    assert check(folder, "half", "shape", arguments=("--allow", "half")) == 0
    assert figures(folder)["half"]["gold"] == "allowed"


def test_a_reward_that_takes_everything(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(folder, "one") == 0
    record = figures(folder)["one"]
    wrong = [line for line in record["tries"] if line["kind"] == "wrong"]
    assert record["false_positives"] == sum(line["n"] for line in wrong) > 100
    assert "another row's gold" in [line["name"] for line in wrong]
    out = capsys.readouterr().out
    assert "8 false positives" in out
    assert "\x1b" not in out  # what a completion holds must not reach a terminal
    assert "\x00" not in out
    assert max(map(len, out.splitlines())) < 220


def test_a_reward_of_the_form_alone_cannot_know_whose_answer_it_is(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(folder, "shape") == 0
    record = figures(folder)["shape"]
    assert line(record, "another row's gold")["ones"] == 1.0
    assert record["false_positives"] == 0
    assert line(record, "gold, prose after")["amiss"] == 8
    assert "lower than gold in 8" in capsys.readouterr().out


def test_a_reward_that_never_applies_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(folder, "none") == 1
    assert "none: it applies to none of 8 gold completions" in capsys.readouterr().err


def test_trl_style_functions_have_a_scale_of_their_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(folder, "trl") == 0
    assert figures(folder)["trl"]["gold"] == "not judged"
    assert "trl: TRL-style, not judged" in capsys.readouterr().out


def test_a_hanging_reward_is_counted_not_waited_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(folder, "hangs", arguments=("scoring.workers=1", "scoring.time_limit_s=0.4")) == 0
    record = figures(folder)["hangs"]
    assert record["failures"] == 3
    assert line(record, "NUL and control bytes")["failures"] == 3
    assert "0.4 s" in line(record, "NUL and control bytes")["examples"][0]["error"]
    assert "fails" in capsys.readouterr().out


def test_what_cannot_be_checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for functions, arguments, said in (
        (["absent"], (), "the data has no column 'sollution'"),
        ([], ("--allow", "knight_knaves"), "--allow: no reward 'knight_knaves'"),
        ([], ("--rows", "0"), "--rows: 0"),
        ([], ("task.evall=3",), "did you mean eval?"),
        ([], ("task.eval=0",), "the task has no evaluation rows"),
    ):
        assert check(folder, *functions, arguments=arguments) == 2
        assert said in capsys.readouterr().err
    assert not (folder / "figures.json").exists()


def problems(folder: Path, count: int, **more: str) -> None:
    rows = [{"question": f"What is {i} + 1000?", "answer": str(i + 1000), **more} for i in range(count)]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


MATH = "{name: math, path: problems.jsonl, train: 4, eval: 4, demonstrations: 0}"


def test_gold_where_the_recipe_asks_for_no_demonstrations(folder: Path) -> None:
    """Made for the check where the task can, else of the answers of math problems."""
    assert check(folder, arguments=("task.demonstrations=0", "hybrid.controller.name=grpo_only")) == 0
    assert line(figures(folder)["knights_knaves"], "gold")["n"] == 50
    problems(folder, 8)
    assert check(folder, recipe=f"model: m\ntask: {MATH}\nscoring: {{workers: 0}}\n") == 0
    assert line(figures(folder)["math_answer"], "gold")["n"] == 8


def test_a_mixture_tries_each_reward_on_its_own_rows(folder: Path) -> None:
    problems(folder, 18, solution="We add.")
    recipe = RECIPE.replace("task: {", "task: [{").replace("demonstrations: 8}", f"demonstrations: 8}}, {MATH}]")
    recipe = recipe.replace("demonstrations: 0", "demonstrations: 6")
    assert check(folder, recipe=recipe) == 0
    found = figures(folder)
    assert (line(found["knights_knaves"], "gold")["n"], line(found["math_answer"], "gold")["n"]) == (8, 6)
    assert all(record["gold"] == "ok" and line(record, "empty")["none"] == 0 for record in found.values())
    assert all(record["false_positives"] == 0 for record in found.values())


def test_a_task_of_a_mixture_without_demonstrations_gets_gold_of_its_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problems(folder, 8)
    recipe = RECIPE.replace("task: {", "task: [{").replace("demonstrations: 8}", f"demonstrations: 8}}, {MATH}]")
    assert check(folder, recipe=recipe) == 0
    assert {name: line(record, "gold")["n"] for name, record in figures(folder).items()} == {
        "knights_knaves": 8,
        "math_answer": 8,
    }
    recipe = recipe.replace("demonstrations: 8}", "demonstrations: 0}").replace("train: 9", "train: 0")
    problems(folder, 12, solution="We add.")
    recipe = recipe.replace("eval: 4, demonstrations: 0", "eval: 4, demonstrations: 4")
    assert check(folder, recipe=recipe) == 0
    assert {name: line(record, "gold")["n"] for name, record in figures(folder).items()} == {
        "knights_knaves": 50,
        "math_answer": 4,
    }

    objects = [{"prompt": f"{i} in a list", "schema": {"type": "array"}, "gold": [i]} for i in range(8)]
    (folder / "objects.jsonl").write_text("".join(json.dumps(row) + "\n" for row in objects))
    part = "{name: json_structure, path: objects.jsonl, train: TRAIN, eval: 4, demonstrations: 0}"
    recipe = recipe.replace("demonstrations: 4}", f"demonstrations: 4}}, {part}")
    assert check(folder, recipe=recipe.replace("TRAIN", "4")) == 0
    assert line(figures(folder)["json_structure"], "gold")["n"] == 4  # in place of the train rows: there are no others

    capsys.readouterr()
    (folder / "objects.jsonl").write_text("".join(json.dumps(row) + "\n" for row in objects[:4]))
    assert check(folder, recipe=recipe.replace("TRAIN", "0")) == 1
    err = capsys.readouterr().err
    assert "json_structure: there is no demonstration to take gold completions from" in err
    assert "json_structure: it applies to none of" in err


@pytest.mark.parametrize(
    ("prompt", "answer", "completions"),
    [
        ("What is 67.4 + 61.75?", "129.15", ["The answer is \\boxed{67.4 + 61.75}."]),
        ("With $n=3$, find $n^2$ and $5^2-4^2.$", "9", ["The answer is \\boxed{5^2-4^2}."]),
        ("Evaluate \\[\\binom{15}{3}\\]", "455", ["The answer is \\boxed{\\binom{15}{3}}."]),
        ("Given that $n=3$, what is $n$?", "3", []),
        ("Which is larger, $x$ or $x+1$?", "x+1", []),
        ("How many are 5 and 6?", "11", []),
    ],
)
def test_the_formula_to_compute_is_boxed_as_if_it_were_the_answer(
    prompt: str, answer: str, completions: list[str]
) -> None:
    def reward(completion: str, *, answer: str) -> float:
        return 0.0

    example = Example("", {"prompt": prompt, "answer": answer}, prompt, "")
    found = next(some for some in tries(Reward.from_callable(reward), [example], []) if "formula" in some.name)
    assert found.kind == "wrong"
    assert [completion for _, completion in found.pairs] == completions


def test_a_reward_that_only_compares_values_falls_for_the_question(folder: Path) -> None:
    problems(folder, 18, solution="We add.")
    lenient = "import re\n\ndef value(completion, *, answer):\n"
    lenient += "    boxes = re.findall(r'boxed{([0-9+ ]+)}', completion)\n"
    lenient += "    return float(bool(boxes) and sum(map(int, boxes[-1].split('+'))) == int(answer))\n"
    (folder / "mine.py").write_text(lenient)
    recipe = f"model: m\ntask: {MATH.replace('demonstrations: 0', 'demonstrations: 6')}\nrewards: [REWARDS]\n"
    assert check(folder, "value", recipe=recipe + "scoring: {workers: 0}\n") == 0
    boxed = line(figures(folder)["value"], "prompt's formula, boxed")
    assert (boxed["n"], boxed["amiss"]) == (14, 14)
    assert check(folder, recipe=recipe.replace("[REWARDS]", "[math_answer]") + "scoring: {workers: 0}\n") == 0
    boxed = line(figures(folder)["math_answer"], "prompt's formula, boxed")
    assert (boxed["n"], boxed["amiss"]) == (14, 0)


def test_the_same_answer_in_another_order_is_not_another_answer() -> None:
    def reward(completion: str, *, names: list[str], solution: list[bool]) -> float:
        return 0.0

    def example(names: list[str], solution: list[bool], gold: str) -> Example:
        return Example("", {"names": names, "solution": solution}, "", gold)

    same = [
        example(["Ann", "Bob"], [True, False], "(1) Ann is a knight\n(2) Bob is a knave."),
        example(["Bob", "Ann"], [False, True], "(1) Bob is a knave\n(2) Ann is a knight."),
        example(["Ann", "Bob"], [True, False], "Let me see. (1) Ann is a knight (2) Bob is a knave."),
    ]
    other = example(["Cat", "Bob"], [True, False], "(1) Cat is a knight (2) Bob is a knave.")

    def taken(*examples: Example) -> list[str]:
        found = next(some for some in tries(Reward.from_callable(reward), examples, []) if "another" in some.name)
        return [completion for _, completion in found.pairs]

    assert taken(*same[:2]) == []
    assert taken(same[0], same[2]) == []
    assert taken(same[0], same[1], other) == [other.gold, other.gold, same[0].gold]


def test_demonstrations_that_are_wrong_on_purpose_are_left_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(folder, arguments=("task.noise_share=0.5", "task.demonstrations=12")) == 0
    assert line(figures(folder)["knights_knaves"], "gold")["n"] == 6
    assert "6 of 12 demonstrations are wrong on purpose (noise_share 0.5)" in capsys.readouterr().err
    assert check(folder, arguments=("task.noise_share=1.0", "--rows", "4")) == 0  # right ones are made for it
    assert line(figures(folder)["knights_knaves"], "gold")["n"] == 4


def test_countdown_holds(folder: Path) -> None:
    recipe = RECIPE.replace(
        "people: [2], names: 6, split: statements", "numbers: [3], largest: 20, target: [1, 60]"
    ).replace("knights_knaves", "countdown")
    assert check(folder, recipe=recipe) == 0
    record = figures(folder)["countdown"]
    assert (record["gold"], record["false_negatives"], record["false_positives"]) == ("ok", 0, 0)
    assert {line["mean"] for line in record["tries"] if line["kind"] == "equal"} == {1.0}
    assert {line["mean"] for line in record["tries"] if line["kind"] == "near"} == {0.0}
