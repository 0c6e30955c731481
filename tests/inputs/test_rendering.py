"""Chat templates that give the sampler another prompt than a demonstration has, and templates that raise."""

from __future__ import annotations

import pytest
from datasets import Dataset

from posttrain.errors import DataError
from posttrain.inputs.data import IGNORED, fit_to_model, to_chat, tokenize_demonstrations
from posttrain.inputs.rendering import UnlikePrompts, through_template, tokenize_prompts
from posttrain.training.given import check_prompts

BODY = "{% for m in messages %}<{{ m['role'] }}>\n{{ m['content'] }}<|end|>\n{% endfor %}"
OPEN = "{% if add_generation_prompt %}<assistant>\n"
PLAIN = BODY + OPEN + "{% endif %}"
THINKS = BODY + OPEN + "<think>\n{% endif %}"
THOUGHT = BODY + OPEN + "<think></think>{% endif %}"
OTHER_ROLE = BODY + "{% if add_generation_prompt %}<model>\n{% endif %}"
KEEPS = (  # as Qwen3: what the last turn begins with is there in both renderings
    "{% for m in messages %}<{{ m['role'] }}>\n{% if loop.last and m['role'] == 'assistant' %}<think>\n\n</think>\n\n"
    "{% endif %}{{ m['content'] }}<|end|>\n{% endfor %}" + OPEN
    + "{% if not thinks %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)  # fmt: skip
DROPS = (  # as DeepSeek-R1: what was thought is left out of a conversation
    "{% for m in messages %}<{{ m['role'] }}>\n{{ m['content'].split('</think>')[-1] }}<|end|>\n{% endfor %}" + OPEN
    + "<think>\n{% endif %}"
)  # fmt: skip

ROW = {"prompt": "1 plus 2 is", "completion": "3."}
REASONED = {"prompt": "1 plus 2 is", "completion": "1 and 2 more\n</think>\n3."}
OPENS = {"prompt": "1 plus 2 is", "completion": "<think>\n1 and 2 more\n</think>\n3."}


def trained(tokenizer, row, template, after="template", **kwargs):
    """The prompt of a demonstration and what is trained on, as text; and the prompt that the sampler is given."""
    tokenizer.chat_template = template
    (chat,) = to_chat([row])
    (example,) = tokenize_demonstrations([chat], tokenizer, template_kwargs=kwargs, after=after)
    labels = [label for label in example["labels"] if label != IGNORED]
    (given,) = tokenize_prompts(tokenizer, [chat["prompt"]], kwargs)
    start = len(example["input_ids"]) - len(labels)
    return tokenizer.decode(example["input_ids"][:start]), tokenizer.decode(labels), tokenizer.decode(given)


@pytest.mark.parametrize("after", ["template", "generation_prompt"])
@pytest.mark.parametrize(
    ("template", "kwargs", "learnt"),
    [
        (PLAIN, {}, "3.<|end|>\n"),
        (KEEPS, {"thinks": False}, "3.<|end|>\n"),
        (KEEPS, {"thinks": True}, "<think>\n\n</think>\n\n3.<|end|>\n"),
    ],
)
def test_templates_whose_two_renderings_agree_are_left_alone(tiny_tokenizer, template, kwargs, learnt, after):
    prompt, labels, given = trained(tiny_tokenizer, ROW, template, after, **kwargs)
    assert prompt == given
    assert labels == learnt


@pytest.mark.parametrize("template", [THINKS, THOUGHT, OTHER_ROLE, DROPS])
def test_another_prompt_for_the_sampler_is_refused_with_what_to_set(tiny_tokenizer, template):
    with pytest.raises(UnlikePrompts) as refused:
        trained(tiny_tokenizer, ROW, template)
    said = refused.value
    assert "hybrid.demonstrations_after to generation_prompt" in said.fix
    assert said.expected
    assert said.where == "demonstrations"
    differs = "'model>" if template is OTHER_ROLE else "'<think>"
    assert differs in said.seen, "where the two part is shown"


@pytest.mark.parametrize(
    ("template", "row", "learnt"),
    [
        (THOUGHT, ROW, "3.<|end|>\n"),
        (OTHER_ROLE, ROW, "3.<|end|>\n"),
        (THINKS, REASONED, "1 and 2 more\n</think>\n3.<|end|>\n"),
        (THINKS, OPENS, "1 and 2 more\n</think>\n3.<|end|>\n"),
        (DROPS, OPENS, "1 and 2 more\n</think>\n3.<|end|>\n"),
    ],
)
def test_a_completion_goes_behind_what_the_sampler_is_given(tiny_tokenizer, template, row, learnt):
    prompt, labels, given = trained(tiny_tokenizer, row, template, "generation_prompt")
    assert (prompt, labels) == (given, learnt)
    assert "<think>\n<think>" not in prompt + labels


def test_a_thought_that_never_ends_is_refused(tiny_tokenizer):
    with pytest.raises(DataError, match=r"open <think>(.|\n)*expected: (.|\n)*</think>(.|\n)*fix: "):
        trained(tiny_tokenizer, ROW, THINKS, "generation_prompt")


def test_several_messages_cannot_be_put_behind(tiny_tokenizer):
    tiny_tokenizer.chat_template = THOUGHT
    (row,) = to_chat([ROW])
    row["completion"] = [*row["completion"], {"role": "user", "content": "sure?"}]
    with pytest.raises(DataError, match="2 messages"):
        tokenize_demonstrations([row], tiny_tokenizer, after="generation_prompt")


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{% for m in messages %}{{ m['nothing']['at all'] }}{% endfor %}",
        "{{ messages[99]['content'] }}",
        "{% for m in messages %}{{ m['content'] + 1 }}{% endfor %}",
        "{% if %}",
    ],
)
def test_a_template_that_raises_is_one_error_of_four_parts(tiny_tokenizer, template):
    tiny_tokenizer.chat_template = template
    (row,) = to_chat([ROW])
    for work in (
        lambda: tokenize_prompts(tiny_tokenizer, [row["prompt"]]),
        lambda: tokenize_demonstrations([row], tiny_tokenizer),
    ):
        with pytest.raises(DataError, match="cannot render a conversation") as raised:
            work()
        assert "1 plus 2 is" in raised.value.seen, "one is shown"
        assert all((raised.value.expected, raised.value.where, raised.value.fix))


def test_conversations_without_a_template_are_refused(tiny_tokenizer):
    with pytest.raises(DataError, match="no chat template"):
        through_template(tiny_tokenizer, to_chat([ROW])[0]["prompt"])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a", "completion": None}, "prompt of kind text and a completion of kind NoneType"),
        ({"prompt": None, "completion": "b"}, "prompt of kind NoneType"),
        ({"prompt": "a", "completion": [{"role": "assistant", "content": "b"}]}, "completion of kind messages"),
        ({"prompt": [{"role": "user", "content": "a"}], "completion": "b"}, "messages and a completion of kind text"),
        ({"prompt": "a", "completion": 7}, "completion of kind int"),
    ],
)
def test_demonstrations_of_mixed_kinds_are_named(tiny_tokenizer, row, said):
    with pytest.raises(DataError, match=f"row 1 .*{said}(.|\n)*expected: (.|\n)*fix: "):
        tokenize_demonstrations([ROW, row], tiny_tokenizer)


def test_no_demonstrations_at_all_names_the_library_too(tiny_tokenizer):
    with pytest.raises(DataError) as raised:
        tokenize_demonstrations([], tiny_tokenizer)
    assert raised.value.fix.startswith("give some")


@pytest.mark.parametrize(
    ("own", "fix"),
    [
        ({"chat_template_kwargs": {"enable_thinking": False}}, r"set hybrid.args.chat_template_kwargs"),
        ({"tools": [{"type": "function", "function": {"name": "add"}}]}, "another name"),
    ],
)
def test_rows_that_say_how_they_are_rendered_are_refused_everywhere(tiny_tokenizer, own, fix):
    """TRL's GRPOTrainer passes such columns over; see the next test."""
    tiny_tokenizer.chat_template = PLAIN
    plain = {"prompt": "1?", "completion": "1"}
    for rows in ([plain | own], [plain | dict.fromkeys(own), plain | own]):
        with pytest.raises(DataError, match=rf"row {len(rows) - 1} has {next(iter(own))} of its own(.|\n)*{fix}"):
            fit_to_model(rows, tiny_tokenizer)
        with pytest.raises(DataError, match="demonstrations: row"):
            tokenize_demonstrations(to_chat(rows), tiny_tokenizer)
        with pytest.raises(DataError, match="train_dataset: row"):
            check_prompts(Dataset.from_list(to_chat(rows)), tiny_tokenizer, {})
    empty = [plain | dict.fromkeys(own)]
    assert tokenize_demonstrations(fit_to_model(empty, tiny_tokenizer), tiny_tokenizer)
    tiny_tokenizer.chat_template = None
    assert fit_to_model([plain | own], tiny_tokenizer) == [plain | own], "a text is not rendered"


def test_trl_renders_no_prompt_by_its_row(tiny_tokenizer, tiny_model, tmp_path):
    """Where it does one day, rows may have their own here, too."""
    from trl import GRPOConfig, GRPOTrainer

    tiny_tokenizer.chat_template = PLAIN + "{% if loud %}!!!{% endif %}"
    rows = [{"prompt": [{"role": "user", "content": "1?"}], "chat_template_kwargs": {"loud": True}}] * 2
    args = GRPOConfig(str(tmp_path), per_device_train_batch_size=2, num_generations=2, max_completion_length=2,
                      max_steps=1, bf16=False, use_cpu=True, report_to=[], save_strategy="no")  # fmt: skip
    seen: list[str] = []

    def look(prompts, prompt_ids=None, **columns):
        return [0.0] * len(prompts)

    trainer = GRPOTrainer(tiny_model, look, args, Dataset.from_list(rows), processing_class=tiny_tokenizer)
    tokenize = trainer._tokenize_prompts

    def tokenized(prompts):
        found = tokenize(prompts)
        seen.extend(tiny_tokenizer.decode(ids) for ids in found[0])
        return found

    trainer._tokenize_prompts = tokenized
    trainer.train()
    assert seen
    assert not any("!!!" in text for text in seen)
