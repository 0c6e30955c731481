"""Products of float32 rows and weights on a CPU, by oneDNN.

`linear` goes to MKL, which on processors other than Intel's does without AVX-512: less than half of oneDNN's speed. Its
result for a row also changes with the number of rows; oneDNN's was the same for every number tried. The operators are
those that torch's compiler multiplies with, and torch's own business: without them everything is as it was.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
PACK: Any = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)

ROWS = 128
"""Rows that packed weights are laid out for; any number is computed."""

FEWEST = 32
"""Rows from which on a layer in training multiplies by oneDNN: below, the way there takes longer."""

STEPS = ((64, 8), (256, 16), (1024, 64))
"""Up to how many rows which multiples of a number of rows are used; more are taken as they are."""


def available() -> bool:
    """Whether torch has the operators, and its user wants oneDNN (`torch.backends.mkldnn`)."""
    return ONEDNN is not None and PACK is not None and bool(torch.backends.mkldnn.enabled)


def padded_length(rows: int) -> int:
    """Rows to compute in place of so many.

    oneDNN makes a program for each number of rows that it meets, which takes half a millisecond: longer than the
    product itself where a model is small and each pass has another number.
    """
    step = next((step for most, step in STEPS if rows <= most), 1)
    return -(-rows // step) * step


def laid_out(*weights: torch.Tensor, copied: bool) -> list[torch.Tensor]:
    """Weights W for `product`.

    Args:
        weights: W, [out, in], in parts of its rows.
        copied: Lay them out as one in oneDNN's own order, which is faster and takes as much memory again.
    """
    parts = [each.detach() for each in weights]
    if not copied:
        return parts
    whole = torch.cat(parts) if len(parts) > 1 else parts[0]
    return [PACK(whole, ROWS) if available() else whole]


def product(x_N: torch.Tensor, weights: list[torch.Tensor], onednn: bool) -> torch.Tensor:
    """x W' of float32 rows [N, in]: [N, out], without gradients; by oneDNN where that was `available` from the start.

    TorchScript compiles it.
    """
    parts = [multiplied(x_N, each) if onednn else linear(x_N, each) for each in weights]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def product_added(y_N: torch.Tensor, x_N: torch.Tensor, weights: list[torch.Tensor], onednn: bool) -> torch.Tensor:
    """y + x W' for W of one part."""
    if onednn:
        return ONEDNN(x_N, y_N, weights[0], None, "add")
    return torch.addmm(y_N, x_N, weights[0].t())


def install(model: nn.Module) -> None:
    """Let the linear layers of a model multiply by oneDNN where they can: float32 on a CPU, without autocast.

    Layers that are more than torch's own, or whose forward() somebody has replaced, stay as they are.
    """
    for module in model.modules():
        if type(module) is nn.Linear and "forward" not in vars(module):
            module.forward = partial(_forward, module)  # type: ignore[method-assign]


def installed(module: nn.Module) -> bool:
    """Whether `install` has replaced this module's forward()."""
    return getattr(vars(module).get("forward"), "func", None) is _forward


def _forward(self: nn.Linear, input: torch.Tensor) -> torch.Tensor:
    """nn.Linear's."""
    weight, bias = self.weight, self.bias
    if not fits(input, weight) or not (bias is None or bias.dtype == torch.float32):
        return linear(input, weight, bias)
    if not torch.is_grad_enabled():
        return multiplied(input, weight, bias)
    out = _Linear.apply(input.flatten(0, -2), weight, bias)
    return out.unflatten(0, input.shape[:-1])  # here, for a view made in there could not be added to, as AdaLoRA does


def fits(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether rows [..., in] and a weight [out, in] can be `multiplied`, and that pays."""
    return (
        not torch.jit.is_tracing()
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and x.ndim > 1
        and x.shape[-1] == weight.shape[1]  # else torch has the better error
        and x.numel() >= FEWEST * x.shape[-1]
        and weight.numel() > 0
        and x.is_contiguous()
        and weight.is_contiguous()
        and available()
        and type(x) is torch.Tensor
        and type(weight) in (nn.Parameter, torch.Tensor)  # a sharded one is neither
        and not hasattr(weight, "ds_id")  # DeepSpeed's may be empty by the time of the backward pass
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()  # torch.func and vmap
    )


def multiplied(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x W' + b of what `fits`, without gradients."""
    return ONEDNN(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    """x W' + b of rows [N, in], with its gradients."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return multiplied(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        product = linear if torch.is_grad_enabled() else multiplied  # with create_graph it has a gradient itself
        of_x, of_weight, of_bias = ctx.needs_input_grad
        grad = grad.contiguous()
        return (
            product(grad, weight.t()) if of_x else None,
            _of_weight(product, grad, x) if of_weight else None,
            grad.sum(0) if of_bias else None,
        )


def _of_weight(product: Any, grad_N: torch.Tensor, x_N: torch.Tensor) -> torch.Tensor:
    """The gradient [out, in] of a weight. oneDNN copies the first factor where it is turned: that is the narrower."""
    if grad_N.shape[1] > x_N.shape[1]:
        return product(x_N.t(), grad_N.t()).t()
    return product(grad_N.t(), x_N.t())
