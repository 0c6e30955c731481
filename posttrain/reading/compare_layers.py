"""A run's change by layer: how many weights it moved, and of what rank it is (arXiv 2505.11711).

The rank of a matrix's change is the number of its singular values above max(shape) times float32's epsilon times the
largest, as `torch.linalg.matrix_rank` counts, and is given as a share of the smaller side. Of an adapter it is at most
the adapter's rank, and nothing is computed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from posttrain.errors import DataError
from posttrain.reading.compare_weights import ADAPTER_CONFIG, UNCHANGED, Weights, start_folder
from posttrain.rundir.layout import Layout

_LAYER = re.compile(r"\.(\d+)\.")


@dataclass
class LayerChange:
    """What became of a layer.

    Attributes:
        parameters: How many it has.
        beyond: The share of them that differs by more than 1e-5, in float32.
        rank: Mean over its matrices of the rank of the change, as a share of the smaller side.
        matrices: How many these are.
    """

    parameters: int = 0
    beyond: float = 0.0
    rank: float = 0.0
    matrices: int = 0


def layer_changes(layout: Layout) -> dict[int, LayerChange] | str:
    """What a run changed in each layer, from its start to its final model; or why that is not known."""
    if not layout.model.is_dir():
        return "there is no final model yet"
    if (layout.model / ADAPTER_CONFIG).is_file():
        return "it trained an adapter: the change is of the adapter's rank at most"
    start, why = start_folder(layout)
    return by_layer(start, layout.model) if start else why


def by_layer(before: Path, after: Path) -> dict[int, LayerChange]:
    """What differs between two folders of safetensors, by the number in the weights' names.

    Raises:
        DataError: No weight has one.
    """
    found: dict[int, LayerChange] = {}
    with Weights(before) as old, Weights(after) as new:
        for name in new.names:
            numbered = _LAYER.search(name)
            if numbered is None or name not in old.names:
                continue
            change = torch.cat([b.float() - a.float() for a, b in zip(old.pieces(name), new.pieces(name), strict=True)])
            layer = found.setdefault(int(numbered[1]), LayerChange())
            layer.parameters += change.numel()
            layer.beyond += int((change.abs() > UNCHANGED).sum())
            if change.ndim == 2:
                layer.rank += rank_share(change)
                layer.matrices += 1
    if not found:
        raise DataError("no weight has the number of a layer in its name", where=str(after))
    for layer in found.values():
        layer.beyond /= layer.parameters
        layer.rank /= max(layer.matrices, 1)
    return dict(sorted(found.items()))


def rank_share(change: torch.Tensor) -> float:
    """The numerical rank of a matrix as a share of its smaller side; of zeros 0."""
    return int(torch.linalg.matrix_rank(change)) / min(change.shape)


def layers_in_words(found: dict[int, LayerChange] | str) -> str:
    """Such as `of 99.1 % of the full rank (98.0 % in layer 3 to 100 % in layer 0), ...`."""
    if isinstance(found, str):
        return found
    low, high = (chosen(found, key=lambda number: found[number].rank) for chosen in (min, max))
    mean = sum(layer.rank for layer in found.values()) / len(found)
    least, most = (chosen(layer.beyond for layer in found.values()) for chosen in (min, max))
    spread = f" ({found[low].rank:.1%} in layer {low} to {found[high].rank:.1%} in layer {high})" if low != high else ""
    return f"of {mean:.1%} of the full rank{spread}; {least:.1%} to {most:.1%} of a layer moved by more than 1e-5"
