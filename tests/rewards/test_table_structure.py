"""The reward `table_structure`: what is read as a table, what structure and content earn, and text out to break it."""

from __future__ import annotations

import json
import random
import re

import pytest

from posttrain.errors import RewardError
from posttrain.rewards.table_grade import content, structure
from posttrain.rewards.table_reading import LONGEST, NotATable, read_table
from posttrain.rewards.table_structure import score
from posttrain.scoring.calling import score_completion
from posttrain.scoring.score import Reward
from posttrain.tasks.table_structure.writing import FORMS, written

COLUMNS = ["host", "seats", "fee"]
ROWS = [["Ann", "7", "2.50"], ["Bob", "20", "4.00"], ["Carla", "9", "2.50"]]
TABLE = json.dumps({"columns": COLUMNS, "rows": ROWS})


def judged(completion, form, table=TABLE, **options):
    result = score(completion, table=table, form=form, **options)
    assert result is not None
    assert 0 <= result.value <= 1
    return result


@pytest.mark.parametrize("form", FORMS)
def test_the_gold_table_scores_1_and_what_differs_less(form):
    assert judged(written(form, COLUMNS, ROWS), form).value == 1
    other = next(each for each in FORMS if each != form)
    assert judged(written(other, COLUMNS, ROWS), form).parts == dict.fromkeys(
        ("parses", "structure", "content", "only_table"), 0.0
    )

    def parts(columns, rows):
        found = judged(written(form, columns, rows), form)
        assert found.value < 1
        return found.parts["structure"], found.parts["content"]

    cells = [cell for row in ROWS for cell in row]
    cells = [cells[-1], *cells[:-1]]
    assert parts(COLUMNS, [cells[:3], cells[3:6], cells[6:]]) == (1, 0)  # each cell one place further
    assert parts(COLUMNS, [ROWS[0], ["Bob", "9", "2.50"], ["Carla", "20", "4.00"]]) == (1, pytest.approx(7 / 9 / 2))
    assert parts(COLUMNS, ROWS[::-1]) == (1, 0.5)  # all cells, in another order
    turned = [row[::-1] for row in ROWS]
    assert parts(COLUMNS[::-1], turned) == (pytest.approx((1 / 3 + 1 + 1) / 3), 1)  # by the names all is right
    assert parts(COLUMNS, turned) == (1, pytest.approx(3 / 9 / 2))
    assert parts(["who", "seats", "fee"], ROWS) == (pytest.approx((2 / 3 + 2) / 3), pytest.approx(6 / 9 / 2))
    assert parts(COLUMNS, ROWS[:2]) == (pytest.approx((1 + 2 / 3 + 1) / 3), pytest.approx(12 / 15 / 2))
    assert parts(COLUMNS, [*ROWS, ROWS[0]]) == (pytest.approx((1 + 3 / 4 + 1) / 3), pytest.approx(18 / 21 / 2))
    assert parts(COLUMNS, []) == (pytest.approx(1 / 3), 0)


def test_structure_by_hand():
    assert structure(["a", "b"], [["1", "2"]], ["a", "b"], 1) == 1
    assert structure(["b", "a", "c"], [["1", "2"], ["1"]], ["a", "b"], 1) == pytest.approx((2 / 5 + 1 / 2 + 0) / 3)
    assert structure(["a", "c", "b"], [["1", "2", "3"], ["1"]], ["a", "b"], 4) == pytest.approx(
        (4 / 5 + 1 / 2 + 1 / 2) / 3
    )
    assert structure(["a"], [], ["a"], 0) == 1
    assert structure(["a"], [], ["a"], 2) == pytest.approx(1 / 3)
    assert structure(["a"], [["1"]], ["a"], 0) == pytest.approx(2 / 3)


def test_content_by_hand():
    gold, right = ["a", "b"], [["1", "x"], ["2", "y"]]
    assert content(gold, right, gold, right) == (1, True)
    assert content(["b", "a"], [["x", "01.0"], ["y", "2"]], gold, right) == (1, True)
    assert content(gold, [["2", "y"], ["1", "x"]], gold, right) == (1, False)
    assert content(gold, [["1", "y"], ["2", "y"]], gold, right) == (pytest.approx(2 * 3 / 8), False)
    assert content(gold, [["1", "x", "2", "y"]], gold, right) == (pytest.approx(2 * 2 / 8), False)
    assert content(gold, [["1", "x"]] * 3, gold, right) == (pytest.approx(2 * 2 / 10), False)  # a row pays once
    assert content(gold, [], gold, []) == (1, True)
    assert content(gold, [["-0"]], ["a", "b"], [["0"]])[1]


@pytest.mark.parametrize(
    ("form", "completion"),
    [
        ("text", "host|seats|fee\n:---|---:|:--:\nAnn|7|2.5\nBob|20|4\nCarla|09|2.50"),
        (
            "text",
            "<think>| a |</think>\n<answer>\n| host | seats | fee |\n| Ann |7|2.5|\n|Bob|20|4|\n|Carla|9|2.5</answer>",
        ),
        (
            "html",
            "<!DOCTYPE html><html><body><!-- <b --><TABLE class='a'><caption>All | of it</caption><thead><tr><th>host"
            "<th>seats<th>fee</thead><tbody><tr><td><b>Ann</b><td>7<td>2.50<tr><td>B&#111;b<td>20<td>4.00<tr><th>Carla</th>"
            "<td colspan=1>9</td><td>\n2.50 </td></tr></tbody></table></body></html>",
        ),
        (
            "latex",
            "\\begin{table}[ht]\n\\centering\n\\caption{Who}\\label{who}\n"
            "\\begin{tabular*}{5cm}[t]{|l@{}r|p{2cm}|}\\toprule\n"
            "\\textbf{host} & {seats} & \\textit{fee} \\\\[2pt] \\midrule % & a comment\n"
            " Ann & $7$ & 2.50 \\\\ \\cline{1-2}\n"
            "Bob&20&4.00\\tabularnewline Carla & 9 & 2.50\\end{tabular*}\n\\end{table}",
        ),
    ],
)  # fmt: skip
def test_what_is_forgiven(form, completion):
    found = judged(completion, form)
    assert found.value == 1, found.note


def test_signs_that_mean_something_are_read_as_they_are_written():
    columns, rows = ["a_b", "50% & more"], [["<b>&amp;", "x|y"], ["{1}", "c:\\d ~ #1 $2"]]
    for form in FORMS:
        read = read_table(written(form, columns, rows), form)
        assert (read.columns, read.rows, read.alone) == (columns, rows, True), form
    assert read_table("\\begin{tabular}{ll}a_b & c\\\\ \\end{tabular}", "latex").columns == ["a_b", "c"]


@pytest.mark.parametrize(
    ("form", "completion", "said"),
    [
        ("text", "", "no line with a |"),
        ("text", "Ann 7", "no line with a |"),
        ("text", "| a |\n\n| b |", "several tables"),
        ("html", "| host |", "no <table>"),
        ("html", "<table><tr><td>1", "the table is cut off"),
        ("html", "<table></table>", "without a row"),
        ("html", "<table><tr><td>1</td></tr></table><table></table>", "several tables"),
        ("html", "<table><tr><td><table></table></td></tr></table>", "within a table"),
        ("html", "<table><tr><td colspan=2>1</td></tr></table>", "merged cells"),
        ("html", "<table><tr><td rowspan='12'>1</td></tr></table>", "merged cells"),
        ("html", "<table><tr><td", "not closed"),
        ("html", "<table><!-- <tr>", "not closed"),
        ("latex", "\\begin{tabular}", "cut off"),
        ("latex", "\\begin{tabular}{l} a", "cut off"),
        ("latex", "\\begin{tabular} a \\end{tabular}", "no columns"),
        ("latex", "\\begin{tabular}[t \\end{tabular}", "no columns"),
        ("latex", "\\begin{tabular}{l}{a \\end{tabular}", "braces"),
        ("latex", "\\begin{tabular}{l}a} \\\\ \\end{tabular}", "braces"),
        ("latex", "\\begin{tabular}{l}\\multicolumn{2}{c}{a}\\end{tabular}", "merged cells"),
        ("latex", "\\begin{tabular}{l}a\\end{tabular}\\begin{tabular}{l}b\\end{tabular}", "several tables"),
        ("latex", "\\begin{array}{l}a\\end{array}", "no tabular"),
        ("text", "| a |" * LONGEST, "longer than"),
        ("text", "|\n" * 200, "cells, more than"),
        ("text", "<think>| a |", "no line"),
    ],
)
def test_what_is_no_table_earns_nothing_and_says_why(form, completion, said):
    found = judged(completion, form)
    assert found.value == 0
    assert said in found.note


@pytest.mark.parametrize("form", FORMS)
def test_other_text_costs_the_last_part(form):
    text = written(form, COLUMNS, ROWS)
    for around in (f"Here it is:\n{text}", f"{text}\nDone.", f"```\n{text}\n```"):
        found = judged(around, form)
        assert found.parts == {"parses": 1, "structure": 1, "content": 1, "only_table": 0}
        assert found.value == pytest.approx(0.9)
        assert judged(around, form, weights={"only_table": 0}).value == 1


def test_structure_and_content_alone():
    text = written("html", COLUMNS, ROWS[::-1])
    alone = {"parses": 0, "only_table": 0}
    assert judged(text, "html", weights={**alone, "content": 0}).value == 1
    assert judged(text, "html", weights={**alone, "structure": 0}).value == 0.5
    empty = written("text", COLUMNS, [[""] * 3] * 3)
    assert judged(empty, "text").value == pytest.approx(0.5)  # as the docstring says: nothing was read


def test_rows_of_other_tasks_and_unfit_ones():
    assert score("x", table=None, form="html") is None
    assert score("x", table=TABLE, form=None) is None
    assert judged(written("text", COLUMNS, ROWS), "text", table=json.loads(TABLE)).value == 1
    for table in ("{", "[]", "7", {"columns": ["a"]}, {"columns": [], "rows": []}, {"columns": ["a"], "rows": [[1]]},
                  {"columns": ["a", "b"], "rows": [["1"]]}, {"columns": ["a", "a"], "rows": []},
                  {"columns": ["a"], "rows": [["1"]] * 500}, "[" * 100_000):  # fmt: skip
        with pytest.raises(RewardError) as refused:
            score("", table=table, form="text")
        assert "table" in str(refused.value)
    with pytest.raises(RewardError, match="markdown"):
        score("", table=TABLE, form="markdown")
    with pytest.raises(RewardError, match=r"nearest: .content"):
        score("", table=TABLE, form="text", weights={"contents": 1})


HOSTILE = [
    "<!--", "<", "<table>", "<td>", "<!", "<![", "<a ", "&amp;", "&#", "&#x", "\\", "\\\\", "{", "}", "&", "%", "$",
    "|", "\\|", "|\n", "\\begin{tabular}", "\\begin{tabular}{l}", "\\end{tabular}", "[", "\\caption{", "\\\\[",
    "<script>", "<td ", "</", "<?", "<table a='", "<a b='>", "<a b=\"'>", "<![x>", "<!-->", "<!--->", "\\cline{", "a&",
    "\x00", "<answer>", "|--|\n", "<tr><td>1", "\ud800", "\u202e",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_hostile_text_is_scored_within_the_limit_and_never_passes(form):
    reward = Reward.from_callable(score)
    row = {"table": TABLE, "form": form}
    for sign in HOSTILE:
        many = (sign * LONGEST)[: LONGEST - 60]
        for text in (many, f"<table><tr><td>{many}", f"\\begin{{tabular}}{{l}}{many}\\end{{tabular}}", many * 50):
            outcome = score_completion(reward, text, row)
            assert outcome.error is None, (sign, outcome.error)
            assert outcome.value < 1
    rng = random.Random(form)
    pieces = [*HOSTILE, *re.findall(r".{1,9}", written(form, COLUMNS, ROWS)), "\n", " "]
    for _ in range(3000):
        assert judged("".join(rng.choices(pieces, k=rng.randint(0, 14))), form).value < 1


def test_neither_reader_reads_forever():
    with pytest.raises(NotATable, match="longer"):
        read_table("a" * (LONGEST + 1), "html")
