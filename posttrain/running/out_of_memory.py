"""What a run that is out of memory says: which part of it was, how much it wanted, and what to set (`remedies`).

Exceptions are told by their text and by the calls they come from, so that importing this loads no torch.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from posttrain.errors import PosttrainError, TrainingError
from posttrain.recipe.recipe import Recipe
from posttrain.running.remedies import Part, Remedy, Shortage, remedies

WORDS: dict[Part, str] = {
    "warmup": "an SFT step of the warm-up",
    "sft": "the SFT half of a hybrid step",
    "grpo": "the GRPO half of a hybrid step",
    "sampling": "sampling rollouts with transformers",
    "kl": "scoring rollouts with the starting policy, for the KL",
    "snapshot": "copying the starting policy, for the KL",
    "optimizer": "the optimizer's step, which keeps two numbers for each one that trains",
    "evaluation": "an evaluation",
    "vllm": "vLLM",
    "loading": "loading a model",
    "unknown": "the run",
}

PLACES: tuple[tuple[str, str, Part], ...] = (
    ("torch/optim/", "", "optimizer"),
    ("accelerate/optimizer.py", "step", "optimizer"),
    ("posttrain/training/sft_side.py", "backward", "sft"),
    ("posttrain/rollouts/seeded.py", "sample", "sampling"),
    ("posttrain/training/grpo_side.py", "_generate", "sampling"),
    ("posttrain/training/window/kl.py", "score", "kl"),
    ("posttrain/training/window/kl.py", "take", "snapshot"),
    ("posttrain/training/trainer.py", "training_step", "grpo"),
    ("posttrain/rollouts/vllm.py", "", "vllm"),
    ("posttrain/rollouts/vllm_build.py", "start", "vllm"),
    ("posttrain/evaluation/examiner.py", "_examine", "evaluation"),
    ("posttrain/models/load.py", "load_policy", "loading"),
    ("posttrain/running/policies.py", "load", "loading"),
    ("posttrain/running/stages.py", "_trainer", "loading"),
    ("posttrain/training/warmup.py", "warm_up", "warmup"),
)
"""Part of a file's path, function ("" is any) and the part of a run that it is; the innermost call decides."""

_SAID = re.compile(
    r"(cuda|hip|xpu|mps|npu)[^.]{0,40} out of memory|cuda error: out of memory|CUBLAS_STATUS_ALLOC_FAILED"
    r"|can't allocate memory|No available memory for the cache blocks|less than desired GPU memory utilization"
    r"|larger than the available KV cache memory|OutOfMemoryError",
    re.IGNORECASE,
)
_SIZE = r"[\d.]+ (?:bytes|[KMGT]iB)"
_ASKED = re.compile(rf"[Tt]ried to allocate ({_SIZE})|\(({_SIZE}) KV cache is needed")
_FREE = re.compile(
    rf"of which ({_SIZE}) is free|available KV cache memory \(({_SIZE})\)|Free memory on device[^(]*\(([\d.]+)/"
)
_TOTAL = re.compile(rf"total capacity of ({_SIZE})|Free memory on device[^(]*\([\d.]+/([\d.]+) GiB\)")


def shortage(error: BaseException) -> Shortage | None:
    """What an exception, or what caused it, says of missing memory; `None` if it is another kind of error."""
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen)
        if type(seen).__name__ == "OutOfMemoryError" or (
            isinstance(seen, RuntimeError | ValueError | OSError) and _SAID.search(text)
        ):
            asked, free, total = (_first(pattern, text) for pattern in (_ASKED, _FREE, _TOTAL))
            in_gib = [f"{number} GiB" if number and number[-1].isdigit() else number for number in (asked, free, total)]
            return Shortage(text or type(seen).__name__, *in_gib)
        seen = seen.__cause__
    return None


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    return next((group for group in found.groups() if group), None) if found else None


def part_of(error: BaseException) -> Part:
    """Which part of a run an exception comes from, by the innermost of its calls that belongs to one."""
    chain: list[BaseException] = []
    seen: BaseException | None = error
    while seen is not None:
        chain.append(seen)
        seen = seen.__cause__
    for one in reversed(chain):
        for frame in reversed(traceback.extract_tb(one.__traceback__)):
            for file, function, part in PLACES:
                if file in frame.filename and function in ("", frame.name):
                    return part
    return "unknown"


# ---- in words ----


def explanation(
    error: Exception,
    recipe: Recipe,
    *,
    processes: int = 1,
    on_gpu: bool = True,
    rank: int | None = None,
    checkpoint: Path | None = None,
    go_on: str = "--resume",
) -> TrainingError | None:
    """The error to raise for one that says that memory ran out; `None` for any other.

    Args:
        error: What was raised.
        recipe, processes, on_gpu: As for `remedies`.
        rank: This process's number, where there are several.
        checkpoint: The last whole one.
        go_on: How to go on with the run, as a command.
    """
    said = shortage(error)
    if said is None:
        return None
    part = part_of(error)
    found = remedies(recipe, part, processes, on_gpu=on_gpu, said=said)
    place = error.where if isinstance(error, PosttrainError) and error.where else None
    told = TrainingError(
        f"out of memory in {WORDS[part]}: {said.in_words()}",
        expected=f"the recipe to fit, as with {found[0].in_words()}" if found else "a GPU with more memory",
        where=place if rank is None or getattr(error, "shared", False) else f"rank {rank}",
        fix=_fix(found, checkpoint, go_on),
    )
    told.shared = getattr(error, "shared", False)
    return told


def _fix(found: list[Remedy], checkpoint: Path | None, go_on: str) -> str:
    saved = f"{checkpoint} is whole" if checkpoint else "there is no checkpoint yet"
    if not found:
        return f"a smaller model, or more processes (posttrain launch --config fsdp2); {saved}"
    first, *others = found
    command = go_on.replace("--resume", "--restart") if first.flag == "--restart" else go_on
    command += f" {first.typed()}" + (" --accept-changes" if first.flag == "--accept-changes" else "")
    also = f"; or, instead or besides: {others[0].in_words()}" if others else ""
    return f"{saved}; to go on: {command}{also}"


@contextmanager
def explained(
    recipe: Recipe, *, processes: int, rank: int | None, last_checkpoint: Callable[[], Path | None]
) -> Iterator[None]:
    """Turn an exception in the block that says that memory ran out into one that says what to set.

    Args:
        recipe: The run's, as it was started.
        processes: How many it was started on.
        rank: This process's number, where there are several.
        last_checkpoint: Finds the one to go on from.

    Raises:
        TrainingError: A device or the host is out of memory.
    """
    try:
        yield
    except Exception as error:
        import torch

        from posttrain.running.callbacks import how_to_go_on

        on_gpu = torch.cuda.is_available() and recipe.run.device != "cpu"
        told = explanation(
            error, recipe, processes=processes, on_gpu=on_gpu, rank=rank, checkpoint=last_checkpoint(),
            go_on=how_to_go_on(),
        )  # fmt: skip
        if told is None:
            raise
        raise told from error
