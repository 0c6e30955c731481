"""How much of held-out problems stands in what is trained on: by hand, and by the command."""

from __future__ import annotations

import json

import pytest

from posttrain.cli import main
from posttrain.inputs.overlap import overlaps, summed_up, text_of, tokens_of

WORDS = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t"]


def test_a_token_matches_where_one_of_its_ngrams_does():
    held_out = " ".join(WORDS)
    (found,) = overlaps([held_out], ["nothing of it", " ".join(["x", *WORDS[2:12], "y", *WORDS[15:20]])])
    assert found == (0.5, 1, 20), "c to l are ten tokens, p to t too few for an 8-gram"
    (found,) = overlaps([held_out], [" ".join(WORDS[:9]), " ".join(WORDS[11:])])
    assert found == (0.45, 0, 20), "of one text, not of all together; the first of equals"
    (found,) = overlaps([held_out.upper() + "!"], [held_out + " !"])
    assert found == (1.0, 0, 21)


def test_what_most_prompts_have_in_common_is_an_instruction():
    asked = "Answer the question in one word and nothing else please : "
    numbers = ["one two three four five six seven eight", "red green blue white black pink grey brown", "u v w x"]
    found = overlaps([asked + text for text in numbers], [asked + numbers[0], asked + "something that is new here"])
    assert [each.share for each in found] == pytest.approx([1.0, 0.0, 0.0], abs=0.2)
    assert found[2].tokens < 8


def test_a_set_is_contaminated_from_two_in_a_hundred():
    same, other = (1.0, 0, 9), (0.5, 0, 9)
    rows = [type(overlaps(["a"], [])[0])(*each) for each in (same, same, *[other] * 98)]
    assert summed_up(rows) == {
        "rows": 100, "overlapping": 2, "share": 0.02, "contaminated": False, "buckets": [0] * 5 + [98, 0, 0, 0, 2]
    }  # fmt: skip
    assert summed_up([*rows, rows[0]])["contaminated"]
    assert summed_up([])["share"] == 0.0


def test_texts_of_rows_and_their_tokens():
    row = {"prompt": [{"role": "user", "content": "Is 2+2=4?"}], "completion": "Yes."}
    assert text_of(row) == "Is 2+2=4?\nYes."
    assert tokens_of("Is 2+2=4?") == ["is", "2", "+", "2", "=", "4", "?"]


def test_the_command_tells_of_both_kinds(tmp_path, capsys):
    story = (
        "Ann has {} apples and gives {} of them to her brother before the long school day begins, so how many remain?"
    )
    rows = [{"prompt": story.format(n, n - 1), "answer": str(n)} for n in range(2, 40)]
    others = [f"What is the {n}th letter of the word that you like best?" for n in range(30)]
    held_out = [{"prompt": story.format(90, 9), "answer": "81"}, {"prompt": rows[3]["prompt"], "answer": "x"}]
    held_out += [{"prompt": text, "answer": "x"} for text in others]
    for name, some in (("rows", rows), ("held_out", held_out)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    (tmp_path / "recipe.yaml").write_text(
        "model: some/model\ntask: {name: rows, path: rows.jsonl, eval_path: held_out.jsonl}\nrewards: [math_answer]\n"
        "warmup: {steps: 0}\nhybrid: {controller: grpo_only}\n"
    )
    assert main(["data", "leaks", str(tmp_path / "recipe.yaml"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == 32
    assert told["overlapping"] >= 1
    assert told["pairs"][0]["share"] > 0.5
    assert main(["data", "leaks", str(tmp_path / "recipe.yaml"), "--limit", "1"]) == 1
    said = capsys.readouterr().out
    assert "more than the 2 % from which Tulu 3" in said
    assert "held-out row" in said
