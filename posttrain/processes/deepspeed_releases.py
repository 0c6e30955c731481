"""Releases of DeepSpeed whose ZeRO-2 loses gradients of a step that is accumulated. Loads no torch.

Measured on one CPU process with torch 2.13 (`benchmarks/README.md` has the table): there not only the norm is wrong but
the gradient that DeepSpeed steps on, so that such a run trains on part of its rows.
"""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec

from posttrain.errors import ConfigError

FIRST_WRONG, FIRST_RIGHT = "0.17.6", "0.18.3"
"""Of ZeRO-2 with its optimizer on the GPU (deepspeedai/DeepSpeed#7718)."""
OFFLOADS_FROM = "0.19.0"
"""The first release that is right with the optimizer on the CPU (deepspeedai/DeepSpeed#7967, #7981). Both name ZeRO-1,
too; where we measured, on one process, nothing was wrong in it."""


def installed_version() -> str | None:
    """The version of DeepSpeed here; `None` where there is none, or nobody knows which."""
    if find_spec("deepspeed") is None:
        return None
    try:
        return metadata.version("deepspeed")
    except metadata.PackageNotFoundError:
        return None


def sound_from(version: str, stage: int, *, offloads: bool) -> str | None:
    """The first sound release, if one of DeepSpeed loses gradients of steps that are accumulated; else `None`.

    Args:
        version: The release.
        stage: Of ZeRO.
        offloads: Whether the optimizer is on the CPU (`offload_optimizer_device`).
    """
    from packaging.version import InvalidVersion, Version

    try:
        release = Version(version)
    except InvalidVersion:
        return None
    if offloads and stage in (1, 2) and release < Version(OFFLOADS_FROM):
        return OFFLOADS_FROM
    if stage == 2 and Version(FIRST_WRONG) <= release < Version(FIRST_RIGHT):
        return FIRST_RIGHT
    return None


def unsound(stage: int | None, *, offloads: bool, accumulation: int, where: str) -> ConfigError | None:
    """The error of a step that the DeepSpeed here would lose gradients of; `None` where it would not.

    Args:
        stage: Of ZeRO; `None` without DeepSpeed.
        offloads: Whether the optimizer is on the CPU.
        accumulation: Micro-batches of a step.
        where: The key that says how many.
    """
    version = installed_version()
    if stage is None or version is None or accumulation < 2:
        return None
    sound = sound_from(version, stage, offloads=offloads)
    if sound is None:
        return None
    how = f"ZeRO-{stage}" + (" with its optimizer on the CPU" if offloads else "")
    return ConfigError(
        f"{accumulation} under {how} in DeepSpeed {version}, which loses gradients of some of these micro-batches",
        expected=f"DeepSpeed {sound} or newer",
        where=where,
        fix=f"pip install 'deepspeed>={sound}', set it to 1, or launch with --config fsdp2",
    )
