"""HybridTrainer looks at its demonstrations before it trains: it samples as they are written, or says where not."""

from __future__ import annotations

import copy
import warnings

import pytest
from datasets import Dataset
from tokenizers import AddedToken

from posttrain.errors import DataError
from posttrain.inputs.data import tokenize_demonstrations
from posttrain.inputs.demonstrated import demonstrated
from posttrain.inputs.same_stream import differences
from posttrain.training.trainer import HybridTrainer
from tests.inputs.test_rendering import PLAIN
from tests.training.conftest import hybrid_args, reward
from tests.training.worker_rewards import thinks

CHAT = [
    {
        "prompt": [{"role": "user", "content": f"{a} plus 2 is"}],
        "completion": [{"role": "assistant", "content": f"<think>{a}</think>{a + 2}."}],
    }
    for a in range(5)
]


def trainer(model, tokenizer, folder, demonstrations, rewards=reward, **changes):
    prompts = Dataset.from_list([{"prompt": row["prompt"], "answer": "2"} for row in CHAT] * 5)
    return HybridTrainer(
        model, rewards, hybrid_args(folder, max_steps=1, **changes), prompts, processing_class=tokenizer,
        demonstrations=demonstrations,
    )  # fmt: skip


@pytest.fixture
def own(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = PLAIN
    return tokenizer


def test_sound_demonstrations_are_trained_without_a_word(model, own, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        made = trainer(model, own, tmp_path, (row for row in CHAT))
    assert made.sft is not None
    assert len(made.sft._rows) == 5


def test_an_end_that_ends_no_completion_is_refused(model, own, tmp_path):
    own.chat_template = PLAIN.replace("<|end|>", "<|pad|>")
    with pytest.raises(DataError, match=r"demonstrations end in (.|\n)*tokenizer.eos_token"):
        trainer(model, own, tmp_path, CHAT)
    model.generation_config.eos_token_id = [own.eos_token_id, own.pad_token_id]
    assert trainer(model, own, tmp_path, CHAT).sft


def test_rows_of_token_ids_are_left_as_they_are(model, own, tmp_path):
    rows = tokenize_demonstrations(CHAT, own)
    own.chat_template = PLAIN.replace("<|end|>", "<|pad|>")
    made = trainer(model, own, tmp_path, rows)
    assert made.sft is not None
    assert made.sft._rows is rows
    assert made.sft.idle_end(made.eos_token_ids) == ""
    newline = own("\n")["input_ids"][-1]
    assert made.sft.idle_end([own.pad_token_id]) == f"'<|end|>\\n' [{own.eos_token_id}, {newline}]", "for the alarm"


def test_what_rewards_do_not_see_is_said_or_refused(model, own, tmp_path):
    own.add_tokens([AddedToken("<think>", special=True), AddedToken("</think>", special=True)])
    model.resize_token_embeddings(len(own))
    with pytest.warns(UserWarning, match="does not see a rollout as a demonstration is written"):
        trainer(model, own, tmp_path, CHAT)
    with pytest.raises(DataError, match="'thinks' gives a demonstration 1 as text and 0"):
        trainer(model, own, tmp_path, CHAT, thinks)


def test_demonstrations_have_the_tools_that_prompts_have(model, own, tmp_path):
    def add(a: int, b: int) -> int:
        """Add.

        Args:
            a: One.
            b: Another.
        """
        return a + b

    own.chat_template = "{% if tools %}{{ tools[0].function.name }}{% endif %}" + PLAIN
    made = trainer(model, own, tmp_path, CHAT)
    made.tools = [add]  # TRL takes them at construction for the templates of a few models only

    def unlike(kwargs):
        some = demonstrated(
            CHAT,
            own,
            template_kwargs=kwargs,
            after="template",
            sampled=lambda prompts: made._tokenize_prompts(prompts)[0],
        )
        return [each.error.seen for each in differences(some, own, made.eos_token_ids)]

    assert unlike(made._template_kwargs()) == []
    (seen,) = unlike({})
    assert "'add<" in seen
