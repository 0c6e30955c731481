"""What a teacher is shown before it scores a prompt's rollouts: a demonstration and the prompt, as one text.

The text is made anew for the teacher alone; completions behind it stay the tokens that were sampled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from posttrain.errors import ConfigError, DataError
from posttrain.inputs.pairs import Pairs
from posttrain.inputs.rendering import tokenize_prompts

SCALES = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
"""Fields of a configuration by which logits are more than a product with the head's weight."""


def teacher_contexts(
    pairs: Pairs,
    text: str,
    tokenizer: Any,
    *,
    template_kwargs: Mapping[str, Any],
    longest: int,
    positions: int | None,
    too_long: Literal["refuse", "leave_out"],
) -> list[list[int]]:
    """Token ids of what a teacher is shown, of each demonstration.

    Args:
        pairs: Prompts and demonstrations; parted where there are no positions left for a completion (`Pairs.without`).
        text, tokenizer, template_kwargs: As for `contexts`.
        longest: Most tokens of a completion.
        positions: That the model has; `None` is any number.
        too_long: What becomes of the demonstrations that are too long.

    Raises:
        DataError: As `contexts` and `Pairs.without`.
    """
    ids = contexts(pairs.rows, text, tokenizer, template_kwargs)
    if positions is not None:
        over = [number for number, context in enumerate(ids) if len(context) + longest > positions]
        pairs.without(over, too_long, positions)
    return ids


def contexts(
    rows: Sequence[Mapping[str, Any]], text: str, tokenizer: Any, template_kwargs: Mapping[str, Any]
) -> list[list[int]]:
    """Token ids of a text with each row's prompt and demonstration.

    Args:
        rows: With `prompt` and `completion`, text or messages.
        text: With `{demonstration}` and `{prompt}`; it takes the place of a prompt, or of its last message's content.
        tokenizer: The policy's.
        template_kwargs: Of the chat template.

    Raises:
        DataError: A prompt's last message, or a demonstration, is no text.
    """
    shown: list[Any] = []
    for row in rows:
        prompt, completion = row["prompt"], row["completion"]
        if isinstance(prompt, str):
            shown.append(_filled(text, prompt=prompt, demonstration=completion))
            continue
        words = [message.get("content") for message in (*completion, prompt[-1])]
        if not all(isinstance(each, str) for each in words):
            raise DataError(
                f"a teacher cannot be shown a demonstration: {str(completion)[:120]} behind {str(prompt)[-120:]}",
                expected="messages of text",
                where="demonstrations",
                fix="leave it out, or write its content as text",
            )
        content = _filled(text, prompt=words[-1], demonstration="\n\n".join(words[:-1]))
        shown.append([*prompt[:-1], {**prompt[-1], "content": content}])
    # Text and conversations go to the tokenizer apart
    kinds = {kind: [place for place, one in enumerate(shown) if isinstance(one, str) is kind] for kind in (True, False)}
    ids: dict[int, list[int]] = {}
    for places in kinds.values():
        made = tokenize_prompts(tokenizer, [shown[place] for place in places], template_kwargs)
        ids |= dict(zip(places, made, strict=True))
    return [ids[place] for place in range(len(shown))]


def check_plain_logits(config: Any, what: str = "teacher_kl", where: str = "hybrid.method") -> None:
    """Refuse a model by whose configuration logits are more than a product, of which a KL to a teacher is made.

    Args:
        config: Of the model.
        what: What makes the KL.
        where: The key that asked for it.

    Raises:
        ConfigError: With the field that says so.
    """
    text = config.get_text_config()
    if scaled := [name for name in SCALES if getattr(text, name, None) not in (None, 1.0)]:
        raise ConfigError(
            f"the model's configuration has {scaled[0]}: {getattr(text, scaled[0])}, with {what}",
            expected="logits that are the product of hidden states and the head's weight",
            where=where,
            fix=f"leave {what} out",
        )


def _filled(text: str, **parts: str) -> str:
    """All at once: what is put in may have braces of its own."""
    return re.sub(r"\{(demonstration|prompt)\}", lambda place: parts[place[1]], text)
