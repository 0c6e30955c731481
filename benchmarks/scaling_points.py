"""The points that `scaling.py` measures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

LENGTHS, GROUPS = (128, 256, 512, 1024, 2048, 4096), (4, 8, 16, 32, 64)
SIZES = {"1M": (128, 4), "4M": (256, 4), "15M": (384, 6), "60M": (640, 9)}  # hidden, layers
TOKENS = 4096
"""Of a step's completions, about, on the axis of lengths; but at least four completions."""


@dataclass(frozen=True)
class Point:
    """One thing to measure.

    Attributes:
        axis: What varies: length, group, size; or dropped, vocab, long (only for the cost model).
        part: training, generation, logprobs or sft.
        trainer: ours, or TRL's.
        size: One of SIZES.
        longest: Limit on a completion's tokens.
        group: Completions per prompt.
        rows: Completions.
        micro_batch: Rows of a micro-batch.
        prompt: Tokens of a prompt.
        dropped: Share of groups whose rewards are all the same.
        vocab: Rows of the head.
    """

    axis: str
    part: str = "training"
    trainer: str = "ours"
    size: str = "1M"
    longest: int = 256
    group: int = 8
    rows: int = 16
    micro_batch: int = 8
    prompt: int = 128
    dropped: float = 0.0
    vocab: int = 2048

    @property
    def kind(self) -> str:
        """What `--parts` calls it."""
        return "trl" if self.trainer == "TRL" else self.part

    @property
    def name(self) -> str:
        """For tables and errors."""
        return f"{self.part}, {self.trainer}: {self.size}, {self.rows} x {self.longest}, G {self.group}" + (
            f", {self.dropped:.0%} dropped" if self.dropped else ""
        ) + (f", vocabulary {self.vocab}" if self.vocab != 2048 else "")  # fmt: skip


def points() -> Iterator[Point]:
    """All of them, the axes one after the other, each of its points for every part before the next point."""
    for longest in LENGTHS:
        one = Point("length", longest=longest, group=4, rows=max(4, 2 * TOKENS // longest), micro_batch=4)
        yield one
        yield replace(one, trainer="TRL")
        yield replace(one, part="generation")
        yield replace(one, part="logprobs", rows=8 if longest < 2048 else 4)
    for group in GROUPS:
        one = Point("group", longest=128, group=group, rows=64)
        yield one
        yield replace(one, trainer="TRL")
        yield replace(one, part="generation")
    for size in SIZES:
        one = Point("size", size=size, longest=128)
        yield one
        yield replace(one, part="generation")
        yield replace(one, part="logprobs", rows=8)
        yield replace(one, part="sft", rows=8)
    for dropped in (0.5, 0.75):
        yield Point("dropped", rows=64, dropped=dropped)
    for vocab in (8192, 32768):
        one = Point("vocab", vocab=vocab)
        yield one
        yield replace(one, part="generation")
        yield replace(one, part="logprobs")
        yield replace(one, part="sft")
    for longest in (512, 1024, 2048, 4096):
        yield Point("long", part="sft", longest=longest, rows=4, micro_batch=2)
