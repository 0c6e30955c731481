"""The KL from a policy to a teacher over the whole vocabulary, token by token, in the pass that trains the policy.

The teacher is the same model in another context. Its logits, tokens times vocabulary, would be as large as those that a
fused head is there to avoid, so that a pass without gradient keeps its hidden states alone. The training pass makes
both distributions from hidden states, some tokens at a time, and makes them again on the way back.

Shapes: S scored tokens of a micro-batch in the order of its rows, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import wraps
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint
from trl.trainer.utils import FusedCausalLMOutput

from posttrain.inputs.data import IGNORED
from posttrain.inputs.shown import check_plain_logits
from posttrain.models.policy_weights import base_model

CHUNK = 256
"""Tokens whose logits are there at once."""


@dataclass
class WithKL(FusedCausalLMOutput):
    """What a fused head returns, and the KL of each scored token (S,): part of the output, as all that has a gradient
    must be for what shards a model."""

    kl: torch.Tensor | None = None


class TeacherKL:
    """A model's fused head, which tells the KL to hidden states that it was made to keep before.

    Args:
        model: With TRL's fused head, not yet wrapped for several processes.
        temperature: That logits are divided by.
        float32: Whether the head is computed in float32.

    Raises:
        ConfigError: The model does more to its logits than a product.
    """

    def __init__(self, model: nn.Module, *, temperature: float, float32: bool):
        base: Any = base_model(model)
        check_plain_logits(base.config)
        self._temperature, self._float32 = temperature, float32
        self._teacher: torch.Tensor | None = None
        self._keeps = False
        self._seen: list[torch.Tensor] = []
        scored = base.forward

        @wraps(type(base).forward)  # `generate` checks its arguments against the signature
        def forward(own: Any, *args: Any, **kwargs: Any) -> Any:
            if not (self._keeps or self._teacher is not None) or not kwargs.get("fused_lm_head"):
                return scored(*args, **kwargs)
            return self._beside(own, scored, args, kwargs)

        base.forward = MethodType(forward, base)

    @contextmanager
    def keeping(self) -> Iterator[list[torch.Tensor]]:
        """Keep the hidden states (S, D) of each pass inside."""
        self._keeps, self._seen = True, []
        try:
            yield self._seen
        finally:
            self._keeps = False

    @contextmanager
    def to(self, teacher: torch.Tensor) -> Iterator[list[torch.Tensor]]:
        """Have the pass inside tell its KL (S,) to a teacher of these hidden states."""
        self._teacher, self._seen = teacher, []
        try:
            yield self._seen
        finally:
            self._teacher = None

    def _beside(self, model: Any, scored: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        held: list[torch.Tensor] = []
        hook = model.base_model.register_forward_hook(lambda _m, _a, out: held.append(out.last_hidden_state))
        try:
            output = scored(*args, **kwargs)
        finally:
            hook.remove()
        (hidden,), labels = held, kwargs.get("shift_labels")
        if labels is None:
            hidden, labels = hidden[:, :-1], kwargs["labels"][:, 1:]
        hidden = hidden[labels.to(hidden.device) != IGNORED]
        if self._keeps:
            self._seen.append(hidden.detach())
            return output
        assert self._teacher is not None
        kl = self._kl(model.get_output_embeddings(), hidden, self._teacher)
        self._seen.append(kl)
        return WithKL(**output, kl=kl)

    def _kl(self, head: Any, policy: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        weight, bias = head.weight, head.bias
        if isinstance(weight, DTensor):  # FSDP2's shards; the hidden states are whole
            weight, bias = weight.full_tensor(), None if bias is None else bias.full_tensor()
        policy, teacher = policy.to(weight.device), teacher.to(weight.device)
        if self._float32:
            policy, teacher = policy.float(), teacher.float()
        off = torch.autocast(weight.device.type, enabled=False) if self._float32 else nullcontext()
        t = self._temperature
        with off:
            parts = [
                checkpoint(full_kl, some, other, weight, bias, t, use_reentrant=False, preserve_rng_state=False)
                for some, other in zip(policy.split(CHUNK), teacher.split(CHUNK), strict=True)
            ]
        return torch.cat(parts)


def full_kl(
    policy_SD: torch.Tensor, teacher_SD: torch.Tensor, weight_VD: torch.Tensor, bias_V: torch.Tensor | None, t: float
) -> torch.Tensor:
    """(S,) KL(policy || teacher) in nats at the temperature t; the teacher's part has no gradient."""
    with torch.no_grad():
        teacher = (linear(teacher_SD, weight_VD, bias_V).float() / t).log_softmax(-1)
    policy = (linear(policy_SD, weight_VD, bias_V).float() / t).log_softmax(-1)
    return (policy.exp() * (policy - teacher)).sum(-1)
