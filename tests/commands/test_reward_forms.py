"""Equal forms and near misses: what is made of gold answers, and that `posttrain rewards check` tells both rates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.commands.rewards.forms import Form, expressions, math, objects, roles
from posttrain.commands.rewards.forms.of_row import forms_of
from posttrain.commands.rewards.variants import Example, equal_and_near
from posttrain.rewards import countdown, json_structure, knights_knaves, math_answer, table_structure
from posttrain.rewards import format as format_reward
from posttrain.scoring.score import Reward
from posttrain.tasks.countdown import generate_rows
from posttrain.tasks.table_structure import TableStructure
from tests.commands.test_rewards_check import MATH, check, figures, folder, problems

__all__ = ["folder"]

GOLDS = [
    "72", "-3", "0", "9", "1234", "1,234", "0.75", r"\frac{3}{4}", r"-\frac{2}{3}", "5/8", r"14\text{ cm}",
    "20 minutes", "5 dollars", r"\{1,2,5\}", "(3,4)", "(0,1)", "[1,2)", r"(-\infty,2)", r"[3,\infty)", "(1,2,3)",
    "3, 8", "2,3,4", "B", "(C)", r"2\sqrt{3}", r"\frac{\pi}{2}", "y=2x+1", "x^2+3x", "x=5", "$14$", "3x-2", "n(n+1)",
    r"\text{Tuesday}", r"\begin{pmatrix}1\\2\end{pmatrix}", "x<3", r"1\pm\sqrt{2}", r"x\in(1,2)", "12:30", "2^{10}",
]  # fmt: skip


def kinds(found: list[Form], *, equal: bool) -> set[str]:
    return {form.kind for form in found if form.equal is equal}


@pytest.mark.parametrize("gold", GOLDS)
def test_forms_of_mathematics_are_what_they_say(gold: str) -> None:
    for form in math.forms(gold):
        said = math_answer.score(f"\\boxed{{{form.text}}}", answer=gold)
        assert said is not None
        assert said.value == float(form.equal), (form, said.note)


@pytest.mark.parametrize(
    ("gold", "equal", "near"),
    [
        ("72", {"$72$", r"72\text{ cm}", "x = 72", "72.0", r"\text{72}"}, {"73", "-72", "720"}),
        ("1234", {"1,234", "1{,}234"}, {"1235"}),
        (r"\frac{3}{4}", {r"\dfrac{3}{4}", "3/4", "0.75"}, {r"\frac{4}{4}", r"-\frac{3}{4}", r"\frac{4}{3}"}),
        ("(3,4)", {r"\left(3, 4\right)"}, {"(4, 3)", "(3, 5)"}),
        ("[1,2)", set(), {"[1, 2]"}),
        (r"[3,\infty)", set(), {r"(3, \infty)"}),
        (r"\{1,2,5\}", {r"\{5, 2, 1\}"}, {r"\{1, 2\}"}),
        ("3, 8", {"8, 3", "$3$ and $8$", "x = 3, x = 8"}, {"3", "3, 9"}),
        (r"14\text{ cm}", {"14"}, {r"14\text{ kg}"}),
        ("B", {r"\textbf{(B)}", "$B$"}, {"C"}),
        ("y=2x+1", {"2x+1 = y"}, {"y = 2x+2"}),
    ],
)
def test_each_shape_has_its_own(gold: str, equal: set[str], near: set[str]) -> None:
    found = list(math.forms(gold))
    assert equal <= {form.text for form in found if form.equal}
    assert near <= {form.text for form in found if not form.equal}


@pytest.mark.parametrize("gold", ["", "  ", r"\text{Tuesday}", "see the figure", "1" * 300, "x<3"])
def test_of_what_nobody_can_vary_there_is_nothing(gold: str) -> None:
    assert list(math.forms(gold)) == []


@pytest.mark.parametrize("words", [None, {"knight": "saint", "knave": "egoist", "a_knave": "an egoist"}])
@pytest.mark.parametrize("solution", [[True, False, True], [True, True], [False], [False, False, False, True]])
def test_forms_of_roles_are_what_they_say(solution: list[bool], words: dict[str, str] | None) -> None:
    names = ["Ann", "Bob", "Cleo", "Dan"][: len(solution)]
    found = list(roles.forms(names, solution, words))
    assert {"a table", "in another order"} <= kinds(found, equal=True)
    assert {"the last role", "a hedge"} <= kinds(found, equal=False)
    for form in found:
        said = knights_knaves.score(form.text, names=names, solution=solution, knight_knave=words)
        assert said.value == float(form.equal), (form, said.note)


@pytest.mark.parametrize(
    "gold",
    [
        {"name": "Zoë", "age": 3, "pets": [{"kind": "cat", "old": True}, {"kind": "dog", "old": False}], "cm": 1.5},
        [1, 2],
        {},
        "text",
        {"a": {"b": {"c": None}}},
    ],
)
def test_forms_of_objects_are_what_they_say(gold: Any) -> None:
    before = json.dumps(gold)
    found = list(objects.forms(gold))
    assert json.dumps(gold) == before
    for form in found:
        said = json_structure.score(form.text, schema={}, gold=before)
        assert said is not None
        assert (said.value == 1) is form.equal, (form, said.note)
    if isinstance(gold, dict) and "pets" in gold:
        assert kinds(found, equal=True) >= {"compact", "indented", "keys in another order", "letters escaped"}
        assert kinds(found, equal=False) >= {
            "a key removed", "a key renamed", "an item removed", "another number", "another decimal", "another text",
            "true for false", "cut short",
        }  # fmt: skip


def test_forms_of_expressions_are_what_they_say() -> None:
    rows = generate_rows("2-4", 30, largest=20, target=(1, 60), think_share=0.5)
    reward = Reward.from_callable(countdown.score)
    for row in rows:
        found = forms_of(reward, row, row["completion"])
        assert found == list(dict.fromkeys(expressions.forms(row["expression"], row["target"])))
        assert (len(kinds(found, equal=True)), len(kinds(found, equal=False))) in {(7, 6), (6, 6)}  # or no other sign
        for form in found:
            said = countdown.score(form.text, **{name: row[name] for name in ("numbers", "target")})
            assert said is not None
            assert said.value == float(form.equal), (form, said.note)


def test_forms_of_tables_are_what_they_say() -> None:
    reward = Reward.from_callable(table_structure.score)
    seen: dict[str, set[str]] = {}
    for row in TableStructure(train=0, eval=0, demonstrations=60).load(1).demonstrations:
        found = forms_of(reward, row, row["completion"])
        assert kinds(found, equal=False) >= {"a column renamed", "another cell", "a row twice", "names swapped"}
        seen.setdefault(row["form"], set()).update(kinds(found, equal=True))
        for form in found:
            said = table_structure.score(form.text, table=row["table"], form=row["form"])
            assert said is not None
            assert (said.value == 1) is form.equal, (form, said.note)
    assert {form: len(some) for form, some in seen.items()} == {"text": 3, "html": 5, "latex": 5}
    assert forms_of(reward, {"table": None, "form": "html"}, "") == []
    assert forms_of(reward, {"table": "{", "form": "html"}, "") == []


def test_forms_of_tags_are_what_they_say() -> None:
    reward = Reward.from_callable(format_reward.score)
    found = forms_of(reward, {}, "<think>so</think>\n<answer>4</answer>")
    assert len(kinds(found, equal=True)) == 2
    assert len(kinds(found, equal=False)) == 5
    for form in found:
        assert format_reward.score(form.text).value == float(form.equal), form
    assert forms_of(reward, {}, "no tags") == []


def test_a_reward_that_nobody_knows_gets_near_misses_alone() -> None:
    def mine(completion: str, *, answer: str, **row: Any) -> float:
        return 0.0

    row = {"prompt": "7", "answer": "49", "level": "7"}
    assert forms_of(Reward.from_callable(mine), row, "7 x 7 = 49, so 49.") == [
        Form("one digit", "7 x 7 = 49, so 48.", False)
    ]
    assert forms_of(Reward.from_callable(mine), row, "49 is 7 x 7") == []  # 7 is none of its answers


def test_a_row_without_a_gold_answer_has_no_forms() -> None:
    for function, row in (
        (math_answer.score, {"answer": None}),
        (knights_knaves.score, {"names": None, "solution": None}),
        (json_structure.score, {"schema": "{}", "gold": None}),
        (json_structure.score, {"schema": "{}", "gold": "{"}),
        (countdown.score, {"numbers": [3, 8], "target": 24}),
    ):
        assert forms_of(Reward.from_callable(function), row, "") == []


def test_of_each_kind_some_rows_from_all_over_the_data() -> None:
    examples = [Example(f"row {n}", {"answer": str(n)}, "", "") for n in range(100, 200)]
    lines = {some.name: some for some in equal_and_near(Reward.from_callable(math_answer.score), examples)}
    assert [example.where for example, _ in lines["near: one digit"].pairs][:2] == ["row 100", "row 105"]
    assert len(lines["near: one digit"].pairs) == 20
    assert lines["equal: named"].kind == "equal"


def test_both_rates_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problems(folder, 12)
    lenient = "from posttrain.rewards.math_answer import score as right\n\n"
    lenient += "def absolute(completion, *, answer):\n    return right(completion.replace('-', ''), answer=answer)\n\n"
    lenient += (
        "def exact(completion, *, answer):\n    return completion == f'The final answer is \\\\boxed{{{answer}}}.'\n"
    )
    (folder / "mine.py").write_text(lenient)
    recipe = f"model: m\ntask: {MATH}\nscoring: {{workers: 0}}\nrewards: "
    assert check(folder, recipe=recipe + "[math_answer]\n") == 0
    record = figures(folder)["math_answer"]
    assert record["equal_forms"]["n"] == record["equal_forms"]["paid"] > 50
    assert record["near_misses"] == {"n": 3 * 8, "paid": 0}
    out = capsys.readouterr().out
    assert "equal: a unit" in out
    assert f"equal forms paid {record['equal_forms']['n']} of {record['equal_forms']['n']} (100 %), near misses" in out

    assert check(folder, "absolute", "exact", recipe=recipe + "[REWARDS]\n") == 0
    assert figures(folder)["absolute"]["near_misses"] == {"n": 8, "paid": 0}  # only what is safe


def test_what_disagrees_is_shown(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """A built-in reward with two faults: it takes the sign for nothing, and knows no units."""
    problems(folder, 8)
    right = math_answer.score

    def faulty(completion: str, *, answer: str, **row: Any) -> Any:
        return 0.0 if "cm" in completion else right(completion.replace("-", ""), answer=answer)

    faulty.__module__ = math_answer.__name__
    monkeypatch.setattr(math_answer, "score", faulty)
    assert check(folder, recipe=f"model: m\ntask: {MATH}\nscoring: {{workers: 0}}\n") == 0
    record = figures(folder)["math_answer"]
    assert record["near_misses"] == {"n": 24, "paid": 8}
    assert record["equal_forms"]["n"] - record["equal_forms"]["paid"] == 8
    assert record["false_positives"] == 0
    out = capsys.readouterr().out
    assert "8 paid" in out
    assert "8 not paid" in out
    assert "\\\\boxed{-100" in out
    assert "near misses paid 8 of 24 (33 %)" in out
