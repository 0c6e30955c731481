"""HybridTrainer samples from prompts as its demonstrations begin: whatever the tokenizer adds to a text."""

from __future__ import annotations

from datasets import Dataset
from tokenizers import processors

from posttrain.inputs.data import IGNORED
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import hybrid_args, reward


def test_an_end_that_the_tokenizer_adds_is_on_no_prompt(model, model_folder, prompts, demonstrations, tmp_path):
    from posttrain.models.load import load_tokenizer

    tokenizer = load_tokenizer(model_folder)
    end = (tokenizer.eos_token, tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end[0]}", special_tokens=[end]
    )
    bare = tokenizer("1 plus 2 is", add_special_tokens=False)["input_ids"]
    assert tokenizer("1 plus 2 is")["input_ids"] == [*bare, end[1]]
    trainer = HybridTrainer(
        model, reward, hybrid_args(tmp_path, max_steps=1), prompts, processing_class=tokenizer,
        demonstrations=Dataset.from_list([demonstrations[2], demonstrations[7]]),
    )  # fmt: skip
    assert trainer._tokenize_prompts(["1 plus 2 is"] * 2)[0] == [bare, bare]
    assert trainer._tokenize_prompts(["1 plus 2 is", "1"])[0][0] == bare
    assert trainer.sft is not None
    for row, prompt in zip(trainer.sft._rows, ("0 plus 2 is", "1 plus 2 is"), strict=True):
        labels = [label for label in row["labels"] if label != IGNORED]
        context = row["input_ids"][: -len(labels)]
        assert context == tokenizer(prompt, add_special_tokens=False)["input_ids"]
        assert labels.count(end[1]) == 1
