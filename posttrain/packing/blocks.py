"""Spans of nearly the same length side by side, so that few calls of a kernel attend within all of them.

A block pads its spans to the longest by repeating their last position. Causal attention of what is real does not look
at what comes behind, so that nothing is masked; gradients of what repeats are zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

SHARE, MOST = 0.25, 32
"""How much shorter than the longest of its block a span may be: a share of that, and positions at most."""


class Block(NamedTuple):
    """`rows` spans padded to `width` positions.

    Attributes:
        rows, width: R and W.
        places: (R * W,) positions of the packed sequence.
        real: Where in `places` a span stands itself; None: everywhere.
        padding: Where it is repeated.
        own: The positions at the real places.
    """

    rows: int
    width: int
    places: torch.Tensor
    real: torch.Tensor | None
    padding: torch.Tensor
    own: torch.Tensor

    @classmethod
    def of(cls, spans: Sequence[tuple[int, int]], device: torch.device) -> Block:
        """The block of these spans, each from one position up to, not including, another; `own` is in their order."""
        starts, stops = (torch.tensor(ends, device=device)[:, None] for ends in zip(*spans, strict=True))
        width = max(stop - start for start, stop in spans)
        places = starts + torch.arange(width, device=device)
        is_real = (places < stops).flatten()
        places = places.minimum(stops - 1).flatten()
        if is_real.all():
            return cls(len(spans), width, places, None, places[:0], places)
        real = is_real.nonzero()[:, 0]
        return cls(len(spans), width, places, real, (~is_real).nonzero()[:, 0], places[real])

    def take(self, whole: torch.Tensor, *, zero_padded: bool = False) -> torch.Tensor:
        """What stands at the places, (R, H, W, ...), of (1, H, N, ...); where spans are repeated, zeros if so asked."""
        taken = whole[0].transpose(0, 1).index_select(0, self.places)
        if zero_padded:
            taken.index_fill_(0, self.padding, 0)
        return taken.unflatten(0, (self.rows, self.width)).transpose(1, 2)

    def of_own(self, part: torch.Tensor) -> torch.Tensor:
        """What is real of (R, H, W, ...), (n, H, ...) for the n positions `own`."""
        flat = part.transpose(1, 2).flatten(0, 1)
        return flat if self.real is None else flat.index_select(0, self.real)

    def put(self, whole: torch.Tensor, part: torch.Tensor) -> None:
        """Write what is real of (R, H, W, ...) to its positions in (1, H, N, ...)."""
        whole[0].transpose(0, 1).index_copy_(0, self.own, self.of_own(part))


def blocks(spans: Sequence[tuple[int, int]], device: torch.device) -> tuple[Block, ...]:
    """The spans in blocks, the longest first."""
    found: list[list[tuple[int, int]]] = []
    longest = 0
    for start, stop in sorted(spans, key=lambda span: span[0] - span[1]):
        width = stop - start
        if not found or longest - width > min(MOST, int(SHARE * longest)):
            found.append([])
            longest = width
        found[-1].append((start, stop))
    return tuple(Block.of(some, device) for some in found)
