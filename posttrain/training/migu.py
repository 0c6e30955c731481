"""Gradients of those rows of a weight alone whose outputs are large: continual learning without old data.

MIGU (arXiv 2406.17245, and the authors' code): of each linear layer the outputs' magnitudes are summed over the tokens
of an optimizer step; the rows of its weight whose sum is at least the `quantile` of all rows keep their gradient, that
of the others becomes 0. Tasks differ in which rows those are, so that a later one leaves the rows of an earlier one
alone. Biases keep their gradient. Of a LoRA adapter it is the rows of B. Meant from the second task on.

As in the code, the mask is on the gradient: Adam's moments and weight decay still move a masked row. Here it comes
behind clipping, so that the norms that are recorded, compared and clipped by are of the whole gradient. A layer that
the head's fused pass does without, the LM head, is left alone. A position counts as often as rows have it, padding and
a row's last token not at all, and no completion is left out (`drop_zero_advantage`): the mask is the same in any
micro-batches, packed or padded, on one process or several. Passes whose gradient is only measured (`refresh_every`)
count, too, and rows that a method adds so that processes come out even.
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from peft import PeftModel
from torch import nn
from transformers import TrainerCallback

from posttrain.errors import ConfigError, TrainingError


def kept_rows(sums: torch.Tensor, quantile: float) -> torch.Tensor:
    """(D,) whether a row keeps its gradient: its sum is at least the quantile of all, linear between neighbours.

    Args:
        sums: (D,) magnitudes of a layer's outputs; a layer without any keeps all rows.
        quantile: Above 0 and below 1.
    """
    return (sums >= sums.double().quantile(quantile)) | (sums.max() <= 0)


def counts_of(kwargs: dict[str, Any]) -> torch.Tensor | None:
    """How often each position of a forward pass counts, in the shape of its token ids; `None` is once each.

    Args:
        kwargs: Of the model: a packed pass has `tree`, a padded one `attention_mask` (B, T).
    """
    tree = kwargs.get("tree")
    if tree is not None:
        counts = torch.ones(tree.input_ids.shape, device=tree.input_ids.device)
        below = [span for span, _ in tree.branches]
        for start, stop in tree.spans:
            if not any(a <= start < b for a, b in below):  # a prompt counts for each row that goes on from it
                counts[0, start:stop] = max(1, int((tree.scored == stop - 1).sum()))
        return counts
    mask = kwargs.get("attention_mask")
    if mask is None or mask.dim() != 2:
        return None
    return nn.functional.pad(mask[:, 1:] * mask[:, :-1], (0, 1)).float()  # what is left of a row without its last token


class RowsByMagnitude(TrainerCallback):
    """Sums magnitudes in training passes, and masks gradients before the optimizer steps.

    Args:
        model: The policy, not yet wrapped; hooks are put on it.
        accelerator: The trainer's.
        quantile: Of a layer's rows, below which a row gets no gradient.
        where: The argument or key, for errors.

    Raises:
        ConfigError: Gradients that are sharded, or no linear layer that trains.
    """

    def __init__(self, model: nn.Module, accelerator: Accelerator, quantile: float, where: str):
        if str(accelerator.distributed_type.value) in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
            raise ConfigError(
                f"migu under {accelerator.distributed_type.value}, which has gradients in shards",
                expected="one process, or DDP",
                where=where,
                fix="launch with DDP, or leave it out",
            )
        self._accelerator, self._quantile, self._where = accelerator, quantile, where
        self._counts: torch.Tensor | None = None
        self._layers = layers_of(model)
        if not self._layers:
            seen, expected = "migu, but no linear layer trains", "linear layers, or a LoRA adapter on them"
            raise ConfigError(seen, expected=expected, where=where, fix="leave it out")
        self._sums = [torch.zeros(0) for _ in self._layers]
        model.register_forward_pre_hook(self._begin, with_kwargs=True)
        for place, layer in enumerate(self._layers):
            layer.register_forward_hook(lambda module, args, output, at=place: self._add(at, output))

    def _begin(self, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self._counts = counts_of(kwargs) if model.training and torch.is_grad_enabled() else None

    def _add(self, place: int, output: torch.Tensor) -> None:
        if not (torch.is_grad_enabled() and self._layers[place].training):
            return
        sizes = output.detach().abs().float()
        if self._counts is not None and self._counts.shape == sizes.shape[:-1]:
            sizes = sizes * self._counts[..., None]
        sums = sizes.flatten(0, -2).sum(dim=0)
        held = self._sums[place]
        self._sums[place] = held + sums if held.numel() else sums

    def on_step_begin(self, args, state, control, **kwargs):
        """Forget passes that were made between steps."""
        self._sums = [torch.zeros(0) for _ in self._layers]

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        """Mask the gradients of the step."""
        device, widths = self._accelerator.device, [layer.weight.shape[0] for layer in self._layers]
        own = [sums if sums.numel() else torch.zeros(wide) for sums, wide in zip(self._sums, widths, strict=True)]
        summed = self._accelerator.reduce(torch.cat([each.to(device) for each in own]), reduction="sum")
        if not bool(summed.any()):
            raise TrainingError(
                "no linear layer that trains gave an output in this step, so that migu has nothing to go by",
                expected="layers that are called as modules",
                where=self._where,
                fix="leave it out for this kind of model or adapter",
            )
        for layer, sums in zip(self._layers, summed.split(widths), strict=True):
            if layer.weight.grad is not None:
                layer.weight.grad.mul_(kept_rows(sums, self._quantile)[:, None].to(layer.weight.grad.dtype))


def layers_of(model: nn.Module) -> list[nn.Linear]:
    """Linear layers whose weights train; of a LoRA adapter its B."""
    adapter = isinstance(model, PeftModel)
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module.weight.requires_grad
        and (not adapter or "lora_B" in name.split("."))
    ]
