"""The part of `HybridTrainer` that goes by a budget: what is spent, where schedules stand by it, and its end."""

from __future__ import annotations

from typing import Any

from posttrain.errors import ConfigError
from posttrain.processes.ranks import Ranks
from posttrain.training.budget import Budget
from posttrain.training.given import scorer_of
from posttrain.training.scheduled import Scheduled
from posttrain.training.spending import Spending


class Budgeted(Scheduled):
    """Its learning rate, and what its controller and method go by, may follow the share of a budget that is spent.

    Attributes:
        budget: What the stage may spend; `None`: it ends after `max_steps`.
        horizon: Steps that schedules are written for.
        spending: What has been spent.
        ranks: All processes.
    """

    budget: Budget | None
    horizon: int
    spending: Spending
    ranks: Ranks
    reward_funcs: list[Any]

    def _new_spending(self) -> Spending:
        pools = {id(pool): pool for each in self.reward_funcs if (pool := getattr(scorer_of(each), "pool", None))}
        spending = Spending(
            self.model.config,
            self.ranks,
            on_cpu=self.accelerator.device.type == "cpu",
            workers=lambda: [pid for pool in pools.values() for pid in pool.pids()],
            checkpointing=bool(self.args.gradient_checkpointing),
        )
        if self.budget is not None and self.budget.kind == "flops" and spending.shape is None:
            raise ConfigError(
                f"a budget of operations, which are not counted of a {self.model.config.model_type}",
                expected="a dense decoder",
                where="budget",
                fix="give seconds, tokens or steps",
            )
        return spending

    def create_scheduler(self, num_training_steps, optimizer=None):
        """The learning rate's schedule, over the steps that it is written for."""
        if self.budget is None:
            return super().create_scheduler(num_training_steps, optimizer)
        schedule = super().create_scheduler(self.horizon, optimizer)
        if not hasattr(schedule, "lr_lambdas"):
            raise ConfigError(
                f"a budget, and a {type(schedule).__name__} for the learning rate",
                expected="a schedule that is a function of the step, which goes by the share of the budget",
                where="budget",
                fix="take one of transformers' by lr_scheduler_type, or leave the budget out",
            )
        return schedule

    @property
    def clock(self) -> float:
        """Where schedules stand, in steps of `horizon`: the steps done, or the share of the budget that is spent."""
        return self.clock_at(self.state.global_step)

    def clock_at(self, steps: int) -> float:
        """Where they stand after so many steps, by what is spent now."""
        return steps if self.budget is None else self.budget.clock(self.spending.so_far, steps, self.horizon)

    @property
    def budget_is_over(self) -> bool:
        """Whether there is a budget, and nothing left of it."""
        return self.budget is not None and self.budget.is_over(self.spending.so_far, self.state.global_step)

    def _set_learning_rate(self) -> None:
        """That of the next step, by the share of the budget that is spent."""
        schedule, clock = self.lr_scheduler, self.clock
        rates = [base * at(clock) for base, at in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        schedule._last_lr = rates
