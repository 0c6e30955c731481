"""Demonstrations as TRL prepares them, chat wrapping, and the leak check."""

from __future__ import annotations

import datetime

import pytest
from datasets import Dataset

from posttrain.errors import DataError
from posttrain.inputs.data import IGNORED, as_table, fit_to_model, to_chat, tokenize_demonstrations
from posttrain.inputs.leaks import check_disjoint, content_key

CHATML = (
    "{% for m in messages %}<{{ m['role'] }}>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>\n{% endif %}"
)

TEXT_ROWS = [
    {"prompt": "1 plus 2 is", "completion": " 3."},
    {"prompt": "1 plus 2 is ", "completion": "3."},  # the boundary falls after a space that may merge
    {"prompt": "7 plus 8 is", "completion": " 15.<|end|>"},  # it ends already
    {"prompt": "", "completion": "4 plus 4 is 8."},
    {"prompt": "a very long question that fills the whole window, 9 plus 9 is", "completion": " 18."},
    {"prompt": "9 plus 9 is", "completion": ""},
]


@pytest.fixture
def chat_tokenizer(tiny_tokenizer):
    tiny_tokenizer.chat_template = CHATML
    return tiny_tokenizer


@pytest.mark.parametrize(("chat", "max_length"), [(False, None), (False, 12), (True, None), (True, 45)])
def test_demonstrations_are_what_sft_trainer_prepares(tiny_tokenizer, tiny_model, tmp_path, chat, max_length):
    from trl import SFTConfig, SFTTrainer

    rows: list[dict] = list(TEXT_ROWS)
    if chat:
        tiny_tokenizer.chat_template = CHATML
        rows = to_chat(rows[:-1])
        rows.append({**rows[0], "prompt": [{"role": "system", "content": "Add."}, *rows[0]["prompt"]]})
    args = SFTConfig(
        output_dir=str(tmp_path),
        completion_only_loss=True,
        max_length=max_length,
        report_to=[],
        bf16=False,
        use_cpu=True,
    )
    trainer = SFTTrainer(tiny_model, args, train_dataset=Dataset.from_list(rows), processing_class=tiny_tokenizer)
    ours, theirs = tokenize_demonstrations(rows, tiny_tokenizer, max_length=max_length), trainer.train_dataset
    assert ours["input_ids"][:] == theirs["input_ids"][:]
    assert ours["labels"][:] == theirs["labels"][:]
    assert (len(ours) < len(rows)) == (max_length is not None)


def test_a_token_that_would_reach_over_the_border_is_no_demonstrations(tiny_tokenizer):
    (row,) = tokenize_demonstrations([{"prompt": "1 pl", "completion": "us 2 is 3."}], tiny_tokenizer)
    texts = ["1 pl", "us 2 is 3.<|end|>", "1 plus 2 is 3.<|end|>"]
    prompt, completion, joined = tiny_tokenizer(text=texts)["input_ids"]
    assert joined[: len(prompt)] != prompt, "as one text it goes on otherwise"
    assert row["input_ids"] == [*prompt, *completion]
    assert row["labels"] == [IGNORED] * len(prompt) + completion


@pytest.mark.parametrize("completion", [" 3.", " 3.<|end|>", " 3.<|end|><|end|>"])
def test_labels_are_the_completion_and_one_end(tiny_tokenizer, completion):
    (row,) = tokenize_demonstrations([{"prompt": "1 plus 2 is", "completion": completion}], tiny_tokenizer)
    learnt = [label for label in row["labels"] if label != IGNORED]
    assert tiny_tokenizer.decode(learnt) == " 3.<|end|>"
    assert row["input_ids"][-len(learnt) :] == learnt


def test_the_prompt_is_the_one_that_generation_starts_from(chat_tokenizer):
    row = to_chat([{"prompt": "1 plus 2 is", "completion": "3."}])[0]
    (example,) = tokenize_demonstrations([row], chat_tokenizer)
    prompt = chat_tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)[
        "input_ids"
    ]
    assert example["input_ids"][: len(prompt)] == prompt
    assert [label == IGNORED for label in example["labels"]].count(True) == len(prompt)


def test_rows_that_truncation_leaves_without_a_completion_are_dropped(tiny_tokenizer):
    short, long = {"prompt": "1 plus", "completion": " 2 is 3."}, {"prompt": "1 plus " * 9, "completion": " 2."}
    kept = tokenize_demonstrations([long, short, long], tiny_tokenizer, max_length=6)
    assert len(kept) == 1
    assert kept[0]["input_ids"] == tiny_tokenizer("1 plus 2 is 3.<|end|>")["input_ids"][:6]
    with pytest.raises(DataError, match="no demonstration has a completion token left") as caught:
        tokenize_demonstrations([long], tiny_tokenizer, max_length=6)
    assert caught.value.fix == "raise max_length"


def test_missing_rows_and_columns_are_named(tiny_tokenizer):
    with pytest.raises(DataError, match="there are no demonstrations"):
        tokenize_demonstrations([], tiny_tokenizer)
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "answer": "b"}]
    with pytest.raises(DataError, match=r"row 1 has no column 'completion'(.|\n)*answer, prompt"):
        tokenize_demonstrations(rows, tiny_tokenizer)


def test_rows_become_messages_only_for_a_model_with_a_template(tiny_tokenizer):
    rows = [{"prompt": "q", "completion": "a", "answer": 3}, {"prompt": "q2", "answer": 4}]
    assert fit_to_model(rows, tiny_tokenizer) == rows
    tiny_tokenizer.chat_template = CHATML
    assert fit_to_model(rows, tiny_tokenizer) == [
        {
            "prompt": [{"role": "user", "content": "q"}],
            "completion": [{"role": "assistant", "content": "a"}],
            "answer": 3,
        },
        {"prompt": [{"role": "user", "content": "q2"}], "answer": 4},
    ]
    assert rows[0]["prompt"] == "q"


@pytest.mark.parametrize("seen", ["is Ann  a KNIGHT?", " Is Ann a knight?\n", "Is\tAnn\n\na knight?"])
@pytest.mark.parametrize("chat", [False, True])
def test_a_leak_is_found_in_spite_of_space_case_and_wrapping(seen, chat):
    held_out = [{"prompt": "Is Bob a knave?"}, {"prompt": "Is Ann a knight?"}]
    others = to_chat([{"prompt": seen}]) if chat else [{"prompt": seen}]
    with pytest.raises(DataError, match=r"1 of 2 evaluation rows are also trained on.*Is Ann a knight\?"):
        check_disjoint(held_out, [{"prompt": "Is Cat a spy?"}], others)


def test_other_rows_are_not_a_leak():
    check_disjoint([{"prompt": "Is Ann a knight?"}], [{"prompt": "Is Ann a knave?"}, {"prompt": "IsAnn a knight?"}], [])
    assert content_key({"prompt": "a b"}) != content_key({"prompt": "ab"})


@pytest.mark.parametrize(
    "values",
    [
        ["a", "b", None],
        [1, 2.5, 3],
        [1, "1", None],
        [{"a": 1}, {"b": [1, "x"]}, {}],
        [[1], "x", {"y": None}],
        [True, 0, 1],
        [2**70, 1, -1],
        [[], [[]], None],
        [float("inf"), 1.0, 0.1],
        [datetime.date(2024, 1, 2), None, datetime.date(2024, 1, 3)],
    ],
    ids=repr,
)
def test_a_table_gives_every_value_back_as_it_was(values):
    rows = [{"prompt": f"q{n}", "value": value, "n": n} for n, value in enumerate(values)]
    table = as_table(rows)
    assert repr([dict(table[n]) for n in range(3)]) == repr(rows)
    assert "prompt" in table.column_names
    assert len(table) == 3


def test_a_table_of_conversations_and_of_rows_that_lack_columns():
    rows = [{"prompt": [{"role": "user", "content": "q"}], "x": {"a": 1}}, {"prompt": [], "y": 1}]
    table = as_table(rows)
    assert dict(table[0]) == {"prompt": [{"role": "user", "content": "q"}], "x": {"a": 1}, "y": None}


def test_values_that_no_table_can_hold_are_named():
    with pytest.raises(DataError, match="the column 'when' has values of several kinds"):
        as_table([{"prompt": "a", "when": "now"}, {"prompt": "b", "when": datetime.date(2024, 1, 2)}])
