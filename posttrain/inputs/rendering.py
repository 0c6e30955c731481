"""Prompts as the sampler is given them, and demonstrations that go on from there; conversations by a chat template.

A template may end what the sampler is given with text that the conversation as a whole does not have there: reasoning
models open `<think>`, or open and close it. Such a demonstration would be of another prompt than the rollouts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any, Literal

from posttrain.errors import DataError, PosttrainError
from posttrain.inputs.tokens import continuation, prompt_tokens, with_one_end

After = Literal["template", "generation_prompt"]
"""What a demonstration's completion stands behind: what the template puts there, or what the sampler is given."""

Messages = Sequence[Mapping[str, Any]]
Prompt = str | list[dict[str, Any]]

OF_A_ROW = ("chat_template_kwargs", "tools")
"""Columns by which `trl.SFTTrainer` renders a row as no other."""

_MARK = "a9f3completion7c1e"
_OPENED = re.compile(r"<(think|thinking|thought|reasoning|reason|analysis|scratchpad)>\s{0,8}\Z")
_SHOWN = 60
_TAIL = 32  # tokens of a prompt that an opened tag is looked for in


_SAID = ("content", "reasoning_content", "reasoning", "thinking")
"""Where a message has its words; templates differ in the name of what was thought."""


class UnlikePrompts(DataError):
    """Demonstrations that do not begin with what the sampler is given, or that the template takes words out of."""


def through_template(tokenizer: Any, conversation: Any, **arguments: Any) -> Any:
    """`tokenizer.apply_chat_template`; whatever a template raises is one error.

    Raises:
        DataError: There is no template, or it refuses the conversation.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise DataError(
            "the rows are conversations, and the model's tokenizer has no chat template",
            expected="prompts of plain text, or a model with a chat template",
            where="the chat template",
            fix="name a model that was trained for conversations, often one whose name ends in -Instruct",
        )
    try:
        return tokenizer.apply_chat_template(conversation, **arguments)
    except PosttrainError:
        raise
    except Exception as error:  # jinja's, or whatever a template makes Python raise
        first = conversation[0] if conversation and not isinstance(conversation[0], Mapping) else conversation
        raise DataError(
            f"it cannot render a conversation: {type(error).__name__}: {' '.join(str(error).split())[:300]}\n"
            f"  such as: {str(first)[:300]}",
            expected="a template that takes the rows' messages and their roles",
            where="the chat template of the model",
            fix="correct the template, its arguments (chat_template_kwargs) or the rows",
        ) from error


def check_rendering(rows: Iterable[Mapping[str, Any]], where: str) -> None:
    """Refuse conversations that say how they are rendered, each by itself.

    `SFTTrainer` honours these columns and `GRPOTrainer` (1.16) does not: it renders all prompts by its arguments, and
    rollouts would be of other prompts than demonstrations.

    Args:
        rows: With a prompt each.
        where: What the rows are called in an error.

    Raises:
        DataError: A row does.
    """
    for number, row in enumerate(rows):
        name = next((name for name in OF_A_ROW if row.get(name)), None)
        if name and not isinstance(row.get("prompt"), str):
            same = "hybrid.args.chat_template_kwargs (chat_template_kwargs of HybridConfig), the same for all rows"
            raise DataError(
                f"row {number} has {name} of its own: {str(row[name])[:_SHOWN]}",
                expected="conversations that all go through the chat template by the same arguments: TRL's GRPOTrainer "
                "renders no prompt by a row's own, and demonstrations would be of other prompts",
                where=where,
                fix=f"leave the column out and set {same}"
                if name == "chat_template_kwargs"
                else "leave the column out, and write into a system message what the template would; a column that is "
                "for rewards needs another name",
            )


def tokenize_prompts(
    tokenizer: Any, prompts: Sequence[Prompt], template_kwargs: Mapping[str, Any] | None = None
) -> list[list[int]]:
    """Token ids of prompts, as `HybridTrainer` samples from them: text as it is with the tokenizer's special tokens
    but no end, conversations through the chat template with the opening of the assistant's turn.

    Raises:
        DataError: A prompt has no tokens, or the chat template refuses one.
    """
    if not prompts:
        return []
    if isinstance(prompts[0], str):
        prompt_ids = prompt_tokens(tokenizer, [str(prompt) for prompt in prompts])
    else:
        prompt_ids = through_template(
            tokenizer,
            list(prompts),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            **(template_kwargs or {}),
        )["input_ids"]
    for index, ids in enumerate(prompt_ids):
        if not ids:
            raise DataError(
                f"prompt {index} has no tokens: {prompts[index]!r}",
                expected="at least one token",
                where="prompts",
                fix="leave empty prompts out; if none has any, the model's tokenizer is missing or broken",
            )
    return prompt_ids


def text_demonstration(tokenizer: Any, prompt: str, completion: str) -> tuple[list[int], list[int]]:
    """Token ids of the prompt as the sampler is given it, and of the completion behind it with one end of sequence."""
    (prompt_ids,) = prompt_tokens(tokenizer, [prompt])
    return prompt_ids, with_one_end(tokenizer, continuation(tokenizer, prompt, completion))


def chat_demonstration(
    tokenizer: Any, prompt: Messages, completion: Messages, template_kwargs: Mapping[str, Any], after: After
) -> tuple[list[int], list[int]]:
    """Token ids of the prompt as the sampler is given it, and of the completion behind it as the template ends it.

    Raises:
        UnlikePrompts: The one does not begin with the other, or the template leaves words of the completion out, and
            `after` does not say what to do.
        DataError: The template refuses the messages, or the completion cannot stand behind the prompt.
    """
    template = {**template_kwargs, "tokenize": True, "return_dict": True}
    prompt_ids = through_template(tokenizer, prompt, add_generation_prompt=True, **template)["input_ids"]
    ids = through_template(tokenizer, [*prompt, *completion], **template)["input_ids"]
    alike = ids[: len(prompt_ids)] == prompt_ids
    if alike and not lost_words(tokenizer, prompt_ids, ids[len(prompt_ids) :], completion):
        return prompt_ids, ids[len(prompt_ids) :]
    template["tokenize"] = False
    given = through_template(tokenizer, prompt, add_generation_prompt=True, **template)
    whole = through_template(tokenizer, [*prompt, *completion], **template)
    if whole.startswith(given):  # only a token at the border is another, or words are lost
        completion_ids = continuation(tokenizer, given, whole[len(given) :], special=False)
        if not (words := lost_words(tokenizer, prompt_ids, completion_ids, completion)):
            return prompt_ids, completion_ids
        if after == "template":
            raise _lost(words, whole[len(given) :], tokenizer, completion_ids)
    elif after == "template":
        raise _unlike(given, whole)
    more = _behind(given, completion) + _ending(tokenizer, prompt, template)
    return prompt_ids, continuation(tokenizer, given, more, special=False)


def lost_words(tokenizer: Any, prompt_ids: list[int], completion_ids: list[int], completion: Messages) -> str:
    """The first words of a completion's messages that its tokens do not read as; empty if all are there.

    White space is not looked at, nor the tag of a thought that the prompt has opened already.
    """
    read = _squeezed(tokenizer.decode(completion_ids, clean_up_tokenization_spaces=False))
    opened = _OPENED.search(tokenizer.decode(prompt_ids[-_TAIL:]))
    for words in _said(completion):
        sought = _squeezed(words)
        if sought not in read and not (opened and sought.removeprefix(f"<{opened[1]}>") in read):
            return words
    return ""


def _said(completion: Messages) -> Iterator[str]:
    for message in completion:
        yield from (words for key in _SAID if isinstance(words := message.get(key), str))


def _squeezed(text: str) -> str:
    """Without white space, and in one of the several forms that Unicode has of some letters."""
    return "".join(unicodedata.normalize("NFKC", text).split())


def _lost(words: str, rendered: str, tokenizer: Any, ids: list[int]) -> UnlikePrompts:
    return UnlikePrompts(
        f"the chat template leaves out words of a demonstration: its completion is {words[:_SHOWN]!r}, and what would "
        f"be trained on {rendered[:_SHOWN]!r}, tokens {ids[:8]}",
        expected="all words of a completion, what was thought among them: else SFT teaches to leave it out",
        where="demonstrations",
        fix="set hybrid.demonstrations_after to generation_prompt (demonstrations_after of HybridConfig), which puts a "
        "demonstration's completion as it is behind the sampler's prompt; or chat_template_kwargs by which the "
        "template keeps them; or write into content, as <think>...</think>, what stands in another field",
    )


def _unlike(given: str, whole: str) -> UnlikePrompts:
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(given, whole, strict=False)))
    before = given[max(0, same - _SHOWN // 2) : same]
    return UnlikePrompts(
        f"the chat template gives the sampler another prompt than a demonstration has: after {before!r} the sampler "
        f"is given {given[same : same + _SHOWN]!r}, and a demonstration goes on with {whole[same : same + _SHOWN]!r}",
        expected="demonstrations that begin with what the sampler is given: else SFT teaches one prompt and GRPO "
        "samples from another",
        where="demonstrations",
        fix="set hybrid.demonstrations_after to generation_prompt (demonstrations_after of HybridConfig), which puts a "
        "demonstration's completion behind the sampler's prompt; or chat_template_kwargs that make the two alike, "
        "such as {enable_thinking: false}",
    )


def _behind(given: str, completion: Messages) -> str:
    """The completion as it goes on from what the sampler is given."""
    content = completion[0].get("content") if len(completion) == 1 else None
    if not isinstance(content, str):
        raise DataError(
            f"a demonstration's completion is {len(completion)} messages, or none of text",
            expected="one message of the assistant with a text",
            where="demonstrations",
            fix="leave demonstrations_after at template, with a template that renders it behind the sampler's prompt",
        )
    if not (opened := _OPENED.search(given)):
        return content
    tag = opened[1]
    if content.lstrip().startswith(f"<{tag}>"):
        rest = content.lstrip().removeprefix(f"<{tag}>")
        return rest.removeprefix("\n") if given.endswith("\n") else rest
    if f"</{tag}>" not in content:
        raise DataError(
            f"the sampler's prompt ends with an open <{tag}>, and a demonstration does not close it: "
            f"{content[:_SHOWN]!r}",
            expected=f"completions that go on inside <{tag}> and close it by </{tag}>",
            where="demonstrations",
            fix=f"write the reasoning and </{tag}> into the completions, or set chat_template_kwargs so that the "
            f"template does not open <{tag}>",
        )
    return content


def _ending(tokenizer: Any, prompt: Messages, template: Mapping[str, Any]) -> str:
    """What the template puts behind an assistant's words."""
    marked = through_template(tokenizer, [*prompt, {"role": "assistant", "content": _MARK}], **template)
    return marked.rpartition(_MARK)[2]
