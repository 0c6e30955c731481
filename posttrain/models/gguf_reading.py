"""Reading a GGUF file in a third of the time, and once instead of three times. Loads no torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@functools.cache
def _kind() -> Any:
    """A `gguf.GGUFReader` without a memory map's own slices: of a vocabulary there are a million, which cost more than
    all else that it does."""
    import gguf
    import numpy as np

    class Reader(gguf.GGUFReader):
        @property
        def data(self) -> Any:
            return self._whole

        @data.setter
        def data(self, whole: Any) -> None:
            self._whole = np.asarray(whole)

    return Reader


def read(file: Path) -> Any:
    """The file's fields and tensors, as `gguf.GGUFReader` has them.

    Raises:
        ValueError, IndexError, KeyError: It is no whole GGUF file.
    """
    return _kind()(file)


@contextmanager
def sharing(file: Path, reader: Any = None) -> Iterator[None]:
    """Let transformers have what was read of `file`, and the table of names once, which it makes for every module."""
    import gguf

    known = {} if reader is None else {str(file): reader}

    def shared(path: Any, *mode: Any) -> Any:
        if str(path) not in known:
            known[str(path)] = _kind()(path, *mode)
        return known[str(path)]

    ours: dict[str, Callable[..., Any]] = {
        "GGUFReader": shared,
        "get_tensor_name_map": functools.cache(gguf.get_tensor_name_map),
    }
    theirs = {name: getattr(gguf, name) for name in ours}
    for name, function in ours.items():
        setattr(gguf, name, function)
    try:
        yield
    finally:
        for name, function in theirs.items():
            setattr(gguf, name, function)
