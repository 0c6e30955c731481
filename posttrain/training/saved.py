"""Tensors that a checkpoint of ours holds in files of their own."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from posttrain.errors import ResumeError


def saved_tensors(file: Path, what: str) -> dict[str, torch.Tensor]:
    """What a file of a checkpoint holds.

    Args:
        file: The file.
        what: What its tensors are, for the error.

    Raises:
        ResumeError: It is missing or torn.
    """
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise ResumeError(
            f"{what} cannot be read: {error}",
            expected=f"{file.name}, as it was written with the checkpoint",
            where=str(file),
            fix="resume from an older checkpoint",
        ) from error
