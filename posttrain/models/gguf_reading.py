"""Reading GGUF files as the `gguf` package and transformers do, but each header once, and faster.

A header has the vocabulary: a hundred thousand strings of a small model, each several objects of the reader's. As they
are, transformers reads it three times to load a model, after us, and makes a table of all names of tensors anew for
each module of the model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any


def read(file: str | PathLike[str]) -> Any:
    """A `gguf.GGUFReader` of a file.

    Raises:
        ValueError: This is no whole GGUF file, as are IndexError and KeyError.
    """
    return _reader()(file)


@contextmanager
def read_once() -> Iterator[Callable[[str | PathLike[str]], Any]]:
    """In the block whoever reads a GGUF file by `gguf` gets what this gives: a `read` that remembers.

    After it nothing is kept: a header takes many times the room that it has in the file.
    """
    module: Any = import_module("gguf")
    reader, table = module.GGUFReader, module.get_tensor_name_map
    known: dict[Path, Any] = {}

    def remembered(file: str | PathLike[str]) -> Any:
        path = Path(file).resolve()
        if path not in known:
            known[path] = read(path)
        return known[path]

    module.GGUFReader, module.get_tensor_name_map = remembered, functools.cache(table)
    try:
        yield remembered
    finally:
        module.GGUFReader, module.get_tensor_name_map = reader, table


@functools.cache
def _reader() -> Any:
    from gguf import GGUFReader

    class Reader(GGUFReader):
        """Over a plain array: a slice of a `numpy.memmap` is an object that costs several times as much."""

        @property
        def data(self) -> Any:
            return self._data

        @data.setter
        def data(self, mapped: Any) -> None:
            import numpy

            self._data = mapped.view(numpy.ndarray)

    return Reader
