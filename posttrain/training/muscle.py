"""A loss that makes a new model compatible with the one before it (MUSCLE, arXiv 2407.09435, section 4.2).

The policy trains on demonstrations towards two teachers that don't change: the old model, and the new one, which is the
policy as training began. Token by token, with y the demonstration's token and all three in its context:

    KL(new || policy)  where argmax policy = y,
    KL(old || policy)  elsewhere,

over the whole vocabulary, at temperature 1, in nats; the step's loss is the mean over its label tokens. What the policy
gets right stays what the new model says; what it gets wrong becomes what the old model says, so that problems which the
old model solved are lost less often (`posttrain compare` counts them as regressions).

Deviation: there is no code of the authors'. Which way the KL goes is from the paper's formula; the choice by the
argmax has no gradient.

As in `full_kl` the teachers' passes keep hidden states, and logits are made of some tokens at a time, and made again on
the way back. Shapes: S label tokens of a micro-batch in the order of its rows, D hidden size (a model's own), V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from posttrain.errors import ConfigError
from posttrain.inputs.data import IGNORED
from posttrain.inputs.shown import check_plain_logits
from posttrain.models.inference import inference
from posttrain.models.policy_weights import base_model
from posttrain.models.positions import count_by_mask
from posttrain.models.snapshot import PolicySnapshot
from posttrain.packing.scores import Autocast
from posttrain.training.full_kl import CHUNK

Head = tuple[torch.Tensor, torch.Tensor | None]
"""Weight (V, D) and bias (V,) by which hidden states become logits."""


WHERE = "warmup.muscle"


class Compatibility:
    """The loss of a trainer's micro-batches.

    Args:
        policy: The model as it is now, not wrapped for several processes; its values of now are the new model's.
        new: A copy of those.
        old: The model before, on the policy's device, with as many logits a token.
        autocast: What opens the precision that training runs in.

    Raises:
        ConfigError: The two have other numbers of logits, or of one these are more than a product.

    Attributes:
        toward_old: (2,) label tokens whose KL was to the old model, and all, since it was last reset.
    """

    def __init__(self, policy: nn.Module, new: PolicySnapshot, old: nn.Module, autocast: Autocast):
        self._policy, self._new, self._autocast = policy, new, autocast
        self._old = old.requires_grad_(False)
        count_by_mask(old)
        weight, bias = _head(policy)
        for each in (policy, old):
            check_plain_logits(base_model(each).config, "muscle", WHERE)
        if (logits := weight.size(0)) != (others := _head(old)[0].size(0)):
            raise ConfigError(f"{others} logits a token of the old model, {logits} of the new", where=WHERE)
        trains = weight.requires_grad
        self._new_head = _still(weight, copy=trains), None if bias is None else _still(bias, copy=trains)
        self._teachers: tuple[torch.Tensor, torch.Tensor] | None = None
        self._hidden: torch.Tensor | None = None
        self.toward_old: torch.Tensor | None = None
        _backbone(policy).register_forward_hook(self._keep)

    @contextmanager
    def beside(self, inputs: dict[str, Any]) -> Iterator[None]:
        """Have both teachers look at a micro-batch, which the policy is trained on in the block.

        Args:
            inputs: What is passed to the policy: a padded batch with `labels`, or a packed one (`label_inputs`).
        """
        with inference(self._old), self._autocast():
            old = _label_states(self._old, inputs)
        with self._new.swapped_into(self._policy), self._autocast():
            new = _label_states(self._policy, inputs)
        self._teachers = old, new
        try:
            yield
        finally:
            self._teachers = self._hidden = None

    def _keep(self, backbone: nn.Module, args: Any, output: Any) -> None:
        if self._teachers is not None:
            self._hidden = output.last_hidden_state

    def kl(self, inputs: dict[str, Any]) -> torch.Tensor:
        """The KL of each label token, 0 elsewhere, of the pass that was just made; shaped as its log-probabilities.

        Args:
            inputs: As for `beside`.
        """
        assert self._teachers is not None
        assert self._hidden is not None
        labels, policy = _labels(inputs), self._hidden
        policy = policy[:, : labels.size(1)]  # the last column of a padded batch has no label
        there = labels != IGNORED
        head = _head(self._policy)
        with self._autocast():
            parts = [
                checkpoint(
                    toward, *some, head, _head(self._old), self._new_head, use_reentrant=False, preserve_rng_state=False
                )
                for some in zip(
                    policy[there].split(CHUNK), labels[there].split(CHUNK),
                    *(teacher.split(CHUNK) for teacher in self._teachers), strict=True,
                )
            ]  # fmt: skip
        kl, wrong = (torch.cat(some) for some in zip(*parts, strict=True))
        seen = torch.stack([wrong.sum(), there.sum()])
        self.toward_old = seen if self.toward_old is None else self.toward_old + seen
        return kl.new_zeros(labels.shape).masked_scatter(there, kl)


def toward(
    policy_SD: torch.Tensor, labels_S: torch.Tensor, old_SD: torch.Tensor, new_SD: torch.Tensor,
    head: Head, old_head: Head, new_head: Head,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """(S,) KL from one of two teachers to the policy in nats, and (S,) whether that is the old one.

    Args:
        policy_SD, old_SD, new_SD: Hidden states; the teachers' own D may be another.
        labels_S: The demonstration's tokens.
        head, old_head, new_head: What makes logits of them; no gradient goes to the teachers'.
    """
    policy = linear(policy_SD, *head).float().log_softmax(-1)
    with torch.no_grad():
        wrong = policy.argmax(-1) != labels_S
        old, new = (
            linear(states, *own).float().log_softmax(-1) for states, own in ((old_SD, old_head), (new_SD, new_head))
        )
        teacher = torch.where(wrong[:, None], old, new)
    return (teacher.exp() * (teacher - policy)).sum(-1), wrong


def _still(value: torch.Tensor, *, copy: bool) -> torch.Tensor:
    return value.detach().clone() if copy else value.detach()


def _backbone(model: nn.Module) -> Any:
    base: Any = base_model(model)
    return base.base_model


def _head(model: nn.Module) -> Head:
    base: Any = base_model(model)
    head = base.get_output_embeddings()
    return head.weight, getattr(head, "bias", None)


def _labels(inputs: dict[str, Any]) -> torch.Tensor:
    """(B, T - 1) of a padded batch, (1, S) of a packed one: what each position is to predict."""
    return inputs["labels"][:, 1:] if "shift_labels" not in inputs else inputs["shift_labels"]


def _label_states(model: nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
    """(S, D) hidden states from which a model predicts the labels."""
    passed = {key: value for key, value in inputs.items() if key not in ("labels", "shift_labels")} | {
        "use_cache": False
    }
    states, labels = _backbone(model)(**passed).last_hidden_state, _labels(inputs)
    return states[:, : labels.size(1)][labels != IGNORED]
