"""What is trained is what is sampled: each way in which it is not is found, shown with both ends, and can be mended."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken

from posttrain.errors import DataError
from posttrain.inputs.applying import as_seen
from posttrain.inputs.data import to_chat
from posttrain.inputs.demonstrated import demonstrated
from posttrain.inputs.same_scores import as_rollout
from posttrain.inputs.same_stream import differences, refuse
from posttrain.models.load import train_tokenizer
from posttrain.scoring.score import Outcome, Reward, Score
from tests.inputs.test_rendering import DROPS, OPENS, PLAIN, THINKS
from tests.inputs.test_tokens import words

ROWS = [{"prompt": f"{a} plus 2 is", "completion": f"{a + 2}.", "answer": str(a + 2)} for a in range(30)]
THOUGHT = [{**row, "completion": f"<think>{row['answer']}</think> it is {row['answer']}."} for row in ROWS]
CUTS = (  # leaves out what was thought, and gives the sampler nothing that it would not have itself
    "{% for m in messages %}<{{ m['role'] }}>\n{{ m['content'].split('</think>')[-1] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>\n{% endif %}"
)


def found(rows, tokenizer, *, ends=None, after="template", sampled=None, rewards=(), kwargs=None):
    rows = to_chat(rows) if tokenizer.chat_template else rows
    some = demonstrated(rows, tokenizer, template_kwargs=kwargs or {}, after=after, sampled=sampled)
    ends = [tokenizer.eos_token_id] if ends is None else ends

    def score(index, texts, given):
        call = rewards[index].function
        return [Outcome(Score(call(text, **as_seen(dict(row))))) for text, row in zip(texts, given, strict=True)]

    return list(differences(some, tokenizer, ends, rewards, score if rewards else None))


def answers(completion, *, answer, **row):
    return float(answer in completion)


def thinks(completion, **row):
    return float("<think>" in completion)


def reward(function):
    return Reward.from_callable(function)


@pytest.mark.parametrize("template", [None, PLAIN])
@pytest.mark.parametrize("rows", [ROWS, THOUGHT])
def test_sound_rows_have_no_difference(tiny_tokenizer, template, rows):
    tiny_tokenizer.chat_template = template
    assert found(rows, tiny_tokenizer, rewards=[reward(answers), reward(thinks)]) == []


def test_a_sample_is_looked_at_from_all_over_the_rows(tiny_tokenizer):
    some = demonstrated(ROWS, tiny_tokenizer, template_kwargs={}, after="template")
    assert [one.row["answer"] for one in some][:3] == ["2", "3", "5"]
    assert len(some) == 20


# ---- the context ----


def test_another_context_than_the_prompt_is_shown_with_both_ends(tiny_tokenizer):
    def sampled(prompts):
        return [tiny_tokenizer(text=f"{prompt} ?")["input_ids"] for prompt in prompts]

    (one,) = found(ROWS, tiny_tokenizer, sampled=sampled)
    assert one.refused
    last = tiny_tokenizer("0 plus 2 is")["input_ids"]
    assert f"from token {len(last)} on" in one.error.seen
    assert str(last[-2:]) in one.error.seen, "as ids"
    assert "' ?'" in one.error.seen or " ?" in one.error.seen, "in words"
    with pytest.raises(DataError, match="demonstrations_after"):
        refuse([one])


# ---- the words ----


@pytest.mark.parametrize("template", [CUTS, DROPS])
def test_a_template_that_takes_thoughts_out_is_refused_and_mended_by_a_setting(tiny_tokenizer, template):
    tiny_tokenizer.chat_template = template
    with pytest.raises(DataError, match="demonstrations_after to generation_prompt"):
        found([OPENS], tiny_tokenizer)
    assert found([OPENS], tiny_tokenizer, after="generation_prompt") == []
    (one,) = demonstrated(to_chat([OPENS]), tiny_tokenizer, template_kwargs={}, after="generation_prompt")
    given = "<think>\n" if template is DROPS else ""
    assert tiny_tokenizer.decode(one.prompt_ids).endswith("<assistant>\n" + given)
    assert given + tiny_tokenizer.decode(one.completion_ids) == OPENS["completion"] + "<|end|>\n"


def test_what_a_template_leaves_out_is_named(tiny_tokenizer):
    tiny_tokenizer.chat_template = CUTS
    with pytest.raises(DataError) as raised:
        found(THOUGHT, tiny_tokenizer)
    assert "'<think>2</think> it is 2.'" in raised.value.seen
    assert "' it is 2.<|end|>\\n'" in raised.value.seen
    tokens = tiny_tokenizer(" it is 2.<|end|>\n")["input_ids"]
    assert str(tokens[:8]) in raised.value.seen


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_a_thought_in_a_field_of_its_own_that_the_template_does_not_know(tiny_tokenizer, field):
    tiny_tokenizer.chat_template = PLAIN
    (row,) = to_chat([ROWS[0]])
    row["completion"][0][field] = "two of them"
    with pytest.raises(DataError, match="'two of them'"):
        demonstrated([row], tiny_tokenizer, template_kwargs={}, after="template")


def test_signs_that_the_vocabulary_lacks_are_lost_words():
    (one,) = found([{"prompt": "a", "completion": "b!"}], words("first"))
    assert one.refused
    assert "<unk>" in one.error.seen
    assert "'b!'" in one.error.seen


# ---- the end ----


def with_im_end(tokenizer):
    tokenizer.add_tokens([AddedToken("<|im_end|>", special=True)])
    tokenizer.chat_template = PLAIN.replace("<|end|>", "<|im_end|>")
    return tokenizer


def test_an_end_that_ends_no_completion_names_the_setting(tiny_tokenizer):
    tokenizer = with_im_end(tiny_tokenizer)
    (one,) = found(ROWS, tokenizer)
    own = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert one.refused
    assert f"{own}, " in one.error.seen
    assert f"'<|end|>' ({tokenizer.eos_token_id})" in one.error.seen
    assert "warmup.args.eos_token to '<|im_end|>'" in one.error.fix
    assert f"add {own} to eos_token_id" in one.error.fix
    assert found(ROWS, tokenizer, ends=[tokenizer.eos_token_id, own]) == []
    tokenizer.eos_token = "<|im_end|>"
    assert found(ROWS, tokenizer) == []


def test_a_template_without_an_end_is_told(tiny_tokenizer):
    tiny_tokenizer.chat_template = PLAIN.replace("<|end|>", "")
    (one,) = found(ROWS, tiny_tokenizer)
    assert one.refused
    assert "template that puts an end behind an answer" in one.error.fix


# ---- what rewards see ----


@pytest.fixture
def special():
    tokenizer = train_tokenizer([row["prompt"] + row["completion"] for row in THOUGHT], vocab_size=300)
    tokenizer.add_tokens([AddedToken("<think>", special=True), AddedToken("</think>", special=True)])
    return tokenizer


def test_special_tokens_that_a_reward_looks_for_are_told(special):
    (one,) = found(THOUGHT, special, rewards=[reward(answers), reward(thinks)])
    assert one.refused
    assert "'thinks' gives a demonstration 1 as text and 0" in one.error.seen
    assert f"'<think>' ({special.convert_tokens_to_ids('<think>')})" in one.error.seen
    assert '"special": false' in one.error.fix


def test_a_reward_that_other_demonstrations_still_get_is_no_reason_to_stop(special):
    def short_or_thinks(completion, **row):
        return float(len(completion) < 5 or "<think>" in completion)

    (one,) = found([*THOUGHT[:15], *ROWS], special, rewards=[reward(short_or_thinks)])
    assert not one.refused


def test_where_no_reward_can_be_asked_it_is_said(special):
    (one,) = found(THOUGHT, special)
    assert not one.refused
    assert refuse([one])[0].startswith("rewards: a reward does not see a rollout as a demonstration is written")


def test_a_thought_that_the_prompt_opens_is_not_in_a_rollout(tiny_tokenizer):
    tiny_tokenizer.chat_template = THINKS
    row = {**OPENS, "answer": "3"}
    (one,) = found([row], tiny_tokenizer, after="generation_prompt", rewards=[reward(answers), reward(thinks)])
    assert one.refused
    assert "think_in_prompt" in one.error.fix


def test_a_rollout_goes_to_the_first_end(tiny_tokenizer):
    tiny_tokenizer.chat_template = PLAIN
    (one,) = demonstrated(to_chat(ROWS[:1]), tiny_tokenizer, template_kwargs={}, after="template")
    assert tiny_tokenizer.decode(one.completion_ids) == "2.<|end|>\n"
    assert as_rollout(one, tiny_tokenizer, [tiny_tokenizer.eos_token_id]) == "2."
