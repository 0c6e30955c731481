"""How far the gradients of sources point where the target's points, over the LM head or the adapter.

Of a policy with an adapter the gradient is over what of it trains. Of any other it is over the matrix of the LM head
alone (FLAD, arXiv 2302.00674), and passes back through nothing else: where that matrix is the embedding's, too, what it
does there has no part in it. Rows go through the model in micro-batches that the processes take in turn; gradients are
of the summed NLL of the label tokens and are added in float64, so that it makes no difference who took which.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch import nn

from posttrain.errors import ConfigError, TrainingError
from posttrain.models.inference import inference
from posttrain.processes.ranks import Ranks


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Of two gradients; 0 where one of them is nothing."""
    norms = float(torch.linalg.vector_norm(a)) * float(torch.linalg.vector_norm(b))
    return float(torch.dot(a, b)) / norms if norms else 0.0


@contextmanager
def compared_by(policy: nn.Module) -> Iterator[list[nn.Parameter]]:
    """The parameters that gradients are compared over, and no gradient of others inside; all as before outside."""
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    if isinstance(policy, PeftModel):
        yield trained
        return
    head = policy.get_output_embeddings()  # type: ignore[operator]
    own = head.weight
    alone = nn.Parameter(own.detach())  # the same numbers, with a gradient of their own
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        head.weight = alone
        yield [alone]
    finally:
        head.weight = own
        for parameter in trained:
            parameter.requires_grad_(True)


def gradient(
    trainer: Any, demonstrations: Dataset, rows: Sequence[int], policy: nn.Module, over: Sequence[nn.Parameter]
) -> torch.Tensor:
    """(P,) float64 gradient of the summed NLL of rows' label tokens, the same on every process."""
    ranks, size = Ranks.of(trainer.accelerator), trainer.args.per_device_train_batch_size
    cuts = [rows[start : start + size] for start in range(0, len(rows), size)]
    sums = torch.zeros(sum(each.numel() for each in over), dtype=torch.float64, device=over[0].device)
    for cut in cuts[ranks.number :: ranks.count]:
        batch = trainer.data_collator([demonstrations[row] for row in cut])
        with torch.enable_grad():
            loss = -trainer.label_log_probs(policy, batch).sum()
        parts = torch.autograd.grad(loss, over, allow_unused=True)
        start = 0
        for part, parameter in zip(parts, over, strict=True):
            if part is not None:
                sums[start : start + parameter.numel()] += part.flatten()
            start += parameter.numel()
    return trainer.accelerator.reduce(sums, reduction="sum") if ranks.count > 1 else sums


def cosines(
    trainer: Any, demonstrations: Dataset, rows: Mapping[str, Sequence[int]], target: Sequence[int]
) -> dict[str, float]:
    """The cosine between each source's gradient and the target's, by the weights as they are and without dropout.

    Args:
        trainer: A `WarmupTrainer`.
        demonstrations: All of them: `input_ids` and `labels`.
        rows: Of each source those to measure.
        target: Those of the target.

    Raises:
        TrainingError: A gradient is not finite.
    """
    policy = trainer.accelerator.unwrap_model(trainer.model)
    found: dict[str, float] = {}
    with inference(policy), compared_by(policy) as over:
        against = gradient(trainer, demonstrations, target, policy, over)
        for name, some in rows.items():
            found[name] = cosine(gradient(trainer, demonstrations, some, policy, over), against)
            if not math.isfinite(found[name]):
                raise _not_finite(name, found[name], trainer.state.global_step)
    return found


def check_whole_weights(accelerator: Any, name: str) -> None:
    """Refuse a start that cuts weights up, whose gradients no process has.

    Raises:
        ConfigError: It is FSDP or DeepSpeed.
    """
    if accelerator.distributed_type in ("FSDP", "DEEPSPEED"):
        raise ConfigError(
            f"the curriculum {name} compares gradients, and this start cuts weights up between the processes",
            expected="one process, or several under DDP",
            where="warmup.curriculum",
            fix="launch with --config ddp, or take another curriculum",
        )


def _not_finite(source: str, value: float, step: int) -> TrainingError:
    error = TrainingError(
        f"the gradient of the source {source}, or of the target, is not finite: their cosine is {value}",
        expected="finite numbers",
        where=f"warm-up step {step}",
        fix="lower warmup.learning_rate or train in float32, and start over by --restart",
    )
    error.shared = True  # every process has the same sums
    return error
