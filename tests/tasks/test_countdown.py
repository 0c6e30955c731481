"""The task `countdown`: its puzzles, the searches that are shown, and what no two parts share."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from fractions import Fraction
from itertools import combinations, permutations, product

import pytest
from datasets import Dataset
from pydantic import TypeAdapter, ValidationError

from posttrain.errors import ConfigError, DataError
from posttrain.rewards.arithmetic import work_out
from posttrain.rewards.countdown import score
from posttrain.storage.files import write_jsonl
from posttrain.tasks.countdown import Countdown, generate_rows, parse_sizes, write
from posttrain.tasks.countdown.arithmetic import in_order, needs_all, reached, steps, text, value
from posttrain.tasks.countdown.generate import Puzzle, random_expression
from posttrain.tasks.countdown.search import dead_ends, thought
from posttrain.tasks.json_structure import JsonStructure
from posttrain.tasks.knights_knaves import KnightsKnaves
from posttrain.tasks.mixture import Mixture
from posttrain.tasks.rows import Rows

COLUMNS = {"prompt", "numbers", "target", "use_all", "operators", "expression", "difficulty"}
ALL = ("+", "-", "*", "/")


def small(**options):
    counts = {"train": 60, "eval": 20, "demonstrations": 30}
    return Countdown(**{"numbers": [2, 3, 4], "target": [1, 99], **counts, **options})


def content(row):
    return (*sorted(row["numbers"]), row["target"])


def test_rows_have_the_columns_and_counts_and_can_be_solved():
    data = small().load(0)
    assert [len(data.train), len(data.eval), len(data.demonstrations)] == [60, 20, 30]
    assert data.notes == []
    for row in data.train + data.eval:
        assert set(row) == COLUMNS
    for row in data.demonstrations:
        assert set(row) == COLUMNS | {"completion"}
        assert row["completion"].startswith("<think>")
        assert row["completion"].endswith(f"</think>\n<answer>{row['expression']}</answer>")
        assert score(**row).value == 1
    for row in data.train + data.eval + data.demonstrations:
        worked = work_out(row["expression"])
        assert worked.values == (row["target"],)
        assert sorted(worked.numbers) == sorted(row["numbers"])  # all of them
        assert score(row["expression"], numbers=row["numbers"], target=row["target"], use_all=True).value == 1
        assert 1 <= row["target"] <= 99
        assert all(1 <= number <= 99 for number in row["numbers"])
        assert row["difficulty"] == len(row["numbers"])
        assert json.loads(json.dumps(row)) == row
    for size in (2, 3, 4):
        assert sum(row["difficulty"] == size for row in data.train) == 20


def test_no_puzzle_is_there_twice_in_whatever_order_its_numbers_stand():
    # Few numbers, so that the same ones come up again and again.
    task = Countdown(
        numbers=[3], operators=["+", "-"], largest=9, target=[1, 30], train=100, eval=60, demonstrations=60
    )
    data = task.load(3)
    everything = data.train + data.demonstrations + data.eval
    assert len({content(row) for row in everything}) == len(everything) == 220
    prompts = {tuple(row["numbers"]) for row in everything}
    assert len({tuple(sorted(numbers)) for numbers in prompts}) < len(prompts)  # so the check above could have failed


def test_what_is_asked_for_of_one_part_changes_no_other():
    few, many = small(train=5).load(1), small(train=90).load(1)
    assert few.eval == many.eval
    assert few.demonstrations == many.demonstrations
    assert small(demonstrations=0).load(1).eval == many.eval
    assert small().load(1) != small().load(2)


def test_other_processes_make_the_same_rows():
    code = "import json; from posttrain.tasks.countdown import generate_rows as g; print(json.dumps(g('3-4', 5, 2)))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert json.loads(done.stdout) == generate_rows("3-4", 5, 2)


def test_too_many_puzzles_are_refused():
    with pytest.raises(DataError, match="no new one of 2 numbers") as refused:
        Countdown(numbers=[2], operators=["+"], largest=3, target=[1, 6], train=9, eval=0, demonstrations=0).load(0)
    assert "larger numbers" in str(refused.value)


# ---- the numbers, by other means ----


def by_force(numbers, operators):
    """What expressions of all the numbers make, with whole numbers above 0 all the way."""
    if len(numbers) == 1:
        return set(numbers)
    found = set()
    for order in permutations(numbers):
        for cut in range(1, len(order)):
            for left, right in product(by_force(order[:cut], operators), by_force(order[cut:], operators)):
                made = {"+": left + right, "-": left - right, "*": left * right, "/": Fraction(left, right)}
                found |= {int(made[sign]) for sign in operators if made[sign] > 0 and made[sign] % 1 == 0}
    return found


@pytest.mark.parametrize(
    ("numbers", "operators"), [((3, 3, 8), ALL), ((2, 5, 7), ("+", "-")), ((1, 4, 4, 6), ALL), ((6, 6), ("*", "/"))]
)
def test_what_numbers_reach_is_what_trying_everything_finds(numbers, operators):
    assert reached(numbers, operators) == by_force(numbers, operators)


def test_the_numbers_are_all_needed():
    assert needs_all((3, 5, 8), 6, ("+", "-"))  # 8 + 3 - 5
    assert not needs_all((3, 5, 8), 13, ("+", "-"))  # 8 + 5
    assert not needs_all((3, 5, 8), 8, ALL)  # itself
    for row in small().load(0).train:
        numbers = tuple(sorted(row["numbers"]))
        for size in range(1, len(numbers)):
            for fewer in combinations(numbers, size):
                assert row["target"] not in by_force(fewer, ALL)


def test_sums_and_products_are_written_in_one_order():
    assert text(in_order(("-", 9, ("-", 8, 5)))) == "9 + 5 - 8"
    assert text(in_order(("+", 3, ("+", 9, ("*", 2, 7))))) == "7 * 2 + 9 + 3"
    assert text(in_order(("/", ("*", 3, 8), ("/", 6, 2)))) == "8 * 3 * 2 / 6"
    assert text(in_order(("*", ("-", 8, 5), ("+", 2, 6)))) == "(6 + 2) * (8 - 5)"
    assert text(in_order(("/", 24, ("-", 8, 5)))) == "24 / (8 - 5)"
    assert text(in_order(("-", 24, ("*", 2, 5)))) == "24 - 5 * 2"


def test_order_changes_no_value_and_keeps_whole_numbers():
    rng = random.Random(0)
    seen = 0
    for _ in range(3000):
        numbers = [rng.randint(1, 12) for _ in range(rng.randint(2, 5))]
        drawn = random_expression(rng, numbers, ALL)
        if drawn is None:
            continue
        seen += 1
        ordered = in_order(drawn)
        worked = work_out(text(ordered))
        assert worked.values == (value(drawn),)
        assert sorted(worked.numbers) == sorted(numbers)
        assert all(made > 0 for *_, made in steps(ordered))
        assert in_order(ordered) == ordered
    assert seen > 1000


# ---- searches ----

LINE = re.compile(r"((?:\d+ [-+*/] \d+ = \d+(?:, )?)+): (?:not (\d+)|(yes))")


def check_search(shown: str, row) -> None:
    """Every line of a search: exact arithmetic on numbers that are there, dead ends that are dead, and its end."""
    lines = shown.split("\n")
    for place, line in enumerate(lines):
        match = LINE.fullmatch(line)
        assert match, line
        left = [Fraction(number) for number in row["numbers"]]
        made = Fraction(0)
        for operation in match[1].split(", "):
            first, sign, second, _, result = operation.split()
            a, b, made = Fraction(first), Fraction(second), Fraction(result)
            assert {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[sign] == made, line
            left.remove(a)
            left.remove(b)
            left.append(made)
        assert left == [made]  # nothing is left over
        if place < len(lines) - 1:
            assert int(match[2]) == row["target"]
            assert made != row["target"]
        else:
            assert match[3]
            assert made == row["target"]


@pytest.mark.parametrize("options", [{}, {"numbers": [5], "tries": 8}, {"operators": ["+", "-"], "largest": 12}])
def test_every_line_of_a_search_is_true(options):
    rows = small(train=0, eval=0, demonstrations=60, **options).load(5).demonstrations
    lengths = set()
    for row in rows:
        shown = row["completion"].removeprefix("<think>").split("</think>")[0]
        check_search(shown, row)
        tried = shown.split("\n")
        assert len(set(tried)) == len(tried)
        lengths.add(len(tried) - 1)
    assert lengths == set(range(max(lengths) + 1))  # from none on
    assert max(lengths) == options.get("tries", 3)


def test_a_search_by_hand():
    puzzle = Puzzle((7, 3, 2), 23, in_order(("+", ("*", 7, 3), 2)))
    tries = [in_order(("-", ("+", 7, 3), 2))]
    assert thought(23, tries, puzzle.solution) == "7 + 3 = 10, 10 - 2 = 8: not 23\n7 * 3 = 21, 21 + 2 = 23: yes"
    assert dead_ends(Puzzle((1, 2), 3, ("+", 2, 1)), ("+",), 3, random.Random(0)) == []


def test_think_share():
    rows = small(think_share=0.4).load(2).demonstrations
    assert sum("<think>" in row["completion"] for row in rows) == 12
    plain = small(think_share=0.0).load(2).demonstrations
    assert all(row["completion"] == f"<answer>{row['expression']}</answer>" for row in plain)
    assert [row["prompt"] for row in plain] == [row["prompt"] for row in rows]


# ---- prompts and options ----


def test_prompts():
    row = small(prompt="short", use_all=True).load(0).train[0]
    shown = " ".join(map(str, sorted(row["numbers"], reverse=True)))
    assert row["prompt"] == f"Numbers: {shown} Target: {row['target']}\n"
    full = small(operators=["-", "+"]).load(0).train[0]["prompt"]
    assert "Use each number at most once, with the operations +, - and" in full
    row = small(use_all=True).load(0).train[0]
    assert "Use each number exactly once" in row["prompt"]
    assert row["use_all"] is True


def test_operators_that_the_prompt_leaves_out_are_not_paid():
    row = small(operators=["-", "+"]).load(0).train[0]
    assert row["operators"] == ["+", "-"]
    assert score(row["expression"], **row).value == 1
    assert score("3 * 8", **{**row, "numbers": [3, 8], "target": 24}).value == 0


@pytest.mark.parametrize(
    ("given", "expected"), [(3, [3]), ([4, 3], [4, 3]), ("2-4", [2, 3, 4]), ("2,4-5", [2, 4, 5]), ((3, 3), [3])]
)
def test_parse_sizes(given, expected):
    assert parse_sizes(given) == expected


@pytest.mark.parametrize("given", [1, 6, "two", "4-3", [], None, [3, 7]])
def test_parse_sizes_refuses(given):
    with pytest.raises(ConfigError, match="from 2 to 5"):
        parse_sizes(given)


@pytest.mark.parametrize(
    "options",
    [{"operators": []}, {"operators": ["^"]}, {"target": [5]}, {"target": [0, 5]}, {"largest": 1}, {"think_share": 1.1},
     {"noise_share": -0.1}, {"tries": 21}, {"people": 2}],
)  # fmt: skip
def test_wrong_options_are_refused(options):
    with pytest.raises(ValidationError):
        TypeAdapter(Countdown).validate_python(options)


def test_targets_in_the_wrong_order_are_refused():
    with pytest.raises(ConfigError, match=r"write \[5, 30\]"):
        Countdown(target=[30, 5])


def test_write_is_generate(tmp_path):
    out, again = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    options = {"largest": 20, "target": (1, 50), "prompt": "short", "noise_share": 0.5}
    assert write(out, "3", 8, 4, **options) == 8
    write_jsonl(again, generate_rows("3", 8, 4, **options))
    assert out.read_bytes() == again.read_bytes()
    with pytest.raises(ConfigError, match="noise_share"):
        generate_rows("3", 8, noise_share=2)


def test_its_rows_stand_beside_those_of_the_other_generators():
    counts = {"train": 4, "eval": 4, "demonstrations": 4, "noise_share": 0.5}
    parts = [KnightsKnaves(people=[2], split="content", **counts), JsonStructure(**counts), Countdown(**counts)]
    data = Mixture(tasks=parts).load(0)
    for rows in (data.train, data.demonstrations, data.eval):
        features = Dataset.from_list(rows).features  # no column of one has another kind of values in another
        assert {"numbers", "target", "use_all", "operators", "difficulty", "expression"} <= set(features)
    assert score("8 * 3", **{**data.train[0], "prompt": ""}) is None


def test_rows_of_ones_own_under_other_names(tmp_path):
    file = tmp_path / "nums.jsonl"
    file.write_text("".join(json.dumps({"target": n + 10, "nums": [n, 4, 6]}) + "\n" for n in range(1, 9)))
    task = Rows(path=[str(file)], columns={"numbers": "nums"}, prompt="Make {target} of {numbers}.", eval=2)
    row = task.load(0).train[0]
    first = row["nums"][0]
    assert row["prompt"] == f"Make {first + 10} of [{first}, 4, 6]."
    assert score(f"{first} + 4 + 6", **row, use_all=True).value == 1
