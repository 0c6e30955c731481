"""Whether training can go on from a checkpoint: it is sharded as this start is, and holds more than the model.

transformers goes on without a word where the optimizer's state is missing, with a new optimizer and the schedule from
its beginning; what another way of sharding saved it either cannot read or takes for such a checkpoint.
"""

from __future__ import annotations

from pathlib import Path

from posttrain.errors import ResumeError

FSDP, DEEPSPEED, WHOLE = "FSDP", "DeepSpeed", "whole"
LAUNCHES = {
    FSDP: "with `posttrain launch RECIPE --config fsdp2`",
    DEEPSPEED: "with the same DeepSpeed configuration as before (`posttrain launch RECIPE --config zero2` or zero3)",
    WHOLE: "on one process or with `posttrain launch RECIPE --config ddp`",
}
"""How a checkpoint was saved -> how to start so that it can be read."""

SAVED = {FSDP: "in shards, under FSDP", DEEPSPEED: "under DeepSpeed", WHOLE: "whole, by one process or under DDP"}
STARTS = {FSDP: "shards with FSDP", DEEPSPEED: "shards with DeepSpeed", WHOLE: "does not shard"}


def saved_as(checkpoint: Path) -> str:
    """`FSDP`, `DEEPSPEED` or `WHOLE`, by the names that accelerate and DeepSpeed give to what they write."""
    if any(checkpoint.glob("pytorch_model_fsdp*")):
        return FSDP
    return DEEPSPEED if any(checkpoint.glob("global_step*")) else WHOLE


def check_resumable(checkpoint: Path, *, fsdp: bool, deepspeed: bool) -> None:
    """Refuse a checkpoint that training would not go on from as if it had never stopped.

    Args:
        checkpoint: The folder.
        fsdp, deepspeed: How this start shards the model.

    Raises:
        ResumeError: It was sharded in another way, or lacks the state of the optimizer or of the schedule.
    """
    before, now = saved_as(checkpoint), FSDP if fsdp else DEEPSPEED if deepspeed else WHOLE
    missing = _missing(checkpoint, before)
    if missing:
        raise ResumeError(
            f"{checkpoint.name} lacks {' and '.join(missing)}: training would start them anew",
            expected="a checkpoint saved with its optimizer, without save_only_model",
            where=str(checkpoint),
            fix="resume from another checkpoint, or train from the model alone: pass it as `model`, without "
            "resume_from_checkpoint",
        )
    if before != now:
        raise ResumeError(
            f"{checkpoint.name} was saved {SAVED[before]}, and this start {STARTS[now]}",
            expected="the same way of sharding when a run is resumed",
            where=str(checkpoint),
            fix=f"start {LAUNCHES[before]}; or begin anew with --restart",
        )


def _missing(checkpoint: Path, saved: str) -> list[str]:
    """What transformers would pass over in silence; DeepSpeed reads its own state, and says what it misses."""
    if saved == DEEPSPEED:
        return []
    pattern, name = ("optimizer*", "optimizer_0") if saved == FSDP else ("optimizer.*", "optimizer.pt")
    missing = [] if any(checkpoint.glob(pattern)) else [f"the optimizer's state ({name})"]
    return missing if (checkpoint / "scheduler.pt").is_file() else [*missing, "the schedule's state (scheduler.pt)"]
