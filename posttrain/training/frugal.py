"""FRUGAL (Zmushko et al. 2024, arXiv 2411.07837): AdamW on a share of each matrix's columns, sign descent on the rest.

Every `update_gap` steps other columns get the moments, which begin at 0 with them. The rest moves by `inactive_scale`
times the learning rate, against the sign of its gradient. Parameters that are no weight of a linear layer, and the LM
head, are AdamW's. Deviations: of the paper's projections (blocks, columns, random coordinates, singular vectors) this
is columns; which ones is a function of the seed, the parameter's place and the period, so that checkpoints need not
hold them and a resumed run is one that never stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from posttrain.errors import ConfigError
from posttrain.models.policy_weights import base_model
from posttrain.recipe.optimizers import frugal_settings


class Frugal(Optimizer):
    """AdamW on `density` of the columns of each matrix, sign descent on the others.

    Args:
        params: Parameters, or groups of them; a group of `density` 1 is AdamW's whole.
        lr: Learning rate.
        betas, eps, weight_decay: As of `torch.optim.AdamW`; the decay is of all entries.
        density: Share of the columns that have moments, from 0 to 1.
        update_gap: Steps after which others have them.
        inactive_scale: What the learning rate is times, for entries without moments.
        seed: Of the columns.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0, density: float = 0.25, update_gap: int = 200, inactive_scale: float = 0.1,
        seed: int = 0,
    ):  # fmt: skip
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "density": density}
        )
        self._gap, self._scale, self._seed = update_gap, inactive_scale, seed
        self._columns: dict[int, tuple[int, torch.Tensor]] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        place = 0
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group, place)
                place += 1
        return loss

    def _move(self, p: torch.Tensor, group: dict[str, Any], place: int) -> None:
        assert p.grad is not None
        state, whole = self.state[p], group["density"] >= 1.0 or p.ndim != 2
        done = int(state.setdefault("step", 0))
        kept = None if whole else self._kept(p, group["density"], place, done // self._gap)
        since = done if whole else done % self._gap
        gradient = p.grad if kept is None else p.grad[:, kept]
        if since == 0:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
        state["step"] = done + 1
        p.mul_(1.0 - group["lr"] * group["weight_decay"])
        if kept is not None and len(kept) < p.shape[1]:
            others = p.grad.sign()
            others[:, kept] = 0.0
            p.add_(others, alpha=-group["lr"] * self._scale)
        if not gradient.numel():
            return
        (one, two), first, second = group["betas"], state["exp_avg"], state["exp_avg_sq"]
        first.lerp_(gradient, 1.0 - one)
        second.mul_(two).addcmul_(gradient, gradient, value=1.0 - two)
        spread = (second / (1.0 - two ** (since + 1))).sqrt_().add_(group["eps"])
        move = (first / spread).mul_(-group["lr"] / (1.0 - one ** (since + 1)))
        if kept is None:
            p.add_(move)
        else:
            p.index_add_(1, kept, move)

    def _kept(self, p: torch.Tensor, density: float, place: int, period: int) -> torch.Tensor:
        """Numbers of the columns that have moments in a period."""
        known = self._columns.get(place)
        if known is None or known[0] != period:
            generator = torch.Generator().manual_seed(hash((self._seed, place, period)) & (2**63 - 1))
            chosen = torch.randperm(p.shape[1], generator=generator)[: round(density * p.shape[1])].sort().values
            known = self._columns[place] = (period, chosen.to(p.device))
        return known[1]


def frugal_of(args: Any, model: nn.Module) -> tuple[type[Frugal], dict[str, Any]]:
    """The optimizer and its arguments of a trainer's settings, as `Trainer.get_optimizer_cls_and_kwargs` gives them.

    Raises:
        ConfigError: No weight of a linear layer trains: all would be AdamW's.
    """
    settings = frugal_settings(args.optim_args, "optim_args")
    base = base_model(model)
    head = base.get_output_embeddings()
    matrices = {id(each.weight) for each in base.modules() if isinstance(each, nn.Linear) and each is not head}
    matrices -= {id(each.weight) for each in base.modules() if isinstance(each, nn.Embedding)}  # where they are tied
    trained = [p for p in model.parameters() if p.requires_grad]
    if not any(id(p) in matrices for p in trained):
        raise ConfigError(
            f"frugal, and no linear layer of the {type(base).__name__} trains: it would be AdamW of everything",
            expected="weights of torch.nn.Linear, whose columns it chooses from",
            where="optim",
            fix="set optim: adamw_torch",
        )
    groups = [
        {"params": [p for p in trained if id(p) in matrices], "weight_decay": args.weight_decay},
        {
            "params": [p for p in trained if id(p) not in matrices and p.ndim > 1],
            "weight_decay": args.weight_decay, "density": 1.0,
        },
        {"params": [p for p in trained if id(p) not in matrices and p.ndim < 2], "weight_decay": 0.0, "density": 1.0},
    ]  # fmt: skip
    return Frugal, {
        "params": groups, "lr": args.learning_rate, "betas": (args.adam_beta1, args.adam_beta2),
        "eps": args.adam_epsilon, "seed": args.seed, **settings,
    }  # fmt: skip
