from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import subprocess
import sys

import pytest
from datasets import Dataset
from pydantic import TypeAdapter, ValidationError

from posttrain import cli
from posttrain.errors import ConfigError, DataError
from posttrain.rewards.json_structure import check_row, score
from posttrain.tasks.json_structure import JsonStructure, generate, generate_rows, parse_levels, write
from posttrain.tasks.json_structure.domains import DOMAINS
from posttrain.tasks.json_structure.generate import is_held_out, split_records

COLUMNS = {"prompt", "schema", "gold", "difficulty", "text"}


def small(**options):
    return JsonStructure(**{"train": 150, "eval": 50, "demonstrations": 50, **options})


def everything(data):
    return data.train + data.demonstrations + data.eval


def schema_of(row):
    return json.dumps(json.loads(row["schema"]), sort_keys=True)


def gold_of(row):
    return json.dumps(json.loads(row["gold"]), sort_keys=True)


def digest(data):
    return hashlib.sha256(json.dumps(dataclasses.astuple(data)).encode()).hexdigest()


def test_rows_have_the_columns_and_their_gold_passes():
    data = small().load(0)
    assert [len(data.train), len(data.eval), len(data.demonstrations)] == [150, 50, 50]
    for row in data.train + data.eval:
        assert set(row) == COLUMNS
    for row in everything(data):
        assert check_row(row["schema"], row["gold"]) is None
        assert row["text"] in row["prompt"]
        assert score(**{**row, "completion": row["gold"]}).value == 1.0
    for row in data.demonstrations:
        assert set(row) == COLUMNS | {"completion"}
        assert score(**row).value == 1.0
    for level in range(1, 6):
        assert sum(row["difficulty"] == level for row in data.train) == 30


def test_rows_survive_arrow_unchanged():
    rows = small().load(0).train
    assert Dataset.from_list(rows).to_list() == rows


def test_another_rows_gold_does_not_pass():
    rows = small().load(1).train
    assert all(score(other["gold"], **row).value < 1 for row, other in itertools.pairwise(rows))


def test_the_text_says_every_value():
    def said(value, text):
        if isinstance(value, dict):
            return all(said(part, text) for part in value.values())
        if isinstance(value, list):
            return all(said(part, text) for part in value)
        if isinstance(value, bool) or value is None:  # said in other words
            return True
        return (f"{value:.2f}" if isinstance(value, float) else str(value)) in text

    for row in generate_rows("1-5", 300):
        assert said(json.loads(row["gold"]), row["text"]), row


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_what_each_level_has(level):
    rows = generate_rows(level, 200)
    schemas = [json.loads(row["schema"]) for row in rows]
    whole = " ".join(row["schema"] for row in rows)
    parts = [part for schema in schemas for part in schema["properties"].values()]
    assert all(schema["additionalProperties"] is False for schema in schemas)
    assert all(row["difficulty"] == level for row in rows)
    assert {part.get("type") for part in parts} >= {"string", "integer"}
    assert ('"enum"' in whole and '"boolean"' in whole) == (level >= 2)
    assert any(part.get("type") == "object" for part in parts) == (level >= 3)
    assert ('"array"' in whole) == (level >= 4)
    for word in ('"oneOf"', '"$ref"', '"minimum"', '"pattern"', '"maxItems"', '"multipleOf"'):
        assert (word in whole) == (level == 5), word
    assert any(len(schema["required"]) < len(schema["properties"]) for schema in schemas) == (level == 5)
    golds = [json.loads(row["gold"]) for row in rows]
    assert any(None in gold.values() for gold in golds) == (level == 5)
    if level <= 2:
        assert {len(gold) for gold in golds} == {level + 1, level + 2}


@pytest.mark.parametrize("split", ["content", "schema"])
def test_no_duplicates_and_disjoint_parts(split):
    # Few words and one domain, so that the same objects come up again and again.
    task = small(difficulty=1, domains=["event"], vocabulary=4, train=1500, eval=100, demonstrations=200, split=split)
    data = task.load(3)
    rest = data.train + data.demonstrations
    assert len({row["text"] for row in everything(data)}) == 1800
    held_out = {gold_of(row) for row in data.eval}
    assert len(held_out) == 100
    assert not held_out & {gold_of(row) for row in rest}
    assert len({gold_of(row) for row in rest}) < len(rest)  # so the check above could have failed
    shared = {schema_of(row) for row in data.eval} & {schema_of(row) for row in rest}
    assert bool(shared) == (split == "content")


def test_more_train_rows_change_nothing_else():
    few, many = small(train=10).load(1), small(train=200).load(1)
    assert (few.eval, few.demonstrations) == (many.eval, many.demonstrations)
    assert few.eval != small(train=10).load(2).eval


def test_the_same_rows_in_every_process():
    code = (
        "import dataclasses, hashlib, json; from posttrain.tasks.json_structure import JsonStructure;"
        "data = JsonStructure(train=150, eval=50, demonstrations=50, split='schema').load(5);"
        "print(hashlib.sha256(json.dumps(dataclasses.astuple(data)).encode()).hexdigest())"
    )
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert out.stdout.strip() == digest(small(split="schema").load(5))


def test_prompts_and_styles():
    full = generate_rows(5, 40, style="indent")
    short = generate_rows(5, 40, prompt="short")
    for one, other in zip(full, short, strict=True):
        assert one["schema"] == other["schema"]
        assert one["schema"] in one["prompt"]
        assert one["prompt"].endswith(f"Text:\n{one['text']}\n\nJSON:\n")
        keys = ", ".join(other["prompt"].split("\n")[0].split(", "))
        assert all(name in keys for name in json.loads(other["schema"])["properties"])
        assert "$ref" not in other["prompt"]
        assert one["completion"] == json.dumps(json.loads(one["gold"]), indent=2)
        assert other["completion"] == json.dumps(json.loads(other["gold"]), separators=(",", ":"))
    row = generate_rows(1, 1, prompt="short", domains=["event"], synonyms=False)[0]
    schema = json.loads(row["schema"])["properties"]
    brief = ", ".join(f"{name} {part['type']}" for name, part in schema.items())
    assert row["prompt"] == f"{brief}\n{row['text']}\n"


def test_vocabulary_domains_and_synonyms():
    rows = generate_rows(1, 200, domains=["person"], vocabulary=4, synonyms=False)
    golds = [json.loads(row["gold"]) for row in rows]
    assert {gold["name"] for gold in golds if "name" in gold} == {"Ann", "Bob", "Carla", "David"}
    assert set().union(*golds) == {"name", "age", "city", "room", "manager"}
    assert "years" in set().union(*(json.loads(row["gold"]) for row in generate_rows(1, 200, domains=["person"])))


def test_domains_are_well_formed():
    for fields in DOMAINS.values():
        names = [name for field in fields for name in field.names]
        assert len(names) == len(set(names))
        assert {field.kind for field in fields} == {
            "text", "integer", "code", "decimal", "choice", "flag", "nested", "many",
        }  # fmt: skip


def test_too_many_are_refused(monkeypatch):
    monkeypatch.setattr(generate, "_PATIENCE", 1)  # thousands of draws in a row otherwise
    with pytest.raises(DataError, match="of 3000 train texts"):
        small(difficulty=1, domains=["person"], vocabulary=4, train=3000).load(0)


@pytest.mark.parametrize(
    ("value", "levels"),
    [(3, [3]), ("2-4", [2, 3, 4]), ("1,4-5", [1, 4, 5]), ([2, 2, 1], [2, 1]), (range(1, 3), [1, 2])],
)
def test_levels(value, levels):
    assert parse_levels(value) == levels
    assert small(difficulty=value).difficulty == levels


@pytest.mark.parametrize("value", [0, 6, "0-2", "a", [], "", None, 1.5])
def test_levels_that_are_none(value):
    with pytest.raises(ConfigError, match="levels from 1 to 5"):
        parse_levels(value)


@pytest.mark.parametrize("options", [{"domains": ["orders"]}, {"vocabulary": 3}, {"split": "text"}, {"levels": 3}])
def test_settings_that_make_no_sense(options):
    with pytest.raises((ConfigError, ValidationError)):
        TypeAdapter(JsonStructure).validate_python(options)


def test_write_and_the_command(tmp_path, capsys):
    assert write(tmp_path / "a.jsonl", "1-5", 20, 4) == 20
    arguments = ["data", "json_structure", "--difficulty", "1-5", "--count", "20", "--seed", "4"]
    assert cli.main([*arguments, "--out", str(tmp_path / "b.jsonl")]) == 0
    assert capsys.readouterr().out == f"wrote 20 rows to {tmp_path / 'b.jsonl'}\n"
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert rows == generate_rows("1-5", 20, 4)
    assert cli.main([*arguments, "--difficulty", "6", "--out", str(tmp_path / "c.jsonl")]) == 2
    assert "levels from 1 to 5" in capsys.readouterr().err
    assert not (tmp_path / "c.jsonl").exists()


def own_file(tmp_path, rows):
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(json.dumps(row) if isinstance(row, dict) else row for row in rows))
    return str(path)


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def test_rows_of_ones_own(tmp_path):
    rows = [{"text": f"It is {n}.", "schema": SCHEMA, "gold": {"n": n}, "source": "me"} for n in range(30)]
    rows += [{"prompt": "What?", "schema": json.dumps(SCHEMA), "gold": '{"n": 7}', "difficulty": 3}, "", rows[0]]
    path = own_file(tmp_path, rows)
    task = JsonStructure(path=path, train=11, eval=10, demonstrations=10, prompt="short")
    data = task.load(0)
    assert len({row["prompt"] for row in everything(data)}) == 31
    for row in everything(data):
        assert isinstance(row["schema"], str)
        assert isinstance(row["gold"], str)
        assert score(**{**row, "completion": row["gold"]}).value == 1.0
    by_prompt = {row["prompt"]: row for row in everything(data)}
    assert by_prompt["n integer\nIt is 4.\n"] | {"completion": 0} == {
        "prompt": "n integer\nIt is 4.\n",
        "text": "It is 4.",
        "schema": json.dumps(SCHEMA),
        "gold": '{"n": 4}',
        "source": "me",
        "difficulty": 0,
        "completion": 0,
    }
    assert by_prompt["What?"]["difficulty"] == 3
    assert all(
        row["completion"] == json.dumps(json.loads(row["gold"]), separators=(",", ":")) for row in data.demonstrations
    )
    assert digest(data) == digest(
        JsonStructure(path=path, train=11, eval=10, demonstrations=10, prompt="short").load(0)
    )
    with pytest.raises(DataError, match="leave 11 for train"):
        dataclasses.replace(task, train=12).load(0)
    only = JsonStructure(path=path, difficulty=3, train=1, eval=0, demonstrations=0).load(0)
    assert [row["prompt"] for row in only.train] == ["What?"]


def test_rows_of_ones_own_split_by_schema(tmp_path):
    written = [json.loads(json.dumps(row)) for row in generate_rows("1-2", 300)]
    task = JsonStructure(path=own_file(tmp_path, written), train=100, eval=30, demonstrations=30, split="schema")
    data = task.load(0)
    held_out = {schema_of(row) for row in data.eval}
    assert not held_out & {schema_of(row) for row in data.train + data.demonstrations}
    assert all(is_held_out(schema, 0) for schema in held_out)


def test_unfit_rows_are_named_at_the_start(tmp_path):
    good = {"text": "t", "schema": SCHEMA, "gold": {"n": 1}}
    rows = [
        good,
        {**good, "schema": {"$ref": "https://example.com/s.json"}},
        {**good, "schema": {"$ref": "#"}},
        {**good, "gold": {"n": "1"}},
        {**good, "gold": None},
        {"schema": SCHEMA, "gold": {"n": 1}},
        "[1]",
        "{",
    ]
    path = own_file(tmp_path, rows)
    with pytest.raises(DataError) as caught:
        JsonStructure(path=path, train=1, eval=0, demonstrations=0).load(0)
    said = str(caught.value)
    assert said.startswith("task json_structure, path: 7 rows can't be used")
    for number, reason in ((2, "nothing is fetched"), (3, "without end"), (4, "gold does not fit"), (5, "no gold")):
        line = next(line for line in said.splitlines() if f"{path}:{number}:" in line)
        assert reason in line
    assert "no text or prompt" in said
    assert "and 2 more" in said
    with pytest.raises(DataError, match="no such file"):
        JsonStructure(path=str(tmp_path / "missing.jsonl")).load(0)


@pytest.mark.parametrize("as_text", [True, False])
def test_rows_of_a_draft_that_is_not_known_are_left_out_and_named(tmp_path, as_text):
    def row(number, draft):
        schema = {"$schema": draft, **SCHEMA} if draft else SCHEMA
        return {"text": f"t{number}", "schema": json.dumps(schema) if as_text else schema, "gold": {"n": number}}

    known = [None, "http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2019-09/schema"]
    drafts = [*known, "http://json-schema.org/draft-99/schema#", *["https://example.com/own"] * 6]
    path = own_file(tmp_path, [row(number, draft) for number, draft in enumerate(drafts)])
    data = JsonStructure(path=path, train=3, eval=0, demonstrations=0).load(0)
    assert {row["text"] for row in data.train} == {"t0", "t1", "t2"}
    (note,) = data.notes
    assert note.startswith("7 of 10 rows are left out")
    assert "and 2 more" in note
    line = next(line for line in note.splitlines() if f"{path}:4:" in line)
    for part in ("schema.$schema: ", "draft-99", "expected: ", "fix: "):
        assert part in line
    assert JsonStructure(path=path, train=2, eval=1, demonstrations=0).load(0).notes == data.notes


def own_rows(tmp_path, rows, **options):
    counts = {"train": len(rows), "eval": 0, "demonstrations": 0, **options}
    return JsonStructure(path=own_file(tmp_path, rows), prompt="short", **counts).load(0).train


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_a_line_of_a_file_ends_at_a_line_feed_only(tmp_path, separator):
    text = f"It is{separator}4."
    row = {"text": text, "schema": SCHEMA, "gold": {"n": 4}}
    path = tmp_path / "own.jsonl"
    path.write_text("\ufeff" + json.dumps(row, ensure_ascii=False) + "\r\n\n", encoding="utf-8")
    (read,) = JsonStructure(path=str(path), train=1, eval=0, demonstrations=0).load(0).train
    assert read["text"] == text


def test_rows_of_ones_own_as_a_list(tmp_path):
    rows = [{"text": f"It is {n}.", "schema": SCHEMA, "gold": {"n": n}} for n in range(3)]
    (tmp_path / "own.json").write_text(json.dumps([*rows, 7]))
    task = JsonStructure(path=str(tmp_path / "own.json"), train=3, eval=0, demonstrations=0)
    with pytest.raises(DataError, match=r"own\.json row 4: a int, not a JSON object"):
        task.load(0)
    (tmp_path / "own.json").write_text(json.dumps(rows))
    assert {row["text"] for row in task.load(0).train} == {row["text"] for row in rows}


def test_the_prompt_is_whichever_text_is_given(tmp_path):
    base = {"schema": SCHEMA, "gold": {"n": 1}}
    kept = own_rows(tmp_path, [{**base, "prompt": "What?", "text": None}, {**base, "prompt": "", "text": "It is 1."}])
    assert {row["prompt"] for row in kept} == {"What?", "n integer\nIt is 1.\n"}


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"prompt": ""}, "no text or prompt"),
        ({"text": " "}, "no text or prompt"),
        ({"text": ["a"]}, "text \\['a'\\] is not a string"),
        ({"text": "a", "prompt": 5}, "prompt 5 is not a string"),
        ({"text": "a", "difficulty": "hard"}, "difficulty 'hard' is not a whole number"),
        ({"text": "a", "difficulty": 2.5}, "difficulty 2.5"),
        ({"text": "a", "difficulty": True}, "difficulty True"),
    ],
)
def test_columns_of_the_wrong_kind_are_named(tmp_path, columns, reason):
    with pytest.raises(DataError, match=f":1: {reason}"):
        own_rows(tmp_path, [{"schema": SCHEMA, "gold": {"n": 1}, **columns}])


def test_a_difficulty_may_be_written_as_text(tmp_path):
    levels = ["2", 2, 2.0, 3, "3", None]
    rows = [{"text": f"{n}", "schema": SCHEMA, "gold": {"n": n}, "difficulty": d} for n, d in enumerate(levels)]
    assert [row["difficulty"] for row in own_rows(tmp_path, rows, difficulty=[2], train=3)] == [2, 2, 2]
    assert sorted(row["difficulty"] for row in own_rows(tmp_path, rows)) == [0, 2, 2, 2, 3, 3]


def test_eval_is_drawn_first_and_levels_take_turns():
    parts = split_records(0, {"eval": 5, "demonstrations": 10}, [1, 5], ["order"])
    assert sorted(record.level for record in parts["eval"]) == [1, 1, 1, 5, 5]
    assert sorted(record.level for record in parts["demonstrations"]) == [1] * 5 + [5] * 5
    assert parts["train"] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"requierd": ["a"]}, "no keyword 'requierd' (nearest: 'required')"),
        ({"dependencies": {"a": ["b"]}}, "'dependencies' is no keyword of draft/2020-12 (instead: "),
        ({"required": ["a"]}, None),
        ({"x-note": 1, "title": "t"}, None),
    ],
)
def test_words_in_schemas_that_are_no_keywords_are_told(tmp_path, change, said):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "requierd": {"type": "string"}}, **change}
    rows = [{"text": f"a is {i}", "schema": schema, "gold": {"a": i}} for i in range(3)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    notes = JsonStructure(path=[str(path)], train=2, eval=1, demonstrations=0, prompt="short").load(0).notes
    told = [note for note in notes if "no keywords" in note]
    assert bool(told) == bool(said)
    assert said is None or f"3 rows: schema: {said}" in told[0]
