"""AdaLoRA's budget of ranks (Zhang et al. 2023, arXiv 2303.10512), driven by the steps that a stage really takes.

An update is P diag(E) Q; the triplets of all layers share a budget, which falls from `init_r` to `target_r` a layer by
a cubic, and what is over it has its E set to 0. PEFT has the scores and the masks, and leaves it to the training loop
to call them with the right step. Here the first stage that trains an adapter spends the whole schedule, by its steps or
by the share of its budget that is spent, and later stages train what is left.

Deviations: the penalty that keeps P and Q orthogonal is added to the gradient right before the optimizer, for the
losses of a stage are no `outputs.loss`, to which PEFT adds it; so it is in no recorded loss or norm. The ranks that are
left are kept as zeros in E, never cut out, so that a checkpoint has the shapes that its optimizer has. The smoothed
importance of each weight is kept in the optimizer's state, which checkpoints hold: a resumed run is one that never
stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch import nn
from transformers import TrainerCallback

from posttrain.errors import ConfigError

AVERAGES = ("exp_avg_ipt", "exp_avg_unc")
"""What PEFT smooths of each weight: its importance, and how uncertain that is."""


def budget_at(done: float, *, steps: float, tinit: float, tfinal: float, first: int, last: int) -> int:
    """Triplets that may be left after so many steps.

    Args:
        done: Steps, or the place in `steps` by a stage's budget.
        steps: Of the stage.
        tinit, tfinal: At its beginning with all of them, and at its end with the last.
        first, last: Triplets before and behind.
    """
    share = (done - tinit) / (steps - tinit - tfinal)
    left = 1.0 - min(max(share, 0.0), 1.0)
    return int((first - last) * left**3 + last)


class RankBudget(TrainerCallback):
    """Spends the budget of an AdaLoRA adapter over a stage, or keeps the ranks that an earlier one left.

    Args:
        steps: Of the stage; None keeps what there is.
        orth_reg_weight: Of the penalty that keeps P and Q orthogonal.
        clock: Given the steps done, where the stage stands in `steps`, if it has a budget. Of one that is not of steps
            that is known only when a step has ended, so that the step is scored by where it began. None: at the steps.
    """

    def __init__(
        self, steps: int | None, *, orth_reg_weight: float = 0.5, clock: Callable[[int], float] | None = None
    ) -> None:
        self._steps, self._weight, self._clock = steps, orth_reg_weight, clock
        self._kept: dict[str, torch.Tensor] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Where no budget is left to spend, remember what an earlier stage or session left.

        Raises:
            ConfigError: Weights that are sharded, whose gradients are not at hand.
        """
        if AcceleratorState().distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
            raise ConfigError(
                "an AdaLoRA adapter, and weights that are sharded", expected="DDP, or one process", where="lora.kind",
                fix="launch with --config ddp, or set kind: lora",
            )  # fmt: skip
        if self._steps is None or self._done(state.global_step) >= self._end(model):
            self._keep(model)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Add the gradient of the penalty."""
        if self._weight:
            add_penalty(model, self._weight)

    def on_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **kwargs: Any
    ) -> None:
        """Score the triplets by the gradient, and mask those over the budget."""
        if self._kept is not None:
            for name, parameter in _values(model):
                parameter.data.mul_(self._kept[name])
            return
        done = self._done(state.global_step + 1)
        if done < self._end(model) and not any(p.grad is None for _, p in _values(model)):  # a step that was skipped
            _score(model, model.base_model.rankallocator, optimizer)
        if self._clock is None:
            self._allocate(model, optimizer, state.global_step + 1)

    def on_step_end(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **kwargs: Any
    ) -> None:
        """Mask them behind the step where a budget says where the stage stands: what it spent is known by now."""
        if self._clock is not None and self._kept is None:
            self._allocate(model, optimizer, state.global_step)

    def _allocate(self, model: Any, optimizer: Any, steps: int) -> None:
        allocator, config, done = model.base_model.rankallocator, model.peft_config["default"], self._done(steps)
        first, last = allocator.init_bgt, allocator.target_bgt
        told = {"steps": self._steps, "tinit": config.tinit, "tfinal": config.tfinal, "first": first, "last": last}
        budget, over = budget_at(done, **told), done >= self._end(model)
        if budget < first and (over or steps % config.deltaT == 0) and _recall(model, allocator, optimizer):
            allocator.mask_to_budget(model, budget)
        if over:
            self._keep(model)

    def _done(self, steps: int) -> float:
        return steps if self._clock is None else self._clock(steps)

    def _end(self, model: Any) -> float:
        """Where the schedule has come to its last budget."""
        return (self._steps or 0) - model.peft_config["default"].tfinal

    def _keep(self, model: Any) -> None:
        self._kept = {name: (parameter.detach() != 0).to(parameter.dtype) for name, parameter in _values(model)}


def add_penalty(model: nn.Module, weight: float) -> None:
    """Add the gradient of weight * mean over all P and Q of the Frobenius norm of (their Gram matrix - I)."""
    factors = [(n, p) for n, p in model.named_parameters() if ("lora_A" in n or "lora_B" in n) and p.grad is not None]
    for name, parameter in factors:
        with torch.enable_grad():
            value = parameter.detach().requires_grad_()
            gram = value @ value.T if "lora_A" in name else value.T @ value
            apart = torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device, dtype=gram.dtype))
            (gradient,) = torch.autograd.grad(apart, value)
        parameter.grad.add_(gradient, alpha=weight / len(factors))  # type: ignore[union-attr]


def _values(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The E of each layer."""
    return ((name, p) for name, p in model.named_parameters() if ".lora_E." in name)


def _factors(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in model.named_parameters() if "lora_" in name and "default" in name]


def _recall(model: Any, allocator: Any, optimizer: Any) -> bool:
    """Give PEFT its averages from the optimizer's state; whether any step has been scored."""
    for name, parameter in _factors(model):
        held = optimizer.state[parameter]
        if AVERAGES[0] not in held:
            return False
        for average in AVERAGES:
            getattr(allocator, average)[name] = held[average]
    return True


def _score(model: Any, allocator: Any, optimizer: Any) -> None:
    """One step of PEFT's averages, which lie in the optimizer's state."""
    factors = _factors(model)
    for name, parameter in factors:
        held = optimizer.state[parameter]
        allocator.ipt[name] = torch.zeros_like(parameter)
        for average in AVERAGES:
            getattr(allocator, average)[name] = held.get(average, torch.zeros_like(parameter))
    allocator.update_ipt(model)
    for name, parameter in factors:
        for average in AVERAGES:
            optimizer.state[parameter][average] = getattr(allocator, average)[name].detach()
