"""Whether the processes of a run still do the same: what each holds in common with the others, as comparable facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def facts_of(trainer: Any, agreement: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same on every process after a step, by name.

    Args:
        trainer: A `HybridTrainer`.
        agreement: More facts by name.
    """
    record = trainer.last_record
    return {
        "step": trainer.state.global_step,
        "max_steps": trainer.args.max_steps,
        "prompts": len(trainer.train_dataset),
        "demonstrations": trainer.sft.stream.size if trainer.sft else 0,
        "prompt cursor": trainer.prompts.cursor,
        "curriculum": getattr(trainer.prompts, "fingerprint", None),
        "demonstration cursor": trainer.sft.stream.cursor if trainer.sft else 0,
        "demonstrations that wait": trainer.buffer.waiting if trainer.buffer is not None else [],
        "rollouts": record.get("rollouts", 0),
        "mix": record.get("mix"),
        "reason": record.get("reason"),
        "gradient norm": record.get("grad_norm"),
        **{f"controller's {name}": value for name, value in sorted((trainer.controller_state or {}).items())},
        **agreement,
    }
