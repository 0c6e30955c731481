"""Numbers of each prompt as text in a JSON state: a million of them take some MB and milliseconds."""

from __future__ import annotations

import base64

import numpy as np


def packed(values: np.ndarray) -> str:
    """An array of one dimension as text; its type and byte order are for whoever unpacks it to know."""
    return base64.b64encode(np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes()).decode()


def unpacked(text: str, kind: str) -> np.ndarray:
    """What `packed` made a text of.

    Args:
        text: Of an array.
        kind: Its type, such as `f4` or `u1`.
    """
    return np.frombuffer(base64.b64decode(text), dtype=np.dtype(kind).newbyteorder("<")).astype(kind)
