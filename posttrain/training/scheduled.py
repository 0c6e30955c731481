"""Learning-rate schedules and optimizers of ours in trainers of transformers, which takes only its own by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft import PeftModel
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainingArguments

from posttrain.errors import ConfigError
from posttrain.recipe.optimizers import OWN as OWN_OPTIMIZERS
from posttrain.recipe.rates import OWN, rate_of
from posttrain.recipe.schedules import check_schedule, check_warmup
from posttrain.training.frugal import frugal_of


def check_own_schedule(args: TrainingArguments, steps: int) -> None:
    """Refuse a schedule of ours whose arguments it cannot follow over so many steps, and a warm-up that none follows.

    Args:
        args: A stage's.
        steps: Of the stage; 0 or less where they are not known yet.

    Raises:
        ConfigError: With what to write.
    """
    if steps <= 0:
        return
    name = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    warmup_steps = args.get_warmup_steps(steps)
    check_warmup(name, warmup_steps)
    if name in OWN:
        rate = args.learning_rate
        check_schedule(name, args.lr_scheduler_kwargs, learning_rate=rate, steps=steps, warmup_steps=warmup_steps)


@contextmanager
def known_to_transformers(args: TrainingArguments) -> Iterator[None]:
    """Have a schedule of ours stand as a constant one, and an optimizer as AdamW, within the block."""
    theirs = {"lr_scheduler_type": (OWN, "constant"), "optim": (OWN_OPTIMIZERS, "adamw_torch")}
    ours = {field: getattr(args, field) for field, (names, _) in theirs.items() if getattr(args, field) in names}
    for field in ours:
        setattr(args, field, theirs[field][1])
    try:
        yield
    finally:
        for field, name in ours.items():
            setattr(args, field, name)


class Scheduled(Trainer):
    """A trainer whose `args.lr_scheduler_type` may be one of `recipe.rates`, its arguments in `lr_scheduler_kwargs`.

    `args.optim` may be `frugal`, its arguments in `optim_args`.

    The schedule is a function of the clock, like transformers' own: a checkpoint holds where it stands, and a resumed
    run goes on from there; a budget's clock drives it.
    """

    lr_scheduler: Any

    def get_optimizer_cls_and_kwargs(self, args: TrainingArguments, model: Any = None) -> tuple[Any, dict[str, Any]]:
        """transformers', or ours.

        Raises:
            ConfigError: Ours with weights that are sharded, or an adapter.
        """
        if args.optim not in OWN_OPTIMIZERS:
            return super().get_optimizer_cls_and_kwargs(args, model)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled or isinstance(model, PeftModel):
            raise ConfigError(
                f"{args.optim}, and " + ("an adapter" if isinstance(model, PeftModel) else "weights that are sharded"),
                expected="whole weights in each process",
                where="optim",
                fix="set optim: adamw_torch",
            )
        return frugal_of(args, model)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """transformers', or ours.

        Raises:
            ConfigError: One of ours with an optimizer that steps layer by layer.
        """
        args, name = self.args, self.args.lr_scheduler_type
        if self.lr_scheduler is not None or name not in OWN:
            return super().create_scheduler(num_training_steps, optimizer)
        with known_to_transformers(args):
            schedule = super().create_scheduler(num_training_steps, optimizer)
        if not hasattr(schedule, "lr_lambdas"):
            raise ConfigError(
                f"the schedule {name} with {type(schedule.optimizer).__name__}, which steps layer by layer",
                expected="an optimizer that steps once a step",
                where="lr_scheduler_type",
                fix="take one of transformers' schedules, or the optimizer without _layerwise",
            )
        rate = rate_of(
            name,
            args.lr_scheduler_kwargs or {},
            learning_rate=args.learning_rate,
            steps=num_training_steps,
            warmup_steps=args.get_warmup_steps(num_training_steps),
        )
        self.lr_scheduler = LambdaLR(schedule.optimizer, rate)
        return self.lr_scheduler
