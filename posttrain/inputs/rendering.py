"""Conversations through a chat template: as the sampler is given them, and demonstrations that go on from there.

A template may end what the sampler is given with text that the conversation as a whole does not have there: reasoning
models open `<think>`, or open and close it. Such a demonstration would be of another prompt than the rollouts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, Literal

from posttrain.errors import DataError, PosttrainError

After = Literal["template", "generation_prompt"]
"""What a demonstration's completion stands behind: what the template puts there, or what the sampler is given."""

Messages = Sequence[Mapping[str, Any]]

_MARK = "a9f3completion7c1e"
_OPENED = re.compile(r"<(think|thinking|thought|reasoning|reason|analysis|scratchpad)>\s{0,8}\Z")
_SHOWN = 60


class UnlikePrompts(DataError):
    """Demonstrations that do not begin with what the sampler is given."""


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


def demonstration_ids(
    tokenizer: Any, prompt: Messages, completion: Messages, template_kwargs: Mapping[str, Any], after: After
) -> tuple[list[int], list[int]]:
    """Token ids of the prompt as the sampler is given it, and of the prompt with its completion.

    Raises:
        UnlikePrompts: The one does not begin with the other, and `after` does not say what to do.
        DataError: The template refuses the messages, or the completion cannot stand behind the prompt.
    """
    template = {**template_kwargs, "tokenize": True, "return_dict": True}
    prompt_ids = through_template(tokenizer, prompt, add_generation_prompt=True, **template)["input_ids"]
    ids = through_template(tokenizer, [*prompt, *completion], **template)["input_ids"]
    if ids[: len(prompt_ids)] == prompt_ids:
        return prompt_ids, ids
    template["tokenize"] = False
    given = through_template(tokenizer, prompt, add_generation_prompt=True, **template)
    whole = through_template(tokenizer, [*prompt, *completion], **template)
    if whole.startswith(given):  # only a token at the border is another
        return prompt_ids, ids
    if after == "template":
        raise _unlike(given, whole)
    more = _behind(given, completion) + _ending(tokenizer, prompt, template)
    return prompt_ids, [*prompt_ids, *tokenizer(text=more, add_special_tokens=False)["input_ids"]]


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
