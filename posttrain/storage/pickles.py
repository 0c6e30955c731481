"""What could run code when a checkpoint is read, looked at before anything reads it.

Weights are safetensors. What torch and transformers keep beside them are pickles: the optimizer's, the schedule's and
the random state, which transformers reads as plain tensors (`weights_only`), and the parts of a sharded checkpoint
(`torch.distributed.checkpoint`), which torch reads without such a limit. DeepSpeed reads its own files without one too,
and they are not looked at here: go on under ZeRO only from folders that nobody else can write to.
"""

from __future__ import annotations

import fnmatch
import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata

from posttrain.errors import ResumeError

PICKLED_WEIGHTS = ("pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json", "adapter_model.bin")
SHARDS = ".metadata"
"""How the table of contents of a sharded checkpoint ends, the common one and those of single ranks."""

METADATA = {
    "collections": {"OrderedDict"},
    "pathlib": {"Path", "PosixPath", "PurePosixPath"},
    "torch": {"Size", *(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))},
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.serialization": {"_get_layout"},
}
"""Module -> what a table of contents is made of."""


def check_checkpoint(checkpoint: Path) -> None:
    """Refuse a checkpoint that could run code when it is read.

    Raises:
        ResumeError: It holds weights as a pickle, or a part of it holds more than tensors and plain values.
    """
    for path in sorted(checkpoint.rglob("*")):
        if any(fnmatch.fnmatch(path.name, pattern) for pattern in PICKLED_WEIGHTS):
            raise ResumeError(
                f"{path.name} is a pickle, which can run code when it is read",
                expected="weights as safetensors, which is how checkpoints are written here",
                where=str(checkpoint),
                fix="delete that checkpoint and resume: the one before it is used",
            )
        if path.name.endswith(SHARDS):
            try:
                _check_shards(path)
            except (pickle.UnpicklingError, EOFError, AttributeError, KeyError, OSError, RuntimeError) as error:
                raise not_plain(checkpoint, error) from error


def not_plain(checkpoint: Path | str, error: Exception) -> ResumeError:
    """The error for a checkpoint of which a part is no plain data, from what the reader said."""
    return ResumeError(
        f"a file of the checkpoint is torn, or holds more than tensors and plain values: {str(error).splitlines()[0]}",
        expected="what training wrote there",
        where=str(checkpoint),
        fix="delete that checkpoint and resume: the one before it is used",
    )


def _check_shards(table: Path) -> None:
    with table.open("rb") as file:
        metadata = _Table(file).load()
    if not isinstance(metadata, Metadata):
        raise pickle.UnpicklingError(f"{table.name} is a {type(metadata).__name__}")
    plain = {name for name, kind in metadata.state_dict_metadata.items() if isinstance(kind, BytesStorageMetadata)}
    for index, place in (metadata.storage_data or {}).items():
        if index.fqn in plain:
            with (table.parent / place.relative_path).open("rb") as shard:
                shard.seek(place.offset)
                torch.load(io.BytesIO(shard.read(place.length)), map_location="cpu", weights_only=True)


class _Table(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in METADATA.get(module, ()):
            raise pickle.UnpicklingError(f"{SHARDS} names {module}.{name}")
        return super().find_class(module, name)
